"""What comes back from an XCom is what went in, or is refused when it is stored."""

from __future__ import annotations

import array
import io
import json
import os
import sqlite3
import subprocess
import sys
import traceback
from collections import ChainMap, namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import example_values as values
import numpy as np
import pandas as pd
import pyarrow as pa
import pydantic
import pytest
from airflow.sdk.bases.xcom import BaseXCom
from include.xcom import codecs, payloads, settings
from include.xcom.codecs.classes import allow_lists
from include.xcom.codecs.compression import compress
from include.xcom.codecs.equality import identical
from include.xcom.codecs.inline import Inline, survives_database
from include.xcom.errors import PayloadCorruptError, PayloadTooLargeError, UnsupportedTypeError
from include.xcom.reference import Coordinates, PayloadReference

HERE = Coordinates("sales", "manual__1", "load", -1, "return_value")


Row = namedtuple("Row", "value")


@pytest.fixture(autouse=True)
def _permitted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    permit("airflow.* example_values.*", monkeypatch)
    yield
    allow_lists.cache_clear()


def permit(globs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set Airflow's list of classes that may be read."""
    monkeypatch.setenv("AIRFLOW__CORE__ALLOWED_DESERIALIZATION_CLASSES", globs)
    allow_lists.cache_clear()


def through_database(row: Any) -> Any:
    """Return a row as the database gives it back."""
    return json.loads(json.dumps(row))


@pytest.mark.parametrize("threshold_bytes", [0, 48 * 1024], ids=["above", "below"])
@pytest.mark.parametrize("value", values.ALL.values(), ids=values.ALL.keys())
def test_value_comes_back_equal_and_of_equal_type(
    value: Any, threshold_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On both sides of the threshold, at every depth."""
    monkeypatch.setenv("AIRFLOW__GCS_XCOM__THRESHOLD_BYTES", str(threshold_bytes))

    back = payloads.load(through_database(payloads.store(value, HERE)))

    assert identical(value, back)


@pytest.mark.parametrize("value", values.PLAIN.values(), ids=values.PLAIN.keys())
def test_small_plain_value_stays_as_airflow_writes_it(value: Any, payload_folder: Path) -> None:
    """Nothing is stored, and the row is what it would be without the backend."""
    row = payloads.store(value, HERE)

    assert row == BaseXCom.serialize_value(value)
    assert list(payload_folder.rglob("*.*")) == []


@pytest.mark.parametrize("value", values.TAGGED.values(), ids=values.TAGGED.keys())
def test_small_value_that_json_lacks_stays_in_the_row(value: Any, payload_folder: Path) -> None:
    """In a form of our own, that a reader without the backend refuses."""
    row = through_database(payloads.store(value, HERE))

    assert (row["__classname__"], row["__version__"]) == ("gcs_xcom.Value", 1)
    assert survives_database(row["__data__"])
    assert list(payload_folder.rglob("*.*")) == []
    with pytest.raises(ImportError, match=r"gcs_xcom.Value was not found in allow list"):
        BaseXCom.deserialize_value(Row(row))


@pytest.mark.parametrize("value", values.STORED.values(), ids=values.STORED.keys())
def test_value_that_the_database_would_change_is_stored_at_any_size(value: Any) -> None:
    """The row is a reference."""
    row = payloads.store(value, HERE)

    assert PayloadReference.from_row(row) is not None


@pytest.mark.parametrize("value", values.ALL.values(), ids=values.ALL.keys())
def test_encoding_twice_gives_the_same_bytes(value: Any) -> None:
    """A retry writes what the first try wrote."""
    chosen = settings.Settings(bucket="file:///unused", threshold_bytes=0)
    first, second = codecs.encode(value, chosen), codecs.encode(value, chosen)

    assert not isinstance(first, Inline)
    assert not isinstance(second, Inline)
    assert [bytes(part) for part in first.parts] == [bytes(part) for part in second.parts]


def test_sets_are_written_alike_in_every_process() -> None:
    """The order of a set's members follows the process's hash seed; the payload must not."""
    code = (
        "from include.xcom import codecs, settings\n"
        "made = codecs.encode({'a', 'b', 'c', 'd'}, settings.Settings('file:///x', threshold_bytes=0))\n"
        "print(b''.join(bytes(part) for part in made.parts).hex())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.splitlines()[-1]
        for seed in ("1", "2")
    }

    assert len(outputs) == 1


@pytest.mark.parametrize("threshold_bytes", [0, 48 * 1024], ids=["above", "below"])
@pytest.mark.parametrize("case", values.INEXACT.values(), ids=values.INEXACT.keys())
def test_part_without_an_exact_form_comes_back_as_from_airflow_with_one_warning(
    case: values.Inexact,
    threshold_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The rest stays exact; the log names the XCom, the place and both types, the reference how many."""
    monkeypatch.setenv("AIRFLOW__GCS_XCOM__THRESHOLD_BYTES", str(threshold_bytes))

    row = through_database(payloads.store(case.value, HERE))

    assert values.same(case.expected, payloads.load(row))
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith(
        'XCom "return_value" of sales.load (run manual__1, map_index -1) comes back inexact'
    )
    assert f": {case.before}" in warning
    assert f" as {case.after}." in warning
    reference = PayloadReference.from_row(row)
    assert (reference is None) == (threshold_bytes > 0)
    assert reference is None or reference.summary["inexact"] == case.places


def test_array_keeps_the_type_of_numbers_and_says_that_it_is_no_longer_aligned(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The ``.npy`` format has a name for ``longlong`` and none for alignment; ``==`` sees neither."""
    structure = np.zeros(2, np.dtype([("a", "i1"), ("b", "f8")], align=True))

    numbers = payloads.load(through_database(payloads.store(np.arange(3, dtype=np.longlong), HERE)))
    assert numbers.dtype.char == "q"
    assert "inexact" not in caplog.text

    payloads.store(structure, HERE)
    assert "comes back inexact: value.dtype: dtype([('a', 'i1'), ('b', '<f8')], align=True) as" in caplog.text


@pytest.mark.parametrize("value", [case.value for case in values.INEXACT.values()], ids=values.INEXACT.keys())
def test_part_without_an_exact_form_is_refused_where_the_deployment_wants_that(
    value: Any, payload_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says where, what it would become, and which setting allows that."""
    monkeypatch.setenv("AIRFLOW__GCS_XCOM__INEXACT", "refuse")

    with pytest.raises(
        UnsupportedTypeError,
        match=r"^Cannot store .*: it would come back as .*\[gcs_xcom\] inexact = warn.*Nothing",
    ):
        payloads.store(value, HERE)

    assert list(payload_folder.iterdir()) == []


def test_warning_of_many_parts_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """It gives the first place of each kind, and how many more there are."""
    value = {"rows": [values.Flown("UA", n) for n in range(300)], "name": values.Text("x")}

    payloads.store(value, HERE)

    assert (
        "value['rows'][0] and 299 more: made_on_the_fly.Flown as tuple; value['name']: example_val"
        in caplog.text
    )


def test_keys_that_would_become_one_are_refused() -> None:
    """Never merged, as Airflow's serialiser does."""

    class Key(str):
        __hash__ = object.__hash__

        def __eq__(self, other: object) -> bool:
            return self is other

    pair, members = {Key("a"): 1, Key("a"): 2}, {Key("a"), Key("a")}
    for value in (pair, members, [Key("b"), pair], [Key("b"), members]):
        with pytest.raises(UnsupportedTypeError, match="two of its keys or members would become one"):
            payloads.store(value, HERE)


def test_key_without_a_form_becomes_its_text(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As every key does with Airflow's default backend."""
    permit("airflow.*", monkeypatch)

    row = payloads.store({values.Color.RED: 1}, HERE)

    assert payloads.load(row) == {"Color.RED": 1}
    assert "value[<Color.RED: 'red'>]: example_values.Color as str" in caplog.text


class Local:
    """Cannot be made again by anything."""


def _cycle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


REFUSED: dict[str, tuple[Any, str, str]] = {
    "generator": ((n for n in range(0)), "", "return list"),
    "generator-nested": ({"a": [0, {"b": iter(())}]}, r" at value\['a'\]\[1\]\['b'\]", "no codec has"),
    "object": (object(), "", "no codec has a form"),
    "function": ([len], r" at value\[0\]", "return what it returns when it is called"),
    "class-without-fields": ({"a": (Local(),)}, r" at value\['a'\]\[0\]", "no codec has"),
    "memoryview": (memoryview(b"a"), "", "return bytes"),
    "path": ([Path("/tmp/x")], r" at value\[0\]", "return File\\(path\\)"),
    "secret": ({"a": pydantic.SecretStr("x")}, r" at value\['a'\]", "id of a connection"),
    "cycle": (_cycle(), "", "contains itself"),
    "too-deep": (values.nested(5000, lambda value: [value]), "", "nested too deep"),
    "object-array": (np.array([object()]), r" at value\.dtype", "Python objects"),
    "object-array-nested": (
        [{"a": np.array(["x", None])}],
        r" at value\[0\]\['a'\]\.dtype",
        "Python objects",
    ),
    "masked-array": (np.ma.masked_array([1], [True]), "", r"return \.filled"),
    "exception": (ValueError("x"), "", "raise it"),
    "in-set": ({1, Local()}, r" at value\{\.\.\.\}", "no codec has"),
    "field": (values.Leg(Local(), None), r" at value\.origin", "no codec has"),  # type: ignore[arg-type]
    "path-in-dataclass": (values.Box(Path("/tmp/x")), r" at value\.item", "return File"),
    "local-class": ([values.local_instance()], r" at value\[0\]", "inside a function"),
}


@pytest.mark.parametrize("threshold_bytes", [0, 48 * 1024], ids=["above", "below"])
@pytest.mark.parametrize(("value", "path", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_value_that_cannot_come_back_is_refused_when_stored(
    value: Any,
    path: str,
    reason: str,
    threshold_bytes: int,
    payload_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error names the place within the value, the way out, and the XCom; nothing is left."""
    monkeypatch.setenv("AIRFLOW__GCS_XCOM__THRESHOLD_BYTES", str(threshold_bytes))
    words = rf'^Cannot store \S+{path}: .*{reason}.*Nothing was uploaded. XCom "return_value" of sales\.load'

    with pytest.raises(UnsupportedTypeError, match=words) as caught:
        payloads.store(value, HERE)

    assert isinstance(caught.value, TypeError)
    assert caught.value.__cause__ is None
    assert list(payload_folder.iterdir()) == []


def _figure() -> Any:
    return pytest.importorskip("matplotlib.figure", reason="pip install matplotlib").Figure()


def _estimator() -> Any:
    return pytest.importorskip("sklearn.linear_model", reason="pip install scikit-learn").LinearRegression()


def _lazy_frame() -> Any:
    return pytest.importorskip("polars", reason="pip install polars").DataFrame({"a": [1]}).lazy()


ADVICE: dict[str, tuple[Callable[[], Any], str]] = {
    "group-by": (lambda: pd.DataFrame({"a": [1]}).groupby("a"), "return the aggregated frame"),
    "index": (lambda: pd.Index([1]), r"return \.to_frame\(\) or \.tolist\(\) of it"),
    "unique": (lambda: pd.Series(["a"], dtype="string").unique(), r"\.tolist\(\) of it"),
    "categorical": (lambda: pd.Categorical(["a"]), r"return pandas\.Series\(\.\.\.\) or \.tolist"),
    "lazy-frame": (_lazy_frame, r"return \.collect\(\) of it"),
    "map": (lambda: map(str, [1]), r"return list\(\.\.\.\) of it"),
    "filter": (lambda: filter(None, [1]), r"return list\(\.\.\.\) of it"),
    "zip": (lambda: zip([1], strict=True), r"return list\(\.\.\.\) of it"),
    "file": (lambda: io.FileIO(os.devnull), r"return File\(path\) from include\.xcom, or its contents"),
    "connection": (lambda: sqlite3.connect(":memory:"), "return the rows"),
    "cursor": (lambda: sqlite3.connect(":memory:").cursor(), "return the rows"),
    "figure": (_figure, "savefig"),
    "estimator": (_estimator, r"joblib or skops, and return File\(path\)"),
    "class": (lambda: Path, "return an instance or the name"),
    "array": (lambda: array.array("d", [1]), r"return numpy\.asarray\(\.\.\.\) of it"),
    "chain-map": (lambda: ChainMap({}), r"return dict\(\.\.\.\) of it"),
    "offset": (pd.offsets.MonthEnd, r"return \.freqstr of it"),
    "record": (lambda: np.zeros(1, "i4,f8")[0], r"return \.item\(\) of it"),
    "dtype": (lambda: np.dtype("i4"), r"return str\(\.\.\.\) of it"),
    "arrow-array": (lambda: pa.array([1]), r"return \.to_pylist\(\) of it, or a pyarrow\.table"),
    "arrow-chunks": (lambda: pa.chunked_array([[1]]), r"return \.to_pylist\(\) of it, or a pyarrow\.table"),
    "arrow-scalar": (lambda: pa.scalar(1), r"return \.as_py\(\) of it"),
    "arrow-schema": (lambda: pa.schema([]), r"return \.serialize\(\)\.to_pybytes\(\) of it"),
    "arrow-type": (pa.int8, r"return str\(\.\.\.\) of it"),
}


@pytest.mark.parametrize(("make", "advice"), ADVICE.values(), ids=ADVICE.keys())
def test_value_that_no_backend_can_store_is_answered_with_what_to_return(
    make: Callable[[], Any], advice: str
) -> None:
    """The sentence that a colleague would say, within the part of the message that a list of logs shows."""
    value = make()

    with pytest.raises(UnsupportedTypeError, match=rf"^Cannot store \S+ at value\['a'\]: .*{advice}"):
        payloads.store({"a": value}, HERE)

    if hasattr(value, "close"):
        value.close()


def test_class_that_can_only_be_written_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is permitted or not: permission would not help."""
    for patterns in ("airflow.*", "airflow.* example_values.*"):
        permit(patterns, monkeypatch)

        with pytest.raises(
            UnsupportedTypeError, match=r"at value\[0\]: it has a serialize\(\), but no deseri"
        ):
            payloads.store([values.HalfSerialised()], HERE)


def test_serialiser_of_a_class_that_fails_is_named_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chain leads to the class's own code."""
    monkeypatch.setattr(
        values.HalfSerialised, "deserialize", lambda data, version: data["gone"], raising=False
    )

    with pytest.raises(UnsupportedTypeError, match=r"at value\[0\]: its serialize\(\) and deser") as caught:
        payloads.store([values.HalfSerialised()], HERE)

    assert isinstance(caught.value.__cause__, KeyError)


def test_class_that_airflow_does_not_permit_is_refused_with_the_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise the task would succeed, and every reader fail. What is permitted already stays permitted."""
    permit("airflow.* ours.*", monkeypatch)

    with pytest.raises(
        UnsupportedTypeError,
        match=r"not permitted.*ALLOWED_DES\w+='airflow\.\* ours\.\* example_values\.Color'",
    ):
        payloads.store({"color": values.Color.RED}, HERE)


def test_class_that_is_not_permitted_any_more_is_not_imported(
    payload_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list is asked again when reading: a payload alone decides nothing."""
    row = payloads.store(values.Color.RED, HERE)
    permit("airflow.*", monkeypatch)

    with pytest.raises(
        UnsupportedTypeError, match=r"class example_values.Color is not permitted to be read here"
    ):
        payloads.load(row)


LONG = "x" * 100_000
FORGED = {
    "enum-of-another-class": {"$enum": ["airflow.configuration.AirflowConfigParser", "A"]},
    "enum-of-a-builtin": {"$enum": ["int", "real"]},
    "enum-without-the-member": {"$enum": ["http.HTTPStatus", "__class__"]},
    "instance-of-no-class": {"$object": ["airflow.configuration.conf", {}]},
    "instance-without-state": {"$object": ["airflow.configuration.AirflowConfigParser", {}]},
    "model-of-another-class": {"$model": ["airflow.sdk.Asset", {}, []]},
    "named-tuple-of-another-class": {"$namedtuple": ["airflow.sdk.bases.xcom.BaseXCom", []]},
    "table-of-another-class": {"$rows": ["airflow.sdk.bases.xcom.BaseXCom", [[1]]]},
    "made-of-another-class": {"$made": ["airflow.sdk.bases.xcom.BaseXCom", {}]},
    "serialised-of-another-class": {"$serialized": ["airflow.sdk.bases.xcom.BaseXCom", 1, {}]},
    "class-not-permitted": {"$object": ["subprocess.Popen", {}]},
    "class-that-is-not-there": {"$object": ["airflow.nowhere.Nothing", {}]},
    "class-that-is-no-text": {"$object": [1, {}]},
    "class-of-airflow-form": {"$serde": {"__classname__": "os.system", "__version__": 1, "__data__": "true"}},
    "unknown-tag": {"$nosuch": 1},
    "part": {"$part": ["missing", "bytes", 1, "bytes"]},
    "handle": {"$file": {"uri": "gs://acme/x"}},
    "int": {"$int": "ten"},
    "float": {"$float": []},
    "datetime": {"$datetime": []},
    "set": {"$set": [[1]]},
    "numpy-object": {"$numpy": ["O", "AAAAAAAAAAA=", ""]},
    "array": {"$array": "AAAA"},
    "zone-path": {"$timezone": ["dateutil-zone", "/etc/passwd"]},
    "zone-path-up": {"$timezone": ["zone", "../../etc/passwd"]},
    "zone-of-unknown-kind": {"$timezone": ["os.system", "true"]},
    "path-of-another-class": {"$path": ["os", "x"]},
    "url-of-another-class": {"$url": ["BaseModel", "x"]},
    "long-tag": {f"${LONG}": 1},
    "long-class": {"$object": [LONG, {}]},
    "long-zone": {"$timezone": ["zone", LONG]},
    "long-kind-of-zone": {"$timezone": [LONG]},
    "long-int": {"$int": LONG},
    "long-date": {"$date": LONG},
    "long-url": {"$url": ["HttpUrl", LONG]},
    "long-url-class": {"$url": [LONG, ""]},
    "long-factory": {"$defaultdict": [LONG, []]},
    "long-airflow-class": {"$serde": {"__classname__": LONG, "__version__": 1, "__data__": 1}},
    "long-part": {"$part": [LONG, LONG, 1, LONG]},
}


@pytest.mark.parametrize("place", ["payload", "row"])
@pytest.mark.parametrize("node", FORGED.values(), ids=FORGED.keys())
def test_value_that_was_written_by_hand_builds_nothing(node: Any, place: str) -> None:
    """A tag makes only what it stands for; all else is an error of ours, without the forged text in full."""
    permit_nothing_more = (PayloadCorruptError, UnsupportedTypeError)
    if place == "row":
        row = {"__classname__": "gcs_xcom.Value", "__version__": 1, "__data__": json.loads(json.dumps(node))}
        with pytest.raises(permit_nothing_more) as caught:
            payloads.load(row)
    else:
        payload = memoryview(bytearray(compress([json.dumps(node).encode()])[0]))
        with pytest.raises(permit_nothing_more) as caught:
            codecs.decode(payload, "tagged-json", 1, "dict", 10**6)

    assert LONG[:201] not in "".join(traceback.format_exception_only(caught.value))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"__version__": 2}, "version 2 and this code reads up to 1: update", id="newer"),
        pytest.param({"__version__": True}, "malformed", id="version-true"),
        pytest.param({"__version__": None}, "malformed", id="no-version"),
        pytest.param({"__data__": [1]}, "malformed", id="data-list"),
        pytest.param({"__data__": None}, "malformed", id="no-data"),
        pytest.param({"more": 1}, "malformed", id="more"),
    ],
)
def test_malformed_row_of_a_value_is_refused(change: dict[str, Any], said: str) -> None:
    """It is never handed to a task as it is."""
    row = {**payloads.store((1, 2), HERE), **change}

    with pytest.raises(PayloadCorruptError, match=rf"^XCom payload is not what was written. Clear .*{said}"):
        payloads.load(row)


def test_row_can_be_loaded_twice() -> None:
    """Loading leaves it as it is."""
    row = payloads.store({"a": (1, {2})}, HERE)
    before = json.dumps(row)

    assert payloads.load(row) == payloads.load(row) == {"a": (1, {2})}
    assert json.dumps(row) == before


@pytest.mark.parametrize("text", ["[1", '{"$tuple": [' * 5000 + "]}" * 5000, '{"$tuple": [1]}}'])
def test_text_that_no_writer_writes_is_refused(text: str) -> None:
    """Cut, too deep, or with more behind it."""
    payload = memoryview(bytearray(compress([text.encode()])[0]))

    with pytest.raises(PayloadCorruptError, match="its JSON is not what was written"):
        codecs.decode(payload, "tagged-json", 1, "dict", 10**6)


BIG = {
    "json": [{"n": n, "text": "x" * 20} for n in range(5000)],
    "tagged-json": [(n, "x" * 20) for n in range(5000)],
    "bundle": {"a": np.arange(5000), "b": bytes(5000)},
    "array": np.arange(5000),
}


@pytest.mark.parametrize("value", BIG.values(), ids=BIG.keys())
def test_payload_cut_or_changed_anywhere_is_never_decoded(value: Any, payload_folder: Path) -> None:
    """Whatever byte is missing or flipped."""
    row = payloads.store(value, HERE)
    (file,) = payload_folder.rglob("*.*")
    whole = file.read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 25)):
        flipped = bytes([whole[at] ^ 1])
        for damaged in (whole[:at], whole[:at] + flipped + whole[at + 1 :], whole + b"\0"):
            file.write_bytes(damaged)

            with pytest.raises(PayloadCorruptError, match=r"not what was written. Clear the task.* file://"):
                payloads.load(row)


@pytest.mark.parametrize("codec", ["json", "tagged-json", "npy"])
def test_garbage_under_a_valid_checksum_is_an_error_of_ours(codec: str) -> None:
    """No error of zstandard, orjson, zipfile or numpy reaches a task."""
    for garbage in (b"", b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"\x93NUMPY\x02\x00", bytes(100), b"\x93NUMPY"):
        with pytest.raises(PayloadCorruptError):
            codecs.decode(memoryview(bytearray(garbage)), codec, 1, "list", 10**6)


def test_payload_that_expands_without_end_is_refused() -> None:
    """Before memory is taken for it."""
    bomb = memoryview(bytearray(compress([b'"' + b"a" * 50_000_000 + b'"'])[0]))

    assert len(bomb) < 10_000
    for codec in ("json", "tagged-json"):
        with pytest.raises(PayloadTooLargeError, match="expands to 50000002 bytes; the limit is 1000000"):
            codecs.decode(bomb, codec, 1, "str", 1_000_000)


def test_long_list_is_one_json_text_with_a_line_for_each_piece(payload_folder: Path) -> None:
    """Written and read by pieces of about 1 MiB, whatever stands in its strings."""
    import zstandard

    value = [{"n": n, "text": "a,\n]b" * 20, "more": [n, [n]]} for n in range(40_000)]

    row = payloads.store(value, HERE)

    (file,) = payload_folder.rglob("*.json.zst")
    text = zstandard.ZstdDecompressor().decompress(file.read_bytes())
    assert json.loads(text) == value
    assert 5 < text.count(b"\n") < 10
    assert payloads.load(row) == value


def test_payload_of_two_frames_is_refused() -> None:
    """Also where the first one is whole."""
    (frame,) = compress([b"[1]"])
    for more in (frame, b"garbage after the frame"):
        with pytest.raises(PayloadCorruptError, match="zstd frame"):
            codecs.decode(memoryview(bytes(frame) + more), "json", 1, "list", 10**6)


def test_payload_of_a_newer_version_is_refused() -> None:
    """It says who must be updated."""
    with pytest.raises(PayloadCorruptError, match="reads versions 1 to 1, the payload has version 2"):
        codecs.decode(memoryview(b""), "json", 2, "list", 10)
    with pytest.raises(PayloadCorruptError, match="codec 'avro'; known here are json, tagged-json, bytes"):
        codecs.decode(memoryview(b""), "avro", 1, "list", 10)


def test_arrays_come_back_writable_and_aligned() -> None:
    """As after ``numpy.load``, alone and inside a container."""
    value = {"a": np.arange(3.0), "b": [np.arange(5, dtype="int8"), np.arange(7.0)]}

    back = payloads.load(payloads.store(value, HERE))

    back["b"][1][0] = 8.0
    assert back["a"].flags.writeable
    assert back["a"].flags.aligned
    assert back["b"][1].flags.aligned


def test_payloads_open_with_other_tools(payload_folder: Path) -> None:
    """JSON with zstd, arrays with numpy, containers with zip: no code of ours is needed."""
    import io
    import zipfile

    import zstandard

    payloads.store([{"n": n} for n in range(10_000)], HERE)
    payloads.store(np.arange(3), HERE)
    payloads.store({"model": b"x" * 2000, "weights": np.arange(3)}, HERE)
    by_kind = {"".join(file.suffixes): file for file in payload_folder.rglob("*.*") if file.is_file()}

    text = zstandard.ZstdDecompressor().decompress(by_kind[".json.zst"].read_bytes())
    assert json.loads(text)[9999] == {"n": 9999}
    assert np.load(by_kind[".npy"], allow_pickle=False).tolist() == [0, 1, 2]
    with zipfile.ZipFile(by_kind[".zip"]) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["value.json", "0.bin", "1.npy"]
        assert archive.read("0.bin") == b"x" * 2000
        assert np.load(io.BytesIO(archive.read("1.npy"))).tolist() == [0, 1, 2]
        assert json.loads(archive.read("value.json")).keys() == {"model", "weights"}
