"""Start a process for one payload, serve it the ranges that it asks for, and end it in time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any

from ..errors import PayloadError, PayloadTooLargeError, UnsupportedTypeError
from . import limits
from .ranged import Source

__all__ = ["NotShownError", "ViewTimeoutError", "Viewed", "inspect"]

_ROOT = str(Path(__file__).resolve().parents[3])
_START = (
    f"import sys, json; sys.path[:] = json.loads(sys.argv[1]); from {__package__}.child import main; main()"
)
_PARALLEL = 8
# No settings, secrets or proxies: what a library needs to be found and to stay modest.
_KEPT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TZDIR")
_MODEST = {
    "LANG": "C.UTF-8",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
}


class NotShownError(PayloadError):
    """The process that decodes cannot make sense of the payload, which tells little about the payload.

    Whether it is what was written, the store's checks say.
    """


class ViewTimeoutError(Exception):
    """Looking at the payload took too long and was stopped."""


@dataclass(frozen=True)
class Viewed:
    """What was found.

    Attributes:
        shown: The description, as ``child`` made it.
        bytes_read: From the store.
    """

    shown: dict[str, Any]
    bytes_read: int


def inspect(source: Source, question: dict[str, Any]) -> Viewed:
    """Describe a payload, in a process of its own.

    Args:
        source: Its bytes.
        question: ``codec`` and what of it shall be shown; see ``child``.

    Raises:
        PayloadError: What the store says.
        PayloadTooLargeError: More would have to be read or decoded than a view may.
        UnsupportedTypeError: A package is not installed here.
        NotShownError: It cannot be decoded.
        ViewTimeoutError: It took longer than a view may.
    """
    path = [_ROOT, *(entry for entry in sys.path if entry)]
    process = subprocess.Popen(
        [sys.executable, "-c", _START, json.dumps(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=_ROOT,
        env={**{name: os.environ[name] for name in _KEPT if name in os.environ}, **_MODEST},
    )
    deadline = time.monotonic() + limits.VIEW_SECONDS
    timer = Timer(limits.VIEW_SECONDS, process.kill)
    timer.start()
    pool = ThreadPoolExecutor(_PARALLEL, "viewer")
    try:
        return _serve(process, source, question, pool, deadline)
    except PayloadError:
        raise
    except (BrokenPipeError, EOFError, ValueError, RecursionError, FutureTimeoutError) as error:
        if time.monotonic() >= deadline:
            raise ViewTimeoutError(f"more than {limits.VIEW_SECONDS:g} s") from error
        raise NotShownError(
            "the process that decodes it ended without an answer: it needed more memory or time than a view "
            "may use, or fell over what it read"
        ) from error
    finally:
        timer.cancel()
        process.kill()
        # What is being read ends by its own limit; nobody waits for it.
        pool.shutdown(wait=False, cancel_futures=True)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
        process.wait()


def _serve(
    process: subprocess.Popen[bytes],
    source: Source,
    question: dict[str, Any],
    pool: ThreadPoolExecutor,
    deadline: float,
) -> Viewed:
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None and stdout is not None
    stdin.write(json.dumps({**question, "size": source.size}).encode() + b"\n")
    stdin.flush()
    total = 0

    def read(start: int, stop: int) -> bytes:
        return source.read(start, stop, max(deadline - time.monotonic(), 0.1))

    while True:
        line = stdout.readline(limits.RESULT_BYTES)
        if not line.endswith(b"\n"):
            raise EOFError
        message = json.loads(line)
        if type(message) is not dict:
            raise ValueError("not a message")
        if "read" not in message:
            return Viewed(_answer(message), total)
        ranges = _ranges(message["read"], source.size)
        total += sum(stop - start for start, stop in ranges)
        if total > limits.READ_BYTES:
            raise PayloadTooLargeError(
                f"more than {limits.READ_BYTES:,} bytes of it would have to be read for this page"
            )
        futures = [pool.submit(copy_context().run, read, start, stop) for start, stop in ranges]
        for future in futures:
            stdin.write(future.result(max(deadline - time.monotonic(), 0)))
        stdin.flush()


def _ranges(asked: Any, size: int) -> Sequence[tuple[int, int]]:
    """Check what the process asks for: it may have been taken over by what it decodes."""
    if type(asked) is not list or not all(type(one) is list and len(one) == 2 for one in asked):
        raise ValueError("not ranges")
    ranges = []
    for start, stop in asked[:4096]:
        if type(start) is not int or type(stop) is not int or not 0 <= start < stop <= size:
            raise ValueError("not a range of the payload")
        ranges.append((start, stop))
    return ranges


def _answer(message: dict[str, Any]) -> dict[str, Any]:
    words = str(message.get("words", ""))[:2000]
    kind = message.get("error")
    if kind == "too-large":
        raise PayloadTooLargeError(words)
    if kind == "package":
        raise UnsupportedTypeError(words)
    if kind is not None or type(message.get("shown")) is not dict:
        raise NotShownError(words)
    shown: dict[str, Any] = message["shown"]
    return shown
