"""Run blocking calls of the backends off the event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import cache
from typing import Any

__all__ = ["run_in_thread"]

# Of one event loop. Bounds memory; [gcs_xcom] concurrency cannot be asked for on the loop, since a
# setting may be a Variable.
_CALLS_AT_ONCE = 16


async def run_in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function in a thread, in the caller's context, and return its result."""
    # Not asyncio.to_thread: Airflow reads its answers in the loop's own threads. Had our calls taken all
    # of them, each waiting for a Variable or a connection, no answer could ever arrive.
    call = copy_context().run
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_threads(os.getpid()), lambda: call(function, *args, **kwargs))


@cache
def _threads(process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_CALLS_AT_ONCE, "xcom")
