"""Histograms, the same for columns and arrays."""

from __future__ import annotations

from typing import Any

__all__ = ["histogram", "short"]

_BINS = 24


def histogram(values: Any) -> list[int]:
    """Count the finite values of a one-dimensional float array in bins of equal width."""
    import numpy as np

    finite = values[np.isfinite(values)]
    if not finite.size:
        return []
    low, high = float(finite.min()), float(finite.max())
    if low == high or not np.isfinite(high - low):
        return [int(finite.size)]
    counts, _ = np.histogram(finite, bins=_BINS, range=(low, high))
    return [int(count) for count in counts]


def short(value: object) -> str:
    """Write a number as people read it: six significant digits, and whole numbers in full."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**18 else f"{value:.6g}"
    if value.is_integer() and abs(value) < 10**15:
        return f"{int(value):,}"
    return f"{value:.6g}"
