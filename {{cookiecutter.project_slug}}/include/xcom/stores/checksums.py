"""CRC32C checksums, as GCS computes them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from .contract import Buffer

__all__ = ["Checksum", "checksum"]

_CHUNK_BYTES = 256 * 1024


class Checksum:
    """CRC32C (Castagnoli) over bytes that come in pieces; GCS computes the same."""

    def __init__(self) -> None:
        import google_crc32c

        self._extend: Callable[[int, Any], int] = google_crc32c.extend
        self._value = 0

    def update(self, data: Buffer) -> None:
        """Take in more bytes."""
        if type(data) is bytes:
            self._value = self._extend(self._value, data)
            return
        view = memoryview(data).cast("B")
        if numpy := sys.modules.get("numpy"):
            # As an array the library takes it without a copy (measured for 94 MB: 7.7 ms instead of 9.4).
            self._value = self._extend(self._value, numpy.frombuffer(view, numpy.uint8))
            return
        # It takes immutable bytes only; a copy of 256 KiB at a time stays in the cache.
        for start in range(0, len(view), _CHUNK_BYTES):
            self._value = self._extend(self._value, bytes(view[start : start + _CHUNK_BYTES]))

    def __str__(self) -> str:
        """Return eight hexadecimal digits."""
        return f"{self._value:08x}"


def checksum(parts: list[Buffer]) -> str:
    """Return the CRC32C of parts, one after the other."""
    total = Checksum()
    for part in parts:
        total.update(part)
    return str(total)
