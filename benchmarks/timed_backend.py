"""The backend with a clock around it, for ``end_to_end``; Airflow loads it in the backend's place.

Each call of ``payloads`` adds a line of JSON to the file that ``BENCH_CALLS`` names. A call within
another one belongs to the outer.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from include.xcom import payloads
from include.xcom_backend import GCPBucketXComBackend

__all__ = ["GCPBucketXComBackend"]

_is_inside: ContextVar[bool] = ContextVar("is_inside", default=False)


def _timed(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any) -> Any:
        if _is_inside.get():
            return function(*args)
        token = _is_inside.set(True)
        began, cpu = time.perf_counter(), time.process_time()
        try:
            return function(*args)
        finally:
            facts = {"wall": time.perf_counter() - began, "cpu": time.process_time() - cpu}
            _is_inside.reset(token)
            with open(os.environ["BENCH_CALLS"], "a", encoding="utf-8") as file:
                file.write(json.dumps({"call": function.__name__, **facts}) + "\n")

    return call


for _name in ("store", "load", "load_many", "purge"):
    setattr(payloads, _name, _timed(getattr(payloads, _name)))
