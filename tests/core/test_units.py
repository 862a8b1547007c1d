"""Sizes as people read them."""

from __future__ import annotations

import pytest
from include.xcom.units import format_size


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (48 * 1024, "48.0 KiB"),
        (2**20 - 1, "1.0 MiB"),
        (88_289_280, "84.2 MiB"),
        (2**30, "1.0 GiB"),
        (5 * 2**40, "5.0 TiB"),
        (2**60, "1048576.0 TiB"),
    ],
)
def test_size_is_written_in_binary_units(size: int, text: str) -> None:
    """As ``gcloud storage ls --readable-sizes`` writes them, and never as 1024.0 of a unit."""
    assert format_size(size) == text
