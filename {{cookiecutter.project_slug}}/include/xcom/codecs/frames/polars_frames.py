"""Store polars frames with the writers and readers of polars."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, ClassVar, cast

from ...errors import UnsupportedTypeError
from ..base import Buffer, Change, Encoded, type_name
from ..parts import PartsFile
from .comparison import frames_equal
from .formats import FrameFormat, check_size, foreign_errors, hash_schema, is_failure

if TYPE_CHECKING:
    import polars as pl

__all__ = ["PolarsCodec"]


class PolarsCodec:
    """Store ``DataFrame`` and ``Series`` as Parquet or Arrow IPC; a Series is a frame of one column.

    NaN and null stay apart, and every dtype but ``Object`` comes back, nested ones included. Flat
    dtypes are trusted; columns of others are read and compared while encoding. A frame that Parquet
    cannot hold is stored as Arrow IPC.

    Args:
        frame_format: ``"parquet"``, or ``"arrow"`` for speed. Decoding goes by the payload itself.
    """

    name: ClassVar[str] = "polars-frame"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...]] = ("polars.dataframe.frame.DataFrame", "polars.series.series.Series")

    def __init__(self, frame_format: FrameFormat = "parquet") -> None:
        self._format: FrameFormat = frame_format

    def encode(self, value: pl.DataFrame | pl.Series) -> Encoded:
        """Encode a DataFrame or Series.

        Raises:
            UnsupportedTypeError: A column would come back changed; ``path`` names it (``"['price']"``).
        """
        import polars as pl

        frame = value.to_frame() if isinstance(value, pl.Series) else value
        extension = self._format
        try:
            _verify(frame, extension)
        except UnsupportedTypeError:
            if extension == "arrow":
                raise
            extension = "arrow"  # Parquet has no Int128 before polars 1.32, no struct without fields, ...
            _verify(frame, extension)
        summary: dict[str, int | str] = {"rows": frame.height, "columns": frame.width}
        if isinstance(value, pl.Series):
            summary = {"rows": frame.height, "dtype": str(value.dtype)[:40]}
        return Encoded(
            codec=self.name,
            version=self.version,
            extension=extension,
            type=f"polars.{type(value).__name__}",
            parts=_write(frame, extension),
            raw_bytes=int(frame.estimated_size()),
            summary={**summary, "schema": hash_schema(frame.schema.items())},
            changes=tuple(_unregistered(frame)),
        )

    def decode(
        self, payload: memoryview, type: str, version: int, max_bytes: int
    ) -> pl.DataFrame | pl.Series:
        """Decode what ``encode`` wrote; see ``Codec.decode``.

        The sizes of flat columns are checked before they are decoded; polars does not tell that of text
        (``payloads.load`` goes by the reference's ``raw_bytes``).
        """
        with foreign_errors():
            frame = _read(payload, max_bytes)
            return frame if type == "polars.DataFrame" else frame.to_series()


def _write(frame: pl.DataFrame, frame_format: FrameFormat) -> list[Buffer]:
    import polars as pl

    sink = PartsFile()
    file = cast("IO[bytes]", sink)
    if frame_format == "parquet":
        # Level 1 takes a third of the time of polars' own choice, for 1 % more bytes. A payload is
        # read whole and nobody filters row groups, so statistics would serve no one.
        frame.write_parquet(file, compression="zstd", compression_level=1, statistics=False)
    else:
        # pandas cannot read string views, the newer layout.
        frame.write_ipc(file, compression="uncompressed", compat_level=pl.CompatLevel.oldest())
    return sink.parts()


def _read(payload: memoryview, max_bytes: int) -> pl.DataFrame:
    import polars as pl

    data = bytes(payload)  # What polars reads without one more copy.
    if not data.startswith(b"PAR1"):
        return pl.read_ipc(data)
    found = pl.scan_parquet(data)
    sample = pl.DataFrame(schema=found.collect_schema()).clear(64)  # 64 rows of nulls.
    rows = found.select(pl.len()).collect().item()
    check_size(rows * sample.estimated_size() // 64, max_bytes)
    return found.collect()


def _verify(frame: pl.DataFrame, frame_format: FrameFormat) -> None:
    """Write the columns that are not trusted, each by itself, read them, and compare.

    Raises:
        UnsupportedTypeError: One does not come back.
    """
    for column in frame.get_columns():
        if column.dtype.base_type().__name__ in _TRUSTED:
            continue
        try:
            written = column.to_frame()
            payload = memoryview(b"".join(_write(written, frame_format)))
            if frames_equal(_read(payload, 2**62), written):
                continue
            reason = "would come back changed"
        except BaseException as error:
            if not is_failure(error):
                raise
            reason = f"cannot be stored: {error}"
        raise UnsupportedTypeError(
            f"dtype {column.dtype} {reason}; convert it with .cast() or drop the column",
            path=f"[{column.name!r}]",
        )


_TRUSTED = frozenset(
    {f"{sign}Int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)}
    | {"Float32", "Float64", "Boolean", "String", "Binary", "Date", "Time", "Datetime", "Duration"}
)


def _unregistered(frame: pl.DataFrame) -> list[Change]:
    """Find extension types of Python classes, which only a process that registers them gets back."""
    import polars as pl

    generic = getattr(pl, "Extension", None)  # polars 1.36
    return [
        Change(f"[{name!r}]", type_name(type(dtype)), type_name(generic))
        for name, dtype in frame.schema.items()
        if generic is not None and isinstance(dtype, pl.BaseExtension) and type(dtype) is not generic
    ]
