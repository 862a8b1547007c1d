"""The real fake-gcs-server: where its binary comes from, and a bucket on one that runs."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from urllib.request import Request, urlopen

import go_tools
from servers import answers

ROOT = Path(__file__).resolve().parents[1]

VERSION = "1.56.1"
IMAGE = f"fsouza/fake-gcs-server:{VERSION}"
PACKAGE = "github.com/fsouza/fake-gcs-server"
HOW_TO_GET = (
    f"fake-gcs-server {VERSION} is not here: put it on PATH (its releases have binaries), or start a container "
    f"engine that has or can pull {IMAGE}, or install Go so that `go install {PACKAGE}@v{VERSION}` works"
)


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

    def delete(self, name: str) -> None:
        """Delete an object, straight from the server."""
        path = f"/storage/v1/b/{self.bucket}/o/{quote(name, safe='')}"
        urlopen(Request(self.url + path, method="DELETE"), timeout=10).close()


@contextmanager
def serving(binary: Path, log: Path) -> Iterator[str]:
    """Run a server with its objects in memory, on a free loopback port; yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = {"scheme": "http", "host": "127.0.0.1", "port": port, "backend": "memory", "log-level": "error"}
    command = [str(binary), *(f"-{name}={value}" for name, value in options.items())]
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"
    try:
        if not answers(f"{url}/storage/v1/b", server, seconds=20, pause=0.05):
            raise RuntimeError(f"fake-gcs-server does not answer at {url}: {log.read_text()[-2000:]}")
        yield url
    finally:
        server.terminate()
        server.wait(10)


def find_binary() -> Path | None:
    """Return the binary: from PATH, this checkout's cache, the container image, or built with Go."""
    return (
        _on_path()
        or go_tools.cached("fake-gcs-server", VERSION)
        or _from_image()
        or go_tools.built("fake-gcs-server", VERSION, PACKAGE)
    )


def _on_path() -> Path | None:
    found = shutil.which("fake-gcs-server")
    return Path(found) if found else None


def _from_image() -> Path | None:
    """Take the binary out of the container image; the engine need not be able to run it here."""
    if not shutil.which("docker") or not _succeeds("docker", "image", "inspect", IMAGE):
        return None
    made = subprocess.run(["docker", "create", IMAGE], capture_output=True, text=True, check=False)
    if made.returncode:
        return None
    container = made.stdout.split()[-1]
    try:
        with go_tools.fresh_folder() as folder:
            copied = _succeeds(
                "docker", "cp", f"{container}:/bin/fake-gcs-server", f"{folder}/fake-gcs-server"
            )
            return go_tools.keep(Path(folder) / "fake-gcs-server", VERSION) if copied else None
    finally:
        _succeeds("docker", "rm", "--force", container)


def _succeeds(*command: str) -> bool:
    return not subprocess.run(command, capture_output=True, check=False).returncode
