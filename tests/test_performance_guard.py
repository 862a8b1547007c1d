"""What storing and reading cost, in units that do not depend on the machine.

Requests and allocated bytes are counted, and nothing is timed: `make bench` does that. The literal
numbers below are what was measured; a regression of more than 10 % fails. Lower them when the code
has become better.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "{{cookiecutter.project_slug}}"))
# Airflow writes a configuration there when it is first imported.
os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="airflow-home-"))

SLACK = 1.1
MB = 2**20


class Row(NamedTuple):
    """What Airflow hands to ``deserialize_value``."""

    value: Any


class Ways(NamedTuple):
    """The backend's two ways, and the count of what they asked of the bucket since the last time."""

    store: Callable[[Any], Any]
    load: Callable[[Any], Any]
    load_many: Callable[[list[Any]], list[Any]]
    requests: Callable[[], int]


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ways]:
    """The backend before a bucket that counts."""
    command = [sys.executable, str(Path(__file__).with_name("counting_bucket.py"))]
    bucket = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert bucket.stdin
    assert bucket.stdout
    try:
        url = f"http://127.0.0.1:{int(bucket.stdout.readline())}"
        for name in list(os.environ):
            if name.startswith("AIRFLOW__GCS_XCOM__") or name.lower().endswith("_proxy"):
                monkeypatch.delenv(name)
        monkeypatch.setenv("AIRFLOW__GCS_XCOM__BUCKET", "guard")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        from include.xcom import payloads
        from include.xcom.settings import load_settings
        from include.xcom.stores import forget_stores
        from include.xcom_backend import GCPBucketXComBackend as backend

        load_settings.cache_clear()
        forget_stores()
        ids: dict[str, Any] = {"dag_id": "sales", "task_id": "extract", "run_id": "manual", "map_index": -1}
        yield Ways(
            store=lambda value: backend.serialize_value(value, key="return_value", **ids),
            load=lambda row: backend.deserialize_value(Row(row)),
            load_many=payloads.load_many,
            requests=lambda: int(urlopen(f"{url}/-/count", timeout=10).read()),
        )
        load_settings.cache_clear()
        forget_stores()
    finally:
        bucket.communicate(timeout=20)


def make_records(megabytes: int) -> list[dict[str, Any]]:
    """Make about so many MB of JSON."""
    return [
        {"id": number, "origin": "JFK", "day": f"2013-01-{number % 28 + 1:02}", "delay": number % 600 / 7}
        for number in range(megabytes * 14_000)
    ]


def make_frame(rows: int) -> Any:
    import numpy as np
    import pandas as pd

    numbers = np.random.default_rng(2013)
    columns = {f"number_{position}": numbers.random(rows) for position in range(6)}
    return pd.DataFrame({**columns, "origin": np.array(["EWR", "JFK", "LGA"])[np.arange(rows) % 3]})


def make_array(mebibytes: int) -> Any:
    import numpy as np

    return np.random.default_rng(2013).random((mebibytes * 128, 1024))


def allocated(work: Callable[[], Any]) -> tuple[Any, int]:
    """Run; return the result, and the bytes that Python objects took at most beyond those before."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        result = work()
        return result, tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


# What is stored, MB that storing allocates at most, and reading, the value that it returns included.
VALUES = [
    pytest.param(lambda: make_records(4), 14.2, 67.8, id="records"),
    pytest.param(lambda: make_array(16), 0.3, 20.1, id="array"),
    pytest.param(lambda: bytes(make_array(16)), 0.3, 32.1, id="bytes"),
    pytest.param(lambda: bytearray(make_array(16)), 0.3, 20.1, id="bytearray"),
    pytest.param(lambda: {"a": make_array(8), "b": make_array(8)}, 0.3, 20.1, id="bundle"),
]


@pytest.mark.parametrize(("make", "store_mb", "load_mb"), VALUES)
def test_memory_of_a_value_stays_as_measured(
    ways: Ways, make: Callable[[], Any], store_mb: float, load_mb: float
) -> None:
    """Neither storing nor reading makes a copy more than it did."""
    value = make()
    ways.load(ways.store(value))  # Imports what it needs.

    row, stored = allocated(lambda: ways.store(value))
    _, loaded = allocated(lambda: ways.load(row))

    assert stored <= store_mb * MB * SLACK, f"{stored / MB:.2f} MB"
    assert loaded <= load_mb * MB * SLACK, f"{loaded / MB:.2f} MB"


@pytest.mark.usefixtures("ways")
def test_memory_of_a_stream_does_not_grow_with_its_length(tmp_path: Path) -> None:
    """Neither on its way up nor on its way down."""
    from include.xcom.stores import own_store

    store, chunk = own_store(), bytes(MB)
    store.put("xcom/first", [chunk])  # Imports what it needs.

    stored, up = allocated(lambda: store.put_stream("xcom/stream", (chunk for _ in range(300))))
    _, down = allocated(lambda: store.download(stored, tmp_path / "file"))

    assert stored.size == 300 * MB == (tmp_path / "file").stat().st_size
    assert up <= 90 * MB, f"{up / MB:.2f} MB"
    assert down <= 20 * MB, f"{down / MB:.2f} MB"


@pytest.mark.parametrize(("kind", "load_mb"), [(bytes, 32.1), (bytearray, 18.1)])
def test_memory_of_bytes_of_a_directory_is_that_of_a_bucket(
    ways: Ways, kind: type, load_mb: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read into becomes the value, where the value can change; else it is copied once."""
    from include.xcom.settings import load_settings

    monkeypatch.setenv("AIRFLOW__GCS_XCOM__BUCKET", tmp_path.as_uri())
    load_settings.cache_clear()
    value = kind(make_array(16))
    row = ways.store(value)
    ways.load(row)

    back, loaded = allocated(lambda: ways.load(row))

    assert (type(back), back == value) == (kind, True)
    assert loaded <= load_mb * MB * SLACK, f"{loaded / MB:.2f} MB"


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: make_records(1), id="records"),
        pytest.param(lambda: make_frame(20_000), id="frame"),
        pytest.param(lambda: make_array(9), id="array"),
        pytest.param(lambda: {"train": make_frame(20_000), "test": make_array(1)}, id="bundle"),
        pytest.param(lambda: [(1, 2.5)] * 40_000, id="tuples"),
    ],
)
def test_one_request_stores_a_value_and_one_reads_it(ways: Ways, make: Callable[[], Any]) -> None:
    """The first value of a process and the hundredth cost one request each way."""
    ways.requests()

    row = ways.store(make())
    assert ways.requests() == 1

    ways.load(row)
    assert ways.requests() == 1


def test_many_values_take_one_request_each(ways: Ways) -> None:
    """A fan-in asks for each object once, whatever the number of threads."""
    rows = [ways.store(b"%d" % number) for number in range(40)]
    ways.requests()

    values = ways.load_many(rows)

    assert values == [b"%d" % number for number in range(40)]
    assert ways.requests() == 40


def test_small_values_take_no_request(ways: Ways) -> None:
    """What stays in the database never reaches the bucket."""
    ways.requests()

    assert ways.load(ways.store({"rows": 336_776, "day": "2013-01-01"})) == {
        "rows": 336_776,
        "day": "2013-01-01",
    }

    assert ways.requests() == 0


@pytest.mark.parametrize(
    ("make", "share"),
    [
        pytest.param(lambda: make_records(4), 0.034, id="records"),
        pytest.param(lambda: make_frame(200_000), 0.815, id="frame"),
        pytest.param(lambda: make_array(1), 1.001, id="array"),
    ],
)
def test_stored_bytes_stay_as_measured(ways: Ways, make: Callable[[], Any], share: float) -> None:
    """Payloads do not grow: not by another level, another encoding, or something beside them."""
    facts = ways.store(make())["__data__"]

    assert facts["bytes"] <= facts["raw_bytes"] * share * SLACK
