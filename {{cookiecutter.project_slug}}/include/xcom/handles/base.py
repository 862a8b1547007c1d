"""What all handles share: where their bytes are, and how they travel as part of a value.

A task returns a handle, alone or anywhere in a value. The backend stores its bytes as an object of
their own and keeps their *content*: that object and a few facts about it. The task that pulls the
XCom gets a handle made of the content. Nothing is read until the handle is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from ..errors import PayloadCorruptError, PayloadMissingError, PayloadTooLargeError
from ..reference import explained
from ..stores import Checksum, Stored, store_of

if TYPE_CHECKING:
    from .uploads import Upload

__all__ = [
    "Content",
    "Facts",
    "Handle",
    "explaining",
    "handle_of",
    "handle_of_node",
    "index_facts",
    "read_index",
]

Facts = dict[str, int | str]
"""What is known of a handle without a request. Becomes part of the database row."""

_H = TypeVar("_H", bound="Handle")

# By the names in ``codecs.base.HANDLE_KINDS``: (module, class).
_KINDS = {"file": ("files", "File"), "table": ("tables", "Table"), "items": ("items", "Items")}


class Content(NamedTuple):
    """The stored bytes of a handle."""

    stored: Stored
    facts: Facts

    def to_node(self, version: int) -> Facts:
        """Return the content as JSON, for a handle that is part of a value; ``handle_of_node`` reads it."""
        uri, generation, size, crc32c = self.stored
        where: Facts = {"uri": uri, "generation": generation, "bytes": size, "crc32c": crc32c}
        return {"version": version, **where, **self.facts}


class Handle:
    """A value that is not in memory.

    Handles do not change. To copy, pickle, print, or compare one reads nothing. They are neither
    callable nor lists and have no method ``serialize`` or ``resolve``: Airflow would call these while it
    renders templates.

    Attributes:
        content: The stored bytes; None before the backend has stored them.
    """

    kind: ClassVar[str]
    """Name of the codec in references."""
    version: ClassVar[int] = 1
    """Version of the format; a reader refuses versions that it does not know."""
    fact_types: ClassVar[dict[str, type]]
    """Facts that every content of this kind has."""

    content: Content | None = None

    @classmethod
    def of(cls: type[_H], content: Content) -> _H:
        """Make the handle of stored content.

        Raises:
            PayloadCorruptError: The facts are not those of this kind.
        """
        wrong = [name for name, kind in cls.fact_types.items() if type(content.facts.get(name)) is not kind]
        if wrong:
            raise PayloadCorruptError(f"lacks what a {cls.__name__} needs ({', '.join(wrong)})")
        handle = cls.__new__(cls)
        handle.content = content
        return handle

    @property
    def size(self) -> int | None:
        """Bytes that are stored; None before that."""
        return self.content.stored.size if self.content else None

    def upload(self, upload: Upload) -> Content:
        """Store the bytes. Called by the backend when a task returns the handle."""
        raise NotImplementedError

    def __copy__(self: _H) -> _H:
        return self

    def __deepcopy__(self: _H, memo: object) -> _H:
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        return (
            super().__reduce_ex__(protocol)
            if self.content is None
            else (_unpickled, (self.kind, self.content))
        )

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self) or self.content is None:
            return self is other
        return self.content == other.content

    def __hash__(self) -> int:
        return object.__hash__(self) if self.content is None else hash(self.content.stored)


def handle_of(kind: str, version: int, content: Content) -> Handle:
    """Make a handle from what a reference or a node of tagged JSON says; read nothing.

    Raises:
        PayloadCorruptError: The kind, its version, or the facts are unknown.
        ReferenceNotAllowedError: The object is outside of what this deployment may read.
    """
    if kind not in _KINDS:
        raise PayloadCorruptError(f"has a handle of kind {kind!r}; known here are {', '.join(_KINDS)}")
    cls = _class(kind)
    if not 1 <= version <= cls.version:
        raise PayloadCorruptError(
            f"has a {cls.__name__} of version {version}; this code reads up to version {cls.version}. It was "
            "written by a newer include/xcom: update this deployment's copy"
        )
    store_of(content.stored.uri)  # Refuses what may not be read.
    return cls.of(content)


def handle_of_node(tag: str, node: object) -> Handle:
    """Make a handle from a tag of tagged JSON, and what ``Content.to_node`` returned; read nothing.

    Raises:
        PayloadCorruptError: The node has another form.
        ReferenceNotAllowedError: As ``handle_of``.
    """
    facts = dict(node) if isinstance(node, dict) else {}
    fields = [facts.pop(name, None) for name in ("version", "uri", "generation", "bytes", "crc32c")]
    if [type(field) for field in fields] != [int, str, str, int, str]:
        raise PayloadCorruptError(f"it names a handle in an unknown form: {node!r:.200}")
    version, *stored = fields
    return handle_of(tag.removeprefix("$"), version, Content(Stored(*stored), facts))


def index_facts(index: bytes) -> Facts:
    """Return the facts by which ``read_index`` finds and checks the last bytes of an object."""
    total = Checksum()
    total.update(index)
    return {"index_bytes": len(index), "index_crc32c": str(total)}


def read_index(content: Content, *, at_least: int = 0) -> bytes:
    """Read the end of an object: a Parquet footer, the directory of a zip file, the index of items.

    One request.

    Args:
        content: The object; its facts say how long the index is and what its checksum is, where it is
            one that was written for a handle.
        at_least: Return more bytes if the index is shorter than this.

    Raises:
        PayloadCorruptError: It is not what was written.
        PayloadError: As ``Store.read``.
    """
    stored, facts = content
    known = {name: facts[name] for name in ("index_bytes", "index_crc32c") if name in facts}
    size = int(known.get("index_bytes", 0))
    start = max(0, stored.size - max(size, at_least))
    tail = bytes(store_of(stored.uri).read(stored, start, stored.size))
    if known and index_facts(tail[len(tail) - size :]) != known:
        raise PayloadCorruptError("has another index than what was written", uri=stored.uri)
    return tail


@contextmanager
def explaining(stored: Stored) -> Iterator[None]:
    """Add to an error of a store or a format which object it is about, and what to do."""
    try:
        yield
    except (PayloadCorruptError, PayloadMissingError, PayloadTooLargeError) as error:
        if error.generation is not None:
            raise  # Explained where it was raised.
        raise explained(error, stored.uri, stored.generation, stored.size) from error.__cause__


def _class(kind: str) -> type[Handle]:
    module, name = _KINDS[kind]
    found: type[Handle] = getattr(import_module(f".{module}", __package__), name)
    return found


def _unpickled(kind: str, content: Content) -> Handle:
    return _class(kind).of(content)
