"""Admit a few views at a time, and log each of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore, Lock
from types import TracebackType
from typing import Any

import structlog
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from starlette.exceptions import HTTPException

from . import limits
from .ids import Ids
from .sources import Tally

__all__ = ["BusyError", "Throttle", "View"]

log = structlog.get_logger(__name__)

_CHARACTERS = 500


class BusyError(Exception):
    """Too many views are under way."""


class Throttle:
    """Admits some requests at a time. The next ones wait a little, and only a few may wait.

    A request that waits holds one of the threads that all pages of Airflow share.
    """

    def __init__(self, count: int) -> None:
        self._free = BoundedSemaphore(count)
        self._lock = Lock()
        self._waiting = 0

    def acquire(self) -> None:
        """Enter; ``release`` must follow.

        Raises:
            BusyError: No request left in time, or too many wait already.
        """
        if self._free.acquire(blocking=False):
            return
        with self._lock:
            if self._waiting >= limits.WAITING_AT_ONCE:
                raise BusyError
            self._waiting += 1
        try:
            is_admitted = self._free.acquire(timeout=limits.WAIT_SECONDS)
        finally:
            with self._lock:
                self._waiting -= 1
        if not is_admitted:
            raise BusyError

    def release(self) -> None:
        """Leave."""
        self._free.release()

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Enter for the length of a block.

        Raises:
            BusyError: See ``acquire``.
        """
        self.acquire()
        try:
            yield
        finally:
            self.release()


class View:
    """One view: a context manager that logs who looked at what, and how it ended.

    Attributes:
        key: XCom key that is shown.
        outcome: One or two words; of a view that failed, the name of the error.
        is_streaming: The answer is sent after the block, and ``write`` is called then.
        tally: Counts the bytes that are read from the store.
        rows: Number of rows on a page that lists them.
    """

    def __init__(self, event: str, user: BaseUser, ids: Ids, key: str = "", outcome: str = "shown") -> None:
        self.key = key
        self.outcome = outcome
        self.is_streaming = False
        self.tally = Tally()
        self.rows: int | None = None
        self._event = event
        self._user = user
        self._ids = ids

    def __enter__(self) -> View:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.fail(error)
        if error is not None or not self.is_streaming:
            self.write()

    def fail(self, error: BaseException) -> None:
        """Take an error for the outcome."""
        if isinstance(error, HTTPException) and error.__cause__ is None:
            self.outcome = f"HTTP {error.status_code}"
        else:  # An HTTP error that has a cause only words an error of ours.
            self.outcome = type(error.__cause__ if isinstance(error, HTTPException) else error).__name__

    def write(self) -> None:
        """Write the line."""
        ids = self._ids
        facts: dict[str, Any] = {"user": str(self._user.get_name()), "dag_id": ids.dag_id}
        facts |= {"run_id": ids.run_id} if ids.run_id else {}
        facts |= {"task_id": ids.task_id, "map_index": ids.map_index, "key": self.key} if ids.task_id else {}
        facts |= {"bytes": self.tally.bytes} if self.rows is None else {"rows": self.rows}
        shown = {name: _one_line(fact) if type(fact) is str else fact for name, fact in facts.items()}
        log.info(self._event, **shown, outcome=self.outcome)


def _one_line(text: str) -> str:
    """Escape what would end a line, move a cursor, or color a terminal, as Python does in its strings."""
    shown = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text[:_CHARACTERS])
    return shown if len(text) <= _CHARACTERS else f"{shown}… ({len(text)} characters)"
