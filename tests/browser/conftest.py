"""A browser, and a server whose XComs it looks at."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "{{cookiecutter.project_slug}}"), str(Path(__file__).parent)]
# Airflow writes a configuration there when it is first imported.
os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="airflow-home-"))

from chromium import Browser, find_chromium  # noqa: E402
from scenes import fill  # noqa: E402
from viewer_server import ViewerServer, start, stop  # noqa: E402


@pytest.fixture(scope="session")
def chromium() -> str:
    """The program; without it there is nothing to test."""
    program = find_chromium()
    if program is None:
        pytest.skip("there is no chromium on this machine (Debian: apt install chromium), nor CHROMIUM")
    return program


@pytest.fixture(scope="session")
def server(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ViewerServer]:
    """A server with XComs that are worth a look."""
    server = start(tmp_path_factory.mktemp("viewer"))
    try:
        fill(server)
        yield server
    finally:
        stop(server)


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    """Where the browser saves files."""
    return tmp_path / "downloads"


@pytest.fixture(scope="session")
def one_browser(chromium: str, server: ViewerServer) -> Iterator[Browser]:
    """A browser that is logged in as an admin, for all tests: it takes seconds to start."""
    browser = Browser(chromium)
    try:
        browser.set_cookie("_token", server.token("anna"), server.url)
        yield browser
    finally:
        browser.close()


@pytest.fixture
def browser(one_browser: Browser, server: ViewerServer, downloads: Path) -> Browser:
    """The browser as it was at first."""
    downloads.mkdir()
    one_browser.save_to(downloads)
    one_browser.set_window(1280, 900)
    one_browser.set_scheme("light")
    one_browser.go(f"{server.url}/payload-viewer/viewer.css")
    one_browser.run("localStorage.clear()")
    one_browser.said.clear()
    return one_browser
