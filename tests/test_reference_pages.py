"""The pages of docs/reference/ say what the code says, and the tables of docs/scaling.md what is computed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_reference_pages_are_current() -> None:
    """Whoever changes a codec, a setting or an error runs scripts/make-reference."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "make-reference"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def scaling(*words: str) -> subprocess.CompletedProcess[str]:
    """Run scripts/make-scaling."""
    command = [sys.executable, str(ROOT / "scripts" / "make-scaling"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_scaling_tables_are_current() -> None:
    """Whoever changes prices, the form of a reference, or what records compress to, runs scripts/make-scaling."""
    done = scaling("--check")

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "row"),
    [
        # 1,000,000 a day x 30 days x 1 write at 0.005 and 1 read at 0.0004 a thousand.
        pytest.param((), "| operations, a month | $0.16 | $162 | $16,200 |", id="operations"),
        # 1 MiB x 1,000,000 x 90 days = 87,890,625 MiB-days; GiB at 0.020 a month.
        pytest.param((), "| storage, a month | $1.76 | $1,758 | $175,781 |", id="storage"),
        # 100,000,000 / 86,400 x 10 = 11,574; log2(11.574) x 20 = 70.7.
        pytest.param((), "a second | none needed | none needed | 71 |", id="ramp"),
        pytest.param(("--reads", "3"), "| reads a second, mean | 0.035 | 35 | 3,472 |", id="reads"),
        pytest.param(("--age-days", "30"), "| storage, a month | $0.59 | $586 | $58,594 |", id="age"),
    ],
)
def test_scaling_computes_what_a_hand_computes(words: tuple[str, ...], row: str) -> None:
    """Figures of readers enter all rows that they concern."""
    assert row in scaling("--print", *words).stdout
