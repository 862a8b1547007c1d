"""Draw small charts as SVG without styles of its own, and heat maps as PNG. All text in them is escaped."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

from markupsafe import Markup, escape

__all__ = ["bar", "heat", "histogram", "history", "line", "scale"]

# Viridis at equal steps (matplotlib, CC0): perceptually uniform, also in shades of gray.
_STOPS = (
    (68, 1, 84), (72, 40, 120), (62, 73, 137), (49, 104, 142), (38, 130, 142),
    (31, 158, 137), (53, 183, 121), (110, 206, 88), (181, 222, 43), (253, 231, 37),
)  # fmt: skip
_MISSING = (160, 160, 168)


def histogram(counts: list[int], low: Any = "", high: Any = "", *, is_large: bool = False) -> Markup:
    """Draw bars, the highest of which fills the height."""
    width, height = (480, 120) if is_large else (96, 28)
    top = max([*(int(count) for count in counts), 1])
    step = width / max(len(counts), 1)
    bars = []
    for place, count in enumerate(counts):
        # A bin that holds anything can be seen.
        tall = max(height * int(count) / top, 1.0) if count else 0
        bars.append(
            f'<rect x="{place * step:.2f}" y="{height - tall:.2f}" width="{max(step - 0.8, 0.5):.2f}" '
            f'height="{tall:.2f}"/>'
        )
    size = "chart large" if is_large else "chart"
    words = f"Histogram of {len(counts)} bins"
    low, high = (end if isinstance(end, str) or not end else f"{end[0]}…" for end in (low, high))
    words += f" from {low} to {high}" if low and high else ""
    if len(counts) > 1:
        words += f"; the fullest is bin {counts.index(max(counts)) + 1} with {top:,} values"
    return Markup(
        f'<svg class="{size}" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'preserveAspectRatio="none" role="img" aria-label="{escape(words)}">{"".join(bars)}'
        "</svg>"
    )


def bar(part: int, whole: int) -> Markup:
    """Draw a share as a bar."""
    width = 120 * int(part) / whole if whole else 0
    return Markup(
        '<svg class="bar" viewBox="0 0 120 8" width="120" height="8" preserveAspectRatio="none" '
        'aria-hidden="true"><rect class="track" width="120" height="8" rx="2"/>'
        f'<rect width="{max(width, 1.5 if part else 0):.2f}" height="8" rx="2"/></svg>'
    )


def line(values: list[float | None], label: str = "Values in their order") -> Markup:
    """Draw values in their order; what is missing leaves a gap."""
    return _plot(values, escape(label)) if sum(value is not None for value in values) > 1 else Markup("")


def history(values: list[float | None], marks: list[str], titles: list[str], label: str) -> Markup:
    """Draw a measure over runs: a dot for each value, a band or a tick for a run that has none.

    Args:
        marks: For each run ``"failed"``, ``"none"``, or ``""``.
        titles: For each run, shown where the pointer is.
        label: Read by a screen reader.
    """
    step = _WIDTH / max(len(values), 1)
    bands = []
    for place, (mark, title) in enumerate(zip(marks, titles, strict=True)):
        # Told apart by their height, too.
        top = {"failed": 0, "none": _HEIGHT - 12}.get(mark, _HEIGHT)
        bands.append(
            f'<rect class="{escape(mark or "run")}" x="{place * step:.1f}" y="{top if mark else 0}" '
            f'width="{step:.1f}" height="{_HEIGHT - top if mark else _HEIGHT}"><title>{escape(title)}</title></rect>'
        )
    return _plot(values, escape(label), "".join(bands))


_WIDTH, _HEIGHT = 480, 120


def _plot(values: list[float | None], label: Markup, bands: str = "") -> Markup:
    present = [float(value) for value in values if value is not None]
    low, high = min(present, default=0.0), max(present, default=0.0)
    path, dots, is_down = [], [], False
    for place, value in enumerate(values):
        if value is None:
            is_down = False
            continue
        x = _WIDTH * (place + 0.5) / len(values)
        share = (float(value) - low) / (high - low) if high > low else 0.5
        y = _HEIGHT - 6 - (_HEIGHT - 12) * share
        path.append(f"{'L' if is_down else 'M'}{x:.1f} {y:.1f}")
        dots.append(f"M{x:.1f} {y:.1f}h0")
        is_down = True
    drawn = f'<path d="{"".join(path)}"/>'
    drawn += f'<path class="dots" d="{"".join(dots)}"/>' if bands else ""
    return Markup(
        f'<svg class="chart large" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'preserveAspectRatio="none" role="img" aria-label="{label}">{drawn}{bands}</svg>'
    )


def heat(shown: dict[str, Any]) -> Markup:
    """Draw a heat map as an image of one pixel per cell, which the browser enlarges."""
    rows, columns = int(shown["rows"]), int(shown["columns"])
    levels = bytes.fromhex(shown["levels"])
    if rows * columns != len(levels) or not levels:
        return Markup("")
    lines = b"".join(b"\0" + levels[row * columns : (row + 1) * columns] for row in range(rows))
    picture = (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0))
        + _chunk(b"PLTE", b"".join(bytes(_color(level)) for level in range(256)))
        + _chunk(b"IDAT", zlib.compress(lines, 9))
        + _chunk(b"IEND", b"")
    )
    # Cells are enlarged by whole pixels, up to a size that fits next to text.
    times = max(1, min(480 // columns, 320 // rows, 24))
    data = base64.b64encode(picture).decode()
    return Markup(
        f'<img class="heat" src="data:image/png;base64,{data}" width="{columns * times}" '
        f'height="{rows * times}" alt="Heat map of {rows} rows and {columns} columns">'
    )


def scale() -> Markup:
    """Draw the colors of a heat map, low to high."""
    stops = "".join(
        f'<stop offset="{100 * place / (len(_STOPS) - 1):.0f}%" stop-color="rgb{color}"/>'
        for place, color in enumerate(_STOPS)
    )
    return Markup(
        '<svg class="scale" viewBox="0 0 120 8" width="120" height="8" aria-hidden="true"><defs>'
        f'<linearGradient id="heat">{stops}</linearGradient></defs>'
        '<rect width="120" height="8" rx="2" fill="url(#heat)"/></svg>'
    )


def _color(level: int) -> tuple[int, ...]:
    if not level:
        return _MISSING
    at = (level - 1) / 254 * (len(_STOPS) - 1)
    low = min(int(at), len(_STOPS) - 2)
    return tuple(round(a + (b - a) * (at - low)) for a, b in zip(_STOPS[low], _STOPS[low + 1], strict=True))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
