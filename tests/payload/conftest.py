"""A real fake-gcs-server for the tests of payloads, and nothing of the machine's own settings."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest
from servers import answers

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "{{cookiecutter.project_slug}}"), str(Path(__file__).parent)]
# Airflow writes a configuration there when it is first imported.
os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="airflow-home-"))

VERSION = "1.56.1"
IMAGE = f"fsouza/fake-gcs-server:{VERSION}"
MODULE = f"github.com/fsouza/fake-gcs-server@v{VERSION}"
HOW_TO_GET = (
    f"fake-gcs-server {VERSION} is not here: put it on PATH (its releases have binaries), or start a container "
    f"engine that has or can pull {IMAGE}, or install Go so that `go install {MODULE}` works"
)
_HIDDEN = (
    "AIRFLOW__GCS_XCOM__",
    "AIRFLOW_CONN_",
    "GOOGLE_",
    "CLOUDSDK_",
    "GCE_METADATA_",
    "STORAGE_EMULATOR",
)
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@dataclass
class GCSServer:
    """A running fake-gcs-server and a bucket that only this test knows.

    Attributes:
        url: ``http://127.0.0.1:port``.
        bucket: Empty at the start of the test.
    """

    url: str
    bucket: str

    def names(self) -> list[str]:
        """Return the names of all objects in the bucket, straight from the server."""
        with urlopen(f"{self.url}/storage/v1/b/{self.bucket}/o", timeout=10) as response:
            return sorted(item["name"] for item in json.load(response).get("items", []))

    def read(self, name: str) -> bytes:
        """Return the bytes of an object, straight from the server."""
        path = f"/download/storage/v1/b/{self.bucket}/o/{quote(name, safe='')}?alt=media"
        with urlopen(self.url + path, timeout=10) as response:
            return bytes(response.read())

    def write(self, name: str, body: bytes) -> str:
        """Write an object, over one that is there, straight to the server; return its generation."""
        path = f"/upload/storage/v1/b/{self.bucket}/o?uploadType=media&name={quote(name, safe='')}"
        with urlopen(Request(self.url + path, body, method="POST"), timeout=10) as response:
            return str(json.load(response)["generation"])


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take away what would lead tests to somebody's real bucket, or give them his credentials."""
    for name in list(os.environ):
        if name.startswith(_HIDDEN) or name.upper() in _PROXIES:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    # Else google-auth looks for a metadata server, for seconds.
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    if "include.xcom.settings" in sys.modules:
        sys.modules["include.xcom.settings"].load_settings.cache_clear()
    # Airflow's own configuration of logs would keep them from `caplog`.
    monkeypatch.setattr(logging.getLogger("include"), "propagate", True)
    yield
    if "include.xcom.settings" in sys.modules:
        sys.modules["include.xcom.settings"].load_settings.cache_clear()


@pytest.fixture(scope="session")
def gcs_server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start fake-gcs-server natively, in memory, on a free loopback port; one for all tests."""
    binary = _on_path() or _cached() or _from_image() or _built()
    if binary is None:
        pytest.skip(HOW_TO_GET)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = {"scheme": "http", "host": "127.0.0.1", "port": port, "backend": "memory", "log-level": "error"}
    command = [str(binary), *(f"-{name}={value}" for name, value in options.items())]
    log = tmp_path_factory.mktemp("gcs") / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url, server, log)
        yield url
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture
def gcs_server(gcs_server_url: str) -> GCSServer:
    """A fresh bucket on the session's server."""
    # With the word in it, as in many names, and in messages about other things than buckets.
    bucket = f"test-bucket-{uuid4().hex[:12]}"
    body = json.dumps({"name": bucket}).encode()
    request = Request(f"{gcs_server_url}/storage/v1/b", body, {"content-type": "application/json"})
    urlopen(request, timeout=10).close()
    return GCSServer(gcs_server_url, bucket)


def _on_path() -> Path | None:
    found = shutil.which("fake-gcs-server")
    return Path(found) if found else None


def _cache() -> Path:
    return ROOT / ".cache" / f"fake-gcs-server-{VERSION}" / "fake-gcs-server"


def _cached() -> Path | None:
    return _cache() if os.access(_cache(), os.X_OK) else None


def _from_image() -> Path | None:
    """Take the binary out of the container image; the engine need not be able to run it here."""
    if not shutil.which("docker") or not _succeeds("docker", "image", "inspect", IMAGE):
        return None
    made = subprocess.run(["docker", "create", IMAGE], capture_output=True, text=True, check=False)
    if made.returncode:
        return None
    container = made.stdout.split()[-1]
    try:
        with _fresh_folder() as folder:
            copied = _succeeds(
                "docker", "cp", f"{container}:/bin/fake-gcs-server", f"{folder}/fake-gcs-server"
            )
            return _keep(Path(folder) / "fake-gcs-server") if copied else None
    finally:
        _succeeds("docker", "rm", "--force", container)


def _built() -> Path | None:
    """Build it from source: about 80 s, once for each checkout."""
    if not shutil.which("go"):
        return None
    with _fresh_folder() as folder:
        environment = {**os.environ, "GOBIN": folder, "CGO_ENABLED": "0"}
        environment.setdefault("GOCACHE", str(ROOT / ".cache" / "go-build"))
        environment.setdefault("GOPATH", str(ROOT / ".cache" / "go"))
        if subprocess.run(["go", "install", MODULE], env=environment, check=False, timeout=900).returncode:
            return None
        return _keep(Path(folder) / "fake-gcs-server")


def _fresh_folder() -> tempfile.TemporaryDirectory[str]:
    _cache().parent.mkdir(parents=True, exist_ok=True)
    (ROOT / ".cache" / ".gitignore").write_text("*\n")
    return tempfile.TemporaryDirectory(dir=_cache().parent)


def _keep(binary: Path) -> Path | None:
    """Move it to its place; two runs at once may both do so. None if it does not run on this machine."""
    try:
        binary.chmod(0o755)
        subprocess.run([binary, "-help"], capture_output=True, check=False, timeout=30)
    except OSError:
        return None
    return binary.replace(_cache())


def _succeeds(*command: str) -> bool:
    return not subprocess.run(command, capture_output=True, check=False).returncode


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    if not answers(f"{url}/storage/v1/b", server, seconds=20, pause=0.05):
        pytest.fail(f"fake-gcs-server does not answer at {url}: {log.read_text()[-2000:]}")
