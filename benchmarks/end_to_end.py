"""The example Dags through Airflow, and how much of their tasks' time the backend takes."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import HERE, ROOT, Place

sys.path.insert(0, str(ROOT / "demo"))
import demo

__all__ = ["measure"]


@dataclass(frozen=True)
class _Place(demo.Place):
    """The demo, with its payloads in the bucket, and a clock around the backend."""

    backend: tuple[tuple[str, str], ...]

    @property
    def calls(self) -> Path:
        return Path(self.home) / "calls.jsonl"

    def environment(self) -> dict[str, str]:
        settings = super().environment()
        return {
            **settings,
            **dict(self.backend),
            "AIRFLOW__CORE__XCOM_BACKEND": "timed_backend.GCPBucketXComBackend",
            "PYTHONPATH": f"{settings['PYTHONPATH']}:{HERE}",
            "BENCH_CALLS": str(self.calls),
        }


def measure(place: Place, environment: dict[str, str]) -> dict[str, Any]:
    """Bake a project, run its Dags, and add up what their tasks and the backend took.

    Raises:
        DemoError: A Dag failed.
    """
    there = _Place(place.folder / "dags", tuple(environment.items()))
    there.home.mkdir()
    progress = demo.Progress(sys.stderr)
    demo.bake(there, progress)
    demo.migrate(there, progress)
    ran, failures = demo.run_dags(there, [], progress)
    if failures:
        raise demo.DemoError("\n".join(map(str, failures)))
    with sqlite3.connect(there.database) as database:
        tasks, seconds = database.execute("SELECT count(*), sum(duration) FROM task_instance").fetchone()
    calls = [json.loads(line) for line in there.calls.read_text().splitlines()]
    wall = sum(call["wall"] for call in calls)
    return {
        "dags": len(ran),
        "tasks": tasks,
        "tasks_wall": seconds,
        "calls": dict(Counter(call["call"] for call in calls)),
        "backend_wall": wall,
        "backend_cpu": sum(call["cpu"] for call in calls),
        "share": wall / seconds,
    }
