"""Reads the XComs of earlier Dag runs, then writes one: for test_switching.py, with the backend and without."""

from __future__ import annotations

import datetime
from typing import Any

from airflow.sdk import dag, task


@dag(schedule=None, start_date=datetime.datetime(2026, 1, 1), params={"runs": []})
def switching() -> None:
    @task
    def read(params: Any = None, ti: Any = None) -> None:
        for run_id in params["runs"]:
            value = ti.xcom_pull(task_ids="write", run_id=run_id)
            print(f"READ {run_id} {type(value).__name__} {value['pair'].sum()}")

    @task
    def write() -> Any:
        import pandas as pd

        return pd.DataFrame({"pair": range(20_000)})

    read() >> write()


switching()
