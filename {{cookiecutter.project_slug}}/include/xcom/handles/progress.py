"""Progress of long transfers in the task's log."""

from __future__ import annotations

import logging
import time

from ..units import format_size

__all__ = ["TransferLog"]

log = logging.getLogger(__name__)

_EVERY_SECONDS = 10.0


class TransferLog:
    """Logs how far a transfer is, every ten seconds; nothing for one that is shorter.

    Args:
        title: What happens: ``"Uploading model.bin"``.
        total: Bytes in all; None if that is not known.
    """

    def __init__(self, title: str, total: int | None = None) -> None:
        self._title = title
        self._total = total
        self._started = self._logged = time.monotonic()

    def __call__(self, done: int) -> None:
        """Take note that ``done`` bytes have been transferred so far."""
        now = time.monotonic()
        if now - self._logged < _EVERY_SECONDS:
            return
        self._logged = now
        share = f" of {format_size(self._total)} ({done / self._total:.0%})" if self._total else ""
        rate = format_size(int(done / (now - self._started)))
        log.info("%s: %s%s, %s/s", self._title, format_size(done), share, rate)
