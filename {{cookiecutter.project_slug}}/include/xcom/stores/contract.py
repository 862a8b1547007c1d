"""The contract of a store: named objects of bytes, written once and never overwritten."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol
from uuid import uuid4

from ..errors import PayloadCorruptError

if TYPE_CHECKING:
    from ..reference import PayloadReference

__all__ = [
    "PAGE_OBJECTS",
    "Buffer",
    "Listed",
    "Page",
    "Parts",
    "Progress",
    "Store",
    "Stored",
    "is_part",
    "is_utf8",
    "new_file",
    "new_token",
    "part_name",
    "pieces",
]

Buffer = bytes | bytearray | memoryview
"""Bytes in memory. A memoryview is C-contiguous with format ``B``."""
Progress = Callable[[int], None]
"""Receives the number of bytes moved so far, now and then, in the thread that called the store."""
PAGE_OBJECTS = 1000
"""Objects per page of a listing: the most that GCS returns in one response."""
# Large enough that the number of requests for an object that is read by ranges hardly matters.
_PIECE_BYTES = 4 * 1024 * 1024
_PART = re.compile(r"(?:.*/)?[0-9a-f]{16}\.part-[0-9]{5,}", re.DOTALL)


class Stored(NamedTuple):
    """One object as the store reported it.

    Attributes:
        uri: ``gs://bucket/name`` or ``file:///path/name``.
        generation: Decimal digits; ``"0"`` where a store has none.
        size: Bytes.
        crc32c: Eight hexadecimal digits.
    """

    uri: str
    generation: str
    size: int
    crc32c: str

    @classmethod
    def of(cls, reference: PayloadReference | Stored) -> Stored:
        """Return the object that a reference names."""
        if isinstance(reference, Stored):
            return reference
        return cls(reference.uri, reference.generation, reference.bytes, reference.crc32c)

    def check(self, size: int | None = None, crc32c: str | None = None) -> None:
        """Compare a size or a checksum that was found with what was stored.

        Raises:
            PayloadCorruptError: It is another.
        """
        if size not in (None, self.size):
            raise PayloadCorruptError(f"is {size} bytes long, and {self.size} were written", uri=self.uri)
        if crc32c not in (None, self.crc32c):
            raise PayloadCorruptError("has another CRC32C than what was written", uri=self.uri)


class Listed(NamedTuple):
    """One object of a listing.

    Attributes:
        name: Within the bucket or directory.
        created: Seconds since 1970; a directory gives the time of the last change.
    """

    uri: str
    name: str
    generation: str
    size: int
    created: float


# A class with a method `list` cannot name the built-in type in its annotations.
Parts = list[Buffer]
Page = list[Listed]


class Store(Protocol):
    """A place for payloads. Every method may be called from several threads at once.

    ``timeout_seconds`` limits each request to a bucket with its retries. A method that moves an object
    in several requests is late when one of them is, however long it takes in all.

    Raises:
        PayloadExistsError: ``put``, ``put_stream``, ``copy``: another object has the name, and is
            unchanged.
        PayloadMissingError: That generation of the object to read, describe or copy is gone.
        PayloadCorruptError: Its size or its CRC32C is another.
        StoreUnavailableError: The store refused, or did not answer in time. After a write at worst an
            object remains that no reference names.
    """

    def put(self, name: str, parts: Parts) -> Stored:
        """Write one new object from bytes in memory; it appears whole or not at all."""

    def put_stream(
        self,
        name: str,
        chunks: Iterable[Buffer],
        *,
        part_bytes: int | None = None,
        progress: Progress | None = None,
    ) -> Stored:
        """Write one new object of unknown length; it appears whole or not at all.

        Memory does not grow with the length. An error of ``chunks`` is raised as it is, and leaves
        nothing. A process that is killed may leave parts: see ``is_part``.

        Args:
            name: Name of the object.
            chunks: The bytes, in any sizes; one may be reused when the next is asked for.
            part_bytes: Size of the parts in which a store may send them; it holds up to ten in memory.
            progress: See ``Progress``.
        """

    def copy(self, source: Stored, name: str) -> Stored:
        """Copy one object of this store to a new name; no byte moves through this process."""

    def get(self, reference: PayloadReference | Stored) -> memoryview:
        """Read one object into new memory, and check its size and CRC32C."""

    def download(self, stored: Stored, path: Path, *, progress: Progress | None = None) -> None:
        """Write one object to a new file, and check its size and CRC32C; an error removes the file.

        Memory does not grow with the size.

        Raises:
            OSError: The file exists, or could not be written.
        """

    def read(self, stored: Stored, start: int, stop: int, *, seconds: float | None = None) -> memoryview:
        """Read the bytes from ``start`` up to ``stop`` of one object; past its end there are none.

        Checks what can be checked without the other bytes: the size, and the CRC32C of the whole if the
        server states it. A directory cannot do the latter; call ``describe`` where it matters.

        Args:
            stored: The object.
            start: Offset of the first byte.
            stop: Offset behind the last byte.
            seconds: Limit, if shorter than ``timeout_seconds``.
        """

    def describe(self, uri: str) -> Stored:
        """Return the metadata of the newest generation of an object."""

    def delete(self, uri: str, generation: str) -> bool:
        """Delete exactly that generation; return False if it was already gone."""

    def list(self, prefix: str, start: str = "") -> Iterator[Page]:
        """Yield the objects whose names begin with ``prefix``, ordered by name, in pages.

        Objects that are written or deleted meanwhile may or may not be included.

        Args:
            prefix: ``""``, or a folder with a slash at its end.
            start: Skip names that sort before this one.
        """

    def list_folders(self, prefix: str) -> Iterator[str]:
        """Yield the names of the folders directly below ``prefix``, each with a slash at its end."""


def pieces(store: Store, stored: Stored) -> Iterator[memoryview]:
    """Yield the bytes of one object in pieces, so that it is never whole in memory.

    Raises:
        PayloadError: As ``Store.read``.
    """
    if not stored.size:
        store.describe(stored.uri)  # Nothing to read, but the object may be missing.
    for start in range(0, stored.size, _PIECE_BYTES):
        yield store.read(stored, start, start + _PIECE_BYTES)


def is_part(name: str) -> bool:
    """Tell whether a name is that of a part of an upload that is running or was killed.

    No reference names a part, so one that is older than any upload can be deleted.
    """
    return _PART.fullmatch(name) is not None


def part_name(name: str, token: str, number: int) -> str:
    """Return the name of a part of an object: ``{folder of the object}/{token}.part-{number}``.

    No longer than the object's own name, if that ends in a UUID.

    Args:
        name: Name of the object.
        token: ``new_token()``, one per upload, so that two uploads never share a part.
        number: Counts from 0.
    """
    folder, slash, _ = name.rpartition("/")
    return f"{folder}{slash}{token}.part-{number:05d}"


def new_token() -> str:
    """Return 16 random hexadecimal digits."""
    return uuid4().hex[:16]


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Create a file, and remove it if the block fails."""
    with path.open("xb") as file:
        try:
            yield file
        except BaseException:
            path.unlink()
            raise


def is_utf8(text: str) -> bool:
    """Tell whether text can be a name: JSON, and so a row, may hold lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
