"""A file in memory that libraries write to, kept as parts."""

from __future__ import annotations

import io

from .base import Buffer

__all__ = ["PartsFile"]

# Smaller writes are joined, so that a store does not send thousands of tiny pieces.
_JOIN_BELOW = 64 * 2**10
_JOIN_UP_TO = 2**20


class PartsFile(io.RawIOBase):
    """A write-only file that keeps large writes as they are, without a copy.

    What is written must not change afterwards.

    Attributes:
        size: Bytes written so far.
    """

    def __init__(self) -> None:
        self.size = 0
        self._parts: list[Buffer] = []
        self._small = bytearray()

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Buffer) -> int:  # type: ignore[override]
        """Take the next bytes of the file."""
        view = memoryview(data).cast("B")
        self.size += len(view)
        if len(view) < _JOIN_BELOW:
            self._small += view
        if len(view) >= _JOIN_BELOW or len(self._small) >= _JOIN_UP_TO:
            self._flush_small()
        if len(view) >= _JOIN_BELOW:
            self._parts.append(view)
        return len(view)

    def parts(self) -> list[Buffer]:
        """Return the bytes written so far, in order."""
        self._flush_small()
        return self._parts

    def _flush_small(self) -> None:
        if self._small:
            self._parts.append(memoryview(self._small))
            self._small = bytearray()
