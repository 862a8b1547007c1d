"""The temporary directory of this process: downloaded files, and items that wait to be stored.

Airflow forks a process for each task, clears ``atexit`` after the fork, runs what the task registered
when it ends, and kills it at a timeout. So the directory is made and its removal registered at first
use, in the task's own process; a lock, which the kernel releases with the process, tells the
directories of living processes from those that a killed one left, which the next task removes.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import SpooledTemporaryFile

from ..errors import TemporarySpaceError
from ..settings import SECTION, load_settings
from ..units import format_size

__all__ = [
    "leftovers",
    "new_folder",
    "open_spool",
    "remove_leftovers",
    "require_space",
    "spooling",
    "task_directory",
]

_PREFIX = "xcom-task-"
_LOCK = ".lock"
# What a download must leave free on the disk, for logs and everything else on it.
_RESERVE_BYTES = 64 * 1024**2
_SPOOL_BYTES = 8 * 1024**2


def task_directory() -> Path:
    """Return the directory of this process, below ``[gcs_xcom] temporary_directory``.

    Made at first use, after the directories of dead processes are removed; removed when this process
    ends.

    Raises:
        TemporarySpaceError: It cannot be made.
    """
    return _made(os.getpid(), _root())


def new_folder() -> Path:
    """Make an empty folder that is removed when this process ends: for a file that a task will return.

    For example::

        path = new_folder() / "report.csv"
        frame.to_csv(path)
        return File(path)

    It is below ``[gcs_xcom] temporary_directory``.

    Raises:
        TemporarySpaceError: It cannot be made.
    """
    return Path(tempfile.mkdtemp(dir=task_directory()))


def open_spool() -> SpooledTemporaryFile[bytes]:
    """Open a temporary file that has no name: the kernel removes it with the process.

    The first megabytes of it are kept in memory. Write to it within ``spooling``.
    """
    return SpooledTemporaryFile(_SPOOL_BYTES, dir=str(_root()))


@contextmanager
def spooling() -> Iterator[None]:
    """Explain an error of the disk.

    Raises:
        TemporarySpaceError: The disk is full, or the temporary directory cannot be used.
    """
    try:
        yield
    except OSError as error:
        raise TemporarySpaceError(
            f"A temporary file cannot be written in {_root()}: {error}. Nothing was stored. Point [{SECTION}] "
            "temporary_directory to a larger disk in which tasks may write."
        ) from error


def require_space(folder: Path, size: int, what: str) -> None:
    """Check that a file of ``size`` bytes fits on the disk of ``folder``.

    Raises:
        TemporarySpaceError: It does not, or nearly fills the disk.
    """
    free = shutil.disk_usage(folder).free
    if size + _RESERVE_BYTES > free:
        raise TemporarySpaceError(
            f"No room for {what} ({format_size(size)}) in {folder}: {format_size(free)} are free. Nothing was "
            f"downloaded. Point [{SECTION}] temporary_directory to a larger disk, or read it with open(), "
            "batches(), or columns= instead of downloading it.",
            needed=size,
            free=free,
        )


def leftovers() -> list[Path]:
    """Return the directories that processes which were killed on this machine have left."""
    locks = _root().glob(f"{_PREFIX}*{_LOCK}")
    return [lock.with_suffix("") for lock in locks if not _is_in_use(lock)]


def remove_leftovers() -> list[Path]:
    """Delete the directories of dead processes; return those that are gone now."""
    removed = []
    for path in leftovers():
        _delete(path)
        removed += [] if path.exists() else [path]
    return removed


@cache
def _made(process: int, root: Path) -> Path:
    import fcntl

    try:
        root.mkdir(parents=True, exist_ok=True)
        remove_leftovers()
        path = root / f"{_PREFIX}{process}-{time.time_ns()}"
        # Locked before the directory exists: no moment at which it looks like that of a dead process.
        lock = os.open(_lock_of(path), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.mkdir(mode=0o700)
    except OSError as error:
        raise TemporarySpaceError(
            f"No temporary directory can be made in {root}: {error}. Set [{SECTION}] temporary_directory to "
            "a directory in which tasks may write."
        ) from error
    atexit.register(_remove, path, process)
    return path


def _remove(path: Path, process: int) -> None:
    if os.getpid() == process:  # A process that the task forked runs this too, if it ends by sys.exit().
        _delete(path)


def _delete(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    if not path.exists():
        _lock_of(path).unlink(missing_ok=True)


def _root() -> Path:
    return Path(load_settings().temporary_directory or tempfile.gettempdir())


def _lock_of(path: Path) -> Path:
    return path.with_suffix(_LOCK)


def _is_in_use(lock: Path) -> bool:
    """Tell whether a living process holds a lock."""
    import fcntl

    try:
        file = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return True  # Gone just now with its directory, or another user's.
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False
