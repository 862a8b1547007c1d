"""Frames: schema, a page of rows, and what a sample says of each column.

Of a Parquet file its footer is read, then pages of the shown columns in the shown row groups; of an
Arrow file the heads of its messages, then the shown record batches. Sizes are added up before
anything is decoded. Statistics in the footer are not looked at: the codecs write none.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from ..errors import PayloadCorruptError, PayloadTooLargeError
from . import limits
from .numbers import histogram, short
from .pipe import PipedFile

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["describe"]

_TOP = 5
_BUFFER_BYTES = 128 * 1024
_SLICE_ROWS = 8192
_MESSAGES = 20_000
_NO_FRACTION = re.compile(r"\.0+(?=Z|$)")


def describe(file: PipedFile, asked: dict[str, Any]) -> dict[str, Any]:
    """Describe a frame: rows from ``asked["row"]`` on, of columns from ``asked["column"]`` on.

    Raises:
        PayloadError: It is not of its format, or too large to look at.
    """
    import pyarrow as pa

    try:
        return _described(file, asked)
    except pa.ArrowMemoryError:
        raise
    except pa.ArrowException as error:  # Broken bytes may also claim a type that does not exist (yet).
        raise PayloadCorruptError(f"it cannot be decoded: {error}") from error


def _described(file: PipedFile, asked: dict[str, Any]) -> dict[str, Any]:
    row, column = asked.get("row", 0), asked.get("column", 0)
    head = file.range(0, 8)
    if head[:4] == b"PAR1":
        table: _Table = _Parquet(file)
    elif head == b"ARROW1\0\0":
        table = _Arrow(file)
    else:
        raise PayloadCorruptError("it is neither a Parquet nor an Arrow file")
    count = len(table.schema)
    column = max(0, min(column, count - 1))
    row = max(0, min(row, table.rows - 1)) if table.rows else 0
    shown = table.affordable(column, row)
    page = table.read(shown, row, limits.PAGE_ROWS) if count else None
    described: dict[str, Any] = {
        "kind": "frame",
        "format": table.format,
        "rows": table.rows,
        "row": row,
        "groups": table.groups,
        "column_count": count,
        "column": column,
        "columns": [
            {
                "name": cut(table.schema.field(position).name, limits.NAME_CHARACTERS),
                "type": cut(str(table.schema.field(position).type), 80),
                "is_number": _is_number(table.schema.field(position).type),
            }
            for position in shown
        ],
        "schema": [
            [cut(field.name, limits.NAME_CHARACTERS), cut(str(field.type), 80)]
            for field in list(table.schema)[:2000]
        ],
        "cells": _cells(page) if page is not None else [],
        "sampled": 0,
        "places": 0,
        "can_be_whole": False,
    }
    if count and table.rows:
        if table.is_affordable(shown, is_asked_for=bool(asked.get("whole"))):
            sample, places = table.read(shown, 0, table.rows), 1
        else:
            sample, places = table.sample(shown)
            described["can_be_whole"] = table.is_affordable(shown, is_asked_for=True)
        described["sampled"], described["places"] = sample.num_rows, places
        is_whole = sample.num_rows == table.rows
        for facts, values in zip(described["columns"], sample.columns, strict=True):
            facts.update(_summary(values, is_whole))
    return described


def cut(text: str, characters: int) -> str:
    """Cut a text and say how long it was."""
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= characters else f"{text[:characters]}… ({len(text):,} characters)"


# ------------------------------------------------------------------------------------------- the files


class _Table:
    """A file whose rows lie in groups, each of which can be read from its first row on.

    Attributes:
        starts: First row of each group, and at last the number of all rows.
    """

    format: str
    schema: pa.Schema
    starts: list[int]

    def __init__(self, file: PipedFile) -> None:
        self._file = file

    @property
    def rows(self) -> int:
        return self.starts[-1]

    @property
    def groups(self) -> int:
        return len(self.starts) - 1

    def affordable(self, first: int, row: int) -> list[int]:
        """Return the columns from ``first`` on that fit on a page of rows from ``row`` on."""
        raise NotImplementedError

    def _cost(self, positions: list[int], group: int, stop: int) -> int:
        """Estimate the bytes that must be read for the rows of a group before ``stop``."""
        raise NotImplementedError

    def _ranges(self, positions: list[int], group: int, stop: int) -> list[tuple[int, int]]:
        """Return what had better be asked for at once: a store far away answers once, not by column."""
        raise NotImplementedError

    def _group(self, positions: list[int], group: int, start: int, stop: int) -> pa.Table:
        raise NotImplementedError

    def _length(self, group: int) -> int:
        return self.starts[group + 1] - self.starts[group]

    def read(self, positions: list[int], row: int, count: int) -> pa.Table:
        """Read rows, of the groups that hold them."""
        spans = []
        for group in range(self.groups):
            first, last = self.starts[group], self.starts[group + 1]
            start, stop = max(row, first), min(row + count, last)
            if start < stop:
                spans.append((group, start - first, stop - first))
        return self._concat(positions, spans)

    def _concat(self, positions: list[int], spans: list[tuple[int, int, int]]) -> pa.Table:
        import pyarrow as pa

        ranges = []
        for group, _, stop in spans:
            ranges += self._ranges(positions, group, stop)
        self._file.fetch(ranges)
        pieces = [self._group(positions, *span) for span in spans]
        return pa.concat_tables(pieces) if pieces else _of(self.schema, positions).empty_table()

    def is_affordable(self, positions: list[int], *, is_asked_for: bool) -> bool:
        """Tell whether a view may read all rows: those of a small file, or more if a person asks for it."""
        some = (limits.FIRST_PAINT_BYTES, limits.WHOLE_CELLS)
        most, cells = (limits.ASKED_BYTES, limits.ASKED_CELLS) if is_asked_for else some
        cost = sum(self._cost(positions, group, self._length(group)) for group in range(self.groups))
        return cost <= most and self.rows * len(positions) <= cells

    def sample(self, positions: list[int]) -> tuple[pa.Table, int]:
        """Return the first rows of some groups that are spread over the file, and their number."""
        first = self._cost(positions, 0, 1)
        places = max(1, min(limits.SAMPLE_PLACES, self.groups, limits.FIRST_PAINT_BYTES // max(first, 1)))
        rows = limits.SAMPLE_ROWS // places
        spans = []
        for place in range(places):
            group = place * self.groups // places
            spans.append((group, 0, min(rows, self._length(group))))
        return self._concat(positions, spans), places


def _of(schema: pa.Schema, positions: list[int]) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([schema.field(position) for position in positions])


class _Parquet(_Table):
    format = "Parquet"

    def __init__(self, file: PipedFile) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        super().__init__(file)
        file.fetch([(0, 8), (file.size - 64 * 1024, file.size)])
        self._parquet = pq.ParquetFile(
            pa.PythonFile(file, mode="r"), buffer_size=_BUFFER_BYTES, pre_buffer=False
        )
        self._facts = self._parquet.metadata
        self.schema = self._parquet.schema_arrow
        counts = [self._facts.row_group(group).num_rows for group in range(self._facts.num_row_groups)]
        self.starts = list(accumulate(counts, initial=0))
        self._leaves = []
        leaf = 0
        for field in self.schema:
            width = _leaf_count(field.type)
            self._leaves.append(list(range(leaf, leaf + width)))
            leaf += width
        if leaf != self._facts.num_columns or self.rows != self._facts.num_rows or min(counts, default=0) < 0:
            raise PayloadCorruptError("the footer contradicts itself")

    def affordable(self, first: int, row: int) -> list[int]:
        group = max(min(bisect_right(self.starts, row), self.groups) - 1, 0)
        shown: list[int] = []
        spent = deep = 0
        for position in range(first, min(first + limits.PAGE_COLUMNS, len(self.schema))):
            if self.groups:
                spent += self._cost([position], 0, 1)
                # A column is read from the beginning of its group, however deep the row is in it.
                deep += self._cost([position], group, row - self.starts[group] + limits.PAGE_ROWS)
            if shown and (spent > limits.FIRST_PAINT_BYTES or deep > limits.ASKED_BYTES):
                break
            shown.append(position)
        return shown

    def _chunks(self, positions: list[int], group: int) -> Iterator[Any]:
        for position in positions:
            for leaf in self._leaves[position]:
                yield self._facts.row_group(group).column(leaf)

    def _cost(self, positions: list[int], group: int, stop: int) -> int:
        return sum(self._bytes(chunk, group, stop) for chunk in self._chunks(positions, group))

    def _bytes(self, chunk: Any, group: int, stop: int) -> int:
        expanded = max(chunk.total_uncompressed_size, 1)
        # A page holds about 1 MiB before compression; a dictionary as much again.
        pages = 2 if chunk.has_dictionary_page else 1
        needed = expanded * stop // max(self._length(group), 1) + pages * limits.MIB + _BUFFER_BYTES
        return int(min(needed, expanded) * chunk.total_compressed_size // expanded)

    def _ranges(self, positions: list[int], group: int, stop: int) -> list[tuple[int, int]]:
        wanted = []
        for chunk in self._chunks(positions, group):
            start = chunk.data_page_offset
            if chunk.has_dictionary_page and chunk.dictionary_page_offset:
                start = min(start, chunk.dictionary_page_offset)
            is_deep = stop > limits.SAMPLE_ROWS
            size = self._bytes(chunk, group, stop) if is_deep else _BUFFER_BYTES
            wanted.append((start, start + min(size, chunk.total_compressed_size)))
        return wanted

    def _group(self, positions: list[int], group: int, start: int, stop: int) -> pa.Table:
        import pyarrow as pa

        leaves = [leaf for position in positions for leaf in self._leaves[position]]
        batches, seen = [], 0
        for batch in self._parquet.reader.iter_batches(
            min(max(stop, 1), _SLICE_ROWS), [group], column_indices=leaves, use_threads=False
        ):
            first, last = max(start - seen, 0), min(stop - seen, batch.num_rows)
            if first < last:
                batches.append(batch.slice(first, last - first))
            seen += batch.num_rows
            if seen >= stop:
                break
        if not batches:
            return _of(self.schema, positions).empty_table()
        table = pa.Table.from_batches(batches)
        # Offsets are checked before anything follows them.
        table.validate(full=True)
        return table


def _leaf_count(kind: pa.DataType) -> int:
    """Count the Parquet columns of an Arrow type."""
    import pyarrow as pa

    if isinstance(kind, pa.BaseExtensionType):
        return _leaf_count(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _leaf_count(kind.value_type)
    return sum(_leaf_count(kind.field(at).type) for at in range(kind.num_fields)) or 1


class _Arrow(_Table):
    format = "Arrow"

    def __init__(self, file: PipedFile) -> None:
        import pyarrow as pa

        super().__init__(file)
        if file.range(max(file.size - 6, 0), file.size) != b"ARROW1":
            raise PayloadCorruptError("the file ends before its footer")
        self._heads: list[tuple[int, int]] = []  # schema and dictionaries
        self._batches: list[tuple[int, int]] = []
        self.starts = [0]
        for kind, start, stop, rows in self._messages():
            if kind == _BATCH:
                self._batches.append((start, stop))
                self.starts.append(self.rows + rows)
            elif kind in (_SCHEMA, _DICTIONARY):
                self._heads.append((start, stop))
        if not self._heads:
            raise PayloadCorruptError("the file holds no schema")
        self.schema = pa.ipc.read_schema(pa.py_buffer(file.range(*self._heads[0])))

    def _messages(self) -> Iterator[tuple[int, int, int, int]]:
        """Walk over the messages by their heads; bodies are not read."""
        at = 8
        for _ in range(_MESSAGES + 1):
            head = self._file.range(at, at + 8)
            if len(head) < 8 or head[:4] != b"\xff\xff\xff\xff":
                return
            (length,) = struct.unpack("<i", head[4:])
            if length <= 0:
                return
            kind, body, rows = _head_of(self._file.range(at + 8, at + 8 + length))
            stop = at + 8 + length + body
            if body < 0 or rows < 0 or stop > self._file.size:
                raise PayloadCorruptError("a message of the file is longer than the file")
            yield kind, at, stop, rows
            at = stop
        raise PayloadTooLargeError(f"it has more than {_MESSAGES:,} record batches; up to so many are opened")

    def affordable(self, first: int, row: int) -> list[int]:
        return list(range(first, min(first + limits.PAGE_COLUMNS, len(self.schema))))

    def _cost(self, positions: list[int], group: int, stop: int) -> int:
        # A record batch is read whole, whatever columns and rows of it are shown.
        return sum(last - first for first, last in self._ranges(positions, group, stop))

    def _ranges(self, positions: list[int], group: int, stop: int) -> list[tuple[int, int]]:
        return [*self._heads, self._batches[group]]

    def _group(self, positions: list[int], group: int, start: int, stop: int) -> pa.Table:
        import pyarrow as pa

        # The heads and a batch, one after the other, are a stream.
        ranges = self._ranges(positions, group, stop)
        stream = b"".join(self._file.range(*span) for span in ranges) + b"\xff\xff\xff\xff\0\0\0\0"
        options = pa.ipc.IpcReadOptions(included_fields=positions, use_threads=False)
        with pa.ipc.open_stream(pa.py_buffer(stream), options=options) as reader:
            table = reader.read_all()
        table.validate(full=True)
        return table.slice(start, stop - start)


_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3


def _head_of(data: bytes) -> tuple[int, int, int]:
    """Return kind, body's length and rows of a message (``format/Message.fbs``)."""
    try:

        def number(code: str, at: int) -> int:
            found: int = struct.unpack_from("<" + code, data, at)[0]
            return found

        def field(table: int, index: int) -> int:
            vtable = table - number("i", table)
            at = 4 + 2 * index
            offset = number("H", vtable + at) if at < number("H", vtable) else 0
            return table + offset if offset else 0

        message = number("I", 0)
        kind = number("B", at) if (at := field(message, 1)) else 0
        body = number("q", at) if (at := field(message, 3)) else 0
        if kind not in (_DICTIONARY, _BATCH):
            return kind, body, 0
        at = field(message, 2)
        header = at + number("I", at)
        if kind == _DICTIONARY:
            at = field(header, 1)
            header = at + number("I", at)
        rows = number("q", at) if (at := field(header, 0)) else 0
        return kind, body, rows
    except struct.error as error:
        raise PayloadCorruptError("a message of the file is broken") from error


# ------------------------------------------------------------------------------------------- the values


def _is_number(type: pa.DataType) -> bool:
    from pyarrow import types

    return bool(types.is_integer(type) or types.is_floating(type) or types.is_decimal(type))


def _plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Take off what hides the values: dictionaries and extension types."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(values.type, pa.BaseExtensionType):
        values = pa.chunked_array([chunk.storage for chunk in values.chunks], values.type.storage_type)
    if pa.types.is_dictionary(values.type):
        values = pc.cast(values, values.type.value_type)
    return values


def _texts(values: pa.ChunkedArray) -> list[Any]:
    """Return cells: None, a text, or a text and the length that it had."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import types

    values = _plain(values)
    kind = values.type
    if types.is_floating(kind) or types.is_integer(kind) or types.is_boolean(kind):
        return [None if value is None else _number(value) for value in values.to_pylist()]
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return [None if value is None else _binary(value) for value in values.to_pylist()]
    if not (types.is_string(kind) or types.is_large_string(kind)):
        try:
            values = pc.cast(values, pa.string())
        except (pa.ArrowException, NotImplementedError):
            return [_other(value) for value in _items(values)]
    texts = values.to_pylist()
    if types.is_temporal(kind):
        texts = [None if text is None else _NO_FRACTION.sub("", text) for text in texts]
    return [None if text is None else _text(text) for text in texts]


def _items(values: pa.ChunkedArray) -> Iterator[Any]:
    for value in values:
        try:
            yield value.as_py()
        except Exception:  # noqa: BLE001 - nanoseconds without pandas, a zone that is not known here
            yield str(value)


def _number(value: Any) -> str:
    return str(value) if isinstance(value, bool) or not isinstance(value, float) else repr(value)


def _text(value: str) -> Any:
    if len(value) <= limits.CELL_CHARACTERS:
        return value
    return [value[: limits.CELL_CHARACTERS], f"{len(value):,} characters"]


def _binary(value: bytes) -> Any:
    return [value[:24].hex(" "), f"{len(value):,} bytes"]


def _other(value: Any) -> Any:
    return None if value is None else _text(str(value))


def _cells(table: pa.Table) -> list[list[Any]]:
    """Return the rows of a page."""
    columns = [_texts(column) for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def _summary(values: pa.ChunkedArray, is_whole: bool) -> dict[str, Any]:
    """Say what a column holds; counts are of the sample."""
    import pyarrow as pa

    facts: dict[str, Any] = {"nulls": values.null_count, "is_whole": is_whole}
    values = _plain(values)
    for step in (_distinct, _range, _shape_of):
        try:
            facts.update(step(values))
        except (pa.ArrowException, NotImplementedError, ValueError, OverflowError):
            continue  # This kind of value has none.
    return facts


def _distinct(values: pa.ChunkedArray) -> dict[str, Any]:
    import pyarrow.compute as pc

    return {"distinct": pc.count_distinct(values).as_py()}


def _range(values: pa.ChunkedArray) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    low_high = pc.min_max(values)
    ends = pa.chunked_array([pa.array([low_high["min"], low_high["max"]], values.type)])
    low, high = _texts(ends)
    if _is_number(values.type):
        low, high = (_readable(end) for end in (low, high))
    return {"min": low, "max": high}


def _readable(text: Any) -> Any:
    try:
        return short(float(text) if not str(text).lstrip("-").isdigit() else int(text))
    except (TypeError, ValueError):
        return text


def _shape_of(values: pa.ChunkedArray) -> dict[str, Any]:
    """Return a histogram of numbers and times, or the most frequent of other values."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import types

    kind = values.type
    present = values.drop_null()
    to_float: Callable[[Any], Any] = lambda array: pc.cast(array, pa.float64(), safe=False)  # noqa: E731
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return {"histogram": histogram(to_float(present).to_numpy())}
    if types.is_temporal(kind):
        width = pa.int32() if kind.bit_width == 32 else pa.int64()
        return {"histogram": histogram(to_float(pc.cast(present, width)).to_numpy())}
    counts = pc.value_counts(present)
    order = pc.sort_indices(counts.field("counts"), sort_keys=[("", "descending")])[:_TOP]
    top = counts.take(order)
    labels = _texts(pa.chunked_array([top.field("values")]))
    return {
        "top": [[label, count] for label, count in zip(labels, top.field("counts").to_pylist(), strict=True)]
    }
