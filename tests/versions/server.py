"""What the API server of one version does with payloads: the sweep's questions, forged rows, the viewer.

It runs over the database that ``airflow dags test`` has left, in which one task was tried twice.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen
from uuid import uuid4

__all__ = ["check"]

START_SECONDS = 180


def check(
    folder: Path,
    project: Path,
    work: Path,
    environment: dict[str, str],
    dag_id: str,
    run_id: str,
    run: Callable[..., str],
) -> list[str]:
    """Ask the server of one version; return what is not as docs/ say.

    Args:
        folder: Of the version's packages.
        dag_id: Of the Dag that ran.
        project: A generated project, with its plugins.
        work: For logs; has the payloads below ``payloads``.
        environment: Of Airflow's processes.
        run_id: Of the one run of the Dag.
        run: Runs a command and returns its output; the arguments of ``run.run``.
    """
    python = folder / "bin" / "python"
    code = "from airflow import __version__; print('version:', __version__)"
    said = run([python, "-c", code], work / "server-version.log", environment)
    version = tuple(int(part) for part in said.rpartition("version: ")[2].split(".")[:2])
    # Rows are written over REST only for Dags that the server can load.
    run([folder / "bin" / "airflow", "dags", "reserialize"], work / "reserialize.log", environment)
    plugins = {"AIRFLOW__CORE__PLUGINS_FOLDER": str(project / "plugins")}
    admins = {"AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True"}
    with serving(folder, work, environment | plugins | admins) as url:
        client = Client(url)
        path = f"/api/v2/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"
        problems = list(_viewer(client, version, dag_id, run_id))
        if version >= (3, 1):
            command = [python, "-m", "include.xcom", "history", dag_id, "frame"]
            said = run(command, work / "history.log", environment | {"AIRFLOW_API_URL": url}, cwd=project)
            problems += (
                []
                if f"\n{run_id} " in said and "1 run: 0 failed, 0 without" in said
                else [f"history: {said}"]
            )
        problems += _forged_row(client, version, path)
        more = {"AIRFLOW_API_URL": url}
        command = [python, "-m", "include.xcom", "sweep", "--claim", "--delete", "--json"]
        problems += _sweep(
            version,
            work / "payloads",
            lambda: run(command, work / "sweep.log", environment | more, cwd=project),
        )
    return problems


class Client:
    """Whoever asks the API server, as everybody there is an admin."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._token = ""
        self._token = json.loads(self.ask("GET", "/auth/token")[1])["access_token"]

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        """Return status and body."""
        headers = {"content-type": "application/json"}
        if self._token:
            headers |= {"authorization": f"Bearer {self._token}", "cookie": f"_token={self._token}"}
        data = None if body is None else json.dumps(body).encode()
        try:
            with urlopen(Request(self._url + path, data, headers, method=method), timeout=60) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()


@contextmanager
def serving(folder: Path, work: Path, environment: dict[str, str]) -> Iterator[str]:
    """Start the API server, give its URL, and end it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    url = f"http://127.0.0.1:{port}"
    command = [str(folder / "bin" / "airflow"), "api-server", "--host", "127.0.0.1", "--port", str(port)]
    with (work / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--apps", "core"],
            env=kept | environment | {"AIRFLOW__API__WORKERS": "1", "AIRFLOW__API__BASE_URL": url},
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                urlopen(f"{url}/api/v2/version", timeout=5).close()
                break
            except OSError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"no API server, see {work / 'server.log'}") from error
                time.sleep(0.3)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _viewer(client: Client, version: tuple[int, ...], dag_id: str, run_id: str) -> Iterator[str]:
    """docs/viewer.md: a tab from 3.1 on, nothing before."""
    status, body = client.ask("GET", "/api/v2/plugins?limit=100")
    found = [one for one in json.loads(body).get("plugins", []) if one["name"] == "payload_viewer"]
    if status != 200 or len(found) != 1:
        yield f"plugins: HTTP {status}, {len(found)} of the name payload_viewer"
        return
    views = len(found[0].get("external_views", []))
    wanted = 3 if version >= (3, 1) else 0
    if views != wanted:
        yield f"the viewer has {views} tabs, and not {wanted}"
    if version >= (3, 1):
        path = f"/payload-viewer/run/{dag_id}/{quote(run_id, safe='')}"
        status, body = client.ask("GET", path)
        if status != 200 or "second_try" not in body or "attempt" not in body:
            yield f"GET {path}: HTTP {status} {body[:200]!r}"


def _forged_row(client: Client, version: tuple[int, ...], run_path: str) -> Iterator[str]:
    """docs/security.md: nobody writes a reference over REST, neither as a new row nor over one."""
    task = f"{run_path}/taskInstances/frame/xcomEntries"
    reference = _value(client, f"{task}/return_value")
    other = f"{run_path}/taskInstances/outputs/xcomEntries/pair"
    before = _value(client, other)
    # Before 3.2 it is Airflow's encoder that refuses the key __classname__, and the server breaks off.
    wanted = 422 if version >= (3, 2) else 500
    for method, path, more in (("POST", task, {"key": "forged"}), ("PATCH", other, {})):
        status, body = client.ask(method, path, {**more, "value": reference})
        if status != wanted:
            yield f"{method} of a reference: HTTP {status}, and not {wanted}: {body[:200]!r}"
    status, body = client.ask("GET", f"{task}/forged")
    if status != 404 or _value(client, other) != before:
        yield f"after the POST the row is: HTTP {status} {body[:200]!r}"
    # Else the refusals above would say nothing.
    status, body = client.ask("POST", task, {"key": "plain", "value": {"rows": 1}})
    if status != 201:
        yield f"POST of a plain value: HTTP {status} {body[:200]!r}"


def _value(client: Client, path: str) -> Any:
    status, body = client.ask("GET", path)
    if status != 200:
        raise RuntimeError(f"GET {path}: HTTP {status} {body[:200]}")
    return json.loads(body)["value"]


def _sweep(version: tuple[int, ...], payloads: Path, sweep: Callable[[], str]) -> Iterator[str]:
    """docs/retention.md: superseded tries of 3.4 and keys pushed twice go, all that rows name stays."""
    files = {path for path in payloads.rglob("*") if path.is_file()}
    tries = {path.read_bytes()[:1]: path for path in files if path.parent.name == "attempt"}
    if (b"\x01" in tries) != (version >= (3, 4)) or b"\x02" not in tries:
        yield f"payloads of the tries are {sorted(tries)}"
        return
    stray = tries[b"\x02"].with_name(f"{uuid4().hex}.bin")
    shutil.copyfile(tries[b"\x02"], stray)
    for path in (*files, stray):
        os.utime(path, (0, 0))
    orphans = {tries[b"\x01"]} if version >= (3, 4) else set()
    last = json.loads(sweep().strip().splitlines()[-1])
    left = {path for path in payloads.rglob("*") if path.is_file() and "=deployment" not in path.parts}
    if left != files - orphans:
        yield f"the sweep left {len(left)} of {len(files) - len(orphans)} payloads, and {sorted(left - files)}"
    if last["total"]["deleted"] != len(orphans) + 1 or last["total"]["failed"] or not last["is_complete"]:
        yield f"the sweep says {last}"
