"""``pull``: handles of XComs, for which Airflow is asked for the rows and the bucket for nothing."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from airflow.sdk.execution_time import comms, task_runner
from airflow.sdk.execution_time import xcom as execution_xcom
from include.xcom import File, Items, Table, XComHandle, payloads, pull, settings
from include.xcom.errors import PayloadCorruptError, ReferenceNotAllowedError, UnsupportedTypeError
from include.xcom.reference import Coordinates
from include.xcom.stores import DirectoryStore
from include.xcom_backend import GCPBucketXComBackend as Backend

FRAME = pd.DataFrame({"carrier": ["UA", "AA"] * 500, "delay": range(1000)})


class Airflow:
    """Answers what a task asks of its supervisor.

    Attributes:
        rows: By Dag, task, and map index.
        mapped: Tasks of the Dag that are mapped.
    """

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, int], str] = {}
        self.mapped: set[str] = set()
        self.asked: list[Any] = []

    def push(self, task_id: str, value: Any, map_index: int = -1, dag_id: str = "sales") -> None:
        """Store a value as a task does."""
        row = payloads.store(value, Coordinates(dag_id, "run", task_id, map_index, "return_value"))
        self.rows[dag_id, task_id, map_index] = json.dumps(row)

    def send(self, msg: Any) -> Any:
        self.asked.append(msg)
        if type(msg).__name__ == "GetXComSequenceSlice":
            found = sorted(place for place in self.rows if place[:2] == (msg.dag_id, msg.task_id))
            return comms.XComSequenceSliceResult(root=[json.loads(self.rows[place]) for place in found])
        index = -1 if msg.map_index is None else msg.map_index
        row = self.rows.get((msg.dag_id, msg.task_id, index))
        return comms.XComResult(key=msg.key, value=row and json.loads(row))

    @property
    def task_instance(self) -> SimpleNamespace:
        """The one that runs."""

        def task(task_id: str) -> SimpleNamespace:
            return SimpleNamespace(
                is_mapped=task_id in self.mapped, get_closest_mapped_task_group=lambda: None
            )

        dag = SimpleNamespace(has_task=lambda task_id: True, get_task=task)
        return SimpleNamespace(dag_id="sales", run_id="run", task=SimpleNamespace(dag=dag))


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Airflow:
    """An Airflow with this backend, of which a task runs."""
    fake = Airflow()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", fake, raising=False)
    monkeypatch.setattr(execution_xcom, "XCom", Backend)
    monkeypatch.setattr("airflow.sdk.get_current_context", lambda: {"ti": fake.task_instance})
    return fake


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the store is asked for."""
    made: list[str] = []

    def noting(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            made.append(name)
            return method(*args, **options)

        return call

    for name in ("get", "read", "describe", "download"):
        monkeypatch.setattr(DirectoryStore, name, noting(name, getattr(DirectoryStore, name)))
    return made


def test_branch_on_the_number_of_rows_asks_the_bucket_for_nothing(
    airflow: Airflow, requests: list[str]
) -> None:
    """The row has type, size, and summary."""
    airflow.push("load", FRAME)

    handle = pull("load")

    assert handle.type == "pandas.DataFrame"
    assert handle.summary.items() >= {"rows": 1000, "columns": 2}.items()
    assert handle.size > 0
    assert repr(handle).startswith("XComHandle(pandas.DataFrame, ")
    assert requests == []
    pd.testing.assert_frame_equal(handle.load(), FRAME)
    assert requests == ["get"]


def test_columns_of_a_frame_are_read_without_the_rest(airflow: Airflow, requests: list[str]) -> None:
    """A frame that is no Table is one for whoever pulls it."""
    airflow.push("load", FRAME)

    table = pull("load").table()

    assert (table.num_rows, table.columns) == (1000, ["carrier", "delay"])
    assert table.to_pandas(columns=["delay"])["delay"].tolist() == list(range(1000))
    assert "get" not in requests


def test_damaged_page_of_a_frame_is_noticed(airflow: Airflow, payload_folder: Path) -> None:
    """Frames have page checksums too."""
    airflow.push("load", pd.DataFrame({"noise": np.random.default_rng(5).random(50_000)}))
    table = pull("load").table()
    (path,) = payload_folder.rglob("*.parquet")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    with pytest.raises(PayloadCorruptError, match="not what was written"):
        table.to_pandas()


@pytest.mark.parametrize("frame_format", ["parquet", "arrow"])
def test_frame_of_any_library_and_format_is_a_table(
    frame_format: str, airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those whose parts cannot be verified are loaded whole."""
    monkeypatch.setenv("AIRFLOW__GCS_XCOM__FRAME_FORMAT", frame_format)
    settings.load_settings.cache_clear()
    polars = pytest.importorskip("polars", reason="polars is optional: uv pip install polars")
    values = [FRAME, polars.from_pandas(FRAME), pa.Table.from_pandas(FRAME), Table(FRAME)]

    for value in values:
        airflow.push("load", value)
        assert pull("load").table().to_arrow(columns=["delay"])["delay"].to_pylist() == list(range(1000))


def test_file_is_a_file_and_a_payload_is_one_too(airflow: Airflow, tmp_path: Path) -> None:
    """Whoever wants the bytes of a stored value need not decode it."""
    (tmp_path / "a.txt").write_text("text")
    airflow.push("file", File(tmp_path / "a.txt"))
    airflow.push("bytes", bytes(range(256)))

    assert pull("file").file().path.read_text() == "text"
    file = pull("bytes").file()
    assert file.name == "return_value.bin"
    assert file.path.read_bytes() == bytes(range(256))


def test_value_in_the_row_is_one_without_a_payload(airflow: Airflow) -> None:
    """Also one in our own form, and none at all."""
    airflow.push("list", [1, 2, 3])
    airflow.push("tuple", (1, 2))

    small = pull("list")
    assert (small.type, small.summary, small.load()) == ("list", {"items": 3}, [1, 2, 3])
    assert (pull("tuple").type, pull("tuple").load()) == ("tuple", (1, 2))
    missing = pull("nobody")
    assert (missing.type, missing.summary, missing.load()) == ("NoneType", {}, None)
    with pytest.raises(TypeError, match=r'XCom "return_value" is a list, not a table: use load\(\)'):
        small.table()
    with pytest.raises(TypeError, match=r"has no payload: use load\(\)"):
        small.file()
    for use in (missing.table, missing.file):
        with pytest.raises(TypeError, match=r'There is no XCom "return_value", or it is None: see'):
            use()


def test_handles_of_mapped_tasks_are_a_list(airflow: Airflow, requests: list[str]) -> None:
    """In the order of their map indexes, and also if there is one or none."""
    airflow.mapped = {"each", "single", "none"}
    for index in (2, 0, 1):
        airflow.push("each", [bytes(100_000), index], map_index=index)
    airflow.push("single", 1, map_index=0)

    assert [handle.summary["items"] for handle in pull("each")] == [2, 2, 2]
    assert requests == []
    assert [handle.load()[1] for handle in pull("each")] == [0, 1, 2]
    assert [handle.load() for handle in pull("single")] == [1]
    assert pull("none") == []
    assert pull("each", map_indexes=1).load()[1] == 1
    assert [handle.load()[1] for handle in pull("each", map_indexes=[2, 0])] == [2, 0]


def test_several_tasks_and_other_dags_are_pulled_from(airflow: Airflow) -> None:
    """As with xcom_pull."""
    airflow.push("a", 1)
    airflow.push("b", 2)
    airflow.push("a", 3, dag_id="other")

    assert [handle.load() for handle in pull(["b", "a"])] == [2, 1]
    assert pull("a", dag_id="other", run_id="earlier").load() == 3
    assert airflow.asked[-1].run_id == "earlier"


def test_row_that_points_elsewhere_is_refused(airflow: Airflow) -> None:
    """Before anything is read."""
    airflow.push("load", FRAME)
    row = json.loads(airflow.rows["sales", "load", -1])
    row["__data__"]["uri"] = "gs://somebody-else/xcom/a.parquet"
    airflow.rows["sales", "load", -1] = json.dumps(row)

    handle = pull("load")
    for use in (handle.load, handle.table, handle.file):
        with pytest.raises(ReferenceNotAllowedError, match="outside of what this deployment may read"):
            use()


def test_handle_of_an_xcom_is_no_value(airflow: Airflow) -> None:
    """What it stands for is; and it can be sent to another process."""
    airflow.push("load", FRAME)
    handle = pull("load")

    assert pickle.loads(pickle.dumps(handle)).summary == handle.summary
    for value in (handle, [handle]):
        with pytest.raises(UnsupportedTypeError, match=r"\.load\(\), \.table\(\), or \.file\(\)"):
            payloads.store(value, Coordinates("sales", "run", "again", -1, "return_value"))
    again = payloads.load(payloads.store(handle.table(), Coordinates("sales", "run", "a", -1, "k")))
    assert again.num_rows == 1000


def test_without_the_backend_it_says_what_is_missing(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of Airflow's own are no references."""
    from airflow.sdk.bases.xcom import BaseXCom

    monkeypatch.setattr(execution_xcom, "XCom", BaseXCom)

    with pytest.raises(RuntimeError, match=r"pull\(\) needs the XCom backend.*AIRFLOW__CORE__XCOM_BACKEND"):
        pull("load")


def test_importing_handles_loads_no_heavy_library() -> None:
    """Dag files import them, and the Dag processor parses these all day."""
    import subprocess
    import sys

    code = (
        "import sys, airflow.sdk.bases.xcom\n"
        "before = set(sys.modules)\n"
        "from include.xcom import File, Items, Table, XComHandle, pull\n"
        "added = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(added - set(sys.stdlib_module_names) - {'include', 'airflow'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout.splitlines()[-1] == "[]"
    assert [File.kind, Table.kind, Items.kind] == ["file", "table", "items"]
    assert XComHandle.__module__ == "include.xcom.handles.xcoms"
