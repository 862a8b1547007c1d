"""Frames: schema, a page of rows, and what a sample says of each column.

Of a Parquet file its footer is read, then pages of the shown columns in the shown row groups; of an
Arrow file the heads of its messages, then the shown record batches. Sizes are added up before
anything is decoded.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from include.xcom.codecs.frame_reader import leaf_count
from include.xcom.errors import PayloadCorruptError, PayloadTooLargeError
from include.xcom.viewer import limits
from include.xcom.viewer.numbers import histogram, short
from include.xcom.viewer.pipe import PipedFile

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["describe"]

_TOP = 5
_BUFFER_BYTES = 128 * 1024
_SLICE_ROWS = 8192
_MESSAGES = 20_000
_NO_FRACTION = re.compile(r"\.0+(?=Z|$)")


def describe(file: PipedFile, asked: dict[str, Any]) -> dict[str, Any]:
    """Describe a frame: rows from ``asked["row"]`` on, of columns from ``asked["column"]`` on."""
    row, column = asked.get("row", 0), asked.get("column", 0)
    head = file.range(0, 8)
    if head[:4] == b"PAR1":
        table: _Parquet | _Arrow = _Parquet(file)
    elif head == b"ARROW1\0\0":
        table = _Arrow(file)
    else:
        raise PayloadCorruptError("it is neither a Parquet nor an Arrow file")
    count = len(table.schema)
    column = max(0, min(column, count - 1))
    row = max(0, min(row, table.rows - 1)) if table.rows else 0
    shown = table.affordable(column)
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
    }
    if count and table.rows:
        sample, places = table.sample(shown)
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


class _Parquet:
    format = "Parquet"

    def __init__(self, file: PipedFile) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        file.fetch([(0, 8), (file.size - 64 * 1024, file.size)])
        self._file = file
        self._parquet = pq.ParquetFile(
            pa.PythonFile(file, mode="r"), buffer_size=_BUFFER_BYTES, pre_buffer=False
        )
        self._facts = self._parquet.metadata
        self.schema = self._parquet.schema_arrow
        self.rows = self._facts.num_rows
        self.groups = self._facts.num_row_groups
        self._starts = [0]
        for group in range(self.groups):
            self._starts.append(self._starts[-1] + self._facts.row_group(group).num_rows)
        self._leaves = []
        leaf = 0
        for field in self.schema:
            width = leaf_count(field.type)
            self._leaves.append(list(range(leaf, leaf + width)))
            leaf += width
        if leaf != self._facts.num_columns or self._starts[-1] != self.rows:
            raise PayloadCorruptError("the footer contradicts itself")

    def affordable(self, first: int) -> list[int]:
        """Return the columns from ``first`` on whose first pages fit into the budget of a view."""
        shown: list[int] = []
        spent = 0
        for position in range(first, min(first + limits.PAGE_COLUMNS, len(self.schema))):
            spent += self._first_page_bytes(position, 0) if self.groups else 0
            if shown and spent > limits.FIRST_PAINT_BYTES:
                break
            shown.append(position)
        return shown

    def _first_page_bytes(self, position: int, group: int) -> int:
        total = 0
        for leaf in self._leaves[position]:
            chunk = self._facts.row_group(group).column(leaf)
            # A page holds about 1 MiB before compression; a dictionary as much again.
            expanded = max(chunk.total_uncompressed_size, 1)
            pages = 2 if chunk.has_dictionary_page else 1
            page = min(expanded, pages * limits.MIB + _BUFFER_BYTES)
            total += page * chunk.total_compressed_size // expanded
        return total

    def _chunk_bytes(self, positions: list[int]) -> int:
        return sum(
            self._facts.row_group(group).column(leaf).total_compressed_size
            for group in range(self.groups)
            for position in positions
            for leaf in self._leaves[position]
        )

    def read(self, positions: list[int], row: int, count: int) -> pa.Table:
        """Read rows, of row groups that hold them."""
        import pyarrow as pa

        pieces = []
        for group in range(self.groups):
            start, stop = self._starts[group], self._starts[group + 1]
            if stop > row and start < row + count:
                last = min(row + count, stop) - start
                pieces.append(self._group(positions, group, max(row - start, 0), last))
        return pa.concat_tables(pieces) if pieces else self.schema.empty_table().select(positions)

    def _group(self, positions: list[int], group: int, start: int, stop: int) -> pa.Table:
        import pyarrow as pa

        leaves = [leaf for position in positions for leaf in self._leaves[position]]
        self._prefetch(leaves, group)
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
        schema = pa.schema([self.schema.field(position) for position in positions])
        if not batches:
            return schema.empty_table()
        table = pa.Table.from_batches(batches)
        # Offsets are checked before anything follows them.
        table.validate(full=True)
        return table

    def _prefetch(self, leaves: list[int], group: int) -> None:
        """Ask for the beginnings of all columns at once: a store far away answers once, not by column."""
        wanted = []
        for leaf in leaves:
            chunk = self._facts.row_group(group).column(leaf)
            start = chunk.data_page_offset
            if chunk.has_dictionary_page and chunk.dictionary_page_offset:
                start = min(start, chunk.dictionary_page_offset)
            wanted.append((start, start + min(chunk.total_compressed_size, _BUFFER_BYTES)))
        self._file.fetch(wanted)

    def sample(self, positions: list[int]) -> tuple[pa.Table, int]:
        """Return all rows if they are few, else the first ones of some row groups."""
        import pyarrow as pa

        cost = self._chunk_bytes(positions)
        if cost <= limits.FIRST_PAINT_BYTES and self.rows * len(positions) <= limits.WHOLE_CELLS:
            return self.read(positions, 0, self.rows), 1
        first = sum(self._first_page_bytes(position, 0) for position in positions)
        places = max(1, min(limits.SAMPLE_PLACES, self.groups, limits.FIRST_PAINT_BYTES // max(first, 1)))
        groups = [place * self.groups // places for place in range(places)]
        rows = limits.SAMPLE_ROWS // places
        pieces = [
            self._group(positions, group, 0, min(rows, self._starts[group + 1] - self._starts[group]))
            for group in groups
        ]
        return pa.concat_tables(pieces), places


class _Arrow:
    format = "Arrow"

    def __init__(self, file: PipedFile) -> None:
        import pyarrow as pa

        self._file = file
        self._batches: list[tuple[int, int, int, int]] = []  # first row, rows, start, size
        self._heads: list[tuple[int, int]] = []  # schema and dictionaries
        self.rows = 0
        self._expanded: dict[int, int] = {}
        for kind, start, size, rows, expanded in self._messages():
            self._expanded[start] = expanded
            if kind == _BATCH:
                self._batches.append((self.rows, rows, start, size))
                self.rows += rows
            elif kind in (_SCHEMA, _DICTIONARY):
                self._heads.append((start, size))
        if not self._heads:
            raise PayloadCorruptError("the file holds no schema")
        self.groups = len(self._batches)
        self.schema = pa.ipc.read_schema(pa.py_buffer(file.range(*_span(self._heads[0]))))

    def _messages(self) -> Iterator[tuple[int, int, int, int, int]]:
        """Walk over the messages by their heads; bodies are not read."""
        at = 8
        for _ in range(_MESSAGES):
            head = self._file.range(at, at + 8)
            if len(head) < 8 or head[:4] != b"\xff\xff\xff\xff":
                return
            (length,) = struct.unpack("<i", head[4:])
            if length <= 0:
                return
            kind, body, rows, expanded = _head_of(self._file.range(at + 8, at + 8 + length))
            size = 8 + length + body
            if body < 0 or rows < 0 or at + size > self._file.size:
                raise PayloadCorruptError("a message of the file is longer than the file")
            yield kind, at, size, rows, expanded
            at += size

    def affordable(self, first: int) -> list[int]:
        """Return the columns from ``first`` on that fit on a page."""
        return list(range(first, min(first + limits.PAGE_COLUMNS, len(self.schema))))

    def read(self, positions: list[int], row: int, count: int) -> pa.Table:
        """Read rows, of record batches that hold them."""
        import pyarrow as pa

        wanted = [batch for batch in self._batches if batch[0] + batch[1] > row and batch[0] < row + count]
        if not wanted:
            return pa.schema([self.schema.field(position) for position in positions]).empty_table()
        ranges = [*self._heads, *((start, size) for _, _, start, size in wanted)]
        total = sum(size for _, size in ranges)
        if total > limits.READ_BYTES or sum(self._expanded[start] for start, _ in ranges) > 2**30:
            raise PayloadTooLargeError(f"its rows lie in record batches of {total:,} bytes")
        self._file.fetch([_span(item) for item in ranges])
        # The heads and the batches, one after the other, are a stream.
        stream = b"".join(self._file.range(*_span(item)) for item in ranges) + b"\xff\xff\xff\xff\0\0\0\0"
        options = pa.ipc.IpcReadOptions(included_fields=positions, use_threads=False)
        with pa.ipc.open_stream(pa.py_buffer(stream), options=options) as reader:
            table = reader.read_all()
        table.validate(full=True)
        return table.slice(row - wanted[0][0], count)

    def sample(self, positions: list[int]) -> tuple[pa.Table, int]:
        """Return the rows of the first record batches."""
        rows = self.rows
        if rows * len(positions) > limits.WHOLE_CELLS or self._file.size > 2 * limits.FIRST_PAINT_BYTES:
            rows = min(rows, limits.SAMPLE_ROWS)
        return self.read(positions, 0, rows), 1


_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3


def _span(item: tuple[int, int]) -> tuple[int, int]:
    return item[0], item[0] + item[1]


def _head_of(data: bytes) -> tuple[int, int, int, int]:
    """Return kind, body's length, rows and expanded bytes of a message (``format/Message.fbs``)."""
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
            return kind, body, 0, 0
        at = field(message, 2)
        header = at + number("I", at)
        if kind == _DICTIONARY:
            at = field(header, 1)
            header = at + number("I", at)
        rows = number("q", at) if (at := field(header, 0)) else 0
        # Compressed bodies expand; the process's limit of memory holds whatever they claim.
        return kind, body, rows, body
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
