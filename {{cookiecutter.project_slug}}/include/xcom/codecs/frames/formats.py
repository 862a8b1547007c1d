"""What the codecs of all frame libraries share; importing this costs nothing."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

from ...errors import PayloadCorruptError, PayloadError, PayloadTooLargeError

__all__ = ["FrameFormat", "check_size", "foreign_errors", "hash_schema", "is_failure"]

FrameFormat = Literal["parquet", "arrow"]
"""Parquet is the default because everything reads it, BigQuery included; Arrow IPC is the fast setting."""


def check_size(needed: int, max_bytes: int) -> None:
    """Refuse to decode more than ``max_bytes``.

    Raises:
        PayloadTooLargeError: ``needed`` is more.
    """
    if needed > max_bytes:
        raise PayloadTooLargeError(
            f"expands to {needed} bytes; the limit is {max_bytes}. Nothing was decoded",
            size=needed,
            limit=max_bytes,
        )


def hash_schema(columns: Iterable[tuple[object, object]]) -> str:
    """Return eight hexadecimal digits that tell whether two frames have the same columns in the same order.

    Args:
        columns: Name and type of each.
    """
    text = "\n".join(f"{name!r}: {kind}" for name, kind in columns)
    return f"{zlib.crc32(text.encode(errors='backslashreplace')):08x}"


def is_failure(error: BaseException) -> bool:
    """Tell errors of the libraries, panics of polars included, from interrupts and exits."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


@contextmanager
def foreign_errors() -> Iterator[None]:
    """Turn whatever a library raises over broken bytes into ``PayloadCorruptError``."""
    try:
        yield
    except (PayloadError, ModuleNotFoundError):
        raise
    except BaseException as error:
        if not is_failure(error):
            raise
        raise PayloadCorruptError(f"the payload is not a frame as this codec writes it: {error}") from error
