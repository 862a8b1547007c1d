"""A real API server of Airflow with a database of its own, and rows that tests put into it."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import servers
from servers import answers

USERNAME, PASSWORD = "operator", "correct horse"
TEMPLATE = Path(__file__).resolve().parents[2] / "{{cookiecutter.project_slug}}"
_NOW = "2026-11-01 00:00:00.000000"
insert = partial(servers.insert, now=_NOW)


@dataclass
class AirflowServer:
    """A running API server.

    Attributes:
        url: ``http://127.0.0.1:port``.
        database: File of its SQLite database.
        log: What the server said.
    """

    url: str
    database: Path
    process: subprocess.Popen[bytes]
    log: Path

    def add_run(self, dag_id: str, run_id: str, tasks: list[tuple[str, int]]) -> None:
        """Add a Dag, a run of it and task instances, as far as rows of XComs need them."""
        with self._open() as database:
            insert(database, "dag_bundle", ignore=True, name="tests", active=1)
            insert(database, "dag", ignore=True, dag_id=dag_id, bundle_name="tests", is_stale=0, is_paused=0)
            insert(database, "dag_run", dag_id=dag_id, run_id=run_id, state="success", run_after=_NOW)
            for place, (task_id, map_index) in enumerate(tasks):
                insert(
                    database,
                    "task_instance",
                    id=f"{abs(hash((dag_id, run_id, place))):032x}",
                    dag_id=dag_id,
                    run_id=run_id,
                    task_id=task_id,
                    map_index=map_index,
                    task_display_name=task_id,
                    state="success",
                )

    def set_row(self, dag_id: str, run_id: str, task_id: str, map_index: int, key: str, value: Any) -> None:
        """Write an XCom's row, as a task does, over one that is there."""
        with self._open() as database:
            found = database.execute(
                "select id from dag_run where dag_id = ? and run_id = ?", (dag_id, run_id)
            )
            (number,) = found.fetchone()
            database.execute(
                "delete from xcom where dag_run_id = ? and task_id = ? and map_index = ? and key = ?",
                (number, task_id, map_index, key),
            )
            insert(
                database,
                "xcom",
                dag_run_id=number,
                dag_id=dag_id,
                run_id=run_id,
                task_id=task_id,
                map_index=map_index,
                key=key,
                value=json.dumps(value),
                timestamp=_NOW,
            )

    def delete_rows(self, dag_id: str, run_id: str) -> None:
        """Delete all XComs of a run, as `airflow db clean` does."""
        with self._open() as database:
            database.execute("delete from xcom where dag_id = ? and run_id = ?", (dag_id, run_id))

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.database, timeout=20)


def environment(home: Path, port: int) -> dict[str, str]:
    """Return what a process of this Airflow needs, and nothing of this machine's own settings."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return kept | {
        "AIRFLOW_HOME": str(home),
        "HOME": str(home),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__AUTH_MANAGER": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USERNAME}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(TEMPLATE / "plugins"),
        "PYTHONPATH": str(TEMPLATE),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
    }


def start(home: Path, apps: str = "core", more: dict[str, str] | None = None) -> AirflowServer:
    """Make a database and start a server; wait until it answers.

    Args:
        home: An empty folder.
        apps: ``core`` is for people, ``all`` for tasks too.
        more: Settings in addition to ``environment``.
    """
    (home / "dags").mkdir()
    (home / "passwords.json").write_text(json.dumps({USERNAME: PASSWORD}))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = environment(home, port) | (more or {})
    command = [sys.executable, "-m", "airflow"]
    subprocess.run([*command, "db", "migrate"], env=variables, cwd=home, capture_output=True, check=True)
    log = home / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "api-server", "--host", "127.0.0.1", "--port", str(port), "--apps", apps],
            env=variables,
            cwd=home,
            stdout=output,
            stderr=output,
        )
    server = AirflowServer(f"http://127.0.0.1:{port}", home / "airflow.db", process, log)
    if answers(f"{server.url}/api/v2/version", process, seconds=180, pause=0.2):
        return server
    process.kill()
    raise AssertionError(f"the API server does not answer: {log.read_text()[-3000:]}")
