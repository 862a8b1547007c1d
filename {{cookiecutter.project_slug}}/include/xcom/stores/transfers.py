"""Large objects over several connections at once.

One connection to a bucket carries about 100 MB/s up and 200 MB/s down, a fraction of what most
machines can do (`make bench ARGS="--only link"`). So large objects are read in ranges, and written as
parts, objects of their own, that ``compose`` joins on the server. Each part or range is a request with
its own retries and its own ``timeout_seconds``.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from threading import Lock, Semaphore
from typing import TypeVar

from ..errors import StoreUnavailableError
from .checksums import joined_checksum
from .contract import Buffer, Progress, Stored, new_token, part_name
from .json_api import Bucket, Sink
from .transport import Body

__all__ = ["AT_ONCE", "cut", "receive_ranges", "send_parts"]

log = logging.getLogger(__name__)

_A = TypeVar("_A")
_T = TypeVar("_T")

AT_ONCE = 8
# https://cloud.google.com/storage/docs/composite-objects
_MOST_SOURCES = 32


def receive_ranges(
    bucket: Bucket, stored: Stored, range_bytes: int, sink: Sink, progress: Progress | None = None
) -> str:
    """Read one object in ranges, ``AT_ONCE`` at a time; return its CRC32C.

    Raises:
        RangeIgnoredError: The server ignores ranges: read it whole.
        PayloadError: As ``Bucket.receive``.
    """
    spans = [(at, min(at + range_bytes, stored.size)) for at in range(0, stored.size, range_bytes)]

    def receive(span: tuple[int, int]) -> str:
        return bucket.receive(stored, *span, sink, is_whole_accepted=False)

    parts = []
    # A pool for each call: none outlives it, so none can be shared across a fork.
    with ThreadPoolExecutor(min(AT_ONCE, len(spans)), "range") as pool:
        futures = [_submit(pool, receive, span) for span in spans]
        try:
            for (start, stop), future in zip(spans, futures, strict=True):
                parts.append((future.result(), stop - start))
                if progress:
                    progress(stop)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return joined_checksum(parts)


def cut(chunks: Iterable[Buffer], size: int) -> Iterator[Body]:
    """Yield the bytes of chunks, of any sizes, in bodies of ``size``; the last one may be shorter."""
    piece, filled = bytearray(size), 0
    for chunk in chunks:
        view = memoryview(chunk).cast("B")
        while view:
            taken = view[: size - filled]
            piece[filled : filled + len(taken)] = taken
            filled += len(taken)
            view = view[len(taken) :]
            if filled == size:
                yield Body([piece])
                piece, filled = bytearray(size), 0
    if filled:
        yield Body([memoryview(piece)[:filled]])


def send_parts(bucket: Bucket, name: str, bodies: Iterable[Body], progress: Progress | None = None) -> Stored:
    """Create one object from bodies, ``AT_ONCE`` at a time; hold no more than these and the next one.

    Raises:
        PayloadError: As ``Bucket.insert`` and ``Bucket.compose``. Nothing is left but the parts that
            could not be deleted either, which is logged.
    """
    upload = _Upload(bucket, name)
    try:
        for body in bodies:
            upload.add(body)
            del body  # Or it would stay until the next one is complete.
            if progress:
                progress(upload.sent)
        stored = upload.finish()
    finally:
        upload.close()
    if progress:
        progress(stored.size)
    return stored


class _Upload:
    """The parts of one object. Every 32 of a level become one of the next while others are sent."""

    def __init__(self, bucket: Bucket, name: str) -> None:
        self.sent = 0
        self._bucket = bucket
        self._name = name
        self._token = new_token()
        self._numbers = itertools.count()
        # First in, first out: whatever a call waits for was started before it.
        self._pool = ThreadPoolExecutor(AT_ONCE, "part")
        self._free = Semaphore(AT_ONCE)
        self._lock = Lock()
        self._levels: list[list[Future[Stored]]] = [[]]
        self._left: set[Stored] = set()

    def add(self, body: Body) -> None:
        """Send one part; wait first until fewer than ``AT_ONCE`` are on their way."""
        self._free.acquire()
        for future in itertools.chain(*self._levels):
            if future.done():
                future.result()
        self._append(_submit(self._pool, self._send, body), 0)

    def finish(self) -> Stored:
        """Compose the object."""
        rest: list[Future[Stored]] = []
        for level in self._levels:
            if len(level) + len(rest) > _MOST_SOURCES:
                rest = [_submit(self._pool, self._join, rest)]
            rest = level + rest
        return self._bucket.compose(self._name, [future.result() for future in rest])

    def close(self) -> None:
        """Wait for what was started, and delete the parts."""
        self._pool.shutdown(cancel_futures=True)
        self._delete(list(self._left))

    def _append(self, part: Future[Stored], number: int) -> None:
        if number == len(self._levels):
            self._levels.append([])
        self._levels[number].append(part)
        if len(self._levels[number]) == _MOST_SOURCES:
            full, self._levels[number] = self._levels[number], []
            self._append(_submit(self._pool, self._join, full), number + 1)

    def _send(self, body: Body) -> Stored:
        try:
            stored = self._bucket.insert(self._next_name(), body)
            with self._lock:
                self._left.add(stored)
                self.sent += body.size
            return stored
        finally:
            body.parts.clear()  # Whoever still refers to the body, its memory is free for the next one.
            self._free.release()

    def _join(self, parts: list[Future[Stored]]) -> Stored:
        sources = [future.result() for future in parts]
        stored = self._bucket.compose(self._next_name(), sources)
        self._left.add(stored)
        self._delete(sources)
        return stored

    def _next_name(self) -> str:
        return part_name(self._name, self._token, next(self._numbers))

    def _delete(self, parts: list[Stored]) -> None:
        failures: list[StoreUnavailableError] = []

        def delete(part: Stored) -> None:
            # After a failure the others would fail too, each after seconds.
            if failures:
                return
            try:
                self._bucket.delete(part.uri, part.generation)
                self._left.discard(part)
            except StoreUnavailableError as error:
                failures.append(error)

        try:
            with ThreadPoolExecutor(AT_ONCE, "delete") as pool:
                for future in [_submit(pool, delete, part) for part in parts]:
                    future.result()
        except StoreUnavailableError:  # No thread can be started.
            for part in parts:
                delete(part)
        if failures:
            log.warning(
                "Parts of an upload remain in the bucket until the sweep deletes them: %s", failures[0]
            )


def _submit(pool: ThreadPoolExecutor, call: Callable[[_A], _T], argument: _A) -> Future[_T]:
    try:
        # Airflow 3.4 tells by the context whose trigger asks for a connection.
        return pool.submit(copy_context().run, call, argument)
    except RuntimeError as error:
        raise StoreUnavailableError(
            f"A transfer takes up to {AT_ONCE} threads, and one of them cannot be started: {error}. Raise the limit "
            "of processes or memory of this container"
        ) from error
