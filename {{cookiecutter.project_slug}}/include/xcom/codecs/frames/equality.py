"""Whether two frames are the same: equal in value, type, labels, flags and missing markers.

Stricter than the libraries' own ``equals``: ``0.0`` is not ``-0.0``, None is not NaN, an Arrow
dtype is not a NumPy dtype, the order of categories counts, and metadata belongs to the value.
Only what no one can see is ignored: chunks, and what lies below a null.
"""

from __future__ import annotations

from datetime import tzinfo
from typing import Any

__all__ = ["arrays_equal", "arrow_equal", "frames_equal", "indexes_equal", "objects_equal", "same_object"]


def frames_equal(one: Any, other: Any) -> str | None:
    """Compare two frames of pandas, polars or pyarrow.

    Returns:
        The path of the first difference in Python's notation (``"['price']"``, ``".index"``, ``""``
        for the value itself), or None if there is none.
    """
    if type(one) is not type(other):
        return ""
    library = type(one).__module__.partition(".")[0]
    name = type(one).__name__
    if library == "pandas":
        return _pandas_difference(one, other, name)
    if library == "polars":
        return _polars_difference(one, other, name)
    return _pyarrow_difference(one, other)


# -------------------------------------------------------------------------------------------- pandas


def _pandas_difference(one: Any, other: Any, name: str) -> str | None:
    if name == "Series":
        if not same_object(one.name, other.name):
            return ".name"
        if not arrays_equal(one.array, other.array):
            return ""
    elif not indexes_equal(one.columns, other.columns):
        return ".columns"
    if not indexes_equal(one.index, other.index):
        return ".index"
    if not same_object(one.attrs, other.attrs):
        return ".attrs"
    if one.flags.allows_duplicate_labels != other.flags.allows_duplicate_labels:
        return ".flags.allows_duplicate_labels"
    if name == "DataFrame":
        for (label, mine), (_, theirs) in zip(one.items(), other.items(), strict=True):
            if not arrays_equal(mine.array, theirs.array):
                return f"[{label!r}]"
    return None


def indexes_equal(one: Any, other: Any) -> bool:
    """Compare two pandas indexes: class, names, dtype, values, frequency, levels and codes."""
    import pandas as pd

    if type(one) is not type(other) or len(one) != len(other):
        return False
    if not same_object(list(one.names), list(other.names)):
        return False
    if isinstance(one, pd.RangeIndex):
        return (one.start, one.stop, one.step) == (other.start, other.stop, other.step)
    if isinstance(one, pd.MultiIndex):
        import numpy as np

        return one.nlevels == other.nlevels and all(
            np.array_equal(one.codes[i], other.codes[i])
            and arrays_equal(one.levels[i].array, other.levels[i].array)
            and getattr(one.levels[i], "freq", None) == getattr(other.levels[i], "freq", None)
            for i in range(one.nlevels)
        )
    if getattr(one, "freq", None) != getattr(other, "freq", None):
        return False
    return arrays_equal(one.array, other.array)


def arrays_equal(one: Any, other: Any) -> bool:
    """Compare two pandas arrays: dtype with its time zone or categories, and every element."""
    import numpy as np
    import pandas as pd

    if type(one) is not type(other) or len(one) != len(other):
        return False
    if type(one) is pd.arrays.NumpyExtensionArray:  # the strings of pandas derive from it
        one, other = np.asarray(one), np.asarray(other)
    dtype = one.dtype
    if not _dtypes_equal(dtype, other.dtype):
        return False
    if isinstance(dtype, np.dtype) and dtype.kind not in "mM":
        return _numpy_equal(np.asarray(one), np.asarray(other))
    if isinstance(dtype, pd.CategoricalDtype):
        return np.array_equal(one.codes, other.codes)
    if isinstance(dtype, pd.IntervalDtype):
        return arrays_equal(one.left.array, other.left.array) and arrays_equal(
            one.right.array, other.right.array
        )
    if hasattr(one, "asi8"):
        return np.array_equal(one.asi8, other.asi8)
    if isinstance(dtype, pd.StringDtype) and dtype.storage == "python":
        return objects_equal(one.to_numpy(dtype=object), other.to_numpy(dtype=object))
    import pyarrow as pa

    if isinstance(dtype, pd.SparseDtype):
        return False
    mine, theirs = pa.array(one), pa.array(other)
    if isinstance(dtype, pd.StringDtype):  # may lie in string or large_string: the same dtype
        mine, theirs = mine.cast(pa.large_string()), theirs.cast(pa.large_string())
    return arrow_equal(mine, theirs)


def _dtypes_equal(one: Any, other: Any) -> bool:
    import pandas as pd

    if type(one) is not type(other):
        return False
    if isinstance(one, pd.CategoricalDtype):
        return one.ordered == other.ordered and indexes_equal(one.categories, other.categories)
    if isinstance(one, pd.IntervalDtype):
        return one.closed == other.closed and _dtypes_equal(one.subtype, other.subtype)
    if isinstance(one, pd.DatetimeTZDtype):
        return one.unit == other.unit and same_object(one.tz, other.tz)
    if isinstance(one, pd.StringDtype):
        return one.storage == other.storage and one.na_value is other.na_value
    if isinstance(one, pd.ArrowDtype):
        return bool(one.pyarrow_dtype.equals(other.pyarrow_dtype, check_metadata=True))
    return bool(one == other)


def _numpy_equal(one: Any, other: Any) -> bool:
    import numpy as np

    if one.dtype.kind == "O":
        return objects_equal(one, other)
    if one.dtype.kind == "c":
        return _numpy_equal(one.real, other.real) and _numpy_equal(one.imag, other.imag)
    if one.dtype.kind == "f":
        if not np.array_equal(one, other, equal_nan=True):
            return False
        zeros = one == 0
        return not zeros.any() or np.array_equal(np.signbit(one[zeros]), np.signbit(other[zeros]))
    return np.array_equal(one, other)


def objects_equal(one: Any, other: Any) -> bool:
    """Compare two sequences of Python objects, element by element and type by type."""
    return len(one) == len(other) and all(map(same_object, one, other))


def same_object(one: Any, other: Any) -> bool:
    """Compare two Python objects: type, value, sign of zero, digits of decimals, time zone, fold."""
    if one is other:
        return True
    kind = type(one)
    if kind is not type(other):
        return False
    if kind is str or kind is int or kind is bool or kind is bytes:
        return bool(one == other)
    if kind is list or kind is tuple:
        return objects_equal(one, other)
    if kind is dict:
        return objects_equal(list(one), list(other)) and objects_equal(
            list(one.values()), list(other.values())
        )
    from .labels import encode_label, encode_tz

    if kind.__name__ == "ndarray":
        return bool(
            one.dtype == other.dtype
            and one.shape == other.shape
            and (one.tobytes() == other.tobytes() if not one.dtype.hasobject else False)
        )
    try:
        if isinstance(one, tzinfo):
            return bool(encode_tz(one) == encode_tz(other))
        return bool(encode_label(one) == encode_label(other))
    except TypeError:
        return False


# -------------------------------------------------------------------------------------------- polars


def _polars_difference(one: Any, other: Any, name: str) -> str | None:
    if name == "Series":
        if one.name != other.name:
            return ".name"
        return None if _polars_series_equal(one, other) else ""
    if one.columns != other.columns:
        return ".columns"
    if one.shape != other.shape:
        return ".shape"
    for mine, theirs in zip(one.get_columns(), other.get_columns(), strict=True):
        if not _polars_series_equal(mine, theirs):
            return f"[{mine.name!r}]"
    return None


def _polars_series_equal(one: Any, other: Any) -> bool:
    if one.dtype != other.dtype or len(one) != len(other):
        return False
    if not len(one):  # categories without rows are unequal before 1.31
        return True
    if one.dtype.is_float() or one.dtype.is_nested():
        # polars holds 0.0 equal to -0.0, and its 1.20 panics over nested values of unequal layout.
        # Taken anew, as slices of nested values cannot be handed over before 2.0.
        import polars as pl

        rows = pl.int_range(len(one), eager=True)
        return arrow_equal(one.gather(rows).to_arrow(), other.gather(rows).to_arrow())
    return bool(one.equals(other, check_dtypes=True, null_equal=True))


# ------------------------------------------------------------------------------------------- pyarrow


def _pyarrow_difference(one: Any, other: Any) -> str | None:
    if not one.schema.equals(other.schema, check_metadata=True):
        for mine, theirs in zip(one.schema, other.schema, strict=False):
            if not mine.equals(theirs, check_metadata=True):
                return f"[{mine.name!r}]"
        return ".schema"
    if one.num_rows != other.num_rows:
        return ".num_rows"
    for field, mine, theirs in zip(one.schema, one.columns, other.columns, strict=True):
        if not arrow_equal(mine, theirs):
            return f"[{field.name!r}]"
    return None


def arrow_equal(one: Any, other: Any) -> bool:
    """Compare two Arrow arrays, chunked or not: type, nulls, and every value bit by bit."""
    import pyarrow as pa

    if not one.type.equals(other.type, check_metadata=True) or len(one) != len(other):
        return False
    if isinstance(one, pa.ChunkedArray) or isinstance(other, pa.ChunkedArray):
        one, other = _combine(one), _combine(other)
    if one.null_count != other.null_count:
        return False
    kind = one.type
    if isinstance(kind, pa.BaseExtensionType):
        return arrow_equal(one.storage, other.storage)
    if pa.types.is_floating(kind):
        # Arrow holds NaN unequal to itself, and 0.0 equal to -0.0.
        bits = {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}[kind.bit_width]
        return bool(one.view(bits).equals(other.view(bits)))
    if pa.types.is_dictionary(kind):
        return arrow_equal(one.indices, other.indices) and arrow_equal(one.dictionary, other.dictionary)
    if pa.types.is_struct(kind):
        return bool(one.is_valid().equals(other.is_valid())) and all(
            arrow_equal(mine, theirs) for mine, theirs in zip(one.flatten(), other.flatten(), strict=True)
        )
    if pa.types.is_fixed_size_list(kind):
        return bool(one.is_valid().equals(other.is_valid())) and arrow_equal(one.flatten(), other.flatten())
    if pa.types.is_map(kind):
        return arrow_equal(_as_list(one), _as_list(other))
    if hasattr(one, "value_lengths"):
        return (
            bool(one.is_valid().equals(other.is_valid()))
            and bool(one.value_lengths().equals(other.value_lengths()))
            and arrow_equal(one.flatten(), other.flatten())
        )
    return bool(one.equals(other))


def _as_list(array: Any) -> Any:
    """View a map as the list of entries that it is in memory: the functions of lists do not take maps."""
    import pyarrow as pa

    entries = array.values
    kind = pa.list_(pa.field("entries", entries.type, nullable=False))
    return pa.Array.from_buffers(
        kind, len(array), array.buffers()[:2], array.null_count, array.offset, children=[entries]
    )


def _combine(array: Any) -> Any:
    import pyarrow as pa

    if not isinstance(array, pa.ChunkedArray):
        return array
    if array.num_chunks == 1:
        return array.chunk(0)
    if not array.num_chunks:
        return pa.nulls(0, array.type) if not pa.types.is_dictionary(array.type) else array.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.unify_dictionaries()
    return array.combine_chunks()
