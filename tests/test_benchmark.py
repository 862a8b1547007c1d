"""The benchmark runs, and what it says of large objects holds wherever it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fake_gcs_server import HOW_TO_GET, ROOT, find_binary


def test_large_object_comes_faster_than_one_connection_carries_it(tmp_path: Path) -> None:
    """256 MiB at 50 MB/s for each connection: 5 s over one, and one of eight parts of it over eight."""
    if find_binary() is None:
        pytest.skip(HOW_TO_GET)
    command = [sys.executable, str(ROOT / "benchmarks" / "bench.py"), "--quick", "--only", "ranged"]

    ran = subprocess.run(
        [*command, "--folder", str(tmp_path / "bench")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert not ran.returncode, ran.stderr[-3000:]
    assert "| this backend |" in ran.stdout
    found = json.loads((tmp_path / "bench" / "performance.json").read_text())["measures"]["ranged"]
    assert found["ours"]["requests"] == 8
    assert found["floor"]["requests"] == 1
    assert found["ours"]["wall"] < found["floor"]["wall"] / 3
