"""What a ``Table`` can be made of, as record batches of one schema."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import UnsupportedTypeError

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa
    import pyarrow.dataset as ds

__all__ = ["Batches", "check_source", "open_source"]

# Rows of a frame that are converted to Arrow at once.
_SLICE_ROWS = 128 * 1024


class Batches(NamedTuple):
    """A table that arrives in parts.

    Attributes:
        schema: Schema of every part.
        parts: The parts, none of them larger than the source makes them.
    """

    schema: pa.Schema
    parts: Iterator[pa.Table]


def check_source(source: object) -> None:
    """Refuse what cannot be a table, before anything is read.

    Raises:
        TypeError: It is no frame, no path, and cannot be iterated over.
        FileNotFoundError: There is nothing at the path.
    """
    if isinstance(source, (str, os.PathLike)):
        if not Path(source).exists():
            raise FileNotFoundError(
                f"Table({os.fspath(source)!r}): there is no file or folder of that name here"
            )
        return
    is_stream = hasattr(source, "__arrow_c_stream__") or _name(source) in _KINDS
    if isinstance(source, (bytes, dict)) or not (is_stream or isinstance(source, Iterable)):
        raise TypeError(
            f"Table cannot be made of a {_name(source)}: give it a DataFrame, a LazyFrame, an Arrow table, "
            "reader, or dataset, a DuckDB relation, an iterator of frames, or the path of a Parquet file"
        )


def open_source(source: Any, schema: pa.Schema | None) -> Batches:
    """Start to read a table.

    Args:
        source: As ``Table`` takes it.
        schema: Schema to give the table; by default that of the source, or of its first frame.

    Raises:
        UnsupportedTypeError: The source has no schema, or is no table.
    """
    found = _open(source, schema)
    schema = found.schema if schema is None else schema
    _refuse_twins(schema.names)
    return Batches(schema, _conforming(found.parts, schema))


def _open(source: Any, schema: pa.Schema | None = None) -> Batches:
    import pyarrow as pa

    if isinstance(source, (str, os.PathLike)):
        return _from_parquet(os.fspath(source))
    if opener := _KINDS.get(_name(source)):
        return opener(source)
    if hasattr(source, "__arrow_c_stream__"):
        reader = pa.RecordBatchReader.from_stream(source)
        return Batches(reader.schema, (pa.Table.from_batches([batch]) for batch in reader))
    return _from_frames(iter(source), schema)


def _from_parquet(path: str) -> Batches:
    import pyarrow as pa
    import pyarrow.dataset as ds

    try:
        return _from_dataset(ds.dataset(path, format="parquet", partitioning="hive"))
    except (pa.ArrowInvalid, OSError) as error:
        raise UnsupportedTypeError(
            f"{path} is no Parquet file or folder of them: {error}. Nothing was stored. For CSV or JSON, use "
            "Table(pl.scan_csv(path)), Table(duckdb.read_json(path)), or File(path)"
        ) from error


def _from_dataset(dataset: ds.Dataset) -> Batches:
    import pyarrow as pa

    # By default pyarrow reads ahead 16 batches of each of 4 files.
    batches = dataset.scanner(batch_readahead=1, fragment_readahead=1).to_batches()
    return Batches(dataset.schema, (pa.Table.from_batches([batch]) for batch in batches))


def _from_lazy_frame(frame: pl.LazyFrame) -> Batches:
    import polars as pl

    if not hasattr(frame, "collect_batches"):
        raise UnsupportedTypeError(
            f"a LazyFrame cannot be streamed by polars {pl.__version__}; update it to 1.34 or newer, or return "
            "Table(frame.collect())"
        )
    schema = pl.DataFrame(schema=frame.collect_schema()).to_arrow().schema
    return Batches(schema, (part.to_arrow() for part in frame.collect_batches(lazy=True)))


def _from_polars(frame: pl.DataFrame) -> Batches:
    return Batches(frame[:0].to_arrow().schema, (part.to_arrow() for part in frame.iter_slices(_SLICE_ROWS)))


def _from_pandas(frame: pd.DataFrame) -> Batches:
    import pyarrow as pa

    _refuse_twins(list(frame.columns))
    try:
        schema = pa.Schema.from_pandas(frame)
    except pa.ArrowException as error:
        raise UnsupportedTypeError(
            f"column {_column_without_type(frame)!r} of the DataFrame has no Arrow type: {error}. Give all its values "
            "one type, for example with .astype(str)"
        ) from error
    starts = range(0, len(frame), _SLICE_ROWS)
    parts = (pa.Table.from_pandas(frame.iloc[start : start + _SLICE_ROWS], schema) for start in starts)
    return Batches(schema, parts)


def _column_without_type(frame: pd.DataFrame) -> Any:
    import pyarrow as pa

    for name in frame.columns:
        try:
            pa.Schema.from_pandas(frame[[name]], preserve_index=False)
        except pa.ArrowException:
            return name
    return "index"


def _refuse_twins(names: list[Any]) -> None:
    if len(set(names)) < len(names):
        raise UnsupportedTypeError(f"two columns of the table have one name: {names}; rename them")


def _from_frames(frames: Iterator[Any], schema: pa.Schema | None) -> Batches:
    def parts(first: Batches) -> Iterator[pa.Table]:
        yield from first.parts
        for frame in frames:
            yield from _open_frame(frame).parts

    for frame in frames:
        first = _open_frame(frame)
        return Batches(first.schema, parts(first))
    if schema is not None:
        return Batches(schema, iter(()))
    raise UnsupportedTypeError(
        "the iterator has no frames, so nothing says which columns the table has; give Table a schema"
    )


def _open_frame(frame: Any) -> Batches:
    if isinstance(frame, (str, os.PathLike)) or not (
        hasattr(frame, "__arrow_c_stream__") or hasattr(frame, "__arrow_c_array__") or _name(frame) in _KINDS
    ):
        raise UnsupportedTypeError(
            f"a Table is made of frames or record batches, and the iterator has a {_name(frame)}"
        )
    return _open(frame)


def _conforming(parts: Iterator[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """Cast parts to the schema where that loses nothing."""
    import pyarrow as pa

    for number, part in enumerate(parts):
        if not part.schema.equals(schema):
            try:
                part = part.select(schema.names).cast(schema)
            except (pa.ArrowException, KeyError, ValueError) as error:
                raise UnsupportedTypeError(
                    f"part {number} of the table has other columns than the first: {error}. Nothing was stored. "
                    "Give the reader the types of the columns (dtype=, schema_overrides=), or give Table a schema"
                ) from error
        yield part.replace_schema_metadata(schema.metadata)


def _name(value: object) -> str:
    kind = type(value)
    return f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"


# By name, so that no library is imported to recognise a value of another.
_KINDS = {
    "pandas.DataFrame": _from_pandas,
    "polars.DataFrame": _from_polars,
    "polars.LazyFrame": _from_lazy_frame,
    "pyarrow.FileSystemDataset": _from_dataset,
    "pyarrow.InMemoryDataset": _from_dataset,
    "pyarrow.UnionDataset": _from_dataset,
}
