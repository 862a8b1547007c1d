"""The line in the log for each view of a payload: who, which XCom, how many bytes, and how it ended."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

import structlog
from starlette.exceptions import HTTPException

from .ranged import Tally

if TYPE_CHECKING:
    from .app import Ids

__all__ = ["View"]

log = structlog.get_logger(__name__)

_CHARACTERS = 500


class View:
    """One view of a payload; a context manager that writes its line at the end, whatever the end is.

    Attributes:
        outcome: In a word or two; the name of the error if there is one.
        goes_on: The answer is sent after the block, and ``write`` is called then.
        tally: Of the bytes that are read for it.
        rows: For the list of a Dag run, its length.
    """

    def __init__(self, event: str, user: Any, ids: Ids, key: str, outcome: str) -> None:
        self.outcome = outcome
        self.goes_on = False
        self.tally = Tally()
        self.rows: int | None = None
        self._event = event
        self._user = user
        self._ids = ids
        self.key = key

    def __enter__(self) -> View:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.failed(error)
        if error is not None or not self.goes_on:
            self.write()

    def failed(self, error: BaseException) -> None:
        """Take an error for the outcome."""
        if isinstance(error, HTTPException) and error.__cause__ is None:
            self.outcome = f"HTTP {error.status_code}"
        else:
            # An answer that has a cause is in the words of an error of ours.
            cause = error.__cause__ if isinstance(error, HTTPException) else error
            self.outcome = type(cause).__name__

    def write(self) -> None:
        """Write the line."""
        ids = self._ids
        facts: dict[str, Any] = {
            "user": str(self._user.get_name()),
            "dag_id": ids.dag_id,
            "run_id": ids.run_id,
        }
        if self.rows is None:
            facts |= {"task_id": ids.task_id, "map_index": ids.map_index, "key": self.key}
            facts |= {"bytes": self.tally.bytes}
        else:
            facts |= {"rows": self.rows}
        shown = {name: _on_one_line(fact) if type(fact) is str else fact for name, fact in facts.items()}
        log.info(self._event, **shown, outcome=self.outcome)


def _on_one_line(text: str) -> str:
    """Write what would end a line, move a cursor or colour a terminal as Python does in its strings."""
    shown = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text[:_CHARACTERS])
    return shown if len(text) <= _CHARACTERS else f"{shown}… ({len(text)} characters)"
