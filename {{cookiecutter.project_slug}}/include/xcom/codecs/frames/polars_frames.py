"""polars frames as open files that come back with their dtypes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from ...errors import UnsupportedTypeError
from ..base import Buffer, Encoded
from .equality import frames_equal
from .formats import SLICE_BYTES, FrameFormat, foreign_errors, metadata, unsupported
from .reading import FrameReader
from .writing import join, refusing, write_frame

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

    name: ClassVar[str] = "polars-frame"
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
    import pyarrow as pa

    with refusing(pa.schema([]), frame_format):
        schema = _to_arrow(frame.head(0)).schema.with_metadata(metadata(facts))
    with refusing(schema, frame_format):
        parts = write_frame(schema, _tables(frame, schema), frame_format=frame_format)
        if frame.width and all(map(_is_known, facts["dtypes"])):
            return parts
        path = frames_equal(value, _restore(FrameReader(join(parts), 2**62)))
    if path is not None:
        raise unsupported(path, "its dtype would come back changed; cast it to a plain one with .cast()")
    return parts


def _tables(frame: Any, schema: Any) -> Iterator[Any]:
    # Numbers are handed over as they lie; strings and nested values are copied.
    copied = sum(column.estimated_size() for column in frame.get_columns() if not column.dtype.is_numeric())
    step = max(frame.height if copied <= SLICE_BYTES else frame.height * SLICE_BYTES // copied, 1024)
    for start in range(0, max(frame.height, 1), step):
        yield _to_arrow(frame.slice(start, step)).cast(schema)


def _to_arrow(frame: Any) -> Any:
    import polars as pl

    # Before 2.0 polars hands over nested slices with children that are too short, and reads nested
    # enums out of bounds (1.30 to 1.34): a copy has no offset, and text no categories.
    rows = pl.int_range(frame.height, eager=True)
    nested = [
        column.cast(_without_categories(column.dtype)).gather(rows)
        for column in frame.get_columns()
        if column.dtype.is_nested()
    ]
    return frame.with_columns(nested).to_arrow(compat_level=pl.CompatLevel.oldest())


def _without_categories(dtype: Any) -> Any:
    import polars as pl

    name = dtype.base_type().__name__
    if name in ("Enum", "Categorical"):
        return pl.String()
    if name == "List":
        return pl.List(_without_categories(dtype.inner))
    if name == "Array":
        return pl.Array(_without_categories(dtype.inner), dtype.size)
    if name == "Struct":
        return pl.Struct([pl.Field(field.name, _without_categories(field.dtype)) for field in dtype.fields])
    return dtype


def _restore(reader: FrameReader) -> Any:
    import polars as pl

    facts = reader.facts
    with foreign_errors():
        columns = {}
        for group in reader.groups():
            table = reader.read(group)
            names = table.column_names
            # Not pl.Series(column): with lists of strings that ends the process in polars 1.35.
            frame: Any = pl.from_arrow(table.rename_columns(list(map(str, group))), rechunk=False)
            del table
            for position, name, series in zip(group, names, frame.get_columns(), strict=True):
                dtype = _dtype(facts["dtypes"][position])
                columns[name] = (series if series.dtype == dtype else _cast(series, dtype)).rename(name)
            del frame, series
        if facts["type"] == "polars.Series":
            return next(iter(columns.values())).rename(facts["name"])
        if not columns and facts["height"]:
            return pl.DataFrame(height=facts["height"])
        return pl.DataFrame(columns)


_KNOWN = frozenset(
    {f"{sign}Int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)}
    | {"Float32", "Float64", "Boolean", "String", "Binary", "Date", "Time"}
)
_NAMED = _KNOWN | {"Null", "Float16"}


def _is_known(facts: Any) -> bool:
    return facts in _KNOWN if isinstance(facts, str) else next(iter(facts)) in ("Datetime", "Duration")


def _cast(series: Any, dtype: Any) -> Any:
    import polars as pl

    if isinstance(dtype, pl.Categorical):  # one kind of categories becomes another by way of strings
        series = series.cast(pl.String)
    return series.cast(dtype)


def _describe(dtype: Any, path: str) -> Any:
    """Turn a dtype into JSON."""

    name = dtype.base_type().__name__
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
    if name == "Categorical":
        kind = getattr(dtype, "categories", None)  # polars 1.31 and newer
        if kind is None or kind.is_global():
            return {name: []}
        return {name: [kind.name(), kind.namespace(), str(kind.physical())]}
    if name == "List":
        return {name: [_describe(dtype.inner, path)]}
    if name == "Array" and dtype.size == 0:
        raise unsupported(path, "an Array of width 0 does not survive Arrow; drop the column")
    if name == "Array":
        return {name: [_describe(dtype.inner, path), dtype.size]}
    if name == "Struct" and not dtype.fields:
        # Before 2.0 polars itself makes {} of null when it takes rows of such a column.
        raise unsupported(path, "a Struct without fields cannot be told from null; drop the column")
    if name == "Struct":
        return {name: [[field.name, _describe(field.dtype, path)] for field in dtype.fields]}
    if name in ("Int128", "UInt128"):
        raise unsupported(
            path, f"dtype {name} has no like in Arrow; cast it to Int64, Decimal(38, 0) or String"
        )
    raise unsupported(path, f"dtype {dtype} has no open format; cast it to another, or drop the column")


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
    if name == "Categorical":
        if not content:
            return pl.Categorical()
        label, namespace, physical = content
        return pl.Categorical(pl.Categories(label, namespace=namespace, physical=_dtype(physical)))
    if name == "List":
        return pl.List(_dtype(content[0]))
    if name == "Array":
        return pl.Array(_dtype(content[0]), content[1])
    if name == "Struct":
        return pl.Struct([pl.Field(field, _dtype(inner)) for field, inner in content])
    raise ValueError(f"dtype {name!r}")
