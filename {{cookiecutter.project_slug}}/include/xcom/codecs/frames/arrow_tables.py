"""pyarrow tables and record batches as open files that come back with their schema."""

from __future__ import annotations

from typing import Any, ClassVar

from ...errors import UnsupportedTypeError
from ..base import Buffer, Encoded
from .equality import frames_equal
from .formats import FrameFormat, foreign_errors, is_plain, memory_bytes, unsupported
from .reading import FrameReader
from .writing import join, refusing, write_frame

__all__ = ["ArrowCodec"]


class ArrowCodec:
    """Store ``Table`` and ``RecordBatch`` as Parquet or Arrow IPC.

    Types, nullability, dictionaries, and the metadata of schema and fields come back. Chunks do not:
    a column comes back in one chunk for each row group or batch, and the chunks of a dictionary
    column share one dictionary.

    Types of a fixed list are trusted. Tables with others are read back and compared while encoding;
    what Parquet cannot hold (unions, run-end encoding, dictionaries of numbers, ...) is stored as
    Arrow IPC, and what that changes too is refused.

    Args:
        frame_format: ``"parquet"``, or ``"arrow"`` for speed. Decoding goes by the payload itself.
    """

    name: ClassVar[str] = "arrow-table"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...]] = ("pyarrow.lib.Table", "pyarrow.lib.RecordBatch")

    def __init__(self, frame_format: FrameFormat = "parquet") -> None:
        self._format: FrameFormat = frame_format

    def encode(self, value: Any) -> Encoded:
        """Encode a Table or RecordBatch.

        Raises:
            UnsupportedTypeError: A column would come back changed; ``path`` names it (``"['price']"``).
        """
        import pyarrow as pa

        is_batch = isinstance(value, pa.RecordBatch)
        table = pa.Table.from_batches([value]) if is_batch else value
        extension: FrameFormat = self._format if len(table.schema) else "arrow"
        try:
            parts = _write(table, extension)
        except UnsupportedTypeError:
            if extension == "arrow":
                raise
            extension = "arrow"
            parts = _write(table, extension)
        return Encoded(
            codec=self.name,
            version=self.version,
            extension=extension,
            type="pyarrow.RecordBatch" if is_batch else "pyarrow.Table",
            parts=parts,
            raw_bytes=memory_bytes(value),
            summary={"rows": value.num_rows, "columns": value.num_columns},
        )

    def decode(self, payload: memoryview, type: str, version: int, max_bytes: int) -> Any:
        """Decode what ``encode`` wrote; see ``Codec.decode``."""
        import pyarrow as pa

        table = FrameReader(payload, max_bytes).read()
        if type == "pyarrow.Table":
            return table
        with foreign_errors():
            batches = table.unify_dictionaries().combine_chunks().to_batches()
            # An empty table has no batch at all.
            return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def _write(table: Any, frame_format: FrameFormat) -> list[Buffer]:
    import pyarrow as pa

    try:
        table.validate(full=True)
    except (pa.ArrowException, ValueError) as error:
        raise unsupported("", f"the table itself is not valid: {error}") from error
    with refusing(table.schema, frame_format):
        parts = write_frame(table.schema, [table], frame_format=frame_format)
        # pyarrow keeps the schema under this key of a Parquet file, or takes what it finds there.
        is_known = b"ARROW:schema" not in (table.schema.metadata or {}) and len(table.schema) > 0
        if is_known and all(is_plain(field.type) for field in table.schema):
            return parts
        path = frames_equal(table, FrameReader(join(parts), 2**62).read())
    if path is not None:
        raise unsupported(path, f"type {_type(table, path)} would come back changed; cast it to a plain type")
    return parts


def _type(table: Any, path: str) -> str:
    found = [str(field.type) for field in table.schema if f"[{field.name!r}]" == path]
    return found[0] if found else "of the schema"
