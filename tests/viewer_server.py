"""An API server of Airflow with the payload viewer, and XComs of every kind in its database."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen
from uuid import uuid4

import servers
from servers import answers

__all__ = ["HAS_TEAMS", "HOSTILE", "NOW", "USERS", "Answer", "ViewerServer", "start"]

TEMPLATE = Path(__file__).resolve().parents[1] / "{{cookiecutter.project_slug}}"
PLUGIN = "payload_viewer.py"
NOW = "2026-11-01 12:00:00.000000"
insert = partial(servers.insert, now=NOW)
SECRET = "0123456789abcdef" * 8
# Airflow 3.1 knows teams by another table, and its simple auth manager none.
HAS_TEAMS = tuple(int(part) for part in version("apache-airflow-core").split(".")[:2]) >= (3, 2)
# Name: role and team.
USERS = {"anna": "admin", "vera": "viewer:blue", "rolf": "viewer:red", "otto": "op:red"}

HOSTILE = [
    "<script>document.title='PWNED'</script>",
    '"><img src=x onerror="document.title=\'PWNED\'">',
    "'><svg onload=\"document.title='PWNED'\">",
    "</style><script>document.title='PWNED'</script>",
    "</script><script>document.title='PWNED'</script>",
    "<iframe srcdoc=\"<script>parent.document.title='PWNED'</script>\"></iframe>",
    "<a href=\"javascript:document.title='PWNED'\" autofocus onfocus=\"document.title='PWNED'\">x</a>",
    "[[ cycler.__init__.__globals__ ]][% for x in [1] %]",
    "&lt;script&gt;\u202etxt\u2028x\u0007",
]


@dataclass
class Answer:
    """What the server said."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


@dataclass
class ViewerServer:
    """A running API server.

    Attributes:
        url: ``http://127.0.0.1:port``.
        home: Its folder, with the database and the payloads.
        environment: Variables of its process.
    """

    url: str
    home: Path
    process: subprocess.Popen[bytes]
    environment: dict[str, str]
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def payloads(self) -> Path:
        """Where its payloads lie."""
        return self.home / "payloads"

    @property
    def log(self) -> str:
        """What it wrote so far."""
        return (self.home / "server.log").read_text(errors="replace")

    def token(self, user: str) -> str:
        """Log in."""
        if user not in self.tokens:
            body = json.dumps({"username": user, "password": f"secret of {user}"}).encode()
            request = Request(f"{self.url}/auth/token", body, {"content-type": "application/json"})
            with urlopen(request, timeout=30) as response:
                self.tokens[user] = json.load(response)["access_token"]
        return self.tokens[user]

    def get(self, path: str, user: str | None = "anna", *, token: str | None = None, **asked: str) -> Answer:
        """Ask for a page of the viewer with the cookie of a user, and with more headers."""
        token = token if token is not None or user is None else self.token(user)
        headers = {name.replace("_", "-"): value for name, value in asked.items()}
        headers |= {"cookie": f"_token={token}"} if token else {}
        try:
            with urlopen(
                Request(f"{self.url}/payload-viewer/{path}", headers=headers), timeout=60
            ) as response:
                return Answer(response.status, _headers(response), response.read())
        except HTTPError as error:
            return Answer(error.code, _headers(error), error.read())

    def path(
        self,
        task_id: str,
        key: str = "",
        *,
        page: str = "instance",
        map_index: int | str = -1,
        dag_id: str = "sales",
        run_id: str = "manual__1",
        **query: Any,
    ) -> str:
        """Return the path of a page below the viewer's."""
        ids = "/".join(quote(str(part), safe="") for part in (dag_id, run_id, task_id, map_index))
        asked = {**({"key": key} if key else {}), **query}
        return f"{page}/{ids}" + (f"?{urlencode(asked)}" if asked else "")

    def add_dag(self, dag_id: str, team: str = "") -> None:
        """Add a Dag, of a team if one is named."""
        with self.database() as database:
            bundle = f"bundle-{team}"
            insert(database, "dag_bundle", ignore=True, name=bundle, active=1)
            insert(database, "dag", ignore=True, dag_id=dag_id, bundle_name=bundle, is_stale=0, is_paused=0)
            if team and HAS_TEAMS:
                insert(database, "team", ignore=True, name=team)
                insert(database, "dag_bundle_team", ignore=True, dag_bundle_name=bundle, team_name=team)

    def add(
        self, value: Any, task_id: str, key: str = "return_value", *, map_index: int = -1,
        dag_id: str = "sales", run_id: str = "manual__1", run_after: str = NOW, **summary: Any,
    ) -> Any:  # fmt: skip
        """Write an XCom as a task does, with more facts in its summary, and return its row."""
        row = self.store(value, dag_id, run_id, task_id, map_index, key)
        if summary:
            row["__data__"] |= summary
        self.add_row(
            row, task_id, key, map_index=map_index, dag_id=dag_id, run_id=run_id, run_after=run_after
        )
        return row

    def add_payload(
        self, data: bytes, task_id: str, *, codec: str = "bytes", version: int = 1, extension: str = "bin",
        dag_id: str = "sales", run_id: str = "manual__1",
    ) -> None:  # fmt: skip
        """Write an XCom whose object holds any bytes, by a row that says they are of a codec."""
        from include.xcom.reference import Coordinates, PayloadReference, object_name
        from include.xcom.stores import DirectoryStore

        owner = Coordinates(dag_id, run_id, task_id, -1, "return_value")
        name = object_name("xcom", owner, uuid4().hex, extension)
        stored = DirectoryStore(self.payloads.as_uri()).put(name, [data])
        row = PayloadReference(
            stored.uri, codec, stored.size, stored.size, codec, version, stored.crc32c, stored.generation
        ).to_row()
        self.add_row(row, task_id, dag_id=dag_id, run_id=run_id)

    def store(self, value: Any, *ids: Any) -> Any:
        """Store a value's payload, and return the row for it."""
        from include.xcom import codecs
        from include.xcom.codecs.inline import Inline
        from include.xcom.reference import Coordinates, PayloadReference, object_name
        from include.xcom.settings import Settings
        from include.xcom.stores import DirectoryStore

        encoded = codecs.encode(value, Settings(bucket=self.payloads.as_uri()))
        if isinstance(encoded, Inline):
            return encoded.row
        name = object_name("xcom", Coordinates(*ids), uuid4().hex, encoded.extension)
        stored = DirectoryStore(self.payloads.as_uri()).put(name, encoded.parts)
        return PayloadReference(
            stored.uri, encoded.type, stored.size, encoded.raw_bytes, encoded.codec, encoded.version,
            stored.crc32c, stored.generation, {**encoded.summary},
        ).to_row()  # fmt: skip

    def add_row(
        self, row: Any, task_id: str, key: str = "return_value", *, map_index: int = -1,
        dag_id: str = "sales", run_id: str = "manual__1", run_after: str = NOW,
    ) -> None:  # fmt: skip
        """Write a row, and what of a run and a task instance it needs."""
        number = self.add_instance(
            task_id, map_index=map_index, dag_id=dag_id, run_id=run_id, run_after=run_after
        )
        ids: dict[str, Any] = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id}
        with self.database() as database:
            insert(
                database,
                "xcom",
                **ids,
                map_index=map_index,
                dag_run_id=number,
                key=key,
                value=json.dumps(row),
                timestamp=NOW,
            )

    def add_instance(
        self, task_id: str, state: str | None = "success", *, map_index: int = -1,
        dag_id: str = "sales", run_id: str = "manual__1", run_after: str = NOW,
    ) -> int:  # fmt: skip
        """Write a task instance and its run unless they are there; return the number of the run."""
        run: dict[str, Any] = {"dag_id": dag_id, "run_id": run_id}
        with self.database() as database:
            insert(database, "dag_run", ignore=True, **run, state="success", run_after=run_after,
                   logical_date=None, run_type="manual", start_date=run_after, end_date=run_after)  # fmt: skip
            insert(database, "task_instance", ignore=True, id=uuid4().hex, **run, task_id=task_id,
                   map_index=map_index, state=state, task_display_name=task_id, try_number=1, operator="Python",
                   start_date=NOW, end_date=NOW, pool="default_pool", pool_slots=1,
                   executor_config=b"\x80\x04}\x94.")  # fmt: skip
            found = database.execute(
                "select id from dag_run where dag_id = ? and run_id = ?", (dag_id, run_id)
            )
            return int(found.fetchone()[0])

    def database(self) -> sqlite3.Connection:
        """Open the metadata database."""
        return sqlite3.connect(self.home / "airflow.db", timeout=30)


def _headers(answer: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.headers.items()}


def start(home: Path, dags: Path | None = None, **settings: str) -> ViewerServer:
    """Make a database and start a server; wait until it answers.

    Args:
        home: Its folder.
        dags: Its Dags.
        settings: Environment variables, instead of or beside those that a server has here.
    """
    for name in ("dags", "payloads", "plugins"):
        (home / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(TEMPLATE / "plugins" / PLUGIN, home / "plugins" / "payload_viewer.py")
    (home / "passwords.json").write_text(json.dumps({user: f"secret of {user}" for user in USERS}))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    variables = kept | {
        "HOME": str(home),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API_AUTH__JWT_SECRET": SECRET,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags or home / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(home / "plugins"),
        "AIRFLOW__CORE__MULTI_TEAM": str(HAS_TEAMS),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(
            f"{user}:{role if HAS_TEAMS else role.partition(':')[0]}" for user, role in USERS.items()
        ),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__CORE__XCOM_BACKEND": "include.xcom_backend.GCPBucketXComBackend",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__GCS_XCOM__BUCKET": (home / "payloads").as_uri(),
        "PYTHONPATH": str(TEMPLATE),
        **settings,
    }
    command = [sys.executable, "-m", "airflow"]
    subprocess.run([*command, "db", "migrate"], env=variables, cwd=home, capture_output=True, check=True)
    with sqlite3.connect(home / "airflow.db") as database:
        for team in ("blue", "red") if HAS_TEAMS else ():  # Airflow does not start without.
            insert(database, "team", name=team)
    with (home / "server.log").open("wb") as output:
        process = subprocess.Popen(
            [*command, "api-server", "--host", "127.0.0.1", "--port", str(port), "--apps", "core"],
            env=variables, cwd=home, stdout=output, stderr=output,
        )  # fmt: skip
    server = ViewerServer(f"http://127.0.0.1:{port}", home, process, variables)
    if answers(f"{server.url}/api/v2/version", process, seconds=180, pause=0.2):
        return server
    stop(server)
    raise AssertionError(f"the API server does not answer: {server.log[-3000:]}")


def stop(server: ViewerServer) -> None:
    """End a server."""
    server.process.terminate()
    try:
        server.process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()
