"""Rows in a real PostgreSQL server: JSONB refuses some JSON and changes some, and nobody may notice."""

from __future__ import annotations

import json
import math
import os
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import example_values
import pytest
from hypothesis import HealthCheck, assume, event, example, given, settings
from include.xcom import payloads
from include.xcom.codecs.classes import allow_lists
from include.xcom.codecs.equality import identical
from include.xcom.codecs.tagged_json import dump
from include.xcom.errors import UnsupportedTypeError
from include.xcom.reference import Coordinates, PayloadReference
from include.xcom.settings import load_settings
from postgres import postgres_server
from strategies import PLAIN, VALUES

HERE = Coordinates("sales", "manual__1", "load", -1, "return_value")
Database = Callable[[Any], Any]

# Plain JSON that the server does not bring back; a row must never hold it.
NOT_KEPT = {
    "large-float": 1e16,
    "larger-float": 1.5e300,
    "negative-zero": -0.0,
    "nan": math.nan,
    "infinity": math.inf,
    "nul": "a\0b",
    "nul-in-a-key": {"a\0b": 1},
    "lone-surrogate": "\ud800",
    "surrogate-in-a-key": {"\udfff": 1},
}


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """A table like Airflow's; call it with a row to write the row and read it back."""
    psycopg2 = pytest.importorskip(
        "psycopg2", reason="psycopg2 is not installed: pip install psycopg2-binary"
    )
    with postgres_server() as address:
        connection = psycopg2.connect(f"postgresql://{address}")
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute("CREATE TABLE xcom (id serial PRIMARY KEY, value jsonb)")

        def through(row: Any) -> Any:
            cursor.execute("INSERT INTO xcom (value) VALUES (%s) RETURNING id", [json.dumps(row)])
            cursor.execute("SELECT value::text FROM xcom WHERE id = %s", cursor.fetchone())
            return json.loads(cursor.fetchone()[0])

        yield through
        connection.close()


@pytest.fixture(scope="module", autouse=True)
def payload_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory for the payloads of all tests: a property test runs hundreds of values."""
    return tmp_path_factory.mktemp("payloads")


@pytest.fixture(autouse=True)
def bucket(payload_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AIRFLOW__GCS_XCOM__BUCKET", payload_folder.as_uri())
    load_settings.cache_clear()
    # What a property test writes is read at once; nothing of it must outlive a power failure.
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    yield
    load_settings.cache_clear()


def in_key_order(item: Any) -> Any:
    """JSONB has an order of keys of its own, as Airflow users know; all else must come back."""
    kind = type(item)
    if kind is dict:
        return {key: in_key_order(item[key]) for key in sorted(item, key=lambda key: json.dumps(dump(key)))}
    if kind is OrderedDict:
        return OrderedDict((key, in_key_order(value)) for key, value in item.items())
    if kind is deque:
        return deque(map(in_key_order, item), item.maxlen)
    return kind(map(in_key_order, item)) if kind in (list, tuple) else item


def check(value: Any, database: Database) -> None:
    row = payloads.store(value, HERE)
    event("reference" if PayloadReference.from_row(row) else "inline")

    back = payloads.load(database(row))

    assert identical(in_key_order(value), in_key_order(back))


@pytest.mark.parametrize("value", NOT_KEPT.values(), ids=NOT_KEPT.keys())
def test_server_refuses_or_changes_what_these_tests_say_it_does(value: Any, database: Database) -> None:
    """Else the tests below would prove nothing."""
    import psycopg2

    refusal, back = None, None
    try:
        back = database(value)
    except psycopg2.Error as error:
        refusal = error.pgcode

    assert refusal in ("22P02", "22P05", None)
    assert refusal or not identical(value, back)


@pytest.mark.parametrize(
    "wrap", [lambda value: value, lambda value: {"key": [value]}], ids=["alone", "nested"]
)
@pytest.mark.parametrize("value", NOT_KEPT.values(), ids=NOT_KEPT.keys())
def test_value_that_jsonb_does_not_keep_is_stored_and_comes_back(
    value: Any, wrap: Callable[[Any], Any], database: Database
) -> None:
    """The row holds something else however small the value, and the reader sees no difference."""
    value = wrap(value)
    row = payloads.store(value, HERE)

    back = payloads.load(database(row))

    assert {"__classname__"} < row.keys()
    assert identical(value, back)


@pytest.mark.parametrize("value", example_values.CLASSES.values(), ids=example_values.CLASSES.keys())
def test_instance_comes_back_from_the_server(
    value: Any, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its fields in their order, in which a model is dumped."""
    monkeypatch.setenv("AIRFLOW__CORE__ALLOWED_DESERIALIZATION_CLASSES", "airflow.* example_values.*")
    allow_lists.cache_clear()
    try:
        row = payloads.store(value, HERE)

        assert row["__classname__"] == "gcs_xcom.Value"
        assert identical(in_key_order(value), in_key_order(payloads.load(database(row))))
    finally:
        allow_lists.cache_clear()


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=PLAIN)
@example(
    value=[9999999999999998.0, -9999999999999998.0, 5e-324, 0.1, 2**63 - 1, -(2**63), "\uffff\U0010ffff"]
)
@example(value={"b": 1, "a": {"": None}, "aa": [[], {}, True, 1, 1.0]})
def test_plain_value_comes_back_from_the_server(value: Any, database: Database) -> None:
    """JSON, with every float, integer and character that Python has."""
    check(value, database)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=VALUES)
@example(value=(1, (2.0, [3, (4,)]), {5, 6}))
@example(
    value={"when": datetime(2026, 1, 1, tzinfo=timezone.utc), "price": Decimal("1.10"), "id": UUID(int=7)}
)
@example(value=[{"__classname__": "builtins.tuple", "__version__": 1, "__data__": [1]}, {"__type": "set"}])
def test_any_value_comes_back_from_the_server(value: Any, database: Database) -> None:
    """Types that JSON does not have, nested in each other."""
    try:
        check(value, database)
    except UnsupportedTypeError:
        assume(False)
