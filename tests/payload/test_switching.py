"""The backend turned on, off and on again, in a real Airflow that keeps its XComs meanwhile."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from airflow_server import environment
from fake_gcs_server import ROOT, GCSServer


@pytest.fixture
def run(tmp_path: Path, gcs_server: GCSServer) -> Callable[..., tuple[int, str, str]]:
    """Run the Dag for one day, with the backend or without; exit code, what it said, and the run's id."""
    pytest.importorskip("airflow")
    variables = environment(tmp_path, 8080) | {
        "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parent / "switching"),
        "AIRFLOW__GCS_XCOM__BUCKET": gcs_server.bucket,
        "AIRFLOW_CONN_GOOGLE_CLOUD_STORAGE_DEFAULT": '{"conn_type": "google_cloud_platform"}',
        "PYTHONPATH": str(ROOT / "{{cookiecutter.project_slug}}"),
        "STORAGE_EMULATOR_HOST": gcs_server.url,
    }
    backend = {"AIRFLOW__CORE__XCOM_BACKEND": "include.xcom_backend.GCPBucketXComBackend"}

    def command(*words: str, **more: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *words],
            env=variables | more,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    assert command("db", "migrate")[0] == 0

    def run(day: int, *, reading: list[str], is_on: bool) -> tuple[int, str, str]:
        conf = json.dumps({"runs": reading})
        more = backend if is_on else {}
        code, said = command("dags", "test", "switching", f"2026-01-0{day}", "--conf", conf, **more)
        (run_id,) = set(re.findall(r"DagRun Finished: .*?\brun_id=([^,]+),", said))
        return code, said, run_id

    return run


def read_in(said: str) -> dict[str, str]:
    """What the task printed for each run that it read."""
    return dict(re.findall(r"READ (\S+) (\w+ \d+)", said))


def test_backend_is_turned_on_off_and_on_again(
    run: Callable[..., tuple[int, str, str]], gcs_server: GCSServer, tmp_path: Path
) -> None:
    """Old XComs stay readable when it goes on; a reference without it is an error, and no value is lost."""
    frame = f"DataFrame {sum(range(20_000))}"

    _, _, before = run(1, reading=[], is_on=False)
    code, said, during = run(2, reading=[before], is_on=True)
    assert (code, read_in(said)) == (0, {before: frame}), said[-3000:]
    (name,) = gcs_server.names()
    assert name.startswith("xcom/switching/manual__")

    # Off: what was always in the database is read; the task that meets a reference fails.
    code, said, after = run(3, reading=[before, during], is_on=False)
    assert (code, read_in(said)) == (1, {before: frame}), said[-3000:]
    assert "gcs_xcom.Payload was not found in allow list" in said
    with closing(sqlite3.connect(tmp_path / "airflow.db")) as database:
        states = dict(database.execute("select task_id, state from task_instance where run_id = ?", (after,)))
    assert states == {"read": "failed", "write": "upstream_failed"}
    assert gcs_server.names() == [name]

    code, said, _ = run(4, reading=[before, during], is_on=True)
    assert (code, read_in(said)) == (0, {before: frame, during: frame}), said[-3000:]
