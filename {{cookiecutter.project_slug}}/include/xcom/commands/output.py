"""Print results to stdout and everything else to stderr, on any terminal, pipe, or log."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import PayloadCorruptError, PayloadError, PayloadMissingError
from ..reference import cause_and_remedy

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

__all__ = [
    "ROW_WORDS",
    "CommandError",
    "Progress",
    "UsageError",
    "close_stdout",
    "explain",
    "format_age",
    "format_shape",
    "format_table",
    "prepare_streams",
    "printable",
    "warn",
]

ROW_WORDS = {True: "yes", False: "none", None: "?"}
"""Whether a row refers to an object, in the column ROW."""

_LOG_SECONDS = 10.0
# Wider than any row: nothing is cut or folded where no terminal needs it.
_UNLIMITED = 100_000


class CommandError(Exception):
    """A command cannot do what was asked. The message says what to do; the exit code is 1."""


class UsageError(CommandError):
    """Options that do not fit together; the exit code is 2."""


def prepare_streams() -> None:
    """Let ids in any script be printed on a terminal that has no letters for them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def close_stdout() -> None:
    """Drop further output after the reader of a pipe has gone, such as ``head``."""
    with suppress(OSError, ValueError):  # Not a real stream, in a test or a notebook.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def warn(text: str) -> None:
    """Print a line to stderr."""
    print(text, file=sys.stderr, flush=True)


def explain(error: PayloadError) -> str:
    """Return the text of an error, with its object and remedy where a store left them to its caller."""
    text = str(error)
    if isinstance(error, (PayloadMissingError, PayloadCorruptError)) and error.title not in text:
        text = cause_and_remedy(error)
    return text if not error.uri or error.uri in text else f"{text} ({error.uri})"


def printable(text: str) -> str:
    """Replace control characters: ids and keys are data, and must not move a terminal's cursor."""
    return "".join(character if character.isprintable() else "?" for character in text)


def format_age(seconds: float) -> str:
    """Return a time span in its largest unit: ``12 d``."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def format_shape(summary: dict[str, int | float | str]) -> str:
    """Return the size of a value in its own terms: ``336776 x 19``, ``5000 items``, ``model.bin``."""
    words = [printable(str(summary["name"]))] if "media_type" in summary else []
    if "rows" in summary:
        columns = f" x {summary['columns']}" if "columns" in summary else " rows"
        words.append(f"{summary['rows']}{columns}")
    if "shape" in summary:
        words.append(f"{summary['shape']} {summary.get('dtype', '')}".rstrip())
    words += [
        f"{summary[name]} {name if summary[name] != 1 else name[:-1]}"
        for name in ("items", "characters", "parts", "files")
        if name in summary
    ]
    return ", ".join([*words, *(["inexact"] if "inexact" in summary else [])])


def format_table(
    heads: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    right: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> str:
    """Return a table. On a terminal it fits the width: long texts are folded, numbers stay whole.

    Args:
        heads: Names of the columns.
        rows: One cell per column.
        right: Columns of numbers and sizes, aligned to the right and never folded.
        whole: Other columns that are not folded, if that is possible.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    is_terminal = sys.stdout.isatty()
    console = Console(
        file=io.StringIO(),
        width=None if is_terminal else _UNLIMITED,
        force_terminal=False,
        legacy_windows=False,
    )
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for head in heads:
        is_whole = head in (*right, *whole)
        table.add_column(
            head, justify="right" if head in right else "left", no_wrap=is_whole, overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row))
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


class Progress:
    """Show how far a long command is: one line of a terminal, or a line every ten seconds in a log.

    Args:
        say: Takes a line, where no line can be redrawn.
        is_live: Whether a line may be redrawn, because nothing else is printed meanwhile.
    """

    def __init__(self, say: Callable[[str], None] = warn, *, is_live: bool = True) -> None:
        self._say = say
        self._start = self._shown = time.monotonic()
        self._bar: Bar | None = None
        if is_live and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress as Bar
            from rich.progress import TextColumn
            from rich.table import Column

            # Cropped, because a line that wraps cannot be redrawn.
            column = TextColumn(
                "{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="crop")
            )
            self._bar = Bar(column, console=Console(stderr=True), transient=True, redirect_stdout=False)
            self._task = self._bar.add_task("")
            self._bar.start()

    def show(self, objects: int, orphans: int, dag_id: str) -> None:
        """Show the state, if the last time is long enough ago."""
        now = time.monotonic()
        if self._bar is None and now - self._shown < _LOG_SECONDS:
            return
        self._shown = now
        rate = objects / max(now - self._start, 0.001)
        text = printable(f"{objects} objects, {rate:.0f} per second, {orphans} orphans; Dag {dag_id or '-'}")
        if self._bar is None:
            self._say(text)
        else:
            self._bar.update(self._task, description=text)

    def stop(self) -> None:
        """Remove the line."""
        if self._bar is not None:
            self._bar.stop()
