"""The codecs of pandas, polars and pyarrow: what comes back, what is refused, what others can read."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import enum
import io
import re
import uuid
import zoneinfo

import pytest

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
np = pytest.importorskip("numpy", reason="numpy is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow has no Parquet")

from include.xcom.codecs.frames.arrow_files import read_table  # noqa: E402
from include.xcom.codecs.frames.arrow_tables import ArrowCodec  # noqa: E402
from include.xcom.codecs.frames.comparison import frames_equal  # noqa: E402
from include.xcom.codecs.frames.pandas_frames import PandasCodec  # noqa: E402
from include.xcom.codecs.frames.polars_frames import PolarsCodec  # noqa: E402
from include.xcom.errors import (  # noqa: E402
    PayloadCorruptError,
    PayloadTooLargeError,
    UnsupportedTypeError,
)

try:
    import pandas as pd
except ImportError:
    pd = None
try:
    import polars as pl
except ImportError:
    pl = None  # type: ignore[assignment]

FORMATS = ["parquet", "arrow"]
PARIS = zoneinfo.ZoneInfo("Europe/Paris")
D = decimal.Decimal
NO_LIMIT = 2**40

needs_pandas = pytest.mark.skipif(pd is None, reason="pandas is not installed")
needs_polars = pytest.mark.skipif(pl is None, reason="polars is not installed")


def payload_of(encoded):
    return memoryview(bytearray(b"".join(encoded.parts)))


def round_trip(codec, value):
    encoded = codec.encode(value)
    return codec.decode(payload_of(encoded), encoded.type, encoded.version, NO_LIMIT)


def objects(*values):
    """Make a frame with one column of Python objects."""
    column = np.empty(len(values), object)
    for row, value in enumerate(values):
        column[row] = value
    return pd.DataFrame({"a": pd.Series(column, dtype=object)})


def instants(unit, tz):
    times = pd.DatetimeIndex(["2020-01-01", "2020-10-25 01:30", None]).as_unit(unit)
    return pd.DataFrame({"a": times.tz_localize("UTC").tz_convert(tz) if tz else times})


def arrow_column(values, kind):
    return pd.DataFrame({"a": pd.arrays.ArrowExtensionArray(pa.chunked_array([pa.array(values, kind)]))})


def indexed(index):
    return pd.DataFrame({"a": range(len(index))}, index=index)


def columns(labels):
    return pd.DataFrame([[1, 2.5, "x"]], columns=labels)


def with_attrs(frame, attrs):
    frame.attrs = attrs
    return frame


UNKNOWN = collections.namedtuple("Unknown", "x y")  # type: ignore[name-match]


class Text(str):
    """Text of a class that Airflow does not permit."""


class Label(enum.Enum):
    """Labels of a class that Airflow does not permit."""

    X = "x"
    Y = "y"
    N = "n"

    def __str__(self):
        """Return what a label becomes."""
        return self.value


def business_days():
    """Return an index whose frequency has no name."""
    return pd.date_range("2020", periods=3, freq=pd.offsets.CustomBusinessDay(holidays=["2020-01-02"]))


TEXT_DTYPE = "str" if pd is not None and pd.__version__ >= "3" else object

# ------------------------------------------------------------------------------------ pandas, supported

PANDAS = {
    # NumPy dtypes
    **{
        dtype: lambda dtype=dtype: pd.DataFrame({"a": np.array([1, 0, 1]).astype(dtype)})
        for dtype in [
            "int8",
            "int16",
            "int32",
            "int64",
            "uint8",
            "uint16",
            "uint32",
            "uint64",
            "float16",
            "float32",
            "float64",
            "bool",
            "complex64",
            "complex128",
            ">f8",
            ">i4",
        ]
    },
    "float-nan-negative-zero": lambda: pd.DataFrame({"a": [1.0, np.nan, -0.0, np.inf, -np.inf]}),
    "complex-nan": lambda: pd.DataFrame({"a": np.array([complex(1, np.nan), complex(-0.0, np.inf)])}),
    "not-contiguous": lambda: pd.DataFrame(np.arange(12.0).reshape(4, 3), columns=["a", "b", "c"]),
    # times
    **{
        f"datetime-{unit}-{name}": lambda unit=unit, tz=tz: instants(unit, tz)
        for unit in ("s", "ms", "us", "ns")
        for name, tz in {
            "naive": None,
            "zoneinfo": PARIS,
            "utc": dt.timezone.utc,
            "zoneinfo-utc": zoneinfo.ZoneInfo("UTC"),
            "offset": dt.timezone(dt.timedelta(hours=-5, minutes=-30)),
            "named-offset": dt.timezone(dt.timedelta(hours=1), "CET"),
            "offset-with-seconds": dt.timezone(dt.timedelta(seconds=61)),
        }.items()
    },
    **{
        f"timedelta-{unit}": lambda unit=unit: pd.DataFrame(
            {"a": pd.TimedeltaIndex(["1 day", None]).as_unit(unit)}
        )
        for unit in ("s", "ms", "us", "ns")
    },
    "period": lambda: pd.DataFrame(
        {
            "a": pd.PeriodIndex(["2020-01", None], freq="M"),
            "b": pd.period_range("2020", periods=2, freq="Q-NOV"),
        }
    ),
    "interval": lambda: pd.DataFrame(
        {
            "a": pd.interval_range(0, 2),
            "b": pd.arrays.IntervalArray.from_tuples([(0.5, 1), None], closed="left"),
            "c": pd.interval_range(pd.Timestamp("2020", tz="UTC"), periods=2),
        }
    ),
    # nullable, string and Arrow dtypes
    **{
        f"nullable-{dtype}": lambda dtype=dtype: pd.DataFrame({"a": pd.array([1, None, 0], dtype=dtype)})
        for dtype in ["Int8", "Int16", "Int32", "Int64", "UInt8", "UInt64", "Float32", "Float64", "boolean"]
    },
    "string-python": lambda: pd.DataFrame({"a": pd.array(["a", None], dtype="string[python]")}),
    "string-pyarrow": lambda: pd.DataFrame({"a": pd.array(["a", None], dtype="string[pyarrow]")}),
    "string-of-pandas": lambda: pd.DataFrame({"a": ["a", None, "é\n\0"]}),
    **{
        f"arrow-{kind}": lambda values=values, kind=kind: arrow_column(values, kind)
        for values, kind in [
            ([1, None], pa.int64()),
            ([1.0, float("nan"), None], pa.float64()),
            (["a", None], pa.string()),
            ([b"a", None], pa.binary()),
            ([1, None], pa.timestamp("s", "UTC")),
            ([D("1.10"), None], pa.decimal128(5, 2)),
            ([[1], None, []], pa.list_(pa.int8())),
            ([{"a": 1}, None], pa.struct([("a", pa.int8())])),
            ([[("k", 1)], None], pa.map_(pa.string(), pa.int8())),
            (["a", None], pa.dictionary(pa.int8(), pa.string())),
            ([None, None], pa.null()),
        ]
    },
    # categoricals
    "category-ordered-unused": lambda: pd.DataFrame(
        {"a": pd.Categorical(["b", "a", None], categories=["b", "z", "a"], ordered=True)}
    ),
    "category-int": lambda: pd.DataFrame({"a": pd.Categorical([3, 1], categories=[3, 2, 1])}),
    "category-bins": lambda: pd.DataFrame({"a": pd.cut([1, 5, np.nan, 9], [0, 3, 6, 10])}),
    "category-time-zone": lambda: pd.DataFrame(
        {"a": pd.Categorical(pd.to_datetime(["2020", "2021"]).tz_localize(PARIS))}
    ),
    "category-of-mixed": lambda: pd.DataFrame({"a": pd.Categorical(["a", 1, (2, 3)])}),
    "category-empty": lambda: pd.DataFrame({"a": pd.Categorical([])}),
    "category-all-missing": lambda: pd.DataFrame({"a": pd.Categorical([None, None])}),
    # objects
    "object-str-none": lambda: objects("a", None, ""),
    "object-str-nan": lambda: objects("a", np.nan),
    "object-str-NA": lambda: objects("a", pd.NA),
    "object-str-NaT": lambda: objects("a", pd.NaT),
    "object-str-none-and-nan": lambda: objects("a", None, np.nan),
    "object-bytes": lambda: objects(b"a", b"\xff", None),
    "object-bool": lambda: objects(True, None, False),
    "object-int": lambda: objects(1, None),
    "object-int-beyond-64-bits": lambda: objects(2**70, 1),
    "object-float-nan-and-none": lambda: objects(1.5, np.nan, None, -0.0),
    "object-decimal": lambda: objects(D("1.10"), D("2.20"), None),
    "object-decimal-of-several-scales": lambda: objects(D("1.1"), D("2.20"), D("-0.00"), D("NaN")),
    "object-date": lambda: objects(dt.date(2020, 1, 1), None),
    "object-time": lambda: objects(dt.time(1, 2, 3, 4), None),
    "object-datetime": lambda: objects(dt.datetime(2020, 1, 1), None),
    "object-datetime-aware-fold": lambda: objects(dt.datetime(2020, 10, 25, 2, 30, tzinfo=PARIS, fold=1)),
    "object-timedelta": lambda: objects(dt.timedelta(1), None),
    "object-uuid": lambda: objects(uuid.UUID(int=5), None),
    "object-lists": lambda: objects(["a"], [], None),
    "object-lists-mixed": lambda: objects([1, "a", None], [2.5]),
    "object-dicts": lambda: objects({"a": 1}, {"b": [2]}),
    "object-tuples": lambda: objects((1, "a"), (3,)),
    "object-sets": lambda: objects({1, 2}, frozenset({"a"})),
    "object-matrices": lambda: objects(np.ones((2, 2)), np.arange(3, dtype="u1")),
    "object-arrays": lambda: objects(np.arange(3.0), np.arange(0.0), None),
    "object-mixed": lambda: objects(1, "a", 2.5, None, np.nan, pd.NaT, pd.Timestamp("2020", tz=PARIS)),
    "object-pandas-scalars": lambda: objects(
        pd.Interval(0, 1), pd.Period("2020", "M"), pd.Timedelta(1), np.int8(1)
    ),
    "object-none": lambda: objects(None, None),
    "object-nan": lambda: objects(np.nan, np.nan),
    "object-empty": objects,
    # indexes
    "index-range": lambda: indexed(pd.RangeIndex(3, 9, 2, name="r")),
    "index-range-down": lambda: indexed(pd.RangeIndex(3, 0, -1)),
    "index-duplicates": lambda: indexed(pd.Index([3, 1, 1], dtype="int8")),
    "index-str": lambda: indexed(pd.Index(["a", "b", "a"], name="k")),
    "index-named-as-a-column": lambda: indexed(pd.Index(["a", "b"], name="a")),
    "index-objects": lambda: indexed(pd.Index(["a", 1, None, (1, 2)], dtype=object, tupleize_cols=False)),
    "index-float-nan": lambda: indexed(pd.Index([1.5, np.nan])),
    "index-datetime-freq": lambda: indexed(pd.date_range("2020", periods=3, freq="QS")),
    "index-datetime-unsorted": lambda: indexed(pd.DatetimeIndex(["2020", "2019"])),
    "index-datetime-tz": lambda: indexed(pd.date_range("2020", periods=3, freq="h", tz=PARIS)),
    "index-timedelta": lambda: indexed(pd.timedelta_range("1D", periods=3)),
    "index-period": lambda: indexed(pd.period_range("2020", periods=3, freq="W")),
    "index-interval": lambda: indexed(pd.interval_range(0, 3)),
    "index-category": lambda: indexed(pd.CategoricalIndex(["a", "b"], categories=["b", "a", "z"], name=5)),
    "index-nullable": lambda: indexed(pd.Index([1, 2, None], dtype="Int64")),
    "index-multi": lambda: indexed(pd.MultiIndex.from_tuples([("b", 1), ("a", 2)], names=["x", None])),
    "index-multi-missing": lambda: indexed(pd.MultiIndex.from_arrays([["a", None], [1, None]])),
    "index-multi-unused-levels": lambda: indexed(pd.MultiIndex.from_product([["z", "a"], [1, 2]])[[0, 3]]),
    "index-multi-category": lambda: indexed(
        pd.MultiIndex.from_arrays([pd.Categorical(["a", "b"], categories=["b", "a", "q"]), [1.5, 2]])
    ),
    "index-multi-times": lambda: indexed(
        pd.MultiIndex.from_product([pd.date_range("2020", periods=2, tz=PARIS), pd.interval_range(0, 2)])
    ),
    # labels of columns
    "columns-int": lambda: columns([3, 1, 1]),
    "columns-mixed": lambda: columns([1, "a", None]),
    "columns-duplicate": lambda: columns(["a", "a", "b"]),
    "columns-named": lambda: columns(pd.Index(["a", "b", "c"], name=("n", 1))),
    "columns-multi": lambda: columns(pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)])),
    "columns-dates": lambda: columns(pd.date_range("2020", periods=3)),
    "columns-category": lambda: columns(pd.CategoricalIndex(["a", "b", "c"], ordered=True)),
    "columns-odd-names": lambda: columns(["", "a.b", "é\n"]),
    "columns-names-that-collide": lambda: columns(["1", 1, "1_2"]),
    # shapes, attrs, flags
    "empty": pd.DataFrame,
    "no-columns": lambda: pd.DataFrame(index=range(5)),
    "no-columns-index": lambda: pd.DataFrame(index=["a", "b"]),
    "no-rows": lambda: pd.DataFrame(
        {"a": [1], "b": ["x"], "c": pd.Categorical(["x"]), "d": pd.Timestamp("2020", tz="UTC")}
    ).iloc[:0],
    "attrs": lambda: with_attrs(indexed(pd.RangeIndex(2)), {"unit": "m", "t": (1, None)}),
    "flags": lambda: indexed(pd.RangeIndex(2)).set_flags(allows_duplicate_labels=False),
    "chunks": lambda: pd.concat([pd.DataFrame({"a": ["x", None], "b": [1.5, 2]})] * 3),
    # Series
    "series": lambda: pd.Series([1, 2], name="n"),
    **{
        f"series-name-{name!r}": lambda name=name: pd.Series([1.5], name=name)
        for name in (None, 3, ("a", 1), 1.5, dt.date(2020, 1, 1), "", frozenset([1]))
    },
    "series-objects": lambda: pd.Series(["a", None], dtype=object, index=pd.date_range("2020", periods=2)),
    "series-empty": lambda: pd.Series([], dtype=object),
}


def cases(table):
    return [pytest.param(make, id=name) for name, make in table.items()]


@needs_pandas
@pytest.mark.parametrize("frame_format", FORMATS)
@pytest.mark.parametrize("make", cases(PANDAS))
def test_pandas_value_comes_back_as_it_was(make, frame_format):
    """A pandas value comes back equal, with every dtype, label, name and flag."""
    value = make()

    back = round_trip(PandasCodec(frame_format), value)

    assert frames_equal(value, back)
    check = (
        pd.testing.assert_frame_equal if isinstance(value, pd.DataFrame) else pd.testing.assert_series_equal
    )
    check(back, value, check_exact=True, check_freq=True, check_flags=True)
    assert back.attrs == value.attrs


@needs_pandas
@pytest.mark.parametrize(
    "name", ["int64", "string-of-pandas", "datetime-us-zoneinfo", "index-multi", "object-str-none"]
)
def test_pandas_ordinary_frame_stays_parquet(name):
    """An ordinary frame is written in the format that was asked for, not in the fallback."""
    encoded = PandasCodec("parquet").encode(PANDAS[name]())

    assert encoded.extension == "parquet"
    assert payload_of(encoded)[:4] == b"PAR1"


@needs_pandas
def test_pandas_decoded_numbers_are_writable():
    """What comes back can be changed in place, like any frame."""
    for frame_format in FORMATS:
        back = round_trip(PandasCodec(frame_format), pd.DataFrame({"a": [1.5, 2.5], "b": [1, 2]}))  # type: ignore[arg-type]

        back.iloc[0, 0] = 9.0
        back["b"] += 1

        assert back.to_dict("list") == {"a": [9.0, 2.5], "b": [2, 3]}


@needs_pandas
def test_pandas_numbers_of_an_arrow_payload_share_its_memory():
    """A frame of numbers takes no more memory than the payload that was received."""
    frame = pd.DataFrame({"a": np.arange(2000.0), "b": np.arange(2000), "c": np.arange(2000) % 2 == 0})
    encoded = PandasCodec("arrow").encode(frame)
    payload = memoryview(bytearray(b"".join(encoded.parts)))

    back = PandasCodec().decode(payload, encoded.type, 1, 2**30)

    received = np.frombuffer(payload, np.uint8)
    assert np.shares_memory(back["a"].to_numpy(), received)
    assert np.shares_memory(back["b"].to_numpy(), received)
    assert frames_equal(frame, back)


# ------------------------------------------------------------------------------------- pandas, refused

PANDAS_REFUSED = {
    "sparse": (lambda: pd.DataFrame({"a": pd.arrays.SparseArray([0, 1])}), "['a']", "sparse.to_dense"),
    "longdouble": (lambda: pd.DataFrame({"a": np.array([1], np.longdouble)}), "['a']", "astype"),
    "object-of-a-class": (lambda: objects("a", object()), "['a']", r"row 1 .*builtins\.object"),
    "object-series": (lambda: objects(pd.Series([1])), "['a']", "Series"),
    "object-tuples-of-a-class": (lambda: objects(UNKNOWN(1, "a")), "['a']", "Unknown"),
    "lone-surrogate": (lambda: objects("\ud800"), "['a']", "lone surrogate"),
    "lone-surrogate-label": (
        lambda: columns(pd.Index(["a", "b", "\ud800"], dtype=object)),
        ".columns",
        "surrogate",
    ),
    "series-name-of-a-class": (lambda: pd.Series([1], name=UNKNOWN(1, 2)), ".name", "come back as tuple"),
    "series-objects-of-a-class": (lambda: objects(UNKNOWN(1, 2))["a"], "", "Unknown"),
    "series-attrs": (
        lambda: with_attrs(pd.Series([1]), {"k": object()}),
        ".attrs['k']",
        "no codec has a form",
    ),
    "series-freq-with-holidays": (
        lambda: pd.Series([1, 2, 3], index=business_days()),
        ".index.freq",
        "set index.freq = None",
    ),
}


@needs_pandas
@pytest.mark.parametrize("frame_format", FORMATS)
@pytest.mark.parametrize(
    ("make", "path", "message"), [pytest.param(*case, id=name) for name, case in PANDAS_REFUSED.items()]
)
def test_pandas_value_that_would_change_is_refused(make, path, message, frame_format):
    """A value that would not come back names its place and what is wrong there."""
    value = make()

    with pytest.raises(UnsupportedTypeError, match=message) as caught:
        PandasCodec(frame_format).encode(value)

    assert caught.value.path == path


PANDAS_CHANGED = {
    "object-tuples-of-a-class": (
        lambda: objects(UNKNOWN(1, 2), None),
        lambda: objects(np.array([1, 2]), None),
        ("['a']", "Unknown", "numpy.ndarray"),
    ),
    "object-texts-of-a-class": (
        lambda: objects(Text("x"), "y"),
        lambda: pd.DataFrame({"a": pd.Series(["x", "y"], dtype=TEXT_DTYPE)}),
        ("['a']", "Text", "str"),
    ),
    "object-dicts-of-sets-of-a-class": (
        lambda: objects({"k": UNKNOWN(1, 2)}, {"k": None}),
        lambda: objects({"k": np.array([1, 2])}, {"k": None}),
        ("['a']", "object", "object"),
    ),
    "labels-of-a-class": (
        lambda: pd.DataFrame([[1, 2]], columns=pd.Index([Label("x"), Label("y")], dtype=object)),
        lambda: pd.DataFrame([[1, 2]], columns=["x", "y"]),
        (".columns", "Label", "str"),
    ),
    "index-name-of-a-class": (
        lambda: indexed(pd.Index([1, 2], name=Label("n"))),
        lambda: indexed(pd.Index([1, 2], name="n")),
        (".index.name", "Label", "str"),
    ),
    "freq-with-holidays": (
        lambda: indexed(business_days()),
        lambda: indexed(pd.DatetimeIndex(business_days(), freq=None)),
        (".index.freq", "CustomBusinessDay", "None"),
    ),
    "attrs": (
        lambda: with_attrs(pd.DataFrame({"a": [1]}), {"k": object(), "unit": "m"}),
        lambda: with_attrs(pd.DataFrame({"a": [1]}), {"unit": "m"}),
        (".attrs['k']", "builtins.object", "nothing"),
    ),
}


@needs_pandas
@pytest.mark.parametrize("frame_format", FORMATS)
@pytest.mark.parametrize(
    ("make", "expected", "change"), [pytest.param(*case, id=name) for name, case in PANDAS_CHANGED.items()]
)
def test_part_without_an_exact_form_becomes_what_airflow_returns(make, expected, change, frame_format):
    """One column becomes what Airflow's default makes of it, and the rest of the frame stays exact."""
    value = make()
    if "a" in value:
        value["rest"] = pd.Categorical(["x"] * len(value))
    encoded = PandasCodec(frame_format).encode(value)

    back = PandasCodec().decode(payload_of(encoded), encoded.type, encoded.version, NO_LIMIT)

    (found,) = encoded.changes
    assert found.path == change[0]
    assert change[1] in found.before
    assert change[2] in found.after
    rest = back.pop("rest") if "rest" in back else None
    assert frames_equal(expected(), back)
    assert rest is None or rest.dtype == "category"


@needs_pandas
def test_part_without_an_exact_form_equals_that_of_airflows_serializer():
    """The fallback is not a guess: Airflow's own serialiser returns the same columns."""
    for name in ("object-tuples-of-a-class", "object-texts-of-a-class", "object-dicts-of-sets-of-a-class"):
        make, expected, _ = PANDAS_CHANGED[name]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pandas(make()), sink, compression="snappy")

        default = pq.read_table(pa.BufferReader(sink.getvalue())).to_pandas()

        assert frames_equal(expected(), default)


@needs_pandas
@pytest.mark.parametrize("frame_format", FORMATS)
@pytest.mark.parametrize(
    "make_zone",
    [
        pytest.param(lambda: pytest.importorskip("pytz").timezone("America/New_York"), id="pytz"),
        pytest.param(lambda: pytest.importorskip("pytz").utc, id="pytz-utc"),
        pytest.param(lambda: pytest.importorskip("pytz").FixedOffset(90), id="pytz-offset"),
        pytest.param(lambda: pytest.importorskip("pendulum").timezone("Europe/Paris"), id="pendulum"),
        pytest.param(lambda: pytest.importorskip("pendulum").FixedTimezone(3600), id="pendulum-offset"),
        pytest.param(lambda: pytest.importorskip("dateutil.tz").gettz("Europe/Paris"), id="dateutil"),
        pytest.param(lambda: pytest.importorskip("dateutil.tz").tzutc(), id="dateutil-utc"),
        pytest.param(lambda: pytest.importorskip("dateutil.tz").tzoffset(None, -5400), id="dateutil-offset"),
        pytest.param(lambda: pytest.importorskip("pydantic_core").TzInfo(7200), id="pydantic"),
    ],
)
def test_pandas_time_zone_of_any_class_comes_back(make_zone, frame_format):
    """A zone comes back as the same zone of the same class, and readers of Parquet see the instants."""
    zone = make_zone()
    frame = instants("us", zone)

    encoded = PandasCodec(frame_format).encode(frame)
    back = PandasCodec().decode(payload_of(encoded), encoded.type, encoded.version, NO_LIMIT)

    assert type(back["a"].dtype.tz) is type(zone)
    assert [str(when) for when in back["a"]] == [str(when) for when in frame["a"]]
    assert encoded.changes == ()


@pytest.mark.parametrize(
    ("codec", "module", "make"),
    [
        pytest.param(ArrowCodec, "arrow_files.arrow_equal", lambda: pa.table({"a": [{}]}), id="pyarrow"),
        pytest.param(
            PandasCodec,
            "pandas_columns.arrays_equal",
            lambda: pd.DataFrame({"a": pd.interval_range(0, 2)}),
            id="pandas",
            marks=needs_pandas,
        ),
        pytest.param(
            PolarsCodec,
            "polars_frames.frames_equal",
            lambda: series(["a"], dtype=pl.Enum(["a"])),
            id="polars",
            marks=needs_polars,
        ),
    ],
)
def test_value_seen_to_change_is_refused(codec, module, make, monkeypatch):
    """What is not known to come back is compared, and refused in both formats if it differs."""
    value = make()
    monkeypatch.setattr(f"include.xcom.codecs.frames.{module}", lambda one, other: False)

    with pytest.raises(UnsupportedTypeError, match="would come back changed") as caught:
        codec().encode(value if codec is not PandasCodec else value["a"])

    assert caught.value.path == ("['a']" if codec is not PandasCodec else "")


@needs_pandas
def test_frames_equal_sees_what_equals_does_not():
    """The comparison is stricter than that of pandas."""
    base = pd.DataFrame({"a": pd.Series(["x", None], dtype=object), "f": [0.0, 1.0]})
    assert frames_equal(base, base.copy())

    assert not frames_equal(base, base.assign(a=pd.Series(["x", np.nan], dtype=object)))
    assert not frames_equal(base, base.assign(f=[-0.0, 1.0]))
    assert not frames_equal(base, base.assign(f=pd.array([0.0, 1.0], dtype="Float64")))
    assert not frames_equal(base, base.set_axis(["a", "b"]))
    assert not frames_equal(base, base.rename_axis("n"))
    assert not frames_equal(base, base.rename(columns={"a": "b"}))
    assert not frames_equal(base, with_attrs(base.copy(), {"k": 1}))
    assert not frames_equal(base, base["a"])


# ------------------------------------------------------------------------------------------------ polars


def series(*args, **kwargs):
    return pl.DataFrame({"a": pl.Series(*args, **kwargs)})


POLARS = {
    **{
        name: lambda name=name: series([1, None, 0], dtype=getattr(pl, name))  # type: ignore[misc]
        for name in [
            "Int8",
            "Int16",
            "Int32",
            "Int64",
            "UInt8",
            "UInt16",
            "UInt32",
            "UInt64",
            "Float32",
            "Float64",
        ]
    },
    "bool": lambda: series([True, None]),
    "nan-and-null": lambda: series([1.0, float("nan"), None, -0.0]),
    "str": lambda: series(["a", None, ""]),
    "binary": lambda: series([b"a", None, b""]),
    "date": lambda: series([dt.date(2020, 1, 1), None]),
    "time": lambda: series([dt.time(1, 2, 3), None]),
    "null": lambda: series([None, None]),
    **{
        f"{name}-{unit}": lambda name=name, unit=unit: series([1, None], dtype=getattr(pl, name)(unit))  # type: ignore[misc]
        for name in ("Datetime", "Duration")
        for unit in ("ms", "us", "ns")
    },
    "datetime-tz": lambda: series([1, None], dtype=pl.Datetime("us", "Europe/Paris")),
    "decimal": lambda: series([D("1.10"), None], dtype=pl.Decimal(10, 2)),
    "enum": lambda: series(["b", None, "a"], dtype=pl.Enum(["b", "a", "z"])),
    "categorical": lambda: series(["b", None, "a"], dtype=pl.Categorical()),
    "list": lambda: series([[1, None], None, []]),
    "list-str": lambda: series([["a", None], None]),
    "list-nan": lambda: series([[float("nan"), None, -0.0]]),
    "array": lambda: series([[1, 2], None], dtype=pl.Array(pl.Int8, 2)),
    "array-of-arrays": lambda: series([[[1, 2], [3, 4]], None], dtype=pl.Array(pl.Int8, (2, 2))),
    "struct": lambda: series([{"a": 1, "b": [None]}, None]),
    "nested-enum": lambda: series(
        [{"a": [{"b": "x"}]}], dtype=pl.Struct({"a": pl.List(pl.Struct({"b": pl.Enum(["x", "y"])}))})
    ),
    "odd-names": lambda: pl.DataFrame({"": [1], "a.b": [2], "a": [{"b": 1}], "é": ["x"]}),
    "int128": lambda: series([2**100, None], dtype=pl.Int128),
    "struct-of-nothing": lambda: series([{}, None], dtype=pl.Struct([])),
    "list-of-categories": lambda: series([["b", "a"], None], dtype=pl.List(pl.Categorical())),
    "array-of-floats": lambda: series([[float("nan"), -0.0], None], dtype=pl.Array(pl.Float32, 2)),
    "no-columns": pl.DataFrame,
    "chunks": lambda: pl.concat([series(["x"]), series(["y"])], rechunk=False),
}


@needs_polars
@pytest.mark.parametrize("frame_format", FORMATS)
@pytest.mark.parametrize("part", ["whole", "no-rows", "slice", "series"])
@pytest.mark.parametrize("make", cases(POLARS))
def test_polars_value_comes_back_as_it_was(make, part, frame_format):
    """A polars value comes back equal and of equal dtypes, whole, empty, sliced, or as a Series."""
    frame = make()
    if part == "series" and not frame.width:
        pytest.skip("there is no Series in a frame without columns")
    value = {"whole": frame, "no-rows": frame.head(0), "slice": frame.slice(1)}.get(part)
    value = frame.to_series(0) if value is None else value

    back = round_trip(PolarsCodec(frame_format), value)

    assert type(back) is type(value)
    assert frames_equal(value, back)
    check = (
        pl.testing.assert_frame_equal if isinstance(value, pl.DataFrame) else pl.testing.assert_series_equal
    )
    check(back, value, check_exact=True, categorical_as_str=True)
    dtypes = (value.dtype, back.dtype) if part == "series" else (value.schema, back.schema)
    assert dtypes[0] == dtypes[1]


if pl is not None:
    import polars.testing  # noqa: F401

POLARS_REFUSED = {
    "object": (lambda: series([object()], dtype=pl.Object), "cannot write 'Object'"),
    "struct-of-object": (lambda: pl.DataFrame({"a": pl.Series([object()], dtype=pl.Object)}), "Object"),
}


@needs_polars
@pytest.mark.parametrize(
    ("make", "message"), [pytest.param(*case, id=name) for name, case in POLARS_REFUSED.items()]
)
def test_polars_value_that_would_change_is_refused(make, message):
    """A polars column that would not come back is named."""
    value = make()

    with pytest.raises(UnsupportedTypeError, match=message) as caught:
        PolarsCodec().encode(value)

    assert caught.value.path == "['a']"


# ----------------------------------------------------------------------------------------------- pyarrow

ARROW = {
    **{
        str(kind): lambda kind=kind, values=values: pa.array(values, kind)  # type: ignore[misc]
        for values, kind in [
            ([1, None], pa.int8()),
            ([1.5, None, float("nan"), -0.0], pa.float64()),
            ([1.5, None], pa.float32()),
            ([True, None], pa.bool_()),
            (["a", None], pa.string()),
            (["a", None], pa.large_string()),
            (["a", None], pa.string_view()),
            ([b"a", None], pa.binary()),
            ([b"a", None], pa.large_binary()),
            ([b"a", None], pa.binary_view()),
            ([b"ab", None], pa.binary(2)),
            *[([1, None], pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")],
            ([1, None], pa.timestamp("s", "Europe/Paris")),
            *[([1, None], pa.duration(unit)) for unit in ("s", "ms", "us", "ns")],
            ([1, None], pa.time32("s")),
            ([1, None], pa.time64("ns")),
            ([1, None], pa.date32()),
            ([86400000, None], pa.date64()),
            ([D("1.10"), None], pa.decimal128(5, 2)),
            ([D("1.10"), None], pa.decimal256(60, 2)),
            ([None, None], pa.null()),
            ([[1, None], None, []], pa.list_(pa.int8())),
            ([[1], None], pa.large_list(pa.int8())),
            ([[1, 2], None], pa.list_(pa.int8(), 2)),
            ([[1], None], pa.list_view(pa.int8())),
            (
                [{"a": 1, "b": [float("nan")]}, None],
                pa.struct([("a", pa.int8()), ("b", pa.list_(pa.float32()))]),
            ),
            ([{}, None], pa.struct([])),
            ([[("a", 1.5)], None], pa.map_(pa.string(), pa.float64())),
            ([(1, 2, 3), None], pa.month_day_nano_interval()),
        ]
    },
    "float16": lambda: pa.array(np.array([1.5, np.nan], "f2")),
    "dictionary-ordered": lambda: pa.DictionaryArray.from_arrays(
        pa.array([1, None], pa.int8()), pa.array(["z", "a", "unused"]), ordered=True
    ),
    "dictionary-of-numbers": lambda: pa.DictionaryArray.from_arrays(pa.array([1, None]), pa.array([5, 4])),
    "run-end-encoded": lambda: pa.RunEndEncodedArray.from_arrays([2, 3], ["a", "b"]),
    "union": lambda: pa.UnionArray.from_dense(
        pa.array([0, 1], pa.int8()), pa.array([0, 0], pa.int32()), [pa.array([1]), pa.array(["x"])]
    ),
    "extension": lambda: pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.int8(), [2]), pa.array([[1, 2], [3, 4]], pa.list_(pa.int8(), 2))
    ),
}


@pytest.mark.parametrize("frame_format", FORMATS)
@pytest.mark.parametrize("shape", ["table", "batch", "no-rows", "slice"])
@pytest.mark.parametrize("make", cases(ARROW))
def test_pyarrow_value_comes_back_as_it_was(make, shape, frame_format):
    """A table or batch comes back with its types, nulls and the metadata of schema and fields."""
    array = make()
    schema = pa.schema([pa.field("a", array.type, metadata={"k": "v"})], metadata={"m": "n"})
    value = pa.Table.from_arrays([array], schema=schema)
    if shape == "batch":
        value = pa.RecordBatch.from_arrays([array], schema=schema)
    elif shape != "table":
        value = value.slice(0, 0) if shape == "no-rows" else value.slice(1)

    back = round_trip(ArrowCodec(frame_format), value)

    assert type(back) is type(value)
    assert back.schema.equals(value.schema, check_metadata=True)
    assert frames_equal(value, back)
    assert repr(back.to_pylist()) == repr(value.to_pylist())


@pytest.mark.parametrize(
    "name",
    [
        "int8",
        "timestamp[s]",
        "time32[s]",
        "date64[ms]",
        "list<item: int8>",
        "dictionary-ordered",
        "extension",
    ],
)
def test_pyarrow_type_stays_parquet(name):
    """What Parquet holds under another type is written as Parquet, and comes back as its own."""
    assert ArrowCodec().encode(pa.table({"a": ARROW[name]()})).extension == "parquet"


@pytest.mark.parametrize("name", ["run-end-encoded", "union", "dictionary-of-numbers"])
def test_pyarrow_type_that_parquet_lacks_becomes_arrow(name):
    """What Parquet cannot hold is written as Arrow IPC, whatever was asked for."""
    assert ArrowCodec("parquet").encode(pa.table({"a": ARROW[name]()})).extension == "arrow"


@pytest.mark.parametrize("frame_format", FORMATS)
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(pa.table({}), id="no-columns"),
        pytest.param(pa.table({"a": [1, 2]}).select([]), id="rows-without-columns"),
        pytest.param(pa.schema([("a", pa.int8())]).empty_table(), id="no-batches"),
        pytest.param(pa.Table.from_arrays([pa.array([1]), pa.array(["x"])], ["a", "a"]), id="same-names"),
        pytest.param(pa.table({"a": [{"b": 1}], "a.b": [2]}), id="dots"),
        pytest.param(
            pa.table({"a": [1]}, schema=pa.schema([pa.field("a", pa.int64(), False)])), id="not-null"
        ),
        pytest.param(pa.table({"a": pa.chunked_array([["x"], ["y", None]])}), id="chunks"),
        pytest.param(
            pa.table(
                {
                    "a": pa.chunked_array(
                        [pa.array(["a"]).dictionary_encode(), pa.array(["b"]).dictionary_encode()]
                    )
                }
            ),
            id="chunks-of-dictionaries",
        ),
        pytest.param(
            pa.table({"a": [1]}, metadata={"ARROW:schema": "?", "xcom": "?"}), id="our-metadata-keys"
        ),
    ],
)
def test_pyarrow_shape_comes_back_as_it_was(value, frame_format):
    """Unusual shapes and names of tables come back."""
    back = round_trip(ArrowCodec(frame_format), value)

    assert back.schema.equals(value.schema, check_metadata=True)
    assert back.num_rows == value.num_rows
    assert back.to_pydict() == value.to_pydict()


def test_pyarrow_table_that_is_not_valid_is_refused():
    """A table whose strings are not UTF-8 is refused before anything is written."""
    offsets = pa.py_buffer(np.array([0, 1], "i4"))
    table = pa.table({"a": pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"\xff")])})

    with pytest.raises(UnsupportedTypeError, match=r"not valid.*UTF8"):
        ArrowCodec().encode(table)


# ----------------------------------------------------------------------------------------- the contract

TABLE = pa.table(
    {"n": range(1000), "f": [row / 7 for row in range(1000)], "s": [f"s{row % 7}" for row in range(1000)]}
)


@pytest.mark.parametrize("frame_format", FORMATS)
def test_encoding_twice_gives_the_same_bytes(frame_format):
    """One value has one payload."""
    one, other = (payload_of(ArrowCodec(frame_format).encode(TABLE)) for _ in range(2))

    assert one == other


@pytest.mark.parametrize("frame_format", FORMATS)
def test_encoded_describes_the_value(frame_format):
    """Format, type and summary are what a person would call them."""
    encoded = ArrowCodec(frame_format).encode(TABLE)

    assert (encoded.codec, encoded.type, encoded.extension) == ("arrow-table", "pyarrow.Table", frame_format)
    assert encoded.summary.pop("schema")
    assert encoded.summary == {"rows": 1000, "columns": 3}
    assert encoded.raw_bytes == TABLE.nbytes
    assert all(
        isinstance(part, memoryview) and part.format == "B" and part.contiguous for part in encoded.parts
    )


def pandas_schemas():
    plain = pd.DataFrame(
        {"day": pd.date_range("2026-01-01", periods=3), "n": [1, 2, 3], "who": ["a", "b", None]}
    )
    days, text = plain.set_index("day"), plain.astype({"who": object})
    return [
        [plain, plain[1:], pd.concat([plain] * 3, ignore_index=True)],
        [plain.rename(columns={"n": "m"})],
        [plain[["n", "day", "who"]]],
        [plain.drop(columns="who")],
        [plain.astype({"n": float})],
        [plain.assign(who=[1, 2, None])],
        [plain.assign(who=pd.Series(["x", 1, None], dtype=object))],
        [plain.assign(who=pd.Series(["x", "y", "z"], dtype="category")), text.astype({"who": "category"})],
        [days, days[:1]],
        [days.rename_axis("date")],
        [plain.set_index(["day", "n"])],
        [plain["n"], plain["n"] + 1],
        [plain["n"].rename("m")],
    ]


def polars_schemas():
    plain = pl.DataFrame({"n": [1, 2], "who": ["a", None]})
    return [[plain, plain[:0]], [plain.cast({"n": pl.Int8})], [plain[["who", "n"]]], [plain["n"]]]


def arrow_schemas():
    return [
        [TABLE, TABLE.slice(10), TABLE.combine_chunks().to_batches()[0]],
        [TABLE.drop_columns("n")],
        [TABLE.rename_columns(["n", "f", "t"])],
        [TABLE.set_column(0, "n", TABLE["n"].cast(pa.int8(), safe=False))],
    ]


@pytest.mark.parametrize(
    ("codec", "schemas"),
    [
        pytest.param(PandasCodec, pandas_schemas, marks=needs_pandas),
        pytest.param(PolarsCodec, polars_schemas, marks=needs_polars),
        (ArrowCodec, arrow_schemas),
    ],
)
def test_summary_tells_frames_of_another_schema(codec, schemas):
    """By eight digits, which depend on names, types, and order of the columns, and never on the rows."""
    found = [[codec().encode(value).summary["schema"] for value in alike] for alike in schemas()]

    assert all(re.fullmatch("[0-9a-f]{8}", one) for alike in found for one in alike)
    assert all(len(set(alike)) == 1 for alike in found)
    assert len({alike[0] for alike in found}) == len(found)


@pytest.mark.parametrize("frame_format", FORMATS)
def test_truncated_payload_is_corrupt(frame_format):
    """A payload cut at any place raises our error, never that of a library."""
    payload = payload_of(ArrowCodec(frame_format).encode(TABLE))

    for length in [*range(64), *range(64, len(payload), 97), len(payload) - 1]:
        with pytest.raises(PayloadCorruptError, match="payload"):
            ArrowCodec().decode(payload[:length], "pyarrow.Table", 1, NO_LIMIT)


@pytest.mark.parametrize("frame_format", FORMATS)
def test_altered_payload_never_raises_a_foreign_error(frame_format):
    """Any flipped byte gives a table or one of our errors.

    Parquet's directory at the end is left alone: pyarrow ends the process over some of its bytes. The
    checksum of the whole object, which is compared before anything is decoded, covers it.
    """
    payload = payload_of(ArrowCodec(frame_format).encode(TABLE.slice(0, 50)))
    directory = 8 + int.from_bytes(payload[-8:-4], "little") if frame_format == "parquet" else 0
    outcomes = set()

    for position in range(0, len(payload) - directory, 3 if frame_format == "arrow" else 1):
        altered = memoryview(bytearray(payload))
        altered[position] ^= 0x5A
        try:
            outcomes.add(type(ArrowCodec().decode(altered, "pyarrow.Table", 1, 2**24)))
        except (PayloadCorruptError, PayloadTooLargeError) as error:
            outcomes.add(type(error))

    assert PayloadCorruptError in outcomes


@pytest.mark.parametrize("payload", [b"", b"PAR1", b"PAR1PAR1", b"ARROW1\0\0ARROW1", b"x" * 100])
@pytest.mark.parametrize("codec", [PandasCodec, PolarsCodec, ArrowCodec])
def test_garbage_is_corrupt(codec, payload):
    """Bytes that no codec wrote raise our error."""
    with pytest.raises(PayloadCorruptError, match="payload"):
        codec().decode(memoryview(bytearray(payload)), "pandas.DataFrame", 1, NO_LIMIT)


@needs_pandas
def test_foreign_parquet_lacks_our_metadata():
    """A Parquet file that somebody else wrote is not taken for a pandas frame of ours."""
    payload = payload_of(ArrowCodec().encode(TABLE))

    with pytest.raises(PayloadCorruptError, match="lacks the metadata"):
        PandasCodec().decode(payload, "pandas.DataFrame", 1, NO_LIMIT)


BOMBS = {
    "zeros": lambda: pa.table({"a": np.zeros(4_000_000)}),
    "long-string-repeated": lambda: pa.table({"a": ["x" * 100_000] * 1000}),
    "nulls": lambda: pa.table({"a": pa.nulls(5_000_000)}),
}


def squeezed(payload):
    """Compress an Arrow payload, which our codecs never do."""
    table = pa.ipc.open_file(payload).read_all()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(table)
    return memoryview(bytearray(sink.getvalue()))


@pytest.mark.parametrize("make", cases(BOMBS))
def test_payload_that_expands_beyond_the_limit_is_refused(make):
    """A small payload that would fill the memory is refused before it is decoded."""
    payload = payload_of(ArrowCodec().encode(make()))
    assert len(payload) < 2_000_000

    before = pa.total_allocated_bytes()
    with pytest.raises(PayloadTooLargeError, match="the limit is 10000000") as caught:
        ArrowCodec().decode(payload, "pyarrow.Table", 1, 10_000_000)

    assert caught.value.size > 30_000_000  # type: ignore[operator]
    assert pa.total_allocated_bytes() - before < 10_000_000


@pytest.mark.parametrize("frame_format", FORMATS)
def test_payload_within_the_limit_is_decoded(frame_format):
    """The limit counts what the value takes, not a guess far above it."""
    payload = payload_of(ArrowCodec(frame_format).encode(TABLE))

    assert ArrowCodec().decode(payload, "pyarrow.Table", 1, TABLE.nbytes * 2).num_rows == 1000


@pytest.mark.parametrize("make", cases(BOMBS))
def test_compressed_arrow_is_refused(make):
    """Compressed Arrow data, whose size is known only when it is expanded, is refused before that."""
    payload = squeezed(payload_of(ArrowCodec("arrow").encode(make())))
    before = pa.total_allocated_bytes()

    with pytest.raises(PayloadCorruptError, match="is compressed"):
        ArrowCodec().decode(payload, "pyarrow.Table", 1, 10_000_000)

    assert pa.total_allocated_bytes() - before < 10_000_000


# ---------------------------------------------------------------------------------------- other readers


@needs_pandas
@pytest.mark.parametrize(
    "name",
    ["int64", "string-of-pandas", "datetime-us-naive", "nullable-Int64", "index-str", "index-multi", "index-range",
     "category-ordered-unused", "columns-named", "attrs"],
)  # fmt: skip
def test_parquet_of_an_ordinary_frame_reads_as_that_frame_in_pandas(name):
    """pandas.read_parquet gives the same frame, without this package."""
    frame = PANDAS[name]()
    if name == "columns-named":
        frame.columns.name = "n"
    if name == "attrs":
        frame.attrs = {"unit": "m"}

    back = pd.read_parquet(io.BytesIO(payload_of(PandasCodec().encode(frame))))

    pd.testing.assert_frame_equal(back, frame)


@needs_pandas
@pytest.mark.parametrize("make", cases(PANDAS))
def test_parquet_of_any_frame_opens_elsewhere(make):
    """pyarrow, pandas and polars open every payload and see its rows."""
    value = make()
    encoded = PandasCodec().encode(value)
    if encoded.extension != "parquet":
        pytest.skip("only Arrow IPC holds this type")
    payload = payload_of(encoded)

    assert pq.read_table(pa.BufferReader(payload)).num_rows in (len(value), 0)
    read = pd.read_parquet(io.BytesIO(payload))
    assert len(read) in (len(value), 0)
    assert "Unnamed" not in str(read.columns)


@needs_pandas
@needs_polars
def test_parquet_and_arrow_open_in_polars():
    """Polars reads both formats as they are."""
    frame = pd.DataFrame({"n": [1, 2], "s": ["a", None], "t": pd.date_range("2020", periods=2, tz="UTC")})

    parquet = pl.read_parquet(bytes(payload_of(PandasCodec("parquet").encode(frame))))
    arrow = pl.read_ipc(bytes(payload_of(PandasCodec("arrow").encode(frame))))

    for read in (parquet, arrow):
        assert read["n"].to_list() == [1, 2]
        assert read["s"].to_list() == ["a", None]
        assert read["t"].to_list() == [when.to_pydatetime() for when in frame["t"]]


# ------------------------------------------------------------------------------------------------ sizes


@needs_pandas
@pytest.mark.parametrize("frame_format", FORMATS)
def test_frame_of_several_slices_comes_back(frame_format, monkeypatch):
    """Rows and columns that are taken in several steps are put together again."""
    monkeypatch.setattr("include.xcom.codecs.frames.pandas_frames._SLICE_BYTES", 1000)
    frame = pd.DataFrame(
        {"f": np.arange(9000.0)[::3], "s": [f"s{row}" for row in range(3000)], "c": ["a", "b", None] * 1000}
    ).astype({"s": object, "c": "category"})

    back = round_trip(PandasCodec(frame_format), frame)

    assert frames_equal(frame, back)
    chunks = read_table(payload_of(PandasCodec(frame_format).encode(frame)), NO_LIMIT).column("s").num_chunks
    assert chunks == (1 if frame_format == "parquet" else 3)


def test_repeating_and_random_columns_are_stored_as_suits_them():
    """Values that repeat get a dictionary, random numbers are not compressed in vain."""
    generator = np.random.default_rng(0)
    table = pa.table(
        {
            "repeating": generator.integers(0, 9, 50_000),
            "random": generator.random(50_000),
            "counted": range(50_000),
            "text": [f"row {row}" for row in range(50_000)],
        }
    )

    facts = pq.read_metadata(pa.BufferReader(payload_of(ArrowCodec().encode(table)))).row_group(0)

    found = {
        facts.column(i).path_in_schema: (facts.column(i).compression, facts.column(i).has_dictionary_page)
        for i in range(4)
    }
    assert found == {
        "repeating": ("ZSTD", True),
        "random": ("UNCOMPRESSED", False),
        "counted": ("ZSTD", False),
        "text": ("ZSTD", False),
    }
