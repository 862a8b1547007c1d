"""References: what the database keeps, what a malformed one does, and how objects are named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from include.xcom import payloads
from include.xcom.errors import PayloadError, ReferenceNotAllowedError
from include.xcom.reference import (
    CLASSNAME,
    Coordinates,
    PayloadReference,
    coordinates_of,
    object_name,
    segment,
)

REFERENCE = PayloadReference(
    uri="gs://acme-xcom/xcom/sales/manual__1/load/-1/return_value/0.parquet",
    type="pandas.DataFrame",
    bytes=100,
    raw_bytes=1000,
    codec="pandas",
    codec_version=1,
    crc32c="0123abcd",
    generation="1763619164512345",
    summary={"rows": 336776, "columns": 19, "schema": "0a1b2c3d", "seconds": 1.204},
)


def test_row_comes_back_from_the_database() -> None:
    """Whatever the order of keys in it."""
    row = json.loads(json.dumps(REFERENCE.to_row(), sort_keys=True))

    assert PayloadReference.from_row(row) == REFERENCE


def test_row_is_short_and_readable_in_the_ui() -> None:
    """Airflow prints class, version and fields; the URI and the counts are among them."""
    from include.xcom.codecs.classes import serde

    shown = serde().deserialize(REFERENCE.to_row(), full=False)

    assert shown.startswith("gcs_xcom.Payload@version=1(")
    assert REFERENCE.uri in shown
    assert "rows=336776" in shown
    assert len(json.dumps(REFERENCE.to_row())) < 600


@pytest.mark.parametrize(
    "row",
    [None, 1, "gs://a/b", [], {}, {"uri": "gs://a/b"}, {"__classname__": "x"}, [REFERENCE.to_row()]],
    ids=repr,
)
def test_row_that_is_no_reference_is_a_value(row: Any) -> None:
    """A string that looks like a URI is a string."""
    assert PayloadReference.from_row(row) is None


def broken(**changes: Any) -> dict[str, Any]:
    """Return a reference's row with some of its data changed."""
    row = REFERENCE.to_row()
    row["__data__"].update(changes)
    return row


@pytest.mark.parametrize(
    ("row", "said"),
    [
        pytest.param({"__classname__": CLASSNAME}, "version, fields, uri", id="bare"),
        pytest.param({**REFERENCE.to_row(), "__version__": "1"}, "malformed (version)", id="version-text"),
        pytest.param({**REFERENCE.to_row(), "__version__": True}, "malformed (version)", id="version-true"),
        pytest.param({**REFERENCE.to_row(), "__version__": 0}, "malformed (version)", id="version-0"),
        pytest.param({**REFERENCE.to_row(), "__version__": 2}, "this code reads up to", id="newer"),
        pytest.param({**REFERENCE.to_row(), "extra": 1}, "malformed (fields", id="extra-key"),
        pytest.param({**REFERENCE.to_row(), "__data__": "x"}, "malformed (fields", id="data-text"),
        pytest.param(broken(uri=1), "malformed (uri)", id="uri-number"),
        pytest.param(broken(bytes=-1), "malformed (bytes)", id="negative"),
        pytest.param(broken(bytes=1.0), "malformed (bytes)", id="float"),
        pytest.param(broken(bytes=True), "malformed (bytes)", id="bool"),
        pytest.param(broken(crc32c="0123ABCD"), "malformed (crc32c)", id="crc-upper"),
        pytest.param(broken(crc32c="abc"), "malformed (crc32c)", id="crc-short"),
        pytest.param(broken(generation="1&alt=json"), "malformed (generation)", id="generation-query"),
        pytest.param(broken(generation="٣"), "malformed (generation)", id="generation-digits"),
    ],
)
def test_malformed_reference_is_refused(row: Any, said: str) -> None:
    """It is an error, never a value and never followed."""
    with pytest.raises(ReferenceNotAllowedError, match=re.escape(said)):
        PayloadReference.from_row(row)


@pytest.mark.parametrize("field", ["uri", "type", "codec", "crc32c", "generation"])
def test_error_does_not_repeat_a_field_of_the_row_in_full(field: str, payload_folder: Path) -> None:
    """A row may be written by anyone who may push XComs."""
    long = "7" * 100_000
    reference = REFERENCE._replace(uri=f"{payload_folder.as_uri()}/xcom/a/b/c/1/d/e.bin")
    data = reference.to_row()["__data__"]
    for text in (long, f"{data['uri']}{long}", f"{data['uri']}/{long}/{long}/0/{long}/x"):
        row = reference.to_row()
        row["__data__"][field] = text

        with pytest.raises(PayloadError) as caught:
            payloads.load(row)

        error: BaseException | None = caught.value
        while error is not None:
            assert long[:201] not in str(error)
            error = error.__cause__


TEXTS = st.text(st.characters(), max_size=300)


@given(st.lists(TEXTS, min_size=4, max_size=4), st.integers(-1, 10**6))
@example(["..", ".", "", "/"], -1)
@example(["a" * 999, "é" * 999, "%" * 999, "\ud800"], 0)
def test_object_name_is_legal_and_tells_its_coordinates(ids: list[str], map_index: int) -> None:
    """At most 1024 bytes of ASCII, no empty or dot segment, and readable back unless cut."""
    coordinates = Coordinates(ids[0], ids[1], ids[2], map_index, ids[3])

    name = object_name("prod/xcom", coordinates, "0" * 32, "json.zst")

    assert name.isascii()
    assert len(name) <= 1024
    assert len(name.split("/")) == 8
    assert not {"", ".", ".."} & set(name.split("/"))
    if all(len(part.encode("utf-8", "surrogatepass")) <= 60 for part in ids):
        assert coordinates_of(f"gs://acme/{name}") == coordinates


def test_coordinates_of_a_name_that_is_cut_within_a_character_are_read() -> None:
    """Messages about such a payload name its XCom, as far as the name has it."""
    uri = "gs://acme-xcom/" + object_name(
        "xcom", Coordinates("ä" * 250, "run", "load", -1, "key"), "1", "bin"
    )

    where = coordinates_of(uri)

    assert where is not None
    assert where.dag_id.startswith("ä" * 20)
    assert (where.run_id, where.task_id, where.map_index, where.key) == ("run", "load", -1, "key")


@given(TEXTS, TEXTS)
@example("a/b", "a_b")
@example("a%2Fb", "a/b")
@example("", "\0")
@example("x" * 201, "x" * 202)
def test_two_xcoms_never_share_a_folder(one: str, other: str) -> None:
    """Escaping is reversible, and what is cut carries a hash."""
    if one != other:
        assert segment(one) != segment(other)
