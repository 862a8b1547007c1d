"""Tasks that return what cannot be stored: for test_refusals.py."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

from airflow.sdk import dag, task


@dataclasses.dataclass
class Order:
    """A class in a Dag file."""

    number: int


@dag(schedule=None, start_date=datetime.datetime(2026, 1, 1))
def refusing() -> None:
    @task
    def part(number: int) -> list[int]:
        return [number] * 3

    @task
    def forwarded(parts: Any) -> Any:
        return parts

    @task
    def order() -> Any:
        return {"orders": [Order(1)]}

    @task
    def context(**context: Any) -> Any:
        return context

    @task
    def operator(task: Any = None) -> list[Any]:
        return [task]

    @task
    def argument() -> Any:
        return part(1)

    @task
    def group() -> Any:
        import pandas as pd

        return pd.DataFrame({"a": [1]}).groupby("a")

    forwarded(part.expand(number=[1, 2]))
    [order(), context(), operator(), group()]


refusing()
