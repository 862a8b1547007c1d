"""Two tasks written in TypeScript, between tasks written in Python."""

from __future__ import annotations

import datetime
from typing import Any

from airflow.sdk import dag, task

ROWS = [{"id": number, "text": "x" * 20} for number in range(5000)]


@dag(schedule=None, start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc))
def typescript_tasks() -> None:
    """``check`` fails when what the TypeScript tasks return does not arrive as it should."""

    @task
    def large() -> Any:
        return ROWS

    @task
    def dated() -> Any:
        return {"day": datetime.date(2026, 7, 1)}

    @task
    def small() -> Any:
        return {"rows": 2}

    @task.stub(queue="typescript")
    def look(): ...  # type: ignore[no-untyped-def]

    @task.stub(queue="typescript")
    def hand_on(): ...  # type: ignore[no-untyped-def]

    @task
    def check(looked, handed_on):  # type: ignore[no-untyped-def]
        assert looked["made"] == ROWS
        assert handed_on == ROWS

    looked, handed_on = look(), hand_on()
    [large(), dated(), small()] >> looked >> handed_on
    check(looked, handed_on)


typescript_tasks()
