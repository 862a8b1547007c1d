"""``ls``, ``show`` and ``fetch``: what lies in the store, and what it looks like inside.

The store is asked for objects, Airflow's API for the rows that refer to them. Without the API, ``ls``
and ``show URI`` still work: types and counts of rows are then unknown.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import PayloadCorruptError, ReferenceNotAllowedError
from ..reference import Coordinates, PayloadReference, coordinates_of, segment
from ..settings import load_settings
from ..stores import Listed, Stored, own_store, store_of
from .api import MISSING, AirflowAPI, AirflowAPIError
from .objects import fetch
from .preview import preview
from .tables import age, size, table

__all__ = ["find_payload", "list_payloads", "show_payload", "uri_or_coordinates"]

_AT_ONCE = 8
_PREVIEW_BYTES = 256 * 1024**2

Warn = Callable[[str], None]


@dataclass(frozen=True)
class Payload:
    """One line of ``ls``.

    Attributes:
        is_referenced: None when Airflow was not asked.
    """

    task_id: str
    map_index: int
    key: str
    type: str
    content: str
    codec: str
    bytes: int
    age_seconds: int
    is_referenced: bool | None
    uri: str


def list_payloads(
    dag_id: str, run_id: str | None, api: AirflowAPI | None, *, is_json: bool, warn: Warn
) -> Iterator[str]:
    """Yield the lines of ``ls``: the Dag's runs with their totals, or the payloads of one run."""
    if run_id is None:
        yield from _list_runs(dag_id, is_json=is_json)
        return
    listed = list(_objects_of(dag_id, run_id))
    rows: dict[Coordinates, Any] = {}
    if api is not None and listed:
        wanted = {found for one in listed if (found := coordinates_of(one.uri))}
        try:
            with ThreadPoolExecutor(_AT_ONCE) as threads:
                rows = dict(zip(wanted, threads.map(api.value, wanted), strict=True))
        except AirflowAPIError as error:
            warn(f"types and counts are unknown: {error}")
    payloads = [_payload(one, rows) for one in listed]
    if is_json:
        total = sum(one.bytes for one in payloads)
        yield json.dumps({"payloads": [asdict(one) for one in payloads], "total_bytes": total}, indent=2)
        return
    if not payloads:
        yield f"No payloads of {dag_id}, run {run_id}, below {load_settings().root}"
        return
    heads = ("TASK", "MAP", "KEY", "TYPE", "CONTENT", "CODEC", "BYTES", "AGE", "ROW")
    words = {True: "yes", False: "none", None: "?"}
    cells = [
        (
            one.task_id,
            one.map_index if one.map_index >= 0 else "-",
            one.key,
            one.type,
            one.content,
            one.codec,
            size(one.bytes),
            age(one.age_seconds),
            words[one.is_referenced],
        )
        for one in payloads
    ]
    yield table(heads, cells, right=("MAP", "BYTES", "AGE"))
    yield f"{len(payloads)} payloads, {size(sum(one.bytes for one in payloads))}"


def _list_runs(dag_id: str, *, is_json: bool) -> Iterator[str]:
    runs: dict[str, list[float]] = {}
    for one in _objects_of(dag_id, None):
        where = coordinates_of(one.uri)
        if where is None:
            continue
        run = runs.setdefault(where.run_id, [0, 0, 0.0])
        run[0] += 1
        run[1] += one.size
        run[2] = max(run[2], one.created)
    now = time.time()
    if is_json:
        found = [
            {"run_id": run_id, "payloads": int(count), "bytes": int(total), "age_seconds": int(now - newest)}
            for run_id, (count, total, newest) in runs.items()
        ]
        yield json.dumps({"runs": found, "total_bytes": sum(one["bytes"] for one in found)}, indent=2)
        return
    if not runs:
        yield f"No payloads of {dag_id} below {load_settings().root}"
        return
    cells = [
        (run_id, int(count), size(int(total)), age(now - newest))
        for run_id, (count, total, newest) in runs.items()
    ]
    yield table(("RUN", "PAYLOADS", "BYTES", "NEWEST"), cells, right=("PAYLOADS", "BYTES", "NEWEST"))
    count, total = (int(sum(run[place] for run in runs.values())) for place in (0, 1))
    yield f"{len(runs)} runs, {count} payloads, {size(total)}"


def _objects_of(dag_id: str, run_id: str | None) -> Iterator[Listed]:
    parts = [load_settings().prefix, segment(dag_id), *([] if run_id is None else [segment(run_id)])]
    folder = "/".join(part for part in parts if part) + "/"
    for page in own_store().list(folder):
        yield from page


def _payload(one: Listed, rows: dict[Coordinates, Any]) -> Payload:
    where = coordinates_of(one.uri) or Coordinates("", "", one.name.rpartition("/")[2], -1, "")
    row = rows.get(where)
    reference = None
    is_referenced = None
    if where in rows:
        with suppress(ReferenceNotAllowedError):
            reference = PayloadReference.from_row(row)
        is_referenced = reference is not None and (reference.uri, reference.generation) == (
            one.uri,
            one.generation,
        )
    extension = one.name.rpartition("/")[2].partition(".")[2]
    summary = ""
    if reference is not None and is_referenced:
        summary = " ".join(f"{name}={value}" for name, value in reference.summary.items())
    return Payload(
        task_id=where.task_id,
        map_index=where.map_index,
        key=where.key,
        type=reference.type if reference and is_referenced else "",
        content=summary,
        codec=reference.codec if reference and is_referenced else extension,
        bytes=one.size,
        age_seconds=int(time.time() - one.created),
        is_referenced=is_referenced,
        uri=one.uri,
    )


def uri_or_coordinates(words: list[str], map_index: int, key: str) -> str | Coordinates:
    """Read what ``show`` and ``fetch`` are given: a URI, or the ids of Dag, run and task.

    Raises:
        ValueError: It is neither.
    """
    if len(words) == 1 and words[0].startswith(("gs://", "file://")):
        return words[0]
    if len(words) == 3:
        return Coordinates(words[0], words[1], words[2], map_index, key)
    raise ValueError("give a URI (gs://… or file://…), or three ids: DAG RUN TASK")


def find_payload(
    target: str | Coordinates, connect: Callable[[], AirflowAPI]
) -> tuple[Any, PayloadReference | None]:
    """Return the row of an XCom, ``MISSING`` if unknown, and its reference, None for an inline value.

    A URI needs no API: size and checksum are then the store's, and not what a task once wrote.

    Raises:
        LookupError: There is no such row.
        AirflowAPIError: Airflow was not to be asked.
        PayloadError: The store cannot be asked, or may not.
    """
    if isinstance(target, Coordinates):
        row = connect().value(target)
        if row is MISSING:
            raise LookupError(f"Airflow has no {target}")
        return row, PayloadReference.from_row(row)
    stored = store_of(target).describe(target)
    extension = target.rpartition("/")[2].partition(".")[2]
    return MISSING, PayloadReference(
        stored.uri, "", stored.size, 0, extension, 0, stored.crc32c, stored.generation
    )


def show_payload(row: Any, reference: PayloadReference | None, *, lines: int, is_json: bool) -> Iterator[str]:
    """Yield the lines of ``show``: the reference and a preview; for an inline value its JSON."""
    if reference is None:
        text = json.dumps(row, ensure_ascii=False, indent=2)
        if is_json:
            yield json.dumps({"inline": row})
            return
        shown = text.splitlines()[:lines]
        yield "inline: the value is in the database row itself"
        yield from (line[:1000] for line in shown)
        return
    fields = {name: value for name, value in reference._asdict().items() if value not in ("", {})}
    if row is MISSING:
        # The store does not know these.
        fields = {name: fields[name] for name in ("uri", "bytes", "crc32c", "generation")}
    if reference.bytes > _PREVIEW_BYTES:
        shown = [f"no preview of {size(reference.bytes)}; get it with: python -m include.xcom fetch URI FILE"]
    else:
        with _fetched(reference) as path:
            shown = preview(path, lines)
    if is_json:
        yield json.dumps({"reference": fields, "preview": shown}, indent=2)
        return
    where = coordinates_of(reference.uri)
    if where:
        yield str(where)
    width = max(map(len, fields))
    for name, value in fields.items():
        if isinstance(value, dict):
            value = ", ".join(f"{inner}={text}" for inner, text in value.items())
        more = f" ({size(value)})" if name in ("bytes", "raw_bytes") else ""
        yield f"  {name.ljust(width)}  {value}{more}"
    yield ""
    yield from shown


@contextmanager
def _fetched(reference: PayloadReference) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        name = reference.uri.rpartition("/")[2].partition(".")[2] or "bin"
        path = Path(folder) / f"payload.{name}"
        fetch_payload(reference, path, is_replacing=False)
        yield path


def fetch_payload(reference: PayloadReference, path: Path, *, is_replacing: bool) -> None:
    """Stream a payload to a file and check it against its reference; see ``objects.fetch``."""
    if path.is_dir():
        raise PayloadCorruptError(f"{path} is a directory; name a file in it", uri=reference.uri)
    os.makedirs(path.parent, exist_ok=True)
    fetch(store_of(reference.uri), Stored.of(reference), path, is_replacing=is_replacing)
