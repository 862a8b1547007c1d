"""docs/rest.md: what a real API server answers about payloads, and the page's way to the bytes."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
from airflow_server import PASSWORD, USERNAME, AirflowServer, start
from fake_gcs_server import ROOT, GCSServer

PAGE = ROOT / "docs/rest.md"
RUN = "scheduled__2026-11-15T00:00:00+00:00"
RUN_PATH = f"/api/v2/dags/sales/dagRuns/{quote(RUN, safe='')}"
ENTRY_PATH = f"{RUN_PATH}/taskInstances/load/xcomEntries/return_value"


class Consumer:
    """Whoever asks Airflow's API, with a token of its own.

    Attributes:
        token: Of the API server.
        reference: What the task's row holds.
    """

    def __init__(self, airflow: AirflowServer, reference: dict[str, Any]) -> None:
        self._url = airflow.url
        self.token = ""
        self.reference = reference
        self.token = self.ask("POST", "/auth/token", {"username": USERNAME, "password": PASSWORD})[1][
            "access_token"
        ]

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Return status and answer."""
        headers = {"content-type": "application/json"}
        if self.token:
            headers["authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body).encode()
        try:
            with urlopen(Request(self._url + path, data, headers, method=method), timeout=60) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            return error.code, json.load(error)


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowServer]:
    """A running API server that knows a Dag run of two tasks."""
    pytest.importorskip("airflow")
    server = start(tmp_path_factory.mktemp("airflow"))
    server.add_run("sales", RUN, [("load", -1), ("note", -1)])
    try:
        yield server
    finally:
        server.process.terminate()
        server.process.wait(30)


@pytest.fixture
def consumer(airflow: AirflowServer, gcs_server: GCSServer, monkeypatch: pytest.MonkeyPatch) -> Consumer:
    """One task stored a frame in the bucket, the other a small dict in its row."""
    import pandas as pd

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.url)
    monkeypatch.setenv("AIRFLOW__GCS_XCOM__BUCKET", gcs_server.bucket)
    from include.xcom import payloads
    from include.xcom.reference import Coordinates

    frame = pd.DataFrame({"id": range(1000)})
    row = payloads.store(frame, Coordinates("sales", RUN, "load", -1, "return_value"))
    airflow.set_row("sales", RUN, "load", -1, "return_value", row)
    airflow.set_row("sales", RUN, "note", -1, "return_value", {"rows": 1000})
    return Consumer(airflow, row)


def shape(value: Any) -> Any:
    """Give the names and types of an answer, without what differs from run to run."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    return type(value).__name__


def printed(name: str) -> Any:
    """Return an answer as the page prints it."""
    found = re.search(rf"<!-- answer: {name} -->\n```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found, name
    return json.loads(found.group(1))


def test_entry_holds_the_reference_as_the_page_prints_it(consumer: Consumer) -> None:
    """The page leaves times and display names out; all that it prints is there."""
    status, entry = consumer.ask("GET", ENTRY_PATH)
    page = printed("entry")

    assert status == 200
    assert entry["value"] == consumer.reference
    assert shape({name: entry[name] for name in page}) == shape(page)


@pytest.mark.parametrize(
    ("query", "is_said"),
    [
        pytest.param("?stringify=false", lambda value, row: value == row, id="stringify-false"),
        pytest.param("?stringify=true", lambda value, row: value == str(row), id="stringify-true"),
        pytest.param(
            "?deserialize=true",
            lambda value, row: value.startswith("gcs_xcom.Payload@version=1(uri='gs://"),
            id="deserialize",
        ),
    ],
)
def test_no_parameter_gives_the_value(
    consumer: Consumer, query: str, is_said: Callable[[Any, Any], bool]
) -> None:
    """An object, text in Python's notation, or text for people; never the payload."""
    status, entry = consumer.ask("GET", ENTRY_PATH + query)

    assert status == 200
    assert is_said(entry["value"], consumer.reference)


def test_list_of_entries_has_no_values(consumer: Consumer) -> None:
    """Neither of the frame nor of what stayed in the database."""
    status, answer = consumer.ask("GET", f"{RUN_PATH}/taskInstances/~/xcomEntries")

    assert status == 200
    assert [entry["task_id"] for entry in answer["xcom_entries"]] == ["load", "note"]
    assert not any("value" in entry for entry in answer["xcom_entries"])


def test_wait_gives_references_as_the_page_prints_them(consumer: Consumer) -> None:
    """Both results, one as a reference and one as it is."""
    status, answer = consumer.ask("GET", f"{RUN_PATH}/wait?interval=1&result=load&result=note")

    assert status == 200
    assert answer["results"] == {"load": consumer.reference, "note": {"rows": 1000}}
    assert shape(answer) == shape(printed("wait"))


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_nobody_writes_a_reference_over_rest(consumer: Consumer, method: str) -> None:
    """docs/security.md: Airflow 3.2 and newer refuse it."""
    path = f"{RUN_PATH}/taskInstances/note/xcomEntries"
    path += "/return_value" if method == "PATCH" else ""

    status, answer = consumer.ask(method, path, {"key": "forged", "value": consumer.reference})

    assert status == 422
    assert "reserved serialization keys" in json.dumps(answer)


def test_code_of_the_page_fetches_both_kinds(
    consumer: Consumer, airflow: AirflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nothing but the standard library, and the bytes are a Parquet file as any tool reads it."""
    import pandas as pd

    found = re.search(
        r"<!-- run by tests/payload/test_rest.py -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL
    )
    assert found
    monkeypatch.setenv("AIRFLOW_API_URL", airflow.url)
    monkeypatch.setenv("AIRFLOW_API_TOKEN", consumer.token)
    code: dict[str, Any] = {}
    exec(compile(found.group(1), str(PAGE), "exec"), code)  # The page's own code.

    body = code["fetch"]("sales", RUN, "load")

    assert pd.read_parquet(io.BytesIO(body))["id"].tolist() == list(range(1000))
    assert code["fetch"]("sales", RUN, "note") == {"rows": 1000}


def test_fetch_by_ids_writes_the_object(
    consumer: Consumer, airflow: AirflowServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """The command of the page, words in its order."""
    from include.xcom.__main__ import main

    (line,) = re.findall(r"^python -m include.xcom (fetch .*)$", PAGE.read_text(), re.MULTILINE)
    monkeypatch.setenv("AIRFLOW_API_URL", airflow.url)
    monkeypatch.setenv("AIRFLOW_API_TOKEN", consumer.token)
    monkeypatch.chdir(tmp_path)

    assert main(line.split()) == 0
    assert (tmp_path / "load.parquet").stat().st_size == consumer.reference["__data__"]["bytes"]
