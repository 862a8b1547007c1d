"""What every version of Airflow must do with payloads: a Dag that fails when a value is not as it was.

Few tasks: before 3.3, ``airflow dags test`` makes an API server for each of them. None is async: the
command has no async messages, up to 3.4.0b2 (tests/payload/test_airflow_e2e.py has such tasks).
"""

from __future__ import annotations

import datetime
from typing import Any

from airflow.sdk import dag, task


def first_of(pair: Any) -> Any:
    return pair[0]


@dag(schedule=None, start_date=datetime.datetime(2026, 1, 1))
def versions_probe() -> None:
    @task
    def frame() -> Any:
        import pandas as pd

        days = pd.date_range("2026-01-01", periods=5000, tz="Europe/Berlin", name="day")
        return pd.DataFrame({"value": range(5000), "kind": pd.Categorical(["a", "b"] * 2500)}, index=days)

    @task(multiple_outputs=True)
    def outputs() -> dict[str, Any]:
        utc = datetime.timezone.utc
        return {
            "records": [{"number": number, "pair": (number, "x" * 40)} for number in range(2000)],
            "small": {"when": datetime.datetime(2026, 1, 1, tzinfo=utc), "tags": {"a", "b"}},
            "pair": (1, 2),
        }

    @task
    def numbers() -> Any:
        from include.xcom import Items

        return Items([{"number": 3}, {"number": 1}])

    @task
    def rows_of(number: int) -> list[int]:
        return [number] * 40_000

    @task(retries=1, retry_delay=datetime.timedelta(0))
    def second_try(ti: Any = None) -> None:
        ti.xcom_push(key="attempt", value=bytes([ti.try_number]) * 1000)
        if ti.try_number == 1:
            raise RuntimeError("the first try fails on purpose")

    @task
    def check(frame: Any, records: Any, small: Any, mapped: Any, ti: Any = None) -> None:
        import pandas as pd
        from include.xcom import load_all

        assert type(frame) is pd.DataFrame
        assert (len(frame), frame.index.name, str(frame.index.tz)) == (5000, "day", "Europe/Berlin")
        assert list(frame.dtypes.astype(str)) == ["int64", "category"]
        assert records == [{"number": number, "pair": (number, "x" * 40)} for number in range(2000)]
        assert type(records[0]["pair"]) is tuple
        when = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
        assert small == {"when": when, "tags": {"a", "b"}}
        assert ti.xcom_pull(task_ids="outputs", key="pair") == (1, 2)
        assert [(len(rows), rows[0]) for rows in load_all(mapped)] == [(40_000, 3), (40_000, 1)]
        assert [rows[0] for rows in mapped] == [3, 1]
        assert [rows[0] for rows in ti.xcom_pull(task_ids="rows_of", map_indexes=[1, 0])] == [1, 3]
        assert [rows[0] for rows in ti.xcom_pull(task_ids="rows_of")] == [3, 1]
        assert ti.xcom_pull(task_ids="second_try", key="attempt") == b"\x02" * 1000

    given: Any = outputs()
    items: Any = numbers()
    # Every other way to map is in tests/core/test_handles_mapping.py.
    mapped = rows_of.expand_kwargs(items.zip(items).map(first_of))
    second_try() >> check(frame(), given["records"], given["small"], mapped)


versions_probe()
