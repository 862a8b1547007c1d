"""A trigger that reads XComs, as a triggerer runs it: on the event loop of all triggers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.sdk.execution_time.xcom import XCom
from airflow.triggers.base import BaseTrigger, TriggerEvent


class ReadingTrigger(BaseTrigger):
    """Read what the tasks before it returned, the payloads of mapped ones included."""

    def __init__(self, dag_id: str, run_id: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ids = {"dag_id": dag_id, "run_id": run_id, "key": "return_value"}

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "e2e_trigger.ReadingTrigger", {"dag_id": self.ids["dag_id"], "run_id": self.ids["run_id"]}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        from include.xcom.stores.credentials import connection_fields

        # One by one, all at once: the triggerer of 3.3.2 never answers a request for all map indexes.
        records, *mapped = await asyncio.gather(
            XCom.aget_one(task_id="records", **self.ids),
            *(XCom.aget_one(task_id="rows_of", map_index=index, **self.ids) for index in range(3)),
        )
        # What a bucket needs: a connection, asked for in a thread, and none there.
        fields = await asyncio.to_thread(connection_fields, "no_such_connection")
        read = {"records": len(records), "mapped": [rows[0] for rows in mapped], "fields": fields}
        yield TriggerEvent(read)  # type: ignore[no-untyped-call]
