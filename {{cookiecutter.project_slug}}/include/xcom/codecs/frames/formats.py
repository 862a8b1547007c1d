"""What the codecs of pandas, polars and pyarrow share: formats, limits, errors, and the comparison.

These codecs turn their values into Arrow columns; ``frame_writer`` and ``frame_reader`` turn those
into a file and back. Both formats are open: any Parquet or Feather (Arrow IPC file) reader takes
them. What only our codecs need lies under the schema metadata key ``xcom``.

Parquet is the default because everything reads it, BigQuery included. Arrow IPC, uncompressed, is the fast
setting.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from ...errors import PayloadCorruptError, PayloadTooLargeError, UnsupportedTypeError
from .equality import frames_equal

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "METADATA_KEY",
    "SLICE_BYTES",
    "FrameFormat",
    "foreign_errors",
    "frames_equal",
    "is_failure",
    "is_plain",
    "is_text",
    "memory_bytes",
    "metadata",
    "unsupported",
]

FrameFormat = Literal["parquet", "arrow"]

SLICE_BYTES = 32 * 2**20
"""What one step of encoding or decoding may hold beyond the value and the payload."""

METADATA_KEY = b"xcom"


def unsupported(path: str, reason: str) -> UnsupportedTypeError:
    """Build the error for a value that would not come back unchanged.

    Args:
        path: Where, in Python's notation: ``"['price']"``, ``".index"``.
        reason: What is wrong there, and what to do about it.
    """
    return UnsupportedTypeError(reason, path=path)


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
        if not is_failure(error):
            raise
        raise PayloadCorruptError(f"payload is not a frame as this codec writes it: {error}") from error


def memory_bytes(table: Any) -> int:
    """Return the bytes of a table or record batch in memory."""
    try:
        return int(table.nbytes)
    except TypeError:  # view types, before pyarrow 20: counts whole buffers even if only a slice is used
        return int(table.get_total_buffer_size())


def is_failure(error: BaseException) -> bool:
    # A panic within polars is no Exception, so that nobody catches it by chance. Here it is one more
    # way to say that bytes or a type are not taken.
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


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


def is_text(type: pa.DataType) -> bool:
    import pyarrow as pa

    types = pa.types
    return bool(
        types.is_string(type)
        or types.is_large_string(type)
        or types.is_binary(type)
        or types.is_large_binary(type)
    )
