"""A long list in pieces, of which a reader fetches those that it needs.

The object is the pieces, one after the other, and an index at the end. A piece is a list of items as
``codecs`` encodes it, with a checksum and the attachments that its items have.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import accumulate, islice
from operator import index as as_index
from typing import Any, ClassVar, NamedTuple, overload

from .. import codecs
from ..codecs.base import Change
from ..codecs.compression import compress, decompress
from ..codecs.inline import Inline
from ..errors import PayloadCorruptError, PayloadTooLargeError, UnsupportedTypeError, shortened
from ..settings import SECTION, Settings, load_settings
from ..stores import checksum, store_of
from ..units import format_size
from .base import Content, Handle, explaining, handle_of_node, index_facts, read_index
from .streams import RangedStream
from .temporary import open_spool, spooling
from .uploads import Upload

__all__ = ["Items"]

_EXTENSION = "items"
# A look-up reads the index and one piece. Both together are shortest when they are about equally long,
# which pieces of 2 * sqrt(n) bytes in a list of n bytes are. Below 8 KiB the request is all the cost.
_LEAST_PIECE_BYTES = 8 * 1024
_MOST_PIECE_ITEMS = 1024
_CHECKSUM_BYTES = 4
_LENGTH_BYTES = 4


class Items(Handle, Sequence[Any]):
    """A list for ``.expand()`` and other long lists, read item by item.

    Airflow gives every mapped task the whole list that it is expanded over, so a thousand tasks over a
    plain list load it a thousand times. Of ``Items``, each task fetches the item that it takes::

        @task
        def partitions() -> Items:
            return Items({"path": path, "rows": rows} for path, rows in scan())

        @task
        def process(partition: dict): ...

        process.expand(partition=partitions())

    It pays when the list does not fit into the database row (``threshold_bytes``) and more than a few
    tasks map over it, or when its items are frames, bytes, or files. Items may be anything that a task
    may return, and may contain a ``File``.

    A task that receives it has a ``collections.abc.Sequence``: an index fetches one piece of the list, a
    loop streams all of them, a slice is a list.

    Args:
        iterable: The items. An iterator is consumed here, into a temporary file; memory does not grow
            with its length. A sequence is read when the task returns, and must not change before.

    Raises:
        UnsupportedTypeError: An item of the iterator cannot be stored.
        TemporarySpaceError: The temporary file cannot be written.
    """

    kind: ClassVar[str] = "items"
    fact_types: ClassVar[dict[str, type]] = {"items": int, "index_bytes": int, "index_crc32c": str}

    def __init__(self, iterable: Iterable[Any]) -> None:
        if isinstance(iterable, (str, bytes, bytearray, dict)):
            raise TypeError(f"Items needs a list or an iterable of items, not a {type(iterable).__name__}")
        self._local: Sequence[Any] = iterable if isinstance(iterable, Sequence) else _Spool(iterable)

    def __len__(self) -> int:
        return int(self.content.facts["items"]) if self.content else len(self._local)

    @overload
    def __getitem__(self, key: int) -> Any: ...

    @overload
    def __getitem__(self, key: slice) -> list[Any]: ...

    def __getitem__(self, key: int | slice) -> Any:
        """Return an item, or the list of some; one request for each piece, and one for the index."""
        if isinstance(key, slice):
            return [self[place] for place in range(*key.indices(len(self)))]
        place = as_index(key)
        if not -len(self) <= place < len(self):
            raise IndexError(f"{place} is not an index of {self!r}")
        place %= len(self)
        if self.content is None:
            return self._local[place]
        with explaining(self.content.stored):
            return self._reader.item(place)

    def __iter__(self) -> Iterator[Any]:
        """Stream all items; holds the pieces that were read ahead, 32 MiB at most, and one decoded."""
        if self.content is None:
            yield from self._local
            return
        for piece in self._stored_pieces():
            with explaining(self.content.stored):
                items = piece.decode()
            yield from items

    def upload(self, upload: Upload) -> Content:
        """Store the list; see ``Handle.upload``.

        Raises:
            UnsupportedTypeError: An item cannot be stored; ``path`` is its place.
            PayloadTooLargeError: The list is over ``max_file_bytes``.
        """
        title = f"{len(self)} items"
        if self.content and "attachments" not in self.content.facts:
            return Content(upload.copy(self.content.stored, _EXTENSION, title), self.content.facts)
        if self.content:
            pieces = self._stored_pieces()
        elif isinstance(self._local, _Spool):
            pieces = self._local.pieces()
        else:
            pieces = _encoded(self._local, upload.settings)
        writer = _Writer(upload)
        stored = upload.stream(writer.chunks(pieces), _EXTENSION, title)
        facts = {"items": writer.items, **index_facts(writer.index)}
        return Content(stored, {**facts, "attachments": writer.attachments} if writer.attachments else facts)

    def __repr__(self) -> str:
        return f"Items({len(self)} items)"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return (Items, (list(self._local),)) if self.content is None else super().__reduce_ex__(protocol)

    @cached_property
    def _reader(self) -> _Reader:
        assert self.content is not None
        return _Reader(self.content)

    def _stored_pieces(self) -> Iterator[_Piece]:
        assert self.content is not None
        with explaining(self.content.stored):
            yield from self._reader.pieces()


class _Piece(NamedTuple):
    """Some items of a list, one after the other.

    Attributes:
        payload: The items, as a list, encoded.
        codec: Name of the codec.
        version: Version of its format.
        items: Number of items.
        handles: Handles in the items, in the order of the nodes that stand for them.
        changes: Parts of the items that do not come back exactly.
    """

    payload: bytes
    codec: str
    version: int
    items: int
    handles: list[Handle]
    changes: tuple[Change, ...] = ()

    def decode(self) -> list[Any]:
        """Return the items."""
        limit = load_settings().max_payload_bytes
        payload = memoryview(bytearray(self.payload))
        handles = self.handles
        found: list[Any] = codecs.decode(
            payload, self.codec, self.version, "list", limit, lambda tag, number: handles[number]
        )
        if len(found) != self.items:
            raise PayloadCorruptError("has another number of items than its index says")
        return found


class _Spool(Sequence[Any]):
    """The items of an iterator, encoded, in a temporary file that no other process sees."""

    def __init__(self, iterable: Iterable[Any]) -> None:
        self._file = open_spool()
        self._pieces: list[tuple[int, _Piece]] = []
        try:
            for piece in _encoded(iterable, load_settings()):
                self._pieces.append((self._file.tell(), piece._replace(payload=b"")))
                with spooling():
                    self._file.write(piece.payload)
        except UnsupportedTypeError as error:
            # The task is still running, so nobody adds what was refused and where.
            kind = shortened((error.type or "a value").removeprefix("builtins."))
            place = shortened(f"items{error.path}")
            raise error.reworded(f"Cannot store {kind} at {place}: {error}. Nothing was stored.") from error
        with spooling():
            self._file.flush()
        self._size = self._file.tell()
        self._ends = list(accumulate(piece.items for _, piece in self._pieces))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, place: Any) -> Any:
        number, offset = _locate(self._ends, place)
        return self._piece(number).decode()[offset]

    def __iter__(self) -> Iterator[Any]:
        for piece in self.pieces():
            yield from piece.decode()

    def pieces(self) -> Iterator[_Piece]:
        """Yield the pieces."""
        return map(self._piece, range(len(self._pieces)))

    def _piece(self, number: int) -> _Piece:
        start, piece = self._pieces[number]
        stop = self._pieces[number + 1][0] if number + 1 < len(self._pieces) else self._size
        self._file.seek(start)
        return piece._replace(payload=self._file.read(stop - start))


class _Writer:
    """Turns pieces into the bytes of an object.

    Attributes:
        items: Number of items so far.
        attachments: Number of handles in them.
        index: The object's last bytes, once all chunks have been taken.
    """

    def __init__(self, upload: Upload) -> None:
        self.items = 0
        self.attachments = 0
        self.index = b""
        self._upload = upload

    def chunks(self, pieces: Iterable[_Piece]) -> Iterator[bytes]:
        """Yield the bytes; stores the attachments of a piece before it."""
        sizes, counts = [], []
        for piece in pieces:
            attached = [self._upload.attach(handle) for handle in piece.handles]
            framed = _framed(piece, attached)
            sizes.append(len(framed))
            counts.append(piece.items)
            self.items += piece.items
            self.attachments += len(attached)
            self._upload.note(piece.changes)
            yield framed
        text = json.dumps({"sizes": sizes, "items": counts}, separators=(",", ":"))
        self.index = b"".join(compress([text.encode()]))
        yield self.index


class _Reader:
    """Reads the pieces of a stored list."""

    def __init__(self, content: Content) -> None:
        self._stored = content.stored
        sizes, counts = _parsed(read_index(content))
        self._starts = [0, *accumulate(sizes)]
        self._ends = list(accumulate(counts))
        whole = content.stored.size - int(content.facts["index_bytes"]), content.facts["items"]
        if whole != (self._starts[-1], self._ends[-1] if counts else 0):
            raise PayloadCorruptError("has an index that does not fit its pieces")
        self._last: tuple[int, list[Any]] = (-1, [])

    def item(self, place: int) -> Any:
        """Return one item; keeps the piece that it is in."""
        number, offset = _locate(self._ends, place)
        if self._last[0] != number:
            framed = store_of(self._stored.uri).read(
                self._stored, self._starts[number], self._starts[number + 1]
            )
            self._last = (number, self._unframed(framed, number).decode())
        return self._last[1][offset]

    def pieces(self) -> Iterator[_Piece]:
        """Yield all pieces, reading ahead."""
        with RangedStream(self._stored, 0, self._starts[-1]) as stream:
            for number in range(len(self._ends)):
                framed = memoryview(bytearray(self._starts[number + 1] - self._starts[number]))
                filled = 0
                while filled < len(framed):
                    filled += stream.readinto(framed[filled:])
                yield self._unframed(framed, number)

    def _unframed(self, framed: memoryview, number: int) -> _Piece:
        """Check a piece and take it apart."""
        rest = framed[_CHECKSUM_BYTES:]
        if framed[:_CHECKSUM_BYTES].hex() != checksum([rest]):
            raise PayloadCorruptError(f"has other bytes in piece {number} than what was written")
        length = int.from_bytes(rest[:_LENGTH_BYTES], "little")
        head, payload = rest[_LENGTH_BYTES : _LENGTH_BYTES + length], rest[_LENGTH_BYTES + length :]
        try:
            codec, version, attached = json.loads(bytes(head))
            handles = [handle_of_node(tag, node) for tag, node in attached]
        except (ValueError, TypeError, AttributeError) as error:
            raise PayloadCorruptError(f"has a piece {number} in an unknown form") from error
        items = self._ends[number] - (self._ends[number - 1] if number else 0)
        return _Piece(bytes(payload), codec, version, items, handles)


def _encoded(iterable: Iterable[Any], settings: Settings) -> Iterator[_Piece]:
    """Encode items in pieces whose length grows with that of the list."""
    iterator = iter(iterable)
    settings = replace(settings, threshold_bytes=0)  # Nothing of a piece can be in a row.
    first, written, count = 0, 0, 1
    while batch := list(islice(iterator, count)):
        piece = _encode(batch, first, settings)
        yield piece
        first += len(batch)
        written += len(piece.payload)
        wanted = max(_LEAST_PIECE_BYTES, 2 * math.isqrt(written)) * len(batch) // len(piece.payload)
        count = max(1, min(wanted, 4 * count, _MOST_PIECE_ITEMS))


class _Numbered:
    """Attachments of a piece, which its payload names by number."""

    def __init__(self) -> None:
        self.handles: list[Handle] = []

    def node_of(self, value: object) -> dict[str, int] | None:
        """Return the node of a handle: its number; None for other values."""
        if not isinstance(value, Handle):
            return None
        for number, handle in enumerate(self.handles):
            if handle is value:
                return {f"${value.kind}": number}
        self.handles.append(value)
        return {f"${value.kind}": len(self.handles) - 1}

    def upload(self) -> None:
        """Do nothing: they are stored with the piece."""


def _encode(batch: list[Any], first: int, settings: Settings) -> _Piece:
    attachments = _Numbered()
    try:
        encoded = codecs.encode(batch, settings, attachments)
    except UnsupportedTypeError as error:
        error.path = _shifted(error.path, first)
        raise
    assert not isinstance(encoded, Inline)
    size, limit = max(encoded.size, encoded.raw_bytes), settings.max_payload_bytes
    if size > limit:
        raise PayloadTooLargeError(
            f"Items {first} to {first + len(batch) - 1} are {format_size(size)}; the limit for what is loaded at "
            f"once is {format_size(limit)} ([{SECTION}] max_payload_bytes). Nothing was stored. Put a File or "
            "smaller parts into the list, or raise the setting.",
            size=size,
            limit=limit,
        )
    changes = tuple(change._replace(path=_shifted(change.path, first)) for change in encoded.changes)
    payload = b"".join(encoded.parts)
    return _Piece(payload, encoded.codec, encoded.version, len(batch), attachments.handles, changes)


def _framed(piece: _Piece, attached: list[Content]) -> bytes:
    nodes = [
        (f"${handle.kind}", content.to_node(handle.version))
        for handle, content in zip(piece.handles, attached, strict=True)
    ]
    head = json.dumps((piece.codec, piece.version, nodes), separators=(",", ":")).encode()
    rest = len(head).to_bytes(_LENGTH_BYTES, "little") + head + piece.payload
    return bytes.fromhex(checksum([rest])) + rest


def _parsed(index: bytes) -> tuple[list[int], list[int]]:
    """Return the sizes of the pieces and the numbers of items in them."""
    try:
        found = json.loads(decompress(index, load_settings().max_payload_bytes))
        sizes, counts = found["sizes"], found["items"]
        if len(sizes) == len(counts) and all(type(n) is int and n > 0 for n in (*sizes, *counts)):
            return sizes, counts
    except (ValueError, TypeError, KeyError):
        pass
    raise PayloadCorruptError("has an index in an unknown form")


def _locate(ends: list[int], place: int) -> tuple[int, int]:
    """Return the piece that an item is in, and its place there."""
    number = bisect_right(ends, place)
    return number, place - (ends[number - 1] if number else 0)


def _shifted(path: str, first: int) -> str:
    """Turn a place in a piece into one in the list."""
    return re.sub(r"^\[(\d+)\]", lambda found: f"[{int(found[1]) + first}]", path)
