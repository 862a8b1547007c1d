"""Read one XCom over the last runs of its Dag, from the rows of the metadata database alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from ..codecs.inline import CLASSNAME
from . import limits, rows
from .ids import Ids
from .rows import Row

__all__ = ["MEASURES", "History", "Point", "read_history", "read_keys"]

MEASURES = {
    "rows": "Rows",
    "columns": "Columns",
    "items": "Items",
    "value": "Value",
    "bytes": "Size",
    "seconds": "Seconds",
}
"""What is drawn of an XCom, by its name in ``Point.measures``."""

# The state of a mapped task is the first of these that one of its instances has.
_STATES = ("failed", "upstream_failed", "up_for_retry", "running", "deferred", "queued", "scheduled")

# Of the small values that JSON lacks, those whose node in the row is the list of their items.
_COUNTED = frozenset({"$dict", "$frozenset", "$list", "$set", "$tuple"})


@dataclass(frozen=True)
class Point:
    """An XCom in one Dag run.

    Attributes:
        state: State of the task; None before it is scheduled, or if the run has no such task instance.
        instances: Number of task instances.
        xcoms: Number of XComs.
        type: Type of the value; empty for none, or if mapped tasks returned several types.
        schema: Hash of a frame's schema; empty if unknown.
        measures: Of a mapped task the sums, and the largest number of columns.
        changes: What changed since the last run before it that has the XCom.
    """

    run_id: str
    run_after: datetime | None
    state: str | None
    instances: int = 0
    xcoms: int = 0
    type: str = ""
    codec: str = ""
    schema: str = ""
    problem: str = ""
    measures: dict[str, float] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class History:
    """One XCom over some runs, the oldest first.

    Attributes:
        is_mapped: Some run has several instances of the task.
        is_cut: There were too many rows to read; the oldest runs are left out.
    """

    points: list[Point]
    is_mapped: bool
    is_cut: bool

    def to_json(self) -> dict[str, Any]:
        """Return what ``python -m include.xcom history --output json`` prints."""
        runs = [
            {**asdict(point), "run_after": point.run_after and point.run_after.isoformat()}
            for point in self.points
        ]
        return {"runs": runs, "is_mapped": self.is_mapped, "is_cut": self.is_cut}


def read_history(ids: Ids, key: str, *, runs: int, map_index: int | None = None) -> History:
    """Read one XCom over the last runs of a Dag.

    Selects the runs first, so the cost depends on their number and not on all that the Dag ever had.

    Args:
        ids: Dag and task.
        runs: Number of runs.
        map_index: Of a mapped task, one instance; else the sum of all.
    """
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import func, select

    xcom = rows.model()
    with rows.open_session() as session:
        newest = (
            select(DagRun.run_id, DagRun.run_after)
            .where(DagRun.dag_id == ids.dag_id)
            .order_by(DagRun.run_after.desc(), DagRun.id.desc())
            .limit(runs)
        )
        found = [(run_id, run_after) for run_id, run_after in session.execute(newest)]
        names = [run_id for run_id, _ in found]

        def of_task(table: Any) -> list[Any]:
            where = [table.dag_id == ids.dag_id, table.task_id == ids.task_id, table.run_id.in_(names)]
            return where if map_index is None else [*where, table.map_index == map_index]

        columns = (TaskInstance.run_id, TaskInstance.state, func.count())
        grouped = (
            select(*columns).where(*of_task(TaskInstance)).group_by(TaskInstance.run_id, TaskInstance.state)
        )
        states: dict[str, dict[str | None, int]] = defaultdict(dict)
        for run_id, state, count in session.execute(grouped):
            states[run_id][state and str(state)] = count
    selected = rows.select_rows([*of_task(xcom), xcom.key == key], at_most=limits.HISTORY_ROWS)
    by_run: dict[str, dict[int, Row]] = defaultdict(dict)
    for row in selected:  # The newest first: Airflow 3.4 keeps a row for each try.
        by_run[row.run_id].setdefault(row.map_index, row)
    is_cut = len(selected) == limits.HISTORY_ROWS
    if is_cut:
        last = selected[-1].run_id  # Of this run some rows may be missing.
        found = [one for one in found if one[0] in by_run and one[0] != last]
    points = [
        _point(run_id, run_after, states[run_id], list(by_run[run_id].values()))
        for run_id, run_after in reversed(found)
    ]
    is_mapped = any(point.instances > 1 for point in points)
    return History(_with_changes(points), is_mapped, is_cut)


def read_keys(ids: Ids, points: Sequence[Point]) -> list[str]:
    """Return the XCom keys that a task pushed in the newest of these runs."""
    from sqlalchemy import select

    xcom = rows.model()
    names = [point.run_id for point in points[-limits.HISTORY_RUNS[0] :]]
    where = [xcom.dag_id == ids.dag_id, xcom.task_id == ids.task_id, xcom.run_id.in_(names)]
    with rows.open_session() as session:
        return sorted(session.scalars(select(xcom.key).where(*where).distinct()))


def _point(run_id: str, run_after: datetime | None, states: dict[str | None, int], xcoms: list[Row]) -> Point:
    state = next((one for one in _STATES if one in states), next(iter(states), None))
    problem = next((row.problem for row in xcoms if row.problem), "")
    measured = [_measures(row) for row in xcoms]
    measures: dict[str, float] = {}
    for name in MEASURES:
        values = [one[name] for one in measured if name in one]
        if values and (name != "value" or len(xcoms) == 1):
            measures[name] = max(values) if name == "columns" else sum(values)
    return Point(
        run_id,
        run_after,
        state,
        sum(states.values()),
        len(xcoms),
        _common([row.type for row in xcoms]),
        _common([row.reference.codec if row.reference else "" for row in xcoms]),
        _common([str(row.summary.get("schema", ""))[:40] for row in xcoms]),
        problem,
        measures,
    )


def _measures(row: Row) -> dict[str, float]:
    summary = row.summary
    items = next((summary[name] for name in ("items", "characters", "parts") if name in summary), None)
    found: dict[str, object] = {
        "rows": summary.get("rows"),
        "columns": summary.get("columns"),
        "items": items,
        "bytes": row.stored_bytes,
        "seconds": summary.get("seconds"),
    }
    if row.reference is None:
        if isinstance(row.value, (int, float)):
            found["value"] = row.value
        else:
            found["items"] = _count_items(row.value)
    # A row may hold any JSON, and NaN and numbers beyond a float cannot be drawn.
    numbers = {name: value for name, value in found.items() if isinstance(value, (int, float))}
    return {
        name: float(value)
        for name, value in numbers.items()
        if not isinstance(value, bool) and abs(value) < 1e300
    }


def _count_items(value: object) -> int | None:
    """Count the items of a value in the database; None for one that has none, such as a date."""
    if isinstance(value, dict) and isinstance(value.get("__classname__"), str):
        # Of the form that the value has in the row, not of the value.
        value = value.get("__data__") if value["__classname__"] == CLASSNAME else None
        if isinstance(value, dict) and len(value) == 1:
            tag, node = next(iter(value.items()))
            if tag.startswith("$"):
                value = node if tag in _COUNTED and isinstance(node, list) else None
    return len(value) if isinstance(value, (list, dict, str)) else None


def _common(texts: list[str]) -> str:
    return texts[0] if len(set(texts)) == 1 else ""


def _with_changes(points: list[Point]) -> list[Point]:
    changed = []
    before: Point | None = None
    for point in points:
        changes = _changes(before, point) if before and point.xcoms else []
        changed.append(Point(**{**vars(point), "changes": changes}))
        before = point if point.xcoms else before
    return changed


def _changes(before: Point, after: Point) -> list[str]:
    """Say in words what changed; sizes and seconds always do."""
    found = [
        f"{name} {getattr(before, name)} → {getattr(after, name)}"
        for name in ("type", "codec")
        if getattr(before, name) != getattr(after, name)
    ]
    for name in ("columns", "rows", "items"):
        old, new = before.measures.get(name), after.measures.get(name)
        if old is not None and new is not None and old != new:
            found.append(f"{name} {old:,.0f} → {new:,.0f}{_percent(old, new) if name != 'columns' else ''}")
    if before.schema and after.schema and before.schema != after.schema:
        found.append("schema changed")
    return found


def _percent(old: float, new: float) -> str:
    return f" ({100 * (new - old) / old:+.1f} %)" if old else ""
