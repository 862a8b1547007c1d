"""Loops of Airflow 3.4, whose tasks have rows of the same ids: one per iteration, and mapped ones among them."""

from __future__ import annotations

import datetime
from typing import Any

from airflow.sdk import dag, task, task_group

try:
    from airflow.sdk import LoopDecision  # type: ignore[attr-defined]
except ImportError:
    LoopDecision = None  # Before 3.4 this file has no Dag.


def versions_loop() -> None:
    @task_group
    def iteration() -> None:
        @task
        def grow(*, loop: Any) -> bytes:
            before = b"" if loop.index == 0 else loop.previous
            return before + bytes([loop.index]) * 100_000

        @task
        def part(number: int, *, loop: Any) -> list[int]:
            return [loop.index, number] * 40_000

        @task
        def join(grown: Any, parts: Any) -> Any:
            number = len(grown) // 100_000 - 1
            assert grown[-1:] == bytes([number])
            assert [one[:2] for one in parts] == [[number, 7], [number, 8]]
            return grown

        join(grow(), part.expand(number=[7, 8]))  # type: ignore[call-arg]

    def is_enough(*, loop: Any) -> Any:
        return LoopDecision(stop=len(loop.result) >= 300_000, reason="300,000 bytes")

    @task
    def check(ti: Any = None) -> None:
        from include.xcom import load_all

        joined = ti.xcom_pull(task_ids="iteration.join")
        assert [len(one) for one in joined] == [100_000, 200_000, 300_000]
        assert [one[-1] for one in load_all(joined)] == [0, 1, 2]

    iteration.loop(max_iterations=5, until=is_enough) >> check()  # type: ignore[attr-defined]


if LoopDecision is not None:
    dag(schedule=None, start_date=datetime.datetime(2026, 1, 1))(versions_loop)()
