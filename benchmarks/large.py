"""What a worker does with values that are larger than memory: ``File``, ``Table``, and ``Items``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from candidates import Opened
from values import make
from worker import peak, ready, tidy, timed

__all__ = ["STEPS"]

MIB = 2**20
COLUMNS = 19
_BATCH_ROWS = 50_000
_READY_MIB = 512


def store_file(way: Opened, mebibytes: int) -> dict[str, Any]:
    """Store a file; tell how far that makes the process grow."""
    from include.xcom import File

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.bin"
        _write(path, 1)
        way.store(File(path))
        _write(path, mebibytes)
        return _measured(lambda: way.store(File(path)))


def load_file(way: Opened, row: Any) -> dict[str, Any]:
    """Download a file."""
    return _measured(lambda: Path(way.load(row)).stat().st_size)


def store_table(way: Opened, rows: int) -> dict[str, Any]:
    """Store a table of random numbers that is made as it is read."""
    from include.xcom import Table

    way.store(Table(_batches(_BATCH_ROWS)))
    return _measured(lambda: way.store(Table(_batches(rows))))


def load_table(way: Opened, row: Any) -> dict[str, Any]:
    """Stream a table."""
    return _measured(lambda: sum(len(batch) for batch in way.load(row).batches()))


def load_columns(way: Opened, row: Any, count: int) -> dict[str, Any]:
    """Load some columns of a table."""
    names = [f"c{number}" for number in range(count)]
    return _measured(lambda: way.load(row).to_arrow(columns=names).num_rows)


def store_items(way: Opened, megabytes: float) -> dict[str, Any]:
    """Store a long list of records."""
    from include.xcom import Items

    return _measured(lambda: way.store(Items(make("records", megabytes))))


def load_items(way: Opened, row: Any, tasks: int) -> dict[str, Any]:
    """Take one item in each of many tasks, each of which gets a handle of its own."""

    def mapped() -> int:
        count = len(way.load(row))
        return sum(len(way.load(row)[task * count // tasks]) for task in range(tasks))

    return _measured(mapped)


STEPS = {
    step.__name__: step
    for step in (
        store_file,
        load_file,
        store_table,
        load_table,
        load_columns,
        store_items,
        load_items,
    )
}


def _measured(work: Any) -> dict[str, Any]:
    from include.xcom import Table

    # What a first use imports and starts is no part of a value. This one makes no request.
    Table(_batches(_BATCH_ROWS)).to_arrow()
    done: list[dict[str, Any]] = []
    ready(_READY_MIB)
    tidy()
    highest = peak(lambda: done.append(timed(work)))
    return {"peak": highest, **done[0]}


def _write(path: Path, mebibytes: int) -> None:
    chunk = os.urandom(MIB)
    with path.open("wb") as file:
        for number in range(mebibytes):
            file.write(number.to_bytes(8, "little") + chunk[8:])


def _batches(rows: int) -> Iterator[Any]:
    import numpy as np
    import pyarrow as pa

    numbers = np.random.default_rng(2013)
    for _ in range(rows // _BATCH_ROWS):
        yield pa.record_batch({f"c{column}": numbers.random(_BATCH_ROWS) for column in range(COLUMNS)})
