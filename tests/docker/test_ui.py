"""What a person sees: the real UI in a real browser."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from urllib.parse import quote

import pytest
from headless import browser, find_browser
from stack import Stack, eventually


def test_xcom_page_shows_the_reference_readably(local_stack: Stack, tmp_path: Path) -> None:
    """Log in, open the XComs of a task that returned a frame: one line tells where it lies and what it is."""
    program = find_browser()
    if not program:
        pytest.skip("no Chromium is installed")
    run = local_stack.trigger("example_flights").wait(seconds=420)
    assert run.state == "success"
    # The address that Airflow itself sends people to after logging in.
    ui = local_stack.airflow.replace("127.0.0.1", "localhost")
    page_of_load = f"/dags/{run.dag_id}/runs/{quote(run.run_id, safe='')}/tasks/load/xcom"

    with browser(program, tmp_path / "profile") as page:
        page.open(ui + "/")
        eventually(lambda: "Dags" in page.text(), seconds=60, what="the UI after logging in")
        assert "/auth/login" not in page.address()
        page.open(ui + page_of_load)
        eventually(lambda: "return_value" in page.text(), seconds=60, what="the XComs of the task")
        text = eventually(
            lambda: "PayloadReference" in page.text() and page.text(), seconds=30, what="the reference"
        )
        picture = page.picture()

    assert "PayloadReference@version=1(" in text
    assert run.reference("load")["uri"] in text
    assert "rows=336776" in text
    width, height = struct.unpack(">II", picture[16:24])
    assert (width, height) >= (1200, 500)
    # README_PICTURE=docs/images/xcom.png writes the picture of the README anew.
    Path(os.environ.get("README_PICTURE", tmp_path / "xcom.png")).write_bytes(picture)
