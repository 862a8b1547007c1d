"""The payload viewer's application by itself: what it reads and how many it serves, and what it says then."""

from __future__ import annotations

import io
import os
import struct
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import structlog
from include.xcom.errors import ReferenceNotAllowedError
from include.xcom.reference import Coordinates, PayloadReference, object_name
from include.xcom.settings import load_settings
from include.xcom.stores import own_store
from include.xcom.viewer import app, history, limits, rows
from include.xcom.viewer.history import History
from include.xcom.viewer.rows import Row
from include.xcom.viewer.sources import InMemory, Tally, open_source
from starlette.testclient import TestClient

OWNER = Coordinates("sales", "run", "load", -1, "return_value")
PATH = "sales/run/load/-1?key=return_value"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(3000)


class Counting(InMemory):
    """Bytes in memory that count what is asked of them."""

    asked = 0

    def read(self, start: int, stop: int, seconds: float = 0) -> bytes:
        self.asked += stop - start
        return super().read(start, stop)


class Somebody:
    """A user whom the auth manager lets read everything."""

    def get_name(self) -> str:
        return "anna"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A client of the application without the server around it."""
    from airflow.api_fastapi.core_api.security import get_user
    from include.xcom.viewer import views
    from structlog.testing import capture_logs

    made = app.make_app()
    made.dependency_overrides[get_user] = Somebody
    monkeypatch.setattr(app, "requires_access_dag", lambda *what: lambda request, user: None)
    # A test of the commands may have left structlog a stream that is closed.
    with capture_logs(), TestClient(made, raise_server_exceptions=False) as client:
        monkeypatch.setattr(views, "log", structlog.get_logger("test"))
        yield client


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns a function that lets the application find a payload; that returns its source."""

    def show(data: bytes, codec: str = "bytes") -> Counting:
        source = Counting(data)
        reference = PayloadReference("gs://b/o", codec, len(data), len(data), codec, 1, "0" * 8, "1")
        row = Row("run", "load", -1, "return_value", None, 500, None, reference)
        monkeypatch.setattr(rows, "of_instance", lambda ids: [row])
        monkeypatch.setattr(history, "read_history", lambda *ids, **what: History([], False, False))
        monkeypatch.setattr(app, "open_source", lambda *what: source)
        return source

    return show


# --------------------------------------------------------------------------------------- whose payload


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A store in a directory."""
    monkeypatch.setenv("AIRFLOW__GCS_XCOM__BUCKET", tmp_path.as_uri())
    load_settings.cache_clear()
    yield tmp_path
    load_settings.cache_clear()


def put(name: str, data: bytes = b"secret") -> PayloadReference:
    """Store an object and return the reference to it."""
    stored = own_store().put(name, [data])
    return PayloadReference(stored.uri, "bytes", len(data), len(data), "bytes", 1, stored.crc32c, "0")


@pytest.mark.parametrize(
    "owner",
    [
        pytest.param(OWNER, id="short"),
        pytest.param(Coordinates("d/ä", "run 1", "=", 7, "."), id="quoted"),
        pytest.param(Coordinates("d" * 250, "r" * 250, "t" * 250, -1, "k" * 500), id="cut"),
        pytest.param(Coordinates("ä" * 250, "é" * 250, "ß" * 250, 12, "ü" * 500), id="cut-and-quoted"),
    ],
)
@pytest.mark.parametrize("prefix", ["xcom", "xcom/of/prod"])
def test_payload_of_the_row_itself_is_opened(bucket: Path, owner: Coordinates, prefix: str) -> None:
    """Folders are computed again from the row's ids, those that were cut as well."""
    reference = put(object_name(prefix, owner, "0" * 32, "json.zst"))

    assert open_source(reference, owner).read(0, 6) == b"secret"


@pytest.mark.parametrize("field", ["dag_id", "run_id", "task_id", "map_index", "key"])
def test_payload_of_another_xcom_is_not_opened(bucket: Path, field: str) -> None:
    """One other id is enough."""
    change: dict[str, Any] = {field: 3 if field == "map_index" else "other"}
    other = OWNER._replace(**change)
    reference = put(object_name("xcom", other, "0" * 32, "bin"))
    tally = Tally()

    with pytest.raises(ReferenceNotAllowedError, match="another XCom's payload"):
        open_source(reference, OWNER, tally)
    assert tally.bytes == 0


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("xcom/sales/run/load/-1/return_value", id="no-file"),
        pytest.param("xcom/o", id="short"),
        pytest.param("xcom/" + "a/" * 3000 + "sales/run/load/-1/return_value/o.bin", id="long-prefix"),
        pytest.param("xcom/sales/run/load/-1/return_value/" + "o" * 3000, id="long-file"),
        pytest.param("xcom/sales%2Frun/load/-1/return_value/o.bin", id="quoted"),
        pytest.param("xcom/sales/run/load/-1/return_value/../../../../../other/o.bin", id="dots"),
    ],
)
def test_reference_of_another_form_is_refused_at_once(bucket: Path, name: str) -> None:
    """What no task of this deployment wrote is not looked for."""
    began = time.monotonic()
    reference = PayloadReference(f"{bucket.as_uri()}/{name}", "bytes", 6, 6, "bytes", 1, "0" * 8, "0")

    with pytest.raises(ReferenceNotAllowedError):
        open_source(reference, OWNER)
    assert time.monotonic() - began < 1


def test_payload_of_another_deployment_needs_read_uris(
    bucket: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There names need not be ours."""
    other = tmp_path_factory.mktemp("other")
    (other / "o.bin").write_bytes(b"secret")
    reference = put("xcom/x", b"secret")
    reference = PayloadReference(f"{other.as_uri()}/o.bin", "bytes", 6, 6, "bytes", 1, reference.crc32c, "0")
    with pytest.raises(ReferenceNotAllowedError, match="outside of what this deployment may read"):
        open_source(reference, OWNER)
    monkeypatch.setenv("AIRFLOW__GCS_XCOM__READ_URIS", other.as_uri() + "/")
    load_settings.cache_clear()

    assert open_source(reference, OWNER).read(0, 6) == b"secret"


def test_payload_of_a_turn_of_a_loop_is_opened(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow 3.4 puts the iteration where the map index was, and the row has no map index."""
    reference = put(object_name("xcom", OWNER._replace(map_index=4), "0" * 32, "bin"))
    other_dag = put(object_name("xcom", OWNER._replace(dag_id="other", map_index=4), "0" * 32, "bin"))
    monkeypatch.setattr("airflow.__version__", "3.4.0b2")

    assert open_source(reference, OWNER).size == 6
    with pytest.raises(ReferenceNotAllowedError):
        open_source(reference, OWNER._replace(map_index=2))
    with pytest.raises(ReferenceNotAllowedError):
        open_source(other_dag, OWNER)


# ----------------------------------------------------------------------------------------- how many bytes


def test_zip_file_with_a_huge_directory_is_too_large(client: TestClient, show: Any) -> None:
    """The API server itself never looks into it, and the process that does may not read so much."""
    size = limits.READ_BYTES + 1
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, size, 0, 0)
    source = show(b"PK\x03\x04" + bytes(size - 4) + end, "tagged-json")
    answer = client.get(f"/image/{PATH}&part=0.bin")

    assert answer.status_code == 413
    assert "would read more than 64.0 MiB" in answer.text
    assert source.asked <= limits.READ_BYTES


def test_picture_in_a_bundle_is_read_by_itself(client: TestClient, show: Any) -> None:
    """What lies beside it is not read."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("value.json", b"{}")
        archive.writestr("0.parquet", bytes(5 * limits.MIB))
        archive.writestr("1.bin", PNG)
    source = show(sink.getvalue(), "tagged-json")
    answer = client.get(f"/image/{PATH}&part=1.bin")

    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.content == PNG
    assert source.asked < limits.MIB


def test_picture_beyond_the_limit_is_said_to_be_too_large(
    client: TestClient, show: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it would stand, and at its own address; nothing of it is read there."""
    monkeypatch.setattr(limits, "IMAGE_BYTES", 2000)
    source = show(PNG)
    answer = client.get(f"/image/{PATH}")

    assert answer.status_code == 413
    assert "Too large to show here" in answer.text
    assert "2.9 KiB" in answer.text
    assert source.asked == 0


def test_value_that_is_too_long_is_no_file(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The download says so in words."""
    row = Row("run", "load", -1, "return_value", None, 10**8, None)
    monkeypatch.setattr(rows, "of_instance", lambda *ids: [row])
    answer = client.get(f"/object/{PATH}")

    assert answer.status_code == 413
    assert answer.text.startswith("Too large to show here. The database row holds 95.4 MiB of JSON")


# --------------------------------------------------------------------------------------- how many at once


def test_full_house_is_said_in_words(client: TestClient, show: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few wait for a place; whoever comes then is asked to come back at once."""
    monkeypatch.setattr(limits, "WAIT_SECONDS", 1.0)
    show(PNG)
    for _ in range(limits.VIEWS_AT_ONCE):
        app.VIEWS.acquire()
    try:
        with ThreadPoolExecutor(12) as pool:
            began = time.monotonic()
            seconds = []

            def ask(page: str) -> Any:
                answer = client.get(f"/{page}/{PATH}")
                seconds.append(time.monotonic() - began)
                return answer

            answers = list(pool.map(ask, ["instance", "image"] * 6))
    finally:
        for _ in range(limits.VIEWS_AT_ONCE):
            app.VIEWS.release()

    assert {answer.status_code for answer in answers} == {503}
    assert all("Try again in a few seconds" in answer.text for answer in answers)
    assert all("default-src 'none'" in answer.headers["content-security-policy"] for answer in answers)
    assert sum(one > 0.9 for one in seconds) <= limits.WAITING_AT_ONCE
    assert client.get(f"/image/{PATH}").status_code == 200


def test_download_waits_for_its_place_before_the_store_is_asked(
    client: TestClient, show: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No payload is opened for whoever is turned away."""
    monkeypatch.setattr(limits, "WAIT_SECONDS", 0.1)
    show(PNG)
    opened: list[Any] = []
    monkeypatch.setattr(app, "open_source", lambda *what: opened.append(what))
    for _ in range(limits.DOWNLOADS_AT_ONCE):
        app.DOWNLOADS.acquire()
    try:
        answer = client.get(f"/object/{PATH}")
    finally:
        for _ in range(limits.DOWNLOADS_AT_ONCE):
            app.DOWNLOADS.release()

    assert (answer.status_code, opened) == (503, [])
    assert answer.text.startswith("Busy. Too many payloads")


def test_store_that_hangs_holds_a_view_for_its_time_only(
    client: TestClient, show: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads that are under way are left to themselves, and the process that asked is gone."""
    monkeypatch.setattr(limits, "VIEW_SECONDS", 1.5)
    source = show(PNG * 100)
    is_over = threading.Event()
    allowed, children = [], []

    def hang(start: int, stop: int, seconds: float = 0) -> bytes:
        allowed.append(seconds)
        children.extend(_children())
        is_over.wait(30)
        return b""

    source.read = hang
    before = set(_children())
    began = time.monotonic()
    answer = client.get(f"/instance/{PATH}")
    spent = time.monotonic() - began
    try:
        assert "Took too long" in answer.text
        assert "data-download" in answer.text
        assert spent < 4
        assert all(0 < one <= 1.5 for one in allowed)
        asked = set(children) - before
        assert asked
        assert not asked & set(_children())
    finally:
        is_over.set()


def _children() -> list[int]:
    tasks = Path(f"/proc/{os.getpid()}/task")
    return [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="only Linux has it")
def test_process_that_decodes_is_the_first_to_end_without_memory(client: TestClient, show: Any) -> None:
    """The kernel ends it before the API server."""
    source = show(PNG)
    scores: list[int] = []

    def look(start: int, stop: int, seconds: float = 0) -> bytes:
        scores.extend(int(Path(f"/proc/{child}/oom_score_adj").read_text()) for child in _children())
        return PNG[start:stop]

    source.read = look
    client.get(f"/instance/{PATH}")

    assert 1000 in scores


# ------------------------------------------------------------------------------------------- what it says


def test_what_nobody_thought_of_is_a_page_of_ours(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No traceback, no JSON; headers as ever."""

    def fail(*ids: Any) -> Any:
        raise RuntimeError("secret")

    monkeypatch.setattr(rows, "of_instance", fail)
    answer = client.get(f"/instance/{PATH}")

    assert answer.status_code == 500
    assert "The viewer failed" in answer.text
    assert "secret" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("fail", "outcome"),
    [
        pytest.param("open", "ReferenceNotAllowedError", id="refused"),
        pytest.param("read", "HTTP 404", id="no-picture"),
        pytest.param("crash", "RuntimeError", id="crash"),
        pytest.param("busy", "BusyError", id="busy"),
    ],
)
@pytest.mark.parametrize("page", ["instance", "object", "image"])
def test_view_that_fails_is_one_line_in_the_log(
    client: TestClient, show: Any, monkeypatch: pytest.MonkeyPatch, page: str, fail: str, outcome: str
) -> None:
    """Whatever the reason, and on whatever page."""
    from include.xcom.viewer import views
    from structlog.testing import capture_logs

    show(b"text")

    def refuse(*what: Any) -> Any:
        raise {"open": ReferenceNotAllowedError("no"), "crash": RuntimeError("no")}[fail]

    if fail in ("open", "crash"):
        monkeypatch.setattr(app, "open_source", refuse)
    if fail == "busy":
        places = views.Throttle(1)
        places.acquire()
        monkeypatch.setattr(limits, "WAIT_SECONDS", 0.1)
        monkeypatch.setattr(app, "DOWNLOADS" if page == "object" else "VIEWS", places)
    with capture_logs() as lines:
        monkeypatch.setattr(views, "log", structlog.get_logger("test"))
        client.get(f"/{page}/{PATH}")
    events = {"instance": "viewed", "object": "downloaded", "image": "image sent"}
    expected = outcome if fail != "read" or page == "image" else {"instance": "shown", "object": "sent"}[page]

    assert [(line["event"], line["outcome"]) for line in lines] == [
        (f"xcom payload {events[page]}", expected)
    ]


def test_view_that_is_late_is_called_so_in_the_log(
    client: TestClient, show: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by what it waited for."""
    from include.xcom.viewer import views
    from structlog.testing import capture_logs

    source = show(PNG)
    is_over = threading.Event()
    source.read = lambda *span: is_over.wait(20) and b""
    monkeypatch.setattr(limits, "VIEW_SECONDS", 1.0)
    with capture_logs() as lines:
        monkeypatch.setattr(views, "log", structlog.get_logger("test"))
        client.get(f"/instance/{PATH}")
    is_over.set()

    assert [line["outcome"] for line in lines] == ["ViewTimeoutError"]


def test_line_of_the_log_holds_no_control_character(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever writes the line, as text or as JSON; and an id of any length leaves it short."""
    from include.xcom.viewer import views
    from structlog.testing import capture_logs

    monkeypatch.setattr(rows, "of_instance", lambda ids: [])
    monkeypatch.setattr(rows, "instance_of", lambda ids: None)
    with capture_logs() as lines:
        monkeypatch.setattr(views, "log", structlog.get_logger("test"))
        client.get(f"/instance/sales/run/a%1Bb%C2%85c%E2%80%A8d/-1?key=%0A{'k' * 2000}")
    (line,) = lines

    assert line["task_id"] == "a\\x1bb\\x85c\\u2028d"
    assert line["key"].startswith("\\nkkk")
    assert line["key"].endswith("… (2001 characters)")
    assert len(line["key"]) < 600


def test_bundle_that_is_none_has_no_picture(client: TestClient, show: Any) -> None:
    """It is not called altered, and the status says that the request was understood."""
    show(b"PK\x03\x04 and nothing of a zip file", "tagged-json")
    answer = client.get(f"/image/{PATH}&part=0.bin")

    assert answer.status_code == 422
    assert "Cannot be shown here" in answer.text
    assert "not a zip file" in answer.text
    assert "altered" not in answer.text
