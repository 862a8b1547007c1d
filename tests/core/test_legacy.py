"""Rows of earlier backends: followed where the settings say so, and data everywhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from include.xcom import settings
from include.xcom.errors import (
    PayloadCorruptError,
    PayloadMissingError,
    PayloadTooLargeError,
    UnsupportedTypeError,
)
from include.xcom.legacy import place_of
from include.xcom_backend import GCPBucketXComBackend

OF_2023 = "gcs://manual__2023-05-01/load/0b0c8a3e-24e6-4ad5-9d5b-0f2d1f3b1a11.json"
UUID = "0b0c8a3e-24e6-4ad5-9d5b-0f2d1f3b1a11"


def configure(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    """Set settings for the rest of a test."""
    for name, value in values.items():
        monkeypatch.setenv(f"AIRFLOW__GCS_XCOM__{name.upper()}", value)
    settings.load_settings.cache_clear()


def pull(row: Any) -> Any:
    """Load a row as a task does."""
    return GCPBucketXComBackend.deserialize_value(SimpleNamespace(value=row))


def push(value: Any) -> Any:
    """Store a value as a task does; return its row."""
    ids: dict[str, Any] = {"dag_id": "sales", "run_id": "manual__1", "task_id": "load", "map_index": -1}
    row = GCPBucketXComBackend.serialize_value(value, key="return_value", **ids)
    return json.loads(json.dumps(row))


@pytest.fixture
def object_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Airflow's object storage backend with a directory, which our settings list."""
    backend = pytest.importorskip("airflow.providers.common.io.xcom.backend")
    folder = tmp_path / "of_common_io"
    folder.mkdir()
    monkeypatch.setenv("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH", folder.as_uri())
    monkeypatch.setenv("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD", "10")
    forget = [getattr(backend, name) for name in ("_get_base_path", "_get_compression", "_get_threshold")]
    for cached in forget:
        cached.cache_clear()
    configure(monkeypatch, legacy_references="true", read_uris=f"{folder.as_uri()}/")
    yield folder
    for cached in forget:
        cached.cache_clear()


def push_with_common_io(value: Any) -> Any:
    """Let Airflow's own backend store a value; return its row, a path."""
    from airflow.providers.common.io.xcom.backend import XComObjectStorageBackend

    ids: dict[str, Any] = {"dag_id": "sales", "run_id": "manual__1", "task_id": "load", "map_index": -1}
    return json.loads(json.dumps(XComObjectStorageBackend.serialize_value(value, key="return_value", **ids)))


@pytest.mark.parametrize("compression", ["", "gzip", "bz2", "xz", "zstd"])
def test_row_of_the_object_storage_backend_is_read(
    compression: str, object_storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written by Airflow's own class, also compressed, with what its JSON has beyond plain JSON."""
    monkeypatch.setenv("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_COMPRESSION", compression)
    when = datetime(2026, 11, 1, tzinfo=timezone.utc)
    value = {"rows": list(range(100)), "when": when}

    row = push_with_common_io(value)

    assert row.startswith(object_storage.as_uri())
    assert pull(row) == value


def test_row_of_the_object_storage_backend_is_data_where_nothing_lists_its_place(
    object_storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the setting off, and outside of the places that are listed."""
    row = push_with_common_io(list(range(100)))
    configure(monkeypatch, read_uris="gs://elsewhere/xcom/")
    assert pull(row) == row
    configure(monkeypatch, legacy_references="false", read_uris=f"{object_storage.as_uri()}/")
    assert pull(row) == row


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        pytest.param(lambda file: file.unlink(), PayloadMissingError, "clear the task", id="gone"),
        pytest.param(lambda file: file.write_bytes(b"[1, 2"), PayloadCorruptError, "not JSON", id="cut"),
        pytest.param(
            lambda file: file.write_bytes(
                b'{"__classname__": "acme.Secret", "__version__": 1, "__data__": 1}'
            ),
            UnsupportedTypeError,
            "acme.Secret",
            id="class-that-is-not-permitted",
        ),
        pytest.param(
            lambda file: file.write_bytes(b"[" + b"1," * 3000 + b"1]"),
            PayloadTooLargeError,
            "5000",
            id="large",
        ),
    ],
)
def test_object_of_the_object_storage_backend_that_cannot_be_read_is_an_error(
    change: Any, error: type[Exception], words: str, object_storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never the path, as Airflow's own backend gives it."""
    row = push_with_common_io(list(range(100)))
    configure(monkeypatch, max_payload_bytes="5000")
    change(Path(row.removeprefix("file://")))

    with pytest.raises(error, match=words):
        pull(row)


def test_compressed_object_of_the_object_storage_backend_is_expanded_within_limits(
    object_storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it expands to counts, a damaged one is an error, and so is a compression that nobody has here."""
    monkeypatch.setenv("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_COMPRESSION", "gzip")
    row = push_with_common_io([0] * 20_000)
    file = Path(row.removeprefix("file://"))
    configure(monkeypatch, max_payload_bytes="50000")
    with pytest.raises(PayloadTooLargeError, match="expands to more than 50000"):
        pull(row)
    file.write_bytes(file.read_bytes()[:-9])
    configure(monkeypatch, max_payload_bytes="500000")
    with pytest.raises(PayloadCorruptError, match="cannot be expanded"):
        pull(row)
    file.rename(file.with_suffix(".snappy"))
    with pytest.raises(UnsupportedTypeError, match=r"compressed as \.snappy"):
        pull(f"{row.removesuffix('.gz')}.snappy")


def test_strings_that_look_like_rows_of_earlier_backends_stay_data(
    object_storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that returns such a path gets it back, also while the setting is on."""
    path = push_with_common_io(list(range(100)))
    for value in (path, OF_2023, f"gs://acme/{UUID}", "gs://acme/x/y/z.json", "see gcs://a/b/c.json"):
        assert pull(push(value)) == value


def test_legacy_reference_is_read_when_switched_on(
    payload_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the backend of 2023 wrote it: uncompressed JSON at the bucket's root."""
    file = payload_folder / OF_2023.removeprefix("gcs://")
    file.parent.mkdir(parents=True)
    file.write_text('{"a": [1, NaN]}')
    assert pull(OF_2023) == OF_2023

    configure(monkeypatch, legacy_references="on")

    assert str(pull(OF_2023)) == "{'a': [1, nan]}"
    file.unlink()
    with pytest.raises(PayloadMissingError, match=r"gone: clear .* switch .* legacy_references off"):
        pull(OF_2023)
    for text in ("gcs://other", "gcs://a/b/c.json", f"x{OF_2023}", OF_2023.replace("load", "..")):
        assert pull(text) == text


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("gs://acme/xcom", "gs://acme/xcom/"),
        ("gs://google_cloud_default@acme/xcom/", "gs://acme/xcom/"),
        ("gcs://acme", "gs://acme/"),
        ("file:///var/xcom", "file:///var/xcom/"),
    ],
)
def test_place_of_the_object_storage_backend_as_it_is_listed(path: str, place: str) -> None:
    """The doctor prints it for read_uris."""
    assert place_of(path) == place
