"""Rows and objects as a release wrote them, in ``stored/RELEASE.json``, and the values that they hold.

A release that changes a codec, a tag, or a row adds a file, after its values are in ``VALUES``::

    python tests/core/stored_values.py 1.1.0

Files of earlier releases are never written again: they are what databases and buckets hold.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import tempfile
from collections.abc import Callable
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "{{cookiecutter.project_slug}}"))
    # Airflow writes a configuration there when it is first imported.
    os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="airflow-home-"))

import example_values
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from include.xcom import File, Items, Table, payloads, settings
from include.xcom.codecs.classes import allow_lists, serde
from include.xcom.codecs.inline import to_row
from include.xcom.reference import Coordinates, PayloadReference
from include.xcom.state import StateKey, StateReference
from include.xcom.stores import DirectoryStore, bucket, forget_stores

__all__ = ["FOLDER", "STATE", "VALUES", "KeptBucket", "opened", "use_bucket"]

FOLDER = Path(__file__).parent / "stored"
BUCKET = "gs://acme-xcom"
LEGACY = "gcs://manual__2023-05-01/load/0b0c8a3e-24e6-4ad5-9d5b-0f2d1f3b1a11.json"
STATE = StateKey(("task", "sales", "manual__1", "load", "-", "-1"), "cursor")
# As long as half of all others together.
_LEFT_OUT = ("int-10000-digits", "list-500-deep", "dict-500-deep", "tuple-400-deep")


def _pandas_frame() -> pd.DataFrame:
    whens = pd.DatetimeIndex(["2013-01-01", "2013-10-27 01:30", None], tz="UTC").as_unit("ns")
    index = pd.Index(["a", "b", "c"], name="key", dtype=object)
    frame = pd.DataFrame(
        {
            "whole": [1, 2, 3],
            "real": [0.5, float("nan"), -0.0],
            "text": pd.Series(["JFK", None, "é"], index, dtype=object),
            "label": pd.Categorical([1, 2, 1]),
            "when": whens.tz_convert(example_values.PARIS),
            "optional": pd.array([1, None, 3], dtype="Int64"),
            "mixed": pd.Series([1, "a", (2, np.arange(2))], index, dtype=object),
        },
        index=index,
    )
    # pandas 2 and 3 give text types of their own, also to labels.
    frame.columns = frame.columns.astype(object)
    return frame


def _polars_frame() -> pl.DataFrame:
    columns = {"whole": [1, 2], "text": ["a", None], "list": [[1], []], "day": [date(2013, 1, 1), None]}
    return pl.DataFrame(columns)


def _arrow_table() -> pa.Table:
    return pa.table({"whole": [1, 2], "text": ["a", None], "when": [datetime(2013, 1, 1), None]})


_FRAMES: dict[str, Callable[[], Any]] = {
    "pandas-frame": _pandas_frame,
    "pandas-series": lambda: pd.Series([0.5, 1.5], name="delay"),
    "polars-frame": _polars_frame,
    "polars-series": lambda: pl.Series("delay", [0.5, None]),
    "arrow-table": _arrow_table,
    "arrow-batch": lambda: pa.record_batch({"whole": [1, 2]}),
    "frames-in-a-dict": lambda: {"pandas": _pandas_frame(), "bytes": bytes(3000), "arrow": _arrow_table()},
}


def _file(body: bytes, sources: Path) -> File:
    sources.mkdir(exist_ok=True)
    (sources / "a.txt").write_bytes(body)
    return File(sources / "a.txt")


def _folder(files: dict[str, bytes], sources: Path) -> File:
    for name, body in files.items():
        path = sources / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return File(sources / "folder")


def _table(rows: list[dict[str, Any]], sources: Path) -> Table:
    return Table(pa.Table.from_pylist(rows))


def _items(items: list[Any], sources: Path) -> Items:
    return Items(items)


def _item_with_file(items: list[Any], sources: Path) -> Items:
    return Items([{**items[0], "file": _file(items[0]["file"], sources)}])


def _handles(value: dict[str, Any], sources: Path) -> dict[str, Any]:
    makers: dict[str, Any] = {"file": _file, "table": _table, "items": _items}
    return {key: makers[key](item, sources) if key in makers else item for key, item in value.items()}


# What a task returns, where that is not the value itself.
_HANDLES: dict[str, Callable[[Any, Path], Any]] = {
    "file": _file,
    "folder": _folder,
    "table": _table,
    "items": _items,
    "items-of-frames": _items,
    "items-with-files": _item_with_file,
    "handles-in-a-dict": _handles,
}

_IN_A_ROW: dict[str, Any] = {
    "made-by-its-constructor": example_values.Guarded("a"),
    "airflow-form": Decimal("1.5"),
}
_RECORDS = [{"id": number, "when": date(2013, 1, 1)} for number in range(20)]
_FILES = {"a.txt": b"one", "b/c.bin": bytes(range(256))}

VALUES: dict[str, Any] = {
    **{
        name: value
        for group in (example_values.TAGGED, example_values.CLASSES, example_values.STORED)
        for name, value in group.items()
        if name not in _LEFT_OUT
    },
    **{f"{name}-{form}": make() for name, make in _FRAMES.items() for form in ("parquet", "arrow")},
    "json": [{"carrier": "UA", "delay": number} for number in range(50)],
    "tagged-json": [(number, datetime(2013, 1, 1, tzinfo=timezone.utc)) for number in range(50)],
    "array-in-an-object": {"matrix": np.eye(2), "pad": ["x"] * 50},
    **_IN_A_ROW,
    "file": b"one",
    "folder": _FILES,
    "table": [{"whole": 1, "text": "a"}, {"whole": 2, "text": None}],
    "items": [*_RECORDS, (1, 2), b"bytes", None],
    "items-of-frames": [_arrow_table(), _arrow_table()],
    "items-with-files": [{"file": b"one", "n": 1}],
    "handles-in-a-dict": {
        "file": b"one",
        "table": [{"whole": 1}],
        "items": [1, (2,)],
        "when": date(2013, 1, 1),
    },
    "legacy-json": {"a": [1, "b"]},
    "state": ["x" * 100, {"cursor": 5}],
}
"""What each row is loaded as, once ``opened``. A later release adds names and never changes a value."""


def opened(value: Any) -> Any:
    """Return a loaded value with the content of handles in their place."""
    if isinstance(value, File) and value.is_folder:
        contents = {}
        for name in value.files():
            with value.open(name) as stream:
                contents[name] = stream.read()
        return contents
    if isinstance(value, File):
        return value.path.read_bytes()
    if isinstance(value, Table):
        return value.to_arrow().to_pylist()
    if type(value) in (list, Items):
        return [opened(item) for item in value]
    return {key: opened(item) for key, item in value.items()} if type(value) is dict else value


class KeptBucket(DirectoryStore):
    """A folder whose files have the names that objects of a bucket have."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder.as_uri())
        self._root = BUCKET


def use_bucket(folder: Path, monkeypatch: pytest.MonkeyPatch, **values: object) -> None:
    """Let the backend find its bucket in a folder, with more settings."""
    permitted = "airflow.* example_values.*"
    monkeypatch.setenv("AIRFLOW__CORE__ALLOWED_DESERIALIZATION_CLASSES", permitted)
    allow_lists.cache_clear()
    for name, value in {"bucket": BUCKET, "legacy_references": True, **values}.items():
        monkeypatch.setenv(f"AIRFLOW__GCS_XCOM__{name.upper()}", str(value))
    settings.load_settings.cache_clear()
    monkeypatch.setattr(bucket, "GCSStore", lambda name, chosen: KeptBucket(folder))
    forget_stores()


def _stored(name: str, folder: Path, sources: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Store a value as its name says; return the row."""
    in_a_row = name in {**example_values.TAGGED, **example_values.CLASSES, **_IN_A_ROW}
    options = {"threshold_bytes": 48 * 1024 if in_a_row else 0}
    use_bucket(folder, monkeypatch, frame_format="arrow" if name.endswith("-arrow") else "parquet", **options)
    if name == "legacy-json":
        path = folder / LEGACY.removeprefix("gcs://")
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(VALUES[name]))
        return LEGACY
    if name == "airflow-form":
        # That of Kubernetes objects, whose package is not needed for this.
        return to_row({"$serde": serde().serialize(VALUES[name])})
    returned = _HANDLES[name](VALUES[name], sources) if name in _HANDLES else VALUES[name]
    row = payloads.store(returned, Coordinates("sales", "manual__1", name, -1, "return_value"))
    if name == "state":
        reference = PayloadReference.from_row(row)
        assert reference is not None
        return StateReference(STATE, reference).to_text()
    return row


def write(release: str) -> None:
    """Write the file of a release.

    Raises:
        FileExistsError: It is there.
    """
    written = {}
    for name in VALUES:
        with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as monkeypatch:
            folder, sources = Path(place, "payloads"), Path(place, "sources")
            folder.mkdir()
            row = _stored(name, folder, sources, monkeypatch)
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            objects = {
                str(path.relative_to(folder)): base64.b64encode(path.read_bytes()).decode() for path in files
            }
            written[name] = {"row": row, "objects": objects}
    # A line for each, so that a difference can be read.
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in written.items())
    with (FOLDER / f"{release}.json").open("x") as file:
        file.write(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    write(sys.argv[1])
