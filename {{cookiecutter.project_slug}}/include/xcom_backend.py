"""The XCom backend: values go to Google Cloud Storage, the database keeps short references.

Airflow loads the class below by ``AIRFLOW__CORE__XCOM_BACKEND``. The whole way of a value::

    a task returns a value                        a task pulls an XCom
      serialize_value (3.0-3.3), store_value        deserialize_value (3.0-3.3), load_value
        payloads.store                                payloads.load
          codecs.encode   small JSON: a row, done       no reference: Airflow's own way, done
          stores.put      one new object                store_of       allowed? else refused
          reference       the row                       stores.get     size and CRC32C checked
                                                        codecs.decode

Nothing reads a setting, opens a connection or imports a library before the first value: a backend
that cannot be imported stops every component of Airflow.
"""

from __future__ import annotations

from typing import Any

try:
    from airflow.sdk.bases.xcom import BaseXCom
except ModuleNotFoundError as error:
    if not str(error.name).startswith("airflow.sdk"):
        raise
    raise ImportError(
        "include.xcom_backend needs Airflow 3.0 or newer: this Airflow has no airflow.sdk.bases.xcom, so it is "
        "a 2.x. Update Airflow, or unset [core] xcom_backend (AIRFLOW__CORE__XCOM_BACKEND) here."
    ) from error

from .xcom import payloads
from .xcom.reference import Coordinates
from .xcom.threads import run_in_thread

__all__ = ["GCPBucketXComBackend"]


class GCPBucketXComBackend(BaseXCom):
    """Stores what tasks hand on in a bucket; see the module's docstring.

    Airflow calls every method; tasks use ``return``, ``ti.xcom_push`` and ``ti.xcom_pull`` as ever.
    All errors are of ``include.xcom.errors`` and say what to do.
    """

    @staticmethod
    def serialize_value(
        value: Any,
        *,
        key: str | None = None,
        task_id: str | None = None,
        dag_id: str | None = None,
        run_id: str | None = None,
        map_index: int | None = None,
    ) -> Any:
        """Return the row of a value, after its payload has been stored (Airflow 3.0 to 3.3)."""
        index = -1 if map_index is None else map_index
        return payloads.store(value, Coordinates(dag_id or "", run_id or "", task_id or "", index, key or ""))

    @staticmethod
    def deserialize_value(result: Any) -> Any:
        """Return the value of a row, after its payload has been read (Airflow 3.0 to 3.3)."""
        return payloads.load(result.value)

    @classmethod
    def store_value(cls, coordinate: Any, key: str, value: Any) -> Any:
        """Return the row of a value, after its payload has been stored (Airflow 3.4)."""
        index = getattr(coordinate, "region_index", None)
        ids = (coordinate.dag_id, coordinate.run_id, coordinate.task_id)
        return payloads.store(value, Coordinates(*ids, -1 if index is None else index, key))

    @classmethod
    def load_value(cls, stored: Any) -> Any:
        """Return the value of a row, after its payload has been read (Airflow 3.4)."""
        return payloads.load(stored)

    @classmethod
    def purge(cls, xcom: Any, *args: Any) -> None:
        """Delete the payload of a row that Airflow is about to delete; never fail the task."""
        payloads.purge(xcom.value)

    @classmethod
    def get_all(cls, **xcom: Any) -> Any:
        """Return the values of all map indexes, in order, read several at a time."""
        with payloads.rows_only():
            rows = super().get_all(**xcom)
        return rows if rows is None else payloads.load_many(rows)

    # The methods below are of Airflow 3.3 and later; earlier ones never call them. They keep the event
    # loop of an async task or a triggerer free: Airflow asks for the row on the loop, and the payload is
    # stored or read in a thread.

    @classmethod
    async def aset(cls, key: str, value: Any, **xcom: Any) -> None:
        """Store a value."""
        ids = {name: xcom.get(name) for name in ("dag_id", "task_id", "run_id", "map_index")}
        row = await run_in_thread(cls.serialize_value, value, key=key, **ids)
        with payloads.rows_only():
            await super().aset(key, row, **xcom)

    @classmethod
    async def aget_one(cls, **xcom: Any) -> Any:
        """Return one value."""
        with payloads.rows_only():
            row = await super().aget_one(**xcom)
        return row if row is None else await run_in_thread(payloads.load, row)

    @classmethod
    async def aget_all(cls, **xcom: Any) -> Any:
        """Return the values of all map indexes, in order, read several at a time."""
        with payloads.rows_only():
            rows = await super().aget_all(**xcom)
        return rows if rows is None else await run_in_thread(payloads.load_many, rows)
