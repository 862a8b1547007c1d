"""Describe arrays: shape, dtype, summary, histogram, and a heat map of a two-dimensional slice."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import PayloadCorruptError
from . import limits
from .cells import cut, histogram, number
from .pipe import PipedFile, Question

if TYPE_CHECKING:
    import numpy as np

__all__ = ["describe"]

_HEAD_BYTES = 64 * 1024
_PIECES = 32
_PIECE_BYTES = 64 * 1024
_VALUES = 200
_LINE_POINTS = 400
_LEVELS = 255


def describe(file: PipedFile, question: Question) -> dict[str, Any]:
    """Describe an array; ``question.index`` places the slice along all axes but the last two.

    Raises:
        PayloadCorruptError: Not an ``.npy`` file of plain values, or its header contradicts its size.
    """
    array = _open(file)
    described: dict[str, Any] = {
        "kind": "array",
        "shape": [f"{length:,}" for length in array.shape],
        "dtype": str(array.dtype)[:200],
        "count": array.count,
        "is_fortran": array.is_fortran,
        "sampled": 0,
    }
    if not array.count or not array.dtype.itemsize:
        return described
    whole = array.read_whole() if array.count * array.dtype.itemsize <= limits.ARRAY_BYTES else None
    sample = array.read_pieces() if whole is None else whole.reshape(-1)
    described |= {
        **_summary(sample),
        "sampled": int(sample.size),
        "is_reversed": whole is None and array.is_fortran,
    }
    if array.dtype.names:
        fields = [[name, str(array.dtype[name])] for name in array.dtype.names[:_VALUES]]
        return {**described, "fields": fields, "first": _first(sample)}
    # In memory a Fortran array is one of the reversed shape. A large one is read and shown so.
    axes = array.shape if whole is not None or not array.is_fortran else array.shape[::-1]
    if len(axes) < 2:
        line = {"line": _line(_floats(sample))} if array.dtype.kind in "biuf" else {}
        return {**described, "first": _first(sample), **line}
    given = question.index + [0] * len(axes)
    index = [max(0, min(at, length - 1)) for at, length in zip(given, axes[:-2], strict=False)]
    described |= {"index": index, "axes": list(axes[:-2])}
    if array.dtype.kind not in "biufc":
        return {**described, "first": _first(sample)}
    grid = _Grid(axes, array.dtype.itemsize, is_cut=whole is None)
    values = grid.read(array, index) if whole is None else grid.thin(whole[tuple(index)])
    return {**described, "heat": {**_heat(values), "left_out": grid.left_out()}}


# ---------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class _Array:
    """The header of an ``.npy`` file, and where its values start."""

    file: PipedFile
    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]
    start: int

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    def spans(self, firsts: list[int], length: int) -> list[tuple[int, int]]:
        size = self.dtype.itemsize
        return [(self.start + first * size, self.start + (first + length) * size) for first in firsts]

    def read(self, first: int, length: int) -> np.ndarray[Any, Any]:
        import numpy as np

        (span,) = self.spans([first], length)
        return np.frombuffer(self.file.range(*span), self.dtype, length)

    def read_whole(self) -> np.ndarray[Any, Any]:
        values = self.read(0, self.count)
        return values.reshape(self.shape[::-1]).T if self.is_fortran else values.reshape(self.shape)

    def read_pieces(self) -> np.ndarray[Any, Any]:
        """Read pieces that are spread evenly over the array."""
        import numpy as np

        length = max(1, _PIECE_BYTES // self.dtype.itemsize)
        firsts = [piece * (self.count - length) // (_PIECES - 1) for piece in range(_PIECES)]
        self.file.fetch(self.spans(firsts, length))
        return np.concatenate([self.read(first, length) for first in firsts])


def _open(file: PipedFile) -> _Array:
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
        raise PayloadCorruptError(f"not an .npy file that the viewer reads: {error}") from error
    array = _Array(file, shape, is_fortran, dtype, head.tell())
    if array.start + array.count * dtype.itemsize != file.size:
        raise PayloadCorruptError(f"{file.size - array.start} bytes do not fill shape {shape} of {dtype}")
    return array


class _Grid:
    """The rows and columns of a slice that fit into a heat map.

    Args:
        axes: Of the array; the last two are those of the slice.
        itemsize: Bytes of one value.
        is_cut: Read only the beginning of each row, because whole rows would be too much.
    """

    def __init__(self, axes: tuple[int, ...], itemsize: int, *, is_cut: bool) -> None:
        self._axes = axes
        rows, columns = axes[-2:]
        self._down = -(-rows // limits.HEAT_CELLS)
        most = limits.ARRAY_BYTES // itemsize // -(-rows // self._down) if is_cut else columns
        self._width = max(min(columns, most), 1)
        self._across = -(-self._width // limits.HEAT_CELLS)

    def thin(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return every n-th row and column."""
        return values[:: self._down, : self._width : self._across]

    def read(self, array: _Array, index: list[int]) -> np.ndarray[Any, Any]:
        """Read the rows that are shown, of a large array."""
        import numpy as np

        rows, columns = self._axes[-2:]
        at = 0
        for position, length in zip(index, self._axes, strict=False):
            at = at * length + position
        firsts = [(at * rows + row) * columns for row in range(0, rows, self._down)]
        array.file.fetch(array.spans(firsts, self._width))
        return np.stack([array.read(first, self._width)[:: self._across] for first in firsts])

    def left_out(self) -> list[str]:
        """Say which rows and columns of the slice are not shown."""
        columns = self._axes[-1]
        words = [f"Only the first {self._width:,} of {columns:,} columns are read"]
        words = words if self._width < columns else []
        for step, name in ((self._down, "row"), (self._across, "column")):
            words += [f"One {name} of {step:,} is shown"] if step > 1 else []
        return words


# -------------------------------------------------------------------------------------------- describing


def _floats(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return numbers as floats; of complex ones the absolute value."""
    import numpy as np

    with np.errstate(all="ignore"):
        return (np.abs(values) if values.dtype.kind == "c" else values).astype(np.float64)


def _summary(sample: np.ndarray[Any, Any]) -> dict[str, Any]:
    import numpy as np

    kind = sample.dtype.kind
    if kind in "mM":
        present = sample[~np.isnat(sample)]
        facts: dict[str, Any] = {"missing": int(sample.size - present.size)}
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
            for name in ("min", "max", "mean", "std", "median"):
                facts[name] = number(float(getattr(np, name)(finite)))
    return facts


def _heat(values: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return a level of 1 to 255 for each cell, as hexadecimal digits; 0 is for what is not finite."""
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
    return {
        "rows": floats.shape[0],
        "columns": floats.shape[1],
        "levels": levels.tobytes().hex(),
        "low": number(low),
        "high": number(high),
        "corner": [[_text(value) for value in row] for row in floats[:16, :12].tolist()],
    }


def _line(values: np.ndarray[Any, Any]) -> list[float | None]:
    step = -(-values.size // _LINE_POINTS)
    return [float(value) if math.isfinite(value) else None for value in values[::step]]


def _first(sample: np.ndarray[Any, Any]) -> list[str]:
    return [_text(value) for value in sample[:_VALUES].tolist()]


def _text(value: object) -> str:
    return cut(number(value), limits.CELL_CHARACTERS)
