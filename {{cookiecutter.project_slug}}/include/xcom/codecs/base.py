"""The contract of codecs: a value in, the bytes of one object out, and back.

To add a codec, write one small class in a module of this package and add one line to the table in
``codecs/__init__.py``.

- ``decode(encode(value))`` equals ``value``, with equal types at every depth. A part that has no exact
  form becomes what Airflow's default backend would return for it, and ``Encoded.changes`` says so. What
  Airflow's default cannot store either raises ``UnsupportedTypeError``.
- Encoding a value twice gives the same bytes, in any process: nothing depends on its time zone, locale,
  hash seed or working directory.
- ``decode`` never runs code that the payload brings along: no pickle, and no class is imported that
  Airflow's own allow-list does not permit.
- Heavy libraries are imported inside functions: importing a codec costs nothing. Records are named
  tuples for the same reason: a frozen dataclass takes 0.7 ms to define, seven times as long.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol

__all__ = [
    "DAG_FILE",
    "HANDLE_KINDS",
    "Attachments",
    "Buffer",
    "Change",
    "Codec",
    "Encoded",
    "HandleOf",
    "type_name",
]

# The module of a Dag file is named after a hash of its path: airflow/dag_processing/importers.
DAG_FILE = re.compile(r"^unusual_prefix_[0-9a-f]+_")

Buffer = bytes | bytearray | memoryview
"""Bytes in memory. A memoryview is C-contiguous with format ``B``."""


def type_name(kind: type) -> str:
    """Return the full name of a class for people: ``pandas.core.frame.DataFrame``, ``my_dag_file.Row``."""
    return f"{DAG_FILE.sub('', kind.__module__)}.{kind.__qualname__}"


class Change(NamedTuple):
    """Parts of a value that have no exact form and come back as Airflow's default would return them.

    Attributes:
        path: Place of the first within the value, as ``UnsupportedTypeError.path``.
        before: Full name of the type that the task returned.
        after: Full name of the type that a reader gets.
        places: How many such parts there are.
    """

    path: str
    before: str
    after: str
    places: int = 1


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
            "columns": 19, "schema": "c7fced28"}``, ``{"shape": "365 x 3", "dtype": "float64"}``,
            ``{"items": 60000}``. Numbers and short strings only: it becomes part of the database row.
        changes: Parts that do not come back exactly; empty for almost every value.
    """

    codec: str
    version: int
    extension: str
    type: str
    parts: list[Buffer]
    raw_bytes: int
    summary: dict[str, int | str]
    changes: tuple[Change, ...] = ()

    @property
    def size(self) -> int:
        """Bytes that are stored."""
        return sum(len(part) for part in self.parts)


HANDLE_KINDS = ("file", "table", "items")
"""Codec names of references to handles. Inside a value the tag of a handle is ``$`` and its kind."""


class Attachments(Protocol):
    """Handles inside a value, whose bytes are stored next to the payload."""

    def node_of(self, value: object) -> dict[str, Any] | None:
        """Return what stands for a handle in tagged JSON, a dict of one tag; None for other values.

        Its content may be filled in by ``upload``.
        """

    def upload(self) -> None:
        """Store the handles that ``node_of`` was asked for; called once the value has been walked."""


HandleOf = Callable[[str, Any], Any]
"""Returns the handle that a tag and its content, as ``Attachments.node_of`` wrote them, stand for."""


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
                is the place within the value.
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
