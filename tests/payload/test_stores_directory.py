"""DirectoryStore where disks, people and signals are not kind."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("airflow", reason="needs Airflow: pip install 'apache-airflow>=3'")

from include.xcom import stores
from include.xcom.errors import (
    PayloadCorruptError,
    PayloadError,
    PayloadMissingError,
    ReferenceNotAllowedError,
    StoreUnavailableError,
)
from include.xcom.reference import PayloadReference
from include.xcom.stores import DirectoryStore, Stored

NAME = "xcom/dag/run/task/-1/return_value/0.bin"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The store's directory."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    return folder


@pytest.fixture
def store(folder: Path) -> DirectoryStore:
    """An empty store."""
    return DirectoryStore(folder.as_uri())


@pytest.fixture
def mounted(folder: Path) -> Iterator[tuple[DirectoryStore, Path]]:
    """A store on a file system of 1 MiB of its own."""
    _mount(folder, 0)
    try:
        yield DirectoryStore(folder.as_uri()), folder
    finally:
        _libc().umount2(os.fsencode(folder), 2)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)


def _mount(folder: Path, flags: int) -> None:
    if _libc().mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, b"size=1m") != 0:
        pytest.skip(f"cannot mount a small file system: {os.strerror(ctypes.get_errno())} (needs root)")


def files(folder: Path) -> list[str]:
    """Return all files below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def reference_to(stored: Stored) -> PayloadReference:
    """Return a reference as the backend makes it."""
    size = stored.size
    return PayloadReference(stored.uri, "bytes", size, size, "raw", 1, stored.crc32c, stored.generation)


def test_put_killed_in_the_middle_leaves_nothing_readable(folder: Path, store: DirectoryStore) -> None:
    """The name never exists half-written; what is left is a hidden file that no reference names."""
    code = f"""
import sys
from include.xcom.stores import DirectoryStore
class Endless(list):
    def __iter__(self):
        while True:
            yield bytes(1_000_000)
            print("written", flush=True)
            sys.stdin.readline()
DirectoryStore({folder.as_uri()!r}).put({NAME!r}, Endless())
"""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=pipe, stdout=pipe, env=_environment()
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline().strip() == b"written"
        assert not (folder / NAME).exists()
        writer.send_signal(signal.SIGKILL)
        writer.wait()

    assert [name for name in files(folder) if not stores.is_part(name)] == []
    with pytest.raises(PayloadMissingError, match="there is no such file"):
        store.describe(f"{folder.as_uri()}/{NAME}")
    stored = store.put(NAME, [b"again"])
    assert bytes(store.get(reference_to(stored))) == b"again"


def test_put_on_a_full_disk_says_so_and_leaves_nothing(mounted: tuple[DirectoryStore, Path]) -> None:
    """Space is what is missing, and what was half-written is removed."""
    store, folder = mounted

    with pytest.raises(StoreUnavailableError, match=r"No space left on device. The disk is full: free some"):
        store.put(NAME, [bytes(5_000_000)])

    assert files(folder) == []


def test_put_over_the_limit_of_file_sizes_says_so(folder: Path, store: DirectoryStore) -> None:
    """`ulimit -f`, as batch systems set it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(StoreUnavailableError, match=r"File too large. .*raise that limit, then clear"):
            store.put(NAME, [bytes(200_000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)

    assert files(folder) == []


def test_read_only_file_system_is_read_and_not_written(mounted: tuple[DirectoryStore, Path]) -> None:
    """What is there can be read; writing and deleting say what is wrong."""
    store, folder = mounted
    stored = store.put(NAME, [b"abc"])
    assert _libc().mount(None, os.fsencode(folder), None, 0x21, None) == 0  # MS_REMOUNT | MS_RDONLY

    assert bytes(store.get(reference_to(stored))) == b"abc"
    with pytest.raises(
        StoreUnavailableError, match=r"Read-only file system. .*for writing.* Could not store"
    ):
        store.put(NAME + "2", [b"abc"])
    with pytest.raises(StoreUnavailableError, match=r"Read-only file system.* Could not delete"):
        store.delete(stored.uri, stored.generation)


def test_no_permission_is_told_with_what_grants_it(folder: Path) -> None:
    """Root may do everything, so somebody else tries."""
    code = f"""
import os
from include.xcom.errors import StoreUnavailableError
from include.xcom.stores import DirectoryStore
store = DirectoryStore({folder.as_uri()!r})
stored = store.put("xcom/a", [b"abc"])
if os.getuid() == 0:
    os.setuid(65534)
else:
    os.chmod({str(folder)!r} + "/xcom", 0o500)
try:
    store.put("xcom/b", [b"abc"])
except StoreUnavailableError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=_environment()
    )

    assert "Permission denied. The user that runs the task lacks" in done.stdout, done
    assert files(folder) == ["xcom/a"]


def test_missing_directory_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    """A lost mount is an error, not a surprise in an empty place."""
    with pytest.raises(StoreUnavailableError, match=rf"{tmp_path}/none of .*mkdir -p {tmp_path}/none"):
        DirectoryStore((tmp_path / "none").as_uri())


def test_directory_that_vanishes_is_not_made_anew(folder: Path, store: DirectoryStore) -> None:
    """As when a volume is unmounted under a running process."""
    folder.rmdir()

    with pytest.raises(StoreUnavailableError, match=r"directory of \[gcs_xcom\] bucket is gone"):
        store.put(NAME, [b"abc"])

    assert not folder.exists()


def test_file_in_a_folder_s_place_is_no_payload_that_exists(folder: Path, store: DirectoryStore) -> None:
    """The name is free, but its folder cannot be made: that is the store's trouble, not a replay."""
    (folder / "xcom").write_text("a file")

    with pytest.raises(StoreUnavailableError, match=r"(File exists|Not a directory).* Could not store"):
        store.put("xcom/a", [b"abc"])
    with pytest.raises(PayloadMissingError, match="there is no such file"):
        store.describe(f"{folder.as_uri()}/xcom/a")
    assert store.delete(f"{folder.as_uri()}/xcom/a", "0") is False


def test_name_too_long_for_the_file_system_says_so(store: DirectoryStore) -> None:
    """Segments of the backend are shorter; a prefix may not be."""
    with pytest.raises(StoreUnavailableError, match=r"File name too long. .*shorten \[gcs_xcom\] prefix"):
        store.put(f"xcom/{'x' * 300}/a", [b"abc"])


@pytest.mark.parametrize(
    "name",
    ["../secret", "xcom/../../secret", "xcom/./a", "", "xcom//a", "/etc/passwd", "xcom/a\0b", "xcom/\ud800"],
    ids=["parent", "parent-inside", "dot", "empty", "double-slash", "absolute", "nul", "lone-surrogate"],
)
def test_names_that_are_no_names_are_refused(folder: Path, store: DirectoryStore, name: str) -> None:
    """Nothing is normalised: such a name is refused for reading, writing and deleting."""
    (folder.parent / "secret").write_bytes(b"secret")
    uri = f"{folder.as_uri()}/{name}"
    reference = reference_to(Stored(uri, "0", 6, stores.checksum([b"secret"])))

    for call in (
        lambda: store.get(reference),
        lambda: store.put(name, [b"x"]),
        lambda: store.delete(uri, "0"),
        lambda: store.describe(uri),
    ):
        with pytest.raises(ReferenceNotAllowedError, match="does not name a file below file:///"):
            call()
    assert (folder.parent / "secret").read_bytes() == b"secret"
    assert files(folder) == []


@pytest.mark.parametrize(
    "name", ["%2e%2e/secret", "%2e%2e%2fsecret", "..%2fsecret", "xcom/%2E%2E/%2E%2E/secret"]
)
def test_percent_encoded_names_lead_nowhere(folder: Path, store: DirectoryStore, name: str) -> None:
    """Percent signs are letters of the name."""
    (folder.parent / "secret").write_bytes(b"secret")
    uri = f"{folder.as_uri()}/{name}"

    with pytest.raises(PayloadMissingError, match="there is no such file"):
        store.get(reference_to(Stored(uri, "0", 6, stores.checksum([b"secret"]))))


def test_other_root_is_refused(folder: Path, store: DirectoryStore) -> None:
    """A URI of a neighbour whose name begins the same is not below this root."""
    with pytest.raises(ReferenceNotAllowedError, match="does not name a file below"):
        store.describe(f"{folder.as_uri()}-2/a")


def test_link_to_a_folder_outside_is_not_followed(folder: Path, store: DirectoryStore) -> None:
    """Neither for reading nor writing nor deleting; no folder is made behind it either."""
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (folder / "xcom").symlink_to(outside)
    uri = f"{folder.as_uri()}/xcom/secret"

    for call in (
        lambda: store.get(reference_to(Stored(uri, "0", 6, stores.checksum([b"secret"])))),
        lambda: store.put("xcom/new/deep/a", [b"x"]),
        lambda: store.delete(uri, "0"),
        lambda: store.describe(uri),
    ):
        with pytest.raises(ReferenceNotAllowedError, match="through a symbolic link; nothing was read or"):
            call()
    assert files(outside) == ["secret"]
    assert list(outside.iterdir()) == [outside / "secret"]


def test_link_in_a_file_s_place_is_not_followed(folder: Path, store: DirectoryStore) -> None:
    """A link may point anywhere; deleting removes the link alone."""
    (folder.parent / "secret").write_bytes(b"secret")
    (folder / "a").symlink_to(folder.parent / "secret")
    uri = f"{folder.as_uri()}/a"

    with pytest.raises(StoreUnavailableError, match="A symbolic link is in the file's place: remove it"):
        store.get(reference_to(Stored(uri, "0", 6, stores.checksum([b"secret"]))))
    with pytest.raises(StoreUnavailableError, match="A symbolic link is in the file's place"):
        store.describe(uri)
    assert store.delete(uri, "0") is True
    assert (folder.parent / "secret").read_bytes() == b"secret"


def test_root_that_is_a_link_works(folder: Path) -> None:
    """People link data folders to larger disks; only links below the root are suspicious."""
    (folder.parent / "link").symlink_to(folder)
    store = DirectoryStore((folder.parent / "link").as_uri())

    stored = store.put(NAME, [b"abc"])

    assert bytes(store.get(reference_to(stored))) == b"abc"


def test_named_pipe_is_not_waited_for(folder: Path, store: DirectoryStore) -> None:
    """Nor is a folder read as a file."""
    os.mkfifo(folder / "pipe")
    (folder / "sub").mkdir()

    for name in ("pipe", "sub"):
        with pytest.raises(PayloadCorruptError, match="is no file"):
            store.get(reference_to(Stored(f"{folder.as_uri()}/{name}", "0", 0, "00000000")))


def test_truncated_and_altered_files_are_corrupt(folder: Path, store: DirectoryStore) -> None:
    """At every length and with every bit changed."""
    stored = store.put(NAME, [b"abcdef"])
    for size in range(6):
        (folder / NAME).write_bytes(b"abcdef"[:size])
        with pytest.raises(PayloadCorruptError, match=f"is {size} bytes long, and 6 were written"):
            store.get(reference_to(stored))
    for bit in range(48):
        altered = bytearray(b"abcdef")
        altered[bit // 8] ^= 1 << bit % 8
        (folder / NAME).write_bytes(altered)
        with pytest.raises(PayloadCorruptError, match="has another CRC32C than what was written"):
            store.get(reference_to(stored))


def test_delete_removes_empty_folders_and_puts_survive_it(folder: Path, store: DirectoryStore) -> None:
    """A writer whose folder is removed under its hands makes it again."""
    errors: list[Exception] = []

    def churn(number: int) -> None:
        try:
            for index in range(150):
                stored = store.put(f"xcom/dag/run/{number}-{index}", [b"x"])
                assert store.delete(stored.uri, stored.generation)
        except (PayloadError, OSError, AssertionError) as error:
            errors.append(error)

    threads = [threading.Thread(target=churn, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert list(folder.iterdir()) == []


def test_distributed_executor_is_warned_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another machine would not find the files."""
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")

    DirectoryStore(folder.as_uri())

    assert "is a directory of one machine, and the executor is CeleryExecutor" in caplog.text


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(stores.__file__).parents[3])}
