"""``ls --state``: list the objects of task and asset state (Airflow 3.3 and later).

The store lists objects, Airflow's API the rows that refer to them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from ..settings import load_settings
from ..state import folder_of, key_of_object
from ..stores import own_store
from ..units import format_count, format_size
from .api import AirflowAPI, AirflowAPIError
from .output import ROW_WORDS, format_age, format_table, warn
from .state_rows import StateRows

__all__ = ["list_state"]


@dataclass(frozen=True)
class StateObject:
    """One line of ``ls --state``.

    Attributes:
        scope: As ``StateKey.scope``; None, like ``key``, where an id was too long for the object's name.
        is_referenced: Whether a row names the object; None if that is unknown.
    """

    scope: tuple[str, ...] | None
    key: str | None
    bytes: int
    age_seconds: int
    is_referenced: bool | None
    uri: str


def list_state(
    dag_id: str | None,
    run_id: str | None,
    api: AirflowAPI | None,
    *,
    is_json: bool = False,
    warn: Callable[[str], None] = warn,
) -> Iterator[str]:
    """Yield the lines of ``ls --state``.

    Args:
        dag_id: Dag; None lists the state of all assets and tasks.
        run_id: Dag run; None lists all of the Dag's.
        api: Airflow, which is asked for the rows; None leaves them out.
        is_json: Whether to print JSON.
        warn: Takes a line that is no result.
    """
    prefix = load_settings().prefix
    scope = () if dag_id is None else ("task", dag_id, *([] if run_id is None else [run_id]))
    folder = folder_of(prefix, scope)
    rows = None if api is None else StateRows(api.get)
    found = []
    for one in (one for page in own_store().list(folder) for one in page):
        state = key_of_object(one.name, prefix)
        is_referenced = None
        try:
            is_referenced = rows.is_referenced(state, one.uri) if rows and state else None
        except AirflowAPIError as error:
            rows = None
            warn(f"rows are unknown: {error}")
        where, key = state or (None, None)
        age = int(time.time() - one.created)
        found.append(StateObject(where, key, one.size, age, is_referenced, one.uri))
    total = sum(one.bytes for one in found)
    if is_json:
        yield json.dumps({"state": [asdict(one) for one in found], "total_bytes": total}, indent=2)
        return
    if not found:
        yield f"No objects of state in {folder}"
        return
    heads = ("STATE OF", "RUN", "MAP", "KEY", "SIZE", "AGE", "ROW")
    yield format_table(heads, [_cells(one) for one in found], right=("MAP", "SIZE", "AGE"))
    yield f"{format_count(len(found), 'object')} of state, {format_size(total)}"


def _cells(one: StateObject) -> tuple[str, ...]:
    owner, run_id, map_index = one.uri, "-", "-"
    if one.scope and one.scope[0] == "asset":
        owner = f"asset {one.scope[2]}"
    elif one.scope:
        _, dag_id, run_id, task_id, region, map_index = one.scope
        owner = f"{dag_id}.{task_id}" + (f", region {region}" if region != "-" else "")
    return (
        owner,
        run_id,
        "-" if map_index == "-1" else map_index,
        "-" if one.key is None else one.key,
        format_size(one.bytes),
        format_age(one.age_seconds),
        ROW_WORDS[one.is_referenced],
    )
