"""One XCom over the runs of its Dag, as the viewer reads it from the databases that Airflow runs on."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID, uuid4

import pytest
from include.xcom import payloads
from include.xcom.reference import Coordinates, PayloadReference
from include.xcom.viewer import history, limits, pages, rows
from include.xcom.viewer.ids import Ids
from markupsafe import escape
from postgres import postgres_server
from sqlalchemy import create_engine, event, insert, text
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
LOAD = Ids("sales", task_id="load")


class Database:
    """Airflow's own tables; what they refer to elsewhere is not there."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.statements = 0
        event.listen(engine, "before_cursor_execute", self._count)

    def _count(self, *what: Any) -> None:
        self.statements += 1

    @contextmanager
    def session(self) -> Iterator[Session]:
        with Session(self.engine) as session:
            yield session

    def add(
        self,
        runs: dict[str, Any],
        *,
        task_id: str = "load",
        key: str = "return_value",
        state: str | None = "success",
        dag_id: str = "sales",
        since: int = 0,
        version: UUID | None = None,
    ) -> None:
        """Add runs, an hour apart: for each the row of its XCom, a list for mapped instances, ``...`` for none."""
        from airflow.models.dagrun import DagRun
        from airflow.models.taskinstance import TaskInstance
        from airflow.models.xcom import XComModel

        made: dict[Any, list[dict[str, Any]]] = {DagRun: [], TaskInstance: [], XComModel: []}
        for place, (run_id, value) in enumerate(runs.items(), since):
            moment = START + timedelta(hours=place)
            made[DagRun].append(
                {"id": place + 1, "dag_id": dag_id, "run_id": run_id, "run_after": moment, "queued_at": moment,
                 "run_type": "scheduled", "clear_number": 0, "log_template_id": None, "_state": "success"}
            )  # fmt: skip
            values = value if isinstance(value, list) else [value]
            for index, one in enumerate(values):
                ids = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id,
                       "map_index": index if isinstance(value, list) else -1}  # fmt: skip
                made[TaskInstance].append({**ids, "id": uuid4(), "state": state, "try_number": 1, "pool_slots": 1,
                                           "dag_version_id": version, "pool": "default_pool", "executor_config": {}})  # fmt: skip
                if one is not ...:
                    made[XComModel].append(
                        {**ids, "dag_run_id": place + 1, "key": key, "value": one, "timestamp": moment}
                    )
        with Session(self.engine) as session:
            for model, several in made.items():
                if several:
                    names = {column.name for column in model.__table__.columns}
                    written = [{name.lstrip("_"): one[name] for name in one} for one in several]
                    written = [{name: one[name] for name in one if name in names} for one in written]
                    session.execute(insert(model.__table__), written)
            session.commit()


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """One server for all tests that want one."""
    pytest.importorskip("psycopg2", reason="psycopg2 is not installed: pip install psycopg2-binary")
    with postgres_server() as address:
        yield address


@pytest.fixture(params=["sqlite", "postgresql"])
def database(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Database]:
    """Airflow's tables with their indexes, empty."""
    from airflow.models import import_all_models
    from airflow.models.base import Base

    import_all_models()  # type: ignore[no-untyped-call]
    if request.param == "sqlite":
        engine = create_engine(f"sqlite:///{tmp_path}/airflow.db")
    else:
        address = request.getfixturevalue("postgres")
        # Rows of the tests refer to no Dag.
        options = {"options": "-csession_replication_role=replica"}
        engine = create_engine(f"postgresql+psycopg2://{address}", connect_args=options)
        with engine.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
    Base.metadata.create_all(engine)
    made = Database(engine)
    monkeypatch.setattr(rows, "open_session", made.session)
    yield made
    engine.dispose()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The addresses that were connected to, which the drivers of databases do not do in Python."""
    monkeypatch.setenv("AIRFLOW__GCS_XCOM__BUCKET", "acme-xcom")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    addresses: list[Any] = []

    def connect(self: socket.socket, address: Any) -> None:
        addresses.append(address)
        raise ConnectionRefusedError(address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    return addresses


def frame(number: int, **more: Any) -> dict[str, Any]:
    """Return the row of a frame of so many rows."""
    summary = {"rows": number, "columns": 4, "seconds": 0.5, "schema": "0a1b2c3d", **more}
    made = PayloadReference(
        "gs://acme-xcom/xcom/o",
        "pandas.DataFrame",
        number * 10,
        number * 20,
        "pandas-frame",
        1,
        "0" * 8,
        "1",
        summary,
    )
    return made.to_row()


def page_of(past: history.History, **more: Any) -> str:
    """Return the page of a history."""
    asked: dict[str, Any] = {"key": "return_value", "runs": 30, "map_index": None, "keys": [], **more}
    return pages.history(root="/root", ids=LOAD, past=past, **asked).render()


def test_history_shows_the_last_runs_the_oldest_first(database: Database) -> None:
    """Rows, columns, bytes and seconds of each, from the references alone."""
    database.add({f"run {place}": frame(1000 + place) for place in range(40)})
    past = history.read_history(LOAD, "return_value", runs=30)

    assert [point.run_id for point in past.points] == [f"run {place}" for place in range(10, 40)]
    assert past.points[-1].measures == {"rows": 1039, "columns": 4, "bytes": 10_390, "seconds": 0.5}
    assert (past.points[-1].type, past.points[-1].codec) == ("pandas.DataFrame", "pandas-frame")
    page = page_of(past)
    assert "Rows over 30 runs: lowest 1,010, highest 1,039, last 1,039" in page
    assert page.index(">run 39</a>") < page.index(">run 38</a>")


def test_history_says_what_changed(database: Database) -> None:
    """Against the last run that has the XCom: type, codec, columns, rows, schema."""
    wider = frame(1100, columns=5, schema="ffffffff")
    other = PayloadReference("gs://b/o", "dict", 10, 10, "json", 1, "0" * 8, "1", {"items": 3}).to_row()
    database.add({"a": frame(1000), "b": ..., "c": wider, "d": wider, "e": other})
    changes = {
        point.run_id: point.changes for point in history.read_history(LOAD, "return_value", runs=9).points
    }

    assert changes == {
        "a": [],
        "b": [],
        "c": ["columns 4 → 5", "rows 1,000 → 1,100 (+10.0 %)", "schema changed"],
        "d": [],
        "e": ["type pandas.DataFrame → dict", "codec pandas-frame → json"],
    }


@pytest.mark.parametrize(
    ("value", "items"),
    [
        pytest.param({"a": 1, "b": (2, 3)}, 2, id="dict"),
        pytest.param({1: 2}, 1, id="dict-of-numbers"),
        pytest.param([(1, 2), date(2026, 1, 1)], 2, id="list"),
        pytest.param({1, 2, 3, 4}, 4, id="set"),
        pytest.param(date(2026, 1, 1), None, id="date"),
    ],
)
def test_history_counts_the_items_of_a_small_value(
    database: Database, value: Any, items: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the value, not of the form that it has in the row."""
    monkeypatch.setenv("AIRFLOW__GCS_XCOM__BUCKET", tmp_path.as_uri())
    row = payloads.store(value, Coordinates("sales", "a", "load", -1, "return_value"))
    database.add({"a": row})

    (point,) = history.read_history(LOAD, "return_value", runs=1).points

    assert row["__classname__"] == "gcs_xcom.Value"
    assert point.measures.get("items") == items


def test_history_marks_runs_that_failed_or_have_none(database: Database) -> None:
    """A band where the task failed, a tick where it pushed nothing, and the state in the table."""
    database.add({"a": frame(5), "b": frame(6)})
    database.add({"c": ...}, state="failed", since=2)
    database.add({"d": ...}, state="skipped", since=3)
    past = history.read_history(LOAD, "return_value", runs=30)
    page = page_of(past)

    assert [(point.state, point.xcoms) for point in past.points] == [
        ("success", 1),
        ("success", 1),
        ("failed", 0),
        ("skipped", 0),
    ]
    assert page.count('<rect class="failed"') == page.count('<rect class="none"') == 4
    assert "<title>c: failed</title>" in page
    assert "no XCom" in page


def test_history_of_a_mapped_task_is_the_sum(database: Database) -> None:
    """One map index can be opened by itself."""
    database.add({"a": [frame(1), frame(2)], "b": [frame(3), frame(4), frame(5)]})
    past = history.read_history(LOAD, "return_value", runs=30)
    one = history.read_history(LOAD, "return_value", runs=30, map_index=1)

    assert past.is_mapped
    assert [(point.xcoms, point.measures["rows"]) for point in past.points] == [(2, 3), (3, 12)]
    assert past.points[0].measures["columns"] == 4
    assert [point.measures["rows"] for point in one.points] == [2, 4]
    assert "the sum of all map indexes" in page_of(past)
    assert 'placeholder="sum"' in page_of(past)
    assert "/root/instance/sales/b/load/1?key=return_value" in page_of(one, map_index=1)
    assert "/root/run/sales/b?contains=load" in page_of(past)


def test_history_of_a_number_is_its_value(database: Database) -> None:
    """What a task measures is drawn itself: a score, a count."""
    database.add({f"{place}": 0.9 + place / 100 for place in range(3)})
    past = history.read_history(LOAD, "return_value", runs=30)

    assert [point.measures["value"] for point in past.points] == [0.9, 0.91, 0.92]
    assert "Value over 3 runs: lowest 0.9, highest 0.92" in page_of(past)


MADE_UP: list[Any] = [
    None, True, "gcs://other-backend/x.json", "x" * 20_000, [], {}, {"a": 1}, 10**400, -1, 1e308,
    {"__classname__": "gcs_xcom.Payload"},
    {"__classname__": "gcs_xcom.Payload", "__version__": 99, "__data__": {}},
    {"__classname__": "other.Class", "__data__": "\u202e<b>"},
    frame(10**400), frame(-5), frame(1, rows="<b>many</b>", seconds=None, schema=[1]), frame(1, columns={"a": 1}),
    frame(1, rows=True, items=10**400),
]  # fmt: skip


def test_row_that_somebody_made_up_does_not_break_the_history(database: Database) -> None:
    """Of another backend, malformed, or absurd: shown as what it is, and escaped."""
    values = MADE_UP if database.engine.dialect.name == "sqlite" else [v for v in MADE_UP if v != 1e308]
    database.add({f"run {place} <i>": value for place, value in enumerate(values)})
    past = history.read_history(LOAD, "return_value", runs=90)
    page = page_of(past, runs=90)

    assert len(past.points) == len(values)
    assert "<i>" not in page
    assert "<b>" not in page
    assert page.count("malformed") >= 2
    assert "&lt;i&gt;" in page
    assert len(str(past.to_json())) > 1000


def test_rows_without_seconds_and_schema_leave_blanks(database: Database) -> None:
    """They were written before these were kept: nothing is said to have changed."""
    old = PayloadReference("gs://b/o", "pandas.DataFrame", 10, 10, "pandas-frame", 1, "0" * 8, "1",
                           {"rows": 7, "columns": 4}).to_row()  # fmt: skip
    database.add({"a": old, "b": frame(7), "c": frame(7, schema="ffffffff")})
    past = history.read_history(LOAD, "return_value", runs=30)

    assert [point.measures.get("seconds") for point in past.points] == [None, 0.5, 0.5]
    assert [point.changes for point in past.points] == [[], [], ["schema changed"]]
    assert page_of(past).count('<td role="cell" data-label="Seconds" class="number"></td>') == 1


SCRIPTS = ["продажи/за день", "売上 50%", "مبيعات", "a\u202eb & <c>", "a.b", "🙂?key=x#"]


def test_ids_in_any_script_are_shown_and_linked(database: Database) -> None:
    """Of Dag, run, task, and key: quoted in links, escaped in text."""
    for place, name in enumerate(SCRIPTS):
        database.add({f"{name} 1": frame(1), f"{name} 2": frame(2)}, dag_id=name, task_id=name, key=name,
                     since=place * 2)  # fmt: skip
        ids = Ids(name, task_id=name)
        past = history.read_history(ids, name, runs=30)
        page = pages.history(
            root="/root", ids=ids, key=name, runs=30, map_index=None, past=past,
            keys=history.read_keys(ids, past.points),
        ).render()  # fmt: skip

        assert [point.measures["rows"] for point in past.points] == [1, 2]
        path = "/".join(quote(one, safe="") for one in (name, f"{name} 2", name))
        assert f'href="/root/instance/{path}/-1?{urlencode({"key": name})}"' in page
        assert f"<option>{escape(name)}</option>" in page
        assert "<c>" not in page


def test_history_outlives_the_versions_of_its_dag(database: Database) -> None:
    """A version that was deleted, and a task that the Dag no longer has."""
    database.add({"a": frame(1)}, version=uuid4())
    database.add({"b": frame(2)}, state="removed", since=1)
    past = history.read_history(LOAD, "return_value", runs=30)

    assert [(point.state, point.measures["rows"]) for point in past.points] == [
        ("success", 1),
        ("removed", 2),
    ]
    assert ">removed</td>" in page_of(past)


def test_history_knows_the_keys_and_nothing_of_other_tasks(database: Database) -> None:
    """Each key, each task and each Dag has its own."""
    database.add({"a": frame(1), "b": frame(2)})
    with Session(database.engine) as session:
        from airflow.models.xcom import XComModel

        values = {"dag_run_id": 1, "dag_id": "sales", "run_id": "a", "map_index": -1, "timestamp": START}
        for task_id, key in (("load", "facts"), ("other", "return_value")):
            session.execute(
                insert(XComModel.__table__), {**values, "task_id": task_id, "key": key, "value": frame(77)}
            )
        session.commit()

    facts = history.read_history(LOAD, "facts", runs=30)

    assert history.read_keys(LOAD, facts.points) == ["facts", "return_value"]
    assert [point.measures.get("rows") for point in facts.points] == [77, None]
    assert history.read_history(Ids("other", task_id="load"), "return_value", runs=30).points == []
    assert "None of the last 30 runs" in page_of(history.read_history(LOAD, "nothing", runs=30))


def test_history_of_many_rows_leaves_the_oldest_runs_out(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says so; no run is shown by half."""
    monkeypatch.setattr(limits, "HISTORY_ROWS", 10)
    database.add({f"{place}": [frame(1)] * 4 for place in range(5)})
    past = history.read_history(LOAD, "return_value", runs=30)

    assert [(point.run_id, point.xcoms) for point in past.points] == [("3", 4), ("4", 4)]
    assert "Only the newest 2 runs are shown" in page_of(past)


def test_history_of_a_year_of_ten_thousand_runs_is_fast(database: Database, asked: list[Any]) -> None:
    """It costs what is shown, and not what the Dag ever had; three statements, and no request to a store."""
    database.add({f"scheduled__{place}": frame(place + 1) for place in range(10_000)})
    history.read_history(LOAD, "return_value", runs=1)
    seconds = []
    for _ in range(3):
        database.statements = 0
        began = time.perf_counter()
        past = history.read_history(LOAD, "return_value", runs=365)
        read = time.perf_counter() - began
        page = page_of(past, runs=365)
        seconds.append((read, time.perf_counter() - began))
    read, drawn = min(seconds)

    name = database.engine.dialect.name
    print(f"{name}: 365 of 10,000 runs in {read * 1000:.0f} ms, with the page in {drawn * 1000:.0f} ms")
    assert len(past.points) == 365
    assert past.points[-1].measures["rows"] == 10_000
    assert database.statements == 3
    assert asked == []
    assert read < 0.5
    assert drawn < 1
    assert len(page) < 1_000_000


def test_fifty_histories_take_less_than_a_second(database: Database, asked: list[Any]) -> None:
    """Of thirty runs each, and no request to the bucket."""
    for task in range(50):
        database.add({f"{task} {place}": frame(place + 1) for place in range(30)}, task_id=f"t{task}",
                     dag_id=f"d{task}", since=task * 30)  # fmt: skip

    def read_all() -> float:
        began = time.perf_counter()
        for task in range(50):
            past = history.read_history(Ids(f"d{task}", task_id=f"t{task}"), "return_value", runs=30)
            assert len(past.points) == 30
        return time.perf_counter() - began

    seconds = min(read_all() for _ in range(5))
    print(f"{database.engine.dialect.name}: 50 XComs over 30 runs in {seconds * 1000:.0f} ms")
    assert seconds < 1
    assert asked == []
