"""pandas arrays as Arrow columns, and back: a put and a get for each kind of array.

``put`` describes an array as an Arrow column and a JSON ``spec``; ``get`` makes the array of both.
Kinds that might change a value are made again and compared while putting.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from decimal import Decimal
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

from ...errors import UnsupportedTypeError
from .. import time_zones
from ..base import Change, type_name
from ..equality import identical
from ..tagged_json import dump, load
from .arrow_files import ColumnData, arrow_equal, is_plain, pack, unpack

__all__ = ["Column", "LazyText", "Spec", "arrays_equal", "get", "put", "to_index"]

NumpyArray: TypeAlias = np.ndarray[Any, Any]
PandasArray: TypeAlias = pd.api.extensions.ExtensionArray
Spec: TypeAlias = dict[str, Any]


class Column(NamedTuple):
    """How one array is stored.

    Attributes:
        data: The Arrow column.
        spec: What ``get`` needs in addition, as JSON.
    """

    data: ColumnData
    spec: Spec

    @property
    def is_doubtful(self) -> bool:
        """Whether a file might not bring the Arrow column back as it is, so that ``get`` makes another array."""
        # Categories are listed in the spec: the order that a file gives its dictionary does not matter.
        is_category = self.spec["kind"] == "categories" and pa.types.is_dictionary(self.data.type)
        return not is_category and not is_plain(self.data.type)

    def whole(self, rows: int) -> pa.ChunkedArray:
        """Return all of the Arrow column, which has ``rows`` rows."""
        data = self.data.slice(0, rows)
        return data if isinstance(data, pa.ChunkedArray) else pa.chunked_array([data])


class LazyText:
    """Python strings or bytes that become Arrow slice by slice: a large frame is never held twice.

    Args:
        values: Strings or bytes, and what marks gaps.
        kind: Arrow type of the slices.
        is_nan_missing: NaN marks gaps as well as None.
    """

    def __init__(self, values: NumpyArray, kind: pa.DataType, *, is_nan_missing: bool) -> None:
        self.type = kind
        self.path = ""
        self._values = values
        self._is_nan_missing = is_nan_missing

    @property
    def bytes(self) -> int:
        """Estimate of what converting everything allocates, by 1,000 values."""
        sample = self._values[:: max(len(self._values) // 1000, 1)]
        sampled = sum(len(item) + 8 for item in sample if isinstance(item, str | bytes))
        return sampled * len(self._values) // max(len(sample), 1)

    def slice(self, offset: int, length: int) -> pa.Array | pa.ChunkedArray:
        """Convert some rows."""
        try:
            rows = self._values[offset : offset + length]
            return pa.array(rows, self.type, from_pandas=self._is_nan_missing)
        except UnicodeEncodeError:
            reason = "a string has a lone surrogate, which is not text; replace or drop such characters"
            raise UnsupportedTypeError(reason, path=self.path) from None


def put(values: Any, path: str, changes: list[Change] | None = None) -> Column:
    """Describe a NumPy or pandas array as an Arrow column.

    Args:
        values: The array.
        path: Its place in the frame.
        changes: Receives what does not come back exactly; None if everything has to.

    Raises:
        UnsupportedTypeError: It does not come back, and Airflow's default refuses it as well.
    """
    try:
        kind = _kind_of(values)
        column = _KINDS[kind].put(values)
        if kind not in _TRUSTED and not arrays_equal(values, get(column.whole(len(values)), column.spec)):
            raise UnsupportedTypeError(f"values of dtype {values.dtype} would come back changed")
    except UnsupportedTypeError as error:
        error.path = f"{path}{error.path}"
        if changes is None:
            raise
        return _put_as_airflow(values, path, changes, error)
    if isinstance(column.data, LazyText):
        column.data.path = path
    return column


def get(data: pa.ChunkedArray, spec: Spec) -> Any:
    """Make an array of its Arrow column; arrays of NumPy are writable."""
    return _KINDS[spec["kind"]].get(data, spec)


def arrays_equal(left: Any, right: Any) -> bool:
    """Tell whether two arrays have the same dtype and values, to the last bit."""
    if len(left) != len(right):
        return False
    if _kind_of(left) == "objects" == _kind_of(right):
        return identical(list(left), list(right))
    mine, theirs = (_KINDS[_kind_of(array)].put(array) for array in (left, right))
    return mine.spec == theirs.spec and arrow_equal(mine.whole(len(left)), theirs.whole(len(right)))


def to_index(values: Any, name: Any = None) -> pd.Index:
    """Make an index of an array without a change of dtype."""
    return pd.Index(values, dtype=values.dtype, name=name, copy=False, tupleize_cols=False)


# --------------------------------------------------------------------------------------------- NumPy


def _put_numbers(values: Any) -> Column:
    values = np.asarray(values)
    spec = {"kind": "numbers", "dtype": values.dtype.str}
    native = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    if native.dtype.kind == "c":
        return Column(pa.FixedSizeListArray.from_arrays(native.view(native.real.dtype), 2), spec)
    # NaN is written as null, as pandas does itself: to SQL engines it is a missing value.
    return Column(pa.array(native, from_pandas=True), spec)


def _get_numbers(data: pa.ChunkedArray, spec: Spec) -> NumpyArray:
    dtype = np.dtype(spec["dtype"])
    if dtype.kind == "c":
        parts: NumpyArray = data.combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return parts.view(dtype.newbyteorder("=")).astype(dtype)
    if data.num_chunks == 1 and len(data) and not data.null_count and dtype.kind in "iufmM":
        # The memory is ours alone and taken as it is; ``to_numpy`` would give a read-only array.
        chunk = data.chunk(0)
        buffer = memory = chunk.buffers()[1]
        while memory is not None and not memory.is_mutable:
            memory = memory.parent
        if memory is not None and chunk.type.bit_width == 8 * dtype.itemsize:
            start = buffer.address - memory.address + chunk.offset * dtype.itemsize
            values = np.frombuffer(memory, dtype.newbyteorder("="), len(chunk), start)
            if values.flags.aligned:
                return values.astype(dtype, copy=False)
    return _writeable(data.to_numpy().astype(dtype, copy=False))


def _writeable(values: NumpyArray) -> NumpyArray:
    return values if values.flags.writeable else values.copy()


# ------------------------------------------------------------------------------------- pandas dtypes


def _put_masked(values: Any) -> Column:
    numeric = values.dtype.numpy_dtype
    numbers = values.to_numpy(dtype=numeric, na_value=numeric.type(0))
    # NaN is a value here and pd.NA the missing one.
    data = pa.array(numbers, mask=np.asarray(values.isna()), from_pandas=False)
    return Column(data, {"kind": "masked", "dtype": values.dtype.name})


def _get_masked(data: pa.ChunkedArray, spec: Spec) -> PandasArray:
    return pd.api.types.pandas_dtype(spec["dtype"]).__from_arrow__(data)


def _put_strings(values: Any) -> Column:
    dtype = values.dtype
    storage = "python" if dtype.storage == "python" else "pyarrow"
    spec = {"kind": "strings", "storage": storage, "missing": "NA" if dtype.na_value is pd.NA else "nan"}
    if storage == "python":
        return Column(LazyText(values.to_numpy(dtype=object), pa.large_string(), is_nan_missing=True), spec)
    return Column(pa.array(values).cast(pa.large_string()), spec)


def _get_strings(data: pa.ChunkedArray, spec: Spec) -> PandasArray:
    if spec["missing"] == "NA":
        dtype = pd.StringDtype(spec["storage"])
    else:
        try:
            dtype = pd.StringDtype(spec["storage"], na_value=float("nan"))
        except TypeError:  # Drop when pandas >= 2.3 is required.
            dtype = pd.StringDtype("pyarrow_numpy")
    return dtype.__from_arrow__(data)


def _put_arrow(values: Any) -> Column:
    return Column(pa.array(values), {"kind": "arrow"})


def _get_arrow(data: pa.ChunkedArray, spec: Spec) -> PandasArray:
    return pd.arrays.ArrowExtensionArray(data)


def _put_datetimes(values: Any) -> Column:
    unit, zone = values.dtype.unit, values.dtype.tz
    content = time_zones.to_content(zone)
    if type(time_zones.from_content(content)) is not type(zone):
        raise UnsupportedTypeError(f"the time zone {zone!r} would come back changed; use zoneinfo.ZoneInfo")
    offset = zone.utcoffset(None)
    name = content[1] if offset is None else "UTC"
    if offset and not offset.seconds % 60:  # Others are UTC to other readers: Arrow has no seconds here.
        sign, minutes = "-" if offset.days < 0 else "+", abs(offset).seconds // 60
        name = f"{sign}{minutes // 60:02}:{minutes % 60:02}"
    instants = np.ascontiguousarray(values.asi8.view(f"M8[{unit}]"))
    spec = {"kind": "datetimes", "unit": unit, "tz": content}
    return Column(pa.array(instants, pa.timestamp(unit, tz=name)), spec)


def _get_datetimes(data: pa.ChunkedArray, spec: Spec) -> PandasArray:
    instants = _get_numbers(data.cast(pa.timestamp(spec["unit"])), {"dtype": f"<M8[{spec['unit']}]"})
    zone = time_zones.from_content(spec["tz"])
    return pd.DatetimeIndex(instants).tz_localize("UTC").tz_convert(zone).array


def _put_periods(values: Any) -> Column:
    data = pa.array(values.asi8, mask=np.asarray(values.isna()))
    return Column(data, {"kind": "periods", "freq": values.dtype.name[len("period[") : -1]})


def _get_periods(data: pa.ChunkedArray, spec: Spec) -> PandasArray:
    return pd.PeriodDtype(spec["freq"]).__from_arrow__(data)


def _put_intervals(values: Any) -> Column:
    left, right = (put(side.array, "") for side in (values.left, values.right))
    sides = [side.whole(len(values)).combine_chunks() for side in (left, right)]
    spec = {"kind": "intervals", "closed": values.closed, "of": left.spec}
    return Column(pa.StructArray.from_arrays(sides, ["left", "right"]), spec)


def _get_intervals(data: pa.ChunkedArray, spec: Spec) -> PandasArray:
    sides = data.combine_chunks()
    left, right = (get(pa.chunked_array([sides.field(side)]), spec["of"]) for side in range(2))
    return pd.arrays.IntervalArray.from_arrays(left, right, closed=spec["closed"])


def _put_categories(values: Any) -> Column:
    """Store the values, so that any reader sees them; text as a dictionary, which others read as categories."""
    inner = put(values.categories.array, ".cat.categories")
    whole = inner.whole(len(values.categories))
    known = whole.combine_chunks()
    codes = np.asarray(values.codes, np.int32)
    rows = pa.array(codes, mask=codes < 0)
    if pa.types.is_large_string(known.type):
        # The one type of dictionary that Parquet brings back.
        data = pa.DictionaryArray.from_arrays(rows, known.cast(pa.string()), ordered=bool(values.ordered))
    else:
        data = known.take(rows)
    is_ordered = bool(values.ordered)
    spec = {"kind": "categories", "ordered": is_ordered, "of": inner.spec, "packed": pack(whole)}
    return Column(data, spec)


def _get_categories(data: pa.ChunkedArray, spec: Spec) -> PandasArray:
    packed = unpack(spec["packed"])
    categories = to_index(get(packed, spec["of"]))
    codes, is_there = np.full(len(data), -1), data.is_valid().to_numpy()
    if pa.types.is_dictionary(data.type):
        texts = data.unify_dictionaries().combine_chunks()
        known = get(pa.chunked_array([texts.dictionary]).cast(packed.type), spec["of"])
        codes[is_there] = categories.get_indexer(to_index(known))[texts.indices.drop_null().to_numpy()]
    else:
        codes[is_there] = categories.get_indexer(to_index(get(data.drop_null(), spec["of"])))
    return pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(categories, ordered=spec["ordered"]))


# ----------------------------------------------------------------------------------- Python objects

# What pyarrow brings back as it is; whether it does is compared.
_NATIVE = {bool, int, float, list, dict, dt.date, dt.time, dt.datetime, dt.timedelta, Decimal}


def _put_objects(values: Any) -> Column:
    """Store objects of one type in an Arrow type, all others as JSON that names their types.

    Gaps of one kind, None or NaN, become nulls.
    """
    values = np.asarray(values)
    kinds = set(map(type, values))
    is_nan_missing = len(kinds) == 2 and float in kinds and type(None) not in kinds
    if is_nan_missing:
        is_nan_missing = all(item != item for item in values if type(item) is float)
    kinds -= {float} if is_nan_missing else {type(None)}
    kind = kinds.pop() if kinds else type(None)
    spec = {"kind": "objects", "of": kind.__name__, "missing": "nan" if is_nan_missing else "None"}
    if kinds:
        return _put_json(values)
    if kind is str or kind is bytes:
        arrow_type = pa.large_string() if kind is str else pa.large_binary()
        return Column(LazyText(values, arrow_type, is_nan_missing=is_nan_missing), spec)
    if kind in _NATIVE or kind is np.ndarray or kind is type(None):
        with suppress(pa.ArrowException, ValueError, TypeError, OverflowError, AttributeError):
            column = Column(pa.array(values, from_pandas=is_nan_missing), spec)
            back = _get_objects(column.whole(len(values)), spec)
            # Aware datetimes come back with whatever class of time zone pyarrow finds.
            if getattr(column.data.type, "tz", None) is None and identical(list(values), list(back)):
                return column
    return _put_json(values)


def _get_objects(data: pa.ChunkedArray, spec: Spec) -> NumpyArray:
    if spec["of"] in ("str", "bytes"):
        values = _writeable(data.to_numpy())
    elif spec["of"] == "ndarray":
        items = data.to_pandas()
        values = _objects(item.copy() if isinstance(item, np.ndarray) else item for item in items)
    else:
        values = _objects(data.to_pylist())
    if spec["missing"] == "nan" and data.null_count:
        values[data.is_null().to_numpy()] = np.nan
    return values


# JSON is exact for them, which need not be checked for each of a million rows.
_PLAIN = frozenset({str, bool, type(None)})
_to_text = json.JSONEncoder(separators=(",", ":")).encode


def _put_json(values: NumpyArray) -> Column:
    texts = []
    for row, value in enumerate(values):
        if type(value) in _PLAIN or (type(value) is int and abs(value) < 2**63):
            texts.append(_to_text(value))
            continue
        try:
            texts.append(_to_text(dump(value)))
            if not identical(_from_text(texts[-1]), value):
                raise UnsupportedTypeError("it would come back changed")
        except UnsupportedTypeError as error:
            kind = type_name(type(value))
            raise UnsupportedTypeError(
                f"row {row} of an object column has a {kind}: {error}; convert the column to one dtype, "
                "or its values to str, numbers or dates",
                type=kind,
            ) from error
    return Column(pa.array(texts, pa.large_string()), {"kind": "json"})


def _get_json(data: pa.ChunkedArray, spec: Spec) -> NumpyArray:
    return _objects(map(_from_text, data.to_pylist()))


def _from_text(text: str) -> Any:
    node = json.loads(text)
    return load(node) if type(node) in (dict, list) else node


def _objects(items: Iterable[Any]) -> NumpyArray:
    items = list(items)
    values = np.empty(len(items), object)
    for position, item in enumerate(items):  # A plain assignment would unpack lists.
        values[position] = item
    return values


def _put_as_airflow(values: Any, path: str, changes: list[Change], error: UnsupportedTypeError) -> Column:
    """Store what Airflow's default returns for an array, which is what pyarrow makes of it.

    Raises:
        UnsupportedTypeError: ``error``, if pyarrow refuses it too.
    """
    try:
        data = pa.array(values, from_pandas=True)
        result = data.to_pandas()
    except Exception:  # noqa: BLE001 - Arrays of other libraries convert themselves and raise anything.
        raise error from None
    pairs = (
        (type_name(type(one)), type_name(type(other))) for one, other in zip(values, result, strict=True)
    )
    same = (str(values.dtype), str(result.dtype))
    changes.append(Change(path, *next((pair for pair in pairs if pair[0] != pair[1]), same)))
    if result.dtype != object:
        return put(result.array, path)
    return Column(data, {"kind": "objects", "of": "ndarray", "missing": "None"})


# --------------------------------------------------------------------------------------------- kinds


class _Kind(NamedTuple):
    put: Callable[[Any], Column]
    get: Callable[[pa.ChunkedArray, Spec], Any]


_KINDS = {
    "numbers": _Kind(_put_numbers, _get_numbers),
    "masked": _Kind(_put_masked, _get_masked),
    "strings": _Kind(_put_strings, _get_strings),
    "arrow": _Kind(_put_arrow, _get_arrow),
    "datetimes": _Kind(_put_datetimes, _get_datetimes),
    "periods": _Kind(_put_periods, _get_periods),
    "intervals": _Kind(_put_intervals, _get_intervals),
    "categories": _Kind(_put_categories, _get_categories),
    "objects": _Kind(_put_objects, _get_objects),  # Compares by itself.
    "json": _Kind(_put_json, _get_json),
}
_TRUSTED = {"numbers", "masked", "strings", "arrow", "datetimes", "objects"}

_KIND_OF_ARRAY = {
    pd.arrays.IntegerArray: "masked",
    pd.arrays.FloatingArray: "masked",
    pd.arrays.BooleanArray: "masked",
    pd.arrays.ArrowExtensionArray: "arrow",
    pd.arrays.PeriodArray: "periods",
    pd.arrays.IntervalArray: "intervals",
    pd.Categorical: "categories",
}


def _kind_of(values: Any) -> str:
    dtype = getattr(values.dtype, "numpy_dtype", values.dtype)
    if type(values) in _KIND_OF_ARRAY:
        return _KIND_OF_ARRAY[type(values)]
    if isinstance(dtype, pd.StringDtype):
        return "strings"
    if isinstance(dtype, pd.DatetimeTZDtype):
        return "datetimes"
    if (
        isinstance(dtype, np.dtype)
        and dtype.itemsize <= {"O": 8, "c": 16}.get(dtype.kind, 8)
        and dtype.kind in "ObiufcmM"
    ):
        return "objects" if dtype.kind == "O" else "numbers"
    hint = ".sparse.to_dense()" if isinstance(dtype, pd.SparseDtype) else ".astype()"
    raise UnsupportedTypeError(f"dtype {dtype} cannot be stored; convert it with {hint}")
