"""The transcripts of docs/ are what the commands print: run, in the order of the page, and compared.

A block of a page below ``<!-- transcript -->`` has commands behind ``$`` and what they print, stdout and
stderr as a terminal shows them. All blocks of a page see one bucket, whose payloads are those of ``seed``.
Only what differs from run to run is masked: sizes, ages, checksums, generations, versions and ports.
"""

from __future__ import annotations

import io
import json
import random
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock
from urllib.request import Request, urlopen
from uuid import UUID

import pytest
from airflow_server import PASSWORD, USERNAME, AirflowServer, start
from fake_gcs_server import ROOT, GCSServer

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "docs").rglob("*.md")
    if "<!-- transcript -->" in path.read_text()
)
NOVEMBER = [f"scheduled__2026-11-{day:02}T00:00:00+00:00" for day in (1, 15)]
_MASKS = {
    "<id>": r"\b[0-9a-f]{32}\b",
    "<crc32c>": r"\b(?=[0-9a-f]*\d)[0-9a-f]{8}\b",
    "<generation>": r"\b\d{15,20}\b",
    "<size>": r"\b\d+(\.\d)? (B|KiB|MiB)(?![\w/])|(?<=bytes )\d+|\b\d+(?= bytes)",
    "<seconds>": r"(?<=seconds=)\d+\.\d+|\b\d+\.\d{3}\b",
    "<age>": r"\b\d+ (s|min|h|d)\b",
    "<port>": r"(?<=127\.0\.0\.1:)\d+",
    "<version>": r"(?<![\d.:])\d+\.\d+(\.\w+)+|(?<=Python )[\d.]+",
}


def masked(text: str) -> str:
    """Return a text without what differs from run to run; columns move with it, so gaps are one space."""
    text = re.sub(r" +", " ", text)
    for mask, pattern in _MASKS.items():
        text = re.sub(pattern, mask, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def transcripts(page: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a page's marked blocks with what it prints."""
    text = (ROOT / page).read_text()
    blocks = re.findall(r"^<!-- transcript -->\n```console\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) == text.count("<!-- transcript -->"), f"{page}: a mark stands above no block"
    for block in blocks:
        yield from re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowServer]:
    """A running API server."""
    pytest.importorskip("airflow")
    server = start(tmp_path_factory.mktemp("airflow"))
    try:
        yield server
    finally:
        server.process.terminate()
        server.process.wait(30)


@pytest.fixture
def seeded(
    airflow: AirflowServer, gcs_server: GCSServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Dag "sales" has run twice; of the second run two payloads belong to no row."""
    body = json.dumps({"name": "acme-xcom"}).encode()
    urlopen(Request(f"{gcs_server.url}/storage/v1/b", body, {"content-type": "application/json"})).close()
    settings = {
        "STORAGE_EMULATOR_HOST": gcs_server.url,
        "AIRFLOW__GCS_XCOM__BUCKET": "acme-xcom",
        "AIRFLOW_API_URL": airflow.url,
        "AIRFLOW_API_USERNAME": USERNAME,
        "AIRFLOW_API_PASSWORD": PASSWORD,
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    seed(airflow)


def seed(airflow: AirflowServer) -> None:
    """Store what tasks would, under ids that are the same in each run."""
    import numpy
    import pandas
    from include.xcom import payloads
    from include.xcom.handles import uploads
    from include.xcom.reference import Coordinates

    frame = pandas.DataFrame({"id": range(100_000), "name": [f"n{number}" for number in range(100_000)]})
    array = numpy.arange(9000, dtype="float64")
    values: list[tuple[str, int, str, Any]] = [
        ("load", -1, "return_value", frame),
        ("load", -1, "return_value", frame),
        ("fit", 0, "return_value", array),
        ("fit", 1, "return_value", array),
        ("note", -1, "both", {"frame": frame, "note": "both in one"}),
        ("raw", -1, "records", [{"id": number, "name": f"n{number}"} for number in range(5000)]),
    ]
    ids = random.Random(0)
    unique = lambda: UUID(int=ids.getrandbits(128), version=4)  # noqa: E731
    with mock.patch.object(uploads, "uuid4", unique):
        before = payloads.store(frame[:90_000], Coordinates("sales", NOVEMBER[0], "load", -1, "return_value"))
        for run in NOVEMBER:
            airflow.add_run("sales", run, [("load", -1), ("fit", 0), ("fit", 1), ("note", -1), ("raw", -1)])
            # The first run has a shorter frame, pushed once.
            for task, index, key, value in values if run == NOVEMBER[1] else values[2:]:
                row = payloads.store(value, Coordinates("sales", run, task, index, key))
                airflow.set_row("sales", run, task, index, key, row)
        airflow.set_row("sales", NOVEMBER[0], "load", -1, "return_value", before)
        payloads.store(b"\0" * 5000, Coordinates("sales", NOVEMBER[1], "raw", -1, "return_value"))


@pytest.mark.parametrize("page", PAGES)
def test_commands_print_what_the_page_says(page: str, seeded: None) -> None:
    """Line for line; a command that is not ours, or that nobody ran, cannot stand in such a block."""
    from include.xcom.__main__ import main
    from include.xcom.commands import listing, sweep

    printed, said = [], []
    for command, output in transcripts(page):
        words = shlex.split(command)
        assert words[:3] == ["python", "-m", "include.xcom"], command
        terminal = io.StringIO()
        # What was stored a moment ago is old enough for the sweep two weeks from now, and ages are as wide.
        later = SimpleNamespace(time=lambda: time.time() + 14 * 86_400)
        clocks = mock.patch.object(sweep, "time", later), mock.patch.object(listing, "time", later)
        with clocks[0], clocks[1], redirect_stdout(terminal), redirect_stderr(terminal):
            main(words[3:])
        printed += [f"$ {command}", *masked(output).splitlines()]
        said += [f"$ {command}", *masked(terminal.getvalue()).splitlines()]
        print(f"$ {command}\n{terminal.getvalue()}")  # To be pasted, where it differs.
    assert said == printed


def test_marked_blocks_are_found() -> None:
    """The commands that look at and delete payloads; a block that loses its mark is missed here."""
    commands = {command.split()[3] for page in PAGES for command, _ in transcripts(page)}

    assert {"ls", "show", "history", "fetch", "sweep"} <= commands
