"""The class that Airflow loads: rows, references, trust, limits, purge, parallel reading."""

from __future__ import annotations

import json
import logging
import pickle
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from include.xcom import load_all, payloads
from include.xcom.errors import (
    PayloadError,
    PayloadMissingError,
    PayloadTooLargeError,
    ReferenceNotAllowedError,
    SettingsError,
    StoreUnavailableError,
    UnsupportedTypeError,
)
from include.xcom.reference import PayloadReference
from include.xcom.settings import load_settings
from include.xcom.stores import DirectoryStore
from include.xcom_backend import GCPBucketXComBackend as Backend

Result = namedtuple("Result", "value")

RECORDS = [{"carrier": "UA", "delay": n} for n in range(5000)]


def push(value: Any, key: str = "return_value", map_index: int = -1) -> Any:
    """Return the row that a task's value gets."""
    return Backend.serialize_value(
        value, key=key, task_id="load", dag_id="sales", run_id="manual__1", map_index=map_index
    )


def pull(row: Any) -> Any:
    """Return what a task gets for a row."""
    return Backend.deserialize_value(Result(json.loads(json.dumps(row))))


def configure(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    """Set ``AIRFLOW__GCS_XCOM__*``."""
    for name, value in values.items():
        monkeypatch.setenv(f"AIRFLOW__GCS_XCOM__{name.upper()}", value)
    load_settings.cache_clear()


def files(folder: Path) -> list[str]:
    """Return the names of all files below a folder."""
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def test_importing_the_backend_loads_only_airflow_and_the_standard_library() -> None:
    """An unimportable backend stops every component, and what it imports each task pays for."""
    code = (
        "import sys, airflow.sdk.bases.xcom, airflow.sdk\n"
        "airflow.sdk.DAG\n"
        "before = set(sys.modules)\n"
        "import include.xcom_backend\n"
        "added = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(added - set(sys.stdlib_module_names) - {'include', 'airflow'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout.splitlines()[-1] == "[]"


def test_large_value_is_one_object_and_a_short_row(payload_folder: Path) -> None:
    """The row says where it lies, what it is and how large; nothing else of the value is in it."""
    row = push(RECORDS)

    (name,) = files(payload_folder)
    assert name.startswith("xcom/sales/manual__1/load/-1/return_value/")
    assert name.endswith(".json.zst")
    reference = PayloadReference.from_row(row)
    assert reference is not None
    assert reference.uri == (payload_folder / name).as_uri()
    assert reference.bytes == (payload_folder / name).stat().st_size
    assert (reference.type, reference.codec, reference.facts) == ("list", "json", {"items": 5000})
    assert "carrier" not in json.dumps(row)
    assert pull(row) == RECORDS


def test_row_says_how_long_the_upload_took(monkeypatch: pytest.MonkeyPatch) -> None:
    """In seconds, to the millisecond."""
    put = DirectoryStore.put

    def slow(self: DirectoryStore, *given: Any, **options: Any) -> Any:
        time.sleep(0.05)
        return put(self, *given, **options)

    monkeypatch.setattr(DirectoryStore, "put", slow)
    row = push(RECORDS)

    assert 0.05 <= row["__data__"]["seconds"] < 5
    assert len(repr(row["__data__"]["seconds"])) <= 5


def test_row_without_seconds_is_read() -> None:
    """Rows that were written before they were kept."""
    row = push(RECORDS)
    del row["__data__"]["seconds"]

    assert pull(row) == RECORDS


def test_mapped_tasks_and_keys_have_folders_of_their_own(payload_folder: Path) -> None:
    """The map index and the key are in the name, encoded."""
    push(b"a", key="a/b", map_index=7)

    assert files(payload_folder)[0].startswith("xcom/sales/manual__1/load/7/a%2Fb/")


def test_pushing_twice_never_overwrites(payload_folder: Path) -> None:
    """A reader that holds the first row still gets the first value."""
    first, second = push(b"first"), push(b"second")

    assert pull(first) == b"first"
    assert pull(second) == b"second"
    assert len(files(payload_folder)) == 2


def test_what_the_scheduler_reads_in_the_database_stays_there(
    payload_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Branching works at any threshold."""
    configure(monkeypatch, threshold_bytes="0")

    row = push({"skipped": ["a"] * 10_000}, key="skipmixin_key")

    assert row == {"skipped": ["a"] * 10_000}
    assert files(payload_folder) == []


def test_value_that_looks_like_a_reference_is_data() -> None:
    """It comes back as the dict that it was, and is never followed."""
    forged = push(b"secret")

    row = push(forged)

    assert row != forged
    assert pull(row) == forged


def test_string_that_looks_like_a_uri_is_a_string(payload_folder: Path) -> None:
    """Also when such an object exists."""
    uri = PayloadReference.from_row(push(b"secret")).uri  # type: ignore[union-attr]

    for text in (uri, "gs://acme-xcom/x.json", "gcs://run/task/0b0c8a3e-24e6-4ad5-9d5b-0f2d1f3b1a11.json"):
        assert pull(push(text)) == text


@pytest.mark.parametrize(
    "uri",
    [
        "gs://other-bucket/xcom/a.bin",
        "file:///etc/passwd",
        "{root}/../secret.bin",
        "{root}/xcom/../../secret.bin",
        "{root}/other/secret.bin",
        "{root}xcom/secret.bin",
    ],
)
def test_reference_to_elsewhere_is_refused_and_nothing_is_read_or_deleted(
    uri: str, payload_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A row that somebody forged reaches nothing outside the prefix."""
    secret = payload_folder.parent / "secret.bin"
    secret.write_bytes(b"abc")
    row = push(b"abc")
    row["__data__"]["uri"] = uri.format(root=payload_folder.as_uri())

    with pytest.raises(ReferenceNotAllowedError, match=r"outside of what this .* may read.*read_uris"):
        pull(row)
    with caplog.at_level(logging.WARNING):
        Backend.purge(Result(row))
    assert secret.read_bytes() == b"abc"
    assert "Could not delete the payload" in caplog.text


def test_read_uris_open_another_place_for_reading(
    tmp_path: Path, payload_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a move, old rows stay readable, and new payloads go to the new place only."""
    old_row = push(RECORDS)
    new = tmp_path / "new"
    new.mkdir()
    configure(monkeypatch, bucket=new.as_uri())
    with pytest.raises(ReferenceNotAllowedError):
        pull(old_row)

    configure(monkeypatch, read_uris=f"{payload_folder.as_uri()}/xcom/")

    assert pull(old_row) == RECORDS
    push(b"x")
    assert len(files(new)) == 1


def test_missing_object_names_who_wrote_it_and_what_to_do(payload_folder: Path) -> None:
    """It is an error, never a path or None."""
    row = push(RECORDS)
    (payload_folder / files(payload_folder)[0]).unlink()

    with pytest.raises(
        PayloadMissingError, match=r"gone. Clear the task that wrote it.*no such file"
    ) as caught:
        pull(row)

    text = str(caught.value)
    assert 'written as XCom "return_value" of sales.load (run manual__1, map_index -1)' in text
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.uri) == (text, caught.value.uri)


def test_payload_whose_library_is_not_installed_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker with other requirements than the one that wrote it."""
    row = push(np.arange(3))
    monkeypatch.setitem(sys.modules, "numpy", None)

    with pytest.raises(UnsupportedTypeError, match=r"needs the package numpy: add it to requirements\.txt"):
        pull(row)


def test_payload_over_the_limit_is_not_uploaded(
    payload_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has both numbers and the setting's name; the limit holds for what it expands to."""
    configure(monkeypatch, max_payload_bytes="100000")

    with pytest.raises(
        PayloadTooLargeError,
        match=r"^148891 bytes are more than .*max_payload_bytes, 100000: return it as a Table",
    ):
        push(RECORDS)
    with pytest.raises(PayloadTooLargeError):
        push(bytes(100_001))
    assert files(payload_folder) == []


def test_payload_over_the_limit_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it was written under another limit, and when only its content is over it."""
    rows = [push(bytes(100_001)), push(RECORDS), push({"a": np.zeros(20_000)})]
    configure(monkeypatch, max_payload_bytes="100000")

    for row in rows:
        with pytest.raises(PayloadTooLargeError, match=r"XCom payload is too large. Raise \[gcs_xcom\]"):
            pull(row)


def test_payload_that_expands_over_the_limit_is_not_even_asked_for(
    payload_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the reference: not every library tells the size of compressed text before it decodes it."""
    polars = pytest.importorskip("polars")
    row = push(polars.DataFrame({"a": ["x" * 1000] * 1000}))
    (name,) = files(payload_folder)
    (payload_folder / name).unlink()
    configure(monkeypatch, max_payload_bytes="100000")

    with pytest.raises(PayloadTooLargeError, match=r"expands to 1\d{6}, and the limit is 100000") as caught:
        pull(row)
    assert (caught.value.limit, row["__data__"]["bytes"] < 100_000) == (100_000, True)


def test_missing_directory_says_how_to_make_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket that is not there is an error and not a surprise."""
    configure(monkeypatch, bucket=(tmp_path / "lost").as_uri())

    with pytest.raises(StoreUnavailableError, match=r"does not exist on this machine.*mkdir -p .*/lost"):
        push(RECORDS)


def test_wrong_setting_fails_small_and_large_values_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only the first one that happens to be over the threshold."""
    configure(monkeypatch, frame_format="csv")

    for value in (1, RECORDS):
        with pytest.raises(SettingsError, match="frame_format is 'csv'"):
            push(value)


def test_unsupported_value_names_dag_task_key_and_place() -> None:
    """And leaves the store as it was."""
    with pytest.raises(
        UnsupportedTypeError, match=r'at value\[0\]: .* XCom "model" of sales\.load'
    ) as caught:
        push([object()], key="model")

    assert caught.value.path == "value[0]"
    assert caught.value.type == "builtins.object"


def test_purge_removes_the_object_and_its_empty_folders(payload_folder: Path) -> None:
    """Twice is fine; the other try's object stays."""
    first, second = push(b"first"), push(b"second")

    Backend.purge(Result(first))
    Backend.purge(Result(first))

    with pytest.raises(PayloadMissingError):
        pull(first)
    assert pull(second) == b"second"
    Backend.purge(Result(second))
    assert list(payload_folder.iterdir()) == []


@pytest.mark.parametrize("row", [None, 1, "gs://a/b", {"a": 1}, {"__classname__": "x"}], ids=repr)
def test_purge_leaves_inline_values_alone(row: Any) -> None:
    """Nothing is asked of the store."""
    Backend.purge(Result(row))


def test_purge_never_fails_a_task(payload_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A store that refuses is a warning in the log, and so is a malformed row."""
    row = push(b"x")
    file = payload_folder / files(payload_folder)[0]
    file.unlink()
    (file / "in the way").mkdir(parents=True)

    with caplog.at_level(logging.WARNING):
        Backend.purge(Result(row))
        Backend.purge(Result({**row, "__data__": {}}))

    assert caplog.text.count("Could not delete the payload") == 2


def test_many_values_come_back_in_order_and_the_first_error_has_its_index(payload_folder: Path) -> None:
    """Inline and stored ones mixed; None among them."""
    values = [b"%d" % n if n % 3 else n for n in range(30)] + [None]
    rows = [push(value, map_index=n) for n, value in enumerate(values)]

    assert payloads.load_many(rows) == values
    for index in (4, 20):
        (payload_folder / rows[index]["__data__"]["uri"].removeprefix(f"{payload_folder.as_uri()}/")).unlink()
    with pytest.raises(PayloadMissingError, match="map_index 4") as caught:
        payloads.load_many(rows)
    assert caught.value.index == 4


def test_load_all_takes_plain_lists_too() -> None:
    """So that a task's function can be called in a test."""
    assert load_all([1, 2]) == [1, 2]
    assert load_all(value for value in (1, 2)) == [1, 2]


def test_errors_are_of_one_family_with_facts_as_attributes() -> None:
    """Code need not parse text; a fact that is not known is None, and one of another class is an error."""
    error = UnsupportedTypeError("words", uri="gs://a/b")

    assert (str(error), error.uri, error.path, error.type) == ("words", "gs://a/b", "", None)
    assert isinstance(error, PayloadError)
    with pytest.raises(AttributeError):
        _ = PayloadMissingError("words").path  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="PayloadMissingError has no fact 'path'"):
        PayloadMissingError("words", path=".a")
