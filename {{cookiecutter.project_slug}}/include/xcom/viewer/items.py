"""Describe a long list that is stored in pieces: a page of its items, from the pieces that they are in."""

from __future__ import annotations

import json
from bisect import bisect_right
from itertools import accumulate
from typing import Any

from ..codecs.compression import decompress
from ..codecs.zip_bundle import is_bundle
from ..errors import PayloadCorruptError
from ..stores import checksum
from . import limits, trees, zips
from .pipe import PipedFile, Question, Window

__all__ = ["describe", "open_part"]

_CHECKSUM_BYTES = 4
_LENGTH_BYTES = 4


class _Pieces:
    """The pieces of a list, as its index has them."""

    def __init__(self, file: PipedFile, index_bytes: object) -> None:
        if type(index_bytes) is not int or not 0 < index_bytes <= file.size:
            raise PayloadCorruptError("its row does not say how long its index is")
        try:
            index = json.loads(decompress(file.range(file.size - index_bytes, file.size), limits.JSON_BYTES))
            self.starts = [0, *accumulate(index["sizes"])]
            self.ends = list(accumulate(index["items"]))
        except (ValueError, TypeError, KeyError) as error:
            raise PayloadCorruptError("its index has an unknown form") from error
        if len(self.starts) != len(self.ends) + 1 or self.starts[-1] != file.size - index_bytes:
            raise PayloadCorruptError("its index does not fit its pieces")
        self._file = file

    def open(self, number: int) -> tuple[PipedFile, list[Any]]:
        """Return the payload of a piece, and the handles in it as JSON."""
        start, stop = self.starts[number : number + 2]
        framed = self._file.range(start, stop)
        if framed[:_CHECKSUM_BYTES].hex() != checksum([framed[_CHECKSUM_BYTES:]]):
            raise PayloadCorruptError(f"has other bytes in piece {number} than what was written")
        at = _CHECKSUM_BYTES + _LENGTH_BYTES
        length = int.from_bytes(framed[_CHECKSUM_BYTES:at], "little")
        _, _, handles = json.loads(framed[at : at + length])
        return Window(self._file, start + at + length, stop - start - at - length), handles

    def first(self, number: int) -> int:
        """Return the place in the list of the first item of a piece."""
        return self.ends[number - 1] if number else 0

    def items(self, number: int) -> list[Any]:
        """Return the items of a piece as JSON."""
        payload, handles = self.open(number)
        found = _value(payload)
        if type(found) is not list:
            raise PayloadCorruptError(f"piece {number} is not a list")
        return [_named(item, number, handles) for item in found]


def describe(file: PipedFile, question: Question) -> dict[str, Any]:
    """Describe the items from ``question.start`` on, as many as one page may read.

    Raises:
        PayloadCorruptError: It is not a list in pieces, or a piece of it is damaged.
    """
    pieces = _Pieces(file, question.facts.get("index_bytes"))
    count = pieces.ends[-1] if pieces.ends else 0
    start = max(0, min(question.start, count - 1))
    opened = bisect_right(pieces.ends, start)
    items: list[Any] = []
    for number in range(opened, len(pieces.ends)):
        is_costly = pieces.starts[number + 1] - pieces.starts[opened] > limits.FIRST_PAINT_BYTES
        if len(items) >= limits.TREE_ITEMS or (items and is_costly):
            break
        items += pieces.items(number)[max(0, start - pieces.first(number)) :]
    is_last = start + len(items) >= count
    page = limits.TREE_ITEMS if is_last else min(len(items), limits.TREE_ITEMS)
    shown = trees.describe_list(items[: limits.TREE_ITEMS], start, count)
    return {**shown, "bytes": file.size, "pieces": len(pieces.ends), "page": page}


def open_part(file: PipedFile, question: Question) -> tuple[PipedFile, str, list[int]]:
    """Return a part of an item that ``describe`` links to, its name, and its place in the object.

    Raises:
        PayloadCorruptError: There is no such part.
    """
    pieces = _Pieces(file, question.facts.get("index_bytes"))
    number, _, name = question.part.partition("/")
    if not number.isdecimal() or len(number) > 9 or int(number) >= len(pieces.ends):
        raise PayloadCorruptError("no item has a part of this name")
    payload, _ = pieces.open(int(number))
    if name not in (parts := zips.members(payload)):
        raise PayloadCorruptError("no item has a part of this name")
    start, size = parts[name]
    assert isinstance(payload, Window)
    return Window(payload, start, size), name, [payload.start + start, size]


def _value(payload: PipedFile) -> Any:
    if not is_bundle(memoryview(payload.range(0, 4))):
        return trees.load(payload)[0]
    start, size = zips.members(payload).get("value.json", (0, 0))
    return trees.load(Window(payload, start, size))[0]


def _named(value: Any, piece: int, handles: list[Any]) -> Any:
    """Replace the numbers of handles by what is known of them; name parts by their piece too."""
    if type(value) is list:
        return [_named(item, piece, handles) for item in value]
    if type(value) is not dict:
        return value
    if len(value) == 1:
        ((tag, content),) = value.items()
        if tag == "$part" and type(content) is list and content:
            return {tag: [f"{piece}/{content[0]}", *content[1:]]}
        if type(content) is int and 0 <= content < len(handles) and handles[content][0] == tag:
            facts = handles[content][1]
            return {tag: str(facts.get("name") or facts.get("uri"))}
    return {name: _named(item, piece, handles) for name, item in value.items()}
