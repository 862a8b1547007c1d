"""Write numbers for people, sizes the way ``gcloud storage`` does, in every message, command, and page."""

from __future__ import annotations

__all__ = ["format_count", "format_number", "format_size"]


def format_count(number: int, noun: str) -> str:
    """Return a number of things.

    >>> format_count(1, "run"), format_count(2, "run")
    ('1 run', '2 runs')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def format_number(number: float) -> str:
    """Return a count as it is, another number with six digits.

    >>> format_number(336776), format_number(1 / 3)
    ('336,776', '0.333333')
    """
    return f"{number:,.0f}" if number == int(number) else f"{number:,.6g}"


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
