"""The benchmark runs, and what it says of large objects holds wherever it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_gcs_server import HOW_TO_GET, ROOT, find_binary


def bench(folder: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    """Run the benchmark with few rounds; return what it prints, and its figures."""
    if find_binary() is None:
        pytest.skip(HOW_TO_GET)
    command = [sys.executable, str(ROOT / "benchmarks" / "bench.py"), "--quick", "--folder", str(folder)]
    ran = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=600, check=False)
    assert not ran.returncode, ran.stderr[-3000:]
    return ran.stdout, json.loads((folder / "performance.json").read_text())["measures"]


def test_large_object_moves_faster_than_one_connection_carries_it(tmp_path: Path) -> None:
    """64 MiB at 20 MB/s for each connection: 3.4 s over one, and an eighth of it over eight."""
    printed, measures = bench(tmp_path / "bench", "--only", "link", "--slower", "10")

    assert "| 64 MiB of bytes, this backend |" in printed
    found = measures["link"]["bytes 64"]
    assert found["ours"]["load"] < found["floor"]["load"] / 2
    assert found["ours"]["store"] < found["floor"]["store"] / 2


def test_parts_of_large_values_take_few_requests_and_bytes(tmp_path: Path) -> None:
    """Two of 19 columns, and one item of a list in each of 1,000 tasks."""
    printed, measures = bench(tmp_path / "bench", "--only", "large")

    assert "| load two columns |" in printed
    found = measures["large"]
    assert found["load 2 columns"]["bytes"] <= 0.15 * found["load 19 columns"]["bytes"]
    assert found["load 2 columns"]["requests"] <= 10
    assert found["load_items 1"]["requests"] <= 2
    assert found["load_items 1000"]["bytes"] <= 16e6
    assert found["load_file"]["bytes"] == 64 * 2**20
