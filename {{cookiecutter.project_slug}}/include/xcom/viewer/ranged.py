"""The bytes of one payload for a page or a download, and what was checked of them.

Small objects are read whole and checked against the CRC32C of their reference. Of a larger one only
ranges are read: in a bucket each answer states generation, size and CRC32C of the whole object, which
are compared; a file is read once for its CRC32C, at several GB/s, unless it is very large.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from include.xcom.errors import PayloadCorruptError
from include.xcom.stores import DirectoryStore, Store, Stored, checksum, pieces, store_of
from include.xcom.viewer import limits

if TYPE_CHECKING:
    from include.xcom.reference import PayloadReference

__all__ = ["Held", "Source", "open_source"]

_WHOLE = "CRC32C of the whole object"
_STATED = "generation, and the size and CRC32C that the bucket states"
_SIZE = "size only, as it is a large file; a task that reads it checks the CRC32C"


class Source(Protocol):
    """The bytes of one payload.

    Attributes:
        size: Bytes.
        checked: What was compared with the reference, in words; empty for a value of the database.
    """

    size: int
    checked: str

    def read(self, start: int, stop: int) -> bytes:
        """Return a range.

        Raises:
            PayloadMissingError: The object is gone.
            PayloadCorruptError: It is another one than the reference says.
            StoreUnavailableError: The store did not answer.
        """

    def pieces(self) -> Iterator[bytes]:
        """Return everything, piece by piece."""


def open_source(reference: PayloadReference) -> Source:
    """Return the bytes that a reference names.

    Raises:
        ReferenceNotAllowedError: They lie outside of what this deployment may read. Nothing was read.
        PayloadMissingError: There is no such object.
        PayloadCorruptError: It was altered.
        StoreUnavailableError: The store did not answer.
    """
    store = store_of(reference.uri)
    stored = Stored.of(reference)
    if stored.size <= limits.WHOLE_BYTES:
        data = b"".join(pieces(store, stored))
        _compare(checksum([data]), stored)
        return Held(data, _WHOLE)
    if not isinstance(store, DirectoryStore):
        return _Ranges(store, stored, _STATED)
    store.read(stored, 0, 1)  # Is it there, and of that size?
    if stored.size > limits.CHECKED_FILE_BYTES:
        return _Ranges(store, stored, _SIZE)
    _compare(store.describe(stored.uri).crc32c, stored)
    return _Ranges(store, stored, _WHOLE)


def _compare(crc32c: str, stored: Stored) -> None:
    if crc32c != stored.crc32c:
        raise PayloadCorruptError("has another CRC32C than what was written", uri=stored.uri)


class Held:
    """Bytes that are in memory."""

    def __init__(self, data: bytes, checked: str = "") -> None:
        self._data = data
        self.size = len(data)
        self.checked = checked

    def read(self, start: int, stop: int) -> bytes:
        """Return a range."""
        return self._data[start:stop]

    def pieces(self) -> Iterator[bytes]:
        """Return everything."""
        yield self._data


class _Ranges:
    def __init__(self, store: Store, stored: Stored, checked: str) -> None:
        self._store = store
        self._stored = stored
        self.size = stored.size
        self.checked = checked

    def read(self, start: int, stop: int) -> bytes:
        return self._store.read(self._stored, start, stop, seconds=limits.RANGE_SECONDS)

    def pieces(self) -> Iterator[bytes]:
        return pieces(self._store, self._stored)
