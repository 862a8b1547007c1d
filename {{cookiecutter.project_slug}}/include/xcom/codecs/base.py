"""What a codec is: a value in, the bytes of one object out, and back.

A codec is one small class. To add one, write it in a module of this package and add one line to
the table in ``codecs/__init__.py``. The contract:

- ``decode(encode(value))`` equals ``value``, with equal types at every depth, or ``encode`` raises
  ``UnsupportedTypeError``. There is no third way.
- Encoding a value twice gives the same bytes.
- ``decode`` never runs code that the payload brings along: no pickle, and no class is imported that
  Airflow's own allow-list does not permit.
- Heavy libraries are imported inside the functions that need them: importing a codec costs nothing.
  Records are named tuples for the same reason: a frozen dataclass takes 0.7 ms to make, seven times as
  long, and every task process makes all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

if TYPE_CHECKING:
    from include.xcom.viewer.pipe import PipedFile

__all__ = ["Buffer", "Codec", "Encoded"]

Buffer = bytes | bytearray | memoryview
"""Bytes in memory. A memoryview is C-contiguous with format ``B``."""


class Encoded(NamedTuple):
    """One payload, ready to be stored.

    Args:
        codec: Name of the codec that decodes it.
        version: Version of that codec's format; a reader refuses versions that it does not know.
        extension: Of the object's name, without the dot: ``"parquet"``, ``"json.zst"``.
        type: The value's type as people call it: ``"pandas.DataFrame"``, ``"dict"``. Given back to
            ``decode``, so that one format can serve several types.
        parts: The payload's bytes, to be written one after the other and never joined in memory.
        raw_bytes: Bytes of the value in memory, or of its uncompressed text.
        summary: A few words for people, shown in the UI beside the URI: ``{"rows": 336776,
            "columns": 19}``, ``{"shape": "365 x 3", "dtype": "float64"}``, ``{"items": 60000}``.
            Numbers and short strings only: it becomes part of the database row.
    """

    codec: str
    version: int
    extension: str
    type: str
    parts: list[Buffer]
    raw_bytes: int
    summary: dict[str, int | str]

    @property
    def size(self) -> int:
        """Bytes that are stored."""
        return sum(len(part) for part in self.parts)


class Codec(Protocol):
    """Turns values of a few types into the bytes of one object, and back."""

    name: ClassVar[str]
    """Written into the reference, and looked up when it is read. Never reused for another format."""
    version: ClassVar[int]
    """Of the format. A codec reads every version that it ever wrote."""
    types: ClassVar[tuple[str, ...]]
    """Exact types that it takes, as ``f"{type.__module__}.{type.__qualname__}"``; subclasses are others."""

    def encode(self, value: Any) -> Encoded:
        """Encode a value of one of ``types``.

        Raises:
            UnsupportedTypeError: The value would not come back unchanged. Its attribute ``path``
                says where within the value, in Python's notation (``"['price']"``, ``".index"``,
                ``""`` for the value itself), and ``reason`` what is wrong there.
        """

    def decode(self, payload: memoryview, type: str, version: int, max_bytes: int) -> Any:
        """Decode what ``encode`` wrote.

        Args:
            payload: The whole object, writable, checked against its checksum already. The value may
                share its memory.
            type: ``Encoded.type``.
            version: ``Encoded.version``.
            max_bytes: Refuse to expand beyond this many bytes.

        Raises:
            PayloadCorruptError: The bytes are not of this format.
            PayloadTooLargeError: The payload expands beyond ``max_bytes``.
        """

    def summarize(self, file: PipedFile, asked: dict[str, Any]) -> dict[str, Any]:
        """Describe a payload for people, from as few of its bytes as will do; the payload viewer shows it.

        Called in a process of its own whose memory is limited; nothing is built of what the payload
        names. The viewer's modules are imported here and not by the module: tasks never need them.

        Args:
            file: The object. What is read of it comes from the store.
            asked: ``row`` and ``column`` of a frame, ``index`` of an array, ``start`` of a list,
                ``part`` of a bundle: what shall be shown. All may be missing.

        Returns:
            Text, numbers and lists that JSON can hold. ``kind`` names the macro of
            ``viewer/templates/parts.html`` that shows the rest: ``frame``, ``array``, ``tree``, ``blob``.

        Raises:
            PayloadCorruptError: The bytes are not of this format.
            PayloadTooLargeError: It is too large to look at.
        """
