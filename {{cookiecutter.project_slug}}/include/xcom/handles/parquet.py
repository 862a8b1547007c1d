"""Parquet in row groups of bounded size, written in one pass and read by ranges.

pyarrow writes and reads it: it adds a checksum to every page and verifies it, so that what is read in
part is as safe as what is read whole. polars does neither.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from ..errors import UnsupportedTypeError
from ..stores import Buffer
from .table_sources import Batches

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

__all__ = ["BATCH_BYTES", "FOOTER_BYTES", "ParquetWriter", "RangedFile", "open_dataset", "open_parquet"]

# In memory, before it is encoded. A million rows of 19 columns make four groups, so that two of
# the columns are at most nine requests. Writing a table takes about four times as much (measured).
_GROUP_BYTES = 37 * 1024**2
# By default each column collects up to 1 MiB of distinct values before it gives its dictionary up, all
# columns at once: 60 MB and twice the time for 19 columns of random numbers.
_DICTIONARY_BYTES = 256 * 1024
# Ranges closer than this are one request: 256 KiB arrive in a few milliseconds, an answer takes 45.
_HOLE_BYTES = 256 * 1024
_RANGE_BYTES = 32 * 1024**2
BATCH_BYTES = 4 * 1024**2
"""Of a batch of a stream, decoded."""
FOOTER_BYTES = 64 * 1024
"""What pyarrow reads first of a file: its last bytes."""


class ParquetWriter:
    """Turns a table that arrives in parts into the bytes of a Parquet file.

    Attributes:
        schema: Its schema.
        rows: Number of rows so far.
        footer: The file's last bytes, once all chunks have been taken.
    """

    def __init__(self, batches: Batches) -> None:
        self.schema = batches.schema
        self.rows = 0
        self.footer = b""
        self._parts = batches.parts

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes; holds one row group, in memory and encoded.

        Raises:
            UnsupportedTypeError: Parquet has no form for a type.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = _Sink()
        try:
            with pq.ParquetWriter(
                sink,
                self.schema,
                compression="zstd",
                compression_level=1,
                dictionary_pagesize_limit=_DICTIONARY_BYTES,
                write_page_checksum=True,
            ) as writer:
                for group in _groups(self._parts):
                    self.rows += group.num_rows
                    writer.write_table(group, row_group_size=group.num_rows)
                    del group
                    yield from sink.take()
        except (pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            raise UnsupportedTypeError(f"Parquet cannot hold a column of the table: {error}") from error
        self.footer = b"".join(sink.take())
        yield self.footer


def _groups(parts: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Join and split parts into row groups."""
    pending: list[pa.Table] = []
    size = 0.0
    for part in parts:
        row_bytes = max(1.0, part.nbytes / max(1, part.num_rows))
        while part.num_rows:
            rows = max(1, int((_GROUP_BYTES - size) / row_bytes))
            pending.append(part.slice(0, rows))
            size += pending[-1].num_rows * row_bytes
            part = part.slice(rows)
            if size + row_bytes > _GROUP_BYTES:
                yield _joined(pending)
                size = 0.0
    if pending:
        yield _joined(pending)


def _joined(parts: list[pa.Table]) -> pa.Table:
    """Join parts, and let them go: their memory is needed for the encoded group."""
    import pyarrow as pa

    whole = pa.concat_tables(parts).unify_dictionaries()
    parts.clear()
    return whole


class RangedFile(io.RawIOBase):
    """A file for pyarrow, read by whatever ranges it asks for.

    Args:
        read: Returns the bytes between two offsets.
        size: Bytes of the file.
        tail: Its last bytes, which are here already.
    """

    def __init__(self, read: Callable[[int, int], Buffer], size: int, tail: bytes) -> None:
        self._read = read
        self._size = size
        self._tail = tail
        self._at = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move."""
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset
        return self._at

    def read(self, size: int = -1) -> Buffer:
        """Return the bytes at the position; one request, or none for those at the end."""
        start = self._at
        stop = self._size if size < 0 else min(start + size, self._size)
        tail_start = self._size - len(self._tail)
        if start >= tail_start:
            data: Buffer = self._tail[start - tail_start : stop - tail_start]
        else:
            data = self._read(start, stop)
        self._at = start + len(data)
        return data


def open_parquet(file: RangedFile, metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
    """Open a file whose pages are verified and whose near columns are read together."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(file, metadata=metadata, pre_buffer=True, page_checksum_verification=True)


def open_dataset(open_file: Callable[[], RangedFile], metadata: pq.FileMetaData) -> ds.Dataset:
    """Make a dataset in which each row group is a fragment with a file of its own.

    pyarrow lets one thread at a time read a Python file; so the row groups are read in parallel.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds

    options = ds.ParquetFragmentScanOptions(
        pre_buffer=True,
        cache_options=pa.CacheOptions(hole_size_limit=_HOLE_BYTES, range_size_limit=_RANGE_BYTES, lazy=True),
        page_checksum_verification=True,
    )
    parquet = ds.ParquetFileFormat(default_fragment_scan_options=options)

    def fragment(*groups: int) -> ds.Fragment:
        whole = parquet.make_fragment(pa.PythonFile(open_file(), mode="r"))
        return whole.subset(row_group_ids=list(groups))

    fragments = [fragment(number) for number in range(metadata.num_row_groups)]
    dataset = _dataset_class()(fragments, metadata.schema.to_arrow_schema(), parquet)
    dataset.num_rows = metadata.num_rows
    return dataset


@cache
def _dataset_class() -> type[ds.FileSystemDataset]:
    import pyarrow.dataset as ds

    class RowGroupDataset(ds.FileSystemDataset):  # type: ignore[misc] # pyarrow has no types
        """A dataset that counts its rows right.

        pyarrow counts those of the whole file for each of its row groups. Drop when it does no longer.
        """

        num_rows: int

        def count_rows(self, filter: Any = None, **options: Any) -> int:
            return self.num_rows if filter is None else super().count_rows(filter, **options)

    return RowGroupDataset


class _Sink(io.RawIOBase):
    """Keeps what is written until it is taken."""

    def __init__(self) -> None:
        self._written: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the number of bytes so far."""
        return self._size

    def write(self, data: Any) -> int:
        """Keep a copy: pyarrow reuses its memory."""
        self._written.append(bytes(data))
        self._size += len(data)
        return len(data)

    def take(self) -> Iterator[bytes]:
        """Yield what was written since the last call, and let it go."""
        written, self._written = self._written, []
        written.reverse()
        while written:
            yield written.pop()
