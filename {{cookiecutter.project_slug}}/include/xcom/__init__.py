"""What tasks import, and the core of ``include.xcom_backend``.

For tasks: ``File``, ``Table``, and ``Items`` for values larger than memory, ``new_folder`` for files that
are about to be returned, ``pull`` for XComs that are not loaded, ``load_all`` for what mapped tasks
returned (docs/large-values.md).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .handles.files import File
    from .handles.items import Items
    from .handles.tables import Table
    from .handles.temporary import new_folder
    from .handles.xcoms import XComHandle, pull

__all__ = ["File", "Items", "Table", "XComHandle", "__version__", "load_all", "new_folder", "pull"]

__version__ = "1.0.0"

# Imported at first use: every task imports this package, and few need handles.
_HANDLES = {
    "File": "files",
    "Items": "items",
    "Table": "tables",
    "XComHandle": "xcoms",
    "new_folder": "temporary",
    "pull": "xcoms",
}


def __getattr__(name: str) -> Any:
    if name not in _HANDLES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".handles.{_HANDLES[name]}", __name__), name)


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
