"""Operators that run code elsewhere than in the worker's Python: what they get, and where their result goes."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import airflow_server
import pytest

PROJECT = Path(__file__).resolve().parents[2] / "{{cookiecutter.project_slug}}"
DAGS = Path(__file__).resolve().parent / "other_tasks"
OTHER_LANGUAGES = Path(__file__).resolve().parent / "other_languages"
TYPESCRIPT_SDK = "apache-airflow-ts-sdk@0.1.0-beta1"

pytestmark = pytest.mark.airflow


@pytest.fixture(scope="module")
def types(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Run the Dag, whose tasks compare what they get; give the type of each result that is in the store."""
    for provider in ("cncf.kubernetes", "docker"):
        pytest.importorskip(
            f"airflow.providers.{provider}",
            reason=f"pip install apache-airflow-providers-{provider.replace('.', '-')}",
        )
    home = tmp_path_factory.mktemp("airflow")
    (home / "objects").mkdir()
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHON"))}
    environment = kept | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__XCOM_BACKEND": "include.xcom_backend.GCPBucketXComBackend",
        "AIRFLOW__GCS_XCOM__BUCKET": (home / "objects").as_uri(),
        "PYTHONPATH": str(PROJECT),
        # Where `uv`, which makes virtual environments without a network, is looked for.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    for words in (("db", "migrate"), ("dags", "test", "other_tasks")):
        command = [sys.executable, "-m", "airflow", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    with closing(sqlite3.connect(home / "airflow.db")) as database:
        (state,) = database.execute("select state from dag_run").fetchone()
        rows: list[tuple[str, Any]] = database.execute("select task_id, value from xcom").fetchall()
    assert state == "success", done.stdout[-4000:]
    parsed = {task_id: json.loads(value) for task_id, value in rows if value and value.startswith("{")}
    return {task_id: row["__data__"]["type"] for task_id, row in parsed.items()}


@pytest.mark.parametrize(
    ("task_id", "kind"),
    [
        ("shell", "str"),
        ("virtualenv", "list"),
        ("external_python", "pandas.DataFrame"),
        ("pod", "list"),
        ("container", "list"),
    ],
)
def test_result_is_a_payload_and_inputs_are_values(task_id: str, kind: str, types: dict[str, str]) -> None:
    """The worker resolves references before, and stores results after, wherever the code itself runs."""
    assert types[task_id] == kind


@pytest.fixture(scope="module")
def typescript_rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run a Dag with tasks of the TypeScript SDK on Airflow's own executor; give the row of each task."""
    if not shutil.which("npm"):
        pytest.skip("npm is not on PATH: install Node.js 22, which the TypeScript SDK of Airflow runs on")
    home = tmp_path_factory.mktemp("typescript")
    (home / "objects").mkdir()
    script = Path(shutil.copy(OTHER_LANGUAGES / "typescript_tasks.mjs", home))
    subprocess.run(["npm", "install", "--prefix", home, TYPESCRIPT_SDK], capture_output=True, check=True)
    coordinator = {"classpath": "node_coordinator.NodeCoordinator", "kwargs": {"script": str(script)}}
    settings = {
        "AIRFLOW__API_AUTH__JWT_SECRET": "the server and the executor share this secret, which is long",
        "AIRFLOW__CORE__DAGS_FOLDER": str(OTHER_LANGUAGES),
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "1",
        "AIRFLOW__CORE__XCOM_BACKEND": "include.xcom_backend.GCPBucketXComBackend",
        "AIRFLOW__GCS_XCOM__BUCKET": (home / "objects").as_uri(),
        "AIRFLOW__SDK__COORDINATORS": json.dumps({"node": coordinator}),
        "AIRFLOW__SDK__QUEUE_TO_COORDINATOR": json.dumps({"typescript": "node"}),
        "PYTHONPATH": f"{PROJECT}{os.pathsep}{OTHER_LANGUAGES}",
    }
    server = airflow_server.start(home, apps="all", more=settings)
    try:
        port = int(server.url.rpartition(":")[2])
        settings["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] = f"{server.url}/execution/"
        done = subprocess.run(
            [sys.executable, "-m", "airflow", "dags", "test", "typescript_tasks", "--use-executor"],
            env=airflow_server.environment(home, port) | settings,
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        server.process.terminate()
        server.process.wait()
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    with closing(sqlite3.connect(server.database)) as database:
        rows = database.execute("select task_id, value from xcom where key = 'return_value'").fetchall()
    return {task_id: json.loads(value) for task_id, value in rows}


def test_typescript_task_gets_the_row_as_it_is(typescript_rows: dict[str, Any]) -> None:
    """A map with the place of the object for a large value, tags for types that JSON does not have."""
    pulled = json.loads(typescript_rows["look"]["pulled"])

    assert pulled["small"] == {"rows": 2}
    assert pulled["dated"]["__data__"] == {"day": {"$date": "2026-07-01"}}
    assert pulled["large"] == typescript_rows["large"]
    assert pulled["large"]["__data__"]["uri"].startswith("file:///")


def test_typescript_task_returns_rows_that_python_reads(typescript_rows: dict[str, Any]) -> None:
    """Its own values go to the database, whatever their size; a reference that it hands on is followed."""
    assert len(typescript_rows["look"]["made"]) == 5000
    assert typescript_rows["hand_on"] == typescript_rows["large"]
