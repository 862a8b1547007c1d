"""Read the ids of a Dag run or task instance from the path of a request."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote, unquote

from fastapi import HTTPException, Request

__all__ = ["Ids", "path_of", "read_ids"]


class Ids(NamedTuple):
    """What the path of a request names; empty where the page is of something larger.

    Attributes:
        map_index: ``-1`` for a task instance that is not mapped.
    """

    dag_id: str
    run_id: str = ""
    task_id: str = ""
    map_index: int = -1


def path_of(*ids: object) -> str:
    """Return ids as parts of a path."""
    return "/".join(quote(str(one), safe="") for one in ids)


def read_ids(request: Request, *names: str) -> Ids:
    """Read ids from the path as it was sent: an encoded slash is part of an id.

    Args:
        names: Fields of ``Ids`` in the order of the path.

    Raises:
        HTTPException: The path has more or fewer parts, or an id that no row can have.
    """
    raw = request.scope.get("raw_path") or quote(request.scope["path"]).encode()
    parts = raw.decode("ascii", "replace").partition("?")[0].split("/")
    page = request.scope["route"].path.split("/")[1]
    found = dict(zip(names, map(unquote, parts[-len(names) :]), strict=False))
    if any("\0" in text for text in (*found.values(), request.query_params.get("key", ""))):
        # PostgreSQL refuses such text, and so has none.
        raise HTTPException(404, "No Dag, Dag run, task, or XCom key has such a name.")
    index = found.pop("map_index", "-1")
    if len(parts) <= len(names) or parts[-len(names) - 1] != page or not all(found.values()):
        raise HTTPException(404, "This URL names no Dag run, task, or task instance.")
    return Ids(**found, map_index=_map_index(index))


def _map_index(text: str) -> int:
    # Airflow leaves the placeholder in the URL of a task instance that is not mapped.
    if text in ("", "{MAP_INDEX}"):
        return -1
    if not text.removeprefix("-").isdecimal() or len(text) > 9:
        raise HTTPException(404, "This URL names no map index.")
    return int(text)
