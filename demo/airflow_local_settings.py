"""Policies of the demo's Airflow: a task that fails is not tried again, and says why.

``demo.py`` lays this file where Airflow looks for it, in ``$AIRFLOW_HOME/config``. The example Dags
ask for retries, as real ones should; here a failure is to be seen at once.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def task_policy(task: Any) -> None:
    """Change every task of every Dag, as Airflow reads it."""
    task.retries = 0
    task.on_failure_callback = [*(task.on_failure_callback or ()), note_failure]


def note_failure(context: Any) -> None:
    """Add a line on a failed task to the file that the demo reads."""
    ti, error = context["ti"], context.get("exception")
    failure = {
        "dag": ti.dag_id,
        "task": ti.task_id,
        "map_index": ti.map_index,
        "error": f"{type(error).__name__}: {error}",
    }
    with (Path(os.environ["AIRFLOW_HOME"]) / "failures.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(failure) + "\n")
