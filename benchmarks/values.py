"""The values that every candidate stores and reads; the same in every process."""

from __future__ import annotations

import random
from typing import Any

__all__ = ["make", "size_of"]

RECORDS_PER_MB = 7_500
"""Of about 135 bytes of JSON each: 60,000 make 8 MB."""

_CARRIERS = ["UA", "AA", "B6", "DL", "EV", "MQ", "US", "WN", "VX", "FL"]
_ORIGINS = ["EWR", "JFK", "LGA"]
_DESTINATIONS = [f"{first}{second}{third}" for first in "ABCDE" for second in "IOU" for third in "LNRSTX"]


def make(kind: str, size: float) -> Any:
    """Return a value.

    Args:
        kind: ``records``, ``frame``, ``array``, ``bytes``, ``tree`` or ``bundle``.
        size: MB of JSON text for records and trees, millions of rows for frames, MiB for the others.
    """
    return {
        "records": _records,
        "frame": _frame,
        "array": _array,
        "bytes": _bytes,
        "tree": _tree,
        "bundle": _bundle,
    }[kind](size)


def size_of(value: Any) -> int:
    """Return the bytes of a value: of its JSON text, or in memory."""
    if isinstance(value, bytes):
        return len(value)
    if hasattr(value, "memory_usage"):
        return int(value.memory_usage(deep=True).sum())
    if hasattr(value, "nbytes"):
        return int(value.nbytes)
    if isinstance(value, dict):
        return sum(size_of(part) for part in value.values())
    import json

    if value and isinstance(value[0], tuple):
        return 0
    return sum(len(json.dumps(record)) + 1 for record in value) + 1


def _records(megabytes: float) -> list[dict[str, Any]]:
    random_numbers = random.Random(2013)
    pick, gauss, integer = random_numbers.choice, random_numbers.gauss, random_numbers.randrange
    return [
        {
            "id": number,
            "carrier": pick(_CARRIERS),
            "origin": pick(_ORIGINS),
            "destination": pick(_DESTINATIONS),
            "day": f"2013-{number % 12 + 1:02}-{number % 28 + 1:02}",
            "delay": round(gauss(12, 40), 1),
            "distance": integer(80, 5000),
            "cancelled": number % 41 == 0,
        }
        for number in range(round(megabytes * RECORDS_PER_MB))
    ]


def _tree(megabytes: float) -> list[tuple[Any, ...]]:
    return [tuple(record.values()) for record in _records(megabytes)]


def _frame(million_rows: float) -> Any:
    import numpy as np
    import pandas as pd

    rows = round(million_rows * 1_000_000)
    random_numbers = np.random.default_rng(2013)
    tails = np.array([f"N{number}" for number in range(10_000, 14_000)])
    return pd.DataFrame(
        {
            "id": np.arange(rows),
            "departure": np.datetime64("2013-01-01", "us") + np.arange(rows).astype("timedelta64[m]"),
            "carrier": np.array(_CARRIERS)[random_numbers.integers(len(_CARRIERS), size=rows)],
            "origin": np.array(_ORIGINS)[random_numbers.integers(3, size=rows)],
            "destination": np.array(_DESTINATIONS)[random_numbers.integers(90, size=rows)],
            "tail": tails[random_numbers.integers(4000, size=rows)],
            "delay": random_numbers.normal(12, 40, rows).round(0),
            "distance": random_numbers.integers(80, 5000, rows),
            "fuel": random_numbers.normal(5000, 900, rows),
            "price": random_numbers.lognormal(5, 0.6, rows).round(2),
        }
    )


def _array(mebibytes: float) -> Any:
    import numpy as np

    return np.random.default_rng(2013).random((round(mebibytes * 128), 1024))


def _bytes(mebibytes: float) -> bytes:
    import numpy as np

    return np.random.default_rng(2013).bytes(round(mebibytes * 2**20))  # random.randbytes ends at 256 MiB.


def _bundle(mebibytes: float) -> dict[str, Any]:
    return {"scores": _array(mebibytes / 2), "image": _bytes(mebibytes / 2)}
