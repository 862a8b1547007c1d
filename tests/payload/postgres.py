"""A PostgreSQL server of its own for a test: real, temporary, and gone afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

HOW_TO_GET = "no PostgreSQL server here: install one (Debian and Ubuntu: apt-get install postgresql)"
_START_SECONDS = 60


@contextmanager
def postgres_server() -> Iterator[str]:
    """Start a server on a free port of the loopback interface; give ``user@host:port/database``.

    Root is refused by ``initdb``, so root runs it as the user ``postgres``. Skips the test where there
    is no server to start.
    """
    binaries = _find_binaries()
    if binaries is None:
        pytest.skip(HOW_TO_GET)
    owner = "postgres" if os.geteuid() == 0 else None
    # Below /tmp and not pytest's folder, which other users may not enter.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        if owner:
            try:
                shutil.chown(folder, owner)
            except LookupError:
                pytest.skip(f"root may not run PostgreSQL, and there is no user {owner} to do it")
        data, log = folder / "data", folder / "log"
        as_owner: dict[str, Any] = {
            "user": owner,
            "cwd": "/",
            "env": {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        }
        initdb: list[str | Path] = [
            binaries / "initdb",
            "-D",
            data,
            "-U",
            "airflow",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-sync",
        ]
        made = subprocess.run(initdb, capture_output=True, text=True, check=False, **as_owner)
        assert made.returncode == 0, made.stderr
        port = free_port()
        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": folder,
            "fsync": "off",
            "max_connections": 200,
        }
        command: list[str | Path] = [binaries / "postgres", "-D", data, "-p", str(port)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with log.open("w") as output:
            server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, **as_owner)
        try:
            _wait_until_ready(binaries, port, server, log)
            yield f"airflow@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # Ends connections and stops.
            server.wait(timeout=30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """Return a port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _find_binaries() -> Path | None:
    # Debian keeps the server's programs off PATH, one folder for each version.
    folders = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True
    )
    found = shutil.which("initdb")
    folders += [Path(found).parent] if found else []
    return next(
        (path for path in folders if (path / "initdb").exists() and (path / "postgres").exists()), None
    )


def _wait_until_ready(binaries: Path, port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    command: list[str | Path] = [binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
    while subprocess.run(command, check=False).returncode:
        assert server.poll() is None, f"PostgreSQL stopped: {log.read_text()}"
        assert time.monotonic() < deadline, f"PostgreSQL is not ready: {log.read_text()}"
        time.sleep(0.1)
