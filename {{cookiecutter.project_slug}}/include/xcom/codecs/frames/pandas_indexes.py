"""pandas indexes: as columns of a file, or packed into its metadata."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.tseries.frequencies import to_offset

from ...errors import UnsupportedTypeError
from ..base import Change, type_name
from ..tagged_json import dump, load
from .arrow_files import arrow_equal, pack, unpack
from .pandas_columns import Column, Spec, get, put, to_index

__all__ = ["get_index", "get_labels", "indexes_equal", "put_index", "put_labels", "put_name"]


def put_index(index: pd.Index, path: str, changes: list[Change] | None = None) -> tuple[Spec, list[Column]]:
    """Describe an index as Arrow columns.

    Returns:
        Facts for ``get_index``, as JSON, and columns: none for a range, else one for each level.

    Raises:
        UnsupportedTypeError: It does not come back.
    """
    names = [put_name(name, f"{path}.name", changes) for name in index.names]
    if type(index) is pd.RangeIndex:
        return {"kind": "range", "names": names, "range": [index.start, index.stop, index.step]}, []
    if type(index) is pd.MultiIndex:
        levels = zip(index.levels, index.codes, strict=True)
        columns = [_put_level(*pair, f"{path}.levels[{at}]", changes) for at, pair in enumerate(levels)]
        return {"kind": "multi", "names": names, "specs": [column.spec for column in columns]}, columns
    column = put(index.array, path, changes)
    facts: Spec = {"kind": "flat", "names": names, "specs": [column.spec]}
    if getattr(index, "freq", None) is not None and type(index) is not pd.PeriodIndex:
        facts["freq"] = _put_frequency(index.freq, f"{path}.freq", changes)
    return facts, [column]


def get_index(facts: Spec, columns: list[pa.ChunkedArray]) -> pd.Index:
    """Make an index of its facts and columns."""
    names = [load(name) for name in facts["names"]]
    if facts["kind"] == "range":
        return pd.RangeIndex(*facts["range"], name=names[0])
    if facts["kind"] == "multi":
        levels = list(map(_get_level, columns, facts["specs"]))
        return pd.MultiIndex([level for level, _ in levels], [codes for _, codes in levels], names=names)
    index = to_index(get(columns[0], facts["specs"][0]), names[0])
    if facts.get("freq"):
        index.freq = facts["freq"]
    return index


def put_labels(labels: pd.Index, changes: list[Change] | None) -> Spec:
    """Return the index of columns as JSON."""
    try:
        facts, columns = put_index(labels, ".columns")
    except UnsupportedTypeError:
        if changes is None:
            raise
        changes.append(Change(".columns", type_name(type(labels[0])), "str"))
        facts, columns = put_index(pd.Index(list(map(str, labels))), ".columns")
    return {**facts, "packed": [pack(column.whole(len(labels))) for column in columns]}


def get_labels(facts: Spec) -> pd.Index:
    """Make the index of columns."""
    return get_index(facts, [unpack(text) for text in facts["packed"]])


def indexes_equal(left: pd.Index, right: pd.Index) -> bool:
    """Compare class, names, dtypes, values, and frequency; unused levels of a MultiIndex do not count."""
    if type(left) is not type(right) or len(left) != len(right):
        return False
    (mine, columns), (theirs, other_columns) = put_index(left, ""), put_index(right, "")
    pairs = zip(columns, other_columns, strict=False)
    return mine == theirs and all(
        arrow_equal(*(column.whole(len(left)) for column in pair)) for pair in pairs
    )


def _put_level(level: pd.Index, codes: Any, path: str, changes: list[Change] | None) -> Column:
    """Store the values of a level, one for each row; values that no row has do not come back."""
    column = put(level.array, path, changes)
    codes = np.asarray(codes, np.int32)
    return column._replace(data=column.whole(len(level)).take(pa.array(codes, mask=codes < 0)))


def _get_level(data: pa.ChunkedArray, spec: Spec) -> tuple[pd.Index, Any]:
    """Make a level and codes of its values, in the order that pandas gives new levels."""
    values = to_index(get(data.drop_null(), spec))
    codes, is_there = np.full(len(data), -1), data.is_valid().to_numpy()
    try:
        codes[is_there], level = pd.factorize(values, sort=True)
    except TypeError:  # Values of several types have no order.
        codes[is_there], level = pd.factorize(values)
    return level, codes


def put_name(name: Any, path: str, changes: list[Change] | None = None) -> Any:
    """Return a name as JSON, or as its text if it has no exact form."""
    try:
        return dump(name)
    except UnsupportedTypeError as error:
        error.path = path
        if changes is None:
            raise
        changes.append(Change(path, type_name(type(name)), "str"))
        return str(name)


def _put_frequency(freq: Any, path: str, changes: list[Change] | None) -> str | None:
    with suppress(ValueError):  # A frequency of its own has no name.
        if to_offset(freq.freqstr) == freq:
            return str(freq.freqstr)
    if changes is None:
        raise UnsupportedTypeError(f"{freq!r} has no name to restore it by; set index.freq = None", path=path)
    changes.append(Change(path, type_name(type(freq)), "None"))
    return None
