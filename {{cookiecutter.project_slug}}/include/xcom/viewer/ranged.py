"""Ranges of a stored object, through the store that tasks use: its connections, tokens and limits.

A whole object is checked against the CRC32C of its reference. Of a range that cannot be done; what a
bucket's server says of the whole object (generation, size, CRC32C) is compared instead, and of a
file its size.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import urllib3

from include.xcom.errors import PayloadCorruptError, StoreUnavailableError
from include.xcom.stores import DirectoryStore, Store, checksum, store_of
from include.xcom.transport import Transient
from include.xcom.viewer import limits

if TYPE_CHECKING:
    from include.xcom.gcs import GCSStore
    from include.xcom.reference import PayloadReference

__all__ = ["Held", "Source", "open_source"]

_PIECE_BYTES = 4 * 2**20
_RANGE_SECONDS = 15.0


class Source(Protocol):
    """The bytes of one payload."""

    size: int

    def read(self, start: int, stop: int) -> bytes:
        """Return a range.

        Raises:
            PayloadMissingError: The object is gone.
            PayloadCorruptError: It is another one than the reference says.
            StoreUnavailableError: The store did not answer.
        """

    def pieces(self) -> Iterator[bytes]:
        """Return everything, piece by piece."""


def open_source(reference: PayloadReference, *, is_streamed: bool = False) -> Source:
    """Return the bytes that a reference names.

    Raises:
        ReferenceNotAllowedError: They lie outside of what this deployment may read. Nothing was read.
        PayloadError: A small object was read whole, and is missing or altered.
    """
    store = store_of(reference.uri)
    if not reference.bytes:
        return Held(bytes(store.get(reference)))  # There is no range of nothing.
    source = _ranged(store, reference)
    if reference.bytes > limits.WHOLE_BYTES or is_streamed:
        return source
    data = source.read(0, reference.bytes)
    if checksum([data]) != reference.crc32c:
        raise PayloadCorruptError("has another CRC32C than what was written", uri=reference.uri)
    return Held(data)


def _ranged(store: Store, reference: PayloadReference) -> Source:
    if isinstance(store, DirectoryStore):
        return _FileRanges(store, reference)
    from include.xcom.gcs import GCSStore

    assert isinstance(store, GCSStore)
    return _BucketRanges(store, reference)


class Held:
    """Bytes that are in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, start: int, stop: int) -> bytes:
        """Return a range."""
        return self._data[start:stop]

    def pieces(self) -> Iterator[bytes]:
        """Return everything."""
        yield self._data


class _Ranges:
    size: int

    def read(self, start: int, stop: int) -> bytes:
        raise NotImplementedError

    def pieces(self) -> Iterator[bytes]:
        for start in range(0, self.size, _PIECE_BYTES):
            yield self.read(start, min(start + _PIECE_BYTES, self.size))


class _FileRanges(_Ranges):
    def __init__(self, store: DirectoryStore, reference: PayloadReference) -> None:
        self._store = store
        self._uri = reference.uri
        self.size = reference.bytes

    def read(self, start: int, stop: int) -> bytes:
        # Opened each time: it is cheap, and no descriptor outlives a request that was given up.
        with self._store._open(self._uri) as file:
            size = file.seek(0, 2)
            if size != self.size:
                raise PayloadCorruptError(
                    f"is {size} bytes long, and {self.size} were written", uri=self._uri
                )
            file.seek(start)
            data = bytearray()
            while len(data) < stop - start and (piece := file.read(stop - start - len(data))):
                data += piece
        if len(data) != stop - start:
            raise PayloadCorruptError("was cut while it was read", uri=self._uri)
        return bytes(data)


class _BucketRanges(_Ranges):
    def __init__(self, store: GCSStore, reference: PayloadReference) -> None:
        self._store = store
        self._reference = reference
        self.size = reference.bytes

    def read(self, start: int, stop: int) -> bytes:
        store, reference = self._store, self._reference
        uri = reference.uri
        url = store._object_url(store._name(uri), "/download")
        url += f"?alt=media&generation={reference.generation}"
        headers = {"range": f"bytes={start}-{stop - 1}"}

        def once() -> bytes:
            response = store._request("GET", url, headers, is_streamed=True)
            try:
                if response.status == 416:
                    raise PayloadCorruptError("is shorter than what was written", uri=uri)
                if response.status not in (200, 206):
                    store._check(response, uri, "get")
                    raise StoreUnavailableError(f"{uri}: unexpected answer HTTP {response.status}", uri=uri)
                _compare(response.headers, reference)
                if response.status == 206:
                    data = response.data
                else:
                    # The server does not know ranges; what comes before is passed over.
                    _skip(response, start)
                    data = response.read(stop - start)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise Transient(f"the answer broke off ({error})") from error
            finally:
                response.close() if response.length_remaining else response.release_conn()
            if len(data) != stop - start:
                raise Transient(f"the answer ended after {len(data)} of {stop - start} bytes")
            return bytes(data)

        return store._retrying(once, uri, "read", min(store._timeout_seconds, _RANGE_SECONDS))


def _compare(headers: object, reference: PayloadReference) -> None:
    """Compare what the server says of the whole object with what was written."""
    from include.xcom.gcs import _server_crc32c

    get = headers.get  # type: ignore[attr-defined]
    said = _server_crc32c(headers)
    if said and said != base64.b64encode(bytes.fromhex(reference.crc32c)).decode():
        raise PayloadCorruptError("has another CRC32C than what was written", uri=reference.uri)
    total = get("content-range", "").rpartition("/")[2] or get("content-length", "")
    if total.isdecimal() and int(total) != reference.bytes:
        raise PayloadCorruptError(
            f"is {total} bytes long, and {reference.bytes} were written", uri=reference.uri
        )


def _skip(response: object, count: int) -> None:
    while count > 0:
        piece = response.read(min(_PIECE_BYTES, count))  # type: ignore[attr-defined]
        if not piece:
            raise Transient("the answer ended too early")
        count -= len(piece)
