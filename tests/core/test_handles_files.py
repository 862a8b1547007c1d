"""``File``: files and folders of any size, stored as a stream and read as a path, a stream, or by member."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import shutil
import signal
import stat
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from include.xcom import File, payloads, settings
from include.xcom.codecs.classes import allow_lists
from include.xcom.errors import (
    PayloadCorruptError,
    PayloadMissingError,
    PayloadTooLargeError,
    ReferenceNotAllowedError,
    SourceFileError,
    TemporarySpaceError,
    UnsupportedTypeError,
)
from include.xcom.handles import temporary
from include.xcom.reference import Coordinates, PayloadReference
from include.xcom.stores import DirectoryStore, Stored

MIB = 1024**2


def push(value: Any, key: str = "return_value") -> Any:
    """Return the row of a value, as the database keeps it."""
    row = payloads.store(value, Coordinates("sales", "manual__1", "load", -1, key))
    return json.loads(json.dumps(row))


def handed_on(value: Any) -> Any:
    """Return what the next task gets."""
    return payloads.load(push(value))


def objects(folder: Path) -> list[str]:
    """Return the names of all stored objects, without their folders."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def configure(monkeypatch: pytest.MonkeyPatch, **values: object) -> None:
    """Set ``AIRFLOW__GCS_XCOM__*``."""
    for name, value in values.items():
        monkeypatch.setenv(f"AIRFLOW__GCS_XCOM__{name.upper()}", str(value))
    settings.load_settings.cache_clear()


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary directory of tasks, empty, and of this test alone."""
    folder = tmp_path / "scratch"
    configure(monkeypatch, temporary_directory=folder)
    return folder


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The ranges that are read of any object."""
    ranges: list[tuple[int, int]] = []
    read = DirectoryStore.read

    def counting(self: DirectoryStore, stored: Stored, start: int, stop: int, **options: Any) -> memoryview:
        ranges.append((start, stop))
        return read(self, stored, start, stop, **options)

    monkeypatch.setattr(DirectoryStore, "read", counting)
    return ranges


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    """A file of three rows."""
    path = tmp_path / "flights.csv"
    path.write_text("carrier,delay\nUA,2\nAA,-4\n")
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with folders, an empty one, an executable, and a name outside of ASCII."""
    folder = tmp_path / "model"
    (folder / "weights" / "layer").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "config.json").write_text('{"layers": 2}')
    (folder / "weights" / "layer" / "größe.bin").write_bytes(bytes(range(256)) * 100)
    (folder / "weights" / "nothing.bin").touch()
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    return folder


def tree(folder: Path) -> dict[str, tuple[int, bytes | None]]:
    """Return everything in a folder, with modes and contents."""
    return {
        path.relative_to(folder).as_posix(): (
            stat.S_IMODE(path.stat().st_mode) & 0o111,
            path.read_bytes() if path.is_file() else None,
        )
        for path in folder.rglob("*")
    }


# ------------------------------------------------------------------------------------------- files


def test_file_is_one_object_of_its_bytes_and_a_row_with_its_name(csv: Path, payload_folder: Path) -> None:
    """The object is the file itself; the row says what people want to know of it."""
    row = push(File(csv))

    reference = PayloadReference.from_row(row)
    assert reference is not None
    assert (reference.type, reference.codec) == ("File", "file")
    assert reference.facts == {"name": "flights.csv", "media_type": "text/csv"}
    (name,) = objects(payload_folder)
    assert name.endswith(".csv")
    assert reference.bytes == csv.stat().st_size


def test_received_file_knows_itself_without_a_request(csv: Path, reads: list[Any], scratch: Path) -> None:
    """Neither its facts, nor printing, copying, pickling, or comparing it reads anything."""
    file = handed_on(File(csv))

    assert type(file) is File
    assert (file.name, file.size, file.media_type) == ("flights.csv", 25, "text/csv")
    assert file.content is not None
    assert file.crc32c == file.content.stored.crc32c
    assert repr(file) == str(file) == "File('flights.csv', text/csv, 25 B)"
    again = pickle.loads(pickle.dumps(file))
    assert copy.deepcopy(file) == copy.copy(file) == again == file
    assert hash(again) == hash(file)
    assert not callable(file)
    assert not isinstance(file, (list, tuple))
    assert not hasattr(file, "serialize")
    assert not hasattr(file, "resolve")
    assert reads == []
    assert not scratch.exists()


def test_received_file_is_a_path_to_a_copy_of_it(csv: Path, scratch: Path) -> None:
    """Everything that takes a path takes the handle; it is downloaded once."""
    file = handed_on(File(csv))

    with open(file) as stream:
        assert stream.read() == csv.read_text()
    done = subprocess.run(["cat", file], capture_output=True, check=True)
    assert done.stdout == csv.read_bytes()
    path = Path(file)
    assert path.name == "flights.csv"
    assert path.is_relative_to(scratch)
    assert copy.deepcopy(file).path == pickle.loads(pickle.dumps(file)).path == path


def test_media_type_is_what_the_task_says(csv: Path) -> None:
    """The guess is a default."""
    assert handed_on(File(csv, media_type="application/x-flights")).media_type == "application/x-flights"


@pytest.mark.parametrize("size", [0, 1, 300_000, 9 * MIB + 7])
def test_open_reads_any_place_of_a_file_by_ranges(size: int, tmp_path: Path, scratch: Path) -> None:
    """The stream is the file, wherever it is read, and nothing is downloaded for it."""
    path = tmp_path / "x.bin"
    path.write_bytes(os.urandom(size))
    original = path.read_bytes()

    with handed_on(File(path)).open() as stream:
        assert stream.seekable()
        assert stream.seek(0, io.SEEK_END) == size
        assert stream.read() == b""
        for place in (size // 2, 0, size // 3, max(0, size - 10)):
            stream.seek(place)
            assert stream.read(1000) == original[place : place + 1000]
        stream.seek(0)
        assert stream.read() == original
    with pytest.raises(ValueError, match="closed file"):
        stream.read()
    assert not scratch.exists()


def test_a_look_into_a_file_costs_one_small_range(tmp_path: Path, reads: list[tuple[int, int]]) -> None:
    """Reading on asks for ever longer ranges, at most 4 MiB each."""
    path = tmp_path / "x.bin"
    path.write_bytes(bytes(64 * MIB))
    file = handed_on(File(path))

    with file.open() as stream:
        stream.seek(50 * MIB)
        stream.read(100)
        assert reads == [(50 * MIB, 50 * MIB + 256 * 1024)]
        stream.seek(0)
        while stream.read(MIB):
            pass
    lengths = sorted({stop - start for start, stop in reads})
    assert lengths[-1] == 4 * MIB
    assert len(reads) < 25


def test_reader_of_a_whole_stream_gets_what_was_written_or_an_error(
    tmp_path: Path, payload_folder: Path
) -> None:
    """A directory does not know its files' checksums, so a changed byte shows at the end."""
    path = tmp_path / "x.bin"
    path.write_bytes(bytes(MIB))
    file = handed_on(File(path))
    (stored,) = [path for path in payload_folder.rglob("*") if path.is_file()]
    stored.write_bytes(bytes(MIB - 1) + b"\x01")

    with (
        file.open() as stream,
        pytest.raises(PayloadCorruptError, match=r"not what was written.*Clear the task"),
    ):
        stream.read()
    with pytest.raises(PayloadCorruptError, match=r"another CRC32C.*sales\.load"):
        os.fspath(file)


def test_copy_to_stays_after_the_task(csv: Path, tmp_path: Path, scratch: Path) -> None:
    """It replaces a file, goes into a folder, and leaves nothing else."""
    file = handed_on(File(csv))
    target = tmp_path / "out"
    target.mkdir()
    (target / "old.csv").write_text("old")

    assert file.copy_to(target) == target / "flights.csv"
    assert file.copy_to(target / "old.csv") == target / "old.csv"
    assert {path.name: path.read_text() for path in target.iterdir()} == {
        "flights.csv": csv.read_text(),
        "old.csv": csv.read_text(),
    }
    assert not scratch.exists()


def test_file_that_is_returned_again_is_copied_in_the_store(
    csv: Path, payload_folder: Path, reads: list[Any], scratch: Path
) -> None:
    """No byte comes through the worker, and each XCom has an object of its own."""
    first = push(File(csv))
    received = payloads.load(first)

    second = push(received, key="again")

    assert reads == []
    assert not scratch.exists()
    payloads.purge(first)
    assert Path(payloads.load(second)).read_text() == csv.read_text()
    with pytest.raises(PayloadMissingError, match=r"Clear the task that wrote it.*flights|is gone"):
        received.copy_to(csv.with_name("x"))


def test_file_of_another_place_is_copied_through_the_worker(
    csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row may come from a deployment that this one may only read."""
    received = handed_on(File(csv))
    old, new = settings.load_settings().root, tmp_path / "other"
    new.mkdir()
    configure(monkeypatch, bucket=new.as_uri(), read_uris=old)

    again = handed_on(received)

    assert again.content.stored.uri.startswith(new.as_uri())
    assert Path(again).read_text() == csv.read_text()


# ----------------------------------------------------------------------------------- inside a value


@dataclass
class Report:
    """A class with a file in it."""

    model: File
    auc: float


def test_files_at_any_depth_are_attachments_of_the_payload(csv: Path, payload_folder: Path) -> None:
    """They share the payload's unique name, and the row counts them."""
    row = push({"model": File(csv), "rest": [({"twice": File(csv)},)], "auc": 0.91})

    reference = PayloadReference.from_row(row)
    assert reference is not None
    assert reference.facts == {"items": 3, "attachments": 2}
    unique = reference.uri.rpartition("/")[2].partition(".")[0]
    assert objects(payload_folder) == [f"{unique}.1.csv", f"{unique}.2.csv", f"{unique}.json.zst"]
    value = payloads.load(row)
    assert value["auc"] == 0.91
    assert Path(value["model"]).read_text() == csv.read_text()
    assert Path(value["rest"][0][0]["twice"]).read_text() == csv.read_text()


def test_one_file_at_two_places_is_one_object(csv: Path, payload_folder: Path) -> None:
    """The value has it twice, the store once."""
    file = File(csv)

    first, second = handed_on([file, file])

    assert first == second
    assert len(objects(payload_folder)) == 2


def test_file_in_a_class_comes_back_in_it(csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dataclasses are written by their fields; a field may be a handle."""
    monkeypatch.setenv("AIRFLOW__CORE__ALLOWED_DESERIALIZATION_CLASSES", "*.Report")
    allow_lists.cache_clear()

    report = handed_on(Report(File(csv), 0.91))
    allow_lists.cache_clear()

    assert (type(report), report.auc) == (Report, 0.91)
    assert Path(report.model).read_text() == csv.read_text()


def test_purge_deletes_attachments_and_nothing_else(csv: Path, payload_folder: Path) -> None:
    """The next try stores them anew; other values of the same XCom stay."""
    first, second = push([File(csv), 1]), push([File(csv), 2])

    payloads.purge(first)

    assert len(objects(payload_folder)) == 2
    assert Path(payloads.load(second)[0]).read_text() == csv.read_text()


def test_value_that_cannot_be_stored_leaves_no_attachment(csv: Path, payload_folder: Path) -> None:
    """Whether it is refused before its files are uploaded or after."""
    gone = File(csv.parent / "flights.csv")
    with pytest.raises(UnsupportedTypeError, match="Nothing was uploaded"):
        push([gone, object()])
    other = csv.with_name("other.csv")
    other.write_text("x")
    late = File(other)
    other.unlink()
    with pytest.raises(SourceFileError, match=r"other\.csv cannot be read: No such file.*Nothing was stored"):
        push([gone, late])

    assert objects(payload_folder) == []


def test_node_that_names_a_forbidden_place_is_refused(csv: Path, tmp_path: Path) -> None:
    """What a payload says of its attachments is trusted no more than a row."""
    from include.xcom.codecs.compression import compress, decompress

    row = push([File(csv)])
    path = Path(row["__data__"]["uri"].removeprefix("file://"))
    text = decompress(path.read_bytes(), MIB).replace(b"/payloads/", b"/secrets_/")
    (changed,) = compress([text])
    path.write_bytes(changed)
    found = DirectoryStore(settings.load_settings().bucket).describe(row["__data__"]["uri"])
    row["__data__"] |= {"bytes": found.size, "crc32c": found.crc32c}

    with pytest.raises(ReferenceNotAllowedError, match="outside of what this deployment may read"):
        payloads.load(row)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "..", "", "a\0b"])
def test_row_with_an_unsafe_name_is_refused(name: str, csv: Path) -> None:
    """The name becomes one on this machine."""
    row = push(File(csv))
    row["__data__"]["name"] = name

    with pytest.raises(PayloadCorruptError, match="unsafe file name"):
        payloads.load(row)


# ----------------------------------------------------------------------------------------- folders


def test_folder_is_one_zip_file_that_any_tool_opens(model: Path, payload_folder: Path) -> None:
    """Members are stored as they are."""
    row = push(File(model))

    assert row["__data__"]["files"] == 4
    (name,) = objects(payload_folder)
    assert name.endswith(".zip")
    (path,) = payload_folder.rglob("*.zip")
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.read("config.json") == b'{"layers": 2}'


def test_folder_comes_back_as_it_was(model: Path, tmp_path: Path, scratch: Path) -> None:
    """Names, contents, empty folders, and the right to execute."""
    folder = handed_on(File(model))

    assert folder.is_folder
    assert (folder.name, folder.media_type) == ("model", "application/zip")
    assert tree(folder.path) == tree(model)
    assert tree(folder.copy_to(tmp_path / "copy")) == tree(model)
    with pytest.raises(FileExistsError, match="name a folder that does not exist yet"):
        folder.copy_to(tmp_path)


def test_member_is_read_without_the_rest(model: Path, reads: list[tuple[int, int]], scratch: Path) -> None:
    """The listing is one small range, and so is a small member."""
    (model / "large.bin").write_bytes(bytes(20 * MIB))
    folder = handed_on(File(model))

    assert sorted(folder.files()) == [
        "config.json",
        "large.bin",
        "run.sh",
        "weights/layer/größe.bin",
        "weights/nothing.bin",
    ]
    assert len(reads) == 1
    with folder.open("config.json") as stream:
        assert stream.read() == b'{"layers": 2}'
        assert stream.seek(2) == 2
        assert stream.read(6) == b"layers"
    assert len(reads) == 2
    assert sum(stop - start for start, stop in reads) < MIB
    assert not scratch.exists()
    with folder.open("weights/layer/größe.bin") as stream:
        assert stream.read() == bytes(range(256)) * 100
    with folder.open("weights/nothing.bin") as stream:
        assert stream.read() == b""


def test_files_and_folders_answer_the_wrong_call_with_what_to_do(model: Path, csv: Path) -> None:
    """Both before they are stored and after."""
    for folder in (File(model), handed_on(File(model))):
        with pytest.raises(IsADirectoryError, match="name one of its files"):
            folder.open()
        with pytest.raises(FileNotFoundError, match="has no file 'nope'"):
            folder.open("nope")
        with pytest.raises(FileNotFoundError, match="has no file 'empty/'"):
            folder.open("empty/")
    for file in (File(csv), handed_on(File(csv))):
        with pytest.raises(NotADirectoryError, match="is a file, not a folder"):
            file.files()
        with pytest.raises(NotADirectoryError, match="is a file, not a folder"):
            file.open("x")


def test_file_that_is_not_stored_yet_reads_like_a_received_one(
    model: Path, csv: Path, tmp_path: Path
) -> None:
    """A test may call one task's function with what another's returned."""
    assert Path(File(csv)) == csv
    with File(csv).open() as stream:
        assert stream.read() == csv.read_bytes()
    assert File(csv).size == 25
    assert File(csv).crc32c is None
    assert File(csv).copy_to(tmp_path / "x.csv").read_text() == csv.read_text()
    folder = File(model)
    assert folder.files() == handed_on(folder).files()
    with folder.open("config.json") as stream:
        assert stream.read() == b'{"layers": 2}'
    assert tree(folder.copy_to(tmp_path / "y")) == tree(model)


def test_link_within_a_folder_is_followed(model: Path) -> None:
    """Both names have the bytes."""
    (model / "latest.json").symlink_to("config.json")

    with handed_on(File(model)).open("latest.json") as stream:
        assert stream.read() == b'{"layers": 2}'


@pytest.mark.parametrize("kind", ["file-outside", "folder", "broken", "pipe", "absolute"])
def test_link_out_of_a_folder_is_refused(kind: str, model: Path, csv: Path, payload_folder: Path) -> None:
    """Nothing outside of the folder is stored by accident, and nothing is left out silently."""
    link = model / "weights" / "link"
    if kind == "pipe":
        os.mkfifo(link)
    else:
        targets: dict[str, Any] = {
            "file-outside": "../../flights.csv",
            "folder": "layer",
            "broken": "nope",
            "absolute": csv,
        }
        link.symlink_to(targets[kind])

    with pytest.raises(SourceFileError, match=r"weights/link is .*Nothing was stored\."):
        push(File(model))
    assert objects(payload_folder) == []


HOSTILE = {
    "parent": [("../evil", b"x")],
    "absolute": [("/tmp/evil", b"x")],
    "hidden-parent": [("a/../../evil", b"x")],
    "dot": [("./evil", b"x")],
    "two-of-a-name": [("a", b"x"), ("a", b"y")],
    "file-as-folder": [("a", b"x"), ("a/b", b"y")],
    "empty-name": [("a//b", b"x")],
}


def forge(row: Any, archive: bytes) -> Any:
    """Replace the object of a folder by another zip file, and let the row vouch for it."""
    uri = row["__data__"]["uri"]
    Path(uri.removeprefix("file://")).write_bytes(archive)
    found = DirectoryStore(settings.load_settings().bucket).describe(uri)
    from include.xcom.handles.base import index_facts

    row["__data__"] |= {"bytes": found.size, "crc32c": found.crc32c, **index_facts(archive)}
    return row


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zip_file_with_hostile_names_is_not_extracted(
    members: list[tuple[str, bytes]], model: Path, tmp_path: Path, scratch: Path
) -> None:
    """Even if the row vouches for it."""
    row = push(File(model))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, data in members:
            file.writestr(zipfile.ZipInfo(name), data)
    folder = payloads.load(forge(row, archive.getvalue()))

    with pytest.raises(PayloadCorruptError, match=r"unsafe name|two members of one name"):
        os.fspath(folder)
    with pytest.raises(PayloadCorruptError, match=r"unsafe name|two members of one name"):
        folder.copy_to(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("kind", ["compressed", "link", "no-zip", "flipped-member", "overlapping"])
def test_zip_file_that_is_not_ours_is_not_extracted(kind: str, model: Path, scratch: Path) -> None:
    """Links, bombs, and damaged members are refused."""
    row = push(File(model))
    archive = io.BytesIO()
    info = zipfile.ZipInfo("a")
    if kind == "link":
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "w") as file:
        method = zipfile.ZIP_DEFLATED if kind == "compressed" else zipfile.ZIP_STORED
        file.writestr(info, b"0" * 1000, method)
    data = archive.getvalue()
    if kind == "no-zip":
        data = b"no zip file"
    if kind == "flipped-member":
        data = data.replace(b"0" * 1000, b"0" * 999 + b"1")
    if kind == "overlapping":
        start = data.index(b"PK\x01\x02")
        count = 30
        entries = b"".join(data[start : start + 46] + b"%c" % (65 + number) for number in range(count))
        end = bytearray(data[data.index(b"PK\x05\x06") :])
        end[8:12] = count.to_bytes(2, "little") * 2
        end[12:16] = len(entries).to_bytes(4, "little")
        data = data[:start] + entries + bytes(end)

    with pytest.raises(
        PayloadCorruptError, match=r"compressed member|no file|no zip file|other bytes|overlap"
    ):
        os.fspath(payloads.load(forge(row, data)))
    assert not [path for path in scratch.rglob("*") if path.name == "model"]


def test_damaged_index_of_a_folder_is_noticed(model: Path, payload_folder: Path) -> None:
    """The row has its checksum, so the listing alone is verified."""
    folder = handed_on(File(model))
    (path,) = payload_folder.rglob("*.zip")
    data = bytearray(path.read_bytes())
    data[-60] ^= 1
    path.write_bytes(data)

    with pytest.raises(PayloadCorruptError, match="another index than what was written"):
        folder.files()


# ------------------------------------------------------------------------------------------ faults


def test_path_without_a_file_is_refused_where_the_handle_is_made(tmp_path: Path) -> None:
    """The traceback then shows the line that names it."""
    with pytest.raises(FileNotFoundError, match=r"File\('nope\.bin'\): there is no file or folder"):
        File("nope.bin")


@pytest.mark.parametrize("change", ["grow", "shrink", "touch", "vanish", "replace"])
def test_file_that_changes_while_it_is_stored_is_an_error(
    change: str, tmp_path: Path, payload_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that could be read is left."""
    path = tmp_path / "log.txt"
    path.write_bytes(bytes(3 * MIB))
    put_stream = DirectoryStore.put_stream

    def changing(self: DirectoryStore, name: str, chunks: Iterator[bytes], **options: Any) -> Stored:
        def meanwhile() -> Iterator[bytes]:
            yield next(chunks)
            if change == "grow":
                with path.open("ab") as file:
                    file.write(b"more")
            elif change == "shrink":
                os.truncate(path, 2 * MIB)
            elif change == "touch":
                os.utime(path, ns=(1, 1))
            else:
                path.unlink()
            if change == "replace":
                path.write_bytes(bytes(3 * MIB))
            yield from chunks

        return put_stream(self, name, meanwhile(), **options)

    monkeypatch.setattr(DirectoryStore, "put_stream", changing)

    with pytest.raises(SourceFileError, match=r"log\.txt (changed while|cannot be read).*Nothing was stored"):
        push(File(path))
    assert objects(payload_folder) == []


def test_file_over_the_limit_is_neither_stored_nor_downloaded(
    csv: Path, model: Path, payload_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``max_file_bytes`` holds for single files, for folders as they are read, and for readers."""
    row = push(File(csv))
    configure(monkeypatch, max_file_bytes=24)

    with pytest.raises(PayloadTooLargeError, match=r"25 B.*the limit is 24 B.*max_file_bytes.*sales\.load"):
        push(File(csv))
    with pytest.raises(PayloadTooLargeError, match=r"max_file_bytes.*Nothing was stored"):
        push(File(model))
    with pytest.raises(PayloadTooLargeError, match="is 25 B; the limit is 24 B"):
        os.fspath(payloads.load(row))
    assert len(objects(payload_folder)) == 1


def test_full_disk_is_foreseen(csv: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says how much is missing where, and what to do."""
    file = handed_on(File(csv))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 5, 5))

    with pytest.raises(
        TemporarySpaceError, match=r"flights\.csv \(25 B\).*5 B are free.*temporary_directory"
    ) as caught:
        os.fspath(file)
    assert (caught.value.needed, caught.value.free) == (25, 5)
    assert [path for path in scratch.rglob("*") if path.name == "flights.csv"] == []


@pytest.mark.once
def test_disk_that_fills_during_a_download_leaves_no_half_file(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk; a new process, since it cannot be taken back."""
    path = tmp_path / "x.bin"
    path.write_bytes(bytes(9 * MIB))
    file = handed_on(File(path))
    (tmp_path / "handle").write_bytes(pickle.dumps(file))
    code = (
        "import pickle, resource, signal, sys\n"
        "from pathlib import Path\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({5 * MIB}, {5 * MIB}))\n"
        "file = pickle.loads(Path(sys.argv[1]).read_bytes())\n"
        "try:\n"
        "    file.copy_to(sys.argv[2])\n"
        "except OSError as error:\n"
        "    print(type(error).__name__, list(Path(sys.argv[2]).parent.glob('*copy*')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "handle", tmp_path / "copy.bin"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.splitlines()[-1] == "OSError []"


def test_handle_whose_object_was_purged_says_so(csv: Path, model: Path, scratch: Path) -> None:
    """Whatever it is used for."""
    row, folder_row = push(File(csv)), push(File(model))
    file, folder = payloads.load(row), payloads.load(folder_row)
    payloads.purge(row)
    payloads.purge(folder_row)

    uses: list[Callable[[], object]] = [
        lambda: os.fspath(file),
        lambda: file.open().read(),
        lambda: push(file),
        folder.files,
        lambda: folder.open("config.json"),
        lambda: os.fspath(folder),
    ]
    for use in uses:
        with pytest.raises(PayloadMissingError):
            use()
    with pytest.raises(PayloadMissingError, match=r"is gone\. Clear the task.*sales\.load"):
        os.fspath(file)


def test_stream_is_read_on_by_a_parent_and_its_fork(tmp_path: Path) -> None:
    """Each has a position of its own, and neither waits for a thread of the other."""
    path = tmp_path / "x.bin"
    path.write_bytes(os.urandom(9 * MIB))
    data = path.read_bytes()
    stream = handed_on(File(path)).open()
    assert stream.read(3 * MIB) == data[: 3 * MIB]

    child = os.fork()
    if child == 0:
        os._exit(0 if stream.read(3 * MIB) == data[3 * MIB : 6 * MIB] else 1)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert stream.read() == data[3 * MIB :]


def test_memory_does_not_grow_with_the_size(tmp_path: Path, scratch: Path) -> None:
    """Uploading, downloading, and streaming hold a few pieces of it."""
    path = tmp_path / "x.bin"
    with path.open("wb") as file:
        file.truncate(200 * MIB)
    push(File(tmp_path / "x.bin", media_type="a/b"))  # Whatever is imported only once.
    tracemalloc.start()
    try:
        received = handed_on(File(path))
        os.fspath(received)
        with received.open() as stream:
            while stream.read(MIB):
                pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 60 * MIB


# ------------------------------------------------------------------------------- temporary directory


def in_task(code: str, handle: Path, scratch: Path) -> subprocess.Popen[str]:
    """Run code as Airflow runs a task: in a fork whose exit functions were cleared, ended by ``os._exit``."""
    task = (
        "import atexit, os, pickle, sys, time\n"
        "from pathlib import Path\n"
        "file = pickle.loads(Path(sys.argv[1]).read_bytes())\n"
        "child = os.fork()\n"
        "if child:\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)\n"
        "    sys.exit()\n"
        "atexit._clear()\n"
        f"{code}\n"
        "atexit._run_exitfuncs()\n"
        "os._exit(0)\n"
    )
    environment = {**os.environ, "AIRFLOW__GCS_XCOM__TEMPORARY_DIRECTORY": str(scratch)}
    return subprocess.Popen(
        [sys.executable, "-c", task, handle], env=environment, stdout=subprocess.PIPE, text=True
    )


@pytest.fixture
def handle(csv: Path, tmp_path: Path) -> Path:
    """A pickled handle, for another process."""
    path = tmp_path / "handle.pickle"
    path.write_bytes(pickle.dumps(handed_on(File(csv))))
    return path


@pytest.mark.once
def test_downloads_are_removed_when_the_task_ends(handle: Path, scratch: Path) -> None:
    """Nothing is left in the temporary directory, not even a lock."""
    task = in_task("assert Path(file).exists(); print(file.path)", handle, scratch)
    said, _ = task.communicate()

    assert said.splitlines()[-1] == "0"
    assert said.splitlines()[-2].startswith(str(scratch))
    assert list(scratch.iterdir()) == []


@pytest.mark.once
def test_downloads_of_a_killed_task_are_removed_by_the_next(handle: Path, scratch: Path) -> None:
    """A living task keeps its own; the doctor can name the dead ones."""
    killed = in_task("file.path; os.kill(os.getpid(), 9)", handle, scratch)
    killed.communicate()
    (left,) = [path for path in scratch.iterdir() if path.is_dir()]
    alive = in_task("file.path; print('up', flush=True); time.sleep(60)", handle, scratch)
    try:
        assert alive.stdout is not None
        assert alive.stdout.readline() == "up\n"
        assert not left.exists()
        (its,) = [path for path in scratch.iterdir() if path.is_dir()]
        assert temporary.leftovers() == []
        in_task("file.path", handle, scratch).communicate()
        assert (its.exists(), left.exists()) == (True, False)
    finally:
        (pid,) = [path.name.split("-")[2] for path in scratch.iterdir() if path.is_dir()]
        os.kill(int(pid), signal.SIGKILL)
        alive.communicate()
    assert temporary.leftovers() == [its]
    assert temporary.remove_leftovers() == [its]
    assert list(scratch.iterdir()) == []


@pytest.mark.once
def test_two_tasks_open_one_handle(handle: Path, scratch: Path) -> None:
    """Each has a copy of its own, and removes that alone."""
    first = in_task(
        "print(file.path.read_text()[:7], flush=True); time.sleep(1); file.path.read_text()", handle, scratch
    )
    second = in_task("print(file.path.read_text()[:7], flush=True)", handle, scratch)

    said = [task.communicate()[0].split() for task in (first, second)]

    assert said == [["carrier", "0"], ["carrier", "0"]]
    assert list(scratch.iterdir()) == []


def test_folders_of_others_in_the_temporary_directory_stay(csv: Path, scratch: Path) -> None:
    """Whatever they are called."""
    (scratch / "xcom-task-notes").mkdir(parents=True)
    (scratch / "xcom-task-1-2").mkdir()

    os.fspath(handed_on(File(csv)))

    assert (scratch / "xcom-task-notes").exists()
    assert (scratch / "xcom-task-1-2").exists()


def test_directory_that_cannot_be_used_is_named(
    csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file stands where the directory should be."""
    (tmp_path / "taken").touch()
    configure(monkeypatch, temporary_directory=tmp_path / "taken" / "x")
    file = handed_on(File(csv))

    with pytest.raises(
        TemporarySpaceError, match=r"No temporary directory can be made in .*temporary_directory"
    ):
        os.fspath(file)


def test_long_transfers_tell_how_far_they_are(
    csv: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every ten seconds: bytes, share, and rate; short ones say nothing."""
    from include.xcom.handles import progress

    caplog.set_level("INFO")
    handed_on(File(csv))
    assert "flights.csv:" not in caplog.text
    times = iter(range(0, 1000, 11))
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    transfer = progress.TransferLog("Uploading model.bin", 4 * MIB)
    transfer(MIB)

    assert caplog.messages[-1] == "Uploading model.bin: 1.0 MiB of 4.0 MiB (25%), 93.1 KiB/s"
