"""NumPy arrays, as ``.npy`` files."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import PayloadCorruptError, UnsupportedTypeError
from .base import Buffer, Change, Encoded

if TYPE_CHECKING:
    import numpy as np


__all__ = ["NumpyCodec"]


class NumpyCodec:
    """``numpy.ndarray`` of any shape, byte order and dtype that holds its own data.

    Shape, dtype and Fortran order come back; strides of a view do not (it comes back contiguous).
    The result is writable, as after ``numpy.load``. ``numpy.load(path, allow_pickle=False)`` reads
    the object.
    """

    name: ClassVar[str] = "npy"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...]] = ("numpy.ndarray",)

    def encode(self, value: np.ndarray[Any, Any]) -> Encoded:
        """Encode; the data of a contiguous array is not copied.

        Raises:
            UnsupportedTypeError: The dtype holds Python objects, or ``.npy`` cannot describe it.
        """
        import numpy as np

        dtype = value.dtype
        if dtype.hasobject:
            raise UnsupportedTypeError(
                f"the array's dtype {dtype} holds Python objects; give it a dtype of its own "
                "(numbers, 'U20', 'datetime64[s]') or return a list",
                path=".dtype",
            )
        head = io.BytesIO()
        is_fortran = value.flags.f_contiguous and not value.flags.c_contiguous
        try:
            description = np.lib.format.dtype_to_descr(dtype)
            if isinstance(description, str) and np.dtype(description).char != dtype.char:
                # longlong, which has the size and so the name of another type.
                description = ("" if dtype.isnative else dtype.byteorder) + dtype.char
            described = np.lib.format.descr_to_dtype(description)
            same = described == dtype and dtype.metadata is None
        except (TypeError, ValueError):
            same = False
        if not same:
            raise UnsupportedTypeError(
                f"the .npy format does not describe dtype {dtype!r} in full; convert the array with "
                ".astype() first",
                path=".dtype",
            )
        shape = {"descr": description, "fortran_order": is_fortran, "shape": value.shape}
        np.lib.format.write_array_header_2_0(head, shape)
        summary: dict[str, int | str] = {
            "shape": " x ".join(map(str, value.shape)) or "scalar",
            "dtype": str(dtype) if len(str(dtype)) <= 80 else f"{str(dtype)[:79]}…",
        }
        parts = [head.getvalue(), _data(value, is_fortran)]
        # Equal, with all offsets: only the word "aligned" and names of fields' C types are not kept.
        changes = () if repr(described) == repr(dtype) else (Change(".dtype", repr(dtype), repr(described)),)
        return Encoded(self.name, self.version, "npy", "numpy.ndarray", parts, value.nbytes, summary, changes)

    def decode(self, payload: memoryview, type: str, version: int, max_bytes: int) -> np.ndarray[Any, Any]:
        """Decode; the array shares the payload's memory where that is aligned."""
        import numpy as np

        # The head is text that numpy parses as a literal; 2.0 allows 4 GiB of it, we write a line.
        head = io.BytesIO(payload[: 64 * 1024])
        try:
            if np.lib.format.read_magic(head) != (2, 0):
                raise ValueError("unknown version of the .npy format")
            shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(head, max_header_size=60_000)
            if dtype.hasobject:
                raise ValueError("arrays of objects are refused")
            count = int(np.prod(shape, dtype=object)) if shape else 1
            data = payload[head.tell() :]
            if count * dtype.itemsize != len(data):
                raise ValueError(f"{len(data)} bytes do not fill shape {shape} of {dtype}")
            if not data.nbytes:
                return np.empty(shape, dtype, order="F" if is_fortran else "C")
            array = np.frombuffer(data, dtype, count)
        except (ValueError, TypeError, SyntaxError, EOFError, OverflowError) as error:
            raise PayloadCorruptError(f"the payload is not an .npy file: {error}") from error
        shaped: np.ndarray[Any, Any] = array.reshape(shape[::-1]).T if is_fortran else array.reshape(shape)
        return shaped if shaped.flags.aligned and shaped.flags.writeable else shaped.copy(order="K")


def _data(value: np.ndarray[Any, Any], is_fortran: bool) -> Buffer:
    import numpy as np

    flat = value.T if is_fortran else np.ascontiguousarray(value)
    if not flat.nbytes:
        return b""
    # Through uint8: memoryview.cast knows neither datetime64 nor structured dtypes.
    return memoryview(flat.reshape(-1).view(np.uint8))
