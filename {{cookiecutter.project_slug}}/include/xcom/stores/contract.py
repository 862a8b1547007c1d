"""The contract of a store: named objects of bytes, written once and never overwritten."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol
from uuid import uuid4

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
"""Receives the number of bytes stored so far, from the thread that called the store."""
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
    def of(cls, reference: PayloadReference) -> Stored:
        """Return the object that a reference names."""
        return cls(reference.uri, reference.generation, reference.bytes, reference.crc32c)


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
    """A place for payloads. All methods may be called from several threads at once."""

    def put(self, name: str, parts: Parts) -> Stored:
        """Write one new object from bytes in memory; it appears whole or not at all.

        Raises:
            PayloadExistsError: Another object has this name. It is unchanged.
            StoreUnavailableError: The store refused, or did not answer within ``timeout_seconds``. At
                worst an unreferenced object remains.
        """

    def put_stream(self, name: str, chunks: Iterable[Buffer], *, progress: Progress | None = None) -> Stored:
        """Write one new object of unknown length; it appears whole or not at all.

        Memory does not grow with the length. A chunk may be changed or reused as soon as the next one
        is asked for. ``timeout_seconds`` is per piece: a long upload that moves is not late. Whatever
        goes wrong, including an error of ``chunks``, which is raised as it is, nothing is left under
        ``name``; what may be left are parts (see ``is_part``), if this process is killed.

        Args:
            name: Name of the object.
            chunks: The bytes, in any sizes.
            progress: Called now and then with the number of bytes stored so far.

        Raises:
            PayloadExistsError: Another object has this name. It is unchanged.
            StoreUnavailableError: The store refused, or did not answer within ``timeout_seconds``.
        """

    def copy(self, source: Stored, name: str) -> Stored:
        """Copy one object of this store to a new name without moving its bytes through this process.

        Raises:
            PayloadMissingError: That generation of the source is gone.
            PayloadCorruptError: The source's size or checksum is not what was written.
            PayloadExistsError: Another object has this name. It is unchanged.
            StoreUnavailableError: The store refused, or did not answer within ``timeout_seconds``.
        """

    def get(self, reference: PayloadReference) -> memoryview:
        """Read one object into new memory; check its size and CRC32C.

        Large objects are read in several ranges at once where that is faster.

        Raises:
            PayloadMissingError: That generation of the object is gone.
            PayloadCorruptError: Its size or checksum is not what the reference says.
            StoreUnavailableError: It could not be read within ``timeout_seconds``.
        """

    def download(self, stored: Stored, path: Path, *, progress: Progress | None = None) -> None:
        """Write one object to a new file; check its size and CRC32C.

        Memory does not grow with the size. Large objects are read in several ranges at once;
        ``timeout_seconds`` is per range. An error removes the file.

        Args:
            stored: The object.
            path: Must not exist; its folder must.
            progress: Called now and then with the number of bytes written so far.

        Raises:
            PayloadMissingError: That generation of the object is gone.
            PayloadCorruptError: Its size or checksum is another.
            StoreUnavailableError: It could not be read in time.
            OSError: The file could not be written.
        """

    def read(self, stored: Stored, start: int, stop: int, *, seconds: float | None = None) -> bytes:
        """Read the bytes from ``start`` up to ``stop`` of one object; past its end there are none.

        Checks what can be checked without the other bytes: the size, and where the server states it,
        the CRC32C of the whole. A directory cannot do the latter; call ``describe`` where it matters.

        Args:
            stored: The object.
            start: Offset of the first byte.
            stop: Offset behind the last byte.
            seconds: Give up after this time, if it is shorter than ``timeout_seconds``. Files have no
                such limit.

        Raises:
            PayloadMissingError: That generation of the object is gone.
            PayloadCorruptError: Its size, or its checksum as the server states it, is another.
            StoreUnavailableError: It could not be read in time.
        """

    def describe(self, uri: str) -> Stored:
        """Return the metadata of the newest generation of an object.

        Raises:
            PayloadMissingError: There is no such object.
            StoreUnavailableError: The store refused, or did not answer within ``timeout_seconds``.
        """

    def delete(self, uri: str, generation: str) -> bool:
        """Delete exactly that generation; return False if it was already gone.

        Raises:
            StoreUnavailableError: The store refused or did not answer.
        """

    def list(self, prefix: str, start: str = "") -> Iterator[Page]:
        """Yield pages of the objects whose names begin with ``prefix``, ordered by name.

        Holds one page at a time. Objects written or deleted meanwhile may or may not be included.

        Args:
            prefix: ``""``, or a folder with a slash at its end.
            start: Skip names that sort before this one.

        Raises:
            StoreUnavailableError: The store refused or did not answer.
        """

    def list_folders(self, prefix: str) -> Iterator[str]:
        """Yield the names of the folders directly below ``prefix``, each with a slash at its end.

        Args:
            prefix: ``""``, or a folder with a slash at its end.

        Raises:
            StoreUnavailableError: The store refused or did not answer.
        """


def pieces(store: Store, stored: Stored) -> Iterator[bytes]:
    """Yield the bytes of one object in pieces, so that it is never whole in memory.

    Raises:
        PayloadError: As ``Store.read``.
    """
    if not stored.size:
        store.describe(stored.uri)  # Nothing to read, but the object may be missing.
    for start in range(0, stored.size, _PIECE_BYTES):
        yield store.read(stored, start, start + _PIECE_BYTES)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Create a file, and remove it if the block fails."""
    with path.open("xb") as file:
        try:
            yield file
        except BaseException:
            path.unlink()
            raise


def part_name(name: str, token: str, number: int) -> str:
    """Return the name of one part of an object that is being written: a neighbour of the object.

    ``{folder}/{token}.part-{number}``. No longer than the names of payloads, which end in a UUID.

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


def is_part(name: str) -> bool:
    """Tell whether an object's name is that of a part: of an upload that is running or was killed.

    No reference names a part. One that is older than any upload can be deleted.
    """
    return _PART.fullmatch(name) is not None


def is_utf8(text: str) -> bool:
    """Tell whether a name can be encoded: JSON, and so a row, may hold lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
