"""The payload viewer within Airflow's own API server, asked by users of every kind."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import jwt
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fault_proxy import Exchange, FaultProxy
from viewer_server import HAS_TEAMS, HOSTILE, PLUGIN, SECRET, TEMPLATE, ViewerServer, start, stop

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc00000000300"
    "01180dd8db0000000049454e44ae426082"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ViewerServer]:
    """A server with XComs of every kind; the Dag "sales" belongs to the team "blue"."""
    server = start(tmp_path_factory.mktemp("viewer"))
    try:
        _fill(server)
        yield server
    finally:
        stop(server)


def _fill(server: ViewerServer) -> None:
    server.add_dag("sales", "blue")
    server.add_dag("open")
    frame = pd.DataFrame({"carrier": ["UA", "B6", "DL"] * 400, "delay": range(1200)})
    server.add(frame, "load")
    server.add({"rows": 1200, "name": "flights"}, "load", "facts")
    server.add(np.eye(40), "matrix")
    server.add(PNG + b"\0" * 2000, "picture")
    server.add({"table": frame, "array": np.arange(6), "image": PNG + b"\0" * 2000}, "bundle")
    for index in range(3):
        server.add(frame[: 300 * index + 1], "mapped", map_index=index)
    server.add(frame, "load", dag_id="open")
    for place, text in enumerate(HOSTILE):
        value = {"table": pd.DataFrame({text: [text] * 3}), text: [text, {"a": text}], "raw": text}
        server.add(value, "hostile", f"{place} {text}")
        server.add(pd.DataFrame({text: [text, text]}), "hostile", f"frame {place}")
    gone = server.add(frame, "gone")
    Path(gone["__data__"]["uri"].removeprefix("file://")).unlink()
    altered = server.add(frame, "altered")
    file = Path(altered["__data__"]["uri"].removeprefix("file://"))
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    large = server.add(np.arange(1_000_000), "altered_large")
    with Path(large["__data__"]["uri"].removeprefix("file://")).open("r+b") as opened:
        opened.seek(5_000_000)
        opened.write(b"?")
    foreign = server.add(frame, "foreign_source")
    foreign = {**foreign, "__data__": {**foreign["__data__"], "uri": "file:///etc/passwd"}}
    server.add_row(foreign, "foreign")
    server.add_row({**foreign, "__data__": {"uri": 7}}, "malformed")
    wider = frame.assign(carrier=1, month=7)
    for day, value in (("01", frame), ("02", wider), ("03", wider[:900])):
        run: dict[str, Any] = {"run_id": f"daily {day}", "run_after": f"2026-10-{day} 00:00:00"}
        server.add(value, "daily", **run, seconds=0.25, schema=f"{len(value.columns):08x}")
        server.add(np.arange(5 + int(day)), "series", **run)
    for state in ("failed", "skipped", "running", "success", None):
        server.add_instance(f"is {state}", state)
    server.add(frame, "lossy", inexact=2)
    server.add({"text": "x" * 40_000_000}, "long")
    _fill_hostile(server)


def _fill_hostile(server: ViewerServer) -> None:
    """Rows and objects that somebody wrote to do harm, or that only look so."""
    for task, value in (("table", pd.DataFrame({"secret": ["of sales"]})), ("picture", PNG + b"secret")):
        row = server.add(value, f"stolen_{task}")
        server.add_row(row, f"stolen_{task}", dag_id="open", run_id="stolen")
    for place, text in enumerate(HOSTILE):
        ids: dict[str, Any] = {"dag_id": "sales", "run_id": f"run {text}"}
        server.add(np.arange(3), f"task {text}", **ids)
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w") as archive:
            archive.writestr("value.json", json.dumps({"$part": [text, "bytes", 1, text]}))
            archive.writestr(text, b"bytes")
        server.add_payload(sink.getvalue(), f"members {place}", codec="tagged-json", extension="zip")
    server.add_payload(b"PAR1 of a later age", "newer", codec="pandas-frame", version=99)
    server.add_payload(b"PAR1 of another", "unknown", codec="feather")
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 1500, pa.int32()), ["y" * 2_000_000])
    sink = io.BytesIO()
    pq.write_table(pa.table({"x": repeated}), sink)
    server.add_payload(sink.getvalue(), "bomb", codec="arrow-table", extension="parquet")
    honest = server.add(np.arange(9), "honest", run_id="absurd")
    for name, changed in (
        ("bytes", {"bytes": 10**400}),
        ("rows", {"rows": 10**400, "columns": 10**300}),
        ("shape", {"shape": "x" * 5000}),
        ("type", {"type": "\ud800<b>"}),
        ("uri", {"uri": "gs://\udfff/<b>"}),
        ("codec", {"codec": "\ud800"}),
        ("version", {"codec_version": 10**400}),
    ):
        server.add_row({**honest, "__data__": {**honest["__data__"], **changed}}, name, run_id="absurd")
    server.add_row({"classname": {"__classname__": "\ud800.x"}}, "surrogate", run_id="absurd")
    with server.database() as database:
        deep = "[" * 3000 + "]" * 3000
        server.add_row("deep", "deep", run_id="absurd")
        database.execute("update xcom set value = ? where task_id = 'deep'", (deep,))
    random = np.random.default_rng(1).random(5_000_000)
    server.add(random, "forty_megabytes")


def _expired(token: str) -> str:
    facts = jwt.decode(token, SECRET, algorithms=["HS512"], options={"verify_aud": False})
    headers = {name: value for name, value in jwt.get_unverified_header(token).items() if name != "alg"}
    facts["exp"] = facts["iat"] = facts["nbf"] = int(time.time()) - 3600
    return jwt.encode(facts, SECRET, algorithm="HS512", headers=headers)


# ----------------------------------------------------------------------------------------------- trust


@pytest.mark.parametrize("page", ["instance", "object", "image"])
def test_every_address_asks_who_is_there(server: ViewerServer, page: str) -> None:
    """Without a login, with a forged and with an expired token, nothing of the payload is said."""
    path = server.path("load", "return_value", page=page)
    answers = {
        "nobody": server.get(path, None),
        "forged": server.get(path, token="e30.e30.e30"),
        "expired": server.get(path, token=_expired(server.token("anna"))),
    }

    assert {name: answer.status for name, answer in answers.items()} == {
        "nobody": 401,
        "forged": 403,
        "expired": 401,
    }
    for answer in answers.values():
        assert "carrier" not in answer.text
        assert "parquet" not in answer.text
    assert "not logged in" in answers["nobody"].text


needs_teams = pytest.mark.skipif(not HAS_TEAMS, reason="this Airflow's simple auth manager knows no teams")


@needs_teams
def test_users_of_another_team_are_refused(server: ViewerServer) -> None:
    """The Dag of a team is for that team and for admins; a Dag of no team for every viewer."""
    for page in ("instance", "object", "image"):
        path = server.path("load", "return_value", page=page)
        assert {user: server.get(path, user).status for user in ("rolf", "otto")} == {
            "rolf": 403,
            "otto": 403,
        }
    run = "run/sales/manual__1"

    assert {user: server.get(run, user).status for user in ("anna", "vera", "rolf")} == {
        "anna": 200,
        "vera": 200,
        "rolf": 403,
    }
    assert server.get(server.path("load"), "vera").status == 200
    assert server.get(server.path("load", dag_id="open"), "rolf").status == 200


@needs_teams
@pytest.mark.parametrize(
    "path",
    [
        "instance/open%2Fmanual__1%2Fload%2F-1/../../sales/manual__1/load/-1",
        "instance/open/../sales/manual__1/load/-1",
        "instance/sales/manual__1/load/-1?dag_id=open",
        "instance//sales/manual__1/load/-1",
    ],
)
def test_the_dag_that_is_checked_is_the_dag_that_is_read(server: ViewerServer, path: str) -> None:
    """No spelling of a path reads one Dag with the permission for another."""
    answer = server.get(path, "rolf")

    assert answer.status in (403, 404)
    assert "carrier" not in answer.text


def test_pages_are_not_kept_and_run_nothing_foreign(server: ViewerServer) -> None:
    """Headers forbid caches, foreign scripts and styles, and frames of other sites."""
    headers = server.get(server.path("load")).headers
    policy = headers["content-security-policy"]

    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'self'" in policy
    assert "http" not in policy


def test_objects_are_sent_as_files_only(server: ViewerServer) -> None:
    """A download is no document, whatever its bytes are; its name is the object's."""
    answer = server.get(server.path("picture", "return_value", page="object"))

    assert answer.body == PNG + b"\0" * 2000
    assert answer.headers["content-type"] == "application/octet-stream"
    assert re.fullmatch(
        r"attachment; filename\*=UTF-8''[0-9a-f]{32}\.bin", answer.headers["content-disposition"]
    )
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"


def test_references_out_of_the_deployment_are_not_followed(server: ViewerServer) -> None:
    """A forged row reads nothing, as in tasks."""
    page, file = (
        server.get(server.path("foreign", "return_value", page=page)) for page in ("instance", "object")
    )

    assert "XCom reference is not allowed" in page.text
    assert "read_uris" in page.text
    assert file.status == 403
    assert "XCom reference is not allowed" in file.text
    assert "read_uris" in file.text
    assert "You may not read XComs of this Dag" not in page.text + file.text
    assert b"root:" not in page.body + file.body
    assert "malformed" in server.get(server.path("malformed")).text


@pytest.mark.parametrize("task", ["stolen_table", "stolen_picture"])
def test_payload_of_another_dag_is_not_seen_through_a_forged_reference(
    server: ViewerServer, task: str
) -> None:
    """Whoever may write XComs of one Dag, and on Airflow 3.0 and 3.1 references, sees no other Dag's."""
    user = "rolf" if HAS_TEAMS else "anna"
    where = {"dag_id": "open", "run_id": "stolen"}
    page, file, picture = (
        server.get(server.path(task, "return_value", page=page, **where), user)
        for page in ("instance", "object", "image")
    )

    assert page.status == 200
    assert "another XCom&#39;s payload" in page.text
    assert file.status == 403
    assert "another XCom's payload" in file.text
    assert picture.status in (403, 404)
    assert all(b"secret" not in answer.body for answer in (page, file, picture))
    assert server.get(server.path(task)).status == 200


PAGES = {
    "run": ("run/sales/manual__1", 200),
    "picture": ("image/sales/manual__1/picture/-1?key=return_value", 200),
    "file": ("object/sales/manual__1/picture/-1?key=return_value", 200),
    "no-key": ("instance/sales/manual__1/load/-1?key=other", 404),
    "no-file": ("object/sales/manual__1/load/-1?key=other", 404),
    "no-picture": ("image/sales/manual__1/load/-1?key=return_value", 404),
    "no-address": ("instance/sales", 404),
    "no-page": ("other", 404),
    "no-number": ("instance/sales/manual__1/load/-1?row=x", 422),
    "long-number": ("instance/sales/manual__1/load/-1?row=" + "9" * 5000, 422),
    "file-without-key": ("object/sales/manual__1/load/-1", 422),
    "nul-in-id": ("instance/sales/manual__1/lo%00ad/-1", 404),
    "nul-in-run": ("run/sales/manual%00", 404),
    "nul-in-key": ("instance/sales/manual__1/load/-1?key=%00", 404),
    "nul-in-file": ("object/sales/manual__1/load/-1?key=a%00", 404),
    "surrogate-in-key": ("instance/sales/manual__1/load/-1?key=%ED%A0%80", 404),
    "surrogate-in-id": ("instance/sales/manual__1/%ED%A0%80/-1", 200),
    "not-unicode-in-id": ("run/%FF%FE/%C3", 200),
}


@pytest.mark.parametrize("name", PAGES)
def test_every_answer_has_its_headers(server: ViewerServer, name: str) -> None:
    """Whatever the address; and none of them is JSON or a traceback."""
    path, status = PAGES[name]
    answer = server.get(path)
    policy = answer.headers["content-security-policy"]

    assert answer.status == status
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'self'" in policy
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "json" not in answer.headers["content-type"]
    assert b"Traceback" not in answer.body
    if status == 422:
        assert "Invalid URL" in answer.text
        assert "key" in answer.text or "row" in answer.text


def test_answers_to_strangers_have_their_headers(server: ViewerServer) -> None:
    """Those who are not logged in, and those who may not read."""
    answers = [server.get(server.path("load", "k", page=page), None) for page in ("instance", "object")]
    if HAS_TEAMS:
        answers += [server.get(server.path("load", "k", page=page), "rolf") for page in ("image", "object")]

    for answer in answers:
        assert answer.status in (401, 403)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"


ABSURD = ("bytes", "rows", "shape", "type", "uri", "codec", "version", "surrogate", "deep")


@pytest.mark.parametrize("task", ["", *ABSURD])
def test_row_that_somebody_made_up_does_not_break_a_page(server: ViewerServer, task: str) -> None:
    """Its page says what is wrong, and the page of its run shows the others."""
    page = server.get(server.path(task, run_id="absurd") if task else "run/sales/absurd")

    assert page.status == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<b>" not in re.sub("<b>[0-9,]+</b>", "", page.text)
    if not task:
        assert all(f">{name}<" in page.text for name in (*ABSURD, "honest"))
    elif task != "surrogate":
        assert 'role="alert"' in page.text or "9</b> of" in page.text
    if task:
        file = server.get(server.path(task, "return_value", page="object", run_id="absurd"))
        assert file.status in (200, 403, 409)
        assert b"Internal" not in file.body


def test_download_is_sent_as_it_lies(server: ViewerServer) -> None:
    """Airflow compresses its pages; a download keeps its length, which a browser shows."""
    answer = server.get(server.path("load", "return_value", page="object"), accept_encoding="gzip")
    page = server.get(server.path("load"), accept_encoding="gzip")

    assert page.headers["content-encoding"] == "gzip", "else this test proves nothing"
    assert answer.headers["content-encoding"] == "identity"
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert answer.body[:4] == b"PAR1"


def test_download_that_is_broken_off_gives_its_place_back(server: ViewerServer) -> None:
    """More of them than there are places; and the log tells how they ended.

    A client that has everything is not one that broke off, however fast it leaves.
    """
    path = server.path("forty_megabytes", "return_value", page="object")
    host, port = server.url.removeprefix("http://").split(":")
    request = f"GET /payload-viewer/{path} HTTP/1.1\r\nhost: {host}\r\ncookie: _token={server.token('anna')}"
    for wanted in [1] * 9 + [40_000_128] * 5:
        with socket.create_connection((host, int(port)), timeout=30) as client:
            client.sendall(f"{request}\r\n\r\n".encode())
            head, _, body = client.recv(10_000).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            size = len(body)
            while size < wanted:
                piece = client.recv(1_000_000)
                assert piece, f"the server ended after {size:,} of {wanted:,} bytes"
                size += len(piece)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def outcomes() -> list[str]:
        lines = [line for line in server.log.splitlines() if "task_id=forty_megabytes" in line]
        return [match[1] for line in lines if (match := re.search(r"outcome=('[^']+'|\w+)", line))]

    deadline = time.monotonic() + 20
    while len(outcomes()) < 14 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert sorted(outcomes()) == ["'broken off'"] * 9 + ["sent"] * 5


@pytest.mark.parametrize(
    ("task", "words"),
    [
        pytest.param("newer", ["has version 99", "update this deployment"], id="newer"),
        pytest.param("unknown", ["feather", "known here are"], id="unknown"),
        pytest.param("bomb", ["memory"], id="bomb"),
    ],
)
def test_payload_that_cannot_be_shown_is_not_called_altered(
    server: ViewerServer, task: str, words: list[str]
) -> None:
    """What the process that decodes cannot do tells nothing of the object; it can be downloaded."""
    page = server.get(server.path(task))

    assert 'role="alert"' in page.text
    assert all(word in page.text for word in words)
    assert "not what was written" not in page.text
    assert "altered" not in page.text
    assert "data-download" in page.text
    assert server.get(server.path(task, "return_value", page="object")).body[:4] == b"PAR1"


def test_hostile_ids_are_one_line_in_the_log(server: ViewerServer) -> None:
    """No control character of a request gets into the log, and none that ends a line."""
    mark = "\x1b[31mline\r\x85next\u2028separator\u202e"
    server.get(server.path(f"marked {mark}", f"{mark}\nfeed", run_id=mark))
    (line,) = [line for line in server.log.split("\n") if "marked " in line and "payload viewed" in line]

    assert "outcome='HTTP 404'" in line
    assert "\\x1b[31mline\\r\\x85next\\u2028separator\\u202e\\nfeed" in line.replace("\\\\", "\\")
    # Airflow itself colours lines for a terminal.
    ours = line.partition("marked ")[2].partition("outcome")[0]
    assert not [one for one in re.sub("\x1b\\[[0-9;]*m", "", ours) if not one.isprintable()]


def test_refused_view_is_a_line_in_the_log(server: ViewerServer) -> None:
    """Who was turned away, and from where."""
    user = "rolf" if HAS_TEAMS else "anna"
    server.get(server.path("foreign", "return_value", page="object"), user)
    expected = "HTTP 403" if HAS_TEAMS else "ReferenceNotAllowedError"
    lines = [line for line in server.log.splitlines() if "task_id=foreign" in line and "downloaded" in line]

    assert any(f"user={user}" in line and expected in line and "bytes=0" in line for line in lines)


def test_bytes_of_a_view_are_all_that_were_read(server: ViewerServer) -> None:
    """Those that were read for the checksum, too."""
    server.get(server.path("forty_megabytes"), "anna")
    lines = [
        line for line in server.log.splitlines() if "task_id=forty_megabytes" in line and "viewed" in line
    ]

    assert int(re.search(r"bytes=(\d+)", lines[-1])[1]) > 40_000_000  # type: ignore[index]


def test_every_view_is_a_line_in_the_log(server: ViewerServer) -> None:
    """Who, which XCom, how many bytes."""
    server.get(server.path("matrix"), "vera")
    (line,) = [
        line for line in server.log.splitlines() if "payload viewed" in line and "task_id=matrix" in line
    ][:1]

    assert "user=vera" in line
    assert "dag_id=sales" in line
    assert "key=return_value" in line
    assert int(re.search(r"bytes=(\d+)", line)[1]) > 0  # type: ignore[index]


@pytest.mark.parametrize("place", range(len(HOSTILE)))
def test_hostile_text_is_escaped(server: ViewerServer, place: int) -> None:
    """In keys, columns, cells, names of parts, JSON; the browser's tests see that nothing runs."""
    key = f"{place} {HOSTILE[place]}"
    for path in (
        server.path("hostile", key),
        server.path("hostile", key, part="0.parquet"),
        server.path("hostile", f"frame {place}"),
        server.path(f"members {place}"),
        server.path(f"members {place}", part=HOSTILE[place]),
        server.path(f"task {HOSTILE[place]}", run_id=f"run {HOSTILE[place]}"),
        f"run/sales/{quote(f'run {HOSTILE[place]}', safe='')}",
        server.path(f"task {HOSTILE[place]}", "none", run_id=f"run {HOSTILE[place]}", page="object"),
        "run/sales/manual__1",
    ):
        answer = server.get(path)
        assert answer.status == (404 if path.startswith("object") else 200)
        if answer.status == 404:
            assert answer.headers["content-type"].startswith("text/plain")
            continue
        assert 'role="alert"' not in answer.text
        for mark in ("<script>document", "<img src=x", "<svg onload", "<iframe", '<a href="javascript'):
            assert mark not in answer.text


# ----------------------------------------------------------------------------------------------- pages


def test_instance_lists_all_and_opens_the_return_value(server: ViewerServer) -> None:
    """What is stored and what is in the database, one of them opened."""
    page = server.get(server.path("load")).text

    assert "facts" in page
    assert "in the database" in page
    assert f"{server.payloads.as_uri()}/xcom/sales/manual__1/load/-1/return_value/" in page
    for name, text in (
        ("Codec", "pandas-frame"),
        ("Timestamp", "2026-11-01 12:00:00 UTC"),
        ("Size", r"\d\.\d KiB"),
        ("In memory", r"\d+\.\d KiB"),
    ):
        assert re.search(f'data-label="{name}"[^>]*>{text}<', page), name
    assert "1,200 \u00d7 2" in page
    assert "pandas.DataFrame" in page
    assert "From all 1,200 rows" in page
    assert "1 to 100 of 1,200 rows" in page
    assert page.count('<tr><th scope="row" class="place">') == 100
    assert "1100" in server.get(server.path("load", "return_value", row=1100)).text
    assert "flights" in server.get(server.path("load", "facts")).text


def test_instance_of_a_mapped_task_shows_its_own(server: ViewerServer) -> None:
    """The map index is part of the path; the placeholder that Airflow leaves stands for none."""
    assert "601 \u00d7 2" in server.get(server.path("mapped", map_index=2)).text
    assert "1,200 \u00d7 2" in server.get(server.path("load", map_index="{MAP_INDEX}")).text
    assert "no such task instance" in server.get(server.path("load", map_index=5)).text
    assert server.get(server.path("load", map_index="x")).status == 404


def test_bundle_lists_its_parts(server: ViewerServer) -> None:
    """Each can be opened, a picture among them."""
    assert "2.bin" in server.get(server.path("bundle")).text
    assert "1,200</b> rows" in server.get(server.path("bundle", part="0.parquet")).text
    assert "image/png" in server.get(server.path("bundle", part="2.bin")).text
    picture = server.get(server.path("bundle", "return_value", page="image", part="2.bin"))
    assert (picture.status, picture.headers["content-type"]) == (200, "image/png")
    assert server.get(server.path("bundle", "return_value", page="image", part="0.parquet")).status == 404


def test_values_larger_than_memory_have_pages(
    server: ViewerServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder with a picture, a table, and a list of arrays; a download has the name of the file."""
    from include.xcom import File, Items, Table, payloads, settings
    from include.xcom.reference import Coordinates

    monkeypatch.setenv("AIRFLOW__GCS_XCOM__BUCKET", server.payloads.as_uri())
    settings.load_settings.cache_clear()
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "<b>.csv").write_text("carrier,delay\nUA,<i>5</i>\n")
    (tmp_path / "report" / "plot.png").write_bytes(PNG)
    values = {
        "a folder": File(tmp_path / "report"),
        "a file": File(tmp_path / "report" / "plot.png"),
        "a table": Table(pa.table({"carrier": ["UA"] * 3000})),
        "a list": Items({"number": number, "array": np.arange(5)} for number in range(300)),
    }
    for task, value in values.items():
        ids = Coordinates("sales", "manual__1", task, -1, "return_value")
        server.add_row(json.loads(json.dumps(payloads.store(value, ids))), task)
    settings.load_settings.cache_clear()

    folder = server.get(server.path("a folder"))
    assert "report, 2 files" in folder.text
    assert "&lt;b&gt;.csv" in folder.text
    assert "&lt;i&gt;5&lt;/i&gt;</td>" in server.get(server.path("a folder", part="<b>.csv")).text
    for task, part in (("a folder", "plot.png"), ("a file", "")):
        picture = server.get(server.path(task, "return_value", page="image", part=part))
        assert (picture.status, picture.headers["content-type"]) == (200, "image/png")
    download = server.get(server.path("a folder", "return_value", page="object"))
    assert download.headers["content-disposition"] == "attachment; filename*=UTF-8''report.zip"
    assert "3,000</b> rows" in server.get(server.path("a table")).text
    page = server.get(server.path("a list", start=200)).text
    assert "201 to 300 of 300 items" in page
    link = re.search(r"part=([0-9]+%2F[^&\"]+)", page)
    assert link is not None
    assert "of <b>int64</b>" in server.get(server.path("a list", part=unquote(link[1]))).text


@pytest.mark.parametrize(
    ("task", "words", "status"),
    [
        pytest.param("gone", ["XCom payload is gone", "Clear the task", "lifecycle rule"], 404, id="missing"),
        pytest.param("altered", ["not what was written", "CRC32C"], 409, id="altered"),
        pytest.param("altered_large", ["not what was written", "CRC32C"], 409, id="altered-large"),
    ],
)
def test_trouble_is_said_in_words(server: ViewerServer, task: str, words: list[str], status: int) -> None:
    """What happened and what to do; no traceback, no empty frame."""
    page = server.get(server.path(task))

    assert page.status == 200
    assert 'role="alert"' in page.text
    assert all(word in page.text for word in words)
    assert "Traceback" not in page.text
    assert "data-download" not in page.text
    assert server.get(server.path(task, "return_value", page="object")).status == status


def test_page_says_what_was_checked(server: ViewerServer) -> None:
    """Of what is in the database there is nothing to compare."""
    assert "Checked: CRC32C of the whole object." in server.get(server.path("load")).text
    assert "Checked:" not in server.get(server.path("load", "facts")).text


def test_large_file_is_checked_by_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not read is not promised; the page has the words."""
    from include.xcom.reference import Coordinates, PayloadReference, object_name
    from include.xcom.settings import load_settings
    from include.xcom.stores import own_store
    from include.xcom.viewer import limits
    from include.xcom.viewer.sources import open_source

    monkeypatch.setenv("AIRFLOW__GCS_XCOM__BUCKET", tmp_path.as_uri())
    monkeypatch.setattr(limits, "CHECKED_FILE_BYTES", 5_000_000)
    load_settings.cache_clear()
    checked = []
    for size in (4_500_000, 5_500_000):
        owner = Coordinates("sales", "manual__1", "load", -1, str(size))
        stored = own_store().put(object_name("xcom", owner, "0" * 32, "bin"), [bytes(size)])
        reference = PayloadReference(
            stored.uri, "bytes", size, size, "bytes", 1, stored.crc32c, stored.generation
        )
        checked.append(open_source(reference, owner).checked.partition(",")[0])
    load_settings.cache_clear()

    assert checked == ["CRC32C of the whole object", "size only"]


def test_too_large_is_said_in_words(server: ViewerServer) -> None:
    """Tasks can read what the page does not open; it can be downloaded."""
    page = server.get(server.path("long"))

    assert "Too large to show here" in page.text
    assert "data-download" in page.text


def test_what_is_not_there_is_said(server: ViewerServer) -> None:
    """A key that is gone, a Dag that never was."""
    assert server.get(server.path("load", "other")).status == 404
    assert "no such task instance" in server.get(server.path("never")).text
    assert "No task of this run" in server.get("run/sales/other").text


def test_run_is_sorted_by_size(server: ViewerServer) -> None:
    """The largest first, with a total; every row leads to its page."""
    page = server.get("run/sales/manual__1").text
    sizes = re.findall(r'data-label="Size" class="number">([^<]+)<', page)
    units = {"B": 1, "KiB": 2**10, "MiB": 2**20}
    numbers = [float(number) * units[unit] for number, unit in (size.split() for size in sizes)]

    assert numbers == sorted(numbers, reverse=True)
    assert "/payload-viewer/instance/sales/manual__1/mapped/2?key=return_value" in page
    assert server.get("run/sales/manual__1?sort=task").text.count("<tr>") == page.count("<tr>")


@pytest.mark.parametrize(
    ("sort", "head", "direction"),
    [
        ("size", "Size", "descending"),
        ("memory", "In memory", "descending"),
        ("task", "Task", "ascending"),
        ("key", "Key", "ascending"),
        ("type", "Type", "ascending"),
        ("timestamp", "Timestamp", "ascending"),
    ],
)
def test_run_can_be_sorted(server: ViewerServer, sort: str, head: str, direction: str) -> None:
    """By every column; the table's head says by which, to a screen reader as well."""
    page = server.get(f"run/sales/manual__1?sort={sort}").text
    cells = re.findall(rf'data-label="{head}"[^>]*>(?:<a[^>]*>)?([^<]*)', page)
    units = {"B": 1, "KiB": 2**10, "MiB": 2**20}
    values: list[Any] = [cell.strip() for cell in cells]
    if direction == "descending":
        values = [float(size.split()[0]) * units[size.split()[1]] for size in cells]

    assert len(values) > 20
    assert values == sorted(values, reverse=direction == "descending")
    assert re.findall(r'aria-sort="(\w+)">([^<]+)<', page) == [(direction, head)]
    assert f'<a href="?sort={sort}" aria-current="true">' in page
    assert 'aria-sort="descending">Size<' in server.get("run/sales/manual__1?sort=nonsense").text


def test_slice_of_an_array_can_be_asked_for(server: ViewerServer) -> None:
    """As the form does, with a number for each axis; and as links do, with commas."""
    server.add(np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5), "axes")
    form = server.get(server.path("axes") + "?key=return_value&part=&index=1&index=2")
    link = server.get(server.path("axes", index="1,2"))
    wrong = server.get(server.path("axes") + "?index=x&index=99&index=")

    assert "slice [ 1, 2, :, : ]" in form.text
    assert "slice [ 1, 2, :, : ]" in link.text
    assert '<td class="number">100</td>' in form.text
    assert "slice [ 0, 2, :, : ]" in wrong.text


def test_airflow_lists_the_tabs(server: ViewerServer) -> None:
    """The plugin is loaded, and names a tab for task instances and one for Dag runs."""
    from urllib.request import Request, urlopen

    request = Request(
        f"{server.url}/api/v2/plugins", headers={"authorization": f"Bearer {server.token('anna')}"}
    )
    with urlopen(request, timeout=30) as response:
        plugins = json.load(response)["plugins"]
    (plugin,) = [plugin for plugin in plugins if plugin["name"] == "payload_viewer"]

    assert [(view["name"], view["destination"]) for view in plugin["external_views"]] == [
        ("Payloads", "task_instance"),
        ("Payloads", "dag_run"),
        ("XCom history", "task"),
    ]


# ---------------------------------------------------------------------------------------------- history


def test_history_is_a_page_and_json(server: ViewerServer) -> None:
    """Of the references alone: the store is not asked, whatever became of the objects."""
    page = server.get("history/sales/daily")
    answer = server.get("history/sales/daily?runs=90", accept="application/json")
    runs = json.loads(answer.body)["runs"]

    assert page.status == 200
    assert "Rows over" in page.text
    assert "schema changed" in page.text
    assert (
        'href="/payload-viewer/compare/sales/daily/-1?key=return_value&amp;first=daily+01&amp;second=daily+02"'
        in page.text
    )
    daily = [run for run in runs if run["run_id"].startswith("daily")]
    assert [run["measures"]["rows"] for run in daily] == [1200, 1200, 900]
    assert daily[1]["changes"] == ["columns 2 → 3", "schema changed"]
    assert (daily[0]["state"], daily[0]["run_after"][:10]) == ("success", "2026-10-01")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"


def test_history_of_the_opened_xcom_is_on_its_page(server: ViewerServer) -> None:
    """Small charts, and a link to all of it."""
    page = server.get(server.path("daily", run_id="daily 03")).text

    assert 'aria-label="Rows over' in page
    assert 'href="/payload-viewer/history/sales/daily?key=return_value">History</a>' in page


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("history/sales/never", "None of the last 30 runs has an XCom"),
        ("history/sales/daily?key=other", "None of the last 30 runs has an XCom"),
        ("history/none/daily?map_index=x&runs=-5", "None of the last 1 runs has an XCom"),
        ("history/sales/malformed?runs=9999", "malformed"),
        ("history/sales/mapped", "The task is mapped: the charts show the sum of all map indexes."),
    ],
)
def test_history_of_anything_is_a_page(server: ViewerServer, path: str, words: str) -> None:
    """A task that never was, a Dag that is gone, a row that is malformed, a query that somebody made up."""
    page = server.get(path)

    assert page.status == 200
    assert words in page.text
    assert "Traceback" not in page.text


@needs_teams
@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_history_and_comparison_need_the_permission_of_the_tab(server: ViewerServer, accept: str) -> None:
    """As everything of the Dag."""
    for path in ("history/sales/daily", "compare/sales/daily/-1?first=daily+01&second=daily+02"):
        assert server.get(path, "vera", accept=accept).status == 200
        for user, status in (("rolf", 403), (None, 401)):
            answer = server.get(path, user, accept=accept)
            assert answer.status == status
            assert "carrier" not in answer.text
            assert "daily 01" not in answer.text


def test_history_command_prints_what_the_page_shows(
    server: ViewerServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One request, with the permission of the page."""
    from include.xcom.__main__ import main

    monkeypatch.setenv("AIRFLOW_API_URL", server.url)
    monkeypatch.setenv("AIRFLOW_API_TOKEN", server.token("anna"))

    assert main(["history", "sales", "daily", "--runs", "365"]) == 0
    lines = capsys.readouterr().out.splitlines()
    place = lines.index(next(line for line in lines if line.startswith("daily 02")))
    assert lines[place].split()[2:5] == ["success", "1,200", "3"]
    assert lines[place + 1 : place + 3] == ["  columns 2 → 3", "  schema changed"]
    assert main(["history", "sales", "daily", "--json"]) == 0
    answer = server.get("history/sales/daily", accept="application/json")
    assert json.loads(capsys.readouterr().out) == json.loads(answer.body)
    assert main(["history", "sales", "malformed"]) == 0
    assert "  malformed row" in capsys.readouterr().out
    assert main(["history", "sales", "mapped", "--map-index", "2"]) == 0
    assert " 601 " in capsys.readouterr().out
    assert main(["history", HOSTILE[-1], "no/such task \u202e", "ключ"]) == 0
    assert "No runs of " in capsys.readouterr().out


@needs_teams
@pytest.mark.parametrize(
    ("user", "words"), [("rolf", "grant read access to XComs of that Dag"), ("", "the token is not accepted")]
)
def test_history_command_says_what_the_user_lacks(
    server: ViewerServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    user: str,
    words: str,
) -> None:
    """A permission, or a token that is valid."""
    from include.xcom.__main__ import main

    monkeypatch.setenv("AIRFLOW_API_URL", server.url)
    monkeypatch.setenv("AIRFLOW_API_TOKEN", server.token(user) if user else "no token")

    assert main(["history", "sales", "daily"]) == 1
    said = capsys.readouterr()
    assert words in said.err
    assert "daily 01" not in said.out


def test_two_runs_are_compared_by_content(server: ViewerServer) -> None:
    """Columns that were added, removed or changed come first, then the others; the first rows of both."""
    page = server.get("compare/sales/daily/-1?first=daily+01&second=daily+03").text
    columns = re.findall(r'rowspan="2">([^<]+)<span class="type">([^<]*)<', page)

    assert columns == [("carrier", "type changed"), ("month", "added"), ("delay", "")]
    assert "<b>1,200</b> rows, <b>2</b> columns" in page
    assert "<b>900</b> rows, <b>3</b> columns" in page
    assert page.count('<tr><th scope="row" class="place">') == 20
    assert "<li>daily 01</li><li>daily 03</li>" in page


def test_comparison_of_other_payloads_shows_both(server: ViewerServer) -> None:
    """Arrays, a payload that is gone, a run that has none."""
    arrays = server.get("compare/sales/series/-1?first=daily+01&second=daily+03")
    gone = server.get("compare/sales/gone/-1?first=manual__1&second=manual__1")
    none = server.get("compare/sales/daily/-1?first=daily+01&second=manual__1")

    assert "<b>6</b> of <b>int64</b>" in arrays.text
    assert "<b>8</b> of <b>int64</b>" in arrays.text
    assert gone.status == 200
    assert gone.text.count('role="alert"') == 2
    assert none.status == 404
    assert "no XCom with this key" in none.text
    assert server.get("compare/sales/daily/-1?first=daily+01").status == 422


@pytest.mark.parametrize("task", ["malformed", "foreign", "altered", "gone"])
def test_comparison_of_what_cannot_be_read_says_so(server: ViewerServer, task: str) -> None:
    """For each side, in the words of the payload's own page; the row is in the history all the same."""
    compared = server.get(f"compare/sales/{task}/-1?first=manual__1&second=manual__1")
    (title,) = set(re.findall(r'role="alert">\s*<h3>([^<]+)</h3>', server.get(server.path(task)).text))

    assert compared.status == 200
    assert compared.text.count(f"<h3>{title}</h3>") == 2
    assert server.get(f"history/sales/{task}").status == 200


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("is failed", "The task failed (try 1), so its return value was not stored."),
        ("is failed", "in the group &#34;Post Execute&#34;"),
        ("is skipped", "The task did not run: its state is skipped."),
        ("is running", "The task has not finished: its state is running."),
        ("is success", "it returned None, has do_xcom_push=False, or its XComs were deleted"),
        ("is None", "The task has not run yet."),
        ("was never there", "This Dag run has no such task instance."),
    ],
)
def test_page_without_xcoms_says_why(server: ViewerServer, task: str, words: str) -> None:
    """As far as the state of the task instance tells."""
    assert words in server.get(server.path(task)).text


def test_inexact_payload_is_called_so(server: ViewerServer) -> None:
    """In the lists and on its page, with what that means."""
    page = server.get(server.path("lossy")).text

    assert page.count('<span class="badge">inexact</span>') == 2
    assert "have no exact form" in page
    assert "Airflow&#39;s default" not in server.get(server.path("load")).text
    assert '<span class="badge">inexact</span>' in server.get("run/sales/manual__1").text


@pytest.mark.parametrize(
    ("text", "tasks"),
    [
        ("MAPPED", {"mapped"}),
        ("facts", {"load"}),
        ("l%d", set()),
        ("_large", {"altered_large"}),
        ("<b>", set()),
    ],
)
def test_run_is_filtered_by_task_or_key(server: ViewerServer, text: str, tasks: set[str]) -> None:
    """In any case; the characters of SQL's patterns are characters."""
    page = server.get(f"run/sales/manual__1?contains={quote(text)}&sort=key").text
    found = re.findall(r'data-label="Task"><a href="[^"]*">([^<]+)<', page)

    assert set(found) == tasks
    assert ("No task id or key contains this text." in page) == (not tasks)
    assert "<b>" not in re.sub("<b>[0-9,]+</b>", "", page)
    assert f'href="?sort=task&amp;contains={quote(text)}"' in page


def test_instance_is_filtered_by_key(server: ViewerServer) -> None:
    """The opened XCom stays open."""
    page = server.get(server.path("hostile", "frame 3", contains="FRAME 1", sort="size")).text
    keys = re.findall(r'data-label="Key"><a href="[^"]*"[^>]*>([^<]+)<', page)

    assert keys == ["frame 1"]
    assert '<h2 id="opened">frame 3</h2>' in page
    assert 'aria-sort="descending">Size<' in page


# ---------------------------------------------------------------------------------------------- reading


def test_large_parquet_is_read_by_ranges(gcs_server: Any, tmp_path: Path) -> None:
    """200 MB in a bucket: at most 10 MB leave it, the page is there in less than 1.5 s, memory hardly grows.

    Asked of a server that has answered nothing of the viewer's yet, over HTTP, with its login and database.
    """
    from include.xcom.reference import Coordinates, PayloadReference, object_name
    from include.xcom.stores import checksum

    payload = _large()
    size = len(payload)
    owner = Coordinates("sales", "manual__1", "load", -1, "return_value")
    name = object_name("xcom", owner, "0" * 32, "parquet")
    generation = gcs_server.write(name, payload)
    reference = PayloadReference(
        f"gs://{gcs_server.bucket}/{name}", "pandas.DataFrame", size, size, "pandas-frame", 1,
        checksum([payload]), generation,
    )  # fmt: skip
    del payload
    sent = []

    def count(exchange: Exchange) -> None:
        head, body = exchange.forward(exchange.read_body())
        sent.append(len(head) + len(body))
        exchange.send(head + body)

    with FaultProxy(gcs_server.url) as proxy:
        proxy.plan(count, always=True)
        server = start(tmp_path, STORAGE_EMULATOR_HOST=proxy.url, AIRFLOW__GCS_XCOM__BUCKET=gcs_server.bucket)
        try:
            server.add_dag("sales")
            server.add_row(reference.to_row(), "load")
            server.add({"few": 1}, "small")
            server.get("no-page")  # Logs in.
            spent = []
            with _Memory(server.process.pid) as memory:
                for _ in range(4):
                    began = time.perf_counter()
                    page = server.get(server.path("load")).text
                    spent.append(time.perf_counter() - began)
            cost = sent[: len(sent) // 4]
            line = next(line for line in server.log.splitlines() if "payload viewed" in line)
        finally:
            stop(server)

    first, *others = spent
    print(
        f"{size:,} bytes stored; the bucket sent {sum(cost):,} in {len(cost)} answers; the page was there "
        f"after {first:.2f} s at first and {min(others):.2f} s later; the API server grew by "
        f"{memory.growth / 1e6:.0f} MB at most"
    )
    assert size > 200_000_000
    assert "generation, size, and CRC32C, as stated by the bucket" in page
    assert page.count('<th scope="row" class="place">') == 100
    assert len(sent) == 4 * len(cost)
    assert sum(cost) < 10_000_000
    assert int(re.search(r"bytes=(\d+)", line)[1]) < sum(cost)  # type: ignore[index]
    assert min(spent) < 1.5, spent
    assert memory.growth < 150_000_000


class _Memory:
    """Watches how much memory a process has while something is done."""

    def __init__(self, pid: int) -> None:
        self._file = Path(f"/proc/{pid}/statm")
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._first = self._most = self._now()

    @property
    def growth(self) -> int:
        """Bytes, from the first to the most."""
        return self._most - self._first

    def __enter__(self) -> _Memory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _now(self) -> int:
        return int(self._file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def _watch(self) -> None:
        while not self._is_over.wait(0.01):
            self._most = max(self._most, self._now())


def test_viewer_imports_no_library_of_payloads(tmp_path: Path) -> None:
    """Neither the plugin, which every component loads, nor its pages, which the API server does."""
    plugin = Path(shutil.copy(TEMPLATE / "plugins" / PLUGIN, tmp_path / "payload_viewer.py"))
    code = (
        "import sys, time, airflow.plugins_manager, importlib.util as u; "
        "spec = u.spec_from_file_location('payload_viewer', sys.argv[1]); m = u.module_from_spec(spec); "
        "start = time.perf_counter(); spec.loader.exec_module(m); print(time.perf_counter() - start); "
        "import airflow.api_fastapi.core_api.security; before = set(sys.modules); "
        "start = time.perf_counter(); m.PayloadViewer()._make(); "
        "print(time.perf_counter() - start); "
        "print(*sorted({'pandas', 'pyarrow', 'numpy', 'polars'} & (set(sys.modules) - before)))"
    )
    seconds = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code, str(plugin)], capture_output=True, text=True, check=True,
            env={**os.environ, "AIRFLOW_HOME": str(tmp_path), "PYTHONPATH": str(TEMPLATE)},
        )  # fmt: skip
        loading, making, heavy = done.stdout.splitlines()[-3:]
        seconds.append((float(loading), float(making)))
        assert heavy == ""
    print(
        f"loading the plugin takes {min(one for one, _ in seconds) * 1000:.1f} ms, making its pages "
        f"{min(one for _, one in seconds) * 1000:.0f} ms"
    )
    assert min(one for one, _ in seconds) < 0.05


def _large() -> memoryview:
    random = np.random.default_rng(7)
    sink = io.BytesIO()
    columns: dict[str, np.ndarray] = {f"value_{place}": random.random(250_000) for place in range(6)}
    columns |= {f"count_{place}": random.integers(0, 2**40, 250_000) for place in range(2)}
    columns |= {"name": np.array([f"customer {place}" for place in range(250_000)])}
    table = pa.table(columns)
    with pq.ParquetWriter(sink, table.schema, compression="zstd", write_statistics=False) as writer:
        while sink.tell() < 200_000_000:
            writer.write_table(table)
    return sink.getbuffer()
