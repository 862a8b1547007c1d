"""The XCom backend works with the packages that are installed here. Run after every update.

The whole test suite of the backend is in the repository of its template.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time.xcom import resolve_xcom_backend

from include.xcom.errors import ReferenceNotAllowedError
from include.xcom.settings import load_settings
from include.xcom_backend import GCPBucketXComBackend

FRAME_LIBRARIES = [name for name in ("pandas", "polars") if find_spec(name)]


@pytest.fixture(autouse=True)
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Use a folder as the bucket."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    monkeypatch.setenv("AIRFLOW__GCS_XCOM__BUCKET", folder.as_uri())
    load_settings.cache_clear()
    yield folder
    load_settings.cache_clear()


def push(value: object) -> Any:
    """Store what a task returns; give the row that the database keeps."""
    row = GCPBucketXComBackend.serialize_value(
        value, key="return_value", dag_id="sales", run_id="manual", task_id="load", map_index=-1
    )
    return json.loads(json.dumps(row))


def pull(row: object) -> Any:
    """Give what the next task receives."""
    return GCPBucketXComBackend.deserialize_value(SimpleNamespace(value=row))


def test_airflow_loads_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name in the Dockerfile is the name of a backend that this Airflow accepts."""
    monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", "include.xcom_backend.GCPBucketXComBackend")

    assert resolve_xcom_backend() is GCPBucketXComBackend


@pytest.mark.parametrize("library", FRAME_LIBRARIES)
def test_frame_is_stored_and_loaded(library: str, bucket: Path) -> None:
    """A DataFrame becomes one Parquet file and comes back equal."""
    frame = import_module(library).DataFrame({"city": ["Bogotá", None], "degrees": [14.5, -0.0]})

    loaded = pull(push(frame))

    assert [path.suffix for path in bucket.rglob("*.*")] == [".parquet"]
    assert type(loaded) is type(frame)
    assert loaded.equals(frame)


def test_forged_reference_is_refused(tmp_path: Path) -> None:
    """A row cannot make a task read a file outside its bucket."""
    row = push(b"payload")
    row["__data__"]["uri"] = (tmp_path / "secret.txt").as_uri()

    with pytest.raises(ReferenceNotAllowedError, match=r"secret\.txt"):
        pull(row)
