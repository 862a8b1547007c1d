"""Find out which XComs have rows in Airflow, with as few requests as that takes.

Airflow lists rows by pages of 100, without their values, and so tells about 20 to 40 times as many per
second as it answers one by one (benchmarks/sweep.py). A listing of a whole Dag has full pages, but the
database sorts all of its rows for each of them; a listing of one Dag run costs a request at least.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Executor

from ..reference import Coordinates, coordinates_of, folder_of, is_hashed, is_in_folder, segment
from .api import PAGE_ROWS, AirflowAPI, AirflowAPIError, Query
from .output import CommandError

__all__ = ["RowIndex", "TooManyRowsError", "find_dag", "find_row"]

# Where both ways cost the same: rows of the Dag times XComs of a run (PostgreSQL, measured).
_ROWS_TIMES_XCOMS = 200_000
# 7 MB of hashes.
_MOST_ROWS_OF_A_DAG = 100_000
# One folder of a run is asked about directly: listing all rows of the run takes longer.
_FEWEST_FOLDERS = 2


class TooManyRowsError(CommandError):
    """Ids were cut and hashed, and so many rows could be meant that one may have been missed."""


class RowIndex:
    """Which XComs of one Dag have rows.

    Holds the hash of each row of the Dag, or of the runs at hand: a collision of two hashes could only
    hide an orphan.

    Args:
        api: Airflow.
        threads: Run the requests for pages.
    """

    def __init__(self, api: AirflowAPI, threads: Executor) -> None:
        self._api = api
        self._threads = threads
        self._dag_id: str | None = None
        self._whole: set[int] | None = None
        self._runs: dict[str, set[int]] = {}
        self._failed: dict[str, AirflowAPIError] = {}

    def load(self, dag_id: str, runs: Mapping[str, int]) -> None:
        """List the rows that are needed to tell about some runs.

        Args:
            dag_id: Dag; another one replaces the Dag before it.
            runs: Number of folders by run.

        Raises:
            AirflowAPIError: Airflow did not answer about the Dag.
        """
        if dag_id != self._dag_id:
            self._dag_id, self._whole, self._runs = None, None, {}
            total = self._api.list_rows(dag_id, limit=1).total
            of_run = sum(runs.values()) / len(runs)
            if total * of_run <= _ROWS_TIMES_XCOMS and total <= _MOST_ROWS_OF_A_DAG:
                self._whole = self._hashes(dag_id, None, total)
            self._dag_id = dag_id
        if self._whole is not None:
            return
        # A run may go on in the next page of objects.
        kept = {run_id: self._runs[run_id] for run_id in runs if run_id in self._runs}
        wanted = [
            run_id for run_id, folders in runs.items() if folders >= _FEWEST_FOLDERS and run_id not in kept
        ]
        self._runs, self._failed = kept, {}
        asked = {run_id: self._threads.submit(self._list, dag_id, run_id) for run_id in wanted}
        for run_id, future in asked.items():
            try:
                self._runs[run_id] = future.result()
            except AirflowAPIError as error:
                self._failed[run_id] = error

    def has_row(self, run_id: str, folder: str) -> bool | None:
        """Tell whether the XCom of a folder has a row; None if the rows of its run were not listed.

        A row that is written or deleted while pages are read may be missed.

        Raises:
            AirflowAPIError: Airflow did not answer about the run.
        """
        if run_id in self._failed:
            raise self._failed[run_id]
        known = self._whole if self._whole is not None else self._runs.get(run_id)
        return None if known is None else hash(folder) in known

    def _hashes(self, dag_id: str, run_id: str | None, total: int) -> set[int]:
        """List pages side by side."""
        found: set[int] = set()
        pages = self._threads.map(
            lambda offset: self._api.list_rows(dag_id, run_id, offset=offset).rows, range(0, total, PAGE_ROWS)
        )
        for rows in pages:
            found.update(_hashed(rows))
        return found

    def _list(self, dag_id: str, run_id: str) -> set[int]:
        """List pages one after the other: this runs in a thread of the pool."""
        return set(_hashed(self._api.all_rows(dag_id, run_id)))


def _hashed(rows: Iterable[Coordinates]) -> Iterable[int]:
    return (hash(folder_of(row)) for row in rows)


def find_row(api: AirflowAPI, uri: str) -> Coordinates | None:
    """Return the coordinates of the XCom whose payload an object is; None if it has no row.

    The ids are read from the object's name. Where they were cut and hashed, rows are listed by the ids
    that are left, and theirs are hashed.

    Raises:
        AirflowAPIError: Airflow did not answer.
        TooManyRowsError: None of the rows is it, and they did not fit on one page.
    """
    where = coordinates_of(uri)
    if where is None or not is_hashed(uri):
        return where
    run, task, _, key = (not _is_hash(part) for part in uri.split("/")[-5:-1])
    dag_id = find_dag(api, uri)
    if dag_id is None:
        return None
    run_id, task_id = where.run_id if run else None, where.task_id if task else None
    filters: Query = {"map_index": where.map_index}
    if key:
        filters["xcom_key"] = where.key
    seen = 0
    while True:
        page = api.list_rows(dag_id, run_id, task_id, offset=seen, filters=filters)
        for row in page.rows:
            if is_in_folder(uri, row):
                return row
        if not seen and len(page.rows) >= page.total:
            return None
        seen += len(page.rows)
        if not page.rows or seen >= page.total:
            raise TooManyRowsError(f"its ids were cut and hashed, and none of {page.total} rows has them")


def find_dag(api: AirflowAPI, uri: str) -> str | None:
    """Return the id of the Dag that an object belongs to; None if it was hashed and Airflow has no such Dag.

    Raises:
        AirflowAPIError: Airflow did not answer.
    """
    part = uri.split("/")[-6]
    where = coordinates_of(uri)
    if where is not None and not _is_hash(part):
        return where.dag_id
    lengths = range(200, 100, -20)
    return next((one for one in api.dag_ids() if any(segment(one, most) == part for most in lengths)), None)


def _is_hash(part: str) -> bool:
    return "=" in part and part != "="
