"""Tables of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from ..codecs.frames.formats import hash_schema
from ..errors import PayloadCorruptError, PayloadError, PayloadTooLargeError, shortened
from ..settings import SECTION, load_settings
from ..stores import store_of
from ..units import format_size
from . import parquet
from .base import Content, Facts, Handle, explaining, index_facts, read_index
from .table_sources import check_source, open_source
from .temporary import new_folder
from .uploads import Upload

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    import polars as pl
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

__all__ = ["Table"]

_EXTENSION = "parquet"
_PART_BYTES = 4 * 1024**2
Filters = Any
"""A ``pyarrow.compute.Expression``, or a list of tuples as ``pyarrow.parquet.read_table`` takes it."""


class Table(Handle):
    """A table that a task hands to other tasks, of any size.

    Written as Parquet in one pass; memory does not grow with the length::

        @task
        def extract() -> Table:
            return Table(pl.scan_csv("flights.csv"))        # 20 GB on a worker with 4 GB

        @task
        def delays(flights: Table) -> pd.DataFrame:
            frame = flights.to_pandas(columns=["carrier", "dep_delay"], filters=[("month", "=", 1)])
            return frame.groupby("carrier", as_index=False).mean()

    The task that pulls it reads what it needs: the footer, and of the columns asked for those parts that
    may have rows that pass the filters. Every page is verified. ``to_pandas``, ``to_polars`` and
    ``to_arrow`` load into memory, up to ``max_payload_bytes``; ``scan`` and ``dataset`` hand the table to
    polars, DuckDB, or pyarrow, which push columns and filters down to it; ``batches`` streams it. A
    ``Table`` that is returned again is copied inside the bucket.

    The table is what Arrow makes of the source. A frame that must come back exactly as it was, with its
    index and dtypes, is better returned as it is.

    Args:
        source: A pandas or polars DataFrame, a polars LazyFrame (streamed; polars 1.34 or newer), a
            pyarrow Table, RecordBatchReader, or Dataset, a DuckDB relation, the path of a Parquet file or of
            a folder of them, an iterator of frames or record batches, or anything else with
            ``__arrow_c_stream__``. Read when the task returns.
        schema: Arrow schema to cast to, where the first frame of an iterator does not tell all types.

    Raises:
        TypeError: ``source`` is no table.
        FileNotFoundError: ``source`` is a path, and nothing is there.
    """

    kind: ClassVar[str] = "table"
    fact_types: ClassVar[dict[str, type]] = {"rows": int, "columns": int}

    _first: Content | None = None

    def __init__(self, source: Any, *, schema: pa.Schema | None = None) -> None:
        check_source(source)
        self._source = source
        self._schema = schema

    @property
    def num_rows(self) -> int:
        """Number of rows; no request."""
        return int(self.content.facts["rows"]) if self.content else self._metadata.num_rows

    @property
    def columns(self) -> list[str]:
        """Names of the columns; one small request, the first time."""
        return list(self.schema.names)

    @cached_property
    def schema(self) -> pa.Schema:
        """Arrow schema; one small request, the first time."""
        with self._reading():
            return self._metadata.schema.to_arrow_schema()

    def to_arrow(self, *, columns: Sequence[str] | None = None, filters: Filters = None) -> pa.Table:
        """Load the table, or some columns and rows of it.

        Args:
            columns: Names of the columns to load; all by default.
            filters: Rows to load: a ``pyarrow.compute.Expression``, or a list of tuples such as
                ``[("month", "=", 1)]`` as ``pyarrow.parquet.read_table`` takes it.

        Raises:
            KeyError: There is no such column.
            TypeError: ``columns`` is no list.
            PayloadTooLargeError: The result is over ``max_payload_bytes``.
            PayloadMissingError: The object is gone.
            PayloadCorruptError: It is not what was written.
            StoreUnavailableError: The store did not answer in time.
        """
        import pyarrow as pa

        limit = load_settings().max_payload_bytes
        names = self._checked(columns)
        if filters is None:
            self._check_size(self._decoded_bytes(names), limit)
        scanner = self.dataset().scanner(columns=names, filter=_expression(filters))
        batches, size = [], 0
        with self._reading():
            for batch in scanner.to_batches():
                size += batch.nbytes
                self._check_size(size, limit)
                batches.append(batch)
            return pa.Table.from_batches(batches, scanner.projected_schema)

    def to_pandas(self, *, columns: Sequence[str] | None = None, filters: Filters = None) -> pd.DataFrame:
        """Load the table, or some columns and rows of it; see ``to_arrow``."""
        return self.to_arrow(columns=columns, filters=filters).to_pandas(
            split_blocks=True, self_destruct=True
        )

    def to_polars(self, *, columns: Sequence[str] | None = None, filters: Filters = None) -> pl.DataFrame:
        """Load the table, or some columns and rows of it; see ``to_arrow``."""
        import polars as pl

        frame = pl.from_arrow(self.to_arrow(columns=columns, filters=filters))
        assert isinstance(frame, pl.DataFrame)
        return frame

    def scan(self) -> pl.LazyFrame:
        """Return a LazyFrame that reads the columns and row groups that the query needs."""
        import polars as pl

        return pl.scan_pyarrow_dataset(self.dataset())

    def dataset(self) -> ds.Dataset:
        """Return a pyarrow dataset, into which DuckDB and others push columns and filters down.

        For example::

            flights = table.dataset()
            duckdb.sql("select carrier, avg(dep_delay) from flights group by carrier")
        """
        with self._reading():
            return parquet.open_dataset(self._file, self._metadata)

    def batches(
        self, *, columns: Sequence[str] | None = None, filters: Filters = None
    ) -> Iterator[pa.RecordBatch]:
        """Stream the table, or some columns and rows of it, in batches of a few MiB.

        Holds one row group as it is stored, and one batch; with filters, that row group decoded too.

        Raises:
            PayloadError: As ``to_arrow``; there is no limit on the size.
        """
        names = self._checked(columns)
        expression = _expression(filters)
        metadata = self._metadata
        row_bytes = self._decoded_bytes(names) // max(1, metadata.num_rows) or 1
        rows = max(1024, parquet.BATCH_BYTES // row_bytes)
        if expression is not None:
            for fragment in self.dataset().get_fragments(expression):
                # Without threads: they read ahead, whatever batch_readahead is.
                with self._reading():
                    yield from fragment.to_batches(
                        columns=names,
                        filter=expression,
                        batch_size=rows,
                        batch_readahead=0,
                        use_threads=False,
                    )
            return
        with self._reading():
            for group in range(metadata.num_row_groups):
                # One at a time: all groups that one call reads are buffered before the first batch.
                file = parquet.open_parquet(self._file(), metadata)
                yield from file.iter_batches(rows, row_groups=[group], columns=names)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Stream the table to any library with the Arrow PyCapsule interface."""
        import pyarrow as pa

        return pa.RecordBatchReader.from_batches(self.schema, self.batches()).__arrow_c_stream__(
            requested_schema
        )

    def upload(self, upload: Upload) -> Content:
        """Store the table; see ``Handle.upload``.

        Raises:
            UnsupportedTypeError: The source is no table, its parts have different columns, or Parquet has
                no form for a type.
            PayloadTooLargeError: It is over ``max_file_bytes``.
        """
        first = self.content or self._first
        if first:  # A reader or an iterator can be read once; Airflow may store one value under two keys.
            return Content(upload.copy(first.stored, _EXTENSION, "a table"), first.facts)
        writer = self._writer()
        # Encoding is slower than a few connections, and needs the memory.
        stored = upload.stream(writer.chunks(), _EXTENSION, "a table", part_bytes=_PART_BYTES)
        facts: Facts = {
            "rows": writer.rows,
            "columns": len(writer.schema),
            "schema": hash_schema((field.name, field.type) for field in writer.schema),
        }
        self._first = Content(stored, {**facts, **index_facts(writer.footer)})
        return self._first

    def __repr__(self) -> str:
        if self.content is None:
            return f"Table({type(self._source).__name__})"
        columns = self.content.facts["columns"]
        return f"Table({self.num_rows} rows x {columns} columns, {format_size(self.content.stored.size)})"

    def _writer(self) -> parquet.ParquetWriter:
        return parquet.ParquetWriter(open_source(self._source, self._schema))

    @cached_property
    def _local(self) -> Path:
        """A table that is not stored yet, as a file: a task that is called by a test may be read at once."""
        path = new_folder() / "table.parquet"
        with path.open("wb") as file:
            file.writelines(self._writer().chunks())
        self._source = path
        return path

    @cached_property
    def _tail(self) -> bytes:
        if self.content is None:
            return b""
        with explaining(self.content.stored):
            return read_index(self.content, at_least=parquet.FOOTER_BYTES)

    @cached_property
    def _metadata(self) -> pq.FileMetaData:
        import pyarrow.parquet as pq

        with self._reading():
            metadata = pq.read_metadata(self._file())
            if self.content and metadata.num_rows != self.content.facts["rows"]:
                raise PayloadCorruptError("has another number of rows than what was written")
        return metadata

    def _file(self) -> parquet.RangedFile:
        if self.content is None:
            return parquet.RangedFile(_reader_of(self._local), self._local.stat().st_size, b"")
        stored = self.content.stored

        def read(start: int, stop: int) -> memoryview:
            with explaining(stored):
                return store_of(stored.uri).read(stored, start, stop)

        return parquet.RangedFile(read, stored.size, self._tail)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn what pyarrow says of broken bytes into our errors."""
        import pyarrow as pa

        with explaining(self.content.stored) if self.content else nullcontext():
            try:
                yield
            except PayloadError:
                raise
            except (pa.ArrowException, OSError, EOFError) as error:
                raise PayloadCorruptError(f"is no Parquet file as it was written: {error}") from error

    def _checked(self, columns: Sequence[str] | None) -> list[str]:
        """Return the names of the columns to read."""
        if isinstance(columns, str):
            raise TypeError(f"columns takes a list of names, for example [{columns!r}]")
        names = self.columns if columns is None else list(columns)
        if unknown := [name for name in names if name not in self.schema.names]:
            raise KeyError(f"{self!r} has no columns {unknown}; it has {', '.join(self.columns)}")
        return names

    def _decoded_bytes(self, names: list[str]) -> int:
        """Return the bytes of some columns when they are decoded, as the footer has them."""
        metadata, wanted, size = self._metadata, set(names), 0
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            for column in map(group.column, range(group.num_columns)):
                if column.path_in_schema.partition(".")[0] in wanted:
                    size += column.total_uncompressed_size
        return size

    def _check_size(self, size: int, limit: int) -> None:
        if size > limit:
            raise PayloadTooLargeError(
                f"{self!r} is {format_size(size)} or more in memory; the limit is {format_size(limit)} "
                f"([{SECTION}] max_payload_bytes). Load fewer columns (columns=) or rows (filters=), or use "
                "batches(), scan(), or dataset(), which have no limit.",
                size=size,
                limit=limit,
                generation=self.content.stored.generation if self.content else None,
            )


def _expression(filters: Filters) -> pc.Expression | None:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if filters is None or isinstance(filters, pc.Expression):
        return filters
    try:
        return pq.filters_to_expression(filters)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f'filters is {shortened(repr(filters))}; allowed are a list such as [("month", "=", 1)] and a pyarrow '
            f"expression ({error})"
        ) from error


def _reader_of(path: Path) -> Callable[[int, int], bytes]:
    def read(start: int, stop: int) -> bytes:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)

    return read
