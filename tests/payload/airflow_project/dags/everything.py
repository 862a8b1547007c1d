"""Every way of a payload through real task processes; a task fails where a value is not as it was."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator, dag, task
from e2e_trigger import ReadingTrigger

UTC = datetime.timezone.utc
RECORDS = [{"number": number, "pair": (number, "x" * 40)} for number in range(2000)]
INLINE = {"text": "plain", "numbers": [1, 2.5, -3, 1e15], "none": None, "nested": {"yes": True}}
TAGGED = {"when": datetime.datetime(2026, 7, 1, 6, 30), "pair": (1, 2)}
EXACT = {"when": datetime.datetime(2026, 1, 1, tzinfo=UTC), "large": 1e300, "negative": -0.0, "set": {1, 2}}


class Deferred(BaseOperator):
    """Return what its trigger has read, made large."""

    def execute(self, context: Any) -> None:
        trigger = ReadingTrigger(self.dag_id, context["run_id"])
        self.defer(trigger=trigger, method_name="complete", timeout=datetime.timedelta(seconds=600))

    def complete(self, context: Any, event: dict[str, Any]) -> Any:
        return {**event, "ballast": (b"z" * 100_000,)}


@dag(schedule=None, start_date=datetime.datetime(2026, 1, 1), default_args={"retries": 0})
def everything() -> None:
    @task
    def records() -> list[dict[str, Any]]:
        return RECORDS

    @task
    def inline() -> Any:
        return INLINE

    @task
    def tagged() -> Any:
        return TAGGED

    @task
    def exact() -> Any:
        return EXACT

    @task
    def rows_of(number: int) -> list[int]:
        return [number] * 40_000

    @task
    def fan_in(values: Any, ti: Any = None) -> None:
        from include.xcom import load_all

        assert [(len(rows), rows[0]) for rows in load_all(values)] == [(40_000, 3), (40_000, 1), (40_000, 2)]
        assert [rows[0] for rows in values] == [3, 1, 2]
        assert [rows[0] for rows in ti.xcom_pull(task_ids="rows_of")] == [3, 1, 2]

    @task(retries=1, retry_delay=datetime.timedelta(0))
    def second_try(ti: Any = None) -> str:
        from include.xcom.settings import load_settings

        ti.xcom_push(key="attempt", value=bytes([ti.try_number]) * 1000)
        root = Path(load_settings().root.removeprefix("file://"))
        (written,) = (root / ti.dag_id).glob("*/second_try/-1/attempt/*")
        with Path(os.environ["E2E_NOTES"]).open("a") as notes:
            print(written, file=notes)
        if ti.try_number == 1:
            raise RuntimeError("the first try fails on purpose")
        return "y" * 100_000

    @task
    async def asynchronous(ti: Any = None) -> Any:
        import asyncio

        from include.xcom.stores.credentials import connection_fields

        # More at once than the event loop has threads, in a process that has read no setting yet.
        found = await asyncio.gather(*(ti.axcom_pull(task_ids="records") for _ in range(40)))
        mapped = await ti.axcom_pull(task_ids="rows_of")
        fields = await asyncio.to_thread(connection_fields, "no_such_connection")
        await ti.axcom_push(key="pushed", value=(1, b"z" * 2000))

        assert all(pulled == RECORDS for pulled in found)
        assert [rows[0] for rows in mapped] == [3, 1, 2]
        assert fields == {}
        assert await ti.axcom_pull(task_ids="asynchronous", key="pushed") == (1, b"z" * 2000)
        return {"pulled": len(found), "ballast": [b"z" * 100_000]}

    @task
    def check(
        records: Any, inline: Any, tagged: Any, exact: Any, asynchronous: Any, deferred: Any, ti: Any = None
    ) -> None:
        assert records == RECORDS
        assert type(records[0]["pair"]) is tuple
        assert inline == INLINE
        assert [type(number) for number in inline["numbers"]] == [int, float, int, float]
        assert tagged == TAGGED
        assert exact == EXACT
        assert str(exact["negative"]) == "-0.0"
        assert type(exact["large"]) is float
        assert asynchronous == {"pulled": 40, "ballast": [b"z" * 100_000]}
        assert deferred == {
            "records": 2000,
            "mapped": [3, 1, 2],
            "fields": {},
            "ballast": (b"z" * 100_000,),
        }
        assert ti.xcom_pull(task_ids="second_try", key="attempt") == b"\x02" * 1000

    stored, mapped = records(), rows_of.expand(number=[3, 1, 2])
    awaited, deferred = asynchronous(), Deferred(task_id="deferred")
    fan_in(mapped)
    [stored, mapped] >> deferred
    [stored, mapped] >> awaited
    second_try() >> check(stored, inline(), tagged(), exact(), awaited, deferred.output)


everything()
