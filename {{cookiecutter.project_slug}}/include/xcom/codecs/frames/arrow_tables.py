"""Store pyarrow tables and record batches as Parquet or Arrow IPC."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ...errors import UnsupportedTypeError
from ..base import Change, Encoded, type_name
from .formats import FrameFormat, foreign_errors, hash_schema

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ArrowCodec"]


class ArrowCodec:
    """Store ``Table`` and ``RecordBatch`` as Parquet or Arrow IPC.

    Types, nullability, dictionaries, and the metadata of schema and fields come back. Chunks do not:
    a column comes back with one chunk for each row group or batch, and the chunks of a dictionary
    column share one dictionary. Tables that Parquet cannot hold (unions, run-end encoding,
    dictionaries of numbers, ...) are stored as Arrow IPC.

    Args:
        frame_format: ``"parquet"``, or ``"arrow"`` for speed. Decoding goes by the payload itself.
    """

    name: ClassVar[str] = "arrow-table"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...]] = ("pyarrow.lib.Table", "pyarrow.lib.RecordBatch")

    def __init__(self, frame_format: FrameFormat = "parquet") -> None:
        self._format: FrameFormat = frame_format

    def encode(self, value: pa.Table | pa.RecordBatch) -> Encoded:
        """Encode a Table or RecordBatch.

        Raises:
            UnsupportedTypeError: A column would come back changed; ``path`` names it (``"['price']"``).
        """
        import pyarrow as pa

        from .arrow_files import is_plain, write_columns

        is_batch = isinstance(value, pa.RecordBatch)
        table = pa.Table.from_batches([value]) if is_batch else value
        try:
            table.validate(full=True)
        except (pa.ArrowException, ValueError) as error:
            raise UnsupportedTypeError(f"the table is not valid: {error}") from error
        written = write_columns(
            table.schema,
            table.columns,
            table.num_rows,
            doubtful=[at for at, field in enumerate(table.schema) if not is_plain(field.type)],
            frame_format=self._format,
        )
        return Encoded(
            codec=self.name,
            version=self.version,
            extension=written.format,
            type="pyarrow.RecordBatch" if is_batch else "pyarrow.Table",
            parts=written.parts,
            raw_bytes=written.raw_bytes,
            summary={
                "rows": value.num_rows,
                "columns": value.num_columns,
                "schema": hash_schema((field.name, field.type) for field in value.schema),
            },
            changes=tuple(_unregistered(table.schema)),
        )

    def decode(
        self, payload: memoryview, type: str, version: int, max_bytes: int
    ) -> pa.Table | pa.RecordBatch:
        """Decode what ``encode`` wrote; see ``Codec.decode``."""
        import pyarrow as pa

        from .arrow_files import read_table

        table = read_table(payload, max_bytes)
        if type == "pyarrow.Table":
            return table
        with foreign_errors():
            batches = table.unify_dictionaries().combine_chunks().to_batches()
            # An empty table has no batch at all.
            return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def _unregistered(schema: pa.Schema) -> list[Change]:
    """Find extension types of Python classes, which only a process that registers them gets back."""
    import pyarrow as pa

    return [
        Change(f"[{field.name!r}]", type_name(type(field.type)), f"pyarrow.{field.type.storage_type}")
        for field in schema
        if isinstance(field.type, pa.ExtensionType)
    ]
