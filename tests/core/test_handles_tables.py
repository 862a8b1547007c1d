"""``Table``: a table of any size, of which a reader fetches columns and row groups."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from include.xcom import Table, payloads, settings
from include.xcom.codecs.frames.arrow_tables import ArrowCodec
from include.xcom.errors import (
    PayloadCorruptError,
    PayloadMissingError,
    PayloadTooLargeError,
    UnsupportedTypeError,
)
from include.xcom.handles import parquet
from include.xcom.handles.base import index_facts
from include.xcom.reference import Coordinates, PayloadReference
from include.xcom.stores import DirectoryStore, Stored

pl = pytest.importorskip("polars", reason="Table.scan and LazyFrames need polars: uv pip install polars")

HERE = Coordinates("sales", "manual__1", "load", -1, "return_value")
needs_batches = pytest.mark.skipif(
    not hasattr(pl.LazyFrame, "collect_batches"), reason="LazyFrames are streamed by polars 1.34 and newer"
)


def push(value: Any) -> Any:
    """Return the row of a value, as the database keeps it."""
    return json.loads(json.dumps(payloads.store(value, HERE)))


def handed_on(value: Any) -> Any:
    """Return what the next task gets."""
    return payloads.load(push(value))


def objects(folder: Path) -> list[Path]:
    """Return all stored objects."""
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of the ranges that are read of any object."""
    lengths: list[int] = []
    read = DirectoryStore.read

    def counting(self: DirectoryStore, stored: Stored, start: int, stop: int, **options: Any) -> memoryview:
        lengths.append(stop - start)
        return read(self, stored, start, stop, **options)

    monkeypatch.setattr(DirectoryStore, "read", counting)
    return lengths


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few thousand rows make several row groups."""
    monkeypatch.setattr(parquet, "_GROUP_BYTES", 32 * 1024)


ROWS = 10_000
ARROW = pa.table(
    {
        "id": pa.array(range(ROWS)),
        "carrier": pa.array(["UA", "AA", "DL", None] * (ROWS // 4)),
        "delay": pa.array([float(n % 97) for n in range(ROWS)]),
    }
)


def parts() -> Iterator[pa.RecordBatch]:
    """Yield the table in batches."""
    yield from ARROW.to_batches(max_chunksize=999)


def relation() -> Any:
    """Return the table as DuckDB has it."""
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is optional: uv pip install duckdb")
    return duckdb.from_arrow(ARROW)


SOURCES = {
    "arrow-table": lambda folder: ARROW,
    "record-batch": lambda folder: ARROW.combine_chunks().to_batches()[0],
    "reader": lambda folder: pa.RecordBatchReader.from_batches(ARROW.schema, parts()),
    "iterator": lambda folder: parts(),
    "list-of-pandas": lambda folder: [ARROW.to_pandas(), ARROW.slice(0, 0).to_pandas()],
    "pandas": lambda folder: ARROW.to_pandas(),
    "polars": lambda folder: pl.from_arrow(ARROW),
    "duckdb": lambda folder: relation(),
    "dataset": lambda folder: ds.dataset(folder / "a.parquet"),
    "path": lambda folder: folder / "a.parquet",
    "text": lambda folder: str(folder / "a.parquet"),
    "folder": lambda folder: folder,
    "lazy": lambda folder: pl.from_arrow(ARROW).lazy(),
}


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(make, id=name, marks=needs_batches if name == "lazy" else ())
        for name, make in SOURCES.items()
    ],
)
def test_table_of_any_source_has_its_rows(source: Any, tmp_path: Path) -> None:
    """In order, with their types, whichever way they are read."""
    folder = tmp_path / "in"
    folder.mkdir()
    pq.write_table(ARROW, folder / "a.parquet")

    table = handed_on(Table(source(folder)))

    expected = ARROW.to_pydict()
    assert type(table) is Table
    assert (table.num_rows, table.columns) == (ROWS, ["id", "carrier", "delay"])
    assert table.schema.field("id").type == pa.int64()
    assert table.schema.field("delay").type == pa.float64()
    assert table.to_arrow().to_pydict() == expected
    assert pa.Table.from_batches(table.batches()).to_pydict() == expected
    assert table.to_pandas()["delay"].tolist() == expected["delay"]
    assert table.to_polars()["carrier"].to_list() == expected["carrier"]


def test_object_is_parquet_that_anything_reads(payload_folder: Path) -> None:
    """The row tells what people want to know of it."""
    row = push(Table(ARROW))

    reference = PayloadReference.from_row(row)
    assert reference is not None
    assert (reference.type, reference.codec) == ("Table", "table")
    assert reference.summary["rows"] == ROWS
    assert reference.summary["columns"] == 3
    assert reference.summary["schema"] == ArrowCodec().encode(ARROW).summary["schema"]
    (path,) = objects(payload_folder)
    assert path.suffix == ".parquet"
    assert pl.read_parquet(path)["id"].to_list() == list(range(ROWS))


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize(
    "filters",
    [
        pytest.param([("id", ">=", 9_000), ("carrier", "=", "UA")], id="tuples"),
        pytest.param((pc.field("id") >= 9_000) & (pc.field("carrier") == "UA"), id="expression"),
    ],
)
def test_columns_and_filters_are_pushed_down(filters: Any, reads: list[int]) -> None:
    """Row groups that cannot have such rows are not read; filters need not be among the columns."""
    noise = np.random.default_rng(5).random(ROWS * 4)
    columns = {f"noise{number}": noise[number * ROWS :][:ROWS] for number in range(4)}
    table = handed_on(Table(pa.table({**ARROW.to_pydict(), **columns})))
    expected = [float(n % 97) for n in range(9_000, ROWS, 4)]

    assert table.to_arrow(columns=["delay"], filters=filters).to_pydict() == {"delay": expected}
    assert sum(reads) < table.size / 2
    streamed = pa.Table.from_batches(table.batches(columns=["delay"], filters=filters))
    assert streamed.to_pydict() == {"delay": expected}
    scanned = table.scan().filter(pl.col("id") >= 9_000, pl.col("carrier") == "UA").select("delay").collect()
    assert scanned["delay"].to_list() == expected


@pytest.mark.parametrize("filters", ["id > 2", ("id", ">", 2), [("id", "~", 2)]], ids=str)
def test_filters_of_another_form_are_refused_with_the_form_that_is_allowed(filters: Any) -> None:
    """What pyarrow says of them is about itself."""
    table = handed_on(Table(ARROW))

    with pytest.raises(ValueError, match=r'allowed are a list such as \[\("month", "=", 1\)\]'):
        table.to_arrow(filters=filters)


@pytest.mark.usefixtures("small_groups")
def test_other_libraries_query_it(tmp_path: Path) -> None:
    """As a dataset, into which they push down, and as a stream of Arrow data."""
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is optional: uv pip install duckdb")
    handle = handed_on(Table(ARROW))
    flights = handle.dataset()

    query = "select count(*), sum(delay) from {} where carrier = 'UA'"
    expected = [(2500, float(sum(n % 97 for n in range(0, ROWS, 4))))]
    assert duckdb.sql(query.format("flights")).fetchall() == expected
    assert duckdb.sql(query.format("handle")).fetchall() == expected
    assert pa.table(handle).num_rows == pl.DataFrame(handle).height == ROWS
    assert flights.count_rows() == ROWS
    assert flights.count_rows(filter=pc.field("id") < 10) == 10
    assert handle.scan().select(pl.len()).collect().item() == ROWS


def test_two_of_nineteen_columns_are_a_tenth_of_the_bytes(reads: list[int]) -> None:
    """One request for the footer, one for each column and row group."""
    numbers = np.random.default_rng(5)
    wide = pa.table({f"c{n:02}": numbers.random(200_000) for n in range(19)})
    table = handed_on(Table(wide))
    reads.clear()

    found = table.to_pandas(columns=["c03", "c11"])

    assert found["c11"].equals(pd.Series(wide["c11"].to_numpy(), name="c11"))
    assert len(reads) <= 3
    assert sum(reads) <= 0.15 * table.size


def test_received_table_knows_itself_without_a_request(reads: list[int]) -> None:
    """The schema is one small request, once."""
    table = handed_on(Table(ARROW))

    assert table.num_rows == ROWS
    assert repr(table) == str(table)
    assert repr(table).startswith("Table(10000 rows x 3 columns, ")
    assert copy.deepcopy(table) == pickle.loads(pickle.dumps(table)) == table
    assert not callable(table)
    assert not isinstance(table, (list, tuple))
    assert not hasattr(table, "serialize")
    assert reads == []
    assert table.columns == table.schema.names == ["id", "carrier", "delay"]
    assert len(reads) == 1


def test_pandas_index_and_types_come_back() -> None:
    """As far as Arrow holds them."""
    frame = pd.DataFrame(
        {"n": [1, 2], "kind": pd.Categorical(["a", "b"])}, index=pd.Index(["x", "y"], name="key")
    )

    pd.testing.assert_frame_equal(handed_on(Table(frame)).to_pandas(), frame)


def test_empty_table_keeps_its_columns() -> None:
    """However it is read."""
    table = handed_on(Table(ARROW.slice(0, 0)))

    assert (table.num_rows, table.columns) == (0, ["id", "carrier", "delay"])
    assert table.to_pandas().shape == (0, 3)
    assert table.to_arrow(filters=[("id", ">", 1)]).schema.names == table.columns
    assert list(table.batches()) == []
    assert table.scan().collect().shape == (0, 3)


def test_table_that_is_not_stored_yet_reads_like_a_received_one() -> None:
    """A test may call one task's function with what another's returned; a reader is read once for both."""
    table = Table(parts())

    assert (table.num_rows, table.size) == (ROWS, None)
    assert table.to_arrow(columns=["id"]).num_rows == ROWS
    assert handed_on(table).to_arrow().to_pydict() == ARROW.to_pydict()


def test_iterator_is_stored_under_two_keys(payload_folder: Path) -> None:
    """As multiple_outputs does; the second is a copy in the store."""
    table = Table(parts())

    first, second = push(table), push({"t": table})

    payloads.purge(first)
    assert payloads.load(second)["t"].to_arrow().num_rows == ROWS


def test_table_that_is_returned_again_is_copied_in_the_store(reads: list[int]) -> None:
    """No byte comes through the worker."""
    first = push(Table(ARROW))

    first["__data__"]["seconds"] = 1234.5
    second = push(payloads.load(first))
    again = payloads.load(second)

    assert reads == []
    assert second["__data__"]["schema"] == first["__data__"]["schema"]
    assert second["__data__"]["seconds"] < 100  # Of the copy.
    payloads.purge(first)
    assert again.to_arrow().num_rows == ROWS


@pytest.mark.usefixtures("small_groups")
def test_row_groups_are_bounded_whatever_the_source_yields(payload_folder: Path) -> None:
    """Small parts are joined and large ones split; a row that is larger than a group is one."""
    push(Table(iter([*ARROW.to_batches(max_chunksize=10), *ARROW.to_batches()])))
    push(Table([pa.table({"blob": [bytes(100_000), b"", bytes(100_000)]})]))

    many, few = sorted(map(pq.read_metadata, objects(payload_folder)), key=lambda facts: -facts.num_rows)
    sizes = [many.row_group(n).num_rows for n in range(many.num_row_groups)]
    assert sum(sizes) == 2 * ROWS
    assert min(sizes[:-1]) > max(sizes) / 2
    assert few.num_row_groups == 3


# ------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("source", "error"),
    [
        pytest.param(5, TypeError, id="number"),
        pytest.param({"a": [1]}, TypeError, id="dict"),
        pytest.param("nope.parquet", FileNotFoundError, id="missing-path"),
    ],
)
def test_what_is_no_table_is_refused_at_the_door(source: Any, error: type[Exception]) -> None:
    """The traceback shows the line that names it."""
    with pytest.raises(error, match="Table"):
        Table(source)


REFUSED = {
    "no-frames": (lambda folder: [1, 2], "the iterator has a builtins.int"),
    "nothing": (lambda folder: iter(()), "give Table a schema"),
    "other-columns": (
        lambda folder: [pa.table({"a": [1]}), pa.table({"b": [1]})],
        "part 1 of the table has other columns than the first",
    ),
    "other-type": (
        lambda folder: [pa.table({"a": [1]}), pa.table({"a": ["x"]})],
        "part 1 of the table .* schema_overrides",
    ),
    "csv": (lambda folder: folder / "a.csv", r"a\.csv is no Parquet file.*scan_csv"),
    "union": (
        lambda folder: pa.table({"u": pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])}),
        "Parquet cannot hold a column",
    ),
    "two-of-a-name": (lambda folder: pa.table([[1], [2]], names=["a", "a"]), "two columns .* one name"),
    "two-of-a-name-in-pandas": (
        lambda folder: pd.DataFrame([[1, 2]], columns=["a", "a"]),
        "Table: two columns .* one name",
    ),
    "mixed-column": (
        lambda folder: pd.DataFrame({"a": [1, 2], "b": [1, "x"]}),
        r"column 'b' of the DataFrame has no Arrow type: .*astype",
    ),
}


@pytest.mark.parametrize(("source", "message"), REFUSED.values(), ids=REFUSED)
def test_source_that_cannot_be_stored_is_refused(
    source: Any, message: str, tmp_path: Path, payload_folder: Path
) -> None:
    """With what to do about it, and nothing is left."""
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")

    with pytest.raises(UnsupportedTypeError, match=message):
        push(Table(source(tmp_path)))
    assert objects(payload_folder) == []


def test_schema_gives_the_types_that_the_first_frame_lacks() -> None:
    """Parts are cast where that loses nothing."""
    frames = [pa.table({"a": pa.nulls(2)}), pa.table({"a": ["x"]})]
    schema = pa.schema([("a", pa.string())])

    assert handed_on(Table(frames, schema=schema)).to_arrow().to_pydict() == {"a": [None, None, "x"]}
    assert handed_on(Table(iter(()), schema=schema)).columns == ["a"]


def test_error_of_the_iterator_is_raised_as_it_is(payload_folder: Path) -> None:
    """It is the task's own, also inside a value; nothing is left."""

    def failing() -> Iterator[pa.RecordBatch]:
        yield from parts()
        raise ZeroDivisionError("in the task")

    for value in (Table(failing()), {"table": Table(failing())}):
        with pytest.raises(ZeroDivisionError, match="in the task"):
            push(value)
    assert objects(payload_folder) == []


def test_unknown_column_is_refused_with_those_there_are() -> None:
    """Before anything is read."""
    table = handed_on(Table(ARROW))

    for read in (table.to_arrow, lambda **names: list(table.batches(**names))):
        with pytest.raises(KeyError, match=r"has no columns .*'dely'.*it has id, carrier, delay"):
            read(columns=["dely"])
    with pytest.raises(TypeError, match=r"takes a list of names, for example \['delay'\]"):
        table.to_arrow(columns="delay")


@pytest.mark.parametrize("filters", [None, [("id", ">=", 0)]], ids=["whole", "filtered"])
def test_load_over_the_limit_is_refused_and_parts_of_it_are_not(
    filters: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says what has no limit."""
    table = handed_on(Table(ARROW))
    monkeypatch.setenv("AIRFLOW__GCS_XCOM__MAX_PAYLOAD_BYTES", "100000")
    settings.load_settings.cache_clear()

    with pytest.raises(PayloadTooLargeError, match=r"max_payload_bytes.*columns=.*filters=.*batches\(\)"):
        table.to_pandas(filters=filters)
    assert table.to_arrow(columns=["carrier"]).num_rows == ROWS
    assert sum(batch.num_rows for batch in table.batches(filters=filters)) == ROWS


def test_table_over_the_limit_for_files_is_not_stored(
    payload_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is only known while it is written."""
    monkeypatch.setenv("AIRFLOW__GCS_XCOM__MAX_FILE_BYTES", "1000")
    settings.load_settings.cache_clear()

    with pytest.raises(PayloadTooLargeError, match="max_file_bytes"):
        push(Table(ARROW))
    assert objects(payload_folder) == []


# -------------------------------------------------------------------------------------------- faults


@pytest.mark.usefixtures("small_groups")
def test_flipped_bit_is_noticed_wherever_columns_are_read(payload_folder: Path) -> None:
    """Pages have checksums, and the row has the footer's."""
    table = handed_on(Table(ARROW.select(["delay"])))
    (path,) = objects(payload_folder)
    original = path.read_bytes()
    step = len(original) // 40

    noticed = unchanged = 0
    for place in range(4, len(original), step):
        data = bytearray(original)
        data[place] ^= 0x10
        path.write_bytes(data)
        fresh = pickle.loads(pickle.dumps(table))
        try:
            found = fresh.to_arrow(columns=["delay"])
        except PayloadCorruptError:
            noticed += 1
        else:
            assert found.to_pydict() == ARROW.select(["delay"]).to_pydict()
            unchanged += 1
    assert noticed > 30


def forge(row: Any, data: bytes, **facts: int) -> Any:
    """Replace the object of a table, and let the row vouch for it."""
    uri = row["__data__"]["uri"]
    Path(uri.removeprefix("file://")).write_bytes(data)
    found = DirectoryStore(settings.load_settings().bucket).describe(uri)
    row["__data__"] |= {"bytes": found.size, "crc32c": found.crc32c, **index_facts(data[-200:]), **facts}
    return row


@pytest.mark.parametrize("kind", ["length", "rows", "offsets", "magic", "empty"])
def test_footer_that_lies_is_an_error_and_no_crash(kind: str, payload_folder: Path) -> None:
    """Even if the row vouches for it."""
    row = push(Table(ARROW))
    (path,) = objects(payload_folder)
    data = bytearray(path.read_bytes())
    facts = {}
    if kind == "length":
        data[-8:-4] = (2**31 - 1).to_bytes(4, "little")
    elif kind == "rows":
        facts = {"rows": ROWS + 1}
    elif kind == "offsets":
        data = data[: len(data) // 8] + data[-(int.from_bytes(data[-8:-4], "little") + 8) :]
    elif kind == "magic":
        data[-4:] = b"XXXX"
    else:
        data = bytearray()

    table = payloads.load(forge(row, bytes(data), **facts))

    for read in (table.to_arrow, lambda: list(table.batches())):
        with pytest.raises(PayloadCorruptError, match=r"not what was written.*sales\.load"):
            read()


def test_table_whose_object_was_purged_says_so() -> None:
    """Its length is still known."""
    row = push(Table(ARROW))
    table = payloads.load(row)
    payloads.purge(row)

    assert table.num_rows == ROWS
    for read in (table.to_arrow, lambda: list(table.batches()), table.scan, lambda: table.columns):
        with pytest.raises(PayloadMissingError, match="is gone"):
            read()


@pytest.mark.once
def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    """Neither of a process that writes 300 MB, nor of one that streams them, all or some."""
    import subprocess
    import sys

    code = (
        "import os, sys, threading, time\n"
        "import numpy as np, pyarrow as pa, pyarrow.dataset, pyarrow.parquet\n"
        "from include.xcom import Table, payloads\n"
        "from include.xcom.reference import Coordinates\n"
        "def used():\n"
        "    with open('/proc/self/status') as file:\n"
        "        return next(int(line.split()[1]) for line in file if line.startswith('RssAnon')) // 1024\n"
        "def batches(count):\n"
        "    numbers = np.random.default_rng(1)\n"
        "    for _ in range(count):\n"
        "        yield pa.record_batch({f'c{n}': numbers.random(50_000) for n in range(15)})\n"
        "def write(count):\n"
        "    return payloads.store(Table(batches(count)), Coordinates('d', 'r', 't', -1, 'k'))\n"
        "def read(row, **options):\n"
        "    return sum(batch.num_rows for batch in payloads.load(row).batches(**options))\n"
        "read(write(1))\n"
        "read(write(1), filters=[('c0', '>=', 0)])\n"
        "before = peak = used()\n"
        "def watch():\n"
        "    global peak\n"
        "    while True:\n"
        "        peak = max(peak, used())\n"
        "        time.sleep(0.005)\n"
        "threading.Thread(target=watch, daemon=True).start()\n"
        "row = write(50)\n"
        "written, before = peak - before, used()\n"
        "peak = before\n"
        "assert read(row) == 2_500_000\n"
        "streamed, before = peak - before, used()\n"
        "peak = before\n"
        "assert read(row, filters=[('c0', '>=', 0)]) == 2_500_000\n"
        "print(written, streamed, peak - before, flush=True)\n"
        "os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    written, streamed, filtered = map(int, done.stdout.splitlines()[-1].split())
    assert written < 160
    assert streamed < 160
    # pyarrow's scanner reads ahead by itself, further where a machine is busy or pyarrow is old.
    assert filtered < 280
