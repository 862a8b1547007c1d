"""The state store backend: every case of ``state_cases``, faults of a server, and Airflow's own examples."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import fault_proxy
import pytest
import state_cases
from fake_gcs_server import GCSServer
from fault_proxy import FaultProxy
from hypothesis import given
from hypothesis import strategies as st
from include.state_backend import GCSStateBackend
from include.xcom import state
from include.xcom.errors import (
    PayloadCorruptError,
    PayloadMissingError,
    PayloadTooLargeError,
    ReferenceNotAllowedError,
    SettingsError,
    StoreUnavailableError,
    UnsupportedTypeError,
)
from include.xcom.settings import load_settings
from include.xcom.state import StateKey
from state_cases import ASSET, LARGE, TASK

PROJECT = Path(__file__).resolve().parents[2] / "{{cookiecutter.project_slug}}"
DOCUMENT = PROJECT.parent / "docs" / "state-store.md"


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GCSStateBackend:
    """The backend with an empty folder."""
    (tmp_path / "objects").mkdir()
    monkeypatch.setenv("AIRFLOW__GCS_XCOM__BUCKET", (tmp_path / "objects").as_uri())
    return GCSStateBackend()


@pytest.fixture
def proxy(gcs_server: GCSServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy before a bucket of the emulator, to which the backend is pointed."""
    with FaultProxy(gcs_server.url) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        monkeypatch.setenv("AIRFLOW__GCS_XCOM__BUCKET", gcs_server.bucket)
        monkeypatch.setenv("AIRFLOW__GCS_XCOM__TIMEOUT_SECONDS", "3")
        monkeypatch.setattr(
            "include.xcom.stores.credentials._connection_fields", lambda conn_id: {}, raising=False
        )
        yield proxy


def store(backend: GCSStateBackend, value: Any, key: str = "cursor") -> str:
    return backend.serialize_task_state_store_to_ref(value=value, key=key, scope=TASK)


def load(backend: GCSStateBackend, row: str) -> Any:
    return backend.deserialize_task_state_store_from_ref(row)


@pytest.mark.parametrize("name", state_cases.CASES)
def test_case_leaves_nothing_to_complain_of(name: str, tmp_path: Path) -> None:
    """No wrong value, no None, no leak, no hang, and errors that name what they are about."""
    assert state_cases.complaint(name, "ours", tmp_path) == ""


def test_documented_table_is_what_the_cases_give() -> None:
    """Of both backends."""
    assert state_cases.table() in DOCUMENT.read_text()


def test_requests_are_one_for_each_object(proxy: FaultProxy) -> None:
    """A write and a read take one each; a delete one more than it has objects; a small value none."""
    backend = GCSStateBackend()
    rows = [store(backend, [number, LARGE]) for number in range(3)]
    assert [method for method, *_ in proxy.requests] == ["POST"] * 3

    assert load(backend, rows[1]) == [1, LARGE]
    assert proxy.count("GET") == 1

    backend.delete(TASK, "cursor")
    assert (proxy.count("GET"), proxy.count("DELETE")) == (2, 3)

    assert load(backend, store(backend, "small")) == "small"
    assert proxy.count() == 8


@pytest.mark.parametrize(
    "fault",
    [fault_proxy.answer(503), fault_proxy.reset, fault_proxy.lose_response],
    ids=lambda fault: fault.__name__,
)
def test_fault_that_passes_is_not_noticed(fault: fault_proxy.Fault, proxy: FaultProxy) -> None:
    """Writing, reading and deleting are tried again, and nothing is left behind."""
    backend = GCSStateBackend()
    proxy.plan(fault, method="POST")
    row = store(backend, LARGE)
    proxy.plan(fault, method="GET")
    assert load(backend, row) == LARGE
    proxy.plan(fault, method="DELETE")
    backend.delete(TASK, "cursor")

    with pytest.raises(PayloadMissingError, match=r'Cannot read state "cursor" of sales\.load'):
        load(backend, row)


@pytest.mark.parametrize(
    "fault",
    [fault_proxy.flip_download, fault_proxy.garble_answer],
    ids=lambda fault: fault.__name__,
)
def test_bytes_that_are_not_those_written_are_an_error(fault: fault_proxy.Fault, proxy: FaultProxy) -> None:
    """Of whatever a network or server makes of them, nothing is decoded."""
    backend = GCSStateBackend()
    row = store(backend, LARGE)
    proxy.plan(fault, method="GET", always=True)

    with pytest.raises((PayloadCorruptError, StoreUnavailableError), match=r'"cursor" of sales\.load'):
        load(backend, row)


@pytest.mark.parametrize("status", [403, 503])
def test_deleting_never_fails_the_task(
    status: int, proxy: FaultProxy, gcs_server: GCSServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Airflow clears state when a task has succeeded already; the log says that the sweep is to do the rest."""
    backend = GCSStateBackend()
    store(backend, LARGE)
    proxy.plan(fault_proxy.answer(status), method="DELETE", always=True)

    backend.delete(TASK, "cursor")
    backend.clear(TASK)

    assert "remains until the sweep" in caplog.text
    assert len(gcs_server.names()) == 1


def test_value_over_the_limit_is_refused_before_upload(
    backend: GCSStateBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a payload over the limit of the reader is not read."""
    row = store(backend, LARGE)
    monkeypatch.setenv("AIRFLOW__GCS_XCOM__MAX_PAYLOAD_BYTES", "1000")
    load_settings.cache_clear()
    before = list((tmp_path / "objects").rglob("*.*"))

    with pytest.raises(PayloadTooLargeError, match=r'^state "cursor" of sales.load .* the limit is 1000'):
        store(backend, [LARGE])
    with pytest.raises(PayloadTooLargeError, match=r"over the limit of 1000"):
        load(backend, row)
    assert list((tmp_path / "objects").rglob("*.*")) == before


def test_refused_value_names_the_place(backend: GCSStateBackend) -> None:
    """In Python's notation, with what to write instead of a datetime."""
    with pytest.raises(UnsupportedTypeError) as caught:
        store(backend, {"rows": [{"at": 1}, {"at": datetime(2026, 11, 1)}]})

    assert caught.value.path == "['rows'][1]['at']"
    assert "value.isoformat()" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        pytest.param({"__version__": 2}, ReferenceNotAllowedError, "version 2", id="version"),
        pytest.param({"__version__": True}, ReferenceNotAllowedError, "malformed|version", id="version-type"),
        pytest.param({"__data__": None}, ReferenceNotAllowedError, "malformed", id="no-data"),
        pytest.param({"scope": ["task", "sales"]}, ReferenceNotAllowedError, "malformed", id="scope"),
        pytest.param({"scope": ["shelf", "a", "b"]}, ReferenceNotAllowedError, "malformed", id="kind"),
        pytest.param({"scope": [{}]}, ReferenceNotAllowedError, "malformed", id="scope-type"),
        pytest.param({"key": 5}, ReferenceNotAllowedError, "malformed", id="key-type"),
        pytest.param({"key": "other"}, ReferenceNotAllowedError, "not one that this backend wrote", id="key"),
        pytest.param({"payload": None}, ReferenceNotAllowedError, "malformed", id="no-payload"),
        pytest.param({"bytes": 5}, PayloadCorruptError, "sales.load", id="size"),
        pytest.param({"bytes": -1}, ReferenceNotAllowedError, "bytes", id="negative-size"),
        pytest.param({"bytes": 10**15}, PayloadTooLargeError, "over the limit", id="huge"),
        pytest.param({"crc32c": "00000000"}, PayloadCorruptError, "sales.load", id="checksum"),
        pytest.param({"codec": "pandas-frame"}, PayloadCorruptError, "state is JSON", id="codec"),
        pytest.param({"codec": "x" * 10**6}, PayloadCorruptError, "state is JSON", id="long-codec"),
        pytest.param({"codec_version": 9}, PayloadCorruptError, "newer include/xcom", id="codec-version"),
    ],
)
def test_changed_reference_is_refused(
    change: dict[str, Any], error: type[Exception], said: str, backend: GCSStateBackend
) -> None:
    """Anyone who may write state over REST can write such a row."""
    row = json.loads(store(backend, LARGE))
    for place in (row, row["__data__"], row["__data__"]["payload"]["__data__"]):
        place.update({name: value for name, value in change.items() if name in place})

    with pytest.raises(error, match=said) as caught:
        load(backend, json.dumps(row))
    assert len(str(caught.value)) < 2000


def test_reference_to_another_generation_is_missing(proxy: FaultProxy) -> None:
    """Somebody has put another object in its place."""
    backend = GCSStateBackend()
    row = store(backend, LARGE).replace('"generation": "', '"generation": "9')

    with pytest.raises(PayloadMissingError, match=r"sales\.load"):
        load(backend, row)


def test_async_twins_leave_the_loop_free(backend: GCSStateBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that takes its time to delete blocks no other coroutine."""
    threads = []

    def slow(*_: Any) -> None:
        threads.append(threading.current_thread())
        time.sleep(0.5)

    monkeypatch.setattr("include.state_backend._delete", slow)

    async def both() -> int:
        turns = 0
        calls = asyncio.gather(backend.adelete(TASK, "cursor"), backend.aclear(ASSET))
        while not calls.done():
            await asyncio.sleep(0.01)
            turns += 1
        return turns

    assert asyncio.run(both()) > 10
    assert threading.main_thread() not in threads


def test_backend_in_the_place_of_the_table_is_refused(backend: GCSStateBackend) -> None:
    """[state_store] backend wants one that needs no row."""
    calls: list[Callable[[], object]] = [
        lambda: backend.get(TASK, "cursor"),
        lambda: backend.set(TASK, "cursor", "1"),
        lambda: asyncio.run(backend.aget(TASK, "cursor", session=None)),
        lambda: asyncio.run(backend.aset(TASK, "cursor", "1", expires_at=None)),
    ]
    for call in calls:
        with pytest.raises(SettingsError, match=r"AIRFLOW__WORKERS__STATE_STORE_BACKEND"):
            call()


def test_older_airflow_is_told_what_is_needed() -> None:
    """The Dockerfile sets the backend for every version; nothing below 3.3 imports it."""
    code = "import sys; sys.modules['airflow.sdk.state'] = None; import include.state_backend"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "ImportError: include.state_backend needs Airflow 3.3 or newer" in done.stderr


_texts = st.text(max_size=600)
_scopes = st.one_of(
    st.tuples(st.just("task"), _texts, _texts, _texts, st.just("-"), st.integers(-1, 2**31).map(str)),
    st.tuples(st.just("asset"), st.sampled_from(["name", "uri", "id"]), _texts),
)


@given(_scopes, _texts, st.sampled_from(["", "xcom", "p" * 200]))
def test_names_fit_and_lead_back_to_the_key(scope: tuple[str, ...], key: str, prefix: str) -> None:
    """Unless an id is so long that it was hashed; then nothing is claimed of it."""
    name = state.object_name(prefix, StateKey(scope, key), "json.zst")

    assert len(name) <= 1024
    assert name.isascii()
    found = state.key_of_object(name, prefix)
    assert found == StateKey(scope, key) or (found is None and "=" in name.replace(state.FOLDER, "", 1))


@given(_texts, _texts, _texts)
def test_different_keys_never_share_a_folder(left: str, right: str, task_id: str) -> None:
    """Nor is one inside another."""
    folders = [state.folder_of("xcom", ("asset", "name", task_id), key) for key in (left, right)]

    assert (folders[0] == folders[1]) == (left == right)
    assert left == right or not folders[0].startswith(folders[1])


def test_folder_of_another_key_on_a_disk_that_knows_no_capitals(tmp_path: Path) -> None:
    """MacOS lists the file of the key "A" below the folder "a", too."""
    name = state.object_name("xcom", StateKey(("asset", "name", "x"), "A"), "json.zst")

    assert state.belongs_to_folder(name, "xcom")
    assert not state.belongs_to_folder(name.replace("/A/", "/a/"), "xcom")
    assert state.key_of_object(name.replace("/A/", "/a/"), "xcom") is None


_EXAMPLES = {
    "example_task_state_store": {"job_id", "submitted_at", "status", "result"},
    "example_task_state_store_mapped": {"status", "result"},
    "example_asset_state_store_producer": {"watermark", "total_runs", "last_run_summary"},
}


@pytest.mark.airflow
def test_airflows_own_examples_run(tmp_path: Path) -> None:
    """With every value as an object; one of them fails first, and goes on from its state in the second try."""
    from airflow import example_dags

    (tmp_path / "objects").mkdir()
    # Not the folder itself: other examples in it need a plugin of Airflow's own.
    dags = tmp_path / "dags"
    dags.mkdir()
    for file in Path(example_dags.__file__).parent.glob("example_*_state_store*.py"):
        shutil.copy(file, dags)
    kept = {name: text for name, text in os.environ.items() if not name.startswith("AIRFLOW")}
    environment = kept | {
        "AIRFLOW_HOME": str(tmp_path / "home"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__WORKERS__STATE_STORE_BACKEND": "include.state_backend.GCSStateBackend",
        "AIRFLOW__GCS_XCOM__BUCKET": (tmp_path / "objects").as_uri(),
        "AIRFLOW__GCS_XCOM__THRESHOLD_BYTES": "0",
        "PYTHONPATH": str(PROJECT),
    }

    # As `airflow dags test` runs one; most of the time of that command is its start.
    run_all = (
        "import sys; from airflow.dag_processing.dagbag import DagBag; dags = DagBag(sys.argv[1]).dags\n"
        "for dag_id in sys.argv[2:]: dags[dag_id].test()"
    )
    said = ""
    for words in (["-m", "airflow", "db", "migrate"], ["-c", run_all, str(dags), *_EXAMPLES]):
        command = [sys.executable, *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said[-3000:]

    found: dict[str, set[str]] = {}
    for file in (tmp_path / "objects").rglob("*.json.zst"):
        where = state.key_of_object(file.relative_to(tmp_path / "objects").as_posix(), "xcom")
        assert where is not None
        is_asset = where.scope[0] == "asset"
        found.setdefault("example_asset_state_store_producer" if is_asset else where.scope[1], set()).add(
            where.key
        )
    assert found == _EXAMPLES
    assert "Try 2: reattaching to existing job: job-" in said
