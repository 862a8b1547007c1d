"""Arrays: shape, dtype, a summary, a histogram, and a heat map of a slice of two dimensions."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

from ..errors import PayloadCorruptError
from . import limits
from .numbers import histogram, short
from .pipe import PipedFile

if TYPE_CHECKING:
    import numpy as np

__all__ = ["describe"]

_HEAD_BYTES = 64 * 1024
_PIECES = 32
_VALUES = 200
_LEVELS = 255


def describe(file: PipedFile, asked: dict[str, Any]) -> dict[str, Any]:
    """Describe an array; ``asked["index"]`` tells where the shown slice lies in all axes but the last two."""
    index: list[int] = asked.get("index", [])
    shape, is_fortran, dtype, start = _read_head(file)
    count = math.prod(shape)
    if start + count * dtype.itemsize != file.size:
        raise PayloadCorruptError(f"{file.size - start} bytes do not fill shape {shape} of {dtype}")
    described: dict[str, Any] = {
        "kind": "array",
        "shape": [f"{length:,}" for length in shape],
        "dtype": str(dtype)[:200],
        "count": count,
        "is_fortran": is_fortran,
        "sampled": 0,
    }
    if not count or not dtype.itemsize:
        return described
    is_whole = count * dtype.itemsize <= limits.ARRAY_BYTES
    # In memory a Fortran array is one of the reversed shape; so it is read and shown when it is large.
    stored = shape[::-1] if is_fortran else shape
    whole = None
    if is_whole:
        whole = _read(file, start, dtype, 0, count).reshape(stored)
        if is_fortran:
            whole = whole.T
        sample = whole.reshape(-1)
    else:
        sample = _pieces(file, start, dtype, count)
    axes = shape if whole is not None else stored
    described.update(_summary(sample), sampled=int(sample.size), is_reversed=whole is None and is_fortran)
    if dtype.names:
        described["fields"] = [[name, str(dtype[name])] for name in dtype.names[:200]]
        described["first"] = [_text(value) for value in sample[: _VALUES // 4].tolist()]
        return described
    if len(axes) < 2:
        described["first"] = [_text(value) for value in sample[:_VALUES].tolist()]
        if sample.dtype.kind in "biuf":
            described["line"] = _line(_floats(sample))
        return described
    index = [
        max(0, min(at, length - 1)) for at, length in zip(index + [0] * len(axes), axes[:-2], strict=False)
    ]
    described["index"], described["axes"] = index, list(axes[:-2])
    if dtype.kind in "biufc":
        described["heat"] = _heat(_slice(file, start, dtype, whole, axes, index))
        described["heat"]["left_out"] = _left_out(dtype, whole is None, axes)
    else:
        described["first"] = [_text(value) for value in sample[:_VALUES].tolist()]
    return described


def _read_head(file: PipedFile) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Read shape, order, dtype and where the data begins; the dtype is of plain values only."""
    import numpy as np

    head = io.BytesIO(file.range(0, _HEAD_BYTES))
    try:
        version = np.lib.format.read_magic(head)
        readers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        shape, is_fortran, dtype = readers[version](head, max_header_size=60_000)
        if dtype.hasobject or any(length < 0 for length in shape) or len(shape) > 32:
            raise ValueError("arrays of Python objects are not opened")
    except (ValueError, TypeError, SyntaxError, EOFError, OverflowError, KeyError) as error:
        raise PayloadCorruptError(f"it is not an .npy file that this reads: {error}") from error
    return shape, is_fortran, dtype, head.tell()


def _read(file: PipedFile, start: int, dtype: np.dtype[Any], first: int, count: int) -> np.ndarray[Any, Any]:
    import numpy as np

    at = start + first * dtype.itemsize
    return np.frombuffer(file.range(at, at + count * dtype.itemsize), dtype, count)


def _pieces(file: PipedFile, start: int, dtype: np.dtype[Any], count: int) -> np.ndarray[Any, Any]:
    """Read pieces that are spread evenly."""
    import numpy as np

    length = max(1, 64 * 1024 // dtype.itemsize)
    firsts = [piece * (count - length) // (_PIECES - 1) for piece in range(_PIECES)]
    size = dtype.itemsize
    file.fetch([(start + first * size, start + (first + length) * size) for first in firsts])
    return np.concatenate([_read(file, start, dtype, first, length) for first in firsts])


def _slice(
    file: PipedFile,
    start: int,
    dtype: np.dtype[Any],
    whole: np.ndarray[Any, Any] | None,
    axes: tuple[int, ...],
    index: list[int],
) -> np.ndarray[Any, Any]:
    """Return a slice of two dimensions, thinned out to what a heat map shows."""
    import numpy as np

    rows, columns = axes[-2:]
    down, width, across = _thinned(dtype, whole is None, axes)
    if whole is not None:
        found: np.ndarray[Any, Any] = whole[tuple(index)][::down, ::across]
        return found
    at = 0
    for position, length in zip(index, axes, strict=False):
        at = at * length + position
    at *= rows * columns
    kept = range(0, rows, down)
    size = dtype.itemsize
    file.fetch(
        [(start + (at + row * columns) * size, start + (at + row * columns + width) * size) for row in kept]
    )
    return np.stack([_read(file, start, dtype, at + row * columns, width)[::across] for row in kept])


def _thinned(dtype: np.dtype[Any], is_large: bool, axes: tuple[int, ...]) -> tuple[int, int, int]:
    """Return which rows of a slice are shown (each n-th), how many of its columns, and which of these."""
    rows, columns = axes[-2:]
    down, width = -(-rows // limits.HEAT_CELLS), columns
    if is_large:
        # Of every shown row the beginning only, where whole ones would be too much.
        width = min(columns, max(limits.ARRAY_BYTES // dtype.itemsize // -(-rows // down), 1))
    return down, width, -(-width // limits.HEAT_CELLS)


def _left_out(dtype: np.dtype[Any], is_large: bool, axes: tuple[int, ...]) -> list[str]:
    """Say which rows and columns of the slice the heat map does not show."""
    down, width, across = _thinned(dtype, is_large, axes)
    words = [f"Of each row the first {width:,} of {axes[-1]:,} columns are read"] if width < axes[-1] else []
    for step, name in ((down, "row"), (across, "column")):
        words += [f"One {name} of {step:,} is shown"] if step > 1 else []
    return words


def _floats(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return numbers as floats; the size of complex ones."""
    import numpy as np

    with np.errstate(all="ignore"):
        return (np.abs(values) if values.dtype.kind == "c" else values).astype(np.float64)


def _summary(sample: np.ndarray[Any, Any]) -> dict[str, Any]:
    import numpy as np

    kind = sample.dtype.kind
    if kind in "mM":
        missing = int(np.isnat(sample).sum())
        present = sample[~np.isnat(sample)]
        facts: dict[str, Any] = {"missing": missing}
        if present.size:
            facts |= {"min": str(present.min()), "max": str(present.max())}
            facts["histogram"] = histogram(present.astype(np.int64).astype(np.float64))
        return facts
    if kind not in "biufc":
        return {}
    values = _floats(sample)
    finite = values[np.isfinite(values)]
    facts = {
        "missing": int(np.isnan(values).sum()),
        "infinite": int(np.isinf(values).sum()),
        "zero": int((values == 0).sum()),
        "histogram": histogram(values),
    }
    if finite.size:
        with np.errstate(all="ignore"):
            for name in ("min", "max", "mean", "std"):
                facts[name] = short(float(getattr(finite, name)()))
            facts["median"] = short(float(np.median(finite)))
    return facts


def _heat(values: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return levels of 1 to 255 for each cell as text of hexadecimal digits; 0 is not a number."""
    import numpy as np

    floats = _floats(values)
    is_finite = np.isfinite(floats)
    levels = np.zeros(floats.shape, np.uint8)
    low = high = 0.0
    if is_finite.any():
        low, high = float(floats[is_finite].min()), float(floats[is_finite].max())
        width = high - low if np.isfinite(high - low) and high > low else 1.0
        with np.errstate(all="ignore"):
            scaled = 1 + np.rint((floats - low) / width * (_LEVELS - 1))
        levels[is_finite] = np.clip(scaled[is_finite], 1, _LEVELS).astype(np.uint8)
    few = floats[:16, :12]
    return {
        "rows": floats.shape[0],
        "columns": floats.shape[1],
        "levels": levels.tobytes().hex(),
        "low": short(low),
        "high": short(high),
        "corner": [[_text(value) for value in row] for row in few.tolist()],
    }


def _line(values: np.ndarray[Any, Any]) -> list[float | None]:
    step = -(-values.size // 400)
    return [float(value) if math.isfinite(value) else None for value in values[::step]]


def _text(value: object) -> str:
    text = short(value) if isinstance(value, (int, float)) else str(value)
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= limits.CELL_CHARACTERS else f"{text[: limits.CELL_CHARACTERS]}…"
