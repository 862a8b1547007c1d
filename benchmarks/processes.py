"""The processes of a benchmark: the bucket's server, the proxy before it, and the workers."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from candidates import BUCKET, CANDIDATES

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from fake_gcs_server import HOW_TO_GET, find_binary

__all__ = ["HERE", "ROOT", "Nursery", "Place", "Proxy", "Worker", "find_server", "serving"]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
_PROJECT = ROOT / "{{cookiecutter.project_slug}}"
# What a shell may say about other projects, and what would make libraries run otherwise than usual.
_FOREIGN = ("AIRFLOW", "GOOGLE_", "CLOUDSDK_", "STORAGE_", "PYTHON", "OPENBLAS", "OMP_", "MKL_", "ARROW_")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


class Place:
    """A folder of its own, with a copy of the backend, so that compiled files stay out of the checkout."""

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "airflow").mkdir(parents=True)
        shutil.copytree(
            _PROJECT / "include", folder / "project" / "include", ignore=shutil.ignore_patterns("__pycache__")
        )
        self.folder = folder
        self.log = folder / "processes.log"

    def environment(self, **more: str) -> dict[str, str]:
        """Return the variables of a child: none that is set for something else."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(_FOREIGN) and name.upper() not in _PROXIES
        }
        paths = os.pathsep.join([str(HERE), str(self.folder / "project")])
        mine = {"AIRFLOW_HOME": str(self.folder / "airflow"), "PYTHONPATH": paths, "NO_GCE_CHECK": "true"}
        return {**kept, **mine, **more}


class _Process:
    """A child that ends when its standard input does."""

    def __init__(self, command: list[str], place: Place, **more: str) -> None:
        self._log = place.log.open("ab")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=place.environment(**more),
            text=True,
        )

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        if error is not None:
            self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self._log.close()

    def line(self) -> str:
        """Return the next line that the child prints."""
        assert self.process.stdout
        text = self.process.stdout.readline()
        if not text:
            raise _ended(Path(self._log.name))
        return text


class Nursery(_Process):
    """Forks workers; see ``worker.py``."""

    def __init__(self, place: Place) -> None:
        super().__init__([sys.executable, str(HERE / "worker.py")], place)
        self._place = place
        self._path = place.folder / "socket"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(os.path.relpath(self._path))  # A full path may be too long for a socket.
        self._listener.listen()
        self._listener.settimeout(1)

    def worker(self, name: str, endpoint: str) -> Worker:
        """Start a process for a candidate."""
        assert self.process.stdin
        order = {
            "name": name,
            "socket": os.path.relpath(self._path),
            "environment": CANDIDATES[name].environment(endpoint),
        }
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        for _ in range(300):
            try:
                return Worker(self._listener.accept()[0], self._place.log)
            except TimeoutError:
                if self.process.poll() is not None:
                    break
        raise _ended(self._place.log)


class Worker:
    """A candidate in a process of its own, which ends with the block."""

    def __init__(self, end: socket.socket, log: Path) -> None:
        self._end = end
        self._log = log
        self._lines = end.makefile("rw")

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._end.close()

    def ask(self, do: str, **values: Any) -> Any:
        """Let it do something, and return what it says."""
        print(json.dumps({"do": do, **values}), file=self._lines, flush=True)
        text = self._lines.readline()
        if not text:
            raise _ended(self._log)
        return json.loads(text)


class Proxy(_Process):
    """A link to the server that counts requests; see ``proxy.py``."""

    def __init__(self, endpoint: str, place: Place) -> None:
        super().__init__([sys.executable, str(HERE / "proxy.py"), endpoint.rpartition(":")[2]], place)
        self.url = f"http://127.0.0.1:{int(self.line())}"
        # The server names itself in the answers that begin a long upload.
        body = json.dumps({"externalUrl": self.url}).encode()
        urlopen(Request(f"{endpoint}/_internal/config", body, method="PUT"), timeout=10).close()

    def count(self) -> int:
        """Return how many requests came since the last call."""
        with urlopen(f"{self.url}/-/count", timeout=10) as answer:
            return int(answer.read())

    def sent(self) -> int:
        """Return how many bytes the server sent since the last call."""
        with urlopen(f"{self.url}/-/sent", timeout=10) as answer:
            return int(answer.read())

    def uploaded(self) -> float:
        """Return the seconds from the first request since ``count`` to the end of the last upload."""
        with urlopen(f"{self.url}/-/uploaded", timeout=10) as answer:
            return float(answer.read())

    def link(self, seconds: float = 0, up: float = 0, down: float = 0) -> None:
        """From now on delay every request, and limit each connection to these bytes a second; 0: not."""
        urlopen(f"{self.url}/-/link/{seconds}/{up}/{down}", timeout=10).close()


def _ended(log: Path) -> RuntimeError:
    last = log.read_text(errors="replace").rstrip().splitlines()[-15:]
    return RuntimeError("\n".join(["a process of the benchmark ended:", *last]))


@contextmanager
def serving(binary: Path, place: Place, *, is_in_memory: bool = True) -> Iterator[str]:
    """Run an empty server, in memory or on the disk, with the bucket; yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    options = {"scheme": "http", "host": "127.0.0.1", "port": port, "backend": "memory"}
    if not is_in_memory:
        options |= {"backend": "filesystem", "filesystem-root": str(place.folder / f"bucket-{port}")}
    options |= {"external-url": url, "log-level": "error"}
    command = [str(binary), *(f"-{name}={value}" for name, value in options.items())]
    with ExitStack() as stack:
        log = stack.enter_context(place.log.open("ab"))
        # It composes in memory. On the disk, for the largest objects, it must let go of earlier copies soon,
        # at the cost of time.
        environment = os.environ if is_in_memory else {**os.environ, "GOGC": "20"}
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        stack.callback(server.wait, 20)
        stack.callback(server.terminate)
        body = json.dumps({"name": BUCKET}).encode()
        request = Request(f"{url}/storage/v1/b", body, {"content-type": "application/json"})
        deadline = time.monotonic() + 20
        while True:
            try:
                urlopen(request, timeout=10).close()
                break
            except URLError:
                if time.monotonic() > deadline or server.poll() is not None:
                    raise
                time.sleep(0.02)
        yield url


def find_server() -> Path:
    """Return the binary of fake-gcs-server, as the tests of payloads find or build it."""
    binary = find_binary()
    if binary is None:
        raise SystemExit(HOW_TO_GET)
    return binary
