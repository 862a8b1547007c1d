"""What the payload viewer says of payloads of every codec, and of payloads that are not what they claim."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from include.xcom import codecs
from include.xcom.codecs.base import Encoded
from include.xcom.errors import PayloadCorruptError, PayloadError, PayloadTooLargeError
from include.xcom.settings import Settings, is_viewer_enabled
from include.xcom.viewer import blobs, charts, frame_files, limits, pages
from include.xcom.viewer.describe import describe
from include.xcom.viewer.inspector import ViewTimeoutError, inspect
from include.xcom.viewer.pipe import PipedFile, Question, Window
from include.xcom.viewer.sources import InMemory

PROJECT = Path(codecs.__file__).parents[3]
PLUGIN = PROJECT / "plugins" / "payload_viewer.py"


class Counted(PipedFile):
    """A file in memory that counts what is asked of it."""

    def __init__(self, data: bytes) -> None:
        super().__init__(len(data), self._give)
        self._data = data
        self.bytes_read = 0

    def _give(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        self.bytes_read += sum(stop - start for start, stop in ranges)
        return [self._data[start:stop] for start, stop in ranges]


def encoded(value: Any, **settings: Any) -> tuple[str, bytes]:
    """Return a value's codec and payload."""
    made = codecs.encode(value, Settings(bucket="file:///nowhere", threshold_bytes=0, **settings))
    assert isinstance(made, Encoded)
    return made.codec, b"".join(bytes(part) for part in made.parts)


def described(value: Any, **question: Any) -> dict[str, Any]:
    """Describe a value as the viewer would find it in the store."""
    codec, payload = encoded(value)
    return describe(Counted(payload), Question(codec, **question))


def parquet(table: pa.Table, **options: Any) -> bytes:
    """Return a table as a Parquet file of any kind."""
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def frame_of(payload: bytes, **question: Any) -> dict[str, Any]:
    """Describe a payload of a frame."""
    return describe(Counted(payload), Question("arrow-table", **question))


# ---------------------------------------------------------------------------------------------- frames


TABLE = pa.table(
    {
        "number": pa.array([1, 2, 2, None, 5], pa.int64()),
        "price": pa.array([0.5, float("nan"), None, -2.0, 1e300]),
        "text": ["a", "b", "b", "b", None],
        "when": pa.array([datetime(2013, 1, day, tzinfo=timezone.utc) for day in range(1, 6)]),
        "day": [date(2013, 1, 1)] * 5,
        "flag": [True, False, None, True, True],
        "list": [[1], [2, 3], [], None, [4]],
        "raw": [b"\x00\xff", b"", None, b"<b>", b"x" * 100],
    }
)


@pytest.mark.parametrize("frame_format", ["parquet", "arrow"])
def test_frame_tells_schema_rows_and_columns(frame_format: str) -> None:
    """Both file formats give the same description."""
    codec, payload = encoded(TABLE, frame_format=frame_format)
    shown = describe(Counted(payload), Question(codec))

    assert (shown["kind"], shown["rows"], shown["column_count"]) == ("frame", 5, 8)
    assert [column["name"] for column in shown["columns"]] == TABLE.column_names
    number, price, text, when, _, flag, nested, raw = shown["columns"]
    assert (number["nulls"], number["distinct"], number["min"], number["max"]) == (1, 3, "1", "5")
    assert sum(number["histogram"]) == 4
    assert (price["nulls"], sum(price["histogram"])) == (1, 1) or sum(price["histogram"]) == 3
    assert text["top"] == [["b", 3], ["a", 1]]
    assert when["min"].startswith("2013-01-01 00:00:00")
    assert flag["top"] == [["true", 3], ["false", 1]] or flag["top"] == [["True", 3], ["False", 1]]
    assert nested["nulls"] == 1
    assert "histogram" not in nested
    assert raw["min"][1] == "0 bytes"
    assert shown["cells"][3][0] is None
    assert shown["cells"][4][7] == ["78 " * 23 + "78", "100 bytes"]


def test_frame_pages_across_row_groups() -> None:
    """A page may begin in one row group and end in the next."""
    table = pa.table({"place": range(1000)})
    shown = frame_of(parquet(table, row_group_size=130), row=250)

    assert [row[0] for row in shown["cells"]] == [str(place) for place in range(250, 350)]
    assert frame_of(parquet(table), row=10**9)["cells"] == [["999"]]


def test_frame_of_many_rows_reads_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large file only the footer and the first pages of a few row groups are read."""
    monkeypatch.setattr(limits, "FIRST_PAINT_BYTES", limits.MIB)
    random = np.random.default_rng(1)
    table = pa.table({f"c{place}": random.random(400_000) for place in range(4)})
    payload = parquet(table, row_group_size=100_000, data_page_size=64 * 1024, use_dictionary=False)
    file = Counted(payload)
    shown = describe(file, Question("arrow-table"))

    assert len(shown["columns"]) < 4, "columns beyond the budget wait for their page"
    assert shown["sampled"] < 400_000
    assert not shown["columns"][0]["is_whole"]
    assert file.bytes_read < len(payload) / 4


def arrow(table: pa.Table, rows: int) -> bytes:
    """Return a table as an Arrow file of batches of so many rows."""
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows)
    return sink.getvalue()


@pytest.mark.parametrize("frame_format", ["parquet", "arrow"])
def test_frame_is_sampled_all_over_the_file(frame_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page says of how many rows and from where, and what is only a bound; all are read on request."""
    monkeypatch.setattr(limits, "WHOLE_CELLS", 1000)
    monkeypatch.setattr(limits, "SAMPLE_ROWS", 400)
    table = pa.table({"place": range(8000)})
    payload = arrow(table, 1000) if frame_format == "arrow" else parquet(table, row_group_size=1000)
    sampled, whole = frame_of(payload), frame_of(payload, whole=True)
    name = "record batches" if frame_format == "arrow" else "row groups"

    assert (sampled["sampled"], sampled["places"], sampled["can_be_whole"]) == (400, 4, True)
    assert (sampled["columns"][0]["min"], sampled["columns"][0]["max"]) == ("0", "6,099")
    assert f"From 400 of 8,000 rows: the first ones of 4 {name}, spread over the file." in render(sampled)
    assert "≥</span> 6,099" in render(sampled)
    assert "Read all rows" in render(sampled)
    assert (whole["sampled"], whole["columns"][0]["max"]) == (8000, "7,999")
    assert "From all 8,000 rows." in render(whole)
    assert "≥" not in render(whole)


def test_frame_too_large_to_be_read_whole_is_not_offered_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for it all the same gives the sample."""
    monkeypatch.setattr(limits, "WHOLE_CELLS", 1000)
    monkeypatch.setattr(limits, "REQUESTED_BYTES", 1000)
    shown = frame_of(parquet(pa.table({"place": range(80_000)})), whole=True)

    assert shown["sampled"] == limits.SAMPLE_ROWS
    assert not shown["can_be_whole"]
    assert "Read all rows" not in render(shown)


def test_frame_of_very_many_record_batches_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than a number of rows that is wrong."""
    payload = arrow(pa.table({"place": range(40)}), 1)
    monkeypatch.setattr(frame_files, "_BATCHES", 40)
    assert frame_of(payload)["rows"] == 40
    monkeypatch.setattr(frame_files, "_BATCHES", 30)

    with pytest.raises(PayloadTooLargeError, match="40 record batches; the limit is 30"):
        frame_of(payload)


@pytest.mark.parametrize("name", codecs.names())
def test_every_codec_summarizes_what_it_writes(name: str) -> None:
    """From its own bytes, without the package of the value, and as a page."""
    made: dict[str, Any] = {
        "json": lambda: [{"text": "x" * 90, "number": place} for place in range(2000)],
        "tagged-json": lambda: {"when": date(2013, 1, 1), "table": TABLE, "text": "x" * 90_000},
        "bytes": lambda: b"text" * 50,
        "npy": lambda: np.eye(3),
        "arrow-table": lambda: TABLE,
        "pandas-frame": lambda: pytest.importorskip("pandas", reason="pandas is not installed").DataFrame(
            {"number": [1, 2, 2], "text": ["a", None, "b"]}, index=["x", "y", "z"]
        ),
        "polars-frame": lambda: pytest.importorskip("polars", reason="polars is not installed").DataFrame(
            {"number": [1, 2, 2], "text": ["a", None, "b"]}
        ),
    }
    codec, payload = encoded(made[name]())
    shown = inspect(InMemory(payload), Question(codec))

    assert codec == name
    if name in ("pandas-frame", "polars-frame"):
        assert (shown["kind"], shown["rows"]) == ("frame", 3)
        number, text = shown["columns"][:2]
        assert (number["name"], number["min"], number["max"], number["distinct"]) == ("number", "1", "2", 2)
        assert (text["name"], text["nulls"]) == ("text", 1)
        assert [row[0] for row in shown["cells"]] == ["1", "2", "2"]
    assert len(render(shown)) > 200


def test_frame_that_is_one_row_group_is_paged_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deep rows cost what is before them, so a page of them has fewer columns; the note says why."""
    monkeypatch.setattr(limits, "REQUESTED_BYTES", 5 * limits.MIB)
    monkeypatch.setattr(limits, "WHOLE_CELLS", 1000)
    random = np.random.default_rng(1)
    table = pa.table({"place": range(400_000)} | {f"c{place}": random.random(400_000) for place in range(4)})
    payload = parquet(table, use_dictionary=False, data_page_size=64 * 1024)
    file = Counted(payload)
    shown = describe(file, Question("arrow-table", row=399_950))

    assert len(frame_of(payload)["columns"]) == 4
    assert 1 <= len(shown["columns"]) < 3
    assert [row[0] for row in shown["cells"]] == [str(place) for place in range(399_950, 400_000)]
    assert file.bytes_read < 8 * limits.MIB
    assert "More columns would be too much to read" in render(shown)
    assert "column=1" in render(frame_of(payload, row=399_950, column=1)).replace(
        "&#39;column&#39;: ", "column="
    )


def test_frame_of_many_columns_is_paged() -> None:
    """Forty columns at a time; the schema names all."""
    table = pa.table({f"column {place}": [place] for place in range(100)})
    shown = frame_of(parquet(table), column=90)

    assert [column["name"] for column in shown["columns"]] == [f"column {place}" for place in range(90, 100)]
    assert len(shown["schema"]) == 100


def test_frame_without_rows_or_columns_is_described() -> None:
    """Empty frames are no error."""
    assert frame_of(parquet(pa.table({"a": pa.array([], pa.int64())})))["cells"] == []
    assert frame_of(parquet(pa.table({})))["columns"] == []


def test_frame_with_equal_and_dotted_names_is_read_by_position() -> None:
    """Columns are told apart by their place."""
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array([{"b": 3}])], ["a.b", "a.b", "a"])
    shown = frame_of(parquet(table))

    assert shown["cells"] == [["1", "2", "{'b': 3}"]]


def test_frame_cuts_long_cells_and_says_their_length() -> None:
    """The length stands beside what is shown."""
    shown = frame_of(parquet(pa.table({"x" * 500: ["é" * 5000]})))

    assert shown["cells"][0][0] == ["é" * limits.CELL_CHARACTERS, "5,000 characters"]
    assert "(500 characters)" in shown["columns"][0]["name"]


@pytest.mark.parametrize("frame_format", ["parquet", "arrow"])
def test_frame_that_is_broken_is_refused_at_every_place(frame_format: str) -> None:
    """Truncated or altered bytes give an error of ours or some description; nothing else.

    In the process that views have for it: over some of these bytes pyarrow ends its process.
    """
    codec, payload = encoded(TABLE.slice(0, 2).select(["number", "text"]), frame_format=frame_format)
    places = range(len(payload) // 30, len(payload), len(payload) // 12)
    broken = [payload[:place] for place in places]
    broken += [payload[:place] + b"\xff" + payload[place + 1 :] for place in places]

    def refused(data: bytes) -> bool:
        try:
            inspect(InMemory(data), Question(codec))
        except PayloadError:
            return True
        return False

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(refused, broken))

    assert all(answers[: len(places)])
    assert any(answers[len(places) :])


# ---------------------------------------------------------------------------------------------- arrays


def test_array_tells_summary_histogram_and_heat_map() -> None:
    """NaN and infinities are counted and left out of the rest."""
    array = np.arange(12.0).reshape(3, 4)
    array[0, 0], array[0, 1] = np.nan, np.inf
    shown = described(array)

    assert (shown["shape"], shown["dtype"], shown["count"]) == (["3", "4"], "float64", 12)
    assert (shown["missing"], shown["infinite"], shown["min"], shown["max"]) == (1, 1, "2", "11")
    assert sum(shown["histogram"]) == 10
    levels = bytes.fromhex(shown["heat"]["levels"])
    assert levels[:3] == b"\x00\x00\x01"
    assert levels[-1] == 255


def test_array_of_three_dimensions_shows_the_slice_that_is_asked_for() -> None:
    """Out of range is the last one."""
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)

    assert described(array, index=[1])["heat"]["corner"][0][0] == "12"
    assert described(np.asfortranarray(array), index=[9])["heat"]["corner"][0][0] == "12"


def test_array_offers_every_slice() -> None:
    """A form with a number for each axis but the last two, and the way to the slices beside it."""
    shown = described(np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5), index=[1, 2])
    page = render(shown)

    assert shown["heat"]["corner"][0][0] == "100"
    assert page.count('<input type="number" name="index"') == 2
    assert 'min="0" max="1" value="1"' in page
    assert 'min="0" max="2" value="2"' in page
    assert '<input type="hidden" name="key" value="a&lt;b">' in page
    assert page.count('<a role="link" aria-disabled="true">Next</a>') == 2
    assert "&#39;index&#39;: &#39;0,2&#39;" in page
    assert "&#39;index&#39;: &#39;1,1&#39;" in page
    assert "<form" not in render(described(np.eye(3)))


def test_array_says_which_columns_of_a_slice_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A heat map that is thinned out or cut does not look like all of it."""
    assert described(np.eye(160))["heat"]["left_out"] == []
    thinned = described(np.zeros((161, 500)))
    monkeypatch.setattr(limits, "ARRAY_BYTES", limits.MIB)
    cut = described(np.zeros((1000, 2000)))

    assert thinned["heat"]["left_out"] == ["One row of 2 is shown", "One column of 4 is shown"]
    assert cut["heat"]["left_out"][0] == "Only the first 916 of 2,000 columns are read"
    assert "the first 916 of 2,000 columns" in render(cut)


def test_array_that_is_large_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Summary and heat map are made of pieces."""
    monkeypatch.setattr(limits, "ARRAY_BYTES", limits.MIB)
    codec, payload = encoded(np.arange(4_000_000, dtype=np.float64).reshape(2, 2000, 1000))
    file = Counted(payload)
    shown = describe(file, Question(codec, index=[1]))

    assert 0 < shown["sampled"] < shown["count"]
    assert shown["heat"]["corner"][0][0] == "2,000,000"
    assert file.bytes_read < 6 * limits.MIB < len(payload)


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.array(5.0), id="scalar"),
        pytest.param(np.zeros((0, 3)), id="empty"),
        pytest.param(np.array(["<i>", "x" * 900]), id="text"),
        pytest.param(np.array(["2013-01-01", "NaT"], "datetime64[D]"), id="dates"),
        pytest.param(np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]), id="fields"),
        pytest.param(np.array([[1 + 2j, 3]]), id="complex"),
        pytest.param(np.array([[True, False]]), id="bool"),
        pytest.param(np.full((2, 2), np.nan), id="nan"),
        pytest.param(np.full((2, 2), 7), id="constant"),
        pytest.param(np.array([[1e308, -1e308]]), id="extremes"),
    ],
)
def test_array_of_any_dtype_has_a_page(array: np.ndarray[Any, Any]) -> None:
    """A description is JSON, and the page can be made of it."""
    shown = json.loads(json.dumps(described(array)))

    assert "<i>" not in render(shown)


def test_array_of_objects_is_not_opened() -> None:
    """No pickle, whatever the header says."""
    sink = io.BytesIO()
    np.save(sink, np.array([{"a": 1}], dtype=object), allow_pickle=True)

    with pytest.raises(PayloadCorruptError, match="arrays of Python objects are not opened"):
        describe(Counted(sink.getvalue()), Question("npy"))


def test_array_whose_header_lies_is_refused() -> None:
    """Sizes are compared before anything is allocated."""
    _, payload = encoded(np.zeros(8))
    lie = payload.replace(b"(8,)", b"(9,)")

    with pytest.raises(PayloadCorruptError, match="do not fill shape"):
        describe(Counted(lie), Question("npy"))


# ----------------------------------------------------------------------------------- trees and bundles


def test_tree_cuts_long_lists_and_strings_and_says_so() -> None:
    """Lengths are told for whatever is not shown."""
    shown = described({"list": list(range(5000)), "text": "x" * 9000})
    first, second = (node for _, node in shown["tree"]["inner"])

    assert (len(first["inner"]), first["cut"]) == (limits.TREE_ITEMS, 5000 - limits.TREE_ITEMS)
    assert (len(second["v"]), second["length"]) == (limits.TEXT_CHARACTERS, 9000)


def test_tree_of_records_is_a_table() -> None:
    """A list of flat dicts is shown as rows, and paged."""
    shown = described([{"id": place, "name": f"n{place}"} for place in range(500)], start=200)

    assert shown["records"]["names"] == ["id", "name"]
    assert shown["records"]["cells"][0] == ["200", "n200"]
    assert shown["count"] == 500


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        pytest.param("й" * 2500, 10, id="cyrillic"),
        pytest.param("\u0001" * 2500, 10, id="control"),
        pytest.param("\ud800" * 2500, 10, id="surrogates"),
        pytest.param("\U0001f600" * 2500, 26, id="emoji"),
    ],
)
def test_tree_of_long_texts_is_shown(text: str, columns: int) -> None:
    """However many bytes a letter takes on its way to the page; what is cut is said."""
    record = {f"{text[:90]}{place}": text for place in range(columns)}
    records = json.dumps([record] * 100, ensure_ascii=False).encode(errors="surrogatepass")
    shown = inspect(InMemory(records), Question("json"))

    assert len(shown["records"]["cells"]) == 100
    assert shown["records"]["cells"][99][9][1] == "2,500 characters"
    assert shown["tree"]["cut"] > 0
    assert "more not shown" in render(shown)


def test_tree_does_not_build_what_tags_name() -> None:
    """Tags of the codec stay text: no class is imported or made."""
    text = json.dumps({"$object": ["os.system", {"command": "false"}], "when": {"$date": "2013-01-01"}})
    shown = describe(Counted(text.encode()), Question("tagged-json"))

    assert shown["tree"]["inner"][0][0] == "$object"
    assert shown["tree"]["inner"][1][1] == {"t": "str", "v": "2013-01-01", "tag": "date"}


def test_tree_that_is_deep_or_wide_stays_small() -> None:
    """A description has a bounded number of nodes."""
    deep: Any = "end"
    for _ in range(150):
        deep = [deep]
    shown = described({"deep": deep, "wide": [[{"a": 1}] * 90] * 90})

    assert len(json.dumps(shown)) < 400_000
    assert "nested too deep" in render(shown)


def test_tree_that_expands_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit holds for expanded text, before it is expanded."""
    monkeypatch.setattr(limits, "JSON_BYTES", 10_000)

    with pytest.raises(PayloadTooLargeError, match="expands to"):
        described("x" * 20_000)


def test_bundle_lists_its_parts_and_opens_one() -> None:
    """The skeleton first; each part by its own format."""
    value = {"array": np.eye(3), "table": TABLE.select(["number"]), "note": (1, 2)}
    skeleton = described(value)
    array = described(value, part="0.npy")

    assert [part["name"] for part in skeleton["parts"]] == ["value.json", "0.npy", "1.parquet"]
    assert skeleton["tree"]["inner"][0][1] == {"t": "part", "v": "0.npy", "tag": "numpy.ndarray"}
    assert (array["kind"], array["shape"]) == ("array", ["3", "3"])
    assert described(value, part="1.parquet")["rows"] == 5
    with pytest.raises(PayloadCorruptError, match="no part has this name"):
        described(value, part="../../etc/passwd")


def test_bundle_with_compressed_members_is_refused() -> None:
    """A zip file of zeros does not expand here."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("value.json", b"0" * 10_000_000)

    with pytest.raises(PayloadCorruptError, match="cut or compressed"):
        describe(Counted(sink.getvalue()), Question("tagged-json"))


# ----------------------------------------------------------------------------------------------- bytes


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        pytest.param(b"\x89PNG\r\n\x1a\n", "image/png", id="png"),
        pytest.param(b"\xff\xd8\xff\xe0", "image/jpeg", id="jpeg"),
        pytest.param(b"GIF89a", "image/gif", id="gif"),
        pytest.param(b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp", id="webp"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'>", None, id="svg"),
        pytest.param(b"<!doctype html>", None, id="html"),
        pytest.param(b"", None, id="empty"),
    ],
)
def test_picture_is_told_by_its_first_bytes(head: bytes, kind: str | None) -> None:
    """Documents that can hold scripts are no pictures."""
    assert blobs.image_type(head) == kind


def test_bytes_are_text_or_hexadecimal() -> None:
    """SVG is shown as text."""
    svg = b"<svg onload='alert(1)'></svg>"
    shown = described(svg)

    assert shown["text"] == svg.decode()
    assert "<svg onload" not in render(shown)
    assert described(bytes(range(256)) * 40)["hex"][1] == [
        "00000010", "10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f", "·" * 16,
    ]  # fmt: skip
    assert len(described(b"\x00" * 9000)["hex"]) == limits.HEX_BYTES // 16


# ------------------------------------------------------------------------------- pages and the process


def render(shown: dict[str, Any]) -> str:
    """Make the part of a page that shows a payload."""
    environment = pages.environment()
    template = environment.from_string(
        '[% import "parts.html" as parts with context %][[ parts.payload(shown, "") ]]'
    )

    def link(**query: Any) -> str:
        return f"?{query}"

    return template.render(shown=shown, link=link, known={"key": "a<b", "part": ""})


HOSTILE = [
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "javascript:alert(1)",
    "{" + "{7*191}" + "}",
    "[[ 7*191 ]][% raw %]",
    "</textarea></style></svg>",
    "\u202e\u0000\ud800",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_page_escapes_names_and_values(text: str) -> None:
    """No text of a payload becomes markup or is evaluated."""
    clean = text.replace("\ud800", "")
    for value in (
        pa.table({clean: [clean]}),
        {clean: [clean, {"a": clean}]},
        [{clean: clean}, {clean: clean}],
        np.array([clean.replace("\0", "")]),
        clean.encode(),
    ):
        page = render(described(value))

        assert "<script>" not in page
        assert "<img src=x" not in page
        assert "</style>" not in page
        assert "1337" not in page


def test_histogram_is_told_in_words() -> None:
    """Whoever does not see it hears from where to where it goes, and where most of it lies."""
    page = render(frame_of(parquet(pa.table({"x": [1, 5, 5, 5, 25], "y": ["<a>"] * 5}))))

    assert 'aria-label="Histogram of 24 bins from 1 to 25; the fullest is bin 5 with 3 values"' in page
    assert 'aria-label="Histogram of 24 bins from &lt; to 2…; the' in str(
        charts.histogram([0] * 23 + [1], "<", ["2", "2,000 characters"])
    )
    assert 'aria-label="Histogram of 1 bins from 3 to 3"' in render(described(np.full(4, 3)))


CSS = Path(pages.__file__).parent / "templates" / "viewer.css"
TEXTS = ("text", "quiet", "brand", "link", "string", "scalar")
BEHIND = ("page", "raised", "opened")


def _luminance(colour: str) -> float:
    """Return the relative luminance of a colour as CSS writes it (WCAG 2.2; CSS Color 4 for OKLCH)."""
    if colour.startswith("#"):
        digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
        parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
    else:
        lightness, chroma, hue = map(float, colour.removeprefix("oklch(").rstrip(")").split())
        a, b = chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))
        long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
        medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
        short = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3
        red = 4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short
        green = -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short
        blue = -0.0041960863 * long - 0.7034186147 * medium + 1.707614701 * short
        red, green, blue = (min(max(part, 0.0), 1.0) for part in (red, green, blue))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    bright, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_told_apart(scheme: str) -> None:
    """Texts from what is behind them by 4.5 to 1, and lines of charts by 3 to 1 (WCAG 2.2, AA)."""
    pairs = re.findall(
        r"--([a-z-]+): light-dark\((oklch\([^)]*\)|#\w+), (oklch\([^)]*\)|#\w+)\);", CSS.read_text()
    )
    colours = {name: dark if scheme == "dark" else light for name, light, dark in pairs}
    wanted = {(text, behind): 4.5 for text in TEXTS for behind in BEHIND}
    wanted |= {
        ("bad", "bad-page"): 4.5,
        ("text", "bad-page"): 4.5,
        ("mark", "page"): 3,
        ("quiet", "page"): 4.5,
    }
    found = {pair: _contrast(*(colours[name] for name in pair)) for pair in wanted}

    assert abs(_contrast("#fff", "#000") - 21) < 0.01
    assert abs(_contrast("oklch(1 0 0)", "#777") - 4.48) < 0.01
    assert {pair: ratio for pair, ratio in found.items() if ratio < wanted[pair]} == {}


def test_heat_map_is_a_picture_of_its_cells() -> None:
    """The picture is a PNG whose size is the slice's."""
    page = str(charts.heat({"rows": 2, "columns": 3, "levels": "0001ff0001ff"}))
    data = page.partition("base64,")[2].partition('"')[0]
    picture = base64.b64decode(data)
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", picture[16:24]) == (3, 2)


def test_process_of_its_own_describes_a_payload() -> None:
    """What is asked through the pipe arrives."""
    codec, payload = encoded(TABLE)

    assert inspect(InMemory(payload), Question(codec))["rows"] == 5


def test_process_that_needs_too_much_memory_is_an_error() -> None:
    """A payload that expands without end ends its own process only."""
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 1500, pa.int32()), ["y" * 2_000_000])
    payload = parquet(
        pa.table({"x": repeated}).cast(pa.schema({"x": pa.dictionary(pa.int32(), pa.string())}))
    )

    assert len(payload) < 100_000
    with pytest.raises(PayloadError, match="memory"):
        inspect(InMemory(payload), Question("arrow-table"))


def test_process_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page says so; the process is gone."""

    class Slow(InMemory):
        def read(self, start: int, stop: int, seconds: float = 0) -> bytes:
            time.sleep(1.5)
            return super().read(start, stop)

    monkeypatch.setattr(limits, "VIEW_SECONDS", 1.0)
    codec, payload = encoded(TABLE)

    with pytest.raises(ViewTimeoutError, match="more than 1 s"):
        inspect(Slow(payload), Question(codec))


def test_window_is_a_file_of_its_own() -> None:
    """A part of a bundle cannot read beyond its end."""
    window = Window(Counted(b"0123456789"), 3, 4)

    assert window.read() == b"3456"
    assert window.range(2, 99) == b"56"


LOAD_PLUGIN = """
import importlib.util, sys, time
import airflow.plugins_manager

before = set(sys.modules)
start = time.process_time()
spec = importlib.util.spec_from_file_location("payload_viewer", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
spent = time.process_time() - start
plugin = module.PayloadViewerPlugin
tabs = [view["destination"] for view in plugin.external_views]
print(spent, len(plugin.fastapi_apps), ",".join(tabs) or "-", *sorted(set(sys.modules) - before))
assert module.has_tabs("3.1.0") and not module.has_tabs("3.0.6")
"""
HAS_TABS = tuple(int(part) for part in version("apache-airflow-core").split(".")[:2]) >= (3, 1)


def load_plugin(**settings: str) -> subprocess.CompletedProcess[str]:
    """Load the plugin in a process of its own, as a component of Airflow does."""
    return subprocess.run(
        [sys.executable, "-c", LOAD_PLUGIN, str(PLUGIN)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {f"AIRFLOW__GCS_XCOM__{name}": value for name, value in settings.items()},
    )


def test_importing_the_plugin_imports_nothing_heavy() -> None:
    """Every component of Airflow loads it."""
    done = load_plugin()
    spent, apps, tabs, *names = done.stdout.splitlines()[-1].split()

    assert (apps, tabs) == (("1", "task_instance,dag_run,task") if HAS_TABS else ("0", "-"))
    assert float(spent) < 0.05
    assert not {"pandas", "pyarrow", "numpy", "fastapi", "include.xcom.viewer"} & set(names)


@pytest.mark.once
def test_setting_switches_the_pages_off() -> None:
    """No tab and no application, without a new bake, and in components that know no bucket."""
    assert load_plugin(VIEWER="false", BUCKET="").stdout.splitlines()[-1].split()[1:3] == ["0", "-"]


@pytest.mark.parametrize(
    ("value", "expected"), [("false", False), ("Off", False), ("0", False), ("TRUE", True), ("", True)]
)
def test_setting_takes_the_words_of_a_boolean(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: bool
) -> None:
    """In any case; without a word the pages are on."""
    monkeypatch.setenv("AIRFLOW__GCS_XCOM__VIEWER", value)

    assert is_viewer_enabled() is expected


@pytest.mark.once
@pytest.mark.skipif(not HAS_TABS, reason="Airflow before 3.1 has no tabs: the viewer stays off there")
def test_setting_that_is_neither_true_nor_false_is_refused() -> None:
    """The pages stay off, and the error names the setting, its value and what is allowed."""
    done = load_plugin(VIEWER="maybe")

    assert done.returncode != 0
    assert "SettingsError" in done.stderr
    assert "[gcs_xcom] viewer is 'maybe'" in done.stderr
    assert "allowed are true and false" in done.stderr
