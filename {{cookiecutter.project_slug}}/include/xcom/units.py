"""Write sizes the way ``gcloud storage`` does, in every message, command, and page."""

from __future__ import annotations

__all__ = ["format_size"]


def format_size(size: int) -> str:
    """Return a number of bytes in binary units.

    >>> format_size(1536)
    '1.5 KiB'
    >>> format_size(1023)
    '1023 B'
    """
    number = float(size)
    if number < 1024:
        return f"{size} B"
    for unit in ("KiB", "MiB", "GiB"):
        number /= 1024
        if number < 1023.95:  # 1023.96 would be rounded up to 1024.0.
            return f"{number:.1f} {unit}"
    return f"{number / 1024:.1f} TiB"
