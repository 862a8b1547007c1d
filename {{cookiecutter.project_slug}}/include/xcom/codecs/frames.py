"""Frames as Parquet or Arrow IPC bytes: the one place where tables meet a file format.

The codecs of pandas, polars and pyarrow turn their values into Arrow columns; ``write_frame`` and
``FrameReader`` turn those into a file and back. Both formats are open: any Parquet or Feather
(Arrow IPC file) reader takes them. What only our codecs need lies under the schema metadata key ``xcom``.

Parquet is the default because everything reads it, BigQuery included. Arrow IPC (lz4) is the fast
setting.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from include.xcom.codecs.base import Buffer
from include.xcom.codecs.frame_equality import frames_equal
from include.xcom.errors import PayloadCorruptError, PayloadTooLargeError, UnsupportedTypeError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "SLICE_BYTES",
    "FrameFormat",
    "FrameReader",
    "foreign_errors",
    "frames_equal",
    "is_plain",
    "join",
    "memory_bytes",
    "metadata",
    "refusing",
    "unsupported",
    "write_frame",
]

FrameFormat = Literal["parquet", "arrow"]

SLICE_BYTES = 32 * 2**20
"""What one step of encoding or decoding may hold beyond the value and the payload."""

METADATA_KEY = b"xcom"

_JOIN_BELOW = 64 * 2**10  # smaller writes are joined, larger ones are kept as the buffers they are
_JOIN_UPTO = 2**20


def unsupported(path: str, reason: str) -> UnsupportedTypeError:
    """Build the error for a value that would not come back unchanged.

    Args:
        path: Where, in Python's notation: ``"['price']"``, ``".index"``.
        reason: What is wrong there, and what to do about it.
    """
    return UnsupportedTypeError(f"value{path}: {reason}", path=path, reason=reason)


def metadata(facts: dict[str, Any]) -> dict[bytes, bytes]:
    """Return schema metadata that describes a value; ``FrameReader.facts`` gives it back."""
    return {METADATA_KEY: json.dumps(facts, separators=(",", ":")).encode("ascii")}


@contextmanager
def foreign_errors() -> Iterator[None]:
    """Turn whatever a library raises over broken bytes into ``PayloadCorruptError``."""
    try:
        yield
    except (PayloadCorruptError, PayloadTooLargeError, UnsupportedTypeError):
        raise
    except MemoryError as error:
        raise PayloadCorruptError(f"payload asks for more memory than there is: {error}") from error
    except BaseException as error:
        if not _is_failure(error):
            raise
        raise PayloadCorruptError(f"payload is not a frame as this codec writes it: {error}") from error


def memory_bytes(table: Any) -> int:
    """Return the bytes of a table or record batch in memory."""
    try:
        return int(table.nbytes)
    except TypeError:  # view types, before pyarrow 20: counts whole buffers even if only a slice is used
        return int(table.get_total_buffer_size())


def _is_failure(error: BaseException) -> bool:
    # A panic within polars is no Exception, so that nobody catches it by chance. Here it is one more
    # way to say that bytes or a type are not taken.
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


@contextmanager
def refusing(schema: pa.Schema, frame_format: FrameFormat) -> Iterator[None]:
    """Turn whatever a library raises while it writes or reads back into ``UnsupportedTypeError``."""
    try:
        yield
    except UnsupportedTypeError:
        raise
    except BaseException as error:
        if not _is_failure(error):
            raise
        path, kind = "", ""
        for position, field in enumerate(schema):
            # Found out only now: which column it was, the libraries do not say.
            try:
                column = schema.empty_table().select([position])
                write_frame(column.schema, [column], frame_format=frame_format)
            except Exception:
                path, kind = f"[{field.name!r}]", f" of type {field.type}"
                break
        raise unsupported(path, f"{frame_format} cannot hold a value{kind}: {error}") from error


# ------------------------------------------------------------------------------------------- writing


def write_frame(
    schema: pa.Schema, tables: Iterable[pa.Table], *, frame_format: FrameFormat = "parquet"
) -> list[Buffer]:
    """Write tables of one schema, one below the other, as the bytes of one file.

    Each table becomes one row group or record batch. With uncompressed data the parts are the
    tables' own buffers, without a copy.

    Returns:
        The file's bytes in order; no part was ever joined with or copied into a larger one.

    Raises:
        pyarrow.ArrowException: The format cannot hold a type (the caller tries another, or refuses).
    """
    import pyarrow as pa

    sink = _Parts()
    rest = iter(tables)
    first = next(rest, None)
    with pa.PythonFile(sink, mode="w") as file:
        if frame_format == "parquet":
            import pyarrow.parquet as pq

            writer = pq.ParquetWriter(file, schema, **_parquet_options(schema, first))
        else:
            options = pa.ipc.IpcWriteOptions(compression="lz4", unify_dictionaries=True)
            writer = pa.ipc.new_file(file, schema, options=options)
        with writer:
            while first is not None:
                first = _without_offsets(first)
                if frame_format == "parquet":
                    writer.write_table(first, row_group_size=max(first.num_rows, 1))
                elif first.num_rows and first.num_columns:
                    writer.write_table(first)
                else:  # has no batches, and yet rows to count or dictionaries to keep
                    writer.write_batch(_whole_batch(first))
                first = next(rest, None)
    return sink.finish()


def _is_fixed_nested(type: pa.DataType) -> bool:
    import pyarrow as pa

    fields = [type.field(i).type for i in range(type.num_fields)]
    is_fixed = pa.types.is_fixed_size_list(type) and any(field.num_fields for field in fields)
    return is_fixed or any(map(_is_fixed_nested, fields))


def _without_offsets(table: pa.Table) -> pa.Table:
    """Copy fixed-size lists of lists: pyarrow 20 ends the process when it writes a slice of such a column.

    Drop when pyarrow >= 26 is required.
    """
    import pyarrow as pa

    for position, field in enumerate(table.schema):
        if _is_fixed_nested(field.type):
            column = table.column(position).take(pa.array(range(table.num_rows), pa.int64()))
            table = table.set_column(position, field, column)
    return table


def _whole_batch(table: pa.Table) -> pa.RecordBatch:
    """Make one batch of a table without rows, or without columns."""
    import pyarrow as pa

    if not table.num_columns:
        return pa.RecordBatch.from_struct_array(pa.array([{}] * table.num_rows, pa.struct([])))
    columns = [
        column.chunk(0) if column.num_chunks else pa.array([], column.type) for column in table.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=table.schema)


# ------------------------------------------------------------------------------------- Parquet tuning


def _parquet_options(schema: pa.Schema, sample: pa.Table | None) -> dict[str, Any]:
    """Choose per column what costs the least.

    Measured on 1,000,000 rows, CPU of write + read: a dictionary takes 15 instead of 54 ms for a
    column of repeating numbers, and random floats cost 12 uncompressed against 60 with zstd that
    saves 3 % of their bytes. Byte stream split and the delta encodings would be better still for
    numbers, but not every reader has them (DuckDB lacks the former for integers).
    """
    repetitive, incompressible = [], set()
    for position, field in enumerate(schema):
        column = None if sample is None else sample.column(position)
        if _is_dictionary(field.type) or (column is not None and _is_repetitive(column)):
            repetitive.append(field.name)
        elif column is not None and _is_incompressible(column):
            incompressible.add(field.name)
    compression: str | dict[str, str] = "zstd"
    if incompressible:
        compression = {path: "NONE" if path in incompressible else "ZSTD" for path in _leaf_paths(schema)}
    # Nobody filters a payload by row group: it is read whole, so statistics would serve no one.
    return {"compression": compression, "use_dictionary": repetitive, "write_statistics": False}


def _is_repetitive(column: pa.ChunkedArray) -> bool:
    """Estimate whether a dictionary pays, from rows taken all over the column."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import types

    kind = column.type
    if not (is_plain(kind) or types.is_timestamp(kind)) or types.is_boolean(kind) or not len(column):
        return False
    if len(column) > _SAMPLE_ROWS:
        # Steps by the golden ratio: spread evenly, and in step with no period of the data.
        column = column.take(
            pa.array([row * 2654435769 % 2**32 * len(column) >> 32 for row in range(_SAMPLE_ROWS)])
        )
    return bool(pc.count_distinct(column).as_py() <= 0.8 * len(column))


_SAMPLE_ROWS = 4096


def _is_incompressible(column: pa.ChunkedArray) -> bool:
    """Try zstd on a piece of numbers."""
    import pyarrow as pa

    kind = column.type
    if not column.num_chunks or not (pa.types.is_primitive(kind) and is_plain(kind)) or kind.bit_width < 32:
        return False
    chunk, width = column.chunk(0), kind.bit_width // 8
    start = chunk.offset + len(chunk) // 2
    stop = min(chunk.offset + len(chunk), start + 2**16 // width)
    piece = memoryview(chunk.buffers()[1])[start * width : stop * width]
    return len(piece) >= 2**12 and len(pa.compress(piece, "zstd", asbytes=True)) > 0.9 * len(piece)


def _leaf_paths(schema: pa.Schema) -> list[str]:
    """Name the columns as Parquet does: those of nested types by their path."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(schema.remove_metadata().empty_table(), sink)
    facts = pq.read_metadata(pa.BufferReader(sink.getvalue()))
    return [facts.schema.column(leaf).path for leaf in range(facts.num_columns)]


def _is_dictionary(type: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_dictionary(type))


def is_plain(type: Any) -> bool:
    """Say whether both formats are known to bring an Arrow type back as it is."""
    from pyarrow import types

    if types.is_timestamp(type):
        return bool(type.unit != "s")  # Parquet holds them as milliseconds
    return any(
        check(type)
        for check in (
            types.is_boolean,
            types.is_integer,
            types.is_float32,
            types.is_float64,
            types.is_string,
            types.is_large_string,
            types.is_binary,
            types.is_large_binary,
            types.is_date32,
            types.is_duration,
            types.is_time64,
            types.is_decimal128,
        )
    )


def _is_text(type: pa.DataType) -> bool:
    import pyarrow as pa

    types = pa.types
    return bool(
        types.is_string(type)
        or types.is_large_string(type)
        or types.is_binary(type)
        or types.is_large_binary(type)
    )


def join(parts: list[Buffer]) -> memoryview:
    """Join parts to read them back; ``parts`` becomes the one buffer, each part freed as it is copied."""
    # Its pages are not touched before they are written, so both never lie in memory in full.
    joined = memoryview(bytearray(sum(len(part) for part in parts)))
    end = len(joined)
    while parts:
        part = parts.pop()
        joined[end - len(part) : end] = part
        end -= len(part)
    parts.append(joined)
    return joined


class _Parts:
    """File object that keeps what is written, without joining it into one growing buffer."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[Buffer] = []
        self._small = bytearray()

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if len(view) < _JOIN_BELOW:
            self._small += view
            if len(self._small) >= _JOIN_UPTO:
                self._flush_small()
        else:
            self._flush_small()
            self._parts.append(view)
        return len(view)

    def finish(self) -> list[Buffer]:
        self._flush_small()
        return self._parts

    def _flush_small(self) -> None:
        if self._small:
            self._parts.append(memoryview(self._small))
            self._small = bytearray()

    def flush(self) -> None: ...

    def close(self) -> None: ...

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False


# ------------------------------------------------------------------------------------------- reading


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
                bytes=needed,
                max_bytes=self._max_bytes,
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
            for _ in range(_leaves(field.type)):
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
                if _is_text(type) and any("DICTIONARY" in encoding for encoding in chunk.encodings):
                    self._repeated.add(position)
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


def _leaves(type: pa.DataType) -> int:
    """Count the Parquet columns of an Arrow type."""
    import pyarrow as pa

    if isinstance(type, pa.BaseExtensionType):
        return _leaves(type.storage_type)
    if pa.types.is_dictionary(type):
        return _leaves(type.value_type)
    return sum(_leaves(type.field(i).type) for i in range(type.num_fields)) if type.num_fields else 1


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
