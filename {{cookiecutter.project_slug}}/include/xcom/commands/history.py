"""``history``: print one XCom over the last runs of its Dag, and what changed from run to run.

The payload viewer of the API server reads the rows of all runs from the metadata database at once. Airflow's
own API would take a request for each of them.
"""

from __future__ import annotations

import json
from typing import Any

from ..units import format_count, format_number, format_size
from .api import AirflowAPI, AirflowAPIError, Query
from .output import CommandError, format_table, printable, warn

__all__ = ["print_history"]

_HEADS = {
    "rows": "ROWS",
    "columns": "COLS",
    "items": "ITEMS",
    "value": "VALUE",
    "bytes": "SIZE",
    "seconds": "SECONDS",
}


def print_history(
    api: AirflowAPI, dag_id: str, task_id: str, key: str, *, runs: int, map_index: int | None, is_json: bool
) -> None:
    """Print a line for each run, the newest last, and below it what changed since the run before.

    Args:
        api: Airflow.
        dag_id: Dag.
        task_id: Task.
        key: XCom key.
        runs: Number of runs.
        map_index: Of a mapped task, one instance; None for the sum of all.
        is_json: Whether to print what the API server answers.

    Raises:
        CommandError: The API server has no payload viewer, or did not answer.
    """
    index = "" if map_index is None else map_index
    answer = _ask(api, dag_id, task_id, {"key": key, "runs": runs, "map_index": index})
    try:
        points, is_cut, is_sum = answer["runs"], answer["is_cut"], answer["is_mapped"] and map_index is None
        table = _table(points)
        with_xcom = sum(point["xcoms"] > 0 for point in points)
        failed = sum(point["state"] in ("failed", "upstream_failed") for point in points)
    except (KeyError, TypeError, ValueError) as error:
        raise _no_viewer(api) from error
    if is_json:
        print(json.dumps(answer, indent=2))
        return
    if not with_xcom:
        count = format_count(len(points), "run")
        words = (
            f'No XCom "{key}" of {task_id} in the last {count} of {dag_id}'
            if points
            else f"No runs of {dag_id}"
        )
        print(printable(words))
        return
    if is_cut:
        warn(
            f"shows only the newest {format_count(len(points), 'run')}: reading more rows would take too long"
        )
    if is_sum:
        warn("the task is mapped: numbers are the sum of all map indexes; --map-index N shows one")
    print(table)
    print(f"{format_count(len(points), 'run')}: {failed} failed, {len(points) - with_xcom} without this XCom")


def _ask(api: AirflowAPI, dag_id: str, task_id: str, query: Query) -> dict[str, Any]:
    try:
        return api.history(dag_id, task_id, query)
    except AirflowAPIError as error:
        # Airflow's UI answers unknown paths with its own page.
        if error.status in (200, 404):
            raise _no_viewer(api) from error
        raise


def _no_viewer(api: AirflowAPI) -> CommandError:
    return CommandError(
        f"the API server at {api.url} has no payload viewer that tells a history: this needs Airflow 3.1 or newer, "
        "plugins/payload_viewer.py, and [gcs_xcom] viewer = true"
    )


def _table(points: list[dict[str, Any]]) -> str:
    names = [name for name in _HEADS if any(name in point["measures"] for point in points)]
    counted = ["XCOMS"] if any(point["xcoms"] > 1 for point in points) else []
    heads = ["RUN", "STATE", *counted, *(_HEADS[name] for name in names)]
    rows: list[list[object]] = []
    for point in points:
        numbers = [_format(name, point["measures"].get(name)) for name in names]
        rows.append([point["run_id"], point["state"] or "none", *(point["xcoms"] for _ in counted), *numbers])
        notes = point["changes"] if point["xcoms"] else ["no XCom"]
        notes = ["malformed row", *notes] if point["problem"] else notes
        rows += [[f"  {note}", *("" for _ in heads[1:])] for note in notes]
    return format_table(heads, rows, right=heads[2:], whole=("STATE",))


def _format(name: str, number: float | None) -> str:
    if number is None:
        return ""
    if name == "bytes":
        return format_size(int(number))
    if name == "seconds":
        return f"{number:.3f}"
    return format_number(number)
