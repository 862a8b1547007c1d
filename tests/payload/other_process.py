"""Reads and writes values in a process of another time zone, locale, hash seed, and working directory.

Run as a program, it is that process: a line of JSON in, a line of JSON out.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections import deque
from typing import Any

import numpy as np
from include.xcom import codecs
from include.xcom.codecs.inline import Inline
from include.xcom.codecs.instances import has_state, state_of
from include.xcom.settings import Settings

ELSEWHERE = {"TZ": "Asia/Kolkata", "LC_ALL": "C", "LANG": "tr_TR.UTF-8", "PYTHONHASHSEED": "7"}


class OtherProcess:
    """A process elsewhere. Close it.

    Args:
        allowed: ``[core] allowed_deserialization_classes`` there.
    """

    def __init__(self, allowed: str = "airflow.*") -> None:
        environment = {
            **os.environ,
            **ELSEWHERE,
            "AIRFLOW__CORE__ALLOWED_DESERIALIZATION_CLASSES": allowed,
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env=environment,
            cwd=tempfile.gettempdir(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="ascii",
        )

    def reads(self, encoded: Any) -> tuple[str, Any]:
        """Return the description of what the process decodes, and what it then encodes that to."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(_packed(encoded), file=self._process.stdin, flush=True)
        description, again = _unpacked(self._process.stdout.readline())
        return description, again

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def described(value: Any) -> str:
    """Return a text that is the same in every process for values that are the same at every depth."""
    kind: Any = type(value)
    if isinstance(value, dict):
        items = ",".join(f"{described(key)}={described(item)}" for key, item in value.items())
    elif isinstance(value, (list, tuple, deque)):
        items = ",".join(map(described, value))
    elif isinstance(value, (set, frozenset)):
        items = ",".join(sorted(map(described, value)))
    elif isinstance(value, np.ndarray):
        items = f"{np.lib.format.dtype_to_descr(value.dtype)}{value.shape}{value.tobytes()!r}"
    elif has_state(kind):
        items = described(state_of(value))
    elif kind.__repr__ is object.__repr__:
        items = described(vars(value))
    else:
        offset = value.utcoffset() if getattr(value, "tzinfo", None) else None
        text = hex(value) if kind is int else repr(value)
        items = f"{text} {getattr(value, 'fold', '')} {offset}"
    return f"{kind.__module__}.{kind.__qualname__}({items})"


def plain(encoded: Any) -> Any:
    """Return what a process must know of what ``codecs.encode`` returned."""
    if isinstance(encoded, Inline):
        return json.dumps(encoded.row)
    payload = b"".join(bytes(part) for part in encoded.parts)
    return payload, encoded.codec, encoded.version, encoded.type


def _packed(item: Any) -> str:
    return base64.b64encode(pickle.dumps(item)).decode()


def _unpacked(line: str) -> Any:
    return pickle.loads(base64.b64decode(line))


def _main() -> None:
    sys.setrecursionlimit(4000)
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # Whatever libraries print is no answer.

    for line in sys.stdin:
        encoded = _unpacked(line)
        if isinstance(encoded, str):
            row = json.loads(encoded)
            tagged = codecs.decode_row(row)
            value, threshold_bytes = row if tagged is None else tagged[0], 48 * 1024
        else:
            payload, codec, version, kind = encoded
            value = codecs.decode(memoryview(bytearray(payload)), codec, version, kind, 2**30)
            threshold_bytes = 0
        again = codecs.encode(value, Settings(bucket="file:///unused", threshold_bytes=threshold_bytes))
        print(_packed((described(value), plain(again))), file=answers, flush=True)


if __name__ == "__main__":
    _main()
