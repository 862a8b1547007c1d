"""CRC32C checksums, as Cloud Storage computes them."""

from __future__ import annotations

from collections.abc import Iterable

from .contract import Buffer

__all__ = ["Checksum", "checksum", "joined_checksum"]

_COPY_BYTES = 256 * 1024
# Polynomials are reflected: the highest bit is x to the power of 0.
_POLYNOMIAL = 0x82F63B78
_ONE = 1 << 31
_EIGHTH_POWER = 1 << 23


class Checksum:
    """CRC32C (Castagnoli) of bytes that come in pieces."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: Buffer) -> None:
        """Add more bytes."""
        import google_crc32c

        if isinstance(data, bytes):
            self._value = google_crc32c.extend(self._value, data)
            return
        # The library takes immutable bytes only. A copy of 256 KiB stays in the processor's cache.
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _COPY_BYTES):
            self._value = google_crc32c.extend(self._value, bytes(view[start : start + _COPY_BYTES]))

    def __str__(self) -> str:
        """Return eight hexadecimal digits."""
        return f"{self._value:08x}"


def checksum(parts: Iterable[Buffer]) -> str:
    """Return the CRC32C of parts, one after the other."""
    total = Checksum()
    for part in parts:
        total.update(part)
    return str(total)


def joined_checksum(parts: Iterable[tuple[str, int]]) -> str:
    """Return the CRC32C of a whole from the checksum and the size in bytes of each of its parts.

    The first checksum times x to the power of 8 * size of the second, plus the second, modulo the
    polynomial, as zlib's ``crc32_combine`` does; some ten microseconds for each part.
    """
    whole = 0
    for crc32c, size in parts:
        factor, power = _ONE, _EIGHTH_POWER
        while size:
            if size & 1:
                factor = _product(power, factor)
            power = _product(power, power)
            size >>= 1
        whole = _product(factor, whole) ^ int(crc32c, 16)
    return f"{whole:08x}"


def _product(first: int, second: int) -> int:
    """Multiply two polynomials modulo CRC32C's."""
    product = 0
    for bit in range(31, -1, -1):
        if first >> bit & 1:
            product ^= second
        second = second >> 1 ^ (_POLYNOMIAL if second & 1 else 0)
    return product
