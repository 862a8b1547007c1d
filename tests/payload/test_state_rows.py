"""Which objects of state the rows of a real API server refer to."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

import pytest
from airflow.sdk.state import AssetScope, TaskScope
from airflow_server import PASSWORD, USERNAME, AirflowServer, start
from include.state_backend import GCSStateBackend
from include.xcom import state
from include.xcom.__main__ import main
from include.xcom.commands.state_rows import StateRows
from pydantic import JsonValue

RUN = "manual__2026-11-01T00:00:00+00:00"
MARKER = "__airflow_state_ref__"
LARGE: list[JsonValue] = ["x" * 100_000]


class Api:
    """Airflow's REST API, as somebody who may do everything."""

    def __init__(self, server: AirflowServer) -> None:
        self._url = server.url
        self._token = ""
        login = {"username": USERNAME, "password": PASSWORD}
        self._token = self.ask("POST", "/auth/token", login)["access_token"]

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request and return what the answer says."""
        headers = {"content-type": "application/json", "authorization": f"Bearer {self._token}"}
        data = None if body is None else json.dumps(body).encode()
        with urlopen(Request(self._url + path, data, headers, method=method), timeout=60) as response:
            text = response.read()
        return json.loads(text) if text else None

    def get(self, path: str, query: dict[str, Any]) -> Any:
        """Ask as the commands do."""
        return self.ask("GET", f"/api/v2{path}?{urlencode(query)}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowServer]:
    """A server with one task instance, and assets whose names a pattern confuses."""
    server = start(tmp_path_factory.mktemp("airflow"))
    try:
        server.add_run("sales", RUN, [("load", -1), ("load", 3)])
        # A Dag whose file is gone is known by its rows.
        server.set_row("sales", RUN, "load", -1, "return_value", 1)
        with closing(sqlite3.connect(server.database, timeout=20)) as database:
            for number, name in enumerate(("a_b", "aXb", "a%"), 1):
                database.execute(
                    'insert into asset (id, name, uri, "group", extra, created_at, updated_at) '
                    "values (?, ?, ?, 'asset', '{}', '2026-11-01', '2026-11-01')",
                    (number, name, f"s3://{name}"),
                )
            database.commit()
        yield server
    finally:
        server.process.terminate()
        server.process.wait(30)


@pytest.fixture
def api(server: AirflowServer) -> Api:
    return Api(server)


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GCSStateBackend:
    (tmp_path / "objects").mkdir()
    monkeypatch.setenv("AIRFLOW__GCS_XCOM__BUCKET", (tmp_path / "objects").as_uri())
    return GCSStateBackend()


def uri_of(text: str) -> str:
    """Return where the object of a row is."""
    reference = state.StateReference.from_value(json.loads(text))
    assert reference is not None
    return reference.payload.uri


def log_in(server: AirflowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the commands ask the server."""
    for name, text in (("URL", server.url), ("USERNAME", USERNAME), ("PASSWORD", PASSWORD)):
        monkeypatch.setenv(f"AIRFLOW_API_{name}", text)


def is_referenced(rows: StateRows, uri: str) -> bool:
    """Ask as a sweep does, which knows an object's URI alone."""
    where = state.key_of_object(f"xcom/{uri.partition('/objects/xcom/')[2]}", "xcom")
    assert where is not None
    return rows.is_referenced(where, uri)


@pytest.mark.parametrize("index", [-1, 3])
@pytest.mark.parametrize("key", ["cursor", "a/b c", "%2F?"])
def test_only_the_last_object_of_a_tasks_key_is_referenced(
    index: int, key: str, api: Api, backend: GCSStateBackend
) -> None:
    """Until its row is deleted over REST, of which the backend hears nothing."""
    scope = TaskScope("sales", RUN, "load", index)
    path = f"/api/v2/dags/sales/dagRuns/{RUN.replace('+', '%2B')}/taskInstances/load/state-store"
    first, second = (
        backend.serialize_task_state_store_to_ref(value=LARGE, key=key, scope=scope) for _ in range(2)
    )
    entry = f"{path}/{quote(key, safe='')}?map_index={index}"

    api.ask("PUT", entry, {"value": {MARKER: second}})
    assert [is_referenced(StateRows(api.get), uri_of(text)) for text in (first, second)] == [False, True]

    api.ask("DELETE", entry)
    assert not is_referenced(StateRows(api.get), uri_of(second))


@pytest.mark.parametrize(
    "scope",
    [AssetScope(name="a_b"), AssetScope(uri="s3://a_b"), AssetScope(asset_id=1)],
    ids=["name", "uri", "id"],
)
def test_asset_is_found_by_exactly_its_name(scope: AssetScope, api: Api, backend: GCSStateBackend) -> None:
    """In a pattern of Airflow's API, `_` stands for any letter."""
    text = backend.serialize_asset_state_store_to_ref(value=LARGE, key="watermark", scope=scope)
    other = backend.serialize_asset_state_store_to_ref(
        value=LARGE, key="watermark", scope=AssetScope(name="aXb")
    )
    api.ask("PUT", "/api/v2/assets/1/state-store/watermark", {"value": {MARKER: text}})
    api.ask("PUT", "/api/v2/assets/2/state-store/watermark", {"value": 5})
    rows = StateRows(api.get)

    assert is_referenced(rows, uri_of(text))
    assert not is_referenced(rows, uri_of(other))


def test_object_of_an_asset_that_is_gone_is_not_referenced(api: Api, backend: GCSStateBackend) -> None:
    """Airflow deletes the rows of such an asset."""
    text = backend.serialize_asset_state_store_to_ref(value=LARGE, key="k", scope=AssetScope(name="gone"))

    assert not is_referenced(StateRows(api.get), uri_of(text))


def test_every_page_of_rows_is_read(api: Api, backend: GCSStateBackend) -> None:
    """A server gives at most a hundred at once."""
    scope = AssetScope(name="a%")
    texts = {}
    for number in range(103):
        key = f"key{number:03}"
        texts[key] = backend.serialize_asset_state_store_to_ref(value=LARGE, key=key, scope=scope)
        api.ask("PUT", f"/api/v2/assets/3/state-store/{key}", {"value": {MARKER: texts[key]}})
    rows = StateRows(api.get)

    assert all(is_referenced(rows, uri_of(text)) for text in texts.values())


def test_row_that_cannot_be_understood_keeps_its_object(backend: GCSStateBackend) -> None:
    """Such as one of a newer version: better once too often than once too little."""
    scope = AssetScope(name="a")
    text = backend.serialize_asset_state_store_to_ref(value=LARGE, key="k", scope=scope)
    newer = text.replace('"__version__": 1', '"__version__": 2')
    answers = {
        "assets": [{"id": 1, "name": "a"}],
        "asset_state_store": [{"key": "k", "value": {MARKER: newer}}],
    }

    assert is_referenced(StateRows(lambda path, query: {**answers, "total_entries": 1}), uri_of(text))


def test_no_answer_is_no_orphan(backend: GCSStateBackend) -> None:
    """Whatever goes wrong with the API, nothing is said of the object."""

    def unreachable(path: str, query: dict[str, Any]) -> Any:
        raise OSError("no route")

    text = backend.serialize_asset_state_store_to_ref(value=LARGE, key="k", scope=AssetScope(name="a"))

    with pytest.raises(OSError, match="no route"):
        is_referenced(StateRows(unreachable), uri_of(text))


def test_sweep_deletes_what_no_row_of_state_names(
    server: AirflowServer,
    api: Api,
    backend: GCSStateBackend,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Earlier values, those of rows that are gone, and nothing young or of a Dag that Airflow does not know."""
    log_in(server, monkeypatch)
    scope, asset = TaskScope("sales", RUN, "load"), AssetScope(name="a_b")

    def stored(scope: Any, key: str) -> str:
        if isinstance(scope, TaskScope):
            return backend.serialize_task_state_store_to_ref(value=LARGE, key=key, scope=scope)
        return backend.serialize_asset_state_store_to_ref(value=LARGE, key=key, scope=scope)

    earlier, last = stored(scope, "swept"), stored(scope, "swept")
    of_asset, other = stored(asset, "swept"), stored(asset, "never sent")
    unknown = stored(TaskScope("elsewhere", RUN, "load"), "swept")
    for file in tmp_path.rglob("*.json.zst"):
        os.utime(file, (0, 0))
    young = stored(scope, "swept")
    path = f"/api/v2/dags/sales/dagRuns/{quote(RUN)}/taskInstances/load/state-store/swept"
    api.ask("PUT", path, {"value": {MARKER: last}})
    api.ask("PUT", "/api/v2/assets/1/state-store/swept", {"value": {MARKER: of_asset}})

    code = main(["sweep", "--claim", "--delete", "--json"])

    left = {f"file://{path}" for path in tmp_path.rglob("*.json.zst")}
    assert left == {uri_of(text) for text in (last, of_asset, unknown, young)}
    total = json.loads(capsys.readouterr().out.splitlines()[-1])["total"]
    assert code == 0
    assert (total["deleted"], total["kept"], total["young"], total["undecided"]) == (2, 2, 1, 1)
    assert uri_of(earlier) not in left
    assert uri_of(other) not in left
    assert main(["ls", "sales", RUN, "--no-api"]) == 0
    assert "2 objects of task state" in capsys.readouterr().out


def test_ls_lists_state_by_scope_and_key(
    server: AirflowServer,
    api: Api,
    backend: GCSStateBackend,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of a run, of a Dag, or of everything; `none` is an object that no row refers to any more."""
    log_in(server, monkeypatch)
    scope, mapped, asset = (
        TaskScope("sales", RUN, "load"),
        TaskScope("sales", RUN, "load", 3),
        AssetScope(name="a_b"),
    )
    backend.serialize_task_state_store_to_ref(value=LARGE, key="earlier", scope=scope)
    last = backend.serialize_task_state_store_to_ref(value=LARGE, key="listed", scope=mapped)
    backend.serialize_task_state_store_to_ref(value=LARGE, key="k", scope=TaskScope("sales", "other", "load"))
    backend.serialize_asset_state_store_to_ref(value=LARGE, key="k", scope=asset)
    backend.serialize_asset_state_store_to_ref(value=LARGE, key="k", scope=AssetScope(name="long " * 99))
    path = f"/api/v2/dags/sales/dagRuns/{quote(RUN)}/taskInstances/load/state-store/listed?map_index=3"
    api.ask("PUT", path, {"value": {MARKER: last}})
    capsys.readouterr()

    def listed(*words: str) -> list[list[str]]:
        assert main(["ls", "--state", *words]) == 0
        return [line.split() for line in capsys.readouterr().out.splitlines()]

    of_run = listed("sales", RUN)
    assert of_run[0] == ["STATE", "OF", "RUN", "MAP", "KEY", "SIZE", "AGE", "ROW"]
    assert [[*line[:4], line[-1]] for line in of_run[1:3]] == [
        ["sales.load", RUN, "-", "earlier", "none"],
        ["sales.load", RUN, "3", "listed", "yes"],
    ]
    assert of_run[3][:4] == ["2", "objects", "of", "state,"]
    assert len(listed("sales")) == 1 + 3 + 1
    everything = listed("--no-api")
    assert ["asset", "a_b", "-", "-", "k"] in [line[:5] for line in everything]
    assert {line[-1] for line in everything[1:-1]} == {"?"}
    assert main(["ls", "--state", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["key"], one["is_referenced"]) for one in found["state"]] == [
        ("k", False),
        (None, None),
        ("earlier", False),
        ("listed", True),
        ("k", False),
    ]
    assert found["state"][3]["scope"] == ["task", "sales", RUN, "load", "-", "3"]
    assert found["state"][3]["uri"] == uri_of(last)


def test_ls_of_state_without_airflow_and_without_state(
    backend: GCSStateBackend, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The store alone is enough for scopes, keys, sizes and ages."""
    monkeypatch.setenv("AIRFLOW_API_URL", "http://127.0.0.1:9")
    assert main(["ls", "--state", "--no-api"]) == 0
    assert capsys.readouterr().out == "No objects of state in xcom/=state/\n"
    for name in ("a", "b"):
        backend.serialize_asset_state_store_to_ref(value=LARGE, key="k", scope=AssetScope(name=name))

    assert main(["ls", "--state"]) == 0

    out, err = capsys.readouterr()
    assert [line.split()[-1] for line in out.splitlines()] == [
        "ROW",
        "?",
        "?",
        "KiB" if "KiB" in out else "B",
    ]
    assert err.count("rows are unknown: ") == 1


def test_ls_needs_a_dag(capsys: pytest.CaptureFixture[str]) -> None:
    """All payloads of a bucket are too many for one table."""
    with pytest.raises(SystemExit, match="2"):
        main(["ls"])

    assert "name a Dag: ls DAG [RUN]" in capsys.readouterr().err
