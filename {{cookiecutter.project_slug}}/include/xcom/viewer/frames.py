"""Describe Parquet and Arrow files: the schema, one page of rows, and a summary of each column.

Reads the footer, and then only the pages or buffers of the columns on the page. Costs are estimated
before anything is decoded. Footers hold no statistics, because the codecs write none.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import PayloadCorruptError
from . import limits
from .cells import Cell, cell, cut, histogram, number
from .frame_files import GroupedFile, Span, open_frame
from .pipe import PipedFile, Question

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

__all__ = ["describe"]

_TOP = 5
_NO_FRACTION = re.compile(r"\.0+(?=Z|$)")


def describe(file: PipedFile, question: Question) -> dict[str, Any]:
    """Describe a frame: rows from ``question.row`` on, columns from ``question.column`` on.

    Raises:
        PayloadCorruptError: Neither a Parquet nor an Arrow file, or a broken one.
        PayloadTooLargeError: More record batches than are opened.
    """
    import pyarrow as pa

    try:
        return _describe(open_frame(file), question)
    except pa.ArrowMemoryError:
        raise
    except pa.ArrowException as error:  # Broken bytes may also name a type that does not exist.
        raise PayloadCorruptError(f"cannot be decoded: {error}") from error


def _describe(file: GroupedFile, question: Question) -> dict[str, Any]:
    rows, fields = file.starts[-1], list(file.schema)
    column = max(0, min(question.column, len(fields) - 1))
    row = max(0, min(question.row, rows - 1))
    shown = _affordable_columns(file, column, row)
    page = _read(file, shown, _spans(file, row, limits.PAGE_ROWS)) if fields else None
    columns = [{**_field(fields[at]), "is_number": _is_number(fields[at].type)} for at in shown]
    described: dict[str, Any] = {
        "kind": "frame",
        "format": file.format,
        "rows": rows,
        "row": row,
        "groups": len(file.starts) - 1,
        "column_count": len(fields),
        "column": column,
        "columns": columns,
        "schema": [list(_field(field).values()) for field in fields[: limits.SCHEMA_COLUMNS]],
        "cells": _cells(page) if page is not None else [],
        "sampled": 0,
        "places": 0,
        "can_be_whole": False,
    }
    if fields and rows:
        is_whole = _is_affordable(file, shown, is_requested=question.whole)
        spans = _spans(file, 0, rows) if is_whole else _sample_spans(file, shown)
        sample = _read(file, shown, spans)
        described |= {
            "sampled": sample.num_rows,
            "places": len(spans),
            "can_be_whole": not is_whole and _is_affordable(file, shown, is_requested=True),
        }
        for facts, values in zip(columns, sample.columns, strict=True):
            facts.update(_summary(values), is_whole=sample.num_rows == rows)
    return described


def _field(field: pa.Field) -> dict[str, Any]:
    return {"name": cut(field.name), "type": cut(str(field.type), 80)}


# -------------------------------------------------------------------------------------- rows and columns


def _length(file: GroupedFile, group: int) -> int:
    return file.starts[group + 1] - file.starts[group]


def _affordable_columns(file: GroupedFile, first: int, row: int) -> list[int]:
    """Return as many columns from ``first`` on as one page may read."""
    groups = len(file.starts) - 1
    group = max(min(bisect_right(file.starts, row), groups) - 1, 0)
    shown: list[int] = []
    near = deep = 0
    for column in range(first, min(first + limits.PAGE_COLUMNS, len(file.schema))):
        if groups:
            near += file.cost([column], 0, 1)
            # A column is read from the start of its group, however deep the row is in it.
            deep += file.cost([column], group, row - file.starts[group] + limits.PAGE_ROWS)
        if shown and (near > file.first_paint_bytes or deep > limits.REQUESTED_BYTES):
            break
        shown.append(column)
    return shown


def _is_affordable(file: GroupedFile, columns: list[int], *, is_requested: bool) -> bool:
    """Tell whether a view may read all rows: of a small file, or of a larger one if the user asks."""
    most = limits.REQUESTED_BYTES if is_requested else limits.FIRST_PAINT_BYTES
    cells = limits.REQUESTED_CELLS if is_requested else limits.WHOLE_CELLS
    cost = sum(file.cost(columns, group, _length(file, group)) for group in range(len(file.starts) - 1))
    return cost <= most and file.starts[-1] * len(columns) <= cells


def _spans(file: GroupedFile, row: int, count: int) -> list[Span]:
    """Return where rows are, by group."""
    found = []
    for group, first in enumerate(file.starts[:-1]):
        start, stop = max(row - first, 0), min(row + count - first, _length(file, group))
        if start < stop:
            found.append((group, start, stop))
    return found


def _sample_spans(file: GroupedFile, columns: list[int]) -> list[Span]:
    """Return the first rows of a few groups, spread evenly over the file."""
    groups = len(file.starts) - 1
    affordable = file.first_paint_bytes // max(file.cost(columns, 0, 1), 1)
    places = max(1, min(limits.SAMPLE_PLACES, groups, affordable))
    chosen = [place * groups // places for place in range(places)]
    return [(group, 0, min(limits.SAMPLE_ROWS // places, _length(file, group))) for group in chosen]


def _read(file: GroupedFile, columns: list[int], spans: list[Span]) -> pa.Table:
    import pyarrow as pa

    file.prefetch(columns, spans)
    tables = [file.read(columns, *span) for span in spans]
    return (
        pa.concat_tables(tables)
        if tables
        else pa.schema([file.schema.field(column) for column in columns]).empty_table()
    )


# ---------------------------------------------------------------------------------------------- values


def _is_number(kind: pa.DataType) -> bool:
    from pyarrow import types

    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Unwrap dictionaries and extension types."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(values.type, pa.BaseExtensionType):
        values = pa.chunked_array([chunk.storage for chunk in values.chunks], values.type.storage_type)
    if pa.types.is_dictionary(values.type):
        values = pc.cast(values, values.type.value_type)
    return values


def _cells(table: pa.Table) -> list[list[Cell]]:
    return [list(row) for row in zip(*(_texts(column) for column in table.columns), strict=True)]


def _texts(values: pa.ChunkedArray) -> list[Cell]:
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import types

    values = _plain(values)
    kind = values.type
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return [
            None if value is None else [value[:24].hex(" "), f"{len(value):,} bytes"]
            for value in values.to_pylist()
        ]
    if types.is_floating(kind) or types.is_integer(kind) or types.is_boolean(kind):
        found: list[Any] = values.to_pylist()
    else:
        try:
            found = pc.cast(values, pa.large_string()).to_pylist()
        except (pa.ArrowException, NotImplementedError):
            found = list(_objects(values))
    if types.is_temporal(kind):
        found = [None if text is None else _NO_FRACTION.sub("", text) for text in found]
    return [None if value is None else cell(str(value)) for value in found]


def _objects(values: pa.ChunkedArray) -> Iterator[Any]:
    for value in values:
        try:
            yield value.as_py()
        except Exception:  # noqa: BLE001 - nanoseconds without pandas, a time zone that is unknown here
            yield str(value)


def _summary(values: pa.ChunkedArray) -> dict[str, Any]:
    """Summarize a column: what does not apply to its type is left out."""
    import pyarrow as pa

    facts: dict[str, Any] = {"nulls": values.null_count}
    values = _plain(values)
    for step in (_distinct, _ends, _distribution):
        try:
            facts.update(step(values))
        except (pa.ArrowException, NotImplementedError, ValueError, OverflowError):
            continue
    return facts


def _distinct(values: pa.ChunkedArray) -> dict[str, Any]:
    import pyarrow.compute as pc

    return {"distinct": pc.count_distinct(values).as_py()}


def _ends(values: pa.ChunkedArray) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    ends = pc.min_max(values)
    if _is_number(values.type):
        low, high = ends["min"].as_py(), ends["max"].as_py()
        return {} if low is None else {"min": number(low), "max": number(high)}
    texts = _texts(pa.chunked_array([pa.array([ends["min"], ends["max"]], values.type)]))
    return dict(zip(("min", "max"), texts, strict=True))


def _distribution(values: pa.ChunkedArray) -> dict[str, Any]:
    """Return a histogram of numbers and times, or the most frequent of other values."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import types

    kind = values.type
    present = values.drop_null()
    if types.is_temporal(kind):
        present = pc.cast(present, pa.int32() if kind.bit_width == 32 else pa.int64())
    if _is_number(kind) or types.is_temporal(kind):
        return {"histogram": histogram(_floats(present))}
    counts = pc.value_counts(present)
    order = pc.sort_indices(counts.field("counts"), sort_keys=[("", "descending")])[:_TOP]
    top = counts.take(order)
    labels = _texts(pa.chunked_array([top.field("values")]))
    return {"top": [list(one) for one in zip(labels, top.field("counts").to_pylist(), strict=True)]}


def _floats(values: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    found: np.ndarray[Any, Any] = pc.cast(values, pa.float64(), safe=False).to_numpy()
    return found
