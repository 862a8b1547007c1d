"""Strict comparison of pandas, polars, and pyarrow values.

Stricter than the libraries' own ``equals``: ``0.0`` is not ``-0.0``, None is not NaN, an Arrow dtype
is not a NumPy dtype, the order of categories counts, and metadata belongs to the value. Only what
nobody sees is ignored: chunks, and what lies below a null.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import UnsupportedTypeError
from ..equality import identical

if TYPE_CHECKING:
    import polars as pl

__all__ = ["frames_equal"]


def frames_equal(left: Any, right: Any) -> bool:
    """Compare two frames, Series, tables, or record batches."""
    if type(left) is not type(right):
        return False
    library = type(left).__module__.partition(".")[0]
    if library == "polars":
        return _polars_equal(left, right)
    if library == "pyarrow":
        return _pyarrow_equal(left, right)
    try:
        return _pandas_equal(left, right)
    except UnsupportedTypeError:  # It has values that no codec takes.
        return bool(left.equals(right))


def _pandas_equal(left: Any, right: Any) -> bool:
    import pandas as pd

    from .pandas_columns import arrays_equal
    from .pandas_indexes import indexes_equal

    if not indexes_equal(left.index, right.index) or not identical(left.attrs, right.attrs):
        return False
    if left.flags.allows_duplicate_labels != right.flags.allows_duplicate_labels:
        return False
    if isinstance(left, pd.Series):
        return identical(left.name, right.name) and arrays_equal(left.array, right.array)
    return indexes_equal(left.columns, right.columns) and all(
        arrays_equal(mine.array, theirs.array)
        for (_, mine), (_, theirs) in zip(left.items(), right.items(), strict=True)
    )


def _polars_equal(left: Any, right: Any) -> bool:
    import polars as pl

    if isinstance(left, pl.Series):
        return left.name == right.name and _series_equal(left, right)
    return (
        left.columns == right.columns
        and left.shape == right.shape
        and all(map(_series_equal, left.get_columns(), right.get_columns()))
    )


def _series_equal(left: pl.Series, right: pl.Series) -> bool:
    import polars as pl

    dtype: Any = left.dtype
    other: Any = right.dtype
    if type(dtype) is not type(other) or len(left) != len(right):
        return False
    if isinstance(dtype, pl.Array):
        mine, theirs = left.cast(pl.List(dtype.inner)), right.cast(pl.List(other.inner))
        return dtype.shape == other.shape and _series_equal(mine, theirs)
    if isinstance(dtype, pl.List):
        return left.list.len().equals(right.list.len()) and _series_equal(left.explode(), right.explode())
    if isinstance(dtype, pl.Struct):
        is_same = left.is_null().equals(right.is_null())
        return is_same and _polars_equal(left.struct.unnest(), right.struct.unnest())
    if isinstance(dtype, pl.Categorical):
        return dtype == other and left.cast(pl.String).equals(right.cast(pl.String))
    if isinstance(dtype, pl.Decimal) and dtype.precision != other.precision:
        # Before polars 1.34 a Decimal without precision is one of 38 digits.
        is_same = {dtype.precision, other.precision} == {None, 38} and dtype.scale == other.scale
        return is_same and left.cast(pl.String).equals(right.cast(pl.String))
    # 0.0 equals -0.0, and their reciprocals differ.
    return dtype == other and left.equals(right) and (not dtype.is_float() or (1 / left).equals(1 / right))


def _pyarrow_equal(left: Any, right: Any) -> bool:
    import pyarrow as pa

    from .arrow_files import arrow_equal

    if isinstance(left, pa.RecordBatch):
        left, right = pa.Table.from_batches([left]), pa.Table.from_batches([right])
    return (
        left.schema.equals(right.schema, check_metadata=True)
        and left.num_rows == right.num_rows
        and all(map(arrow_equal, left.columns, right.columns))
    )
