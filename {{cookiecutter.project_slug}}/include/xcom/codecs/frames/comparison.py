"""Strict comparison of pandas, polars, and pyarrow values.

Stricter than the libraries' own ``equals``: ``0.0`` is not ``-0.0``, None is not NaN, an Arrow dtype
is not a NumPy dtype, the order of categories counts, and metadata belongs to the value. Only what
nobody sees is ignored: chunks, and what lies below a null.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import UnsupportedTypeError
from ..equality import difference

if TYPE_CHECKING:
    import polars as pl

__all__ = ["frame_difference"]


def frame_difference(left: Any, right: Any) -> str | None:
    """Compare two frames, Series, tables, or record batches.

    Returns:
        Path of the first difference in Python's notation (``"['price']"``, ``".index"``, ``""`` for
        the value itself), or None.
    """
    if type(left) is not type(right):
        return ""
    library = type(left).__module__.partition(".")[0]
    if library == "polars":
        return _polars_difference(left, right)
    if library == "pyarrow":
        return _pyarrow_difference(left, right)
    try:
        return _pandas_difference(left, right)
    except UnsupportedTypeError:  # It has values that no codec takes.
        return None if left.equals(right) else ""


def _pandas_difference(left: Any, right: Any) -> str | None:
    import pandas as pd

    from .pandas_columns import arrays_equal
    from .pandas_indexes import indexes_equal

    is_frame = isinstance(left, pd.DataFrame)
    if is_frame and not indexes_equal(left.columns, right.columns):
        return ".columns"
    if not is_frame and difference(left.name, right.name) is not None:
        return ".name"
    if not indexes_equal(left.index, right.index):
        return ".index"
    if difference(left.attrs, right.attrs) is not None:
        return ".attrs"
    if left.flags.allows_duplicate_labels != right.flags.allows_duplicate_labels:
        return ".flags.allows_duplicate_labels"
    if not is_frame:
        return None if arrays_equal(left.array, right.array) else ""
    for (label, mine), (_, theirs) in zip(left.items(), right.items(), strict=True):
        if not arrays_equal(mine.array, theirs.array):
            return f"[{label!r}]"
    return None


def _polars_difference(left: Any, right: Any) -> str | None:
    import polars as pl

    if isinstance(left, pl.Series):
        if left.name != right.name:
            return ".name"
        return None if _polars_equal(left, right) else ""
    if left.columns != right.columns:
        return ".columns"
    if left.shape != right.shape:
        return ".shape"
    for mine, theirs in zip(left.get_columns(), right.get_columns(), strict=True):
        if not _polars_equal(mine, theirs):
            return f"[{mine.name!r}]"
    return None


def _polars_equal(left: pl.Series, right: pl.Series) -> bool:
    import polars as pl

    dtype: Any = left.dtype
    other: Any = right.dtype
    if type(dtype) is not type(other) or len(left) != len(right):
        return False
    if isinstance(dtype, pl.Array):
        mine, theirs = left.cast(pl.List(dtype.inner)), right.cast(pl.List(other.inner))
        return dtype.shape == other.shape and _polars_equal(mine, theirs)
    if isinstance(dtype, pl.List):
        return left.list.len().equals(right.list.len()) and _polars_equal(left.explode(), right.explode())
    if isinstance(dtype, pl.Struct):
        fields, others = left.struct.unnest(), right.struct.unnest()
        is_same = fields.columns == others.columns and left.is_null().equals(right.is_null())
        return is_same and all(map(_polars_equal, fields.get_columns(), others.get_columns()))
    if isinstance(dtype, pl.Categorical):
        return dtype == other and left.cast(pl.String).equals(right.cast(pl.String))
    if isinstance(dtype, pl.Decimal) and dtype.precision != other.precision:
        # Before polars 1.34 a Decimal without precision is one of 38 digits.
        is_same = {dtype.precision, other.precision} == {None, 38} and dtype.scale == other.scale
        return is_same and left.cast(pl.String).equals(right.cast(pl.String))
    # 0.0 equals -0.0, and their reciprocals differ.
    return dtype == other and left.equals(right) and (not dtype.is_float() or (1 / left).equals(1 / right))


def _pyarrow_difference(left: Any, right: Any) -> str | None:
    import pyarrow as pa

    from .arrow_files import arrow_equal

    if isinstance(left, pa.RecordBatch):
        left, right = pa.Table.from_batches([left]), pa.Table.from_batches([right])
    if not left.schema.equals(right.schema, check_metadata=True):
        for mine, theirs in zip(left.schema, right.schema, strict=False):
            if not mine.equals(theirs, check_metadata=True):
                return f"[{mine.name!r}]"
        return ".schema"
    if left.num_rows != right.num_rows:
        return ".num_rows"
    for field, mine, theirs in zip(left.schema, left.columns, right.columns, strict=True):
        if not arrow_equal(mine, theirs):
            return f"[{field.name!r}]"
    return None
