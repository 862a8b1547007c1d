"""Retry policy: what is tried again, for how long, and what is said at the end."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from ..errors import StoreUnavailableError, shortened
from .transport import Damaged, Transient, time_limit

__all__ = ["retrying"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 20.0
# A link that alters bytes this often in a row will go on doing so.
_DAMAGED_TRIES = 3


def retrying(attempt: Callable[[], _T], verb: str, uri: str, seconds: float, endpoint: str) -> _T:
    """Call ``attempt`` until it works, fails for good, or the time is up.

    Args:
        attempt: Raises ``Transient`` for what a later try may mend.
        verb: What it does: "store", "read".
        uri: Object it does that to.
        seconds: For all tries and waits together.
        endpoint: Where requests go.

    Raises:
        StoreUnavailableError: The next try would be too late, or bytes were altered in transit several
            times in a row.
    """
    started = time.monotonic()
    what = f"{verb} {shortened(uri)}"
    tries = damaged = 0
    before = ""
    with time_limit(seconds):
        while True:
            tries += 1
            try:
                return attempt()
            except Transient as problem:
                passed = time.monotonic() - started
                # The last try may end with the time alone, which says nothing about the cause.
                said = f"{before}, then: {problem}" if before not in ("", str(problem)) else str(problem)
                before = str(problem)
                damaged = damaged + 1 if isinstance(problem, Damaged) else 0
                if damaged == _DAMAGED_TRIES:
                    raise StoreUnavailableError(
                        f"Data is altered in transit: {problem}, {damaged} times in a row. Look for a proxy "
                        f"between here and {endpoint} that changes bodies, or for faulty memory. Could not "
                        f"{what}.",
                        uri=uri,
                    ) from problem
                # Jitter: many tasks that were refused at once must not return at once.
                longest = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2 ** (tries - 1))
                wait = max(problem.wait_seconds, 0) + random.uniform(longest / 2, longest)
                if passed + wait >= seconds:
                    raise StoreUnavailableError(
                        f"{said}. Check that {endpoint} can be reached from here, then clear the task. "
                        f"Could not {what}: giving up after {tries} tries in {passed:.1f} s, "
                        f"because the next retry, in {wait:.1f} s, would exceed {seconds:g} s ([gcs_xcom] "
                        "timeout_seconds). At worst an unreferenced object remains; the sweep removes it.",
                        uri=uri,
                    ) from problem
                log.warning("Could not %s at try %d: %s. Retrying in %.1f s", what, tries, problem, wait)
                time.sleep(wait)
