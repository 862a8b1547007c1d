"""How Airflow calls the backend: sync and async, with the rows that its supervisor would answer."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.execution_time import comms, task_runner
from include.xcom import load_all
from include.xcom.codecs.classes import serde
from include.xcom.reference import PayloadReference
from include.xcom.settings import BUCKET_VARIABLE, load_settings
from include.xcom.stores import DirectoryStore
from include.xcom_backend import GCPBucketXComBackend as Backend

PLACE: dict[str, Any] = {"key": "return_value", "dag_id": "sales", "task_id": "load", "run_id": "manual__1"}
LARGE = [list(range(9)) * 4000, {"pair": (1, b"x" * 2000)}, "y" * 100_000]
SLOW_SECONDS = 0.5

asynchronous = pytest.mark.skipif(
    not hasattr(BaseXCom, "aget_one"), reason="async XComs came with Airflow 3.3"
)


class Supervisor:
    """Answers the messages of the SDK as the supervisor does, from a dict in place of a database.

    One request at a time, and async ones are answered in the event loop's own threads: that is what
    the SDK's channel does.
    """

    def __init__(self) -> None:
        self.rows: dict[int, str] = {}
        self.variables: dict[str, str] = {}
        self.one_at_a_time = threading.Lock()
        self.in_order: asyncio.Lock | None = None

    def send(self, msg: Any) -> Any:
        with self.one_at_a_time:
            return self.answer(msg)

    async def asend(self, msg: Any) -> Any:
        self.in_order = self.in_order or asyncio.Lock()
        async with self.in_order:
            await asyncio.get_running_loop().run_in_executor(None, self.one_at_a_time.acquire)
            try:
                return await asyncio.to_thread(self.answer, msg)
            finally:
                self.one_at_a_time.release()

    def answer(self, msg: Any) -> Any:
        kind = type(msg).__name__
        index = -1 if getattr(msg, "map_index", None) is None else msg.map_index
        if kind == "SetXCom":
            self.rows[index] = json.dumps(msg.value)
            return None
        if kind == "GetXCom":
            row = self.rows.get(index)
            return comms.XComResult(key=msg.key, value=row and json.loads(row))
        if kind == "GetXComSequenceSlice":
            return comms.XComSequenceSliceResult(
                root=[json.loads(self.rows[index]) for index in sorted(self.rows)]
            )
        if kind == "DeleteXCom":
            del self.rows[index]
            return None
        if kind == "GetVariable":
            return comms.VariableResult(key=msg.key, value=self.variables[msg.key])
        if kind == "MaskSecret":
            return None
        raise AssertionError(f"unexpected message {msg!r}")


@pytest.fixture(autouse=True)
def forget_what_may_be_deserialised() -> Iterator[None]:
    """Airflow reads its allow-list once; other tests have one of their own."""
    yield
    for name in ("_get_patterns", "_get_regexp_patterns", "_match_glob", "_match_regexp"):
        getattr(getattr(serde(), name, None), "cache_clear", lambda: None)()


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    """What tasks talk to."""
    fake = Supervisor()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", fake, raising=False)
    return fake


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make the store slow; give how many requests were under way at each request."""
    under_way: list[int] = []
    counter, lock = [0], threading.Lock()

    def slowly(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            with lock:
                counter[0] += 1
                under_way.append(counter[0])
            time.sleep(SLOW_SECONDS)
            with lock:
                counter[0] -= 1
            return function(*args)

        return call

    monkeypatch.setattr(DirectoryStore, "put", slowly(DirectoryStore.put))
    monkeypatch.setattr(DirectoryStore, "get", slowly(DirectoryStore.get))
    return under_way


def push_all() -> None:
    for index, value in enumerate(LARGE):
        Backend.set(**PLACE, value=value, map_index=index)


def sequence() -> Any:
    """What a task gets for the output of mapped tasks."""
    from airflow.sdk.execution_time.lazy_sequence import LazyXComSequence

    operator = SimpleNamespace(dag_id=PLACE["dag_id"], task_id=PLACE["task_id"])
    source: Any = SimpleNamespace(key=PLACE["key"], operator=operator)
    instance: Any = SimpleNamespace(run_id=PLACE["run_id"])
    return LazyXComSequence(xcom_arg=source, ti=instance)


def test_pushed_values_are_pulled_one_by_one_and_all_at_once(supervisor: Supervisor) -> None:
    """The rows are references, the values are as they were and in order."""
    push_all()

    assert all(PayloadReference.from_row(json.loads(row)) for row in supervisor.rows.values())
    assert [Backend.get_one(**PLACE, map_index=index) for index in range(3)] == LARGE
    assert Backend.get_all(**PLACE) == LARGE


def test_nothing_pushed_is_pulled_as_none(supervisor: Supervisor) -> None:
    """As without a backend."""
    assert Backend.get_one(**PLACE) is None
    assert Backend.get_all(**PLACE) is None


def test_deleted_xcom_leaves_no_payload(supervisor: Supervisor, payload_folder: Path) -> None:
    """What a retry does before the task starts again."""
    Backend.set(**PLACE, value=LARGE[0], map_index=-1)

    Backend.delete(**PLACE, map_index=-1)

    assert supervisor.rows == {}
    assert list(payload_folder.iterdir()) == []


def test_hooks_of_airflow_3_4_take_a_coordinate_and_what_the_row_holds() -> None:
    """``load_value`` gets the stored value itself, not a result that has it."""
    for index, place in ((None, "-1"), (7, "7")):
        own = {name: PLACE[name] for name in ("dag_id", "run_id", "task_id")}
        coordinate = SimpleNamespace(**own, ti_id=None, region_id=None, region_index=index)

        row = Backend.store_value(coordinate, "return_value", LARGE[1])

        assert f"/sales/manual__1/load/{place}/return_value/" in row["__data__"]["uri"]
        assert Backend.load_value(json.loads(json.dumps(row))) == LARGE[1]


def test_load_all_takes_a_lazy_sequence(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows with one message, the payloads in parallel, in order."""
    monkeypatch.setattr("airflow.sdk.execution_time.xcom.XCom", Backend)
    push_all()

    assert load_all(sequence()) == LARGE


async def ticks_during(awaitable: Awaitable[Any]) -> tuple[int, Any]:
    """Return how often another coroutine got its turn meanwhile, and the result."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticker = asyncio.create_task(tick())
    result = await awaitable
    ticker.cancel()
    return ticks, result


@asynchronous
@pytest.mark.parametrize("method", ["aget_one", "aget_all", "aset"])
def test_async_method_leaves_the_event_loop_free(
    method: str, supervisor: Supervisor, slow: list[int]
) -> None:
    """A triggerer's other triggers go on while a payload travels for half a second."""
    push_all()
    del slow[:]
    calls: dict[str, Any] = {
        "aget_one": lambda: Backend.aget_one(**PLACE, map_index=1),
        "aget_all": lambda: Backend.aget_all(**PLACE),
        "aset": lambda: Backend.aset(**PLACE, value=LARGE[1], map_index=1),
    }

    ticks, result = asyncio.run(ticks_during(calls[method]()))

    # About fifty on an idle machine; none or one when the loop waits.
    assert ticks >= 8
    assert result == {"aget_one": LARGE[1], "aget_all": LARGE, "aset": None}[method]
    assert max(slow) == (3 if method == "aget_all" else 1)


@asynchronous
def test_async_push_is_read_by_sync_pull(supervisor: Supervisor) -> None:
    """One row, one payload."""
    asyncio.run(Backend.aset(**PLACE, value=LARGE[1], map_index=0))

    assert PayloadReference.from_row(json.loads(supervisor.rows[0])) is not None
    assert Backend.get_one(**PLACE, map_index=0) == LARGE[1]


@asynchronous
def test_many_async_reads_at_once_do_not_wait_for_each_other_for_ever(
    supervisor: Supervisor, payload_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first read of a process asks for a Variable, and Airflow needs a thread of the loop to answer."""
    Backend.set(**PLACE, value=LARGE[1], map_index=-1)
    monkeypatch.delenv("AIRFLOW__GCS_XCOM__BUCKET")
    supervisor.variables[BUCKET_VARIABLE] = payload_folder.as_uri()
    load_settings.cache_clear()

    async def read() -> list[Any]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        return await asyncio.wait_for(asyncio.gather(*(Backend.aget_one(**PLACE) for _ in range(20))), 30)

    assert asyncio.run(read()) == [LARGE[1]] * 20


@pytest.fixture
def rows_of_a_backend_that_is_off(supervisor: Supervisor) -> None:
    """Written with the backend; from now on, Airflow uses its own class."""
    push_all()
    supervisor.rows[-1] = supervisor.rows[0]


@pytest.mark.parametrize("method", ["get_one", "get_all"])
def test_reader_without_the_backend_gets_an_error(method: str, rows_of_a_backend_that_is_off: None) -> None:
    """Never the reference as if it were the value."""
    with pytest.raises(ImportError, match=r"gcs_xcom.Payload was not found in allow list"):
        getattr(BaseXCom, method)(**PLACE)


@asynchronous
@pytest.mark.parametrize("method", ["aget_one", "aget_all"])
def test_async_reader_without_the_backend_gets_an_error(
    method: str, rows_of_a_backend_that_is_off: None
) -> None:
    """The same in async tasks and triggers."""
    with pytest.raises(ImportError, match=r"gcs_xcom.Payload was not found in allow list"):
        asyncio.run(getattr(BaseXCom, method)(**PLACE))


def test_load_all_without_the_backend_gets_an_error(rows_of_a_backend_that_is_off: None) -> None:
    """It asks Airflow, which refuses."""
    with pytest.raises(ImportError, match=r"gcs_xcom.Payload was not found in allow list"):
        load_all(sequence())


def test_load_all_without_the_backend_returns_what_airflow_decoded(supervisor: Supervisor) -> None:
    """Decoded once: data that looks serialised stays data."""
    value = (1, {"when": (2, 3)})
    supervisor.rows[0] = json.dumps(BaseXCom.serialize_value(value))

    assert load_all(sequence()) == [value]


@pytest.mark.parametrize("value", [LARGE[0], (1, 2)], ids=["payload", "inline"])
@pytest.mark.parametrize("allowed", ["airflow.*", "airflow.* gcs_xcom.*"])
def test_reader_without_the_backend_gets_an_error_whatever_is_allowed(
    allowed: str, value: Any, tmp_path: Path
) -> None:
    """Also where any class may be deserialised: no row of ours names one."""
    row = Backend.serialize_value(value, **PLACE)
    code = (
        "import sys, json; from collections import namedtuple; from airflow.sdk.bases.xcom import BaseXCom\n"
        "try: print(BaseXCom.deserialize_value(namedtuple('R', 'value')(json.loads(sys.argv[1]))))\n"
        "except ImportError: print('raised ImportError')"
    )
    environment = {**os.environ, "AIRFLOW__CORE__ALLOWED_DESERIALIZATION_CLASSES": allowed}

    said = subprocess.run(
        [sys.executable, "-c", code, json.dumps(row)],
        env=environment | {"AIRFLOW_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()

    assert said[-1] == "raised ImportError"
