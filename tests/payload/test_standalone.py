"""A fresh project under `astro dev start --standalone`, as a clone has it and without one edit."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import astro_standalone
import pytest
from baking import bake, export
from postgres import free_port
from servers import answers

START_SECONDS, RUN_SECONDS, CALL_SECONDS = 400, 900, 60
EXAMPLES = (
    "example_arrays",
    "example_flights",
    "example_large_values",
    "example_records",
    "example_small_values",
)

pytestmark = pytest.mark.airflow


@dataclass
class Standalone:
    """A running ``airflow standalone``.

    Attributes:
        environment: Of its processes, and of what `astro dev bash` opens.
    """

    project: Path
    environment: dict[str, str]
    url: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.project / astro_standalone.HOME

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the API server, and return what it answers."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.url}{path}", data, self.headers, method=method)
        with urlopen(request, timeout=CALL_SECONDS) as response:
            text = response.read().decode()
        return json.loads(text) if response.headers["content-type"] == "application/json" else text

    def wait(self, what: str, is_done: Callable[[], bool], seconds: float) -> None:
        """Wait until something is so; a busy server may take its time to answer."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if is_done():
                    return
            except OSError:
                pass
            assert time.monotonic() < deadline, what
            time.sleep(1)

    def rows(self) -> list[tuple[str, int]]:
        """Return the Dag id and length of every XCom in the database."""
        with closing(sqlite3.connect(f"file:{self.home}/airflow.db?mode=ro", uri=True)) as database:
            return database.execute("select dag_id, length(value) from xcom").fetchall()


@pytest.fixture(scope="module")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    """Bake with the default answers, drop what git ignores, and start it as the CLI does."""
    folder = tmp_path_factory.mktemp("standalone")
    baked = bake(export(folder / "template"), folder / "out", {})
    assert baked.exit_code == 0, baked.said
    project = baked.project
    (project / ".env").unlink()
    (project / "airflow_settings.yaml").unlink()
    (project / astro_standalone.HOME).mkdir(parents=True)
    port = free_port()
    environment = astro_standalone.environment(project, port) | {
        # For this machine, which does other things besides; no part of what is tested.
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__PARALLELISM": "3",
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": str(CALL_SECONDS),
    }
    log = folder / "standalone.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", "standalone"],
            cwd=project,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    found = Standalone(project, environment, f"http://localhost:{port}")
    try:
        is_up = answers(f"{found.url}/api/v2/version", process, seconds=START_SECONDS, pause=0.5)
        assert is_up, log.read_text()[-3000:]
        token = found.call("GET", "/auth/token")["access_token"]
        found.headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
        yield found
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=30)


@pytest.fixture(scope="module")
def states(standalone: Standalone) -> dict[str, str]:
    """Run every example once; give how the runs ended."""

    def is_known() -> bool:
        dags = standalone.call("GET", "/api/v2/dags")["dags"]
        return {dag["dag_id"] for dag in dags} >= set(EXAMPLES)

    standalone.wait("the Dags are not there", is_known, START_SECONDS)
    runs = {}
    for dag_id in EXAMPLES:
        standalone.call("PATCH", f"/api/v2/dags/{dag_id}", {"is_paused": False})
        run = standalone.call("POST", f"/api/v2/dags/{dag_id}/dagRuns", {"logical_date": None})
        runs[dag_id] = quote(run["dag_run_id"])
    found: dict[str, str] = {}

    def have_ended() -> bool:
        for dag_id, run_id in runs.items():
            found[dag_id] = standalone.call("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")["state"]
        return set(found.values()) <= {"success", "failed"}

    standalone.wait(f"the runs have not ended: {found}", have_ended, RUN_SECONDS)
    return found


def test_every_example_runs(states: dict[str, str]) -> None:
    """With the backend off, two of them fail."""
    assert states == dict.fromkeys(EXAMPLES, "success")


def test_payloads_are_in_a_folder_and_not_in_the_database(
    standalone: Standalone, states: dict[str, str]
) -> None:
    """The folder is below what git ignores and `astro dev kill` removes, together with the database."""
    stored = {path.parts[0] for path in _files(standalone.home / "xcoms" / "xcom")}

    assert stored == set(EXAMPLES)
    assert max(length for _, length in standalone.rows()) < 100_000


def test_the_viewer_is_loaded(standalone: Standalone) -> None:
    """The CLI leaves Airflow to look for plugins elsewhere."""
    plugins = standalone.call("GET", "/api/v2/plugins")["plugins"]

    assert [plugin["name"] for plugin in plugins] == ["payload_viewer"]
    assert "Payloads" in standalone.call("GET", "/payload-viewer/run/example_arrays/none")


def test_the_doctor_says_that_it_is_standalone_mode(standalone: Standalone, states: dict[str, str]) -> None:
    """In the shell that `astro dev bash` opens."""
    done = subprocess.run(
        [sys.executable, "-m", "include.xcom", "doctor"],
        cwd=standalone.project,
        env=standalone.environment | {"AIRFLOW_API_URL": standalone.url},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "ok       mode: astro dev start --standalone" in done.stdout
    assert "0 problems, 0 warnings" in done.stdout


def _files(folder: Path) -> list[Path]:
    return [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
