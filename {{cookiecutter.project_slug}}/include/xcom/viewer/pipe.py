"""Ask the API server, through a pipe, for ranges of the payload.

Each message is one line of JSON. The answer to ``{"read": [[0, 4], ...]}`` is the bytes of all ranges,
one after the other.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

__all__ = ["Ask", "PipedFile", "Question", "Ranges", "Window", "asking"]

Ranges = Sequence[tuple[int, int]]
"""Start and stop of each range."""
Ask = Callable[[Ranges], list[bytes]]

_BLOCK = 16 * 1024


@dataclass(frozen=True)
class Question:
    """Which part of a payload to describe.

    Attributes:
        codec: Name of the codec that wrote the payload.
        version: Version of the codec's format.
        part: Member of a zip file, file of a folder, or part of an item.
        row: First row of a frame.
        column: First column of a frame.
        start: First item of a list.
        index: Position along each axis of an array but the last two.
        whole: Summarize all rows of a frame, not a sample.
        facts: What the reference says of the value, such as the name of a file.
    """

    codec: str
    version: int = 1
    part: str = ""
    row: int = 0
    column: int = 0
    start: int = 0
    index: list[int] = field(default_factory=list)
    whole: bool = False
    facts: dict[str, int | str] = field(default_factory=dict)


class PipedFile(io.RawIOBase):
    """A readable, seekable file that fetches each block once.

    Args:
        size: Bytes of the whole file.
        ask: Takes ranges and returns the bytes of each.
    """

    def __init__(self, size: int, ask: Ask) -> None:
        self.size = size
        self._ask = ask
        self._blocks: dict[int, bytes] = {}
        self._at = 0

    def fetch(self, ranges: Ranges) -> None:
        """Fetch these ranges in one question: a bucket answers several ranges as fast as one."""
        wanted = {
            block
            for start, stop in ranges
            for block in range(max(start, 0) // _BLOCK, -(-min(stop, self.size) // _BLOCK))
        }
        runs: list[tuple[int, int]] = []
        for block in sorted(wanted - self._blocks.keys()):
            if runs and runs[-1][1] == block:
                runs[-1] = (runs[-1][0], block + 1)
            else:
                runs.append((block, block + 1))
        if not runs:
            return
        answers = self._ask([(first * _BLOCK, min(last * _BLOCK, self.size)) for first, last in runs])
        for (first, last), data in zip(runs, answers, strict=True):
            for block in range(first, last):
                self._blocks[block] = data[(block - first) * _BLOCK : (block - first + 1) * _BLOCK]

    def range(self, start: int, stop: int) -> bytes:
        """Return the bytes from ``start`` to before ``stop``, fewer at the end of the file."""
        start, stop = max(start, 0), min(stop, self.size)
        if start >= stop:
            return b""
        self.fetch([(start, stop)])
        first = start // _BLOCK
        data = b"".join(self._blocks[block] for block in range(first, -(-stop // _BLOCK)))
        return data[start - first * _BLOCK : stop - first * _BLOCK]

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move without reading anything."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise OSError("seek before the start of the payload")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer from the position on."""
        data = self.range(self._at, self._at + len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


class Window(PipedFile):
    """Part of a file as a file of its own, such as a member of a zip file.

    Attributes:
        start: Offset of its first byte in that file.
    """

    def __init__(self, file: PipedFile, start: int, size: int) -> None:
        super().__init__(size, self._within)
        self.start = start
        self._file = file

    def _within(self, ranges: Ranges) -> list[bytes]:
        moved = [(start + self.start, stop + self.start) for start, stop in ranges]
        self._file.fetch(moved)
        return [self._file.range(start, stop) for start, stop in moved]


def asking(questions: BinaryIO, answers: BinaryIO) -> Ask:
    """Return the function that asks the API server for ranges through a pair of pipes."""

    def ask(ranges: Ranges) -> list[bytes]:
        questions.write(json.dumps({"read": list(ranges)}).encode() + b"\n")
        questions.flush()
        pieces = []
        for start, stop in ranges:
            piece = answers.read(stop - start)
            if len(piece) != stop - start:
                raise EOFError("the API server closed the pipe")
            pieces.append(piece)
        return pieces

    return ask
