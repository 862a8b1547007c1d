"""A headless Chromium, driven through its debugging protocol: open a page, read it, take a picture."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import websocket

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find_browser() -> str | None:
    """Return the path of a Chromium, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One tab."""

    def __init__(self, address: str) -> None:
        """Connect to the tab's debugging address."""
        self._socket = websocket.create_connection(address, timeout=60, suppress_origin=True)
        self._numbers = itertools.count(1)

    def command(self, method: str, **parameters: Any) -> Any:
        """Send one command and return its result."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, url: str) -> None:
        """Go to an address."""
        self.command("Page.navigate", url=url)

    def text(self) -> str:
        """Return what a person could read on the page now."""
        answer = self.command("Runtime.evaluate", expression="document.body ? document.body.innerText : ''")
        found: str = answer["result"].get("value", "")
        return found

    def address(self) -> str:
        """Return where the page is now."""
        found: str = self.command("Runtime.evaluate", expression="location.href")["result"]["value"]
        return found

    def picture(self) -> bytes:
        """Return the page as PNG."""
        return base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"])


@contextmanager
def browser(program: str, profile: Path, *, width: int = 1500, height: int = 800) -> Iterator[Page]:
    """Start a browser with an empty profile; end it afterwards."""
    command = [
        program,
        "--headless=new",
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
        f"--window-size={width},{height}",
        "--no-first-run",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--force-color-profile=srgb",
        "about:blank",
    ]
    if os.geteuid() == 0:
        command.insert(1, "--no-sandbox")
    with (profile.parent / "browser.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield Page(_debugging_address(profile, process))
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        process.kill()


def _debugging_address(profile: Path, process: subprocess.Popen[bytes]) -> str:
    notes = profile / "DevToolsActivePort"
    for _ in range(120):
        assert process.poll() is None, "the browser ended"
        if notes.exists() and notes.read_text().count("\n"):
            port = notes.read_text().splitlines()[0]
            with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as response:
                for target in json.load(response):
                    if target["type"] == "page":
                        address: str = target["webSocketDebuggerUrl"]
                        return address
        time.sleep(0.5)
    raise AssertionError("the browser did not open its debugging port within 60 s")
