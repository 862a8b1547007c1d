"""Start a child process for one payload, serve the ranges that it asks for, and end it in time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from contextvars import copy_context
from dataclasses import asdict
from pathlib import Path
from threading import Timer
from typing import Any

from ..errors import PayloadError, PayloadTooLargeError, UnsupportedTypeError
from ..units import format_size
from . import limits
from .pipe import Question, Ranges
from .sources import Source

__all__ = ["NotShownError", "ViewTimeoutError", "inspect"]

_ROOT = str(Path(__file__).resolve().parents[3])
_START = (
    f"import sys, json; sys.path[:] = json.loads(sys.argv[1]); from {__package__}.child import main; main()"
)
_PARALLEL = 8
# No settings, secrets, or proxies: only what libraries need to be found and to use few threads.
_KEPT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TZDIR")
_FIXED = {
    "LANG": "C.UTF-8",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
}


class NotShownError(PayloadError):
    """The child process cannot make sense of the payload.

    This says little about the payload: only the store's checks tell whether it is what was written.
    """

    title = "Cannot be shown here"
    advice = (
        "The payload itself may be fine: tasks load it in another way, and with more memory. Download the object "
        "to open it with another tool. If tasks cannot load it either, clear the task that wrote it"
    )


class ViewTimeoutError(PayloadError):
    """Reading or decoding the payload took too long and was stopped."""

    title = "Took too long"
    advice = "The store or this machine is slow at the moment. Try again, or download the object"


def inspect(source: Source, question: Question) -> dict[str, Any]:
    """Describe a payload in a child process.

    Raises:
        PayloadError: From the store.
        PayloadTooLargeError: More would be read or decoded than one view may.
        UnsupportedTypeError: A package is not installed here.
        NotShownError: The child cannot decode the payload.
        ViewTimeoutError: It took longer than ``limits.VIEW_SECONDS``.
    """
    path = [_ROOT, *(entry for entry in sys.path if entry)]
    process = subprocess.Popen(
        [sys.executable, "-c", _START, json.dumps(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=_ROOT,
        env={**{name: os.environ[name] for name in _KEPT if name in os.environ}, **_FIXED},
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
            "the child process ended without an answer: it needed more memory or time than a view may use, or "
            "a library crashed"
        ) from error
    finally:
        timer.cancel()
        process.kill()
        # Reads under way end by their own limit. Nobody waits for them.
        pool.shutdown(wait=False, cancel_futures=True)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        process.wait()


def _serve(
    process: subprocess.Popen[bytes],
    source: Source,
    question: Question,
    pool: ThreadPoolExecutor,
    deadline: float,
) -> dict[str, Any]:
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None
    assert stdout is not None
    stdin.write(json.dumps({**asdict(question), "size": source.size}).encode() + b"\n")
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
            return _answer(message)
        ranges = _ranges(message["read"], source.size)
        total += sum(stop - start for start, stop in ranges)
        if total > limits.READ_BYTES:
            raise PayloadTooLargeError(
                f"this page would read more than {format_size(limits.READ_BYTES)} of it"
            )
        futures = [pool.submit(copy_context().run, read, start, stop) for start, stop in ranges]
        for future in futures:
            stdin.write(future.result(max(deadline - time.monotonic(), 0)))
        stdin.flush()


def _ranges(asked: object, size: int) -> Ranges:
    """Check what the child asks for: the payload may have taken it over."""
    if type(asked) is not list or not all(type(one) is list and len(one) == 2 for one in asked):
        raise ValueError("not ranges")
    ranges = []
    for start, stop in asked[:4096]:
        if type(start) is not int or type(stop) is not int or not 0 <= start < stop <= size:
            raise ValueError("not a range of the payload")
        ranges.append((start, stop))
    return ranges


def _answer(message: dict[str, Any]) -> dict[str, Any]:
    text = str(message.get("text", ""))[:2000]
    kind, shown = message.get("error"), message.get("shown")
    if kind == "too-large":
        raise PayloadTooLargeError(text)
    if kind == "package":
        raise UnsupportedTypeError(text)
    if kind is not None or type(shown) is not dict:
        raise NotShownError(text)
    return shown
