"""Tasks that return what cannot be stored: for test_refusals.py."""

from __future__ import annotations

import dataclasses
import datetime

from airflow.sdk import dag, task


@dataclasses.dataclass
class Order:
    """A class in a Dag file."""

    number: int


@dag(schedule=None, start_date=datetime.datetime(2026, 1, 1))
def refusing():
    @task
    def part(number):
        return [number] * 3

    @task
    def forwarded(parts):
        return parts

    @task
    def order():
        return {"orders": [Order(1)]}

    @task
    def context(**context):
        return context

    @task
    def operator(task=None):
        return [task]

    @task
    def argument():
        return part(1)

    @task
    def group():
        import pandas as pd

        return pd.DataFrame({"a": [1]}).groupby("a")

    forwarded(part.expand(number=[1, 2]))
    [order(), context(), operator(), group()]


refusing()
