"""The benchmark runs, and what it says of large objects holds wherever it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fake_gcs_server import HOW_TO_GET, ROOT, find_binary


def test_large_object_moves_faster_than_one_connection_carries_it(tmp_path: Path) -> None:
    """64 MiB at 20 MB/s for each connection: 3.4 s over one, and an eighth of it over eight."""
    if find_binary() is None:
        pytest.skip(HOW_TO_GET)
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "bench.py"),
        "--quick",
        "--only",
        "link",
        "--slower",
        "10",
    ]

    ran = subprocess.run(
        [*command, "--folder", str(tmp_path / "bench")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert not ran.returncode, ran.stderr[-3000:]
    assert "| 64 MiB of bytes, this backend |" in ran.stdout
    found = json.loads((tmp_path / "bench" / "performance.json").read_text())["measures"]["link"]["bytes 64"]
    assert found["ours"]["load"] < found["floor"]["load"] / 2
    assert found["ours"]["store"] < found["floor"]["store"] / 2
