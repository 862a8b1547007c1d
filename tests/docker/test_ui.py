"""What a person sees: the real UI in a real browser."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest
from chromium import Browser, find_chromium
from engine import give_up
from stack import Run, Stack

FRAME = "document.querySelector('iframe[title=Payloads]')?.contentDocument"


@pytest.fixture(scope="module")
def run(local_stack: Stack) -> Run:
    """A run of the flights."""
    run = local_stack.trigger("example_flights").wait(seconds=420)
    assert run.state == "success"
    return run


@pytest.fixture(scope="module")
def ui(local_stack: Stack) -> str:
    """The address that Airflow itself sends people to after logging in."""
    return local_stack.airflow.replace("127.0.0.1", "localhost")


@pytest.fixture(scope="module")
def browser(ui: str) -> Iterator[Browser]:
    """A browser that has opened the UI and is logged in by that."""
    program = find_chromium()
    if not program:
        give_up("no Chromium is installed")
    browser = Browser(program)
    try:
        browser.set_window(1500, 800)
        browser.go(ui + "/")
        browser.wait(lambda: "Dags" in _text(browser), seconds=120)
        assert "/auth/login" not in browser.run("location.href")
        yield browser
    finally:
        browser.close()


def _text(browser: Browser, document: str = "document") -> str:
    """Return what a person could read on the page now."""
    return str(browser.run(f"{document}?.body?.innerText || ''"))


def _click(browser: Browser, script: str) -> None:
    """Click on the first element that a script finds, once it is there."""
    browser.wait(lambda: browser.run(f"Boolean({script})"), seconds=120)
    browser.run(f"{script}.click()")


def _keep(picture: bytes, variable: str, otherwise: Path) -> None:
    """Write a picture to where the variable says, to be looked at or for the documentation."""
    width, height = struct.unpack(">II", picture[16:24])
    assert (width, height) >= (1200, 500)
    Path(os.environ.get(variable, otherwise)).write_bytes(picture)


def test_xcom_page_shows_the_reference_readably(browser: Browser, ui: str, run: Run, tmp_path: Path) -> None:
    """Open the XComs of a task that returned a frame: one line tells where it lies and what it is."""
    browser.go(f"{ui}/dags/{run.dag_id}/runs/{quote(run.run_id, safe='')}/tasks/load/xcom")
    browser.wait(lambda: "gcs_xcom.Payload" in _text(browser), seconds=120)
    text = _text(browser)

    assert "gcs_xcom.Payload@version=1(" in text
    assert run.reference("load")["uri"] in text
    assert "rows=336776" in text
    _keep(browser.picture(), "XCOM_PICTURE", tmp_path / "xcom.png")


def test_person_clicks_a_task_and_sees_the_flights(
    browser: Browser, ui: str, run: Run, tmp_path: Path
) -> None:
    """From the run's page: a click on the task, one on "Payloads", and the rows are there."""
    browser.go(f"{ui}/dags/{run.dag_id}/runs/{quote(run.run_id, safe='')}")
    instance = f"{run.run_id}/tasks/load"
    for place, words in ((instance, "load"), (instance, "Payloads")):
        links = f"[...document.querySelectorAll('a[href*=\"{place}\"]')]"
        _click(browser, f"{links}.find((link) => link.textContent.trim() === '{words}')")
    browser.wait(lambda: "Columns" in _text(browser, FRAME), seconds=120)
    text = _text(browser, FRAME)

    assert "336,776 rows, 19 columns, Parquet" in text
    assert "N14228" in text, "the aeroplane of the first flight of 2013"
    assert "UA" in text
    assert "1 to 100 of 336,776 rows" in text
    assert run.object_name("load") in text
    assert browser.run(f"{FRAME}.querySelectorAll('.grid tbody tr').length") == 100
    assert browser.run(f"{FRAME}.querySelectorAll('svg.chart').length") >= 10
    assert [said for said in browser.said if "Content Security" in said] == []
    # PAYLOADS_PICTURE=docs/images/payloads.png writes that of the payload.
    _keep(browser.picture(), "PAYLOADS_PICTURE", tmp_path / "payloads.png")


def test_page_of_a_run_leads_to_the_largest_payload(browser: Browser, ui: str, run: Run) -> None:
    """All tasks of the run, mapped ones too, in the order of their size."""
    browser.go(f"{ui}/dags/{run.dag_id}/runs/{quote(run.run_id, safe='')}/plugin/run_payloads")
    browser.wait(lambda: "In the store" in _text(browser, FRAME), seconds=120)
    rows = f"[...{FRAME}.querySelectorAll('tbody tr')]"

    assert browser.run(f"{rows}[0].querySelector('th').textContent.trim()") == "load"
    assert browser.run(f"{rows}.filter((row) => row.innerText.includes('summarize')).length") == 12


def _open_payload(browser: Browser, ui: str, run: Run) -> None:
    """Open the payload of the flights in Airflow's page."""
    browser.go(f"{ui}/dags/{run.dag_id}/runs/{quote(run.run_id, safe='')}/tasks/load/plugin/payloads")
    browser.wait(lambda: "Columns" in _text(browser, FRAME), seconds=120)


def test_switch_of_airflow_makes_the_payload_dark(browser: Browser, ui: str, run: Run) -> None:
    """As a person does it: User, Appearance, Dark Mode; and back."""
    _open_payload(browser, ui, run)
    seen = {}
    for words in ("Dark Mode", "Light Mode"):
        _click(
            browser,
            "[...document.querySelectorAll('button')].find((one) => one.textContent.trim() === 'User')",
        )
        for item in ("Appearance", words):
            items = "[...document.querySelectorAll('[role^=menuitem]')]"
            _click(browser, f"{items}.find((one) => one.textContent.trim() === '{item}')")
        theme = words.partition(" ")[0].lower()
        browser.wait(partial(browser.run, f"{FRAME}?.documentElement.dataset.theme === '{theme}'"))
        seen[theme] = browser.run(f"getComputedStyle({FRAME}.body).backgroundColor")

    assert seen == {"dark": "rgb(22, 29, 45)", "light": "rgb(255, 255, 255)"}


def test_download_of_the_flights_is_a_file_that_pandas_reads(
    browser: Browser, ui: str, run: Run, tmp_path: Path
) -> None:
    """A click on "Download" within Airflow's page saves the object under its own name."""
    import pandas

    browser.save_to(tmp_path)
    _open_payload(browser, ui, run)
    browser.run(f"{FRAME}.querySelector('a[data-download]').click()")
    (saved,) = browser.wait(lambda: list(tmp_path.glob("*.parquet")), seconds=120)
    name = run.object_name("load")

    assert saved.name == name.rpartition("/")[2]
    assert browser.wait(lambda: saved.stat().st_size == run.reference("load")["bytes"])
    assert len(pandas.read_parquet(saved)) == 336_776
