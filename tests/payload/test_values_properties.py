"""For any value: it comes back the same on both sides of the threshold, or is refused on both."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import example_values
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "{{cookiecutter.project_slug}}"), str(Path(__file__).parent)]

from include.xcom import codecs  # noqa: E402
from include.xcom.codecs.base import Encoded  # noqa: E402
from include.xcom.codecs.classes import allow_lists  # noqa: E402
from include.xcom.codecs.compression import compress  # noqa: E402
from include.xcom.codecs.equality import identical  # noqa: E402
from include.xcom.codecs.inline import Inline  # noqa: E402
from include.xcom.codecs.plain_json import json_parts  # noqa: E402
from include.xcom.errors import PayloadCorruptError, PayloadTooLargeError, UnsupportedTypeError  # noqa: E402
from include.xcom.settings import Settings  # noqa: E402
from other_process import OtherProcess, described, plain  # noqa: E402
from strategies import PLAIN, VALUES  # noqa: E402

STORED = Settings(bucket="file:///unused", threshold_bytes=0)
INLINE = Settings(bucket="file:///unused")


def back(encoded: Inline | Encoded) -> Any:
    """Return what a reader gets."""
    if isinstance(encoded, Inline):
        row = json.loads(json.dumps(encoded.row))
        tagged = codecs.decode_row(row)
        return row if tagged is None else tagged[0]
    payload = memoryview(bytearray(b"".join(encoded.parts)))
    return codecs.decode(payload, encoded.codec, encoded.version, encoded.type, 2**30)


def outcome(value: Any, chosen: Settings) -> str:
    """Say whether a value comes back the same, changed, or is refused."""
    try:
        encoded = codecs.encode(value, chosen)
    except UnsupportedTypeError as error:
        return f"refused at {error.path or 'value'}"
    return "same" if identical(value, back(encoded)) else "changed"


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(VALUES)
@example({"a": (1.0, -0.0)})
@example([{"$part": ["0.bin", "bytes", 1, "bytes"]}])
def test_any_value_comes_back_the_same_at_any_size(value: Any) -> None:
    """These types are all supported: none is refused, none is changed."""
    assert outcome(value, STORED) == "same"
    assert outcome(value, INLINE) == "same"


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[OtherProcess]:
    """A process elsewhere; this one is in New York meanwhile."""
    there = OtherProcess("airflow.* example_values.*")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        patch.setenv("AIRFLOW__CORE__ALLOWED_DESERIALIZATION_CLASSES", "airflow.* example_values.*")
        time.tzset()
        allow_lists.cache_clear()
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(4000)
        yield there
        sys.setrecursionlimit(limit)
    time.tzset()
    allow_lists.cache_clear()
    there.close()


def check_elsewhere(value: Any, elsewhere: OtherProcess) -> None:
    for chosen in (STORED, INLINE):
        encoded = plain(codecs.encode(value, chosen))

        read, written = elsewhere.reads(encoded)

        assert read == described(value)
        assert written == encoded


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=VALUES)
@example(value=[datetime(2026, 7, 1, 6, 30), {datetime(2026, 11, 1, 1, 30, fold=1)}])
def test_any_value_is_read_and_written_alike_elsewhere(value: Any, elsewhere: OtherProcess) -> None:
    """In a process of another time zone, locale, hash seed, and working directory."""
    check_elsewhere(value, elsewhere)


@pytest.mark.parametrize("value", example_values.ALL.values(), ids=example_values.ALL.keys())
def test_example_is_read_and_written_alike_elsewhere(value: Any, elsewhere: OtherProcess) -> None:
    """Instances of classes too."""
    check_elsewhere(value, elsewhere)


@settings(max_examples=600, deadline=None)
@given(PLAIN)
def test_fast_type_check_agrees_with_a_slow_one(value: Any) -> None:
    """``json_parts`` takes exactly what the standard library's JSON brings back unchanged."""

    def is_plain(item: Any) -> bool:
        if type(item) is dict:
            return all(type(key) is str and is_text(key) and is_plain(inner) for key, inner in item.items())
        if type(item) is list:
            return all(is_plain(inner) for inner in item)
        if type(item) is float:
            return item - item == 0
        if type(item) is int:
            return -(2**63) <= item < 2**64
        return item is None or type(item) is bool or (type(item) is str and is_text(item))

    def is_text(text: str) -> bool:
        return not any("\ud800" <= character <= "\udfff" for character in text)

    parts = json_parts(value)

    assert (parts is not None) == is_plain(value)
    if parts is not None:
        assert identical(json.loads(b"".join(parts)), value)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(PLAIN, min_size=1, max_size=9))
def test_long_lists_agree_with_short_ones(items: list[Any]) -> None:
    """They are checked, written and read in pieces: the first 64 items, and what follows."""
    value = [0] * 62 + items

    parts = json_parts(value)

    assert (parts is None) == any(json_parts(item) is None for item in value)
    if parts is not None:
        assert identical(json.loads(b"".join(parts)), value)
        payload = memoryview(b"".join(compress(parts)))
        assert identical(codecs.decode(payload, "json", 1, "list", 10**9), value)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PLAIN.filter(lambda value: json_parts(value) is not None), st.sampled_from([None, 0, 1]))
def test_json_of_any_writer_is_read(value: Any, indent: int | None) -> None:
    """Line ends after commas mean nothing to JSON, wherever they stand."""
    for text in (json.dumps(value, indent=indent), json.dumps(value, separators=(",\n", ":"))):
        payload = memoryview(b"".join(compress([text.encode()])))
        assert identical(codecs.decode(payload, "json", 1, "any", 10**9), value)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(VALUES)
def test_encoding_is_deterministic_and_sizes_are_told(value: Any) -> None:
    """The same bytes twice, and the size that is written is the size that is said."""
    first, second = codecs.encode(value, STORED), codecs.encode(value, STORED)

    assert isinstance(first, Encoded)
    assert isinstance(second, Encoded)
    assert b"".join(first.parts) == b"".join(second.parts)
    assert first.size == len(b"".join(first.parts))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(VALUES)
def test_cut_payload_is_an_error_of_ours_at_any_byte(value: Any) -> None:
    """Even where the store's checksum would not catch it first."""
    encoded = codecs.encode(value, STORED)
    assert isinstance(encoded, Encoded)
    assume(encoded.codec != "bytes")  # They have no form that a cut could break: the checksum finds it.
    whole = b"".join(encoded.parts)
    for end in {0, 1, len(whole) // 2, len(whole) - 1}:
        with pytest.raises((PayloadCorruptError, PayloadTooLargeError)):
            codecs.decode(memoryview(bytearray(whole[:end])), encoded.codec, 1, encoded.type, 2**30)
