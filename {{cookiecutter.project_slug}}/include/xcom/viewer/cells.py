"""Write values, names, and distributions as short text and small lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import limits

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Cell", "cell", "cut", "histogram", "number", "utf8"]

Cell = str | list[str] | None
"""Text, None for null, or ``[beginning, length]`` for text that was cut."""

_BINS = 24


def cell(text: str) -> Cell:
    """Return the text of a table cell; of a long one, the beginning and its length."""
    if len(text) <= limits.CELL_CHARACTERS:
        return utf8(text)
    return [utf8(text[: limits.CELL_CHARACTERS]), f"{len(text):,} characters"]


def cut(text: str, characters: int = limits.NAME_CHARACTERS) -> str:
    """Return at most ``characters`` of a name, followed by its length if it was longer."""
    text = utf8(text)
    return text if len(text) <= characters else f"{text[:characters]}… ({len(text):,} characters)"


def utf8(text: str) -> str:
    """Escape lone surrogates: JSON knows them, no encoding does."""
    return text.encode(errors="backslashreplace").decode()


def number(value: object) -> str:
    """Write integers in full and floats with six significant digits."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**18 else f"{value:.6g}"
    if value.is_integer() and abs(value) < 10**15:
        return f"{int(value):,}"
    return f"{value:.6g}"


def histogram(values: np.ndarray[Any, Any]) -> list[int]:
    """Count the finite values of a one-dimensional float array in bins of equal width."""
    import numpy as np

    finite = values[np.isfinite(values)]
    if not finite.size:
        return []
    low, high = float(finite.min()), float(finite.max())
    if low == high or not np.isfinite(high - low):
        return [int(finite.size)]
    counts, _ = np.histogram(finite, bins=_BINS, range=(low, high))
    return [int(count) for count in counts]
