"""Everything that plain JSON is not: tuples, dates, sets, classes, and containers of large parts.

The value becomes JSON in which an object with one key that starts with ``$`` stands for what JSON
lacks: ``{"$tuple": [1, 2]}``, ``{"$date": "2013-01-01"}``. Frames, arrays and large bytes inside it
become files of their own format next to it, ``{"$part": ["0.parquet", ...]}``, and the whole is one zip
file: one object, one request, readable with any zip tool. Without such parts the JSON alone is stored,
compressed, or stays in the row.

``tagged_writer`` and ``tagged_reader`` have a rule for each kind of value.
"""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import Any, ClassVar, NamedTuple

from ..errors import PayloadCorruptError, PayloadTooLargeError, UnsupportedTypeError
from .base import Attachments, Buffer, Change, Encoded, HandleOf
from .compression import compress, decompress
from .plain_json import from_text, gc_paused, to_text
from .tagged_reader import TaggedReader
from .tagged_writer import PartCodec, TaggedWriter
from .zip_bundle import is_bundle, pack, unpack

__all__ = ["TaggedJsonCodec", "Written", "dump", "load"]

_SKELETON = "value.json"

PartDecoder = Callable[[memoryview, str, int, str, int], Any]


def dump(value: Any) -> Any:
    """Turn a value into plain JSON: dicts, lists, str, int of 64 bits, finite float, bool and None.

    For values that stand within another format, such as labels of a frame. Arrays are written as
    base64; frames are refused.

    Raises:
        UnsupportedTypeError: Part of it has no exact form. Its attribute ``path`` is the place within
            the value.
    """
    writer = TaggedWriter()
    node = writer.write(value)
    if changes := writer.changes.as_tuple():
        first = changes[0]
        raise UnsupportedTypeError(f"it would come back as {first.after}", path=first.path, type=first.before)
    return node


def load(node: Any) -> Any:
    """Turn what ``dump`` returned back into the value; lists and dicts of ``node`` are changed in place.

    Raises:
        PayloadCorruptError: ``dump`` does not write this.
        UnsupportedTypeError: A class inside is not permitted here, or not there.
    """
    return TaggedReader().read(node)


class Written(NamedTuple):
    """A value as JSON, with what is stored next to it.

    Attributes:
        node: The JSON, as Python's dicts and lists.
        text: The same as text.
        parts: Parts in their own formats, by file name.
        changes: Parts that do not come back exactly.
        has_handles: Whether there are handles in it.
    """

    node: Any
    text: bytes
    parts: list[tuple[str, Encoded]]
    changes: tuple[Change, ...]
    has_handles: bool


class TaggedJsonCodec:
    """Tuples, sets, dates, models, and frames or arrays inside of other values, as JSON with tags.

    Tuples, sets, dates, numbers of every kind, enums, named tuples, dataclasses, attrs and pydantic models.
    Frames, arrays and large bytes inside become files of their own format next to it in a zip file.

    Args:
        part_codec: Gives the codec of values that are stored in their own format, or None.
        part_decoder: Decodes such a part: ``(payload, codec, version, type, max_bytes) -> value``.
    """

    name: ClassVar[str] = "tagged-json"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...]] = ()  # Whatever no other codec takes: see ``codecs.encode``.

    def __init__(self, part_codec: PartCodec, part_decoder: PartDecoder) -> None:
        self._part_codec = part_codec
        self._part_decoder = part_decoder

    def encode(self, value: Any) -> Encoded:
        """Encode, each part with its own codec.

        Raises:
            UnsupportedTypeError: With the attribute ``path``, the place within the value.
        """
        return self.pack(value, self.write(value))

    def write(self, value: Any, attachments: Attachments | None = None) -> Written:
        """Turn a value into JSON and parts.

        Args:
            value: Any value.
            attachments: Takes the handles in it; without it they are refused.

        Raises:
            UnsupportedTypeError: With the attribute ``path``, the place within the value.
        """
        writer = TaggedWriter(self._part_codec, attachments)
        with gc_paused():
            node = writer.write(value)
        if attachments is not None:
            attachments.upload()
        return Written(node, to_text(node), writer.parts, writer.changes.as_tuple(), writer.has_handles)

    def pack(self, value: Any, written: Written) -> Encoded:
        """Return the payload of what ``write`` returned for ``value``."""
        size = len(written.text) + sum(part.raw_bytes for _, part in written.parts)
        summary: dict[str, int | str] = {"items": len(value)} if isinstance(value, Sized) else {}
        if written.parts:
            members: list[tuple[str, list[Buffer]]] = [(_SKELETON, [written.text])]
            members += [(name, part.parts) for name, part in written.parts]
            parts, extension = pack(members), "zip"
            summary["parts"] = len(written.parts)
        else:
            parts, extension = compress([written.text]), "json.zst"
        kind = type(value).__name__
        return Encoded(self.name, self.version, extension, kind, parts, size, summary, written.changes)

    def decode(
        self,
        payload: memoryview,
        type: str,
        version: int,
        max_bytes: int,
        handle_of: HandleOf | None = None,
    ) -> Any:
        """Decode JSON, alone or in a zip file with its parts; see ``Codec.decode``."""
        members = {}
        if is_bundle(payload):
            members = dict(unpack(payload))
            text: Buffer = members.pop(_SKELETON, memoryview(b""))
        else:
            text = decompress(payload, max_bytes)
        if len(text) > max_bytes:
            raise PayloadTooLargeError(f"expands to {len(text)} bytes; the limit is {max_bytes}")

        def part(name: str, codec: str, version: int, kind: str) -> Any:
            return self._part_decoder(members[name], codec, version, kind, max_bytes)

        with gc_paused():
            try:
                node = from_text(text)
            except (ValueError, RecursionError) as error:
                raise PayloadCorruptError(f"its JSON is not what was written: {error!r:.200}") from error
            return TaggedReader(part, handle_of).read(node)
