"""How many bytes go to and from the store and how long that takes, through Airflow's own metrics.

==============================  ===========  ====================================
metric                          kind         per
==============================  ===========  ====================================
``gcs_xcom.store.bytes``        counter      value that was stored
``gcs_xcom.store.duration``     timer        the same: encoding and uploading
``gcs_xcom.load.bytes``         counter      payload that was read
``gcs_xcom.load.duration``      timer        the same: downloading and decoding
==============================  ===========  ====================================

They go where ``[metrics]`` of Airflow's configuration says (StatsD, Datadog, OpenTelemetry), and cost
three look-ups in the configuration of a process where it says nothing.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from functools import cache
from importlib import import_module
from typing import Any

__all__ = ["record"]

log = logging.getLogger(__name__)

_SWITCHES = ("statsd_on", "statsd_datadog_enabled", "otel_on")
# Of tasks from Airflow 3.2 on, and of 3.0 and 3.1.
_MODULES = ("airflow.sdk.observability.stats", "airflow.stats")


def record(verb: str, size: int, seconds: float) -> None:
    """Count one store or load; never fail, since no task is worth less than its metrics.

    Args:
        verb: ``store`` or ``load``.
        size: Bytes of the payload.
        seconds: From the value to the reference or back.
    """
    stats = _stats()
    if stats is None:
        return
    try:
        stats.incr(f"gcs_xcom.{verb}.bytes", size)
        stats.timing(f"gcs_xcom.{verb}.duration", timedelta(seconds=seconds))
    except Exception:
        log.debug("Metrics could not be sent", exc_info=True)


@cache
def _stats() -> Any:
    """Return what Airflow sends metrics with, None where they are off."""
    from airflow.configuration import conf

    if not any(conf.getboolean("metrics", switch, fallback=False) for switch in _SWITCHES):
        return None
    for name in _MODULES:
        try:
            return import_module(name).Stats
        except (ImportError, AttributeError):
            continue
    log.warning(
        "[metrics] is on, and this Airflow has its Stats neither in %s nor in %s: bytes and seconds of "
        "payloads are not sent. Update include/xcom.",
        *_MODULES,
    )
    return None
