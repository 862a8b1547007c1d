"""XComs that are not loaded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sized
from typing import TYPE_CHECKING, Any

from .. import payloads
from ..reference import PayloadReference, segment
from ..stores import Stored, store_of
from ..units import format_size
from .base import Content
from .files import File, media_type_of
from .tables import Table

if TYPE_CHECKING:
    from airflow.sdk import DAG

__all__ = ["XComHandle", "pull"]

# Codecs of frames; and those whose Parquet files pyarrow writes, with a checksum for every page, so that
# columns of them can be read, and verified, without the rest.
_FRAME_CODECS = frozenset({"pandas-frame", "polars-frame", "arrow-table"})
_CHECKSUM_CODECS = frozenset({"pandas-frame", "arrow-table"})


def pull(
    task_ids: str | Iterable[str],
    key: str = "return_value",
    dag_id: str | None = None,
    run_id: str | None = None,
    map_indexes: int | Iterable[int] | None = None,
) -> Any:
    """Return handles of XComs, without loading their payloads; for use within a task.

    Asks Airflow for the rows, as ``ti.xcom_pull`` does, and the bucket for nothing::

        @task.branch
        def has_flights():
            return "report" if pull("extract").summary["rows"] else "notify"

        @task
        def report():
            delays = pull("extract").table().to_pandas(columns=["dep_delay"])

    Args:
        task_ids: Task that pushed the XCom, or several.
        key: Key of the XCom.
        dag_id: Dag of the task; by default that of the calling task.
        run_id: Run of the Dag; by default that of the calling task.
        map_indexes: Map index of a mapped task, or several; all by default.

    Returns:
        An ``XComHandle``; for a mapped task, several tasks or several map indexes a list of them. An XCom
        that does not exist is like one of ``None``, as for ``xcom_pull``.

    Raises:
        RuntimeError: Called outside of a task, or this XCom backend is switched off.
        ReferenceNotAllowedError: A row is malformed, or names an object that this deployment may not
            read.
    """
    from airflow.sdk import get_current_context
    from airflow.sdk.execution_time.xcom import XCom

    from ...xcom_backend import GCPBucketXComBackend

    if not issubclass(XCom, GCPBucketXComBackend):
        raise RuntimeError("pull() needs the XCom backend: set AIRFLOW__CORE__XCOM_BACKEND, see README.md")
    ti = get_current_context()["ti"]
    ids = {"key": key, "dag_id": dag_id or ti.dag_id, "run_id": run_id or ti.run_id}
    tasks = [task_ids] if isinstance(task_ids, str) else list(task_ids)
    rows: list[Any] = []
    with payloads.rows_only():
        for task_id in tasks:
            if map_indexes is None:
                rows += XCom.get_all(task_id=task_id, **ids) or []
                continue
            indexes = [map_indexes] if isinstance(map_indexes, int) else map_indexes
            rows += [XCom.get_one(task_id=task_id, map_index=index, **ids) for index in indexes]
    is_one = isinstance(task_ids, str) and isinstance(map_indexes, (int, type(None)))
    if is_one and map_indexes is None:
        is_one = len(rows) <= 1 and not (ids["dag_id"] == ti.dag_id and _is_mapped(ti.task.dag, tasks[0]))
    handles = [XComHandle(row, key) for row in rows]
    return (handles or [XComHandle(None, key)])[0] if is_one else handles


class XComHandle:
    """An XCom of which only the row is here; ``pull`` returns it.

    Attributes:
        type: Type of the value: ``"pandas.DataFrame"``, ``"dict"``, ``"File"``.
        summary: What is known of it: ``{"rows": 336776, "columns": 19}``, ``{"items": 60000}``.
        size: Bytes of the payload, or of a value that is in the row itself.
    """

    def __init__(self, row: Any, key: str) -> None:
        self._row = row
        self._key = key
        self._reference = PayloadReference.from_row(row)
        if self._reference:
            self.type = self._reference.type
            self.summary = dict(self._reference.summary)
            self.size = self._reference.bytes
        else:
            value = self.load()  # In the row: no request.
            self.type = type(value).__name__
            self.summary = {"items": len(value)} if isinstance(value, Sized) else {}
            self.size = len(json.dumps(row))

    def load(self) -> Any:
        """Return the value, as ``ti.xcom_pull`` does.

        Raises:
            PayloadError: As ``include.xcom.payloads.load``.
        """
        return payloads.load(self._row)

    def table(self) -> Table:
        """Return a frame or ``Table`` as a ``Table``, of which columns and rows can be read.

        A frame of polars or in Arrow's format is downloaded whole first, since its parts cannot be
        verified. A pandas index is among the columns.

        Raises:
            TypeError: It is something else.
        """
        reference = self._reference
        is_frame = self.type.endswith(("DataFrame", "Table", "RecordBatch"))
        if reference is None or not is_frame or reference.codec not in {*_FRAME_CODECS, "table"}:
            raise TypeError(self._none or f'XCom "{self._key}" is a {self.type}, not a table: use load()')
        content = self._content(reference)
        if reference.codec == "table":
            return Table.of(content)
        if reference.codec in _CHECKSUM_CODECS and reference.uri.endswith(".parquet"):
            return Table.of(content)
        return Table(self.load())

    def file(self) -> File:
        """Return a ``File``, or the stored payload of another value as one: Parquet, JSON, bytes.

        Raises:
            TypeError: The value is in the row itself and has no payload.
        """
        reference = self._reference
        if reference is None:
            why = f'XCom "{self._key}" is in the database and has no payload: use load()'
            raise TypeError(self._none or why)
        content = self._content(reference)
        if reference.codec == "file":
            return File.of(content)
        extension = reference.uri.rpartition("/")[2].partition(".")[2]
        name = f"{segment(self._key)}.{extension}"
        return File.of(Content(content.stored, {"name": name, "media_type": media_type_of(name)}))

    @property
    def _none(self) -> str:
        """What is said of a missing XCom; one of None looks the same."""
        missing = f'There is no XCom "{self._key}", or it is None: see the arguments of pull()'
        return missing if self._row is None else ""

    def __repr__(self) -> str:
        facts = "".join(f", {name}={value!r}" for name, value in self.summary.items())
        return f"XComHandle({self.type}, {format_size(self.size)}{facts})"

    @staticmethod
    def _content(reference: PayloadReference) -> Content:
        store_of(reference.uri)  # Refuses what may not be read.
        return Content(Stored.of(reference), reference.facts)


def _is_mapped(dag: DAG, task_id: str) -> bool:
    if not dag.has_task(task_id):
        return False
    task = dag.get_task(task_id)
    return task.is_mapped or task.get_closest_mapped_task_group() is not None
