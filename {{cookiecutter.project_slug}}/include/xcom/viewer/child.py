"""Decode and describe one payload in a process of its own.

``inspector`` starts it with three pipes and nothing else. It limits its memory and time before it reads
the first byte of the payload, and ends after one description. A description holds text, numbers, and
lists, never HTML: the page that shows it escapes it.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from typing import Any

from ..errors import PayloadError, PayloadTooLargeError
from .describe import describe
from .limits import LIBRARY_BYTES, MEMORY_BYTES, VIEW_SECONDS
from .pipe import PipedFile, Question, Ranges, asking

__all__ = ["main"]


def main() -> None:
    """Read a question from standard input, describe the payload, and write the description."""
    given = json.loads(sys.stdin.buffer.readline())
    ask = asking(sys.stdout.buffer, sys.stdin.buffer)
    is_limited = False

    def ask_limited(ranges: Ranges) -> list[bytes]:
        nonlocal is_limited
        if not is_limited:
            _limit()
            is_limited = True
        return ask(ranges)

    sys.meta_path.insert(0, _WithoutPandas())
    reply = _answer(PipedFile(given.pop("size"), ask_limited), Question(**given))
    # Unescaped: a letter beyond ASCII would take six bytes. Only lone surrogates must be escaped.
    sys.stdout.buffer.write(json.dumps(reply, ensure_ascii=False).encode(errors="backslashreplace") + b"\n")
    sys.stdout.buffer.flush()


def _answer(file: PipedFile, question: Question) -> dict[str, Any]:
    try:
        return {"shown": describe(file, question)}
    except PayloadTooLargeError as error:
        return {"error": "too-large", "text": str(error)}
    except PayloadError as error:
        return {"error": "not-shown", "text": str(error)}
    except MemoryError:
        return {"error": "too-large", "text": "decoding it takes more memory than a view may use"}
    except ModuleNotFoundError as error:
        return {"error": "package", "text": f"the package {error.name} is not installed here"}
    except Exception as error:  # noqa: BLE001 - libraries raise anything over broken bytes
        return {"error": "not-shown", "text": f"cannot be decoded: {type(error).__name__}: {error}"[:500]}


class _WithoutPandas:
    """Hides pandas from pyarrow, which would import it to look at a list: 0.5 s."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("pandas is not needed here", name=name)


def _limit() -> None:
    """Limit this process for the rest of its life, as far as the system can."""
    # When memory runs out, the kernel ends this process before the API server.
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return
    used = 0
    with suppress(OSError, ValueError, IndexError), open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    for limit, value in (
        (resource.RLIMIT_AS, max(used, LIBRARY_BYTES) + MEMORY_BYTES),
        (resource.RLIMIT_CPU, int(VIEW_SECONDS)),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        with suppress(OSError, ValueError):
            resource.setrlimit(limit, (value, value))
