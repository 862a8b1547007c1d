"""Seekable streams over a stored object, read by ranges."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import NamedTuple

from ..errors import PayloadCorruptError
from ..stores import Stored, store_of
from .base import explaining

__all__ = ["RangedStream"]

# The first range after a seek, so that a look into a file costs little more than its latency; each
# further one is twice as long, up to what keeps eight connections busy within 32 MiB of memory.
_FIRST_BYTES = 256 * 1024
_MOST_BYTES = 4 * 1024**2
_MOST_RANGES = 8


class _Range(NamedTuple):
    start: int
    stop: int
    data: Future[memoryview]


class RangedStream(io.RawIOBase):
    """A part of a stored object as a binary stream.

    Reading on and on is fast: ranges ahead of the position are fetched over several connections, the
    more of them the longer it goes. Seeking drops what was read ahead. Wrap it in ``io.BufferedReader``
    to read lines or a few bytes at a time.

    Not to be used by several threads at once. A process that was forked while the stream was open
    reads on independently of its parent.

    Args:
        stored: The object.
        start: Offset of the first byte.
        stop: Offset behind the last byte; the object's end by default.
        is_sequential: All of it will be read: read ahead from the start.
        update: Called with every piece that is read in order from the start.
        verify: Called when the last byte has been read in order from the start; raises if the bytes
            are not those that were written.

    Raises:
        PayloadMissingError: The object is gone; raised by ``read``.
        PayloadCorruptError: It is another, or damaged; raised by ``read``.
        StoreUnavailableError: It could not be read in time; raised by ``read``.
    """

    def __init__(
        self,
        stored: Stored,
        start: int = 0,
        stop: int | None = None,
        *,
        is_sequential: bool = False,
        update: Callable[[memoryview], None] | None = None,
        verify: Callable[[], None] | None = None,
    ) -> None:
        self._stored = stored
        self._start = start
        self._stop = stored.size if stop is None else stop
        if not 0 <= self._start <= self._stop <= stored.size:
            raise PayloadCorruptError("is shorter than its index says", uri=stored.uri)
        self._at = self._noted = start
        self._update = update
        self._verify = verify
        self._longest = _MOST_RANGES if is_sequential else 1
        self._length = _MOST_BYTES if is_sequential else _FIRST_BYTES
        self._process = os.getpid()
        self._pool: ThreadPoolExecutor | None = None
        self._ranges: deque[_Range] = deque()

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        self._check_open()
        return self._at - self._start

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; makes no request."""
        self._check_open()
        base = {io.SEEK_SET: self._start, io.SEEK_CUR: self._at, io.SEEK_END: self._stop}[whence]
        if base + offset < self._start:
            raise ValueError(f"negative seek position {base + offset - self._start}")
        self._at = base + offset
        return self.tell()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer with what is at the position, at most up to the end of a range."""
        self._check_open()
        if self._at >= self._stop or not len(buffer):
            return 0
        with explaining(self._stored):
            found = self._range_at(self._at)
            try:
                data = found.data.result()
            except BaseException:
                self._forget()  # So that a later read tries again.
                raise
            offset = self._at - found.start
            piece = data[offset : offset + min(len(buffer), self._stop - self._at)]
            buffer[: len(piece)] = piece
            self._note(piece)
        self._at += len(piece)
        return len(piece)

    def narrow(self, size: int) -> None:
        """Let the stream begin at its position and end ``size`` bytes later; keep what was read ahead."""
        if self._at + size > self._stop:
            raise PayloadCorruptError("is shorter than its index says", uri=self._stored.uri)
        self._start = self._noted = self._at
        self._stop = self._start + size

    def close(self) -> None:
        """Drop what was read ahead."""
        if not self.closed:
            self._forget()
        super().close()

    def _range_at(self, at: int) -> _Range:
        if self._process != os.getpid():  # A fork has no threads, and so no range that will arrive.
            self._process, self._pool = os.getpid(), None
            self._ranges.clear()
        if self._ranges and not self._ranges[0].start <= at <= self._ranges[-1].stop:
            self._forget()
            self._longest, self._length = 1, _FIRST_BYTES
        while self._ranges and at >= self._ranges[0].stop:
            self._ranges.popleft()
            self._longest = min(2 * self._longest, _MOST_RANGES)
        start = self._ranges[-1].stop if self._ranges else at
        while len(self._ranges) < self._longest and start < self._stop:
            stop = min(start + self._length, self._stop)
            self._ranges.append(self._fetch(start, stop))
            self._length = min(2 * self._length, _MOST_BYTES)
            start = stop
        return self._ranges[0]

    def _fetch(self, start: int, stop: int) -> _Range:
        store = store_of(self._stored.uri)
        if self._longest == 1:
            data: Future[memoryview] = Future()
            data.set_result(store.read(self._stored, start, stop))
            return _Range(start, stop, data)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_MOST_RANGES, "read-ahead")
        # Airflow 3.4 tells by the context whose trigger asks for a connection.
        return _Range(
            start, stop, self._pool.submit(copy_context().run, store.read, self._stored, start, stop)
        )

    def _note(self, piece: memoryview) -> None:
        """Take what was read into the check of the whole."""
        if self._at != self._noted:
            return
        self._noted += len(piece)
        if self._update:
            self._update(piece)
        if self._verify and self._noted == self._stop:
            self._verify()

    def _forget(self) -> None:
        self._ranges.clear()
        if self._pool and self._process == os.getpid():
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = None

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")
