"""The report of pinned versions: complete, right about what is newer, and never a reason to fail."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType

import pytest
from baking import REPOSITORY

SCRIPT = REPOSITORY / "scripts/outdated"


@pytest.fixture(scope="module")
def outdated() -> ModuleType:
    """The script as a module."""
    loader = importlib.machinery.SourceFileLoader("outdated", str(SCRIPT))
    spec = importlib.util.spec_from_loader("outdated", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    sys.modules["outdated"] = module  # Where dataclasses look for it.
    loader.exec_module(module)
    return module


class _Registry(BaseHTTPRequestHandler):
    """An image registry as the protocol describes it: anonymous token, pages of two tags."""

    tags = ("3.2-9", "3.3-8", "3.3-10", "3.3-9-base", "latest", "3.10-1")

    def do_GET(self) -> None:
        address = f"http://{self.headers['host']}"
        if self.path == "/token?service=images&scope=repository%3Aruntime%3Apull":
            self._answer(200, {"token": "for anybody"})
        elif self.headers["authorization"] != "Bearer for anybody":
            scope = f'Bearer realm="{address}/token",service="images",scope="repository:runtime:pull"'
            self._answer(401, {}, ("www-authenticate", scope))
        elif self.path.startswith("/v2/runtime/tags/list"):
            first = int(self.path.rpartition("last=")[2]) if "last=" in self.path else 0
            link = ("link", f'</v2/runtime/tags/list?last={first + 2}>; rel="next"')
            more = [link] if first + 2 < len(self.tags) else []
            self._answer(200, {"name": "runtime", "tags": self.tags[first : first + 2]}, *more)
        else:
            self._answer(404, {})

    def _answer(self, status: int, body: object, *headers: tuple[str, str]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (*headers, ("content-length", str(len(data)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[str]:
    """Its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Registry)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_every_kind_of_pin_is_found(outdated: ModuleType) -> None:
    """What is written somewhere and not here would be forgotten."""
    found = {(pin.name, pin.version) for pin in (*outdated.images(), *outdated.go_programs())}

    assert {name for name, _ in found} == {
        "astrocrpublic.azurecr.io/runtime",
        "fsouza/fake-gcs-server",
        "github.com/fsouza/fake-gcs-server",
        "github.com/rhysd/actionlint",
        "library/postgres",
        "library/redis",
    }
    assert {version for name, version in found if "runtime" in name} == {"3.3-8", "3.2-9", "3.1-21"}
    assert {pin.name for pin in outdated.actions()} == {"actions/checkout", "actions/setup-python"}
    assert {"apache-airflow", "cookiecutter", "pytest"} <= {pin.name for pin in outdated.packages()}


def test_pins_that_are_written_twice_are_the_same(outdated: ModuleType) -> None:
    """The emulator is an image in Compose files and a program in tests."""
    versions = {
        pin.version for pin in (*outdated.images(), *outdated.go_programs()) if "fake-gcs" in pin.name
    }
    (version,) = versions

    emulator = REPOSITORY / outdated.PROJECT / "include/xcom/cli/emulator.py"
    assert f"image: fsouza/fake-gcs-server:{version}\n" in emulator.read_text()


@pytest.mark.parametrize(
    ("version", "newest"),
    [
        pytest.param("3.3-8", "3.10-1", id="numbers-not-text"),
        pytest.param("3.3-9-base", "3.3-9-base", id="own-form-only"),
        pytest.param("3.11-1", "3.11-1", id="not-behind"),
    ],
)
def test_tags_of_an_image_are_read_page_by_page(
    version: str, newest: str, registry: str, outdated: ModuleType
) -> None:
    """With the token that the registry offers; other forms of tags do not count."""
    tags = outdated.registry_tags(registry, "runtime")

    assert tuple(tags) == _Registry.tags
    assert outdated.newest_like(version, tags) == newest


def test_report_without_any_answer_is_no_failure(outdated: ModuleType) -> None:
    """No network: every pin is listed with the reason, and the exit code is 0."""
    nowhere = "http://127.0.0.1:9"
    variables = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), nowhere)
    variables |= {"GOPROXY": "off", "PIP_INDEX_URL": nowhere, "PIP_RETRIES": "0"}
    done = subprocess.run(
        [sys.executable, SCRIPT, "--json"],
        env=dict(os.environ) | variables | {"PIP_CONFIG_FILE": "/dev/null", "NO_PROXY": "", "no_proxy": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    rows = json.loads(done.stdout)

    assert done.returncode == 0, done.stderr
    assert len(rows) > 25
    assert [row for row in rows if row["newest"] or not row["why"]] == []
