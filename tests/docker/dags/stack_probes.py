"""Dags that only the tests of the stack start; they are copied beside the examples."""

from __future__ import annotations

import hashlib
import socket
import time
from datetime import timedelta
from typing import Any

from airflow.sdk import Variable, dag, task

# Airflow writes what a Python task returns into its log, the whole of it, unless it is told not to.
PATIENT = {"retries": 8, "retry_delay": timedelta(seconds=1), "show_return_value_in_logs": False}


def payload(name: str, size: int) -> bytes:
    """Bytes that no compression shrinks and that everyone can compute again."""
    block = hashlib.sha512(name.encode()).digest()
    return block * (size // len(block))


@dag(schedule=None, catchup=False, default_args=PATIENT)
def probe_pass() -> None:
    """One payload from one task to the next."""

    @task
    def produce() -> bytes:
        return payload("pass", 200_000)

    @task
    def consume(value: Any) -> str:
        return hashlib.sha256(value).hexdigest()

    consume(produce())


@dag(schedule=None, catchup=False, default_args=PATIENT)
def probe_held() -> None:
    """A large payload; the task says when it is about to return it, and waits while told to."""

    @task
    def produce(ti: Any = None) -> bytes:
        value = payload("held", 64_000_000)
        ti.xcom_push("about_to_return", ti.try_number)
        while Variable.get("hold", default="no") == "yes":
            time.sleep(0.5)
        return value

    @task
    def consume(value: Any) -> str:
        return hashlib.sha256(value).hexdigest()

    consume(produce())


@dag(schedule=None, catchup=False, default_args=PATIENT)
def probe_crossing() -> None:
    """Tasks on several workers read each other's payloads."""

    @task
    def produce(number: int) -> dict[str, Any]:
        time.sleep(5)
        return {"host": socket.gethostname(), "data": payload(str(number), 300_000)}

    @task
    def consume(values: Any) -> dict[str, Any]:
        values = list(values)
        right = [value["data"] == payload(str(number), 300_000) for number, value in enumerate(values)]
        return {
            "host": socket.gethostname(),
            "producers": [value["host"] for value in values],
            "right": right,
        }

    consume(produce.expand(number=list(range(6))))


probe_pass()
probe_held()
probe_crossing()
