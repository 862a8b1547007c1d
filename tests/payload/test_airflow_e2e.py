"""The whole way through a real Airflow: its own processes, its REST API and a PostgreSQL server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
from postgres import free_port, postgres_server

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1] / "{{cookiecutter.project_slug}}"
AIRFLOW_PROJECT = HERE / "airflow_project"
DAG = "everything"
# Of a machine that does other things besides; an idle one takes a tenth.
START_SECONDS, RUN_SECONDS, CALL_SECONDS = 400, 900, 60
COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")

pytestmark = pytest.mark.airflow


@dataclass
class Airflow:
    """A running deployment.

    Attributes:
        url: Of the API server.
        payloads: The directory that serves as the bucket.
        notes: A file into which tasks of the test's Dag write lines.
        rows: Gives all XComs as the database has them: ``{(task_id, map_index, key): value}``.
    """

    url: str
    payloads: Path
    notes: Path
    rows: Callable[[], dict[tuple[str, int, str], Any]]
    token: str = ""

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Call the REST API and return what it answers."""
        headers = {"content-type": "application/json", "authorization": f"Bearer {self.token}"}
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.url}{path}", data, headers, method=method)
        with urlopen(request, timeout=CALL_SECONDS) as response:
            return json.load(response)

    def wait_for_run(self, run_id: str) -> None:
        """Wait until a Dag run has ended; fail if not well."""
        path = f"/api/v2/dags/{DAG}/dagRuns/{quote(run_id)}"
        deadline = time.monotonic() + RUN_SECONDS
        state = "not known"
        while state not in ("success", "failed"):
            assert time.monotonic() < deadline, f"the run is still {state}: {self.task_states(run_id)}"
            time.sleep(0.5)
            with suppress(TimeoutError):
                state = self.call("GET", path)["state"]
        assert state == "success", self.task_states(run_id)

    def task_states(self, run_id: str) -> dict[str, str]:
        tasks = self.call("GET", f"/api/v2/dags/{DAG}/dagRuns/{quote(run_id)}/taskInstances")
        return {f"{ti['task_id']}[{ti['map_index']}]": ti["state"] for ti in tasks["task_instances"]}

    def xcom(self, run_id: str, task_id: str, query: str = "") -> Any:
        """Return an XCom's value as the REST API shows it."""
        path = f"/api/v2/dags/{DAG}/dagRuns/{quote(run_id)}/taskInstances/{task_id}/xcomEntries/return_value"
        return self.call("GET", path + query)["value"]

    def files(self) -> set[str]:
        """Return the URIs of all payloads that lie in the directory."""
        return {f"file://{path}" for path in self.payloads.rglob("*") if path.is_file()}

    def uris(self) -> set[str]:
        """Return the URIs of all payloads that rows refer to."""
        return {row["__data__"]["uri"] for row in self.rows().values() if is_reference(row)}


def is_reference(row: Any) -> bool:
    return isinstance(row, dict) and row.get("__classname__") == "gcs_xcom.Payload"


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """Start all components with LocalExecutor; the bucket is named by the Airflow Variable alone."""
    psycopg2 = pytest.importorskip(
        "psycopg2", reason="psycopg2 is not installed: pip install psycopg2-binary"
    )
    pytest.importorskip("asyncpg", reason="asyncpg is not installed: pip install asyncpg")
    home = tmp_path_factory.mktemp("airflow")
    payloads, notes, logs = home / "payloads", home / "notes", home / "component-logs"
    payloads.mkdir()
    logs.mkdir()
    with ExitStack() as stack:
        address = stack.enter_context(postgres_server())
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        environment = {
            **{
                name: text for name, text in os.environ.items() if not name.startswith(("AIRFLOW", "GOOGLE_"))
            },
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__API__BASE_URL": url,
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__SECRET_KEY": "not a secret, for one test only",
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": "not a secret, for one test only; as long as a key must be to sign",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(AIRFLOW_PROJECT / "dags"),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "3",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__XCOM_BACKEND": "include.xcom_backend.GCPBucketXComBackend",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{address}",
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            # On a busy machine the API server may need more than five seconds for its first answer.
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": str(CALL_SECONDS),
            "E2E_NOTES": str(notes),
            "NO_PROXY": "127.0.0.1",
            "PYTHONPATH": os.pathsep.join((str(PROJECT), str(AIRFLOW_PROJECT))),
        }

        def command(*words: str) -> list[str]:
            return [sys.executable, "-m", "airflow", *words]

        for words in (
            ("db", "migrate"),
            ("variables", "set", "XCOM_BACKEND_DATA_GCS_NAME", payloads.as_uri()),
        ):
            done = subprocess.run(
                command(*words), env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        processes = {}
        for name in COMPONENTS:
            output = stack.enter_context((logs / name).open("w"))
            # A group of its own, so that the processes it has made end with it.
            processes[name] = subprocess.Popen(
                command(name), env=environment, stdout=output, stderr=output, start_new_session=True
            )
            stack.callback(_stop, processes[name])

        def rows() -> dict[tuple[str, int, str], Any]:
            connection = psycopg2.connect(f"postgresql://{address}")
            try:
                cursor = connection.cursor()
                cursor.execute("SELECT task_id, map_index, key, value FROM xcom")
                return {(task_id, index, key): value for task_id, index, key, value in cursor.fetchall()}
            finally:
                connection.close()

        deployment = Airflow(url, payloads, notes, rows)
        _wait_until_ready(deployment, processes, logs)
        yield deployment


def _wait_until_ready(airflow: Airflow, processes: dict[str, subprocess.Popen[bytes]], logs: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    state: object = "nothing answers"
    while True:
        for name, process in processes.items():
            assert process.poll() is None, f"{name} stopped: {(logs / name).read_text()[-3000:]}"
        assert time.monotonic() < deadline, f"Airflow is not ready: {state}"
        try:
            health = airflow.call("GET", "/api/v2/monitor/health")
            state = {name: part["status"] for name, part in health.items()}
            if set(state.values()) == {"healthy"}:
                airflow.token = airflow.token or airflow.call("GET", "/auth/token")["access_token"]
                dags = [dag["dag_id"] for dag in airflow.call("GET", "/api/v2/dags")["dags"]]
                errors = airflow.call("GET", "/api/v2/importErrors")["import_errors"]
                assert not errors, errors[0]["stack_trace"]
                state = f"Dags: {dags}"
                if DAG in dags:
                    return
        except (URLError, OSError) as error:
            state = error
        time.sleep(0.5)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=20)


@pytest.fixture(scope="module")
def run_id(airflow: Airflow) -> str:
    """One run of the Dag, ended well: its tasks have compared every value they got."""
    run = airflow.call("POST", f"/api/v2/dags/{DAG}/dagRuns", {"logical_date": None})
    airflow.wait_for_run(run["dag_run_id"])
    return str(run["dag_run_id"])


def test_every_task_gets_what_was_returned(airflow: Airflow, run_id: str) -> None:
    """Sync, async and deferred tasks, mapped ones, and one that needed a second try."""
    states = airflow.task_states(run_id)

    assert set(states.values()) == {"success"}
    assert len(states) == 12


def test_rows_and_payloads_belong_to_each_other(airflow: Airflow, run_id: str) -> None:
    """Every row's payload is there, and no payload is without a row."""
    assert airflow.uris() == airflow.files()
    assert len(airflow.files()) >= 9


def test_small_value_is_in_the_database_as_it_is(airflow: Airflow, run_id: str) -> None:
    """The API shows it, and so does the row."""
    value = {"text": "plain", "numbers": [1, 2.5, -3, 1e15], "none": None, "nested": {"yes": True}}

    assert airflow.rows()["inline", -1, "return_value"] == value
    assert airflow.xcom(run_id, "inline", "?stringify=false") == value


def test_small_value_that_json_lacks_is_in_the_database_and_shown_readably(
    airflow: Airflow, run_id: str
) -> None:
    """The row has it in our own form, without a payload."""
    shown = airflow.xcom(run_id, "tagged", "?deserialize=true")

    assert airflow.rows()["tagged", -1, "return_value"]["__data__"]["pair"] == {"$tuple": [1, 2]}
    assert shown.startswith("gcs_xcom.Value@version=1(")
    assert "when={'$datetime': '2026-07-01T06:30:00'}" in shown


def test_stored_value_is_shown_readably(airflow: Airflow, run_id: str) -> None:
    """What the user interface asks for; it names the payload and its size, and reads no payload."""
    row = airflow.rows()["records", -1, "return_value"]
    shown = airflow.xcom(run_id, "records", "?deserialize=true")

    assert shown.startswith("gcs_xcom.Payload@version=1(")
    assert f"uri='{row['__data__']['uri']}'" in shown
    assert f"bytes={row['__data__']['bytes']}" in shown


def test_payload_of_a_failed_try_is_gone(airflow: Airflow, run_id: str) -> None:
    """The task wrote down the file of each try while it was there."""
    first, second = map(Path, airflow.notes.read_text().splitlines())

    assert first != second
    assert not first.exists()
    assert second.exists()
    assert airflow.rows()["second_try", -1, "attempt"]["__data__"]["uri"] == f"file://{second}"


def test_clearing_a_task_removes_its_payload_and_writes_a_new_one(airflow: Airflow, run_id: str) -> None:
    """As a person does in the user interface; only that task runs again."""
    key = ("records", -1, "return_value")
    before, old = airflow.files(), airflow.rows()[key]["__data__"]["uri"]
    body = {"dag_run_id": run_id, "task_ids": ["records"], "dry_run": False, "only_failed": False}

    airflow.call("POST", f"/api/v2/dags/{DAG}/clearTaskInstances", body)
    airflow.wait_for_run(run_id)

    new = airflow.rows()[key]["__data__"]["uri"]
    assert new != old
    assert airflow.files() == before - {old} | {new}
    assert airflow.uris() == airflow.files()
