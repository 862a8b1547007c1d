"""The pages of docs/reference/ match the code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_reference_pages_are_current() -> None:
    """A change of a codec, setting, error, or command needs a run of scripts/make-reference."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "make-reference"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
