"""How far a long command is: one line of a terminal that is written over, or a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

__all__ = ["Progress"]

_TERMINAL_SECONDS = 0.2
_LOG_SECONDS = 10.0
# The narrowest terminal that is usual, less the place of the cursor.
_COLUMNS = 79


class Progress:
    """Shows how many objects were looked at, how fast, where, and what was found.

    Args:
        warn: Takes a line, where the stream is no terminal.
        stream: Where people would see it; by default stderr.
    """

    def __init__(self, warn: Callable[[str], None], stream: TextIO | None = None) -> None:
        self._warn = warn
        self._stream = sys.stderr if stream is None else stream
        self._is_terminal = self._stream.isatty()
        self._seconds = _TERMINAL_SECONDS if self._is_terminal else _LOG_SECONDS
        self._start = self._shown = time.monotonic()
        self._is_on_line = False

    def show(self, objects: int, orphans: int, dag_id: str) -> None:
        """Say it if the last time is long enough ago."""
        now = time.monotonic()
        if now - self._shown < self._seconds:
            return
        self._shown = now
        rate = objects / (now - self._start)
        text = f"{objects} objects, {rate:.0f} a second, {orphans} orphans so far; at Dag {dag_id or '-'}"
        if not self._is_terminal:
            self._warn(text)
            return
        # An id is data, and the line must not wrap: what wraps cannot be written over.
        text = "".join(character if character.isprintable() else "?" for character in text)[:_COLUMNS]
        self._stream.write(f"\r{text.ljust(_COLUMNS)}")
        self._stream.flush()
        self._is_on_line = True

    def clear(self) -> None:
        """Empty the line, before something else is printed."""
        if self._is_on_line:
            self._stream.write(f"\r{' ' * (_COLUMNS)}\r")
            self._stream.flush()
            self._is_on_line = False
