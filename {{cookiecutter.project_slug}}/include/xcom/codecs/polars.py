"""polars frames as open files that come back with their dtypes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from include.xcom.codecs.base import Buffer, Encoded
from include.xcom.codecs.frame_equality import frames_equal
from include.xcom.codecs.frames import (
    SLICE_BYTES,
    FrameFormat,
    FrameReader,
    foreign_errors,
    join,
    metadata,
    unsupported,
    write_frame,
)
from include.xcom.errors import UnsupportedTypeError

__all__ = ["PolarsCodec"]


class PolarsCodec:
    """Store ``DataFrame`` and ``Series`` as Parquet or Arrow IPC.

    NaN and null stay apart, and every dtype but ``Object`` and unknown extensions comes back, nested
    ones included. Dtypes of a fixed list are trusted; frames with others are read back and compared
    while encoding, and refused if they would change.

    Args:
        frame_format: ``"parquet"``, or ``"arrow"`` for speed. A frame that Parquet cannot hold is
            stored as Arrow. Decoding goes by the payload itself.
    """

    name: ClassVar[str] = "polars"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...]] = ("polars.dataframe.frame.DataFrame", "polars.series.series.Series")

    def __init__(self, frame_format: FrameFormat = "parquet") -> None:
        self._format: FrameFormat = frame_format

    def encode(self, value: Any) -> Encoded:
        """Encode a DataFrame or Series.

        Raises:
            UnsupportedTypeError: A column would come back changed; ``path`` names it (``"['price']"``).
        """
        import polars as pl

        is_frame = isinstance(value, pl.DataFrame)
        frame = value if is_frame else pl.DataFrame([value.rename("value")])
        kind = "polars.DataFrame" if is_frame else "polars.Series"
        facts = {
            "type": kind,
            "name": None if is_frame else value.name,
            "height": frame.height,
            "dtypes": [
                _describe(dtype, f"[{name!r}]" if is_frame else "") for name, dtype in frame.schema.items()
            ],
        }
        extension: FrameFormat = self._format if frame.width else "arrow"
        try:
            parts = _write(value, frame, facts, extension)
        except UnsupportedTypeError:
            if extension == "arrow":
                raise
            extension = "arrow"
            parts = _write(value, frame, facts, extension)
        return Encoded(
            codec=self.name,
            version=self.version,
            extension=extension,
            type=kind,
            parts=parts,
            raw_bytes=int(value.estimated_size()),
            summary={"rows": frame.height, "columns": frame.width}
            if is_frame
            else {"rows": len(value), "dtype": str(value.dtype)[:40]},
        )

    def decode(self, payload: memoryview, type: str, version: int, max_bytes: int) -> Any:
        """Decode what ``encode`` wrote; see ``Codec.decode``."""
        return _restore(FrameReader(payload, max_bytes))


def _write(value: Any, frame: Any, facts: dict[str, Any], frame_format: FrameFormat) -> list[Buffer]:
    import polars as pl
    import pyarrow as pa

    try:
        schema = frame.head(0).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
        schema = schema.with_metadata(metadata(facts))
        parts = write_frame(schema, _tables(frame, schema), frame_format=frame_format)
        if frame.width and all(isinstance(dtype, str) and dtype in _KNOWN for dtype in facts["dtypes"]):
            return parts
        path = frames_equal(value, _restore(FrameReader(join(parts), 2**62)))
    except UnsupportedTypeError:
        raise
    except (pa.ArrowException, pl.exceptions.PolarsError, ValueError, TypeError) as error:
        raise unsupported("", f"{frame_format} cannot hold it: {error}") from error
    except Exception as error:
        raise unsupported("", f"it cannot be read back from {frame_format}: {error}") from error
    if path is not None:
        raise unsupported(path, "its dtype would come back changed; cast it to a plain one with .cast()")
    return parts


def _tables(frame: Any, schema: Any) -> Iterator[Any]:
    import polars as pl

    # Numbers are handed over as they lie; strings and nested values are copied.
    copied = sum(
        column.estimated_size() for column in frame.get_columns() if not column.dtype.is_numeric()
    )
    step = max(frame.height if copied <= SLICE_BYTES else frame.height * SLICE_BYTES // copied, 1024)
    for start in range(0, max(frame.height, 1), step):
        table = frame.slice(start, step).to_arrow(compat_level=pl.CompatLevel.oldest())
        yield table.cast(schema) if not table.schema.equals(schema) else table.cast(schema)


def _restore(reader: FrameReader) -> Any:
    import polars as pl

    facts = reader.facts
    with foreign_errors():
        columns = []
        for group in reader.groups():
            table = reader.read(group)
            for position, name, column in zip(group, table.column_names, table.columns, strict=True):
                dtype = _dtype(facts["dtypes"][position])
                series = pl.Series(name, column)
                columns.append(series if series.dtype == dtype else series.cast(dtype))
            del table, column
        if facts["type"] == "polars.Series":
            return columns[0].rename(facts["name"])
        if not columns and facts["height"]:
            return pl.DataFrame(height=facts["height"])
        return pl.DataFrame(columns)


_KNOWN = frozenset(
    "Int8 Int16 Int32 Int64 UInt8 UInt16 UInt32 UInt64 Float32 Float64 Boolean String Binary Date Time".split()
)
_NAMED = _KNOWN | {"Null", "Int128", "UInt128", "Float16", "Categorical"}


def _describe(dtype: Any, path: str) -> Any:
    """Turn a dtype into JSON."""
    import polars as pl

    name = type(dtype).__name__
    if name in _NAMED:
        return name
    if name == "Datetime":
        return {name: [dtype.time_unit, dtype.time_zone]}
    if name == "Duration":
        return {name: [dtype.time_unit]}
    if name == "Decimal":
        return {name: [dtype.precision, dtype.scale]}
    if name == "Enum":
        return {name: [dtype.categories.to_list()]}
    if name == "List":
        return {name: [_describe(dtype.inner, path)]}
    if name == "Array":
        return {name: [_describe(dtype.inner, path), dtype.size]}
    if name == "Struct":
        return {name: [[field.name, _describe(field.dtype, path)] for field in dtype.fields]}
    hint = "cast it to a plain dtype, or drop the column" if dtype != pl.Object else "Python objects have no open format"
    raise unsupported(path, f"dtype {dtype} cannot be stored: {hint}")


def _dtype(facts: Any) -> Any:
    import polars as pl

    if isinstance(facts, str):
        if facts not in _NAMED:
            raise ValueError(f"dtype {facts!r}")
        return getattr(pl, facts)()
    ((name, content),) = facts.items()
    if name == "Datetime":
        return pl.Datetime(*content)
    if name == "Duration":
        return pl.Duration(*content)
    if name == "Decimal":
        return pl.Decimal(*content)
    if name == "Enum":
        return pl.Enum(content[0])
    if name == "List":
        return pl.List(_dtype(content[0]))
    if name == "Array":
        return pl.Array(_dtype(content[0]), content[1])
    if name == "Struct":
        return pl.Struct([pl.Field(field, _dtype(inner)) for field, inner in content])
    raise ValueError(f"dtype {name!r}")
