"""What the payload viewer reads of the table of XComs, in the databases that Airflow runs on."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from include.xcom.reference import PayloadReference
from include.xcom.viewer import limits, pages, rows
from include.xcom.viewer.ids import Ids
from postgres import postgres_server
from sqlalchemy import create_engine, insert, text
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session

MIB = 2**20
START = datetime(2026, 11, 1, tzinfo=timezone.utc)
# Without the tables that Airflow's own refers to; the names and types are the same.
TABLE = (
    "CREATE TABLE xcom (dag_run_id integer, task_id varchar(250), map_index integer, key varchar(512), "
    "dag_result boolean, dag_id varchar(250), run_id varchar(250), value {json}, timestamp {time})"
)


class Database:
    """A table of XComs, in the place of Airflow's own database."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._count = 0

    @contextmanager
    def session(self) -> Iterator[Session]:
        with Session(self.engine) as session:
            yield session

    def add(self, value: Any, task_id: str = "load", key: str = "return_value", map_index: int = -1) -> None:
        """Write a row; each is a second newer than the one before."""
        self.add_many([(value, task_id, key, map_index)])

    def add_many(self, made: list[tuple[Any, str, str, int]]) -> None:
        from airflow.models.xcom import XComModel

        written = []
        for value, task_id, key, map_index in made:
            self._count += 1
            written.append(
                {"dag_run_id": 1, "task_id": task_id, "map_index": map_index, "key": key, "dag_id": "sales",
                 "run_id": "run", "value": value, "timestamp": START + timedelta(seconds=self._count)}
            )  # fmt: skip
        with Session(self.engine) as session:
            session.execute(insert(XComModel.__table__), written)
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
    """An empty table in each of the databases."""
    if request.param == "sqlite":
        engine = create_engine(f"sqlite:///{tmp_path}/airflow.db")
        types = {"json": "JSON", "time": "TIMESTAMP"}
    else:
        engine = create_engine(f"postgresql+psycopg2://{request.getfixturevalue('postgres')}")
        types = {"json": "JSONB", "time": "TIMESTAMPTZ"}
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS xcom"))
        connection.execute(text(TABLE.format(**types)))
    made = Database(engine)
    monkeypatch.setattr(rows, "open_session", made.session)
    yield made
    engine.dispose()


def reference(size: int, raw: int = 10) -> dict[str, Any]:
    """Return the row of a payload of so many bytes."""
    made = PayloadReference("gs://b/xcom/o", "pandas.DataFrame", size, raw, "pandas-frame", 1, "0" * 8, "1")
    return made.to_row()


def test_run_keeps_the_largest_and_adds_up_all(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was written last, or has the longest row: of more XComs than a page holds, the largest."""
    monkeypatch.setattr(limits, "RUN_ROWS", 20)
    sizes = [7 * 10**9, *range(1000, 1060), 3 * 10**9, *range(2000, 2040)]
    database.add_many([(reference(size), f"task {place}", "k", -1) for place, size in enumerate(sizes)])
    database.add_many([("x" * 900, "inline", f"{place}", -1) for place in range(5)])
    listing = rows.of_run(Ids("sales", "run"))

    assert [row.stored_bytes for row in listing.rows] == sorted(sizes, reverse=True)[:20]
    assert listing.count == len(sizes) + 5
    assert listing.payloads == len(sizes)
    assert listing.stored_bytes == sum(sizes) + 5 * 902
    assert listing.raw_bytes == 10 * len(sizes) + 5 * 902
    page = pages.run(root="", ids=Ids("sales", "run"), listing=listing, sort="task", contains="").render()
    assert "The 20 largest of 107 XComs are listed; the totals include all." in page
    assert page.count('<svg class="bar"') == 20
    assert "6.5 GiB" in page
    assert "9.3 GiB" in page


@pytest.mark.parametrize(
    "claimed",
    [
        pytest.param(10**400, id="huge"),
        pytest.param(-(10**400), id="negative"),
        pytest.param(1e300, id="float"),
        pytest.param("x", id="text"),
        pytest.param(None, id="null"),
        pytest.param([], id="list"),
        pytest.param({"a": 1}, id="object"),
        pytest.param(True, id="bool"),
    ],
)
def test_row_that_claims_an_impossible_size_does_not_break_the_run(
    database: Database, monkeypatch: pytest.MonkeyPatch, claimed: Any
) -> None:
    """It counts as the largest possible object, or as what it is: some text in the database."""
    database.add(reference(5000), "honest")
    row = reference(1)
    row["__data__"]["bytes"] = claimed
    database.add(row, "hostile")
    for most in (limits.RUN_ROWS, 2):
        monkeypatch.setattr(limits, "RUN_ROWS", most)
        listing = rows.of_run(Ids("sales", "run"))
        page = pages.run(root="", ids=Ids("sales", "run"), listing=listing, sort="size", contains="").render()

        assert listing.count == 2
        assert 0 < listing.stored_bytes <= limits.LARGEST_BYTES + 20_000
        assert "4.9 KiB" in page
        assert "hostile" in page


@pytest.mark.parametrize("value", [None, 5, "text", [1], {"bytes": 9}, {"__data__": {"bytes": 10**9}}, 0.5])
def test_values_count_by_their_length(
    database: Database, monkeypatch: pytest.MonkeyPatch, value: Any
) -> None:
    """What only looks like a part of a reference is a value."""
    monkeypatch.setattr(limits, "RUN_ROWS", 1)
    database.add(value)
    listing = rows.of_run(Ids("sales", "run"))

    assert (listing.count, listing.payloads) == (1, 0)
    assert listing.stored_bytes == listing.rows[0].characters < 40


def test_text_is_fetched_of_the_opened_key_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty values of 3 MiB: listing them fetches none, and opening one fetches that one."""
    fetched = 0

    def count(data: bytes) -> str:
        nonlocal fetched
        fetched += len(data)
        return data.decode()

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(tmp_path / "airflow.db", check_same_thread=False)
        connection.text_factory = count
        return connection

    engine = create_engine("sqlite://", creator=connect)
    with engine.begin() as connection:
        connection.execute(text(TABLE.format(json="JSON", time="TIMESTAMP")))
    database = Database(engine)
    monkeypatch.setattr(rows, "open_session", database.session)
    for place in range(20):
        database.add("x" * 3 * MIB, key=f"{place}")
    found = rows.of_instance(Ids("sales", "run", "load"))

    assert len(found) == 20
    assert fetched < 20_000
    opened = rows.with_text(found[7], "sales")
    assert opened.text == json.dumps("x" * 3 * MIB)
    assert opened.type == "str"
    assert fetched < 3 * MIB + 20_000
    engine.dispose()


def test_value_beyond_what_is_looked_at_stays_in_the_database(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is listed by its length."""
    monkeypatch.setattr(limits, "INLINE_BYTES", 20_000)
    database.add("x" * 30_000)
    (row,) = rows.of_instance(Ids("sales", "run", "load"))

    assert rows.with_text(row, "sales").text is None
    assert (row.stored_bytes, row.type) == (30_002, "JSON")


def test_newest_of_several_rows_of_one_key_is_shown(database: Database) -> None:
    """Airflow 3.4 keeps a row for each attempt and for each turn of a loop; its model gives them all."""
    for value in ("first", "second" + "x" * 9000, "third"):
        database.add(value)
    database.add("long", key="other")
    database.add("longer" * 2000, key="other")
    first, other = rows.of_instance(Ids("sales", "run", "load"))

    assert first.text == '"third"'
    assert rows.with_text(other, "sales").text == json.dumps("longer" * 2000)
    of_run = {row.key: row for row in rows.of_run(Ids("sales", "run")).rows}
    assert of_run["return_value"].text == '"third"'
    assert len(of_run) == 2


def test_value_that_is_nested_beyond_measure_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's own reader of JSON gives up on it."""
    row = rows.parse_row("run", "load", -1, "return_value", None, 8000, "[" * 4000 + "]" * 4000)

    assert (row.reference, row.problem, row.type, row.stored_bytes) == (None, "", "JSON", 8000)
