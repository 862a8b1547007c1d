"""Payloads of XComs: settings, references, codecs, stores and errors of the backend.

``load_all`` is for tasks; everything else is for ``include.xcom_backend``.
"""

from __future__ import annotations

from typing import Any

__all__ = ["__version__", "load_all"]

__version__ = "1.0.0"


def load_all(values: Any) -> list[Any]:
    """Return everything that mapped tasks handed on, loaded in parallel.

    A task that takes the output of mapped tasks gets a lazy sequence: iterating over it asks the API
    server for one row and the store for one payload at a time. This asks for all rows at once and
    loads ``[gcs_xcom] concurrency`` payloads at a time::

        @task
        def report(monthly):
            return pd.concat(load_all(monthly))

    Args:
        values: The lazy sequence, or any list of values, which comes back as it is.

    Raises:
        PayloadError: See ``include.xcom.payloads.load_many``.
    """
    from airflow.sdk.execution_time.lazy_sequence import LazyXComSequence

    if not isinstance(values, LazyXComSequence):
        return list(values)
    from airflow.sdk.execution_time.xcom import XCom

    from ..xcom_backend import GCPBucketXComBackend
    from . import payloads

    if not issubclass(XCom, GCPBucketXComBackend):
        return list(values[:])  # The backend is off: Airflow has decoded the rows already.
    with payloads.rows_only():
        rows = values[:]
    return payloads.load_many(rows)
