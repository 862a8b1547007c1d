"""What the payload viewer says of files, folders, tables, and lists in pieces, and how little it reads."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from include.xcom import File, Items, Table, payloads
from include.xcom.errors import PayloadCorruptError
from include.xcom.reference import Coordinates, PayloadReference
from include.xcom.viewer import blobs, limits, pages
from include.xcom.viewer.describe import describe
from include.xcom.viewer.pipe import PipedFile, Question

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


class Stored(PipedFile):
    """A stored value as the viewer finds it; counts the bytes that are read."""

    def __init__(self, value: Any) -> None:
        row = payloads.store(value, Coordinates("sales", "manual__1", "load", -1, "return_value"))
        reference = PayloadReference.from_row(json.loads(json.dumps(row)))
        assert reference is not None
        self.reference = reference
        self.data = Path(reference.uri.removeprefix("file://")).read_bytes()
        self.bytes_read = 0
        super().__init__(len(self.data), self._give)

    def _give(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        self.bytes_read += sum(stop - start for start, stop in ranges)
        return [self.data[start:stop] for start, stop in ranges]

    def question(self, **asked: Any) -> Question:
        """Return what the page asks."""
        codec, version = self.reference.codec, self.reference.codec_version
        return Question(codec, version, facts=self.reference.facts, **asked)


def described(value: Any, **asked: Any) -> dict[str, Any]:
    """Describe a value that was stored; what a page shows of it must render."""
    stored = Stored(value)
    shown = describe(stored, stored.question(**asked))
    rendered(shown)
    return shown


def rendered(shown: dict[str, Any]) -> str:
    """Render the part of a page that shows a description."""
    values = {"known": {}, "link": lambda **query: "?" + str(query)}
    parts = pages.environment().get_template("parts.html").make_module(values)
    return str(parts.payload(json.loads(json.dumps(shown)), "image"))  # type: ignore[attr-defined]


def file_of(folder: Path, name: str, content: bytes) -> File:
    """Write a file; return its handle."""
    path = folder / name
    path.write_bytes(content)
    return File(path)


# ----------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("name", "content", "kind", "fact"),
    [
        ("notes.txt", b"one\ntwo\n", "blob", ("text", "one\ntwo\n")),
        ("plot.bin", PNG, "blob", ("image", "image/png")),
        ("model.bin", bytes(range(256)), "blob", ("image", None)),
        ("facts.json", b'{"a": 1}', "tree", ("start", 0)),
        ("empty.txt", b"", "blob", ("bytes", 0)),
    ],
    ids=["text", "image", "bytes", "json", "empty"],
)
def test_file_is_shown_by_its_content(
    name: str, content: bytes, kind: str, fact: tuple[str, Any], tmp_path: Path
) -> None:
    """As if the task had returned the bytes."""
    shown = described(file_of(tmp_path, name, content))

    assert shown["kind"] == kind
    assert shown[fact[0]] == fact[1]


def test_file_with_parquet_or_an_array_is_shown_as_that(tmp_path: Path) -> None:
    """Its first bytes tell, whatever its name is."""
    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "rows.bin")
    np.save(tmp_path / "matrix.npy", np.eye(3))

    assert described(File(tmp_path / "rows.bin"))["rows"] == 2
    assert described(File(tmp_path / "matrix.npy"))["shape"] == ["3", "3"]


def test_csv_file_is_shown_as_a_table(tmp_path: Path) -> None:
    """Its first rows, from its beginning alone."""
    lines = "".join(f'{number},"a, b",{number / 4}\n' for number in range(200_000))
    stored = Stored(file_of(tmp_path, "rows.csv", f"number,text,share\n{lines}".encode()))
    shown = describe(stored, stored.question())

    assert shown["records"]["names"] == ["number", "text", "share"]
    assert shown["records"]["numbers"] == [True, False, True]
    assert len(shown["records"]["cells"]) == limits.PAGE_ROWS
    assert shown["records"]["cells"][99] == ["99", "a, b", "24.75"]
    assert stored.bytes_read < 300_000 < stored.size
    assert "a, b</td>" in rendered(shown)


def test_csv_file_of_other_delimiters_and_ragged_rows_is_shown(tmp_path: Path) -> None:
    """A row that lacks columns is filled up, one that has more is cut."""
    shown = described(file_of(tmp_path, "rows.csv", b"a;b\n1\n2;3;4\n"))

    assert shown["records"]["names"] == ["a", "b"]
    assert shown["records"]["cells"] == [["1", ""], ["2", "3"]]


# --------------------------------------------------------------------------------------------- folders


@pytest.fixture
def folder(tmp_path: Path) -> File:
    """A folder of an image, a table, and a file that is too large to be read."""
    root = tmp_path / "report"
    (root / "plots").mkdir(parents=True)
    (root / "plots" / "delays.png").write_bytes(PNG)
    (root / "rows.csv").write_text("a,b\n1,2\n")
    (root / "model.bin").write_bytes(bytes(3_000_000))
    return File(root)


def test_folder_lists_its_files_without_reading_them(folder: File) -> None:
    """One look at the end of the object."""
    stored = Stored(folder)
    shown = describe(stored, stored.question())

    assert shown["kind"] == "folder"
    assert {part["name"]: part["bytes"] for part in shown["parts"]} == {
        "plots/delays.png": 28,
        "rows.csv": 8,
        "model.bin": 3_000_000,
    }
    assert stored.bytes_read < 100_000
    assert "3</b> files" in rendered(shown)


def test_folder_opens_one_of_its_files(folder: File) -> None:
    """As if it were returned alone; the span is where the page for images finds it."""
    shown = described(folder, part="rows.csv")
    image = described(folder, part="plots/delays.png")

    assert shown["records"]["cells"] == [["1", "2"]]
    assert image["image"] == "image/png"
    stored = Stored(folder)
    start, size = image["span"]
    assert blobs.image_type(stored.data[start : start + size]) == "image/png"
    with pytest.raises(PayloadCorruptError, match="no file"):
        described(folder, part="../secret")


def test_zip_file_of_others_is_listed(tmp_path: Path) -> None:
    """Compressed files in it cannot be opened; what only begins like a zip file is bytes."""
    with zipfile.ZipFile(tmp_path / "theirs.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rows.csv", "a,b\n" * 100)
    theirs = File(tmp_path / "theirs.zip")

    assert [part["name"] for part in described(theirs)["parts"]] == ["rows.csv"]
    with pytest.raises(PayloadCorruptError, match="compressed"):
        described(theirs, part="rows.csv")
    assert described(file_of(tmp_path, "no.zip", b"PK\x03\x04 not at all"))["kind"] == "blob"


# ------------------------------------------------------------------------------------- tables and lists


def test_table_is_paged_like_a_frame() -> None:
    """By row groups, of which a page reads few."""
    shown = described(Table(pa.table({"a": range(1000), "b": ["x"] * 1000})), row=500)

    assert (shown["kind"], shown["rows"], shown["row"]) == ("frame", 1000, 500)
    assert shown["cells"][0] == ["500", "x"]


def test_items_are_paged_without_reading_the_others() -> None:
    """Items of a page, by their place in the whole list."""
    stored = Stored(Items([{"number": number, "text": f"{number:05}" * 20} for number in range(50_000)]))
    shown = describe(stored, stored.question(start=30_010))

    assert (shown["count"], shown["start"], shown["page"]) == (50_000, 30_010, 100)
    assert shown["records"]["cells"][0] == ["30010", "30010" * 20]
    assert shown["records"]["cells"][-1][0] == "30109"
    assert stored.bytes_read < stored.size / 4
    text = rendered(shown)
    assert "50,000</b> items" in text
    assert "30,011 to 30,110 of 50,000 items" in text
    last = describe(stored, stored.question(start=49_999))
    assert (last["records"], last["tree"]["n"]) == (None, 1)


def test_items_that_are_large_are_shown_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of frames would be too much to read; the links to other pages know."""
    monkeypatch.setattr(limits, "FIRST_PAINT_BYTES", 300_000)
    items = Items(np.random.default_rng(1).random(10_000) for _ in range(30))
    stored = Stored(items)
    shown = describe(stored, stored.question(start=10))

    assert 0 < shown["page"] < 10
    assert shown["tree"]["n"] == shown["page"]
    assert f"start&#39;: {10 + shown['page']}" in rendered(shown)


def test_items_link_to_their_parts_and_files(tmp_path: Path) -> None:
    """An array in an item is opened by a link; a file in an item is told by its name."""
    report = file_of(tmp_path, "report.txt", b"x")
    items = Items([{"array": np.arange(6), "file": report}, {"array": np.zeros((2, 2)), "file": report}])
    shown = described(items)
    first = dict(shown["tree"]["inner"][0][1]["inner"])

    assert (first["array"]["t"], first["array"]["v"].partition("/")[0]) == ("part", "0")
    assert (first["file"]["tag"], first["file"]["v"]) == ("file", "report.txt")
    assert described(items, part=first["array"]["v"])["shape"] == ["6"]
    for part in ("0/none", "9/0.npy", "x", "-1/0.npy", "²/0.npy"):
        with pytest.raises(PayloadCorruptError, match="no item has a part"):
            described(items, part=part)


def test_items_without_any_are_shown() -> None:
    """An empty list is a list."""
    shown = described(Items([]))

    assert (shown["count"], shown["tree"]["n"]) == (0, 0)


@pytest.mark.parametrize("place", [0, 5, 20, -1, -20])
def test_items_that_are_damaged_are_refused(place: int) -> None:
    """In a piece or in the index."""
    stored = Stored(Items([{"number": number} for number in range(10)]))
    damaged = bytearray(stored.data)
    damaged[place] ^= 0x55
    stored.data = bytes(damaged)

    with pytest.raises(PayloadCorruptError):
        describe(stored, stored.question())


@pytest.mark.parametrize("index_bytes", [None, "9", 0, -1, 10**9])
def test_items_whose_row_lies_about_the_index_are_refused(index_bytes: Any) -> None:
    """The row is somebody's; it is not trusted."""
    stored = Stored(Items([1, 2]))
    with pytest.raises(PayloadCorruptError, match="index"):
        describe(stored, Question("items", facts={"index_bytes": index_bytes}))


def test_handle_of_a_newer_version_is_refused() -> None:
    """A viewer that does not know the format does not guess."""
    stored = Stored(Items([1, 2]))
    with pytest.raises(PayloadCorruptError, match="version 2"):
        describe(stored, Question("items", 2, facts=stored.reference.facts))
