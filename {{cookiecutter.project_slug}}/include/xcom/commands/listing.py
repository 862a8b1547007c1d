"""``ls``: list the payloads of a Dag run, or the runs of a Dag that have payloads.

The store lists objects, Airflow's API the rows that refer to them. Without the API, types and shapes are
unknown.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from .. import state
from ..errors import ReferenceNotAllowedError
from ..reference import Coordinates, PayloadReference, coordinates_of, folder_of, is_hashed, segment, stem_of
from ..settings import load_settings
from ..stores import Listed, own_store
from ..units import format_count, format_size
from .api import AirflowAPI, AirflowAPIError
from .output import ROW_WORDS, format_age, format_shape, format_table, warn

__all__ = ["list_payloads"]

_AT_ONCE = 8


@dataclass(frozen=True)
class Payload:
    """One line of ``ls``.

    Attributes:
        summary: Of the reference, empty where it is unknown.
        is_referenced: Whether a row names the object; None if Airflow was not asked.
    """

    task_id: str
    map_index: int
    key: str
    type: str
    summary: dict[str, int | float | str]
    codec: str
    bytes: int
    age_seconds: int
    is_referenced: bool | None
    uri: str


@dataclass
class DagRun:
    """What a Dag run has in the store."""

    run_id: str
    payloads: int = 0
    bytes: int = 0
    age_seconds: int = 0


def list_payloads(
    dag_id: str,
    run_id: str | None,
    api: AirflowAPI | None,
    *,
    is_json: bool = False,
    warn: Callable[[str], None] = warn,
) -> Iterator[str]:
    """Yield the lines of ``ls``.

    Args:
        dag_id: Dag.
        run_id: Dag run; None lists the runs of the Dag with their totals, from the store alone.
        api: Airflow, which is asked for the rows of the run; None leaves types and shapes out.
        is_json: Whether to print JSON.
        warn: Takes a line that is no result.
    """
    if run_id is None:
        yield from _list_runs(dag_id, is_json=is_json)
        return
    listed = list(_objects_of(dag_id, run_id))
    rows: dict[str, Any] = {}
    if api is not None and listed:
        try:
            rows = _rows_of(dag_id, run_id, listed, api)
        except AirflowAPIError as error:
            warn(f"types and shapes are unknown: {error}")
    payloads = sorted(
        (_payload(one, rows) for one in listed), key=lambda one: (one.task_id, one.map_index, one.key)
    )
    total = sum(one.bytes for one in payloads)
    if is_json:
        yield json.dumps({"payloads": [asdict(one) for one in payloads], "total_bytes": total}, indent=2)
        return
    if not payloads:
        yield f"No payloads of {dag_id}, run {run_id}, below {load_settings().root}"
        yield from _state_line(dag_id, run_id)
        return
    cells = [
        (
            one.task_id,
            one.map_index if one.map_index >= 0 else "-",
            one.key,
            one.type,
            format_shape(one.summary),
            one.codec,
            format_size(one.bytes),
            format_age(one.age_seconds),
            ROW_WORDS[one.is_referenced],
        )
        for one in payloads
    ]
    heads = ("TASK", "MAP", "KEY", "TYPE", "SHAPE", "CODEC", "SIZE", "AGE", "ROW")
    yield format_table(heads, cells, right=("MAP", "SIZE", "AGE"), whole=("SHAPE",))
    yield f"{format_count(len(payloads), 'payload')}, {format_size(total)}"
    yield from _state_line(dag_id, run_id)


def _state_line(dag_id: str, run_id: str) -> Iterator[str]:
    """Yield what the tasks of a run keep in the state store, if they do."""
    folder = state.folder_of(load_settings().prefix, ("task", dag_id, run_id))
    objects = [one for page in own_store().list(folder) for one in page]
    if objects:
        total = format_size(sum(one.size for one in objects))
        yield f"{format_count(len(objects), 'object')} of task state, {total}; ls --state lists them"


def _list_runs(dag_id: str, *, is_json: bool) -> Iterator[str]:
    now = time.time()
    found: dict[str, DagRun] = {}
    for one in _objects_of(dag_id, None):
        where = coordinates_of(one.uri)
        if where is None:
            continue
        run = found.setdefault(where.run_id, DagRun(where.run_id, age_seconds=int(now - one.created)))
        run.payloads += 1
        run.bytes += one.size
        run.age_seconds = min(run.age_seconds, int(now - one.created))
    runs = list(found.values())
    total = sum(run.bytes for run in runs)
    if is_json:
        yield json.dumps({"runs": [asdict(run) for run in runs], "total_bytes": total}, indent=2)
        return
    if not runs:
        yield f"No payloads of {dag_id} below {load_settings().root}"
        return
    cells = [(run.run_id, run.payloads, format_size(run.bytes), format_age(run.age_seconds)) for run in runs]
    heads = ("RUN", "PAYLOADS", "SIZE", "NEWEST")
    yield format_table(heads, cells, right=heads[1:])
    payloads = format_count(sum(run.payloads for run in runs), "payload")
    yield f"{format_count(len(runs), 'run')}, {payloads}, {format_size(total)}"


def _objects_of(dag_id: str, run_id: str | None) -> Iterator[Listed]:
    parts = [load_settings().prefix, segment(dag_id), *([] if run_id is None else [segment(run_id)])]
    folder = "/".join(part for part in parts if part) + "/"
    for page in own_store().list(folder):
        yield from page


def _rows_of(dag_id: str, run_id: str, listed: list[Listed], api: AirflowAPI) -> dict[str, Any]:
    """Return the row of each folder that holds a payload; ``MISSING`` where there is none."""
    wanted: dict[str, Coordinates] = {}
    for one in listed:
        where = coordinates_of(one.uri)
        if where is not None and not is_hashed(one.uri):
            wanted[_folder(one.uri)] = where._replace(dag_id=dag_id, run_id=run_id)
    if any(is_hashed(one.uri) for one in listed):
        # The ids of these are in the rows only.
        wanted |= {folder_of(row): row for row in api.all_rows(dag_id, run_id)}
    wanted = {folder: wanted[folder] for one in listed if (folder := _folder(one.uri)) in wanted}
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return dict(zip(wanted, threads.map(api.value, wanted.values()), strict=True))


def _folder(uri: str) -> str:
    return "/".join(uri.split("/")[-6:-1])


def _is_of(one: Listed, reference: PayloadReference) -> bool:
    """Tell whether an object is the payload that a reference names, or one of its attachments."""
    if reference.uri == one.uri:
        return reference.generation == one.generation
    return stem_of(reference.uri) == stem_of(one.uri)


def _payload(one: Listed, rows: dict[str, Any]) -> Payload:
    where = coordinates_of(one.uri) or Coordinates("", "", one.name.rpartition("/")[2], -1, "")
    reference = None
    is_referenced = None
    if _folder(one.uri) in rows:
        with suppress(ReferenceNotAllowedError):
            reference = PayloadReference.from_row(rows[_folder(one.uri)])
        is_referenced = reference is not None and _is_of(one, reference)
    known = reference if is_referenced and reference and reference.uri == one.uri else None
    return Payload(
        task_id=where.task_id,
        map_index=where.map_index,
        key=where.key,
        type=known.type if known else "",
        summary=known.summary if known else {},
        codec=known.codec if known else one.name.rpartition("/")[2].partition(".")[2],
        bytes=one.size,
        age_seconds=int(time.time() - one.created),
        is_referenced=is_referenced,
        uri=one.uri,
    )
