"""What operators and clients return, read by a task on a worker of another time zone: for test_two_zones.py."""

from __future__ import annotations

import datetime
import sqlite3
from collections import namedtuple
from typing import Any

from airflow.providers.common.sql.hooks.sql import DbApiHook
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.sdk import dag, task


class OdbcLikeHook(DbApiHook):
    """Makes the class of its rows on the fly, as the hooks of ODBC and Databricks do."""

    conn_name_attr = "odbc_conn_id"

    def get_conn(self) -> sqlite3.Connection:
        return sqlite3.connect(":memory:")

    def _make_common_data_structure(self, result: Any) -> Any:
        Row = namedtuple("Row", ["carrier", "delay"])
        return [Row(*item) for item in result]


class QueryOperator(SQLExecuteQueryOperator):
    """Needs no connection."""

    def get_db_hook(self) -> DbApiHook:
        return OdbcLikeHook()


@dag(schedule=None, start_date=datetime.datetime(2026, 1, 1), params={"read": []})
def two_zones() -> None:
    rows = QueryOperator(task_id="rows", sql="SELECT 'UA', 2 UNION ALL SELECT 'B6', -5 ORDER BY 2")

    @task
    def flights() -> Any:
        from flight_models import Flight

        answer = '{"departs": "2026-07-01T06:30:00+02:00", "link": "https://example.com/1", "fares": [{"amount": "1.10", "currencyCode": "EUR"}]}'
        return [Flight.model_validate_json(answer)]

    @task
    def listing() -> Any:
        from dateutil.tz import tzutc

        modified = datetime.datetime(2026, 7, 1, 6, 30, tzinfo=tzutc())
        cutoff = datetime.datetime(2026, 7, 1, 6, 30)
        return {"Contents": [{"Key": "a.csv", "LastModified": modified}], "cutoff": cutoff}

    @task
    def read(params: Any = None, ti: Any = None) -> None:
        from flight_models import Flight

        for run_id in params["read"]:
            rows, (flight,), listing = (
                ti.xcom_pull(task_ids=name, run_id=run_id) for name in ("rows", "flights", "listing")
            )
            assert type(flight) is Flight
            print("READ", rows, [type(row).__name__ for row in rows])
            print("READ", flight.model_dump(exclude_unset=True))
            print("READ", listing)

    [rows, flights(), listing()] >> read()


two_zones()
