"""What a store is: named objects of bytes, written once and never overwritten."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from ..reference import PayloadReference

__all__ = ["PAGE_OBJECTS", "Buffer", "Listed", "Page", "Parts", "Store", "Stored", "is_utf8", "pieces"]

Buffer = bytes | bytearray | memoryview
"""Bytes in memory. A memoryview is C-contiguous with format ``B``."""
PAGE_OBJECTS = 1000
"""Objects in a page of a listing: the most that GCS returns at once."""
# Large enough that the requests for an object that is read by ranges hardly count.
_PIECE_BYTES = 4 * 1024 * 1024


class Stored(NamedTuple):
    """What a store says of an object that it has just written.

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
        """Return what a reference says of its object."""
        return cls(reference.uri, reference.generation, reference.bytes, reference.crc32c)


class Listed(NamedTuple):
    """What a store says of one object when it lists many.

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
    """What the backend asks of a place for payloads."""

    def put(self, name: str, parts: Parts) -> Stored:
        """Write one object that must not exist yet; it appears whole or not at all.

        Raises:
            PayloadExistsError: Another object has this name; it is as it was.
            StoreUnavailableError: Nothing was written, or what was written cannot be told apart from
                nothing: at most an object that no reference names is left.
        """

    def get(self, reference: PayloadReference) -> memoryview:
        """Read one object into memory of its own and check size and CRC32C.

        Raises:
            PayloadMissingError: That generation of the object is gone.
            PayloadCorruptError: It has another size or checksum than the reference says.
            StoreUnavailableError: It could not be read in time.
        """

    def read(self, stored: Stored, start: int, stop: int, *, seconds: float | None = None) -> bytes:
        """Read the bytes from ``start`` to before ``stop`` of one object; behind its end there are none.

        What can be told without the other bytes is compared: the size, and where a server states it the
        CRC32C of the whole. A directory cannot; there whoever needs to know calls ``describe``.

        Args:
            stored: What was written.
            seconds: Give up after these, if ``timeout_seconds`` is longer. Files have no such limit.

        Raises:
            PayloadMissingError: That generation of the object is gone.
            PayloadCorruptError: It has another size, or by the server's word another checksum.
            StoreUnavailableError: It could not be read in time.
        """

    def describe(self, uri: str) -> Stored:
        """Return what the store knows of the newest generation of an object, without its bytes.

        Raises:
            PayloadMissingError: There is no such object.
            StoreUnavailableError: The store did not allow it or did not answer in time.
        """

    def delete(self, uri: str, generation: str) -> bool:
        """Delete exactly that generation; return False if it was gone already.

        Raises:
            StoreUnavailableError: The store did not allow it or did not answer.
        """

    def list(self, prefix: str, start: str = "") -> Iterator[Page]:
        """Yield the objects whose names begin with ``prefix``, in the order of their names, by pages.

        Holds one page at a time. Objects that are written or deleted meanwhile may be in it or not.

        Args:
            prefix: ``""``, or a folder with a slash at its end.
            start: The first name to give, should it exist.

        Raises:
            StoreUnavailableError: The store did not allow it or did not answer.
        """


def pieces(store: Store, stored: Stored) -> Iterator[bytes]:
    """Yield the bytes of one object by ranges, so that it is never whole in memory.

    Raises:
        PayloadError: As ``Store.read``.
    """
    if not stored.size:
        store.describe(stored.uri)  # There is no range of nothing, but the object may be missing.
    for start in range(0, stored.size, _PIECE_BYTES):
        yield store.read(stored, start, start + _PIECE_BYTES)


def is_utf8(text: str) -> bool:
    # A row can hold what no name can: JSON knows lone surrogates.
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
