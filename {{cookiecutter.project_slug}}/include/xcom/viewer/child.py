"""The process that decodes one payload and describes it as JSON.

It is started by ``inspector`` with nothing but three pipes, gives up what it does not need before
it looks at the first byte, and ends after one description. A description holds text, numbers and
lists, never HTML: whoever shows it escapes it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ..errors import PayloadError, PayloadTooLargeError
from .describe import describe
from .limits import LIBRARY_BYTES, MEMORY_BYTES, VIEW_SECONDS
from .pipe import PipedFile, asking

__all__ = ["main"]


def main() -> None:
    """Answer one question: a line of JSON on standard input, ``{"size": ..., "codec": ..., ...}``."""
    question = json.loads(sys.stdin.buffer.readline())
    answers, questions = sys.stdin.buffer, sys.stdout.buffer
    ask = asking(questions, answers)  # type: ignore[arg-type]
    is_limited = False

    def ask_limited(ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        nonlocal is_limited
        if not is_limited:
            _give_up()
            is_limited = True
        return ask(ranges)

    _hide_pandas()
    file = PipedFile(question["size"], ask_limited)
    try:
        reply: dict[str, Any] = {"shown": describe(file, question)}
    except PayloadTooLargeError as error:
        reply = {"error": "too-large", "words": str(error)}
    except PayloadError as error:
        reply = {"error": "not-shown", "words": str(error)}
    except MemoryError:
        reply = {"error": "too-large", "words": "decoding it takes more memory than a view may use"}
    except ModuleNotFoundError as error:
        reply = {"error": "package", "words": f"the package {error.name} is not installed here"}
    except (ValueError, OSError, EOFError, KeyError, IndexError, RecursionError) as error:
        # What libraries raise over broken bytes.
        reply = {"error": "not-shown", "words": f"it cannot be decoded: {error}"[:500]}
    except Exception as error:  # noqa: BLE001 - the page must say something in any case
        reply = {"error": "not-shown", "words": f"{type(error).__name__}: {error}"[:500]}
    # Escaped, a letter that is not English would take six bytes; a lone surrogate cannot do without.
    questions.write(json.dumps(reply, ensure_ascii=False).encode(errors="backslashreplace") + b"\n")
    questions.flush()


def _hide_pandas() -> None:
    """Hide pandas from pyarrow, which would import it to see whether a list belongs to it: 0.5 s."""
    sys.meta_path.insert(0, _WithoutPandas())


class _WithoutPandas:
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Refuse one name; others are found as ever."""
        if name == "pandas":
            raise ModuleNotFoundError("pandas is not needed here", name=name)


def _give_up() -> None:
    """Set limits that hold for the rest of this process; where a system lacks one, the others hold."""
    # Before a machine without memory ends the API server, it shall end this.
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return
    used = 0
    with suppress(OSError, ValueError, IndexError), open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    seconds = int(VIEW_SECONDS)
    for limit, value in (
        (resource.RLIMIT_AS, max(used, LIBRARY_BYTES) + MEMORY_BYTES),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        with suppress(OSError, ValueError):
            resource.setrlimit(limit, (value, value))
