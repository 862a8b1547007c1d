"""A file that lies elsewhere: the process that decodes asks for its ranges through a pipe.

One message of either side is a line of JSON; the answer to ``{"read": [[0, 4], ...]}`` is followed
by the bytes of all ranges, one after the other.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence

__all__ = ["PipedFile", "Window", "asking"]

_BLOCK = 16 * 1024


class PipedFile(io.RawIOBase):
    """A readable, seekable file whose blocks are asked for once and kept.

    Args:
        size: Of the whole file.
        ask: Takes ranges and returns the bytes of each.
    """

    def __init__(self, size: int, ask: Callable[[Sequence[tuple[int, int]]], list[bytes]]) -> None:
        self.size = size
        self._ask = ask
        self._blocks: dict[int, bytes] = {}
        self._at = 0

    def fetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Ask for all of these ranges at once, as far as they are not here yet."""
        missing = sorted(
            {
                block
                for start, stop in ranges
                for block in range(max(start, 0) // _BLOCK, -(-min(stop, self.size) // _BLOCK))
                if block not in self._blocks
            }
        )
        runs: list[list[int]] = []
        for block in missing:
            if runs and block == runs[-1][1]:
                runs[-1][1] += 1
            else:
                runs.append([block, block + 1])
        if not runs:
            return
        wanted = [(first * _BLOCK, min(last * _BLOCK, self.size)) for first, last in runs]
        for (first, last), data in zip(runs, self._ask(wanted), strict=True):
            for block in range(first, last):
                self._blocks[block] = data[(block - first) * _BLOCK : (block - first + 1) * _BLOCK]

    def range(self, start: int, stop: int) -> bytes:
        """Return the bytes from ``start`` to before ``stop``, fewer at the file's end."""
        start, stop = max(start, 0), min(stop, self.size)
        if start >= stop:
            return b""
        self.fetch([(start, stop)])
        first = start // _BLOCK
        data = b"".join(self._blocks[block] for block in range(first, -(-stop // _BLOCK)))
        return data[start - first * _BLOCK : stop - first * _BLOCK]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise OSError("seek before the start of the payload")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self.range(self._at, self._at + len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


class Window(PipedFile):
    """A part of a file, as a file: a member of a bundle."""

    def __init__(self, file: PipedFile, start: int, size: int) -> None:
        super().__init__(size, self._within)
        self._file = file
        self._start = start

    def _within(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        moved = [(start + self._start, stop + self._start) for start, stop in ranges]
        self._file.fetch(moved)
        return [self._file.range(start, stop) for start, stop in moved]


def asking(
    questions: io.BufferedIOBase, answers: io.BufferedIOBase
) -> Callable[[Sequence[tuple[int, int]]], list[bytes]]:
    """Return the function that asks the API server through a pair of pipes."""

    def ask(ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        questions.write(json.dumps({"read": list(ranges)}).encode() + b"\n")
        questions.flush()
        pieces = []
        for start, stop in ranges:
            piece = answers.read(stop - start)
            if len(piece) != stop - start:
                raise EOFError("the API server has hung up")
            pieces.append(piece)
        return pieces

    return ask
