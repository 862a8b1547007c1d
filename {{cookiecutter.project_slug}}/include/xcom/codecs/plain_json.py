r"""Plain JSON: exact dicts, lists, strings, numbers, booleans and None, as zstd-compressed text.

The type check is the hard part: JSON writers gladly turn a tuple into a list, an enum into its
value and NaN into null. ``ormsgpack`` with its pass-through options refuses all of these in a
tenth of the time that a walk in Python takes (measured: 14 against 222 ms for 8.2 MB of records).

A long list is checked, written and read in pieces of about 1 MiB, with a line end after the comma
between two of them. It is one JSON text as any other, and whoever sees ``,\n`` may parse what stands
before it: a line end never stands within a JSON string. Pieces stay in the processor's cache, and
the parser's own tree of a value, several times its text, is never that of the whole (measured:
a quarter less time, and flat from 1 to 256 MB).
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from ..errors import PayloadCorruptError
from .base import Buffer, Encoded
from .compression import compress, decompress, decompressed

__all__ = ["JsonCodec", "from_text", "gc_paused", "json_parts", "to_text"]

# In MessagePack a float is 0xCB and eight bytes, and those of infinities and NaN begin with twelve
# set bits after the sign. UTF-8 has none of these sequences; an integer may, hence the second look.
_MAYBE_NOT_FINITE = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]")

_PIECE_BYTES = 1024 * 1024
_PROBE_ITEMS = 64
_BETWEEN = b",\n"


class JsonCodec:
    """Plain JSON text, UTF-8, compressed: ``zstdcat`` and ``jq`` read it."""

    name: ClassVar[str] = "json"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...]] = ()  # Found by ``json_parts``, not by type: see ``codecs.encode``.

    def encode(self, value: Any, parts: list[Buffer] | None = None) -> Encoded:
        """Encode a value that ``json_parts`` takes.

        Args:
            value: The value.
            parts: Its text, if that is known already.
        """
        parts = json_parts(value) if parts is None else parts
        assert parts is not None, "json_parts refuses this value"
        kind = type(value).__name__
        summary: dict[str, int | str] = {"items": len(value)} if kind in ("dict", "list") else {}
        if kind == "str":
            summary = {"characters": len(value)}
        size = sum(len(part) for part in parts)
        return Encoded(self.name, self.version, "json.zst", kind, compress(parts), size, summary)

    def decode(self, payload: memoryview, type: str, version: int, max_bytes: int) -> Any:
        """Decode; the garbage collector waits meanwhile."""
        import orjson

        with gc_paused():
            try:
                return _parsed(decompressed(payload, max_bytes))
            except orjson.JSONDecodeError:
                pass  # Another writer may break lines elsewhere.
            try:
                return orjson.loads(decompress(payload, max_bytes))
            except orjson.JSONDecodeError as error:
                raise PayloadCorruptError(f"the payload is not JSON: {error}") from error


@contextmanager
def gc_paused() -> Iterator[None]:
    """Keep the garbage collector from running while many containers are made.

    It runs after every 700 new ones and looks at those that live; none of them can be garbage yet.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def json_parts(value: Any) -> list[Buffer] | None:
    """Return the JSON text of a value that comes back from it unchanged, in parts; None for all others.

    Others are: any type but exact dict, list, str, int, float, bool and None, keys that are not
    exact strings, NaN and infinities, integers beyond 64 bits, lone surrogates, nesting over 254.
    """
    if type(value) is not list or not _is_long(value):
        text = _json_text(value)
        return None if text is None else [text]
    parts: list[Buffer] = []
    start, count = 0, _PROBE_ITEMS
    while start < len(value):
        text = _json_text(value[start : start + count])
        if text is None:
            return None
        parts += [_BETWEEN if parts else b"[", memoryview(text)[1:-1]]
        start += count
        count = max(1, count * _PIECE_BYTES // len(text))
    return [*parts, b"]"]


def to_text(node: Any) -> bytes:
    """Write JSON as text, with lone surrogates and at any depth."""
    import orjson

    try:
        return orjson.dumps(node)
    except orjson.JSONEncodeError:  # A lone surrogate, or nesting beyond 254.
        return json.dumps(node, allow_nan=False, separators=(",", ":")).encode()


def from_text(text: Buffer) -> Any:
    """Parse what ``to_text`` wrote.

    Raises:
        ValueError: It is not JSON.
    """
    import orjson

    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(bytes(text))


def _is_long(value: list[Any]) -> bool:
    """Tell whether a list is likely to make several pieces, by its first items."""
    if len(value) <= _PROBE_ITEMS:
        return False
    text = _json_text(value[:_PROBE_ITEMS])
    return text is not None and len(text) * len(value) > 2 * _PIECE_BYTES * _PROBE_ITEMS


def _json_text(value: Any) -> bytes | None:
    import orjson
    import ormsgpack

    option = (
        ormsgpack.OPT_PASSTHROUGH_DATACLASS
        | ormsgpack.OPT_PASSTHROUGH_DATETIME
        | ormsgpack.OPT_PASSTHROUGH_ENUM
        | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
        | ormsgpack.OPT_PASSTHROUGH_TUPLE
        | ormsgpack.OPT_PASSTHROUGH_UUID
    )
    try:
        packed = ormsgpack.packb(value, option=option)
        if _MAYBE_NOT_FINITE.search(packed):
            json.dumps(value, allow_nan=False)
        del packed  # As large as the text that is written next.
        return orjson.dumps(value)
    except (ormsgpack.MsgpackEncodeError, orjson.JSONEncodeError, ValueError, RecursionError):
        return None


def _parsed(chunks: Iterable[bytes]) -> Any:
    """Parse a text that comes in chunks: a list by the pieces that it was written in."""
    import orjson

    items: list[Any] = []
    pending: list[bytes] = []
    opening = b""
    for chunk in chunks:
        end = chunk.rfind(b"\n")  # One byte is searched for 20 times as fast as two.
        if end < 1 or chunk[end - 1 : end + 1] != _BETWEEN:
            pending.append(chunk)
            continue
        items += orjson.loads(b"".join((opening, *pending, memoryview(chunk)[: end - 1], b"]")))
        opening = b"["
        pending = [chunk[end + 1 :]]
    last = orjson.loads(b"".join((opening, *pending)) if opening or len(pending) > 1 else pending[0])
    if not opening:
        return last
    items += last
    return items
