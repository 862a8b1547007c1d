"""A headless Chromium, driven through its own protocol; nothing but ``websocket-client`` is needed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import websocket

__all__ = ["Browser", "find_chromium"]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_OPTIONS = (
    "--headless",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)


def find_chromium() -> str | None:
    """Return the program, from ``CHROMIUM`` or the path; None where there is none."""
    named = os.environ.get("CHROMIUM")
    return named or next((path for name in _NAMES if (path := shutil.which(name))), None)


class Browser:
    """One browser with one page.

    Args:
        program: Of Chromium.
    """

    def __init__(self, program: str) -> None:
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        # Its sandbox needs another user than root.
        options = (*_OPTIONS, "--no-sandbox") if os.geteuid() == 0 else _OPTIONS
        self._process = subprocess.Popen(
            [program, *options, f"--user-data-dir={self._profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._sent = 0
        self.said: list[str] = []
        """What pages wrote to the console, errors and refused scripts among it."""
        try:
            port, path = self._address()
            self._socket = websocket.create_connection(f"ws://127.0.0.1:{port}{path}", timeout=60)
            target = self._call("Target.createTarget", {"url": "about:blank"}, "")["targetId"]
            attached = self._call("Target.attachToTarget", {"targetId": target, "flatten": True}, "")
            self._session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def _address(self) -> tuple[str, str]:
        file = Path(self._profile) / "DevToolsActivePort"
        until = time.monotonic() + 60
        while time.monotonic() < until and self._process.poll() is None:
            lines = file.read_text().splitlines() if file.exists() else []
            if len(lines) == 2:
                return lines[0], lines[1]
            time.sleep(0.1)
        raise RuntimeError("Chromium did not start")

    def close(self) -> None:
        """End the browser and remove its profile."""
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol for the page."""
        return self._call(method, parameters, self._session)

    def _call(self, method: str, parameters: dict[str, Any], session: str) -> dict[str, Any]:
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": parameters}
        self._socket.send(json.dumps(message | ({"sessionId": session} if session else {})))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == self._sent:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])
            if answer.get("method") in (
                "Log.entryAdded",
                "Runtime.exceptionThrown",
                "Runtime.consoleAPICalled",
            ):
                self.said.append(json.dumps(answer["params"]))
            elif answer.get("method") == "Page.javascriptDialogOpening":
                self.said.append(f"DIALOG {answer['params']['message']}")
                self._socket.send(
                    json.dumps(
                        {
                            "id": 10**6 + self._sent,
                            "method": "Page.handleJavaScriptDialog",
                            "params": {"accept": True},
                            "sessionId": self._session,
                        }
                    )
                )

    def save_to(self, folder: Path) -> None:
        """Save files that pages offer to a folder."""
        self._call("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)}, "")

    def set_cookie(self, name: str, value: str, url: str) -> None:
        """Set a cookie for a site."""
        self.call("Network.setCookie", name=name, value=value, url=url)

    def set_window(self, width: int, height: int) -> None:
        """Give the page's window a size in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def set_scheme(self, scheme: str) -> None:
        """Let the browser prefer ``light`` or ``dark``."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def go(self, url: str) -> None:
        """Open an address and wait until the document is complete."""
        self.call("Page.navigate", url=url)
        self.wait(
            lambda: (
                self.run("document.readyState") == "complete" and self.run("location.href") != "about:blank"
            )
        )

    def run(self, script: str) -> Any:
        """Evaluate an expression in the page and return its value."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, condition: Callable[[], Any], seconds: float = 40) -> Any:
        """Wait until a condition holds, and return what it returned.

        Raises:
            TimeoutError: It did not.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = condition()
            if found:
                return found
            time.sleep(0.2)
        raise TimeoutError("the page did not come to what was waited for")

    def picture(self, *, whole: bool = False) -> bytes:
        """Return a PNG of what is seen."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"])
