"""Plain tables for people: text in, lines of at most 100 columns out."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["WIDTH", "age", "size", "table"]

WIDTH = 100
_LEAST_WIDTH = 8
_GAP = "  "


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = ()) -> str:
    """Return a table; what does not fit loses its middle, in the widest columns first.

    Args:
        heads: Names of the columns.
        rows: One cell for each column.
        right: Names of the columns that stand at the right, as numbers do.
    """
    cells = [[_printable(str(cell)) for cell in row] for row in [heads, *rows]]
    widths = [max(len(row[place]) for row in cells) for place in range(len(heads))]
    while sum(widths) + len(_GAP) * (len(widths) - 1) > WIDTH and max(widths) > _LEAST_WIDTH:
        widths[widths.index(max(widths))] -= 1
    lines = []
    for row in cells:
        texts = [_cut(text, width) for text, width in zip(row, widths, strict=True)]
        padded = [
            text.rjust(width) if head in right else text.ljust(width)
            for head, text, width in zip(heads, texts, widths, strict=True)
        ]
        lines.append(_GAP.join(padded).rstrip())
    return "\n".join(lines)


def size(count: int) -> str:
    """Return bytes as people read them: ``84.2 MiB``."""
    number = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def age(seconds: float) -> str:
    """Return a time span in its largest unit: ``12 d``."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _printable(text: str) -> str:
    # Ids and keys are data: they must not move the cursor of whoever reads the table.
    return "".join(character if character.isprintable() else "?" for character in text)


def _cut(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"
