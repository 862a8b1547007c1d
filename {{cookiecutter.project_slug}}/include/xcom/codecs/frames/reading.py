"""The columns of a Parquet or Arrow IPC file, whole or by groups, within a limit."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import PayloadCorruptError, PayloadTooLargeError
from .formats import METADATA_KEY, SLICE_BYTES, foreign_errors, is_text

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["FrameReader", "leaf_count"]


class FrameReader:
    """Read a file that ``write_frame`` wrote, whole or by columns.

    Nothing is decoded before the sizes in the file's own directory were added up and compared with
    ``max_bytes``; strings that a Parquet dictionary repeats are counted before they are spread out.

    Args:
        payload: The whole file. Uncompressed Arrow columns stay views of it.
        max_bytes: Refuse to expand beyond this many bytes.

    Raises:
        PayloadCorruptError: Neither Parquet nor an Arrow IPC file, or cut short.
        PayloadTooLargeError: Decoding would take more than ``max_bytes``.
    """

    schema: pa.Schema
    """As it was written: exact types, field names, nullability and metadata."""
    num_rows: int
    column_bytes: list[int]
    """Decoded size of each column (an upper bound where a dictionary repeats strings)."""

    def __new__(cls, payload: memoryview, max_bytes: int) -> FrameReader:
        head, tail = bytes(payload[:8]), bytes(payload[-6:])
        if head[:4] == b"PAR1" and tail[-4:] == b"PAR1":
            return object.__new__(_ParquetReader)
        if head == b"ARROW1\0\0" and tail == b"ARROW1":
            return object.__new__(_ArrowReader)
        raise PayloadCorruptError("payload is neither Parquet nor an Arrow IPC file, or it was cut short")

    def __init__(self, payload: memoryview, max_bytes: int) -> None:
        import pyarrow as pa

        self.payload = payload
        self._buffer = pa.py_buffer(payload)
        self._max_bytes = max_bytes
        with foreign_errors():
            self._open()
        self._check(sum(self.column_bytes))

    @property
    def facts(self) -> dict[str, Any]:
        """What the codec wrote with ``metadata``.

        Raises:
            PayloadCorruptError: The file does not carry it.
        """
        text = (self.schema.metadata or {}).get(METADATA_KEY)
        if text is None:
            raise PayloadCorruptError("payload lacks the metadata that says how to restore its type")
        with foreign_errors():
            facts: dict[str, Any] = json.loads(text)
        return facts

    def groups(self) -> Iterator[list[int]]:
        """Yield the columns in runs whose decoded size is about ``SLICE_BYTES`` at most."""
        group: list[int] = []
        size = 0
        for position, more in enumerate(self.column_bytes):
            if group and size + more > SLICE_BYTES:
                yield group
                group, size = [], 0
            group.append(position)
            size += more
        if group:
            yield group

    def read(self, positions: Sequence[int] | None = None) -> pa.Table:
        """Decode some columns, or all."""
        with foreign_errors():
            return self._read(range(len(self.schema)) if positions is None else positions)

    def _check(self, needed: int) -> None:
        if needed > self._max_bytes:
            raise PayloadTooLargeError(
                f"payload of {len(self.payload)} bytes expands to {needed} bytes; the limit is "
                f"{self._max_bytes}. Nothing was decoded",
                size=needed,
                limit=self._max_bytes,
            )

    def _open(self) -> None:
        raise NotImplementedError

    def _read(self, positions: Sequence[int]) -> pa.Table:
        raise NotImplementedError


class _ParquetReader(FrameReader):
    _WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
    # DELTA_BYTE_ARRAY can repeat long prefixes without end; we never write it.
    _ENCODINGS = {"PLAIN", "RLE", "BIT_PACKED", "PLAIN_DICTIONARY", "RLE_DICTIONARY", "BYTE_STREAM_SPLIT",
                  "DELTA_BINARY_PACKED", "DELTA_LENGTH_BYTE_ARRAY"}  # fmt: skip

    def _open(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        facts = pq.read_metadata(pa.BufferReader(self._buffer))
        written = (facts.metadata or {}).get(b"ARROW:schema")
        self.schema = (
            facts.schema.to_arrow_schema()
            if written is None
            else pa.ipc.read_schema(pa.py_buffer(base64.b64decode(written)))
        )
        self.num_rows = facts.num_rows
        self._repeated: set[int] = set()
        self.column_bytes = []
        leaf = 0
        for position, field in enumerate(self.schema):
            size = 8 * self.num_rows if pa.types.is_null(field.type) else 0
            for _ in range(leaf_count(field.type)):
                size += self._leaf_bytes(facts, leaf, position, field.type)
                leaf += 1
            self.column_bytes.append(size)
        if leaf != facts.num_columns:
            raise PayloadCorruptError(f"payload has {facts.num_columns} columns, its schema {leaf}")
        self._file = pq.ParquetFile(
            pa.BufferReader(self._buffer),
            metadata=facts,
            read_dictionary=[self.schema.field(position).name for position in self._repeated],
        )
        names = [self.schema.field(position).name for position in range(len(self.schema))]
        self._names = names if len(set(names)) == len(names) else None

    def _leaf_bytes(self, facts: Any, leaf: int, position: int, type: pa.DataType) -> int:
        import pyarrow as pa

        size = 0
        for group in range(facts.num_row_groups):
            chunk = facts.row_group(group).column(leaf)
            if not self._ENCODINGS.issuperset(chunk.encodings):
                raise PayloadCorruptError(f"payload has an encoding that is not ours: {chunk.encodings}")
            width = self._WIDTHS.get(chunk.physical_type)
            if width is None and chunk.physical_type == "FIXED_LEN_BYTE_ARRAY":
                width = facts.schema.column(leaf).length
            if width is not None:
                size += chunk.num_values * width
            else:
                size += chunk.num_values * 8 + chunk.total_uncompressed_size
                is_repeated = any("DICTIONARY" in encoding for encoding in chunk.encodings)
                if is_repeated and is_text(type):
                    self._repeated.add(position)  # counted when it is read
                elif is_repeated and not pa.types.is_dictionary(type):
                    size += chunk.num_values * chunk.total_uncompressed_size  # we write none in nested types
        return size

    def _read(self, positions: Sequence[int]) -> pa.Table:
        table = None
        if self._names is not None and len(positions) < len(self._names):
            wanted = [self._names[position] for position in positions]
            table = self._file.read(columns=wanted)
            if table.column_names != wanted:  # a dot in a name also selects a field of a struct
                table = None
        if table is None:
            table = self._file.read().select(list(positions))
        # Offsets and string bytes are checked before anything follows them; those of a dictionary
        # while they are few, which also reads faster than plain strings (49 against 72 ms).
        table.validate(full=True)
        columns = []
        for position, column in zip(positions, table.columns, strict=True):
            if position in self._repeated:
                self._check(sum(self.column_bytes) + _spread_bytes(column))
            columns.append(_restore_type(column, self.schema.field(position).type))
        return _table(columns, self.schema, positions, self.num_rows)


class _ArrowReader(FrameReader):
    # Read as the stream of messages that the file wraps, not through its footer: what was counted
    # is then what is decoded, whatever the footer says.
    def _open(self) -> None:
        import pyarrow as pa

        self._stream = self._buffer.slice(8)
        messages = pa.ipc.MessageReader.open_stream(pa.BufferReader(self._stream))
        self.num_rows = 0
        total = 0
        for message in messages:
            if message.type == "schema":
                self.schema = pa.ipc.read_schema(message)
                continue
            rows, size = _message_size(message)
            total += size
            if message.type == "record batch":
                self.num_rows += rows
        count = len(self.schema)
        total += 8 * self.num_rows * sum(pa.types.is_null(field.type) for field in self.schema)
        # Sizes by column would need the layout of every type; an even share serves to form groups.
        self.column_bytes = [total // count + 1] * count if count else []
        self._check(total)

    def _read(self, positions: Sequence[int]) -> pa.Table:
        import pyarrow as pa

        if len(positions) == len(self.schema):
            options = pa.ipc.IpcReadOptions()
        else:
            options = pa.ipc.IpcReadOptions(included_fields=list(positions))
        with pa.ipc.open_stream(pa.BufferReader(self._stream), options=options) as reader:
            batches = list(reader)
        columns = [
            pa.chunked_array([batch.column(i) for batch in batches], type=self.schema.field(position).type)
            for i, position in enumerate(positions)
        ]
        table = _table(columns, self.schema, positions, self.num_rows)
        table.validate(full=True)
        return table


def _table(
    columns: list[pa.ChunkedArray], schema: pa.Schema, positions: Sequence[int], rows: int
) -> pa.Table:
    import pyarrow as pa

    if not columns:
        return pa.table({"rows": pa.nulls(rows)}, metadata=schema.metadata).select([])
    fields = [schema.field(position) for position in positions]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, metadata=schema.metadata))


def leaf_count(type: pa.DataType) -> int:
    """Count the Parquet columns of an Arrow type."""
    import pyarrow as pa

    if isinstance(type, pa.BaseExtensionType):
        return leaf_count(type.storage_type)
    if pa.types.is_dictionary(type):
        return leaf_count(type.value_type)
    return sum(leaf_count(type.field(i).type) for i in range(type.num_fields)) if type.num_fields else 1


def _spread_bytes(column: pa.ChunkedArray) -> int:
    """Add up the bytes of strings that are still in dictionary form."""
    import pyarrow as pa
    import pyarrow.compute as pc

    total = 0
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type) and len(chunk):
            lengths = pc.binary_length(chunk.dictionary).cast(pa.int64())
            total += pc.sum(lengths.take(chunk.indices)).as_py() or 0
    return total


def _restore_type(column: pa.ChunkedArray, type: pa.DataType) -> pa.ChunkedArray:
    """Undo what Parquet changed: seconds became milliseconds, names of list items, dictionaries."""
    return column if column.type.equals(type, check_metadata=True) else column.cast(type)


def _message_size(message: pa.Message) -> tuple[int, int]:
    """Return rows and decoded bytes of an Arrow IPC message, from the lengths before each buffer.

    The layout is that of ``format/Message.fbs``; pyarrow verified the flatbuffer when it opened the
    message, but does not show it.
    """
    data = memoryview(message.metadata).cast("B")
    body = memoryview(message.body).cast("B")

    def number(code: str, at: int) -> int:
        result: int = struct.unpack_from("<" + code, data, at)[0]
        return result

    def field(table: int, index: int) -> int:
        vtable = table - number("i", table)
        at = 4 + 2 * index
        offset = number("H", vtable + at) if at < number("H", vtable) else 0
        return table + offset if offset else 0

    def follow(at: int) -> int:
        return at + number("I", at)

    header = follow(field(number("I", 0), 2))
    if message.type == "dictionary":
        header = follow(field(header, 1))
    rows = number("q", at) if (at := field(header, 0)) else 0
    buffers = field(header, 2)
    is_compressed = bool(field(header, 3))
    size = 0
    if buffers:
        start = follow(buffers)
        for index in range(number("I", start)):
            offset, length = struct.unpack_from("<qq", data, start + 4 + 16 * index)
            if is_compressed and length:
                expanded = struct.unpack_from("<q", body, offset)[0]
                size += length - 8 if expanded == -1 else max(expanded, 0)
            else:
                size += length
    return rows, size
