"""Payloads as objects of a bucket of Google Cloud Storage."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import chain, islice
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from pathlib import Path
from typing import TYPE_CHECKING

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
# Where several connections begin to pay, and the sizes that move most within the memory that a task can
# spare, on a link like one to a bucket (`make bench ARGS="--only link"`).
_LEAST_BYTES_IN_PARTS = 64 * _MIB
_LEAST_BYTES_IN_RANGES = 16 * _MIB
_STREAM_PART_BYTES = 8 * _MIB
_MOST_PART_BYTES = 64 * _MIB
_DOWNLOAD_RANGE_BYTES = 32 * _MIB
_LEAST_BYTES_MAPPED = 8 * _MIB


class GCSStore(Bucket):
    """Store payloads in one bucket: small ones by one request, large ones over several connections.

    Thread-safe; not to be used after a fork (``stores`` keeps one for each process). Making one sends
    no request.

    Args:
        bucket: Name of the bucket.
        settings: ``conn_id``, ``concurrency`` and ``timeout_seconds`` are used.
        scope: OAuth scope of tokens; "" for reading and writing objects.
    """

    def __init__(self, bucket: str, settings: Settings, *, scope: str = "") -> None:
        connections = settings.concurrency * AT_ONCE
        super().__init__(bucket, settings, endpoint=ENDPOINT, connections=connections, scope=scope)

    def put(self, name: str, parts: Parts) -> Stored:
        """Write one object in a single request; a large one in parts that the server composes."""
        body = Body(parts)
        if body.size < _LEAST_BYTES_IN_PARTS:
            return self.insert(name, body)
        return send_parts(self, name, body.split(min(_MOST_PART_BYTES, _share(body.size))))

    def put_stream(
        self,
        name: str,
        chunks: Iterable[Buffer],
        *,
        part_bytes: int | None = None,
        progress: Progress | None = None,
    ) -> Stored:
        """Write parts that the server composes; a short stream takes a single request.

        Holds at most ten parts in memory, of 8 MiB by default.
        """
        bodies = cut(chunks, part_bytes or _STREAM_PART_BYTES)
        head = list(islice(bodies, 2))
        if len(head) == 2:
            return send_parts(self, name, chain(_emptied(head), bodies), progress)
        stored = self.insert(name, head[0] if head else Body([]))
        if progress:
            progress(stored.size)
        return stored

    def get(self, reference: PayloadReference | Stored) -> memoryview:
        """Read one object in a single request; a large one in ranges, several at once."""
        stored = Stored.of(reference)
        memory = memoryview(bytearray(stored.size))
        self._receive(stored, _filling(memory, 0), max(_LEAST_BYTES_IN_RANGES // 2, _share(stored.size)))
        return memory

    def download(self, stored: Stored, path: Path, *, progress: Progress | None = None) -> None:
        """Write one object to a file, in ranges, several at once."""
        with new_file(path) as file:

            def write(offset: int, data: bytes) -> None:
                while data:
                    written = os.pwrite(file.fileno(), data, offset)
                    offset, data = offset + written, data[written:]

            self._receive(stored, write, _DOWNLOAD_RANGE_BYTES, progress)

    def read(self, stored: Stored, start: int, stop: int, *, seconds: float | None = None) -> memoryview:
        """Ask for a range of one generation; the response states size and CRC32C of the whole."""
        stop = min(stop, stored.size)
        if start >= stop:
            return memoryview(b"")
        # A mapping goes back to the system once nobody uses it. What malloc gets back stays with the thread
        # that asked for it: 60 MB and more after a table was streamed.
        is_mapped = stop - start >= _LEAST_BYTES_MAPPED
        flags = MAP_PRIVATE | MAP_ANONYMOUS
        memory = memoryview(mmap(-1, stop - start, flags) if is_mapped else bytearray(stop - start))
        self.receive(stored, start, stop, _filling(memory, start), seconds=seconds)
        return memory

    def list(self, prefix: str, start: str = "") -> Iterator[Page]:
        """Ask for a page of metadata in each request."""
        for page in self.pages(prefix, start):
            yield [
                Listed(
                    f"{self._root}/{item['name']}",
                    item["name"],
                    str(item["generation"]),
                    int(item.get("size", 0)),
                    _seconds(item["timeCreated"]),
                )
                for item in page.get("items", [])
            ]

    def list_folders(self, prefix: str) -> Iterator[str]:
        """Ask for a page of names in each request."""
        for page in self.pages(prefix, delimiter="/"):
            yield from page.get("prefixes", [])

    def _receive(
        self, stored: Stored, sink: Sink, range_bytes: int, progress: Progress | None = None
    ) -> None:
        if stored.size >= _LEAST_BYTES_IN_RANGES:
            try:
                if receive_ranges(self, stored, range_bytes, sink, progress) == stored.crc32c:
                    return
            except RangeIgnoredError:
                pass
        # If the ranges do not add up, this tells whether the object was altered or its bytes in transit.
        self.receive(stored, 0, stored.size, sink)
        if progress:
            progress(stored.size)


def _emptied(items: list[Body]) -> Iterator[Body]:
    """Yield items without keeping them."""
    while items:
        yield items.pop(0)


def _share(size: int) -> int:
    """Bytes for each of the connections."""
    return -(-size // AT_ONCE)


def _filling(memory: memoryview, start: int) -> Sink:
    """Return what puts the bytes of an object, from offset ``start`` on, into memory."""

    def fill(offset: int, data: bytes) -> None:
        memory[offset - start : offset - start + len(data)] = data

    return fill


def _seconds(text: str) -> float:
    """Read a time of RFC 3339; Python 3.10 takes neither "Z" nor nanoseconds."""
    zone = text[-6:]
    is_offset = zone[0] in "+-" and zone[3] == ":"
    return datetime.fromisoformat(text[:19] + (zone if is_offset else "+00:00")).timestamp()
