"""Where payloads lie: a bucket of Google Cloud Storage, or a directory.

A store knows objects and bytes, nothing of values. Names are unique and objects are never
overwritten: whoever holds a reference reads what was written under it, or gets an error.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from io import FileIO
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from include.xcom.codecs.base import Buffer
from include.xcom.errors import (
    PayloadCorruptError,
    PayloadExistsError,
    PayloadMissingError,
    ReferenceNotAllowedError,
    StoreUnavailableError,
)
from include.xcom.settings import Settings, load_settings

if TYPE_CHECKING:
    from include.xcom.reference import PayloadReference

__all__ = [
    "PAGE_OBJECTS",
    "Checksum",
    "DirectoryStore",
    "Listed",
    "Store",
    "Stored",
    "checksum",
    "own_store",
    "pieces",
    "runs_here",
    "store_of",
]

log = logging.getLogger(__name__)

PAGE_OBJECTS = 1000
"""In a page of a list: the most that GCS gives at once."""
_CHUNK_BYTES = 256 * 1024
# Of an object that is read by ranges: large enough that the requests for them hardly count.
_PIECE_BYTES = 4 * 1024 * 1024
# From here on memory comes from the system by pages, whoever asks for it.
_LARGE_BYTES = 4 * 1024 * 1024
_FOLDER_TRIES = 100


class Stored(NamedTuple):
    """What a store says of an object that it has just written.

    Attributes:
        uri: ``gs://bucket/name`` or ``file:///path/name``.
        generation: Decimal digits; ``"0"`` where a store has none.
        size: Bytes.
        crc32c: Eight hexadecimal digits.
    """

    uri: str
    generation: str
    size: int
    crc32c: str

    @classmethod
    def of(cls, reference: PayloadReference) -> Stored:
        """Return what a reference says of its object."""
        return cls(reference.uri, reference.generation, reference.bytes, reference.crc32c)


class Listed(NamedTuple):
    """What a store says of one object when it lists many.

    Attributes:
        name: Within the bucket or directory.
        created: Seconds since 1970; a directory gives the time of the last change.
    """

    uri: str
    name: str
    generation: str
    size: int
    created: float


# A class with a method `list` cannot name the built-in type in its annotations.
Parts = list[Buffer]
Page = list[Listed]


class Store(Protocol):
    """What the backend asks of a place for payloads."""

    def put(self, name: str, parts: Parts) -> Stored:
        """Write one object that must not exist yet; it appears whole or not at all.

        Raises:
            PayloadExistsError: Another object has this name; it is as it was.
            StoreUnavailableError: Nothing was written, or what was written cannot be told apart from
                nothing: at most an object that no reference names is left.
        """

    def get(self, reference: PayloadReference) -> memoryview:
        """Read one object into memory of its own and check size and CRC32C.

        Raises:
            PayloadMissingError: That generation of the object is gone.
            PayloadCorruptError: It has another size or checksum than the reference says.
            StoreUnavailableError: It could not be read in time.
        """

    def read(self, stored: Stored, start: int, stop: int, *, seconds: float | None = None) -> bytes:
        """Read the bytes from ``start`` to before ``stop`` of one object; behind its end there are none.

        What can be told without the other bytes is compared: the size, and where a server states it the
        CRC32C of the whole. A directory cannot; there whoever needs to know calls ``describe``.

        Args:
            stored: What was written.
            seconds: Give up after these, if ``timeout_seconds`` is longer. Files have no such limit.

        Raises:
            PayloadMissingError: That generation of the object is gone.
            PayloadCorruptError: It has another size, or by the server's word another checksum.
            StoreUnavailableError: It could not be read in time.
        """

    def describe(self, uri: str) -> Stored:
        """Return what the store knows of the newest generation of an object, without its bytes.

        Raises:
            PayloadMissingError: There is no such object.
            StoreUnavailableError: The store did not allow it or did not answer in time.
        """

    def delete(self, uri: str, generation: str) -> bool:
        """Delete exactly that generation; return False if it was gone already.

        Raises:
            StoreUnavailableError: The store did not allow it or did not answer.
        """

    def list(self, prefix: str, start: str = "") -> Iterator[Page]:
        """Yield the objects whose names begin with ``prefix``, in the order of their names, by pages.

        Holds one page at a time. Objects that are written or deleted meanwhile may be in it or not.

        Args:
            prefix: ``""``, or a folder with a slash at its end.
            start: The first name to give, should it exist.

        Raises:
            StoreUnavailableError: The store did not allow it or did not answer.
        """


def pieces(store: Store, stored: Stored) -> Iterator[bytes]:
    """Yield the bytes of one object by ranges, so that it is never whole in memory.

    Raises:
        PayloadError: As ``Store.read``.
    """
    if not stored.size:
        store.describe(stored.uri)  # There is no range of nothing, but the object may be missing.
    for start in range(0, stored.size, _PIECE_BYTES):
        yield store.read(stored, start, start + _PIECE_BYTES)


def own_store() -> Store:
    """Return the store that this deployment writes to; one for each process.

    Raises:
        SettingsError: The settings are incomplete or wrong.
    """
    settings = load_settings()
    return _store(settings, settings.bucket)


def store_of(uri: str) -> Store:
    """Return the store that a reference's object lies in.

    Raises:
        ReferenceNotAllowedError: The URI is outside this deployment's bucket and prefix, and outside
            ``read_uris``. Nothing was asked of any store.
    """
    settings = load_settings()
    if not settings.allows(uri) or not _is_utf8(uri):
        allowed = ", ".join((settings.root, *settings.read_uris))
        # Lone surrogates would stop whoever prints the message.
        uri = uri.encode(errors="backslashreplace").decode()
        raise ReferenceNotAllowedError(
            f"The XCom row points to {uri}, which is outside of what this deployment may read ({allowed}). "
            "Nothing was read or deleted. If the place is right, add it to [gcs_xcom] read_uris; else "
            "find out who wrote the row, and clear the task.",
            uri=uri,
        )
    if uri.startswith(settings.root):
        return _store(settings, settings.bucket)
    if uri.startswith("gs://"):
        return _store(settings, urlsplit(uri).netloc)
    root = next(root for root in settings.read_uris if uri.startswith(root.rstrip("/") + "/"))
    return _store(settings, root.rstrip("/"))


# One thread at a time: opening a store may ask Airflow for a connection, which before 3.2 mixes up the
# answers to threads that ask at once; and all of them then share the store, and so its token.
_opening = RLock()


def _store(settings: Settings, bucket: str) -> Store:
    with _opening:
        return _opened(settings, bucket, os.getpid())


def _renew_lock() -> None:
    global _opening
    _opening = RLock()


if hasattr(os, "register_at_fork"):
    # A thread of the parent may hold the lock, and does not exist in the child.
    os.register_at_fork(after_in_child=_renew_lock)


# By process: sockets and pools must not be shared across a fork.
@cache
def _opened(settings: Settings, bucket: str, process: int) -> Store:
    if bucket.startswith("file://"):
        return DirectoryStore(bucket)
    from include.xcom.gcs import GCSStore

    return GCSStore(bucket, settings)


def allocate(size: int, kind: str = "") -> memoryview:
    """Return writable memory for a payload.

    A ``bytearray`` is written twice: with zeros, then with the payload; and the system hands out its
    memory by pages of 4 KiB, which takes longer than filling them (measured for 64 MiB: 132 ms, and
    16 with this). So large payloads get memory straight from the system, in large pages where it has
    them.

    Args:
        size: Bytes.
        kind: Type of the value. If that is ``bytes`` or ``bytearray``, the value itself is filled, and
            ``codecs.raw`` hands it over without a copy.
    """
    if kind == "bytearray" or size < _LARGE_BYTES:
        return memoryview(bytearray(size))
    if kind == "bytes":
        return _inside_bytes(size)
    import mmap

    try:
        # Private: a child that is forked later must not see what is written here.
        area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"no {size} bytes for a payload: {error}") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # A kernel that was built without them.
            area.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(area)


def _inside_bytes(size: int) -> memoryview:
    """Return the memory of new ``bytes``, which are the attribute ``value`` of the view's ``obj``.

    Python lets nobody write into ``bytes`` but who has just made them with this function of its C API
    (docs.python.org/3/c-api/bytes.html#c.PyBytes_AsString). From pieces they would be joined once more,
    and in pages of 4 KiB: 30 ms for 64 MiB, and 7 so (measured 2026-11-24).
    """
    import ctypes
    import mmap

    make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_char_p, ctypes.c_ssize_t)
    address_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object)
    value = make(("PyBytes_FromStringAndSize", ctypes.pythonapi))(None, size)
    address = address_of(("PyBytes_AsString", ctypes.pythonapi))(value)
    area: Any = (ctypes.c_ubyte * size).from_address(address)
    area.value = value
    if hasattr(mmap, "MADV_HUGEPAGE"):
        start = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
        pages = ctypes.c_size_t((address + size - start) // mmap.PAGESIZE * mmap.PAGESIZE)
        # What it answers does not matter: it is advice.
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), pages, mmap.MADV_HUGEPAGE)
    return memoryview(area).cast("B")


class Checksum:
    """CRC32C (Castagnoli) over bytes that come in pieces; GCS computes the same."""

    def __init__(self) -> None:
        import google_crc32c

        self._extend: Callable[[int, Any], int] = google_crc32c.extend
        self._value = 0

    def update(self, data: Buffer) -> None:
        """Take in more bytes."""
        if type(data) is bytes:
            self._value = self._extend(self._value, data)
            return
        view = memoryview(data).cast("B")
        if numpy := sys.modules.get("numpy"):
            # As an array the library takes it without a copy (measured for 94 MB: 7.7 ms instead of 9.4).
            self._value = self._extend(self._value, numpy.frombuffer(view, numpy.uint8))
            return
        # It takes immutable bytes only; a copy of 256 KiB at a time stays in the cache.
        for start in range(0, len(view), _CHUNK_BYTES):
            self._value = self._extend(self._value, bytes(view[start : start + _CHUNK_BYTES]))

    def __str__(self) -> str:
        """Return eight hexadecimal digits."""
        return f"{self._value:08x}"


def checksum(parts: list[Buffer]) -> str:
    """Return the CRC32C of parts, one after the other."""
    total = Checksum()
    for part in parts:
        total.update(part)
    return str(total)


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
        """Write to a temporary file beside the final one, then link it under its name."""
        uri = f"{self._root}/{name}"
        path = self._resolve(uri)
        temporary = path.with_name(f".{uuid4().hex}.tmp")
        try:
            file = self._create(temporary, uri)
            try:
                with file:
                    for part in parts:
                        file.write(part)
                    file.flush()
                    os.fsync(file.fileno())
                # Unlike a rename, a link never replaces a file that is there.
                os.link(temporary, path)
            except FileExistsError as error:
                raise PayloadExistsError(
                    f"{uri} exists already and was not overwritten. Names are unique for each try: this is "
                    "a replayed request or a defect.",
                    uri=uri,
                ) from error
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise _unavailable(error, uri, "stored") from error
        return Stored(uri, "0", sum(memoryview(part).nbytes for part in parts), checksum(parts))

    def _create(self, path: Path, uri: str) -> BinaryIO:
        """Open a new file, and make its folders."""
        tries = 0
        while True:
            tries += 1
            self._check_inside(path, uri)
            # Not the root: a lost mount is an error and not a new directory.
            if not self._path.is_dir():
                raise FileNotFoundError(
                    errno.ENOENT, "the directory of [gcs_xcom] bucket is gone", self._root
                )
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._check_inside(path, uri)
                return path.open("xb")
            except (FileNotFoundError, FileExistsError):
                # Somebody has deleted the folder's last file, and the folder with it; mkdir says that
                # it exists when it goes between two of its steps.
                if tries == _FOLDER_TRIES:
                    raise

    def get(self, reference: PayloadReference) -> memoryview:
        """Read a file whole."""
        uri = reference.uri
        size = reference.bytes
        with self._open(uri) as file:
            _check_size(file, size, uri)
            buffer = allocate(size, reference.type)
            filled = 0
            try:
                while filled < size and (count := file.readinto(buffer[filled:])):
                    filled += count
            except OSError as error:
                raise _unavailable(error, uri, "read") from error
        if checksum([buffer[:filled]]) != reference.crc32c:
            raise PayloadCorruptError("has another CRC32C than what was written", uri=uri)
        return buffer

    def read(self, stored: Stored, start: int, stop: int, *, seconds: float | None = None) -> bytes:
        """Read a part of a file, whose size is compared."""
        missing = min(stop, stored.size) - start
        if missing <= 0:
            return b""
        read = []
        with self._open(stored.uri) as file:
            _check_size(file, stored.size, stored.uri)
            try:
                file.seek(start)
                while missing and (piece := file.read(missing)):
                    read.append(piece)
                    missing -= len(piece)
            except OSError as error:
                raise _unavailable(error, stored.uri, "read") from error
        if missing:
            raise PayloadCorruptError("was cut while it was read", uri=stored.uri)
        return b"".join(read)

    def _open(self, uri: str) -> FileIO:
        """Open a file that lies in the directory itself, not behind a link."""
        path = self._resolve(uri)
        try:
            self._check_inside(path, uri)
            # Without O_NONBLOCK a named pipe would be waited for.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise PayloadMissingError("there is no such file", uri=uri) from error
        except OSError as error:
            raise _unavailable(error, uri, "read") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise PayloadCorruptError("is no file", uri=uri)
        return FileIO(descriptor)

    def describe(self, uri: str) -> Stored:
        """Read a file, a piece at a time, to tell its size and checksum."""
        total, size = Checksum(), 0
        with self._open(uri) as file:
            try:
                while piece := file.read(_CHUNK_BYTES):
                    total.update(piece)
                    size += len(piece)
            except OSError as error:
                raise _unavailable(error, uri, "read") from error
        return Stored(uri, "0", size, str(total))

    def delete(self, uri: str, generation: str) -> bool:
        """Delete a file, and the folders that this leaves empty."""
        path = self._resolve(uri)
        try:
            self._check_inside(path, uri)
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise _unavailable(error, uri, "deleted") from error
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
        page = []
        for name, status in self._files(prefix, start):
            page.append(Listed(f"{self._root}/{name}", name, "0", status.st_size, status.st_mtime))
            if len(page) == PAGE_OBJECTS:
                yield page
                page = []
        yield page

    def _files(self, folder: str, start: str) -> Iterator[tuple[str, os.stat_result]]:
        """Walk in the order of the whole names, as a bucket lists."""
        try:
            with os.scandir(self._path / folder) as entries:
                found = sorted(
                    f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name
                    for entry in entries
                    if not entry.is_symlink()
                )
        except (FileNotFoundError, NotADirectoryError):
            return  # Nothing was stored there yet, or the last file of it was deleted meanwhile.
        except OSError as error:
            raise _unavailable(error, f"{self._root}/{folder}", "listed") from error
        for entry in found:
            name = f"{folder}{entry}"
            if entry.endswith("/"):
                if name >= start or start.startswith(name):
                    yield from self._files(name, start)
            elif name >= start:
                try:
                    yield name, (self._path / name).lstat()
                except FileNotFoundError:
                    continue

    def _resolve(self, uri: str) -> Path:
        name = uri.removeprefix(f"{self._root}/")
        if name == uri or "\0" in name or not _is_utf8(name) or {"", ".", ".."} & set(name.split("/")):
            raise ReferenceNotAllowedError(f"{uri} does not name a file below {self._root}", uri=uri)
        return self._path / name

    def _check_inside(self, path: Path, uri: str) -> None:
        """Refuse folders that are links out of the directory."""
        if not path.parent.resolve().is_relative_to(self._path.resolve()):
            raise ReferenceNotAllowedError(
                f"{uri} leads out of {self._root} through a symbolic link; nothing was read or written",
                uri=uri,
            )


def _check_size(file: FileIO, size: int, uri: str) -> None:
    found = os.fstat(file.fileno()).st_size
    if found != size:
        raise PayloadCorruptError(f"is {found} bytes long, and {size} were written", uri=uri)


def _unavailable(error: OSError, uri: str, verb: str) -> StoreUnavailableError:
    advice = {
        errno.ENOSPC: "The disk is full: free some space",
        errno.EDQUOT: "The quota is used up: free some space",
        errno.EROFS: "The file system is mounted read-only: mount it for writing",
        errno.EACCES: "The user that runs the task lacks the permission: grant it with chown or chmod",
        errno.EPERM: "The operation is not permitted there (the file system must support hard links)",
        errno.EFBIG: "The file is larger than this process may write (ulimit -f): raise that limit",
        errno.ENAMETOOLONG: "The file system takes no name of this length: shorten [gcs_xcom] prefix",
        errno.ELOOP: "A symbolic link stands in the file's place: remove it",
    }.get(error.errno or 0, "Look at the file system")
    return StoreUnavailableError(
        f"{uri} could not be {verb}: {error.strerror or error}. {advice}, then clear the task. "
        "Nothing half-written can be read.",
        uri=uri,
    )


def _is_utf8(text: str) -> bool:
    # A row can hold what no name can: JSON knows lone surrogates.
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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
