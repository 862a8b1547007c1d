"""A folder as one object: a zip file whose members are stored as they are, without compression.

Written in one pass, read by member. Everything that is read out of a zip file is checked: it may have
been written by another program, and names in it must not lead out of the folder that is extracted.
"""

from __future__ import annotations

import io
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from ..errors import PayloadCorruptError, SourceFileError
from ..stores import Stored
from .streams import RangedStream

__all__ = [
    "FolderWriter",
    "Member",
    "extract",
    "file_chunks",
    "members_of",
    "open_member",
    "paths_in",
    "status_of",
]

_CHUNK_BYTES = 1024**2
_LOCAL_HEAD_BYTES = 30
# The same folder gives the same bytes, whenever it was written.
_TIME = (1980, 1, 1, 0, 0, 0)


class Member(NamedTuple):
    """One file or folder in a zip file.

    Attributes:
        name: Relative path with ``/``; that of a folder ends in one.
        offset: Of its head in the object.
        size: Bytes.
        crc32: Of the bytes.
        mode: Permission bits.
    """

    name: str
    offset: int
    size: int
    crc32: int
    mode: int


class FolderWriter:
    """Write a folder as a zip file.

    Attributes:
        files: Number of files.
        index: The zip file's directory, once all chunks have been taken.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.files = 0
        self.index = b""

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes of the zip file; holds one chunk of a file at a time.

        Raises:
            SourceFileError: A file cannot be read, changes meanwhile, or is no file; or a link leads out
                of the folder.
        """
        sink = _Sink()
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
            for name, path in paths_in(self._root):
                status = status_of(path)
                info = zipfile.ZipInfo(name, _TIME)
                info.external_attr = (status.st_mode & 0xFFFF) << 16
                if name.endswith("/"):
                    archive.writestr(info, b"")
                    continue
                self.files += 1
                is_large = status.st_size > zipfile.ZIP64_LIMIT // 2
                with archive.open(info, "w", force_zip64=is_large) as member:
                    for chunk in file_chunks(path, status):
                        member.write(chunk)
                        yield from sink.take()
            yield from sink.take()
        self.index = b"".join(sink.take())
        yield self.index


def paths_in(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the name and the path of everything in a folder, one folder after the other.

    Links to files within the folder are followed.

    Raises:
        SourceFileError: There is a link to elsewhere or to a folder, a socket or a pipe, or a name that
            is not text.
    """
    inside = root.resolve()
    for folder, names, files in os.walk(root, onerror=_raise):
        names.sort()
        relative = Path(folder).relative_to(root)
        for name in [name for name in names if (Path(folder) / name).is_symlink()]:
            raise SourceFileError(
                f"{Path(folder) / name} is a link to a folder. Nothing was stored. Replace it by what it "
                "points to (shutil.copytree follows links), or remove it."
            )
        if not names and not files and folder != str(root):
            yield f"{_text(relative)}/", Path(folder)
        for name in sorted(files):
            path = Path(folder) / name
            if not path.resolve().is_relative_to(inside) or not path.is_file():
                raise SourceFileError(
                    f"{path} is no file, or a link that leads out of {root}. Nothing was stored. Replace it by "
                    "a copy of what it points to (shutil.copytree follows links), or remove it."
                )
            yield _text(relative / name), path


def file_chunks(path: Path, status: os.stat_result | None = None) -> Iterator[bytes]:
    """Yield the bytes of a file; raise before the last ones if it changed while it was read.

    Raises:
        SourceFileError: It is gone, cannot be read, or changed since ``status`` was taken.
    """
    before = _FileState.of(status or status_of(path))
    try:
        with path.open("rb", buffering=0) as file:
            pending, size = b"", 0
            while size <= before.size and (chunk := file.read(_CHUNK_BYTES)):
                if pending:
                    yield pending
                pending = chunk
                size += len(chunk)
            after = {_FileState.of(os.fstat(file.fileno())), _FileState.of(path.stat())}
    except OSError as error:
        raise _unreadable(path, error) from error
    if after != {before}:
        raise SourceFileError(
            f"{path} changed while it was stored. Nothing was stored. Return it after whatever writes it has "
            "closed it, or return a copy of it."
        )
    if pending:
        yield pending


def members_of(index: bytes, stored: Stored) -> list[Member]:
    """Read a zip file's directory.

    Args:
        index: The last bytes of the object, with the whole directory in them.
        stored: The object.

    Raises:
        PayloadCorruptError: It is no zip file of stored members, or a name leads out of a folder.
    """
    try:
        with zipfile.ZipFile(_Tail(index, stored.size)) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise PayloadCorruptError(f"is no zip file: {error}", uri=stored.uri) from error
    files = {info.filename for info in infos}
    if len(files) != len(infos):
        raise PayloadCorruptError("has two members of one name", uri=stored.uri)
    for info in infos:
        name = info.filename
        parts = name.removesuffix("/").split("/")
        mode = info.external_attr >> 16
        parents = {"/".join(parts[:depth]) for depth in range(1, len(parts) + name.endswith("/"))}
        if {"", ".", ".."} & set(parts) or "\0" in name or parents & files:
            raise PayloadCorruptError(f"has a member with the unsafe name {name!r}", uri=stored.uri)
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise PayloadCorruptError(f"has a compressed member {name!r}", uri=stored.uri)
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise PayloadCorruptError(f"has a member {name!r} that is no file", uri=stored.uri)
    if sum(info.file_size for info in infos) > stored.size:
        raise PayloadCorruptError("has members that overlap", uri=stored.uri)
    return [
        Member(
            info.filename, info.header_offset, info.file_size, info.CRC, (info.external_attr >> 16) & 0o777
        )
        for info in infos
    ]


def open_member(stored: Stored, member: Member) -> io.BufferedReader:
    """Return a seekable stream over one member; its CRC-32 is checked if it is read from start to end."""
    crc32 = 0

    def update(piece: memoryview) -> None:
        nonlocal crc32
        crc32 = zlib.crc32(piece, crc32)

    def verify() -> None:
        if crc32 != member.crc32:
            raise PayloadCorruptError(
                f"has other bytes in {member.name!r} than what was written", uri=stored.uri
            )

    # The head and the first bytes of the member come with one request.
    stream = RangedStream(stored, member.offset, update=update, verify=verify)
    _skip_head(stream, member, stored)
    crc32 = 0
    stream.narrow(member.size)
    return io.BufferedReader(stream, _CHUNK_BYTES // 8)


def extract(stored: Stored, members: list[Member], folder: Path, progress: Callable[[int], None]) -> None:
    """Write all members into a new folder, in one pass over the object.

    Args:
        stored: The object.
        members: Its members.
        folder: Must not exist.
        progress: Called with the number of bytes that were read so far.

    Raises:
        PayloadCorruptError: The bytes are not those that were written.
        PayloadError: As ``RangedStream``.
        OSError: A file cannot be written.
    """
    folder.mkdir(parents=True)
    with io.BufferedReader(RangedStream(stored, is_sequential=True), _CHUNK_BYTES) as stream:
        for member in sorted(members, key=lambda member: member.offset):
            path = folder / PurePosixPath(member.name)
            if member.name.endswith("/"):
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            stream.seek(member.offset)
            _skip_head(stream, member, stored)
            with path.open("xb") as file:
                _copy(stream, file, member, stored)
            path.chmod(member.mode | stat.S_IRUSR | stat.S_IWUSR)
            progress(stream.tell())


def _copy(stream: BinaryIO, file: BinaryIO, member: Member, stored: Stored) -> None:
    left, crc32 = member.size, 0
    while left:
        chunk = stream.read(min(left, _CHUNK_BYTES))
        if not chunk:
            raise PayloadCorruptError(f"is cut within {member.name!r}", uri=stored.uri)
        crc32 = zlib.crc32(chunk, crc32)
        file.write(chunk)
        left -= len(chunk)
    if crc32 != member.crc32:
        raise PayloadCorruptError(f"has other bytes in {member.name!r} than what was written", uri=stored.uri)


def _skip_head(stream: io.RawIOBase | io.BufferedIOBase, member: Member, stored: Stored) -> None:
    """Move a stream from a member's head to its first byte."""
    head = stream.read(_LOCAL_HEAD_BYTES) or b""
    if head[:4] != b"PK\x03\x04" or len(head) < _LOCAL_HEAD_BYTES:
        raise PayloadCorruptError(f"has no member {member.name!r} where its index says", uri=stored.uri)
    lengths = int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    stream.seek(lengths, io.SEEK_CUR)


def status_of(path: Path) -> os.stat_result:
    """Return what the file system says of a file that is to be stored.

    Raises:
        SourceFileError: It is gone, or may not be read.
    """
    try:
        return path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error


class _FileState(NamedTuple):
    device: int
    inode: int
    size: int
    modified: int

    @classmethod
    def of(cls, status: os.stat_result) -> _FileState:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _unreadable(path: Path, error: OSError) -> SourceFileError:
    return SourceFileError(
        f"{path} cannot be read: {error.strerror or error}. Nothing was stored. Keep the file until the task "
        "has ended; the user that runs the task must be allowed to read it."
    )


def _raise(error: OSError) -> None:
    raise _unreadable(Path(error.filename), error) from error


def _text(path: Path) -> str:
    name = path.as_posix()
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise SourceFileError(
            f"{name!r} is not a name in UTF-8. Nothing was stored. Rename the file."
        ) from error
    return name


class _Sink(io.RawIOBase):
    """A stream that zipfile cannot seek in; keeps what is written until it is taken."""

    def __init__(self) -> None:
        self._written: list[bytes] = []

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Keep bytes."""
        self._written.append(bytes(data))
        return len(data)

    def take(self) -> list[bytes]:
        """Return what was written since the last call."""
        taken, self._written = self._written, []
        return taken


class _Tail(io.RawIOBase):
    """A file of which only the last bytes are here."""

    def __init__(self, tail: bytes, size: int) -> None:
        self._tail = tail
        self._size = size
        self._at = 0

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move."""
        self._at = max(0, {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer; what is before the tail cannot be read."""
        start = self._at - (self._size - len(self._tail))
        if start < 0:
            raise OSError("its directory is longer than its index")
        piece = self._tail[start : start + len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)
