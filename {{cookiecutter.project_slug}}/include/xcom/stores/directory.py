"""Payloads as files below a directory."""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit

from ..errors import (
    PayloadCorruptError,
    PayloadExistsError,
    PayloadMissingError,
    ReferenceNotAllowedError,
    StoreUnavailableError,
    shortened,
)
from .checksums import Checksum
from .contract import (
    PAGE_OBJECTS,
    Buffer,
    Listed,
    Page,
    Parts,
    Progress,
    Stored,
    is_utf8,
    new_file,
    new_token,
    part_name,
)

if TYPE_CHECKING:
    from ..reference import PayloadReference

__all__ = ["DirectoryStore", "runs_here"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_PIECE_BYTES = 1024 * 1024
_FOLDER_TRIES = 100


class DirectoryStore:
    """Payloads as files below one directory: for tests, demonstrations and a single machine.

    Args:
        root: ``file:///absolute/path``. The directory must exist, so that a lost mount is an error
            and not a surprise.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._path = Path(unquote(urlsplit(root).path))
        if not self._path.is_dir():
            raise StoreUnavailableError(
                f"The directory {self._path} of [gcs_xcom] bucket = {root} does not exist on this machine. "
                f"Nothing was stored or read. Make it with: mkdir -p {self._path}",
                uri=root,
            )
        _warn_if_distributed(root)

    def put(self, name: str, parts: Parts) -> Stored:
        """Write a temporary file in the same folder, then link it to its name."""
        return self.put_stream(name, parts)

    def put_stream(
        self,
        name: str,
        chunks: Iterable[Buffer],
        *,
        part_bytes: int | None = None,
        progress: Progress | None = None,
    ) -> Stored:
        """Write a temporary file in the same folder, then link it to its name."""
        uri = f"{self._root}/{name}"
        path = self._resolve(uri)
        temporary = path.with_name(part_name("", new_token(), 0))
        total, size = Checksum(), 0
        file = self._in_folder(temporary, uri, lambda: temporary.open("xb"))
        try:
            with file:
                for chunk in chunks:
                    with _translated(uri, "store"):
                        file.write(chunk)
                    total.update(chunk)
                    size += memoryview(chunk).nbytes
                    if progress:
                        progress(size)
                with _translated(uri, "store"):
                    file.flush()
                    os.fsync(file.fileno())
            with _translated(uri, "store"):
                _link(temporary, path, uri)
        finally:
            temporary.unlink(missing_ok=True)
        return Stored(uri, "0", size, str(total))

    def copy(self, source: Stored, name: str) -> Stored:
        """Give the file a second name: a hard link. Only the size is checked."""
        uri = f"{self._root}/{name}"
        path = self._resolve(uri)
        next(self._pieces(source.uri, source), b"")
        self._in_folder(path, uri, lambda: _link(self._resolve(source.uri), path, uri))
        return source._replace(uri=uri)

    def _in_folder(self, path: Path, uri: str, create: Callable[[], _T]) -> _T:
        """Make the folders of a path, then call ``create``."""
        tries_left = _FOLDER_TRIES
        with _translated(uri, "store"):
            while True:
                self._check_inside(path, uri)
                # Never make the root: a lost mount is an error, not a new directory.
                if not self._path.is_dir():
                    raise FileNotFoundError(
                        errno.ENOENT, "the directory of [gcs_xcom] bucket is gone", self._root
                    )
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    self._check_inside(path, uri)
                    return create()
                except (FileNotFoundError, FileExistsError):
                    # Another process deleted the folder's last file, and the folder with it; mkdir says
                    # that it exists when that happens between two of its steps.
                    tries_left -= 1
                    if not tries_left:
                        raise

    def get(self, reference: PayloadReference | Stored) -> memoryview:
        """Read a file whole."""
        stored = Stored.of(reference)
        buffer, total, filled = memoryview(bytearray(stored.size)), Checksum(), 0
        for piece in self._pieces(stored.uri, stored):
            buffer[filled : filled + len(piece)] = piece
            total.update(piece)
            filled += len(piece)
        stored.check(crc32c=str(total))
        return buffer

    def download(self, stored: Stored, path: Path, *, progress: Progress | None = None) -> None:
        """Copy a file."""
        total = Checksum()
        with new_file(path) as file:
            for piece in self._pieces(stored.uri, stored):
                file.write(piece)
                total.update(piece)
                if progress:
                    progress(file.tell())
            stored.check(crc32c=str(total))

    def read(self, stored: Stored, start: int, stop: int, *, seconds: float | None = None) -> memoryview:
        """Read a part of a file, whose size is compared."""
        stop = min(stop, stored.size)
        if start >= stop:
            return memoryview(b"")
        data = b"".join(self._pieces(stored.uri, stored, start, stop))
        if len(data) < stop - start:
            raise PayloadCorruptError("was cut while it was read", uri=stored.uri)
        return memoryview(data)

    def describe(self, uri: str) -> Stored:
        """Read a file, a piece at a time, to tell its size and checksum."""
        total, size = Checksum(), 0
        for piece in self._pieces(uri):
            total.update(piece)
            size += len(piece)
        return Stored(uri, "0", size, str(total))

    def _pieces(
        self, uri: str, stored: Stored | None = None, start: int = 0, stop: int | None = None
    ) -> Iterator[bytes]:
        with _translated(uri, "read"), self._open(uri) as file:
            found = os.fstat(file.fileno()).st_size
            if stored is not None:
                stored.check(size=found)
            file.seek(start)
            left = (found if stop is None else stop) - start
            while left > 0 and (piece := file.read(min(left, _PIECE_BYTES))):
                yield piece
                left -= len(piece)

    def _open(self, uri: str) -> FileIO:
        """Open a file that is in the directory itself, not behind a link."""
        path = self._resolve(uri)
        self._check_inside(path, uri)
        try:
            # Without O_NONBLOCK this would wait for a named pipe.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            raise PayloadMissingError("there is no such file", uri=uri) from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise PayloadCorruptError("is no file", uri=uri)
        return FileIO(descriptor)

    def delete(self, uri: str, generation: str) -> bool:
        """Delete a file, and the folders that this leaves empty."""
        path = self._resolve(uri)
        with _translated(uri, "delete"):
            self._check_inside(path, uri)
            try:
                path.unlink()
            except (FileNotFoundError, NotADirectoryError):
                return False
        for folder in path.parents:
            if folder == self._path:
                break
            try:
                folder.rmdir()
            except OSError:
                break  # Not empty, or somebody is writing into it.
        return True

    def list(self, prefix: str, start: str = "") -> Iterator[Page]:
        """Walk the folders; links are neither followed nor listed."""
        page: Page = []
        for name, status in self._files(prefix, start):
            page.append(Listed(f"{self._root}/{name}", name, "0", status.st_size, status.st_mtime))
            if len(page) == PAGE_OBJECTS:
                yield page
                page = []
        yield page

    def list_folders(self, prefix: str) -> Iterator[str]:
        """Read one directory; links are not followed."""
        for name in self._entries(prefix):
            if name.endswith("/"):
                yield f"{prefix}{name}"

    def _files(self, folder: str, start: str) -> Iterator[tuple[str, os.stat_result]]:
        """Walk in the order of the whole names, as a bucket lists."""
        for entry in self._entries(folder):
            name = f"{folder}{entry}"
            if entry.endswith("/"):
                if name >= start or start.startswith(name):
                    yield from self._files(name, start)
            elif name >= start:
                try:
                    yield name, (self._path / name).lstat()
                except FileNotFoundError:
                    continue

    def _entries(self, folder: str) -> Sequence[str]:
        """Return the names in a folder, those of folders with a slash at their ends, in a bucket's order."""
        with _translated(f"{self._root}/{folder}", "list"):
            try:
                with os.scandir(self._path / folder) as entries:
                    return sorted(
                        f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name
                        for entry in entries
                        if not entry.is_symlink()
                    )
            except (FileNotFoundError, NotADirectoryError):
                return []  # Nothing was stored there yet, or its last file was just deleted.

    def _resolve(self, uri: str) -> Path:
        name = uri.removeprefix(f"{self._root}/")
        if name == uri or "\0" in name or not is_utf8(name) or {"", ".", ".."} & set(name.split("/")):
            raise ReferenceNotAllowedError(
                f"{shortened(uri)} does not name a file below {self._root}", uri=uri
            )
        return self._path / name

    def _check_inside(self, path: Path, uri: str) -> None:
        """Refuse folders that are links out of the directory."""
        if not path.parent.resolve().is_relative_to(self._path.resolve()):
            raise ReferenceNotAllowedError(
                f"{shortened(uri)} leads out of {self._root} through a symbolic link; nothing was read or written",
                uri=uri,
            )


def _link(source: Path, path: Path, uri: str) -> None:
    # Unlike a rename, a link never replaces an existing file.
    try:
        os.link(source, path)
    except FileExistsError as error:
        raise PayloadExistsError(
            f"{uri} exists already and was not overwritten. {PayloadExistsError.advice}.", uri=uri
        ) from error


_ADVICE = {
    errno.ENOSPC: "The disk is full: free some space",
    errno.EDQUOT: "The quota is used up: free some space",
    errno.EROFS: "The file system is mounted read-only: mount it for writing",
    errno.EACCES: "The user that runs the task lacks the permission: grant it with chown or chmod",
    errno.EPERM: "The operation is not permitted there (the file system must support hard links)",
    errno.EFBIG: "The file is larger than this process may write (ulimit -f): raise that limit",
    errno.ENAMETOOLONG: "The file system takes no name of this length: shorten [gcs_xcom] prefix",
    errno.ELOOP: "A symbolic link is in the file's place: remove it",
}


@contextmanager
def _translated(uri: str, verb: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "Look at the file system")
        raise StoreUnavailableError(
            f"{error.strerror or error}. {advice}, then clear the task. Could not {verb} {shortened(uri)}; nothing "
            "half-written can be read.",
            uri=uri,
        ) from None  # The system's error repeats the path in full.


def runs_here(executor: str) -> bool:
    """Tell whether every executor of ``[core] executor`` runs tasks on the scheduler's own machine.

    The setting is a list; each entry may have an alias, and each team a list of its own:
    ``LocalExecutor,big:KubernetesExecutor;team=acme.executors.Own``.
    """
    lists = (team.rpartition("=")[2] for team in executor.split(";"))
    # A class may be named with its module.
    names = {re.split("[:.]", entry.strip())[-1] for entries in lists for entry in entries.split(",")}
    return names <= {"LocalExecutor", "SequentialExecutor"}


@cache
def _warn_if_distributed(root: str) -> None:
    from airflow.configuration import conf

    executor = conf.get("core", "executor", fallback="LocalExecutor") or ""
    if not runs_here(executor):
        log.warning(
            "[gcs_xcom] bucket = %s is a directory of one machine, and the executor is %s: tasks on other "
            "machines will not find the payloads. Name a bucket instead.",
            root,
            executor,
        )
