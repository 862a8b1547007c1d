"""What tests with servers share: waiting for one to answer, and rows for Airflow's own tables."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from typing import Any
from urllib.request import urlopen


def answers(url: str, server: subprocess.Popen[bytes], *, seconds: float, pause: float) -> bool:
    """Wait until a server answers a request; False if it ends or the time is up before."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(pause)
        else:
            return True
    return False


def insert(
    database: sqlite3.Connection, table: str, *, now: str, ignore: bool = False, **values: Any
) -> None:
    """Insert a row; columns that must not be null and have no default get something of their type."""
    for _, name, kind, is_required, default, is_key in database.execute(f"pragma table_info({table})"):
        if name in values or not is_required or default is not None or (is_key and "INT" in kind.upper()):
            continue
        kind = kind.upper()
        filler: Any = 0 if any(word in kind for word in ("INT", "BOOL", "FLOAT")) else "{}"
        values[name] = now if "TIME" in kind else filler
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    verb = "insert or ignore" if ignore else "insert"
    database.execute(f"{verb} into {table} ({names}) values ({marks})", list(values.values()))
