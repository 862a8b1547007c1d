"""Payloads as objects of a bucket of Google Cloud Storage."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .contract import Buffer, Listed, Page, Parts, Progress, Stored, new_file
from .json_api import Bucket, RangeIgnoredError, Sink
from .transfers import AT_ONCE, cut, receive_ranges, send_parts
from .transport import Body

if TYPE_CHECKING:
    from ..reference import PayloadReference
    from ..settings import Settings

__all__ = ["ENDPOINT", "GCSStore"]

ENDPOINT = "https://storage.googleapis.com"

_MIB = 1024 * 1024
# Where several connections begin to pay on a link like one to a bucket, and the sizes that move most
# on it within the memory that a task has to spare (`make bench ARGS="--only link"`).
_LEAST_BYTES_IN_PARTS = 64 * _MIB
_LEAST_BYTES_IN_RANGES = 16 * _MIB
_STREAM_PART_BYTES = 12 * _MIB
_MOST_PART_BYTES = 64 * _MIB
_DOWNLOAD_RANGE_BYTES = 64 * _MIB


class GCSStore:
    """One bucket.

    Thread-safe; not to be used after a fork (``stores`` keeps one for each process). Making one sends
    no request.

    Args:
        bucket: Its name.
        settings: ``conn_id``, ``concurrency`` and ``timeout_seconds`` are used.
        scope: OAuth scope of tokens; "" for reading and writing objects.
    """

    def __init__(self, bucket: str, settings: Settings, *, scope: str = "") -> None:
        self._bucket = Bucket(
            bucket,
            endpoint=ENDPOINT,
            conn_id=settings.conn_id,
            connections=settings.concurrency * AT_ONCE,
            seconds=settings.timeout_seconds,
            scope=scope,
        )

    @property
    def account(self) -> str:
        """E-mail of the service account, known after the first request; "" if there is none."""
        return self._bucket.account

    def put(self, name: str, parts: Parts) -> Stored:
        """Write one object in a single request; a large one in parts that the server composes."""
        body = Body(parts)
        if body.size < _LEAST_BYTES_IN_PARTS:
            return self._bucket.insert(name, body)
        size = min(_MOST_PART_BYTES, -(-body.size // AT_ONCE))
        return send_parts(self._bucket, name, body.split(size))

    def put_stream(self, name: str, chunks: Iterable[Buffer], *, progress: Progress | None = None) -> Stored:
        """Write parts that the server composes; a short stream takes a single request.

        Holds at most ten parts of 12 MiB in memory.
        """
        pieces = cut(chunks, _STREAM_PART_BYTES)
        first, second = next(pieces, b""), next(pieces, None)
        if second is None:
            stored = self._bucket.insert(name, Body([first]))
            if progress:
                progress(stored.size)
            return stored
        bodies = (Body([piece]) for piece in chain([first, second], pieces))
        return send_parts(self._bucket, name, bodies, progress)

    def copy(self, source: Stored, name: str) -> Stored:
        """Let the server copy the object."""
        return self._bucket.copy(source, name)

    def get(self, reference: PayloadReference) -> memoryview:
        """Read one object in a single request; a large one in ranges, several at once."""
        stored = Stored.of(reference)
        buffer = memoryview(bytearray(stored.size))

        def fill(offset: int, data: bytes) -> None:
            buffer[offset : offset + len(data)] = data

        self._receive(stored, fill, max(_LEAST_BYTES_IN_RANGES // 2, -(-stored.size // AT_ONCE)))
        return buffer

    def download(self, stored: Stored, path: Path, *, progress: Progress | None = None) -> None:
        """Write one object to a file, in ranges, several at once."""
        with new_file(path) as file:

            def write(offset: int, data: bytes) -> None:
                while data:
                    written = os.pwrite(file.fileno(), data, offset)
                    offset, data = offset + written, data[written:]

            self._receive(stored, write, _DOWNLOAD_RANGE_BYTES, progress)

    def _receive(
        self, stored: Stored, sink: Sink, range_bytes: int, progress: Progress | None = None
    ) -> None:
        if stored.size >= _LEAST_BYTES_IN_RANGES:
            try:
                if receive_ranges(self._bucket, stored, range_bytes, sink, progress) == stored.crc32c:
                    return
            except RangeIgnoredError:
                pass
        # Where ranges do not add up, this tells whether the object was altered or its bytes on the way.
        self._bucket.receive(stored, 0, stored.size, sink)
        if progress:
            progress(stored.size)

    def read(self, stored: Stored, start: int, stop: int, *, seconds: float | None = None) -> bytes:
        """Ask for a range of one generation; the response states size and CRC32C of the whole."""
        stop = min(stop, stored.size)
        if start >= stop:
            return b""
        data = bytearray(stop - start)

        def fill(offset: int, piece: bytes) -> None:
            data[offset - start : offset - start + len(piece)] = piece

        self._bucket.receive(stored, start, stop, fill, seconds=seconds)
        return bytes(data)

    def describe(self, uri: str) -> Stored:
        """Ask for an object's metadata."""
        return self._bucket.describe(uri)

    def delete(self, uri: str, generation: str) -> bool:
        """Delete exactly one generation; another one under the same name stays."""
        return self._bucket.delete(uri, generation)

    def list(self, prefix: str, start: str = "") -> Iterator[Page]:
        """Ask for a page of metadata in each request."""
        for page in self._bucket.pages(prefix, start):
            yield [
                Listed(
                    f"{self._bucket.uri}/{item['name']}",
                    item["name"],
                    str(item["generation"]),
                    int(item.get("size", 0)),
                    _seconds(item["timeCreated"]),
                )
                for item in page.get("items", [])
            ]

    def list_folders(self, prefix: str) -> Iterator[str]:
        """Ask for a page of names in each request."""
        for page in self._bucket.pages(prefix, delimiter="/"):
            yield from page.get("prefixes", [])

    def bucket_metadata(self) -> dict[str, Any]:
        """Return the bucket resource: https://cloud.google.com/storage/docs/json_api/v1/buckets.

        Raises:
            StoreUnavailableError: The bucket does not exist, may not be read, or did not answer.
        """
        return self._bucket.metadata()

    def update_bucket(self, changes: Mapping[str, Any], metageneration: str) -> dict[str, Any]:
        """Change fields of the bucket resource; return it as it is then.

        Args:
            changes: Fields and their new values.
            metageneration: As it was read; the change is refused if someone else changed the bucket since.

        Raises:
            StoreUnavailableError: The bucket was changed since, or may not be changed.
        """
        return self._bucket.update(changes, metageneration)


def _seconds(text: str) -> float:
    """Read a time of RFC 3339; Python 3.10 takes neither "Z" nor nanoseconds."""
    zone = text[-6:]
    is_offset = zone[0] in "+-" and zone[3] == ":"
    return datetime.fromisoformat(text[:19] + (zone if is_offset else "+00:00")).timestamp()
