"""Files and folders of any size."""

from __future__ import annotations

import errno
import io
import mimetypes
import os
import re
import shutil
from functools import cache, cached_property
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, BinaryIO, ClassVar

from ..errors import PayloadCorruptError, PayloadTooLargeError
from ..settings import SECTION, load_settings
from ..stores import Checksum, Stored, store_of
from ..units import format_size
from . import folders
from .base import Content, Facts, Handle, explaining, index_facts, read_index
from .progress import TransferLog
from .streams import RangedStream
from .temporary import new_folder, require_space

if TYPE_CHECKING:
    from .uploads import Upload

__all__ = ["File", "media_type_of"]

_FOLDER_TYPE = "application/zip"
_UNKNOWN_TYPE = "application/octet-stream"
_BUFFER_BYTES = 128 * 1024
# Of an object's name: for people who look into the bucket.
_EXTENSION = re.compile(r"(?:\.tar)?\.[A-Za-z0-9]{1,10}$")


class File(Handle, os.PathLike[str]):
    """A file or folder that a task hands to other tasks, of any size.

    Return it from a task, alone or anywhere in a value. It is uploaded as a stream; memory does not grow
    with its size::

        @task
        def train() -> dict:
            joblib.dump(model, "model.bin")
            return {"model": File("model.bin"), "auc": 0.91}

        @task
        def score(trained: dict):
            model = joblib.load(trained["model"])           # downloaded, once
            with trained["model"].open() as stream:         # or read by ranges, without a download
                magic = stream.read(16)

    The task that pulls it can pass it wherever a path is taken: ``open(file)``, ``pd.read_csv(file)``,
    ``subprocess.run(["gzip", file])``. That downloads it into a directory of the task, checks it, and
    removes it when the task ends. A ``File`` that is returned again is copied inside the bucket.

    A folder is stored as one zip file: ``files()`` lists it, ``open(name)`` reads one of its files, and
    ``path`` is the extracted folder. Links to files in it are followed; other links are refused.

    Args:
        path: An existing file or folder.
        media_type: Content type, such as ``"text/csv"``; guessed from the name by default.

    Raises:
        FileNotFoundError: There is nothing at ``path``.
    """

    kind: ClassVar[str] = "file"
    fact_types: ClassVar[dict[str, type]] = {"name": str, "media_type": str}

    def __init__(self, path: str | os.PathLike[str], *, media_type: str | None = None) -> None:
        # Absolute: the task may change its working directory before it returns.
        self._path = Path(os.path.abspath(path))  # noqa: PTH100 - links stay links
        if not self._path.exists():
            raise FileNotFoundError(
                f"File({os.fspath(path)!r}): there is no file or folder {self._path} on this machine"
            )
        self._media_type = media_type

    @property
    def name(self) -> str:
        """Name of the file or folder, without the folders above it."""
        return str(self.content.facts["name"]) if self.content else self._path.name

    @property
    def media_type(self) -> str:
        """Content type; that of a folder is ``application/zip``."""
        if self.content:
            return str(self.content.facts["media_type"])
        if self._path.is_dir():
            return _FOLDER_TYPE
        return self._media_type or media_type_of(self.name)

    @property
    def size(self) -> int:
        """Bytes; of a folder those of its zip file, or of its files before it is stored."""
        if self.content:
            return self.content.stored.size
        paths = [path for _, path in folders.paths_in(self._path)] if self.is_folder else [self._path]
        return sum(folders.status_of(path).st_size for path in paths)

    @property
    def crc32c(self) -> str | None:
        """CRC32C of the stored bytes, eight hexadecimal digits; None before they are stored."""
        return self.content.stored.crc32c if self.content else None

    @property
    def is_folder(self) -> bool:
        """Whether this is a folder."""
        return "files" in self.content.facts if self.content else self._path.is_dir()

    @property
    def path(self) -> Path:
        """Path on this machine: of the original, or of a copy that is downloaded now if it is not here yet.

        The copy is removed when the task's process ends; ``copy_to`` makes one that stays.

        Raises:
            PayloadError: As ``copy_to``.
        """
        if self.content is None:
            return self._path
        with _downloading(os.getpid()):
            paths = _downloads(os.getpid())
            path = paths.get(self.content.stored)
            if path is None or not path.exists():
                path = paths[self.content.stored] = self._download(new_folder() / self.name)
            return path

    def __fspath__(self) -> str:
        """Return ``path`` as text, for everything that takes a path."""
        return str(self.path)

    def files(self) -> list[str]:
        """Return the names of the files in a folder, relative to it; one small request.

        Raises:
            NotADirectoryError: This is a file.
        """
        self._require_folder()
        if self.content is None:
            return [name for name, _ in folders.paths_in(self._path) if not name.endswith("/")]
        return [name for name in self._members if not name.endswith("/")]

    def open(self, member: str | None = None) -> BinaryIO:
        """Return a seekable binary stream, without downloading the whole.

        Ranges are fetched as they are read, several ahead of a reader that goes on and on. Whoever reads
        from start to end gets the bytes that were written, or an error. For text, wrap it in
        ``io.TextIOWrapper``.

        Args:
            member: Name of a file in a folder, as ``files`` gives it.

        Raises:
            IsADirectoryError: This is a folder, and ``member`` is missing.
            FileNotFoundError: The folder has no such file.
            PayloadMissingError: The object is gone; raised by the first read.
        """
        if member is None:
            if self.is_folder:
                raise IsADirectoryError(f"{self.name} is a folder: name one of its files, as in open(name)")
            return _checked_stream(self.content.stored) if self.content else self._path.open("rb")
        self._require_folder()
        names = self._members if self.content else dict(folders.paths_in(self._path))
        if member not in names or member.endswith("/"):
            raise FileNotFoundError(f"{self.name} has no file {member!r}; files() lists what it has")
        if self.content is None:
            return (self._path / member).open("rb")
        return folders.open_member(self.content.stored, self._members[member])

    def copy_to(self, path: str | os.PathLike[str]) -> Path:
        """Write the file or folder to a path where it stays; return that.

        Args:
            path: Of the copy. A file is put into it if it is an existing folder, and replaces an existing
                file only once it is complete. A folder must not exist yet.

        Raises:
            FileExistsError: The folder exists.
            PayloadMissingError: The object is gone.
            PayloadCorruptError: It is not what was written.
            PayloadTooLargeError: It is over ``max_file_bytes``.
            TemporarySpaceError: The disk has no room for it.
            StoreUnavailableError: The store did not answer in time.
        """
        target = Path(path)
        if self.is_folder:
            if target.exists():
                raise FileExistsError(f"{target} exists; name a folder that does not exist yet")
            return self._download(target) if self.content else Path(shutil.copytree(self._path, target))
        target = target / self.name if target.is_dir() else target
        if self.content is None:
            return Path(shutil.copyfile(self._path, target))
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        return self._download(temporary).replace(target)

    @classmethod
    def of(cls, content: Content) -> File:
        """Make the handle of stored content; refuse a name that would lead somewhere else."""
        file = super().of(content)
        if file.name in ("", ".", "..") or set("/\0") & set(file.name):
            raise PayloadCorruptError(f"has the unsafe file name {file.name!r}", uri=content.stored.uri)
        return file

    def upload(self, upload: Upload) -> Content:
        """Store the file; see ``Handle.upload``.

        Raises:
            SourceFileError: It cannot be read, or changes meanwhile. Nothing that could be read is left.
            PayloadTooLargeError: It is over ``max_file_bytes``.
        """
        facts: Facts = {"name": self.name, "media_type": self.media_type}
        extension = "zip" if self.is_folder else _extension(self.name)
        if self.content:
            return Content(upload.copy(self.content.stored, extension, self.name), self.content.facts)
        if not self.is_folder:
            chunks = folders.file_chunks(self._path)
            return Content(upload.stream(chunks, extension, self.name, total=self.size), facts)
        writer = folders.FolderWriter(self._path)
        stored = upload.stream(writer.chunks(), extension, self.name)
        return Content(stored, {**facts, "files": writer.files, **index_facts(writer.index)})

    def __repr__(self) -> str:
        if self.content:
            return f"File({self.name!r}, {self.media_type}, {format_size(self.size)})"
        return f"File({str(self._path)!r})"

    @cached_property
    def _members(self) -> dict[str, folders.Member]:
        assert self.content is not None
        with explaining(self.content.stored):
            members = folders.members_of(read_index(self.content), self.content.stored)
        return {member.name: member for member in members}

    def _require_folder(self) -> None:
        if not self.is_folder:
            raise NotADirectoryError(f"{self.name} is a file, not a folder")

    def _download(self, path: Path) -> Path:
        """Write the content to a new path."""
        assert self.content is not None
        stored = self.content.stored
        progress = TransferLog(f"Downloading {self.name}", stored.size)
        with explaining(stored):
            limit = load_settings().max_file_bytes
            if stored.size > limit:
                raise PayloadTooLargeError(
                    f"is {format_size(stored.size)}; the limit is {format_size(limit)} ([{SECTION}] "
                    "max_file_bytes)",
                    size=stored.size,
                    limit=limit,
                )
            require_space(path.parent, stored.size, self.name)
            try:
                if self.is_folder:
                    folders.extract(stored, list(self._members.values()), path, progress)
                else:
                    store_of(stored.uri).download(stored, path, progress=progress)
            except BaseException as error:
                shutil.rmtree(path, ignore_errors=True)
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    require_space(path.parent, stored.size, self.name)
                raise
        return path


def media_type_of(name: str) -> str:
    """Guess a content type from a file's name."""
    return mimetypes.guess_type(name)[0] or _UNKNOWN_TYPE


def _checked_stream(stored: Stored) -> io.BufferedReader:
    total = Checksum()

    def verify() -> None:
        if str(total) != stored.crc32c:
            raise PayloadCorruptError("has another CRC32C than what was written", uri=stored.uri)

    return io.BufferedReader(RangedStream(stored, update=total.update, verify=verify), _BUFFER_BYTES)


def _extension(name: str) -> str:
    found = _EXTENSION.search(name)
    return found.group()[1:].lower() if found else "bin"


# By process: what a parent has downloaded is removed when the parent ends.
@cache
def _downloads(process: int) -> dict[Stored, Path]:
    return {}


@cache
def _downloading(process: int) -> RLock:
    return RLock()
