"""The arrays of pandas as Arrow columns, and back: one entry per family of dtypes.

``describe`` looks at an array once and says how it will be stored; nothing is converted before a
slice is asked for, so that a large frame is never held twice. ``restore`` rebuilds the array from
what was read and the JSON ``spec`` that ``describe`` made.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from .equality import objects_equal
from .formats import is_plain, unsupported
from .labels import decode_tz, encode_tz, from_text, to_text

__all__ = ["Column", "Spec", "describe", "restore"]

Spec = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """How one array is stored.

    Args:
        spec: What ``restore`` needs beside the Arrow column; JSON.
        type: Of the Arrow column.
        convert: Returns rows ``start`` to ``stop`` as an Arrow array.
        is_known: It comes back unchanged, for what its dtype is. Others are read back and compared.
        copied_bytes: What converting all rows allocates.
    """

    spec: Spec
    type: Any
    convert: Callable[[int, int], Any]
    is_known: bool = True
    copied_bytes: int = 0


def describe(values: Any, path: str) -> Column:
    """Decide how to store a NumPy or pandas array.

    Raises:
        UnsupportedTypeError: It would not come back; ``path`` is repeated in the error.
    """
    import numpy as np
    import pandas as pd

    if type(values) is pd.arrays.NumpyExtensionArray:  # the strings of pandas derive from it
        values = np.asarray(values)
    dtype = values.dtype
    if isinstance(dtype, np.dtype):
        return _describe_numpy(np.asarray(values), path)
    for kind, describe_kind in (
        (pd.DatetimeTZDtype, _describe_datetimes),
        (pd.StringDtype, _describe_strings),
        (pd.ArrowDtype, _describe_arrow),
        (pd.PeriodDtype, _describe_periods),
        (pd.IntervalDtype, _describe_intervals),
    ):
        if type(dtype) is kind:
            return describe_kind(values, path)
    if type(dtype).__name__ in _MASKED:
        return _describe_masked(values, path)
    if isinstance(dtype, pd.SparseDtype):
        raise unsupported(path, f"dtype {dtype} cannot be stored; convert it with .sparse.to_dense()")
    raise unsupported(path, f"dtype {dtype} cannot be stored; convert it to a dtype of pandas with .astype()")


def restore(column: Any, spec: Spec) -> Any:
    """Rebuild the NumPy or pandas array; NumPy arrays are writable and own or share fresh memory."""
    return _RESTORERS[spec["k"]](column, spec)


# --------------------------------------------------------------------------------------------- NumPy


def _describe_numpy(values: Any, path: str) -> Column:
    import numpy as np
    import pyarrow as pa

    dtype = values.dtype
    if dtype.kind == "O":
        return _describe_objects(values, path)
    if dtype.kind == "c" and dtype.itemsize <= 16:
        return _describe_complex(values)
    if dtype.kind not in "biufmM" or dtype.itemsize > 8:
        raise unsupported(path, f"dtype {dtype} cannot be stored; convert it with .astype()")
    native = dtype.newbyteorder("=")

    # NaN is written as null, as pandas does itself: to SQL engines it is a missing value.
    def convert(start: int, stop: int) -> Any:
        return pa.array(values[start:stop].astype(native, copy=False), from_pandas=True)

    is_copied = dtype.kind == "b" or dtype != native or not values.flags.c_contiguous
    return Column(
        spec={"k": "numpy", "dtype": dtype.str},
        type=pa.from_numpy_dtype(native),
        convert=convert,
        # Parquet holds seconds as milliseconds: years beyond 292 million do not fit.
        is_known=np.datetime_data(dtype)[0] != "s" if dtype.kind == "M" else True,
        copied_bytes=values.nbytes if is_copied else 0,
    )


def _restore_numpy(column: Any, spec: Spec) -> Any:
    import numpy as np

    dtype = np.dtype(spec["dtype"])
    if dtype.hasobject:
        raise ValueError(f"dtype {dtype} in a numeric column")
    native = dtype.newbyteorder("=")
    if column.num_chunks == 1 and not column.null_count and native.kind != "b":
        # Decoded memory, or that of the payload, is ours alone: taken as it is, and writable, unlike what
        # to_numpy returns.
        chunk = column.chunk(0)
        buffer = chunk.buffers()[1]
        memory = buffer
        while memory is not None and not memory.is_mutable:
            memory = memory.parent
        if len(chunk) and memory is not None and chunk.type.bit_width == 8 * native.itemsize:
            start = buffer.address - memory.address + chunk.offset * native.itemsize
            values = np.frombuffer(memory, native, len(chunk), start)
            if values.flags.aligned:
                return values.astype(dtype, copy=False)
    values = column.to_numpy(zero_copy_only=False) if len(column) else np.empty(0, native)
    values = values.astype(dtype, copy=False)
    return values if values.flags.writeable else values.copy()


def _describe_complex(values: Any) -> Column:
    import pyarrow as pa

    part = values.real.dtype.newbyteorder("=")

    def convert(start: int, stop: int) -> Any:
        numbers = values[start:stop]
        parts = [pa.array(side.astype(part), from_pandas=False) for side in (numbers.real, numbers.imag)]
        return pa.StructArray.from_arrays(parts, ["real", "imag"])

    kind = pa.from_numpy_dtype(part)
    return Column(
        spec={"k": "complex", "dtype": values.dtype.str},
        type=pa.struct([("real", kind), ("imag", kind)]),
        convert=convert,
        is_known=False,
        copied_bytes=values.nbytes,
    )


def _restore_complex(column: Any, spec: Spec) -> Any:
    import numpy as np

    values = np.empty(len(column), np.dtype(spec["dtype"]))
    if len(column):
        struct = column.combine_chunks()
        values.real = struct.field("real").to_numpy(zero_copy_only=False)
        values.imag = struct.field("imag").to_numpy(zero_copy_only=False)
    return values


# ------------------------------------------------------------------------------------- pandas dtypes


_MASKED = {
    **{f"{sign}Int{bits}Dtype": f"{sign}Int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
    "Float32Dtype": "Float32",
    "Float64Dtype": "Float64",
    "BooleanDtype": "boolean",
}


def _describe_masked(values: Any, path: str) -> Column:
    import numpy as np
    import pyarrow as pa

    dtype = values.dtype
    numeric = dtype.numpy_dtype
    mask = np.asarray(values.isna())
    data = values.to_numpy(dtype=numeric, na_value=numeric.type(0))
    return Column(
        spec={"k": "masked", "dtype": _MASKED[type(dtype).__name__]},
        type=pa.from_numpy_dtype(numeric),
        # NaN is a value here and pd.NA the missing one.
        convert=lambda start, stop: pa.array(data[start:stop], mask=mask[start:stop], from_pandas=False),
        is_known=numeric.kind != "f" or not np.isnan(data).any(),
        copied_bytes=len(values) * (numeric.itemsize + 1),
    )


def _restore_masked(column: Any, spec: Spec) -> Any:
    import pandas as pd

    if spec["dtype"] not in _MASKED.values():
        raise ValueError(f"dtype {spec['dtype']!r}")
    return pd.api.types.pandas_dtype(spec["dtype"]).__from_arrow__(column)


def _describe_datetimes(values: Any, path: str) -> Column:
    import numpy as np
    import pyarrow as pa

    unit, tz = values.dtype.unit, values.dtype.tz
    try:
        facts = encode_tz(tz)
    except TypeError as error:
        raise unsupported(path, f"cannot store {error}") from None
    name = getattr(tz, "key", None) or getattr(tz, "zone", None)
    if name is None:
        minutes, rest = divmod(tz.utcoffset(None).total_seconds(), 60)
        # Arrow has no offsets with seconds: readers then see the same instants in UTC.
        hours = f"{'-' if minutes < 0 else '+'}{int(abs(minutes)) // 60:02}:{int(abs(minutes)) % 60:02}"
        name = "UTC" if rest or not minutes else hours
    kind = pa.timestamp(unit, tz=name)
    instants = values.asi8.view(f"M8[{unit}]")
    return Column(
        spec={"k": "datetimes", "unit": unit, "tz": facts},
        type=kind,
        convert=lambda start, stop: pa.array(np.ascontiguousarray(instants[start:stop]), kind),
        is_known=unit != "s",
    )


def _restore_datetimes(column: Any, spec: Spec) -> Any:
    import pandas as pd

    instants = _restore_numpy(column.cast(_timestamp(spec["unit"])), {"dtype": f"<M8[{spec['unit']}]"})
    return pd.DatetimeIndex(instants).tz_localize("UTC").tz_convert(decode_tz(spec["tz"])).array


def _timestamp(unit: str) -> Any:
    import pyarrow as pa

    return pa.timestamp(unit)


def _describe_strings(values: Any, path: str) -> Column:
    import pyarrow as pa

    dtype = values.dtype
    missing = "NA" if dtype.na_value is _pandas().NA else "nan"
    storage = "pyarrow" if dtype.storage.startswith("pyarrow") else "python"
    spec = {"k": "strings", "storage": storage, "missing": missing}
    kind = pa.large_string()
    if storage == "pyarrow":
        # Arrow already: a slice is a view.
        lies = pa.array(values)
        lies = lies if lies.type == kind else lies.cast(kind)
        return Column(spec, kind, _slicer(lies))
    return _describe_text(values.to_numpy(dtype=object), values.isna(), spec, path)


def _restore_strings(column: Any, spec: Spec) -> Any:
    pd = _pandas()
    if spec["missing"] == "NA":
        dtype = pd.StringDtype(spec["storage"])
    else:
        try:
            dtype = pd.StringDtype(spec["storage"], na_value=float("nan"))
        except TypeError:  # drop when pandas >= 2.3
            dtype = pd.StringDtype("pyarrow_numpy")
    return dtype.__from_arrow__(column)


def _describe_arrow(values: Any, path: str) -> Column:
    import pyarrow as pa

    lies = pa.array(values)
    kind = values.dtype.pyarrow_dtype
    if isinstance(lies, pa.Array):
        lies = pa.chunked_array([lies])
    return Column(
        spec={"k": "arrow"},
        type=kind,
        convert=_slicer(lies),
        is_known=is_plain(kind),
    )


def _restore_arrow(column: Any, spec: Spec) -> Any:
    return _pandas().arrays.ArrowExtensionArray(column)


def _describe_periods(values: Any, path: str) -> Column:
    import numpy as np
    import pyarrow as pa

    mask = np.asarray(values.isna())
    ordinals = values.asi8
    return Column(
        spec={"k": "periods", "freq": values.dtype.name[len("period[") : -1]},
        type=pa.int64(),
        convert=lambda start, stop: pa.array(ordinals[start:stop], mask=mask[start:stop]),
        is_known=False,  # a freq may have more to it than its name says
        copied_bytes=len(values),
    )


def _restore_periods(column: Any, spec: Spec) -> Any:
    return _pandas().PeriodDtype(spec["freq"]).__from_arrow__(column)


def _describe_intervals(values: Any, path: str) -> Column:
    import pyarrow as pa

    left, right = describe(values.left.array, path), describe(values.right.array, path)

    def convert(start: int, stop: int) -> Any:
        sides = [_one_array(side.convert(start, stop)) for side in (left, right)]
        return pa.StructArray.from_arrays(sides, ["left", "right"])

    return Column(
        spec={"k": "intervals", "closed": values.closed, "side": left.spec},
        type=pa.struct([("left", left.type), ("right", right.type)]),
        convert=convert,
        is_known=False,
        copied_bytes=left.copied_bytes + right.copied_bytes,
    )


def _restore_intervals(column: Any, spec: Spec) -> Any:
    import pyarrow as pa

    sides = []
    for position in range(2):
        chunks = [chunk.field(position) for chunk in column.chunks]
        side = pa.chunked_array(chunks, type=column.type.field(position).type)
        sides.append(restore(side, spec["side"]))
    return _pandas().arrays.IntervalArray.from_arrays(*sides, closed=spec["closed"])


# ------------------------------------------------------------------------------------ object columns


_OBJECTS: dict[type, str] = {
    str: "str",
    bytes: "bytes",
    bool: "bool",
    int: "int",
    float: "float",
    list: "list",
    dict: "dict",
    dt.date: "date",
    dt.time: "time",
    dt.datetime: "datetime",
    dt.timedelta: "timedelta",
    Decimal: "Decimal",
    uuid.UUID: "UUID",
}


def _describe_objects(values: Any, path: str) -> Column:
    """Store objects of one exact type natively, all others as JSON text that names their types.

    Beside them one kind of missing value (None, NaN, NaT or pd.NA) becomes null.
    """
    import numpy as np
    import pyarrow as pa

    pd = _pandas()
    kinds, gone, mask = set(map(type, values)), set(), None
    if not kinds.isdisjoint((type(None), type(pd.NA), type(pd.NaT), float)):
        mask = pd.isna(values)
        kinds, gone = set(map(type, values[~mask])), set(map(type, values[mask]))
        if float in kinds and float in gone:  # NaN is one of the numbers, not what marks a gap
            mask = np.fromiter((item is None or item is pd.NA or item is pd.NaT for item in values), bool)
            gone = set(map(type, values[mask]))
    marker = _marker(gone)
    if marker is None or len(kinds) > 1:
        return _describe_json(values, path)
    kind = kinds.pop() if kinds else None
    spec: Spec = {"k": "objects", "of": "null", "missing": marker}
    if kind is None:
        return Column(spec, pa.null(), lambda start, stop: pa.nulls(stop - start))
    if kind is np.ndarray:
        spec["of"] = "ndarray"
    elif kind in _OBJECTS:
        spec["of"] = _OBJECTS[kind]
    else:
        return _describe_json(values, path)
    if kind is str or kind is bytes:
        return _describe_text(values, mask, spec, path)
    return _describe_native(values, mask, spec) or _describe_json(values, path)


def _marker(gone: set[type]) -> str | None:
    """Name the one kind of missing value, or return None if there are several, or an odd one."""
    names = {"NoneType": "None", "NAType": "NA", "NaTType": "NaT", "float": "nan"}
    if not gone:
        return "None"
    return names.get(next(iter(gone)).__name__) if len(gone) == 1 else None


def _describe_text(values: Any, mask: Any, spec: Spec, path: str) -> Column:
    import pyarrow as pa

    kind = pa.large_binary() if spec.get("of") == "bytes" else pa.large_string()

    def convert(start: int, stop: int) -> Any:
        part = None if mask is None else mask[start:stop]
        try:
            return pa.array(values[start:stop], kind, mask=part, from_pandas=False)
        except UnicodeEncodeError:
            reason = "a string has a lone surrogate, which is no text; replace or drop such characters"
            raise unsupported(path, reason) from None

    sample = values[:: max(len(values) // 1000, 1)]
    size = (
        sum(len(item) for item in sample if type(item) in (str, bytes)) * len(values) // max(len(sample), 1)
    )
    return Column(spec, kind, convert, copied_bytes=size + 8 * len(values))


def _describe_native(values: Any, mask: Any, spec: Spec) -> Column | None:
    """Find an Arrow type that brings the objects back exactly."""
    import numpy as np
    import pyarrow as pa

    def as_arrow() -> Any:
        return pa.array(values, mask=mask, from_pandas=False)

    def as_text() -> Any:
        gone = np.zeros(len(values), bool) if mask is None else mask
        texts = [None if skip else str(item) for item, skip in zip(values, gone, strict=True)]
        return pa.array(texts, pa.large_string())

    # Decimals of unequal scale are kept as text: in one decimal column 1.1 would come back as 1.10.
    ways = {"Decimal": [as_arrow, as_text], "UUID": [as_text]}.get(spec["of"], [as_arrow])
    for way in ways:
        try:
            lies = way()
            lies = pa.chunked_array([lies]) if isinstance(lies, pa.Array) else lies
            # Aware datetimes come back with whatever class of time zone pyarrow finds: not for us.
            is_same = getattr(lies.type, "tz", None) is None and objects_equal(values, restore(lies, spec))
        except (pa.ArrowException, ValueError, TypeError, OverflowError, AttributeError):
            continue
        if is_same:
            return Column(spec, lies.type, _slicer(lies), is_known=is_plain(lies.type))
    return None


def _slicer(lies: Any) -> Callable[[int, int], Any]:
    return lambda start, stop: lies.slice(start, stop - start)


def _describe_json(values: Any, path: str) -> Column:
    import pyarrow as pa

    texts = []
    for row, value in enumerate(values):
        try:
            texts.append(to_text(value))
        except (TypeError, ValueError) as error:
            raise unsupported(
                path,
                f"row {row} of an object column has {error}, which cannot be stored; "
                "convert the column to one dtype, or its values to str, numbers or dates",
            ) from None
    lies = pa.chunked_array([pa.array(texts, pa.large_string())])
    restored = _restore_json(lies, {})
    for row, (value, back) in enumerate(zip(values, restored, strict=True)):
        if not objects_equal([value], [back]):
            raise unsupported(
                path,
                f"row {row} of an object column has a {type(value).__module__}.{type(value).__qualname__} "
                "that would come back changed; convert it to str, a number or a date",
            )
    return Column({"k": "json"}, pa.large_string(), _slicer(lies))


def _restore_json(column: Any, spec: Spec) -> Any:
    return _object_array([from_text(text) for text in column.to_pylist()])


def _restore_objects(column: Any, spec: Spec) -> Any:
    import numpy as np
    import pyarrow as pa

    pd = _pandas()
    of = spec["of"]
    missing = {"None": None, "nan": np.nan, "NA": pd.NA, "NaT": pd.NaT}[spec["missing"]]
    if of in ("str", "bytes"):
        values = column.to_numpy(zero_copy_only=False) if len(column) else np.empty(0, object)
        values = values if values.flags.writeable else values.copy()
    elif of == "ndarray":
        values = _object_array([None if item is None else item.copy() for item in _lists(column)])
    else:
        make = {"UUID": uuid.UUID, "Decimal": Decimal}.get(of)
        items = column.to_pylist()
        if make is not None and not pa.types.is_decimal(column.type):
            items = [None if item is None else make(item) for item in items]
        values = _object_array(items)
    if missing is not None and column.null_count:
        values[column.is_null().to_numpy()] = missing
    return values


def _lists(column: Any) -> Any:
    for chunk in column.chunks:
        flat = chunk.values.to_numpy(zero_copy_only=False)
        offsets = chunk.offsets.to_numpy()
        valid = chunk.is_valid().to_numpy(zero_copy_only=False)
        for start, stop, there in zip(offsets[:-1], offsets[1:], valid, strict=True):
            yield flat[start:stop] if there else None


def _object_array(items: list[Any]) -> Any:
    import numpy as np

    values = np.empty(len(items), object)
    for position, item in enumerate(items):  # a plain assignment would unpack lists
        values[position] = item
    return values


# ------------------------------------------------------------------------------------------- helpers


def _one_array(array: Any) -> Any:
    import pyarrow as pa

    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks() if array.num_chunks != 1 else array.chunk(0)
    return array


def _pandas() -> Any:
    import pandas

    return pandas


_RESTORERS: dict[str, Callable[[Any, Spec], Any]] = {
    "numpy": _restore_numpy,
    "complex": _restore_complex,
    "masked": _restore_masked,
    "datetimes": _restore_datetimes,
    "strings": _restore_strings,
    "arrow": _restore_arrow,
    "periods": _restore_periods,
    "intervals": _restore_intervals,
    "objects": _restore_objects,
    "json": _restore_json,
}
