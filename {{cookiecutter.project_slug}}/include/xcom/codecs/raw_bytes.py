"""Bytes, as they are."""

from __future__ import annotations

from typing import Any, ClassVar

from .base import Encoded

__all__ = ["BytesCodec"]


class BytesCodec:
    """``bytes`` and ``bytearray``; the object is the value, byte by byte."""

    name: ClassVar[str] = "bytes"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...]] = ("builtins.bytes", "builtins.bytearray")

    def encode(self, value: Any) -> Encoded:
        """Encode without a copy."""
        size = len(value)
        return Encoded(self.name, self.version, "bin", type(value).__name__, [value], size, {})

    def decode(self, payload: memoryview, type: str, version: int, max_bytes: int) -> Any:
        """Decode; a bytearray that the payload fills is handed over as it is."""
        if type == "bytes":
            return bytes(payload)
        whole = payload.obj
        if isinstance(whole, bytearray) and len(whole) == len(payload):
            return whole
        return bytearray(payload)
