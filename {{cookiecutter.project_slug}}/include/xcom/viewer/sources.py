"""Read the bytes of one payload for a page or a download, and say what was checked of them.

Small objects are read whole and compared with the CRC32C of their reference. Larger ones are read by
ranges: a bucket states generation, size, and CRC32C of the whole object with each answer. A file is read
once for its CRC32C, at several GB/s, unless it is very large.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from ..errors import PayloadCorruptError, ReferenceNotAllowedError
from ..reference import Coordinates, object_name
from ..settings import load_settings
from ..stores import DirectoryStore, Store, Stored, checksum, pieces, store_of
from . import limits

if TYPE_CHECKING:
    from ..reference import PayloadReference

__all__ = ["InMemory", "Source", "Tally", "open_source"]

_WHOLE = "CRC32C of the whole object"
_STATED = "generation, size, and CRC32C, as stated by the bucket"
_SIZE = "size only, because the file is large; a task that loads it checks the CRC32C"
# Lengths of names that the store writes.
_PREFIX_CHARACTERS = 200
_FILE_CHARACTERS = 64


class Source(Protocol):
    """The bytes of one payload.

    Attributes:
        size: Bytes.
        checked: What was compared with the reference; empty for a value in the database.
    """

    size: int
    checked: str

    def read(self, start: int, stop: int, seconds: float = limits.RANGE_SECONDS) -> bytes:
        """Return a range; give up after ``seconds``.

        Raises:
            PayloadMissingError: The object is gone.
            PayloadCorruptError: It is not the object that the reference names.
            StoreUnavailableError: The store did not answer.
        """

    def pieces(self) -> Iterator[bytes]:
        """Yield everything, piece by piece."""


class Tally:
    """Counts the bytes that several threads read from the store."""

    def __init__(self) -> None:
        self.bytes = 0
        self._lock = Lock()

    def add(self, size: int) -> None:
        """Count ``size`` bytes."""
        with self._lock:
            self.bytes += size


def open_source(reference: PayloadReference, owner: Coordinates, tally: Tally | None = None) -> Source:
    """Return the bytes that a reference names.

    Args:
        reference: From the row.
        owner: The XCom whose row it is.
        tally: Counts the bytes that are read from the store, now and later.

    Raises:
        ReferenceNotAllowedError: They are outside of what this deployment may read, or belong to another
            XCom. Nothing was read.
        PayloadMissingError: There is no such object.
        PayloadCorruptError: The object was altered.
        StoreUnavailableError: The store did not answer.
    """
    tally = tally or Tally()
    store = store_of(reference.uri)
    _check_owner(reference.uri, owner)
    stored = Stored.of(reference)
    if stored.size <= limits.WHOLE_BYTES:
        if stored.size:
            data = bytes(store.read(stored, 0, stored.size, seconds=limits.RANGE_SECONDS))
        else:
            data = b"".join(pieces(store, stored))
        tally.add(len(data))
        _compare(checksum([data]), stored)
        return InMemory(data, _WHOLE)
    # The first byte tells whether the object is there and unchanged.
    tally.add(len(store.read(stored, 0, 1, seconds=limits.RANGE_SECONDS)))
    if not isinstance(store, DirectoryStore):
        return _Stored(store, stored, _STATED, tally)
    if stored.size > limits.CHECKED_FILE_BYTES:
        return _Stored(store, stored, _SIZE, tally)
    tally.add(stored.size)
    _compare(store.describe(stored.uri).crc32c, stored)
    return _Stored(store, stored, _WHOLE, tally)


def _check_owner(uri: str, owner: Coordinates) -> None:
    """Refuse a reference to the payload of another XCom of this deployment.

    On Airflow 3.0 and 3.1 people who may write XComs of one Dag can write any reference into them, and
    would see the payloads of all Dags. Below ``read_uris`` names have another form.
    """
    settings = load_settings()
    if not uri.startswith(settings.root):
        return
    # The prefix may have changed since. Its length decides where long segments are cut.
    name = uri.removeprefix(replace(settings, prefix="").root)
    parts = name.split("/")
    prefix, file = "/".join(parts[:-6]), parts[-1]
    iteration = parts[-3] if len(parts) > 5 else ""
    if owner.map_index == -1 and iteration.isdecimal() and len(iteration) < 10 and _has_loops():
        # The folder is that of an iteration of a loop, which the row does not name.
        owner = owner._replace(map_index=int(iteration))
    is_ours = len(prefix) <= _PREFIX_CHARACTERS and len(file) <= _FILE_CHARACTERS
    unique, _, extension = file.partition(".")
    if not is_ours or name != object_name(prefix, owner, unique, extension):
        raise ReferenceNotAllowedError(f"The row of {owner} points to another XCom's payload: {uri}", uri=uri)


def _has_loops() -> bool:
    from airflow import __version__

    major, minor = (int(part) for part in __version__.split(".")[:2])
    return (major, minor) >= (3, 4)


def _compare(crc32c: str, stored: Stored) -> None:
    if crc32c != stored.crc32c:
        raise PayloadCorruptError("the object has another CRC32C than what was written", uri=stored.uri)


class InMemory:
    """A small payload, or a value from the database."""

    def __init__(self, data: bytes, checked: str = "") -> None:
        self._data = data
        self.size = len(data)
        self.checked = checked

    def read(self, start: int, stop: int, seconds: float = limits.RANGE_SECONDS) -> bytes:
        """Return a range."""
        return self._data[start:stop]

    def pieces(self) -> Iterator[bytes]:
        """Yield everything at once."""
        yield self._data


class _Stored:
    """An object that is read by ranges."""

    def __init__(self, store: Store, stored: Stored, checked: str, tally: Tally) -> None:
        self._store = store
        self._stored = stored
        self._tally = tally
        self.size = stored.size
        self.checked = checked

    def read(self, start: int, stop: int, seconds: float = limits.RANGE_SECONDS) -> bytes:
        data = bytes(self._store.read(self._stored, start, stop, seconds=min(seconds, limits.RANGE_SECONDS)))
        self._tally.add(len(data))
        return data

    def pieces(self) -> Iterator[bytes]:
        for piece in pieces(self._store, self._stored):
            self._tally.add(len(piece))
            yield bytes(piece)
