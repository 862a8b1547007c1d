"""What the commands print, write and delete, on a directory and beside a small stand-in of Airflow's API."""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import include.xcom
import pytest
from include.xcom import File, Items, Table, metrics, new_folder, payloads, settings
from include.xcom.__main__ import main
from include.xcom.commands import api, claim, deployment, lifecycle, output, storage
from include.xcom.commands.project import REQUIREMENTS, examine_project
from include.xcom.reference import Coordinates
from include.xcom.settings import load_settings
from include.xcom.stores import own_store

RUN = "scheduled__2026-11-01T00:00:00+00:00"
PROJECT = Path(include.xcom.__file__).parents[2]


class FakeAirflow(ThreadingHTTPServer):
    """Answers what the commands ask of Airflow's API, in its words.

    Attributes:
        rows: Values by (dag, run, task, map index, key).
        failing: Paths that hold this text get HTTP 503.
        forbidden: Paths that begin with this text get HTTP 403.
        asked: Paths of all requests.
        regions: Rows of Airflow 3.4 in loops, by (dag, run, task, region, index in it, key): map index and value.
        history: What the payload viewer answers about any XCom; text is an answer in HTML.
        variables: Airflow Variables.
        tokens: Counts those that it has given as Google's token endpoint, and takes the last one.
        on_value: Called before a row is given.
        on_list: Called before rows are listed.
    """

    daemon_threads = True

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, str, int, str], Any] = {}
        self.regions: dict[tuple[str, str, str, str, int, str], tuple[int, Any]] = {}
        self.failing = ""
        self.forbidden = ""
        self.asked: list[str] = []
        self.history: dict[str, Any] | str = {}
        self.variables: dict[str, str] = {}
        self.tokens = 0
        self.version = "3.3.2"
        self.on_value: Any = lambda: None
        self.on_list: Any = lambda: None
        self.dags = {"sales"}
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeAirflow

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/google/token":
            self.server.tokens += 1
            self._answer(200, {"access_token": f"google-{self.server.tokens}", "expires_in": 3600})
            return
        given = json.loads(body)
        if self.path == "/api/v2/variables":
            if not self._is_known():
                self._answer(401, {"detail": "Not authenticated"})
            elif self.server.forbidden and self.path.startswith(self.server.forbidden):
                self._answer(403, {"detail": "Forbidden"})
            else:
                is_new = given["key"] not in self.server.variables
                self.server.variables.setdefault(given["key"], given["value"])
                self._answer(201 if is_new else 409, {})
        elif given == {"username": "ann", "password": "right"}:
            self._answer(201, {"access_token": "a-token"})
        else:
            self._answer(401, {"detail": "Invalid credentials"})

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        parts = [unquote(part) for part in url.path.split("/")]
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.server.asked.append(url.path)
        if self.server.failing and self.server.failing in unquote(self.path):
            self._answer(503, {"detail": "down"})
        elif url.path == "/api/v2/version":
            self._answer(200, {"version": self.server.version})
        elif not self._is_known():
            self._answer(401, {"detail": "Not authenticated"})
        elif self.server.forbidden and url.path.startswith(self.server.forbidden):
            self._answer(403, {"detail": "Forbidden"})
        elif parts[1:3] == ["payload-viewer", "history"]:
            self.server.asked[-1] = self.path
            self._answer(200, self.server.history)
        elif parts[3] == "variables":
            found = self.server.variables.get(parts[4])
            self._answer(
                404 if found is None else 200,
                {"detail": f"The Variable with key: `{parts[4]}` was not found"}
                if found is None
                else {"key": parts[4], "value": found},
            )
        elif parts[3:] == ["dags"]:
            dags = [{"dag_id": dag} for dag in sorted(self.server.dags)]
            self._answer(200, {"dags": dags, "total_entries": len(dags)})
        elif len(parts) == 5:
            known = parts[4] in self.server.dags
            self._answer(
                200 if known else 404,
                {} if known else {"detail": f"The Dag with ID: `{parts[4]}` was not found"},
            )
        elif parts[-1] == "xcomEntries":
            keys = [key for key in list(self.server.rows) if key[0] == parts[4] and parts[6] in ("~", key[1])]
            keys = [key for key in keys if parts[8] in ("~", key[2])]
            keys = [key for key in keys if query.get("xcom_key", key[4]) == key[4]]
            keys = [key for key in keys if int(query.get("map_index", key[3])) == key[3]]
            self.server.on_list()
            first = int(query["offset"])
            names = ("dag_id", "run_id", "task_id", "map_index", "key")
            rows = [dict(zip(names, key, strict=True)) for key in keys]
            rows += self._in_loops(parts, query)
            page = rows[first : first + int(query["limit"])]
            self._answer(200, {"xcom_entries": page, "total_entries": len(rows)})
        elif any(key[:3] == (parts[4], parts[6], parts[8]) for key in self.server.regions):
            self._answer_in_loop(parts, query)
        else:
            self.server.on_value()
            key = (parts[4], parts[6], parts[8], int(query["map_index"]), parts[10])
            if key in self.server.rows:
                names = ("dag_id", "run_id", "task_id", "map_index", "key")
                self._answer(200, dict(zip(names, key, strict=True)) | {"value": self.server.rows[key]})
            else:
                self._answer(404, {"detail": f"XCom entry with key: `{parts[10]}` not found"})

    def _in_loops(self, parts: list[str], query: dict[str, str]) -> list[dict[str, Any]]:
        """Give rows of loops as Airflow 3.4 lists them: by their public map index."""
        names = ("dag_id", "run_id", "task_id", "region_id", "region_index", "key")
        found = [
            dict(zip(names, key, strict=True)) | {"map_index": index}
            for key, (index, _) in self.server.regions.items()
        ]
        found = [row for row in found if row["dag_id"] == parts[4] and parts[6] in ("~", row["run_id"])]
        found = [row for row in found if parts[8] in ("~", row["task_id"])]
        found = [row for row in found if query.get("xcom_key", row["key"]) == row["key"]]
        return [
            row for row in found if query.get("map_index", str(row["map_index"])) == str(row["map_index"])
        ]

    def _answer_in_loop(self, parts: list[str], query: dict[str, str]) -> None:
        if "region_id" not in query:
            self._answer(400, {"detail": "Select a region and index for this task instance"})
            return
        key = (parts[4], parts[6], parts[8], query["region_id"], int(query["region_index"]), parts[10])
        if key not in self.server.regions:
            self._answer(404, {"detail": f"XCom entry with key: `{parts[10]}` not found"})
            return
        names = ("dag_id", "run_id", "task_id")
        index, value = self.server.regions[key]
        more = {"key": parts[10], "map_index": index, "value": value}
        self._answer(200, dict(zip(names, key[:3], strict=True)) | more)

    def _is_known(self) -> bool:
        tokens = {"Bearer a-token"} | (
            {f"Bearer google-{self.server.tokens}"} if self.server.tokens else set()
        )
        return self.headers["authorization"] in tokens

    def _answer(self, status: int, body: dict[str, Any] | str) -> None:
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def logging_stays_as_it_was() -> Iterator[None]:
    """Commands send logs to stderr, which is each test's own; other tests come after these."""
    structlog = sys.modules.get("structlog")
    before = structlog.get_config() if structlog else {}
    yield
    if structlog:
        structlog.configure(**before)


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAirflow]:
    """A stand-in of Airflow's API that knows the Dag "sales"."""
    for name in ("HTTP_PROXY", "http_proxy", "AIRFLOW_API_TOKEN", "COMPOSER_ENVIRONMENT"):
        monkeypatch.delenv(name, raising=False)
    with serving() as server:
        monkeypatch.setenv("AIRFLOW_API_URL", server.url)
        monkeypatch.setenv("AIRFLOW_API_USERNAME", "ann")
        monkeypatch.setenv("AIRFLOW_API_PASSWORD", "right")
        yield server


@contextmanager
def serving() -> Iterator[FakeAirflow]:
    """Another deployment."""
    server = FakeAirflow()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def store(value: Any, task: str = "load", *, run: str = RUN, dag: str = "sales", index: int = -1) -> Any:
    """Store a payload as a task does and make it ten days old; return its row."""
    row = payloads.store(value, Coordinates(dag, run, task, index, "return_value"))
    path = path_of(row)
    past = time.time() - 10 * 86_400
    os.utime(path, (past, past))
    return row


def path_of(row: Any) -> Path:
    """Return the file of a row's payload."""
    return Path(row["__data__"]["uri"].removeprefix("file://"))


def payloads_of(folder: Path) -> set[Path]:
    """Return the files that are payloads: all but the claim of the prefix."""
    return {path for path in folder.rglob("*") if path.is_file() and claim.FOLDER not in path.parts}


def keep(airflow: FakeAirflow, row: Any, task: str = "load", *, run: str = RUN, index: int = -1) -> None:
    """Let Airflow have a row."""
    airflow.rows[("sales", run, task, index, "return_value")] = row


def point(run_id: str, **facts: Any) -> dict[str, Any]:
    """Return what the viewer tells of a run in which the task pushed a frame."""
    frame: dict[str, Any] = {
        "run_id": run_id, "run_after": None, "state": "success", "instances": 1, "xcoms": 1,
        "type": "pandas.DataFrame", "codec": "pandas-frame", "schema": "0a1b2c3d", "problem": "", "changes": [],
        "measures": {"rows": 336776.0, "columns": 19.0, "bytes": 8400000.0, "seconds": 1.2036},
    }  # fmt: skip
    return {**frame, **facts}


NOTHING = {"xcoms": 0, "type": "", "codec": "", "schema": "", "measures": {}}


@pytest.mark.parametrize("command", ["", "doctor", "ls", "history", "show", "fetch", "sweep", "lifecycle"])
def test_help_fits_the_terminal(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Paragraph by paragraph."""
    monkeypatch.setenv("COLUMNS", "80")

    with pytest.raises(SystemExit, match="0"):
        main([*filter(None, [command]), "--help"])

    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert said.count("\n\n") >= 3


class TestHistory:
    """``history``."""

    def test_history_prints_runs_and_what_changed(
        self, airflow: FakeAirflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The newest last; runs that failed or have none are marked, and the table fits a terminal."""
        changes = ["rows 336,776 → 400,000 (+18.8 %)", "schema changed"]
        points = [
            point(RUN),
            point("a", state="failed", instances=1, **NOTHING),
            point("b\x1b", state=None, instances=0, **NOTHING),
            point(RUN.replace("01T", "02T"), changes=changes, measures={"rows": 400000.0, "bytes": 9e6}),
            point("malformed", problem="The XCom row ...", **{**NOTHING, "xcoms": 1, "type": "?"}),
        ]
        airflow.history = {"runs": points, "is_mapped": False, "is_cut": False}
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        monkeypatch.setenv("COLUMNS", "80")
        capsys.readouterr()

        assert main(["history", "sales", "a/b"]) == 0

        said = capsys.readouterr()
        assert [line.split() for line in said.out.splitlines()[1:]] == [
            [RUN, "success", "336,776", "19", "8.0", "MiB", "1.204"],
            ["a", "failed"],
            ["no", "XCom"],
            ["b?", "none"],
            ["no", "XCom"],
            [RUN.replace("01T", "02T"), "success", "400,000", "8.6", "MiB"],
            *[change.split() for change in changes],
            ["malformed", "success"],
            ["malformed", "row"],
            ["5", "runs:", "1", "failed,", "2", "without", "this", "XCom"],
        ]
        assert said.out.splitlines()[0].split() == [
            "RUN",
            "STATE",
            "ROWS",
            "COLS",
            "SIZE",
            "SECONDS",
        ]
        assert max(map(len, said.out.splitlines())) <= 80
        assert said.err == ""
        assert airflow.asked[-1] == "/payload-viewer/history/sales/a%2Fb?key=return_value&runs=30&map_index="

    def test_history_of_a_mapped_task_says_what_the_numbers_are(
        self, airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A sum, of how many; one map index has lines of its own."""
        airflow.history = {"runs": [point(RUN, instances=3, xcoms=2)], "is_mapped": True, "is_cut": True}
        capsys.readouterr()

        assert main(["history", "sales", "load", "facts", "--runs", "365"]) == 0
        said = capsys.readouterr()
        assert said.out.split()[:4] == ["RUN", "STATE", "XCOMS", "ROWS"]
        assert "sum of all map indexes" in said.err
        assert "shows only the newest 1 run:" in said.err
        assert main(["history", "sales", "load", "facts", "--map-index", "7", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == airflow.history
        assert [one.partition("?")[2] for one in airflow.asked if "?" in one] == [
            "key=facts&runs=365&map_index=",
            "key=facts&runs=30&map_index=7",
        ]

    def test_history_of_a_number_is_its_value(
        self, airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """What a task measures is in the row itself."""
        runs = [point(RUN, type="float", codec="", measures={"value": 0.123456789, "bytes": 11.0})]
        airflow.history = {"runs": runs, "is_mapped": False, "is_cut": False}
        capsys.readouterr()

        assert main(["history", "sales", "auc"]) == 0
        assert capsys.readouterr().out.splitlines()[1].split() == [RUN, "success", "0.123457", "11", "B"]

    def test_history_without_the_xcom_says_so(
        self, airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Whether the Dag has runs or not."""
        for points in ([], [point("a", **NOTHING)]):
            airflow.history = {"runs": points, "is_mapped": False, "is_cut": False}
            assert main(["history", "sales", "load", "facts"]) == 0
            out = capsys.readouterr().out
            assert out == (
                'No XCom "facts" of load in the last 1 run of sales\n' if points else "No runs of sales\n"
            )

    @pytest.mark.parametrize(
        "answer", ["<!doctype html>", {}, {"runs": [{}], "is_cut": False, "is_mapped": False}]
    )
    def test_history_without_a_viewer_says_what_it_needs(
        self, airflow: FakeAirflow, capsys: pytest.CaptureFixture[str], answer: Any
    ) -> None:
        """Airflow 3.0, a viewer that is switched off, another server at the URL."""
        airflow.history = answer

        for words in ([], ["--json"]):
            assert main(["history", "sales", "load", *words]) == 1
            assert "[gcs_xcom] viewer" in capsys.readouterr().err
        airflow.forbidden = "/payload-viewer"
        assert main(["history", "sales", "load"]) == 1
        assert "this user lacks a permission" in capsys.readouterr().err

    @pytest.mark.parametrize("words", [["--runs", "0"], ["--runs", "366"], ["--map-index", "-1"], ["a", "b"]])
    def test_history_wrong_options_are_exit_2(self, words: list[str]) -> None:
        """As argparse says it."""
        with pytest.raises(SystemExit) as ended:
            main(["history", "sales", "load", *words])
        assert ended.value.code == 2


class TestListing:
    """``ls``, ``show`` and ``fetch``."""

    def test_ls_run_shows_what_rows_say(
        self, airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Type, shape, and size of each payload, whether a row refers to it, and the total."""
        keep(airflow, store(b"x" * 3000))
        store(b"y" * 1000, "a_task_with_a_name_that_goes_on_" * 3)
        capsys.readouterr()  # Airflow 3.0 logs to stdout until a command redirects it.

        code = main(["ls", "sales", RUN])

        out = capsys.readouterr().out
        assert code == 0
        load = next(line for line in out.splitlines() if line.startswith("load"))
        assert load.split() == ["load", "-", "return_value", "bytes", "bytes", "2.9", "KiB", "10", "d", "yes"]
        assert "2 payloads, 3.9 KiB" in out

    def test_ls_fits_80_columns_and_cuts_nothing(
        self, airflow: FakeAirflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """On a terminal long ids are folded, numbers stay whole, and map indexes are in their order."""
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame({"id": range(336_776), "n": 1})
        for index in (10, 2, 1, 0, 11):
            keep(
                airflow,
                store(frame, "a_mapped_task_with_a_long_name", index=index),
                "a_mapped_task_with_a_long_name",
                index=index,
            )
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setenv("TERM", "xterm")
        capsys.readouterr()

        assert main(["ls", "sales", RUN]) == 0

        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        assert sum("336776 x 2" in line for line in lines) == 5
        indexes = re.findall(r" (\d+)  ret", "\n".join(lines))
        assert indexes == ["0", "1", "2", "10", "11"]

    def test_ls_finds_the_row_of_a_payload_whose_ids_were_hashed(
        self, airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A Cyrillic key of 39 characters is over 200 bytes when it is quoted; its row is found all the same."""
        key = "выручка_по_регионам_за_отчетный_период"
        for name in (key, "return_value"):
            where = Coordinates("sales", RUN, "загрузка", -1, name)
            airflow.rows[tuple(where)] = payloads.store(b"x" * 100, where)  # type: ignore[index]
        store(b"orphan", "killed")
        capsys.readouterr()

        assert main(["ls", "sales", RUN, "--json"]) == 0

        found = json.loads(capsys.readouterr().out)["payloads"]
        assert [(one["key"][:7], one["is_referenced"]) for one in found] == [
            ("return_", False),
            ("return_", True),
            ("выручка", True),
        ]
        assert main(["show", "sales", RUN, "загрузка", "--key", key]) == 0

    def test_ls_dag_lists_runs_without_asking_airflow(
        self, airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Counts and bytes come from the store."""
        airflow.failing = "/"
        store(b"x" * 10)
        store(b"x" * 20, run="manual__1")

        assert main(["ls", "sales", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert {one["run_id"]: one["bytes"] for one in found["runs"]} == {RUN: 10, "manual__1": 20}
        assert found["total_bytes"] == 30

    def test_ls_without_airflow_lists_and_says_what_is_missing(
        self, airflow: FakeAirflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The store alone is enough for names, bytes and ages."""
        monkeypatch.setenv("AIRFLOW_API_PASSWORD", "wrong")
        store(b"x" * 10)

        assert main(["ls", "sales", RUN]) == 0
        said = capsys.readouterr()
        assert "user 'ann' was not accepted" in said.err
        assert "10 B" in said.out

    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            pytest.param(b"\x00\x01hello", "00 01 68 65 6c 6c 6f", id="bytes"),
            pytest.param({"text": "x" * 60_000, "n": [1, 2]}, '{"text":"xxx', id="json"),
            pytest.param({"part": b"abc" * 100_000, "n": 1}, "2 members", id="bundle"),
        ],
    )
    def test_show_uri_previews_by_format(
        self, value: Any, shown: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A look inside needs neither Airflow nor the codec, and stays short."""
        row = store(value)

        assert main(["show", row["__data__"]["uri"], "--lines", "5"]) == 0
        out = capsys.readouterr().out
        assert shown in out
        assert len(out) < 4000

    def test_show_handles_reads_what_it_prints(
        self,
        airflow: FakeAirflow,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """Of a file its first lines, of a folder its files, of a table and a list their first rows and items."""
        pyarrow = pytest.importorskip("pyarrow")
        (tmp_path / "report").mkdir()
        (tmp_path / "report" / "rows.csv").write_text("a,b\n" + "1,2\n" * 100_000)
        (tmp_path / "report" / "model.bin").write_bytes(b"\xff" + bytes(2_000_000))
        values = {
            "csv": File(tmp_path / "report" / "rows.csv"),
            "model": File(tmp_path / "report" / "model.bin"),
            "report": File(tmp_path / "report"),
            "table": Table(pyarrow.table({"n": range(1000)})),
            "list": Items({"n": n} for n in range(1000)),
        }
        for key, value in values.items():
            keep(airflow, store(value, key), key)
        monkeypatch.setattr("include.xcom.commands.show.fetch_file", None)  # Downloads everything.

        def shown(key: str) -> list[str]:
            assert main(["show", "sales", RUN, key, "--lines", "3"]) == 0
            return capsys.readouterr().out.split("\n\n", 1)[1].splitlines()

        assert shown("csv") == ["a,b", "1,2", "1,2"]
        assert shown("model")[0].startswith("00000000  ff 00 00")
        assert shown("report") == ["2 files", "  model.bin", "  rows.csv"]
        assert shown("table") == ["1000 rows, 1 column", "  n: int64", "", "n", "0", "1", "2"]
        assert shown("list") == ["Items(1000 items)", "  {'n': 0}", "  {'n': 1}", "  {'n': 2}"]
        assert main(["ls", "sales", RUN]) == 0
        listed = capsys.readouterr().out
        assert "rows.csv" in listed
        assert "report, 2 files" in listed
        path_of(airflow.rows["sales", RUN, "list", -1, "return_value"]).write_bytes(b"broken")
        assert shown("list")[0].startswith("no preview: PayloadCorruptError")

    def test_show_array_and_inline_value(
        self, airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """By the ids of the task instance: reference and shape, or the value of the row."""
        numpy = pytest.importorskip("numpy")
        keep(airflow, store(numpy.zeros((365, 3))))
        keep(airflow, {"small": 1}, "note")

        assert main(["show", "sales", RUN, "load"]) == 0
        assert main(["show", "sales", RUN, "note"]) == 0
        out = capsys.readouterr().out
        assert "shape 365 x 3, dtype float64" in out
        assert '"small": 1' in out

    @pytest.mark.parametrize("frame_format", ["parquet", "arrow"])
    def test_show_frame_previews_schema_and_first_rows(
        self, frame_format: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Of either format: count, types, as many rows as asked for, and the first of many columns."""
        polars = pytest.importorskip("polars")
        monkeypatch.setenv("AIRFLOW__GCS_XCOM__FRAME_FORMAT", frame_format)
        settings.load_settings.cache_clear()
        more = {f"c{number}": [number] * 100_000 for number in range(9)}
        row = store(polars.DataFrame({"id": range(100_000), "name": ["an\x1b[31mn"] * 100_000, **more}))

        assert main(["show", row["__data__"]["uri"], "--lines", "3"]) == 0
        _, shown = capsys.readouterr().out.split("\n\n", 1)
        assert path_of(row).suffix == f".{frame_format}"
        assert shown.splitlines() == [
            "100000 rows, 11 columns",
            "  id: int64",
            "  name: large_string",
            "  c0: int64",
            "  ... 8 more columns",
            "",
            "id  name      c0  c1  c2  c3  c4  c5",
            "0   an?[31mn  0   1   2   3   4   5",
            "1   an?[31mn  0   1   2   3   4   5",
            "2   an?[31mn  0   1   2   3   4   5",
            "(first 8 of 11 columns)",
        ]

    @pytest.mark.parametrize("frame_format", ["parquet", "arrow"])
    def test_show_frame_without_rows_and_damaged_frame(
        self, frame_format: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Nothing to see is said, and bytes that are no frame give a line and no traceback."""
        polars = pytest.importorskip("polars")
        monkeypatch.setenv("AIRFLOW__GCS_XCOM__FRAME_FORMAT", frame_format)
        settings.load_settings.cache_clear()
        row = store(polars.DataFrame({"id": polars.Series([], dtype=polars.Int64)}))

        assert main(["show", row["__data__"]["uri"]]) == 0
        assert capsys.readouterr().out.endswith("\n\n0 rows, 1 column\n  id: int64\n")
        path_of(row).write_bytes(b"no frame at all")
        assert main(["show", row["__data__"]["uri"]]) == 0
        assert "no preview: Arrow" in capsys.readouterr().out

    def test_json_of_every_command_has_the_same_facts(
        self, airflow: FakeAirflow, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Ls of a run, show by ids, by URI and of an inline value, and fetch."""
        row = store(b"hello" * 100)
        uri, crc32c = row["__data__"]["uri"], row["__data__"]["crc32c"]
        keep(airflow, row)
        keep(airflow, {"small": 1}, "note")
        store(b"orphan", "killed")

        def answer(*words: str) -> Any:
            assert main([*words, "--json"]) == 0
            return json.loads(capsys.readouterr().out)

        listed = answer("ls", "sales", RUN)
        assert [(one["task_id"], one["is_referenced"]) for one in listed["payloads"]] == [
            ("killed", False),
            ("load", True),
        ]
        assert {name: listed["payloads"][1][name] for name in ("type", "codec", "bytes", "uri", "key")} == {
            "type": "bytes",
            "codec": "bytes",
            "bytes": 500,
            "uri": uri,
            "key": "return_value",
        }
        assert listed["total_bytes"] == 506
        shown = answer("show", "sales", RUN, "load", "--lines", "1")
        facts = dict(row["__data__"])
        seconds = facts.pop("seconds")
        assert shown["reference"] == {**facts, "codec_version": 1, "summary": {"seconds": seconds}}
        assert shown["preview"] == [
            "00000000  68 65 6c 6c 6f 68 65 6c 6c 6f 68 65 6c 6c 6f 68  hellohellohelloh"
        ]
        known = answer("show", uri)["reference"]
        assert known == {"uri": uri, "bytes": 500, "crc32c": crc32c, "generation": "0"}
        assert answer("show", "sales", RUN, "note") == {"inline": {"small": 1}}
        target = tmp_path / "x.bin"
        assert answer("fetch", uri, str(target)) == {
            "file": str(target),
            "uri": uri,
            "bytes": 500,
            "crc32c": crc32c,
        }
        assert target.read_bytes() == b"hello" * 100

    def test_show_row_that_is_gone_is_exit_1(
        self, airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """It says which XCom Airflow does not have."""
        assert main(["show", "sales", RUN, "load", "--map-index", "3"]) == 1
        assert capsys.readouterr().err.endswith("map_index 3)\n")
        assert main(["show", "sales", RUN, "load"]) == 1
        said = capsys.readouterr().err
        assert "Airflow has no XCom" in said
        assert "--map-index N" in said

    def test_show_uri_outside_of_the_deployment_is_refused(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The same places as a task may read, and no others."""
        assert main(["show", "file:///etc/hostname"]) == 1
        said = capsys.readouterr().err
        assert "file:///etc/hostname is outside of what this deployment may read" in said
        assert "row" not in said  # No task wrote this URI.

    def test_fetch_writes_the_object_and_does_not_overwrite(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A file that is there stays until --force says otherwise."""
        row = store(b"new" * 1000)
        target = tmp_path / "out.bin"
        target.write_bytes(b"old")
        uri = row["__data__"]["uri"]

        assert main(["fetch", uri, str(target)]) == 1
        assert target.read_bytes() == b"old"
        assert "--force" in capsys.readouterr().err
        assert main(["fetch", uri, str(tmp_path)]) == 1
        assert "is a directory" in capsys.readouterr().err
        assert main(["fetch", uri, str(target), "--force"]) == 0
        assert target.read_bytes() == b"new" * 1000
        assert list(target.parent.glob(".*.part")) == []

    def test_fetch_altered_object_leaves_no_file(
        self, airflow: FakeAirflow, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The row says what was written; other bytes are not kept."""
        row = store(b"right" * 100)
        keep(airflow, row)
        path_of(row).write_bytes(b"wrong" * 100)

        assert main(["fetch", "sales", RUN, "load", str(tmp_path / "out" / "x.bin")]) == 1
        assert "CRC32C" in capsys.readouterr().err
        assert list((tmp_path / "out").iterdir()) == []


class TestSweep:
    """``sweep`` on a directory; tests/payload of the template has it on a bucket and a real Airflow."""

    @pytest.fixture(autouse=True)
    def claimed(self, airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]) -> None:
        """Somebody has said that this deployment alone uses the prefix; TestClaim is about that."""
        assert main(["sweep", "--claim"]) == 0
        assert "Claimed: this deployment alone writes below file://" in capsys.readouterr().err
        airflow.asked.clear()

    def test_sweep_lists_orphans_and_changes_nothing(
        self, airflow: FakeAirflow, payload_folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A dry run is the default."""
        keep(airflow, store(b"kept"))
        orphan = store(b"a row never written", "killed")

        assert main(["sweep", "--objects"]) == 0
        out = capsys.readouterr().out
        assert orphan["__data__"]["uri"] in out
        assert "1 orphan (19 B); nothing was deleted, --delete does it" in out
        assert len(payloads_of(payload_folder)) == 2

    def test_sweep_deletes_what_no_row_names(
        self, airflow: FakeAirflow, payload_folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Superseded tries, keys pushed twice and whole runs whose rows are gone; nothing else."""
        first, second = store(b"first push"), store(b"second push")
        keep(airflow, second)
        mapped = [store(bytes([index]), "map", index=index) for index in range(12)]
        for index in (0, 10, 11):
            keep(airflow, mapped[index], "map", index=index)
        cleaned = store(b"of a run that is gone", run="manual__gone")

        assert main(["sweep", "--delete"]) == 0
        assert payloads_of(payload_folder) == {
            path_of(row) for row in (second, mapped[0], mapped[10], mapped[11])
        }
        assert not path_of(first).exists()
        assert not path_of(cleaned).exists()
        assert "11 of 11 orphans deleted" in capsys.readouterr().out

    def test_sweep_young_foreign_and_unknown_objects_stay(
        self, airflow: FakeAirflow, payload_folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Younger than the age, outside of the prefix, of another form, of a Dag nobody knows."""
        young = store(b"young")
        os.utime(path_of(young))
        unknown = store(b"of another deployment", dag="theirs")
        outside = payload_folder / "other" / "sales" / RUN / "load" / "-1" / "return_value" / "1.bin"
        odd = payload_folder / "xcom" / "notes.txt"
        for path in (outside, odd):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"not a payload")
            os.utime(path, (0, 0))

        assert main(["sweep", "--delete"]) == 0
        assert all(path.exists() for path in (path_of(young), path_of(unknown), outside, odd))
        assert "Airflow does not know the Dag" in capsys.readouterr().err
        assert main(["sweep", "--delete", "--unknown-dags"]) == 0
        assert [path.exists() for path in (path_of(young), path_of(unknown), outside, odd)] == [
            True,
            False,
            True,
            True,
        ]

    def test_sweep_row_written_meanwhile_keeps_its_object(self, airflow: FakeAirflow) -> None:
        """Rows are listed first; about what has none there, Airflow is asked right before the deletion."""
        row = store(b"late")
        keep(airflow, "", "other")
        listed = []
        airflow.on_list = lambda: listed.append(1)

        def appear() -> None:
            assert listed
            keep(airflow, row)

        airflow.on_value = appear

        assert main(["sweep", "--delete"]) == 0
        assert path_of(row).exists()
        assert sum(path.endswith("/xcomEntries/return_value") for path in airflow.asked) == 1

    def test_sweep_run_that_cannot_be_asked_about_stays(
        self, airflow: FakeAirflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Others go on, and the exit code tells."""
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        airflow.failing = "manual__down"
        there, gone = store(b"?", run="manual__down"), store(b"!", run="manual__up")

        assert main(["sweep", "--delete"]) == 1
        assert path_of(there).exists()
        assert not path_of(gone).exists()
        assert "HTTP 503" in capsys.readouterr().err

    def test_sweep_with_another_server_at_the_url_deletes_nothing(
        self, airflow: FakeAirflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A 404 of somebody else is no word of Airflow's."""
        row = store(b"here")
        monkeypatch.setenv("AIRFLOW_API_URL", f"{airflow.url}/elsewhere")
        monkeypatch.setenv("AIRFLOW_API_TOKEN", "a-token")

        assert main(["sweep", "--delete"]) == 1
        assert path_of(row).exists()
        assert "AIRFLOW_API_URL" in capsys.readouterr().err

    @pytest.mark.parametrize("options", [["--thorough"], []], ids=["thorough", "listed"])
    def test_sweep_of_3_4_asks_for_each_row_of_a_loop(
        self, airflow: FakeAirflow, options: list[str], payload_folder: Path
    ) -> None:
        """Iterations of a task, and its mapped tasks in each of them, have rows with the same coordinates."""
        airflow.version = "3.4.0"
        kept = set()
        for number in range(3):
            grown = store(bytes([number]) * 100, "grow", index=number)
            airflow.regions["sales", RUN, "grow", "loop", number, "return_value"] = (-1, grown)
            kept.add(path_of(grown))
            for index in range(2):
                part = store(bytes([number, index]) * 100, "part", index=index)
                region = f"expansion-{number}"
                airflow.regions["sales", RUN, "part", region, index, "return_value"] = (index, part)
                kept.add(path_of(part))
        store(b"of a superseded try", "grow", index=1)
        store(b"of a superseded try", "part", index=0)

        assert main(["sweep", "--delete", *options]) == 0
        assert payloads_of(payload_folder) == kept

    def test_sweep_of_3_4_deletes_what_another_row_does_not_name(self, airflow: FakeAirflow) -> None:
        """A task outside of any loop has one row."""
        airflow.version = "3.4.0"
        row = store(b"superseded")
        keep(airflow, "another row")

        assert main(["sweep", "--delete", "--thorough"]) == 0
        assert not path_of(row).exists()

    def test_sweep_resumes_where_it_was_stopped(
        self, airflow: FakeAirflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Five runs without an answer end it, with the name to go on from."""
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        rows = [store(b"x", run=f"manual__{number}") for number in range(9)]
        airflow.failing = "dagRuns/manual__"

        assert main(["sweep", "--delete"]) == 1
        said = capsys.readouterr().err
        resume = said.rpartition("--resume ")[2].strip().strip("'")
        airflow.failing = ""
        assert main(["sweep", "--delete", "--resume", resume]) == 0
        assert path_of(rows[0]).exists()
        assert not path_of(rows[8]).exists()

    @pytest.mark.parametrize(
        "options",
        [
            pytest.param(["--age-days", "0"], id="no-age"),
            pytest.param(["--age-days", "-1"], id="negative-age"),
            pytest.param(["--age-days", "nan"], id="no-number"),
            pytest.param(["--age-days", "0.04", "--delete"], id="below-an-hour"),
            pytest.param(["--resume", "elsewhere/x"], id="resume-outside-of-the-prefix"),
        ],
    )
    def test_sweep_wrong_options_are_exit_2(
        self, airflow: FakeAirflow, options: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Usage errors are told apart from problems."""
        with pytest.raises(SystemExit, match="2"):
            main(["sweep", *options])

        said = capsys.readouterr().err
        assert re.search(r"^usage: python -m \S+ sweep .*error:", said, re.S)

    @pytest.mark.parametrize(
        ("timeout_seconds", "days", "least"),
        [
            pytest.param("120", "0.0416", "the least is 0.0417 (1 hours)", id="an-hour"),
            pytest.param("36000", "0.8", "the least is 0.8333 (20 hours)", id="twice-the-timeout"),
        ],
    )
    def test_sweep_age_below_that_of_an_upload_is_refused(
        self,
        airflow: FakeAirflow,
        timeout_seconds: str,
        days: str,
        least: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """A payload is there before its row is, for as long as its upload may take; it says so."""
        monkeypatch.setenv("AIRFLOW__GCS_XCOM__TIMEOUT_SECONDS", timeout_seconds)
        settings.load_settings.cache_clear()
        row = store(b"its row is on its way")

        with pytest.raises(SystemExit, match="2"):
            main(["sweep", "--delete", "--age-days", days])

        assert path_of(row).exists()
        said = capsys.readouterr().err
        assert least in said
        assert "may be waiting for its row" in said

    def test_sweep_dag_that_may_not_be_read_is_left_out_whole(
        self, airflow: FakeAirflow, payload_folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Its runs cost one question, however many they are; what comes behind it is swept."""
        airflow.forbidden = "/api/v2/dags/hidden"
        hidden = {path_of(store(b"?", dag="hidden", run=f"manual__{number}")) for number in range(8)}
        store(b"!", run="manual__gone")

        assert main(["sweep", "--delete"]) == 1
        assert payloads_of(payload_folder) == hidden
        assert sum(path.startswith("/api/v2/dags/hidden") for path in airflow.asked) == 1
        said = capsys.readouterr()
        assert "Skipped: no permission to read the XComs of hidden" in said.out
        assert "8 not decided" in said.out
        assert "1 of 1 orphans deleted" in said.out
        assert "Stopped" not in said.err

    def test_sweep_dag_whose_values_may_not_be_read_is_left_out(
        self, airflow: FakeAirflow, payload_folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Where only the single XCom is refused, and the Dag and the count are not."""
        airflow.dags.add("half")
        airflow.forbidden = "/api/v2/dags/half/dagRuns/manual__0/taskInstances/load/xcomEntries/"
        airflow.rows |= {("half", f"manual__{number}", "x", -1, "y"): 1 for number in range(8)}
        half = {path_of(store(b"?", dag="half", run=f"manual__{number}")) for number in range(8)}
        store(b"!", run="manual__gone")

        assert main(["sweep", "--delete", "--json"]) == 1
        assert payloads_of(payload_folder) == half
        *_, last = capsys.readouterr().out.splitlines()
        assert json.loads(last)["left_out"] == ["half"]
        assert json.loads(last)["total"]["failed"] == 8

    def test_maintenance_dag_gets_past_a_dag_that_may_not_be_read(
        self, airflow: FakeAirflow, payload_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It begins anew each time, so nothing may stop it at the same place for ever; it still fails."""
        monkeypatch.setenv("AIRFLOW__GCS_XCOM__SWEEP_SCHEDULE", "@weekly")
        path = PROJECT / "dags" / "xcom_maintenance.py"
        spec = importlib.util.spec_from_file_location("xcom_maintenance", path)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        work = module.xcom_maintenance().get_task("sweep").python_callable
        airflow.forbidden = "/api/v2/dags/hidden"
        hidden = {path_of(store(b"?", dag="hidden", run=f"manual__{number}")) for number in range(8)}
        store(b"!", run="manual__gone")

        with pytest.raises(RuntimeError, match="the log above says why"):
            work(params={"age_days": 7, "delete": True, "claim": False})

        assert payloads_of(payload_folder) == hidden

    @pytest.mark.once
    def test_sweep_on_a_terminal_redraws_one_line(self, airflow: FakeAirflow) -> None:
        """Count, rate, orphans, and Dag, within 80 columns; nothing of it is left at the end."""
        for number in range(60):
            row = store(b"x", "map", index=number)
            if number % 2:
                keep(airflow, row, "map", index=number)
        airflow.on_value = lambda: time.sleep(0.05)
        ours, theirs = os.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "include.xcom", "sweep", "--thorough", "--concurrency", "1"],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=theirs,
            text=True,
            env={**os.environ, "COLUMNS": "80", "TERM": "xterm"},
        )
        os.close(theirs)
        said = b""
        # Linux ends a terminal that nobody has open any more with an error.
        with suppress(OSError):
            while piece := os.read(ours, 4096):
                said += piece
        os.close(ours)
        out, _ = process.communicate(timeout=60)

        assert process.returncode == 0
        plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said.decode())
        shown = [part.strip() for part in re.split("[\r\n]", plain) if "objects, " in part]
        assert len(set(shown)) >= 2
        assert re.fullmatch(r"\d+ objects, \d+ per second, \d+ orphans; Dag sales", shown[-1])
        # Airflow 3.1 logs to the same terminal while it sets its database up.
        assert max(map(len, shown)) <= 80
        assert said.decode().rstrip("\r\n").endswith("\x1b[2K")
        assert "30 orphans" in out

    def test_sweep_without_a_terminal_logs_now_and_then_where_it_is(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A line every ten seconds, so that the log of a task stays readable."""
        now = 0.0
        monkeypatch.setattr("include.xcom.commands.output.time.monotonic", lambda: now)
        said: list[str] = []
        shown = output.Progress(said.append, is_live=False)
        for count in range(1, 1001):
            now = count / 10
            shown.show(count, 1, "sales")
        shown.stop()

        assert len(said) == 10
        assert said[0] == "100 objects, 10 per second, 1 orphans; Dag sales"


class TestClaim:
    """Two deployments of one repository in one prefix: ids of Dags, runs and tasks are the same."""

    @pytest.fixture
    def twin(self) -> Iterator[FakeAirflow]:
        """Staging, with a metadata database of its own."""
        with serving() as server:
            yield server

    @pytest.fixture
    def objects(self, airflow: FakeAirflow, twin: FakeAirflow, payload_folder: Path) -> set[Path]:
        """A payload of each for the same task, and an orphan; both Airflows know the Dag and the run."""
        ours, theirs = store(b"of production"), store(b"of staging")
        keep(airflow, ours)
        keep(twin, theirs)
        store(b"of nobody", "killed")
        return payloads_of(payload_folder)

    def test_unclaimed_prefix_is_not_swept(
        self,
        airflow: FakeAirflow,
        objects: set[Path],
        payload_folder: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """By default nothing goes, and nothing is claimed; the message says what to do."""
        assert main(["sweep", "--delete"]) == 1
        assert payloads_of(payload_folder) == objects
        assert "sweep --claim" in capsys.readouterr().err
        assert main(["sweep"]) == 0
        assert "--delete would delete nothing: no deployment has claimed" in capsys.readouterr().err
        assert airflow.variables == {}
        assert {path for path in payload_folder.rglob("*") if path.is_file()} == objects

    def test_prefix_that_a_twin_has_claimed_is_not_swept(
        self,
        airflow: FakeAirflow,
        twin: FakeAirflow,
        objects: set[Path],
        payload_folder: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """Every object is still there, whatever is asked for but a take-over; a dry run says so."""
        assert main(["sweep", "--claim"]) == 0
        (own,) = airflow.variables.values()
        capsys.readouterr()
        there = ["--api-url", twin.url]

        for options in (["--delete"], ["--claim"], ["--delete", "--claim", "--unknown-dags"]):
            assert main(["sweep", *there, *options]) == 1
            assert payloads_of(payload_folder) == objects
            said = capsys.readouterr().err
            assert f"is claimed by another deployment, {own} ({airflow.url}, 20" in said
            assert f"sweep --take-over {own}" in said
        assert main(["sweep", *there]) == 0
        assert "--delete would delete nothing" in capsys.readouterr().err
        assert payloads_of(payload_folder) == objects

    def test_prefix_of_a_deployment_that_is_gone_is_taken_over(
        self,
        airflow: FakeAirflow,
        twin: FakeAirflow,
        objects: set[Path],
        payload_folder: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """Only by the id of what is there; from then on the former one is refused."""
        assert main(["sweep", "--claim"]) == 0
        (own,) = airflow.variables.values()
        there = ["--api-url", twin.url]
        assert main(["sweep", *there, "--take-over", "another"]) == 1

        assert main(["sweep", *there, "--take-over", own]) == 0
        assert main(["sweep", "--delete"]) == 1
        assert payloads_of(payload_folder) == objects
        assert main(["sweep", *there, "--delete"]) == 0
        assert len(payloads_of(payload_folder)) == 1

    def test_claims_at_the_same_moment_are_both_withdrawn(
        self,
        airflow: FakeAirflow,
        objects: set[Path],
        payload_folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """Each sees the other's, and neither counts."""
        write = claim.Claims._write  # noqa: SLF001 - where two deployments meet

        def write_both(self: claim.Claims, own: str) -> None:
            write(self, "the-other-one")
            write(self, own)

        monkeypatch.setattr(claim.Claims, "_write", write_both)

        assert main(["sweep", "--claim", "--delete"]) == 1
        assert payloads_of(payload_folder) == objects
        (left,) = (payload_folder / "xcom" / claim.FOLDER).iterdir()
        assert left.name == "the-other-one"

    @pytest.mark.parametrize("variable", ["", "a/../../b"])
    def test_id_that_cannot_be_had_stops_the_sweep(
        self,
        airflow: FakeAirflow,
        objects: set[Path],
        payload_folder: Path,
        variable: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """A user that may not read Variables, and a Variable that is no id."""
        if variable:
            airflow.variables[claim.VARIABLE] = variable
        else:
            airflow.forbidden = "/api/v2/variables"

        assert main(["sweep", "--claim", "--delete"]) == 1
        assert {path for path in payload_folder.rglob("*") if path.is_file()} == objects
        said = capsys.readouterr().err
        assert ("allowed are at most 64" if variable else "grant read and create Variables") in said

    def test_claim_is_renewed_by_sweeps_and_outlives_a_rule_by_age(
        self, airflow: FakeAirflow, objects: set[Path], payload_folder: Path
    ) -> None:
        """One that is older than a day is replaced; a newer one stays; a dry run changes nothing."""
        assert main(["sweep", "--claim"]) == 0
        folder = payload_folder / "xcom" / claim.FOLDER
        (first,) = (path for path in folder.rglob("*") if path.is_file())
        assert main(["sweep", "--delete"]) == 0
        assert first.exists()
        past = time.time() - 2 * 86_400
        os.utime(first, (past, past))
        assert main(["sweep"]) == 0
        assert first.exists()
        assert main(["sweep", "--delete"]) == 0

        (second,) = (path for path in folder.rglob("*") if path.is_file())
        assert second != first
        assert main(["sweep", "--delete"]) == 0

    def test_listings_pass_over_the_claim(
        self,
        airflow: FakeAirflow,
        payload_folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """It is no payload: not for ls, not for the sweep's counts, and no Dag for the doctor."""
        assert main(["sweep", "--claim"]) == 0
        (file,) = (path for path in payload_folder.rglob("*") if path.is_file())
        os.utime(file, (0, 0))
        capsys.readouterr()

        assert main(["sweep"]) == 0
        assert "0 objects below" in capsys.readouterr().out
        assert main(["ls", claim.FOLDER, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["runs"] == []
        found = list(storage.examine_prefix(settings.load_settings(), own_store(), None, None))
        assert [(one.level, one.message) for one in found] == [("ok", "no payloads of any Dag yet")]


def test_composer_asks_as_the_service_account_of_the_environment(
    airflow: FakeAirflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A token from Application Default Credentials, and a new one when Airflow refuses the old one."""
    pytest.importorskip("google.auth")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    account = {
        "type": "service_account",
        "client_email": "composer@example.iam.gserviceaccount.com",
        "token_uri": f"{airflow.url}/google/token",
        "private_key": key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
    }
    (tmp_path / "account.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
    monkeypatch.setenv("COMPOSER_ENVIRONMENT", "production")
    for name in ("AIRFLOW_API_USERNAME", "AIRFLOW_API_PASSWORD"):
        monkeypatch.delenv(name)
    row = store(b"kept")
    keep(airflow, row)
    session = api.AirflowAPI(api.Login.find())

    assert session.value(Coordinates("sales", RUN, "load", -1, "return_value")) == row
    airflow.tokens += 1  # An hour later.
    assert session.value(Coordinates("sales", RUN, "load", -1, "return_value")) == row
    assert airflow.tokens == 3
    monkeypatch.setenv("AIRFLOW_API_URL", "http://airflow.example.com")
    assert main(["show", "sales", RUN, "load"]) == 1
    assert "no Google token is sent to http://airflow.example.com" in capsys.readouterr().err


class TestDoctor:
    """``doctor`` with a directory."""

    def test_doctor_in_this_project_is_all_green(
        self, monkeypatch: pytest.MonkeyPatch, payload_folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Every line is ok, and the probe is gone again."""
        # The tests themselves may run in a pod.
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", "include.xcom_backend.GCPBucketXComBackend")
        monkeypatch.setenv("AIRFLOW__WORKERS__STATE_STORE_BACKEND", "include.state_backend.GCSStateBackend")
        monkeypatch.setenv("PYTHONPATH", str(PROJECT))
        # Tasks that were killed may have left something in that of this machine.
        monkeypatch.setenv("AIRFLOW__GCS_XCOM__TEMPORARY_DIRECTORY", str(payload_folder.parent))

        code = main(["doctor", "--project", str(PROJECT)])

        with pytest.raises(SystemExit, match="2"):
            main(["doctor", "--project", str(payload_folder / "no such folder")])
        out = capsys.readouterr().out
        levels = {line.split()[0] for line in out.splitlines()[:-1]}
        assert (code, levels) == (0, {"ok"}), out
        assert [path for path in payload_folder.rglob("*") if path.is_file()] == []

    def test_doctor_finds_what_is_wrong_all_at_once(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Backend off, not importable, files to merge, executor and store that do not fit."""
        project = tmp_path / "project"
        project.mkdir()
        (project / "Dockerfile").write_text("FROM runtime\n# ENV AIRFLOW__CORE__XCOM_BACKEND=x\n")
        (project / "requirements.txt").write_text("NumPy==2.3\nzstandard\n")
        monkeypatch.delenv("AIRFLOW__CORE__XCOM_BACKEND", raising=False)
        monkeypatch.delenv("PYTHONPATH", raising=False)
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")

        code = main(["doctor", "--project", str(project), "--json"])

        found = json.loads(capsys.readouterr().out)
        problems = {
            (one["check"], one["fix"].split()[0]) for one in found["findings"] if one["level"] == "problem"
        }
        assert code == 1
        assert problems == {
            ("backend", "export"),
            ("import", "export"),
            ("project", "printf"),
            ("executor", "export"),
        }
        fixes = " ".join(one["fix"] for one in found["findings"])
        assert "orjson>=3.11" in fixes
        assert "numpy" not in fixes

    @pytest.mark.parametrize(
        ("executor", "is_local"),
        [
            pytest.param("LocalExecutor", True, id="local"),
            pytest.param("airflow.executors.local_executor.LocalExecutor", True, id="module"),
            pytest.param("here:LocalExecutor;team=LocalExecutor", True, id="alias-and-team"),
            pytest.param("LocalExecutor, KubernetesExecutor", False, id="list"),
            pytest.param("Local:CeleryExecutor", False, id="alias-of-another"),
            pytest.param("LocalExecutor;sales=CeleryExecutor", False, id="team"),
            pytest.param("LocalKubernetesExecutor", False, id="hybrid"),
            pytest.param("acme.LocalGridRunner", False, id="own"),
        ],
    )
    def test_doctor_and_store_ask_whether_every_executor_is_of_this_machine(
        self,
        executor: str,
        is_local: bool,
        payload_folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """A directory serves no task elsewhere, and one such executor in the list is enough."""
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
        monkeypatch.setattr(logging.getLogger("include"), "propagate", True)

        (found,) = deployment.examine_executor(load_settings())
        own_store()

        assert found.level == ("ok" if is_local else "problem")
        assert ("is a directory of one machine" in caplog.text) is not is_local

    def test_doctor_directory_as_the_bucket_in_a_pod(
        self, payload_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Other components are other pods, whatever the executor; `astro dev start` is none of that."""
        monkeypatch.setenv("ASTRONOMER_ENVIRONMENT", "local")
        assert [found.level for found in deployment.examine_executor(load_settings())] == ["ok"]
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
        (found,) = deployment.examine_executor(load_settings())
        assert (found.level, "KUBERNETES_SERVICE_HOST is set" in found.message) == ("problem", True)

    def test_doctor_finds_what_killed_tasks_left(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Directories of dead processes, but not that of one that lives; the fix removes them."""
        monkeypatch.setenv("AIRFLOW__GCS_XCOM__TEMPORARY_DIRECTORY", str(tmp_path))
        settings.load_settings.cache_clear()
        assert list(deployment.examine_temporary()) == []
        new_folder()
        assert list(deployment.examine_temporary()) == []
        (tmp_path / "xcom-task-1-1" / "x").mkdir(parents=True)
        (tmp_path / "xcom-task-1-1" / "x" / "model.bin").write_bytes(bytes(2048))
        (tmp_path / "xcom-task-1-1.lock").touch()

        (found,) = deployment.examine_temporary()

        assert (found.level, found.check) == ("warning", "temporary")
        assert f"left 1 directories with 2.0 KiB in {tmp_path}" in found.message
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path}
        done = subprocess.run(found.fix, shell=True, cwd=PROJECT, env=environment, check=False)
        assert done.returncode == 0
        assert list(deployment.examine_temporary()) == []

    def test_doctor_import_is_tried_in_a_task_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Airflow leaves an address of the database in a task's environment that no process can start with."""
        monkeypatch.setenv("PYTHONPATH", str(PROJECT))
        monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "airflow-db-not-allowed:///")

        levels = {found.check: found.level for found in deployment.examine_backend(PROJECT)}

        assert levels["import"] == "ok"

    @pytest.mark.parametrize(
        ("setting", "level", "said"),
        [
            ("", "warning", "stays in the database"),
            ("include.state_backend.GCSStateBackend", "ok", "goes through include.state_backend"),
            ("include.state_backend.Other", "problem", "tasks cannot load include.state_backend.Other"),
            ("nowhere.Backend", "problem", "No module named 'nowhere'"),
            ("nowhere", "problem", "tasks cannot load nowhere"),
        ],
    )
    def test_doctor_says_where_state_goes(
        self, setting: str, level: str, said: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A backend that cannot be loaded fails each task that uses the state store, and no other."""
        pytest.importorskip("airflow.sdk.state", reason="Airflow 3.3 introduced the state store")
        monkeypatch.setenv("PYTHONPATH", str(PROJECT))
        monkeypatch.setenv("AIRFLOW__WORKERS__STATE_STORE_BACKEND", setting)

        (found,) = (one for one in deployment.examine_backend(PROJECT) if one.check == "state")

        assert (found.level, said in found.message) == (level, True), found.message
        assert (level == "ok") == (found.fix == "")

    def test_doctor_fixes_of_a_project_mend_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """What is pasted is what was missing, and a last line without its end stays a line of its own."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / "Dockerfile").write_text("FROM runtime")
        (tmp_path / "requirements.txt").write_text("# mine")
        main(["doctor", "--fixes"])
        subprocess.run(["sh", "-c", capsys.readouterr().out], check=True)

        assert [finding.level for finding in examine_project(tmp_path)] == ["ok"]
        assert (tmp_path / "Dockerfile").read_text().splitlines()[0] == "FROM runtime"

    def test_doctor_unreadable_settings_is_a_finding(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The error of the settings, once, and no traceback."""
        monkeypatch.setattr(
            deployment, "examine_backend", lambda project: iter(())
        )  # Seconds, and tested above.
        monkeypatch.setenv("AIRFLOW__GCS_XCOM__THRESHOLD_BYTES", "many")

        assert main(["doctor"]) == 1
        out = capsys.readouterr().out
        assert "problem  settings:" in out
        assert "threshold_bytes is 'many'" in out
        assert "skipped  store:" in out

    def test_doctor_finds_settings_that_nobody_reads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Airflow takes any name, so a typo is noticed nowhere else."""
        monkeypatch.setenv("AIRFLOW__GCS_XCOM__INEXCAT", "refuse")
        monkeypatch.setenv("AIRFLOW__GCS_XCOM__SWEEP_SCHEDULE", "@weekly")
        monkeypatch.setenv("AIRFLOW__GCS_XCOM__PREFIX", "xcom")

        found = [one for one in deployment.examine_settings() if one.level != "ok"]

        assert [(one.level, one.fix) for one in found] == [("warning", "unset AIRFLOW__GCS_XCOM__INEXCAT")]
        assert found[0].message.startswith("AIRFLOW__GCS_XCOM__INEXCAT is set")

    def test_doctor_knows_the_requirements_of_this_project(self) -> None:
        """The bounds in the code are those of requirements.txt."""
        lines = (PROJECT / "requirements.txt").read_text().splitlines()
        listed = dict(line.split(">=") for line in lines if ">=" in line and not line.startswith("#"))
        ours = {name: bound for name, bound in REQUIREMENTS.items() if name in listed}

        assert {name: listed[name] for name in ours} == ours
        assert set(REQUIREMENTS) - set(ours) <= {"pandas", "polars"}


def test_lifecycle_rule_is_set_and_others_stay() -> None:
    """Ours is the deletion by age of our prefix, once; every other rule keeps its place."""
    other = {"action": {"type": "Delete"}, "condition": {"age": 1, "matchesPrefix": ["logs/"]}}
    ours = {"action": {"type": "Delete"}, "condition": {"age": 30, "matchesPrefix": ["xcom/"]}}
    narrower = {
        "action": {"type": "Delete"},
        "condition": {"age": 5, "isLive": False, "matchesPrefix": ["xcom/"]},
    }

    changed = lifecycle.with_age([ours, other, narrower, ours], "xcom", 90)

    assert changed == [{**ours, "condition": {"age": 90, "matchesPrefix": ["xcom/"]}}, other, narrower]
    assert lifecycle.with_age([other], "", 9)[-1]["condition"] == {"age": 9}


def test_lifecycle_of_a_directory_says_what_to_use(capsys: pytest.CaptureFixture[str]) -> None:
    """Rules are for buckets."""
    assert main(["lifecycle", "show"]) == 1
    assert "sweep" in capsys.readouterr().err


def test_store_lists_in_the_order_of_names(payload_folder: Path) -> None:
    """As a bucket: by whole names, so that a list can go on from any of them."""
    names = ["xcom/a-b/1", "xcom/a/1", "xcom/a/2/x", "xcom/a0", "xcom/b/1", "xcomx/1"]
    for name in reversed(names):
        own_store().put(name, [b"12"])
    (payload_folder / "xcom" / "link").symlink_to("/etc")

    listed = [one for page in own_store().list("xcom/") for one in page]
    assert [one.name for one in listed] == sorted(names[:-1])
    assert {one.size for one in listed} == {2}
    assert [one.name for page in own_store().list("xcom/", "xcom/a/2") for one in page] == names[2:5]


def test_table_shows_no_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids are data; nothing is cut where no terminal needs it."""
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    lines = output.format_table(
        ("ID", "N"), [("x" * 300, 1), ("a\x1b[31m\nb", 22)], right=("N",)
    ).splitlines()

    assert lines[1] == f"{'x' * 300}   1"
    assert lines[2].startswith("a?[31m?b ")
    assert (output.format_age(90), output.format_age(3 * 86_400)) == ("2 min", "3 d")


@pytest.mark.once
@pytest.mark.parametrize("words", [["ls", "sales", RUN], ["sweep"], ["doctor"]], ids=lambda words: words[0])
def test_output_survives_a_pipe_that_is_closed(words: list[str], airflow: FakeAirflow) -> None:
    """As by ``| head -1``: no traceback, and nothing of Python's own complaint at the end."""
    for number in range(50):
        store(b"x", f"task_{number}")
    reader, writer = os.pipe()
    os.close(reader)

    done = subprocess.run(
        [sys.executable, "-m", "include.xcom", *words],
        cwd=PROJECT,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)

    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.once
def test_output_survives_a_terminal_of_ascii(airflow: FakeAirflow) -> None:
    """Ids in any script come out as escapes, and the table is as readable as it can be."""
    store(b"x" * 2000, "загрузка", dag="sales")

    done = subprocess.run(
        [sys.executable, "-m", "include.xcom", "ls", "sales", RUN],
        cwd=PROJECT,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert r"\u0437\u0430\u0433" in done.stdout
    assert done.stdout.isascii()


def test_metrics_are_sent_when_they_are_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes and seconds of a store and a load; nothing where [metrics] is off."""
    sent = []

    class Stats:
        @staticmethod
        def incr(name: str, count: int) -> None:
            sent.append((name, count))

        @staticmethod
        def timing(name: str, dt: Any) -> None:
            sent.append((name, dt.total_seconds() < 60))

    assert metrics._stats() is None  # noqa: SLF001 - found once for each process
    monkeypatch.setattr(metrics, "_stats", lambda: Stats)

    assert payloads.load(store(b"12345")) == b"12345"
    assert sent == [
        ("gcs_xcom.store.bytes", 5),
        ("gcs_xcom.store.duration", True),
        ("gcs_xcom.load.bytes", 5),
        ("gcs_xcom.load.duration", True),
    ]


def test_metrics_that_cannot_be_sent_are_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An Airflow that has moved its Stats must not look like one whose metrics are off."""
    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_ON", "True")
    monkeypatch.setattr(metrics, "_MODULES", ("airflow.no.such.module", "airflow.nor.this"))
    monkeypatch.setattr(logging.getLogger("include"), "propagate", True)
    metrics._stats.cache_clear()  # noqa: SLF001 - found once for each process
    try:
        for _ in range(2):
            metrics.record("store", 5, 0.1)
    finally:
        metrics._stats.cache_clear()  # noqa: SLF001 - found once for each process

    (said,) = [record.getMessage() for record in caplog.records if record.name == "include.xcom.metrics"]
    assert "neither in airflow.no.such.module nor in airflow.nor.this" in said


def test_store_logs_one_line_without_the_value(caplog: pytest.LogCaptureFixture) -> None:
    """Who wrote what, how large and how fast; never what it was."""
    logging.getLogger("include").propagate = True
    with caplog.at_level("INFO", "include.xcom.payloads"):
        store(b"secret words")

    (line,) = [
        record.getMessage() for record in caplog.records if "Stored XCom payload" in record.getMessage()
    ]
    assert "task_id=load" in line
    assert "bytes=12 " in line
    assert "secret" not in line


@pytest.mark.once
def test_importing_the_backend_imports_no_command() -> None:
    """Every task pays for what the backend imports."""
    code = "import include.xcom_backend, sys; print([n for n in sys.modules if n.startswith('include.xcom.commands')])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip().endswith("[]")
