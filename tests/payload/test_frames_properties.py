"""For any frame: it comes back as it was in both formats, or is refused; and twice gives the same bytes."""

from __future__ import annotations

import datetime as dt
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as np_st
from hypothesis.extra import pandas as pd_st
from polars.testing import assert_frame_equal
from polars.testing.parametric import dataframes

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "{{cookiecutter.project_slug}}"), str(Path(__file__).parent)]

from include.xcom.codecs.frames.arrow_tables import ArrowCodec  # noqa: E402
from include.xcom.codecs.frames.comparison import frames_equal  # noqa: E402
from include.xcom.codecs.frames.pandas_frames import PandasCodec  # noqa: E402
from include.xcom.codecs.frames.polars_frames import PolarsCodec  # noqa: E402
from include.xcom.errors import UnsupportedTypeError  # noqa: E402

QUICK = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
FORMATS = st.sampled_from(["parquet", "arrow"])


def round_trip(codec: Any, value: Any) -> Any:
    """Return what a reader gets, or None if the value is refused; encoding must not depend on the run."""
    try:
        encoded = codec.encode(value)
    except UnsupportedTypeError as error:
        event(f"refused: {error}"[:80])
        return None
    payload = b"".join(encoded.parts)
    assert payload == b"".join(codec.encode(value).parts)
    event(f"stored as {encoded.extension}")
    return codec.decode(memoryview(bytearray(payload)), encoded.type, encoded.version, 2**30)


# ------------------------------------------------------------------------------------------------ pandas

ZONES = st.sampled_from(
    [None, dt.timezone.utc, ZoneInfo("Europe/Paris"), dt.timezone(dt.timedelta(minutes=-90)), ZoneInfo("UTC")]
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | TEXT
    | st.binary(max_size=3)
    | st.decimals(allow_nan=False, allow_infinity=False, places=2)
    | st.dates()
    | st.datetimes(timezones=st.none() | st.just(dt.timezone.utc))
    | st.timedeltas()
    | st.uuids()
    | st.sampled_from([pd.NaT, pd.NA, np.nan, Decimal("-0.0"), pd.Timestamp("2020", tz="UTC")])
)
OBJECTS = st.one_of(
    st.lists(st.none() | TEXT, max_size=6),
    st.lists(st.sampled_from([np.nan]) | TEXT, max_size=6),
    st.lists(SCALARS, max_size=6),
    st.lists(st.lists(SCALARS, max_size=2) | st.dictionaries(TEXT, SCALARS, max_size=2), max_size=6),
    st.lists(np_st.arrays(np.float32, st.integers(0, 3)), max_size=6),
)


@st.composite
def pandas_columns(draw: st.DrawFn, rows: int) -> Any:
    """Draw one array of a given length, of any dtype."""
    kind = draw(
        st.sampled_from(["numpy", "objects", "nullable", "times", "category", "string", "arrow", "bins"])
    )
    if kind == "numpy":
        dtype = draw(
            np_st.boolean_dtypes() | np_st.integer_dtypes() | np_st.unsigned_integer_dtypes()
            | np_st.floating_dtypes(sizes=(16, 32, 64)) | np_st.complex_number_dtypes(sizes=(64, 128))
        )  # fmt: skip
        return draw(np_st.arrays(dtype, rows))
    if kind == "objects":
        values = draw(OBJECTS)
        column = np.empty(rows, object)
        for row in range(rows):
            column[row] = values[row % len(values)] if values else None
        return pd.Series(column, dtype=object).array
    if kind == "nullable":
        name = draw(st.sampled_from(["Int8", "Int64", "UInt64", "Float32", "Float64", "boolean"]))
        values = st.booleans() if name == "boolean" else st.integers(0, 100)
        return pd.array(draw(st.lists(st.none() | values, min_size=rows, max_size=rows)), dtype=name)
    if kind == "times":
        unit = draw(st.sampled_from(["s", "ms", "us", "ns"]))
        ticks = draw(np_st.arrays(np.int64, rows, elements=st.integers(-(2**40), 2**40)))
        missing = draw(np_st.arrays(bool, rows))
        if draw(st.booleans()):
            ticks = np.where(missing, np.iinfo(np.int64).min, ticks)
        if draw(st.booleans()):
            return pd.TimedeltaIndex(ticks.view(f"m8[{unit}]")).array
        index, zone = pd.DatetimeIndex(ticks.view(f"M8[{unit}]")), draw(ZONES)
        return (index.tz_localize("UTC").tz_convert(zone) if zone else index).array
    if kind == "category":
        categories = draw(
            st.lists(TEXT, unique=True, min_size=1, max_size=5)
            | st.lists(st.integers(-9, 9), unique=True, min_size=1, max_size=5)
            | st.lists(st.floats(allow_nan=False), unique=True, min_size=1, max_size=5)
        )
        codes = draw(np_st.arrays(np.int8, rows, elements=st.integers(-1, len(categories) - 1)))
        return pd.Categorical.from_codes(codes, categories=categories, ordered=draw(st.booleans()))
    if kind == "string":
        name = draw(st.sampled_from(["string[python]", "string[pyarrow]", "str"]))
        if name == "str" and pd.Series(["a"]).dtype == object:
            name = "string[python]"
        return pd.array(draw(st.lists(st.none() | TEXT, min_size=rows, max_size=rows)), dtype=name)
    if kind == "arrow":
        return pd.arrays.ArrowExtensionArray(pa.chunked_array([draw(arrow_arrays(rows))]))
    edges = np.sort(draw(np_st.arrays(np.int64, (rows, 2), elements=st.integers(-9, 9))), axis=1)
    return pd.arrays.IntervalArray.from_arrays(
        edges[:, 0], edges[:, 1], closed=draw(st.sampled_from(["left", "both"]))
    )


@st.composite
def pandas_indexes(draw: st.DrawFn, rows: int) -> Any:
    """Draw a row index of a given length."""
    name = draw(st.none() | TEXT | st.integers() | st.tuples(TEXT, st.integers()))
    kind = draw(st.sampled_from(["range", "array", "multi", "freq"]))
    if kind == "range":
        start, step = draw(st.integers(-9, 9)), draw(st.integers(1, 3))
        return pd.RangeIndex(start, start + rows * step, step, name=name)
    if kind == "freq":
        return pd.date_range(
            "2020", periods=rows, freq=draw(st.sampled_from(["D", "h", "MS", "W"])), name=name
        )
    arrays = [draw(pandas_columns(rows)) for _ in range(1 if kind == "array" else 2)]
    try:
        if kind == "array":
            return pd.Index(arrays[0], name=name, tupleize_cols=False)
        return pd.MultiIndex.from_arrays(arrays, names=[name, None])
    except (TypeError, ValueError, NotImplementedError, pa.ArrowException, OverflowError):
        return pd.RangeIndex(rows)  # pandas has no such index: of lists, float16, ...


@st.composite
def pandas_frames(draw: st.DrawFn) -> pd.DataFrame:
    """Draw a frame of any dtypes, with any index and labels."""
    rows = draw(st.integers(0, 6))
    arrays = draw(st.lists(pandas_columns(rows), max_size=3))
    index = draw(pandas_indexes(rows))
    frame = pd.DataFrame(
        {position: pd.Series(array, index=index, dtype=array.dtype) for position, array in enumerate(arrays)},
        index=index,
    )
    labels = draw(
        st.lists(TEXT, min_size=len(arrays), max_size=len(arrays))
        | st.lists(st.integers(0, 2) | TEXT | st.none(), min_size=len(arrays), max_size=len(arrays))
        | st.lists(st.tuples(TEXT, st.integers(0, 2)), min_size=len(arrays), max_size=len(arrays))
    )
    if labels:
        frame.columns = labels
    frame.attrs = draw(st.dictionaries(TEXT, st.none() | st.integers() | TEXT, max_size=1))
    return frame


@QUICK
@given(pandas_frames(), FORMATS)
@example(pd.DataFrame({"a": [-0.0, np.nan]}), "parquet")
@example(pd.DataFrame({"a": pd.cut([1, np.nan], [0, 3, 6])}), "parquet")
@example(pd.DataFrame({"a": pd.array(["x"], dtype="string[python]")}), "parquet")
def test_any_pandas_frame_comes_back_or_is_refused(frame: pd.DataFrame, frame_format: Any) -> None:
    """Nothing comes back changed, by our comparison and by that of pandas."""
    back = round_trip(PandasCodec(frame_format), frame)

    if back is not None:
        assert frames_equal(frame, back)
        assert list(back.dtypes) == list(frame.dtypes)
        assert type(back.index) is type(frame.index)


@QUICK
@given(pd_st.series(dtype=float), FORMATS)
def test_any_pandas_series_comes_back(series: pd.Series, frame_format: Any) -> None:
    """A Series comes back too."""
    back = round_trip(PandasCodec(frame_format), series)

    pd.testing.assert_series_equal(back, series)


# ------------------------------------------------------------------------------------------------ polars


@QUICK
@given(dataframes(max_cols=4, max_size=6, allow_null=True, excluded_dtypes=[pl.Object]), FORMATS)
def test_any_polars_frame_comes_back_or_is_refused(frame: pl.DataFrame, frame_format: Any) -> None:
    """Whatever polars itself thinks of as a frame comes back, or is refused."""
    back = round_trip(PolarsCodec(frame_format), frame)

    if back is not None:
        assert back.schema == frame.schema
        assert frames_equal(frame, back)
        assert_frame_equal(back, frame, check_exact=True)


# ----------------------------------------------------------------------------------------------- pyarrow

LEAVES = st.sampled_from(
    [
        pa.int8(), pa.int64(), pa.uint16(), pa.float32(), pa.float64(), pa.bool_(), pa.string(), pa.large_string(),
        pa.binary(), pa.date32(), pa.timestamp("us"), pa.timestamp("s", "UTC"), pa.duration("ms"), pa.time64("us"),
        pa.decimal128(9, 2), pa.null(), pa.dictionary(pa.int8(), pa.string()), pa.string_view(), pa.binary(2),
    ]
)  # fmt: skip
TYPES = st.recursive(
    LEAVES,
    lambda inner: (
        inner.map(pa.list_)
        | inner.map(pa.large_list)
        | inner.map(lambda kind: pa.list_(kind, 2))
        | st.lists(inner, min_size=1, max_size=2).map(
            lambda kinds: pa.struct([(f"f{i}", kind) for i, kind in enumerate(kinds)])
        )
        | inner.map(lambda kind: pa.map_(pa.string(), kind))
    ),
    max_leaves=3,
)


def arrow_values(kind: pa.DataType) -> st.SearchStrategy[Any]:
    """Draw Python values that pyarrow makes an array of a type of."""
    types = pa.types
    if types.is_fixed_size_list(kind):
        made: st.SearchStrategy[Any] = st.lists(arrow_values(kind.value_type), min_size=2, max_size=2)
    elif types.is_list(kind) or types.is_large_list(kind):
        made = st.lists(arrow_values(kind.value_type), max_size=2)
    elif types.is_map(kind):
        made = st.lists(st.tuples(TEXT, arrow_values(kind.item_type)), max_size=2)
    elif types.is_struct(kind):
        made = st.fixed_dictionaries({field.name: arrow_values(field.type) for field in kind.fields})
    elif types.is_fixed_size_binary(kind) and not types.is_decimal(kind):
        made = st.binary(min_size=2, max_size=2)
    elif types.is_decimal(kind):
        made = st.decimals(-1000, 1000, places=2)
    elif types.is_floating(kind):
        made = st.floats(width=kind.bit_width)
    elif types.is_boolean(kind):
        made = st.booleans()
    elif types.is_null(kind):
        made = st.none()
    elif types.is_binary(kind):
        made = st.binary(max_size=3)
    elif types.is_integer(kind) or types.is_temporal(kind):
        made = st.integers(0, 100)
    else:
        made = TEXT
    return st.none() | made


@st.composite
def arrow_arrays(draw: st.DrawFn, rows: int) -> pa.Array:
    """Draw an array of a given length, of any type."""
    kind = draw(TYPES)
    return pa.array(draw(st.lists(arrow_values(kind), min_size=rows, max_size=rows)), kind)


@st.composite
def arrow_tables(draw: st.DrawFn) -> pa.Table:
    """Draw a table, or a slice of one."""
    rows = draw(st.integers(0, 5))
    arrays = draw(st.lists(arrow_arrays(rows), min_size=1, max_size=3))
    names = draw(st.lists(TEXT, min_size=len(arrays), max_size=len(arrays)))
    fields = [pa.field(name, array.type) for name, array in zip(names, arrays, strict=True)]
    metadata = draw(
        st.none() | st.dictionaries(st.binary(min_size=1, max_size=3), st.binary(max_size=3), min_size=1)
    )
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=metadata)).slice(
        draw(st.integers(0, 2))
    )


@QUICK
@given(arrow_tables(), FORMATS, st.booleans())
def test_any_arrow_table_comes_back_or_is_refused(table: pa.Table, frame_format: Any, is_batch: bool) -> None:
    """Nothing comes back changed: schema, metadata, nulls, NaN."""
    value = table.combine_chunks().to_batches()[0] if is_batch and table.num_rows else table

    back = round_trip(ArrowCodec(frame_format), value)

    if back is not None:
        assert type(back) is type(value)
        assert back.schema.equals(value.schema, check_metadata=True)
        assert repr(back.to_pylist()) == repr(value.to_pylist())
