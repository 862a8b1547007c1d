"""Operators that run code elsewhere than in the worker's Python: what they get, and where their result goes."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2] / "{{cookiecutter.project_slug}}"
DAGS = Path(__file__).resolve().parent / "other_tasks"

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
