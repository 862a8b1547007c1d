"""The process that decodes one payload and describes it as JSON.

It is started by ``inspector`` with nothing but three pipes, gives up what it does not need before
it looks at the first byte, and ends after one description. A description holds text, numbers and
lists, never HTML: whoever shows it escapes it.
"""

from __future__ import annotations

import json
import sys
import zipfile
from contextlib import suppress
from typing import Any

from include.xcom.errors import PayloadCorruptError, PayloadError, PayloadTooLargeError
from include.xcom.viewer.limits import MEMORY_BYTES, VIEW_SECONDS
from include.xcom.viewer.pipe import PipedFile, Window, asking

__all__ = ["describe", "main"]

_HEAD = 30  # of a zip file's member
_MEMBERS = 1000


def main() -> None:
    """Answer one question: a line of JSON on standard input, ``{"size": ..., "codec": ..., ...}``."""
    question = json.loads(sys.stdin.buffer.readline())
    answers, questions = sys.stdin.buffer, sys.stdout.buffer
    file = PipedFile(question["size"], asking(questions, answers))  # type: ignore[arg-type]
    try:
        reply: dict[str, Any] = {"shown": describe(file, question)}
    except PayloadTooLargeError as error:
        reply = {"error": "too-large", "words": str(error)}
    except PayloadError as error:
        reply = {"error": "corrupt", "words": str(error)}
    except MemoryError:
        reply = {"error": "too-large", "words": "decoding it takes more memory than a view may use"}
    except ModuleNotFoundError as error:
        reply = {"error": "package", "words": f"the package {error.name} is not installed here"}
    except (ValueError, OSError, EOFError, KeyError, IndexError, RecursionError) as error:
        # What libraries raise over broken bytes; pyarrow's errors are among these.
        reply = {"error": "corrupt", "words": f"it cannot be decoded: {error}"[:500]}
    except Exception as error:  # noqa: BLE001 - the page must say something in any case
        reply = {"error": "failed", "words": f"{type(error).__name__}: {error}"[:500]}
    questions.write(json.dumps(reply).encode() + b"\n")
    questions.flush()


def describe(file: PipedFile, question: dict[str, Any]) -> dict[str, Any]:
    """Describe a payload, or one part of a bundle.

    Raises:
        PayloadError: It is not of its format, or too large to look at.
    """
    kind = kind_of(question["codec"], file)
    if kind == "bundle":
        return _bundle(file, question)
    return _one(kind, file, question)


def kind_of(codec: str, file: PipedFile) -> str:
    """Return which module describes a payload: by the codec's name, for some also by its first bytes."""
    if codec in ("pandas", "polars", "pyarrow"):
        return "frame"
    if codec == "tree":
        return "bundle" if file.range(0, 4) == b"PK\x03\x04" else "tree"
    return {"numpy": "array", "bytes": "blob", "json": "tree", "legacy-json": "tree", "inline": "tree"}.get(
        codec, "blob"
    )


def _one(kind: str, file: PipedFile, question: dict[str, Any]) -> dict[str, Any]:
    if kind == "frame":
        _hide_pandas()
        import pyarrow.compute
        import pyarrow.parquet  # noqa: F401 - before the limit of memory: a library is no payload

        _give_up()
        from include.xcom.viewer import frame

        return frame.describe(file, row=question.get("row", 0), column=question.get("column", 0))
    if kind == "array":
        import numpy.lib.format  # noqa: F401

        _give_up()
        from include.xcom.viewer import array

        return array.describe(file, index=question.get("index", []))
    if kind == "tree":
        import orjson  # noqa: F401
        import zstandard  # noqa: F401

        _give_up()
        from include.xcom.viewer import tree

        return tree.describe(file, path=question.get("path", []), start=question.get("start", 0))
    from include.xcom.viewer import blob

    return blob.describe(file)


_EXTENSIONS = {"parquet": "frame", "arrow": "frame", "npy": "array", "json.zst": "tree", "json": "tree"}


def _bundle(file: PipedFile, question: dict[str, Any]) -> dict[str, Any]:
    parts = members(file)
    chosen = question.get("part", "") or "value.json"
    if chosen not in parts:
        raise PayloadCorruptError(f"it has no part of that name; there are {', '.join(list(parts)[:20])}")
    start, size = parts[chosen]
    kind = _EXTENSIONS.get(chosen.partition(".")[2], "blob")
    return {
        **_one(kind, Window(file, start, size), question),
        "part": chosen,
        "parts": [{"name": name, "bytes": size} for name, (_, size) in parts.items()],
    }


def members(file: PipedFile) -> dict[str, tuple[int, int]]:
    """Return where the members of a bundle lie: start and size, by name.

    Raises:
        PayloadCorruptError: It is no zip file of uncompressed members.
    """
    found: dict[str, tuple[int, int]] = {}
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()[:_MEMBERS]
        file.fetch([(info.header_offset, info.header_offset + _HEAD) for info in infos])
        for info in infos:
            lengths = file.range(info.header_offset + 26, info.header_offset + _HEAD)
            start = info.header_offset + _HEAD
            start += int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
            is_inside = start >= 0 and start + info.file_size <= file.size
            if info.compress_type != zipfile.ZIP_STORED or not is_inside:
                raise PayloadCorruptError("a member of the bundle is cut or compressed")
            found[info.filename] = (start, info.file_size)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise PayloadCorruptError(f"it is not a zip file: {error}") from error
    return found


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
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return
    used = 0
    with suppress(OSError, ValueError, IndexError), open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    seconds = int(VIEW_SECONDS)
    for limit, value in (
        (resource.RLIMIT_AS, used + MEMORY_BYTES if used else resource.RLIM_INFINITY),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        with suppress(OSError, ValueError):
            resource.setrlimit(limit, (value, value))
