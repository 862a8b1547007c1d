"""Read rows of Parquet and Arrow files by groups: no more bytes than the columns and rows need."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Protocol

from ..errors import PayloadCorruptError, PayloadTooLargeError
from . import limits
from .pipe import PipedFile

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

__all__ = ["GroupedFile", "Span", "open_frame"]

Span = tuple[int, int, int]
"""A group, and the first and last row in it."""

_BUFFER_BYTES = 128 * 1024
_SLICE_ROWS = 8192
_BATCHES = 20_000


class GroupedFile(Protocol):
    """A file whose rows are in groups; each group can be read from its first row on.

    Attributes:
        starts: First row of each group, then the number of all rows.
        first_paint_bytes: What the first rows of the columns on a page may cost.
    """

    format: str
    schema: pa.Schema
    starts: list[int]
    first_paint_bytes: int

    def cost(self, columns: list[int], group: int, stop: int) -> int:
        """Estimate the bytes to read for the rows of a group before ``stop``."""

    def prefetch(self, columns: list[int], spans: list[Span]) -> None:
        """Fetch in one question what reading these rows needs, as far as it is known beforehand."""

    def read(self, columns: list[int], group: int, start: int, stop: int) -> pa.Table:
        """Read rows of a group."""


def open_frame(file: PipedFile) -> GroupedFile:
    """Open a file by its first bytes.

    Raises:
        PayloadCorruptError: Neither Parquet nor Arrow, or its footer is broken.
        PayloadTooLargeError: More record batches than are opened.
    """
    head = file.range(0, 8)
    if head[:4] == b"PAR1":
        return _ParquetFile(file)
    if head == b"ARROW1\0\0":
        return _ArrowFile(file)
    raise PayloadCorruptError("neither a Parquet nor an Arrow file")


class _ParquetFile:
    format = "Parquet"

    def __init__(self, file: PipedFile) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        file.fetch([(0, 8), (file.size - 64 * 1024, file.size)])
        self._file = file
        self.first_paint_bytes = limits.FIRST_PAINT_BYTES
        self._parquet = pq.ParquetFile(
            pa.PythonFile(file, mode="r"), buffer_size=_BUFFER_BYTES, pre_buffer=False
        )
        footer = self._footer = self._parquet.metadata
        self.schema = self._parquet.schema_arrow
        counts = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
        self.starts = list(accumulate(counts, initial=0))
        ends = list(accumulate((_leaf_count(field.type) for field in self.schema), initial=0))
        self._leaves = [range(start, stop) for start, stop in pairwise(ends)]
        if ends[-1] != footer.num_columns or self.starts[-1] != footer.num_rows or min(counts, default=0) < 0:
            raise PayloadCorruptError("the footer contradicts itself")

    def _chunks(self, columns: list[int], group: int) -> Iterator[pq.ColumnChunkMetaData]:
        for column in columns:
            for leaf in self._leaves[column]:
                yield self._footer.row_group(group).column(leaf)

    def _bytes(self, chunk: pq.ColumnChunkMetaData, group: int, stop: int) -> int:
        expanded = max(chunk.total_uncompressed_size, 1)
        # A page holds about 1 MiB before compression, and a dictionary as much again.
        pages = 2 if chunk.has_dictionary_page else 1
        needed = (
            expanded * stop // max((self.starts[group + 1] - self.starts[group]), 1)
            + pages * limits.MIB
            + _BUFFER_BYTES
        )
        return int(min(needed, expanded) * chunk.total_compressed_size // expanded)

    def cost(self, columns: list[int], group: int, stop: int) -> int:
        return sum(self._bytes(chunk, group, stop) for chunk in self._chunks(columns, group))

    def prefetch(self, columns: list[int], spans: list[Span]) -> None:
        wanted = []
        for group, _, stop in spans:
            for chunk in self._chunks(columns, group):
                start = chunk.data_page_offset
                if chunk.has_dictionary_page and chunk.dictionary_page_offset:
                    start = min(start, chunk.dictionary_page_offset)
                is_deep = stop > limits.SAMPLE_ROWS
                size = self._bytes(chunk, group, stop) if is_deep else _BUFFER_BYTES
                wanted.append((start, start + min(size, chunk.total_compressed_size)))
        self._file.fetch(wanted)

    def read(self, columns: list[int], group: int, start: int, stop: int) -> pa.Table:
        import pyarrow as pa

        leaves = [leaf for column in columns for leaf in self._leaves[column]]
        batches, seen = [], 0
        # By position: names may repeat, and dots in them are no paths.
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
            return pa.schema([self.schema.field(column) for column in columns]).empty_table()
        table = pa.Table.from_batches(batches)
        table.validate(full=True)  # Checks offsets before anything follows them.
        return table


def _leaf_count(kind: pa.DataType) -> int:
    """Return how many Parquet columns hold one column of this type."""
    import pyarrow as pa

    if isinstance(kind, pa.BaseExtensionType):
        return _leaf_count(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _leaf_count(kind.value_type)
    return sum(_leaf_count(kind.field(at).type) for at in range(kind.num_fields)) or 1


class _ArrowFile:
    format = "Arrow"

    def __init__(self, file: PipedFile) -> None:
        if file.range(max(file.size - 6, 0), file.size) != b"ARROW1":
            raise PayloadCorruptError("the file ends before its footer")
        if file.size <= limits.FIRST_PAINT_BYTES:
            file.fetch([(0, file.size)])
        self._file = file
        # A record batch is read whole, whatever rows of it are on the page.
        self.first_paint_bytes = limits.REQUESTED_BYTES
        reader = self._reader([])
        self.schema = reader.schema
        batches = reader.num_record_batches
        if batches > _BATCHES:
            raise PayloadTooLargeError(f"it has {batches:,} record batches; the limit is {_BATCHES:,}")
        # The footer does not say how long a batch is. Reading its narrowest column does.
        narrowest = sorted(range(len(self.schema)), key=lambda at: _bits(self.schema.field(at).type))[:1]
        reader = self._reader(narrowest)
        rows = [reader.get_batch(batch).num_rows for batch in range(batches)]
        self.starts = list(accumulate(rows, initial=0))

    def _reader(self, columns: list[int]) -> pa.ipc.RecordBatchFileReader:
        import pyarrow as pa

        options = pa.ipc.IpcReadOptions(included_fields=columns, use_threads=False)
        return pa.ipc.open_file(pa.PythonFile(self._file, mode="r"), options=options)

    def cost(self, columns: list[int], group: int, stop: int) -> int:
        return self._file.size * len(columns) // (len(self.starts) - 1) // len(self.schema)

    def prefetch(self, columns: list[int], spans: list[Span]) -> None:
        if self._file.size <= limits.REQUESTED_BYTES and len(spans) == len(self.starts) - 1:
            self._file.fetch([(0, self._file.size)])

    def read(self, columns: list[int], group: int, start: int, stop: int) -> pa.Table:
        import pyarrow as pa

        table = pa.Table.from_batches([self._reader(columns).get_batch(group)])
        table.validate(full=True)
        return table.slice(start, stop - start)


def _bits(kind: pa.DataType) -> int:
    try:
        return int(kind.bit_width)
    except ValueError:  # Of variable width.
        return 2**20
