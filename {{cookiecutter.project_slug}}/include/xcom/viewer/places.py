"""How many views and downloads there are at a time, of one process of the API server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore, Lock

from . import limits

__all__ = ["BusyError", "Places"]


class BusyError(Exception):
    """All places are taken, and nobody gave one back in time."""


class Places:
    """A number of places; whoever finds none waits a little, and only a few may wait.

    A request that waits holds one of the threads that all pages of Airflow share.
    """

    def __init__(self, count: int) -> None:
        self._free = BoundedSemaphore(count)
        self._lock = Lock()
        self._waiting = 0

    def take(self) -> None:
        """Take a place; ``give_back`` must follow.

        Raises:
            BusyError: There is none.
        """
        if self._free.acquire(blocking=False):
            return
        with self._lock:
            if self._waiting >= limits.WAITING_AT_ONCE:
                raise BusyError
            self._waiting += 1
        try:
            is_mine = self._free.acquire(timeout=limits.WAIT_SECONDS)
        finally:
            with self._lock:
                self._waiting -= 1
        if not is_mine:
            raise BusyError

    def give_back(self) -> None:
        """Give a place back."""
        self._free.release()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold a place within the block.

        Raises:
            BusyError: There is none.
        """
        self.take()
        try:
            yield
        finally:
            self.give_back()
