"""Which objects of task and asset state (Airflow 3.3 and later) a row still refers to, by Airflow's API.

Objects that no row refers to stay behind when a key is set again, when a row expires or is deleted over
REST, and when a task is killed between upload and row.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from ..errors import ReferenceNotAllowedError
from ..state import StateKey, StateReference

__all__ = ["StateRows"]

Get = Callable[[str, dict[str, Any]], Any]

_PAGE_ROWS = 100
# What Airflow wraps a backend's text in: airflow/sdk/execution_time/context.py.
_MARKER = "__airflow_state_ref__"


class StateRows:
    """The rows of one scope after the other, as objects come in the order of their names.

    Args:
        get: Sends GET to a path below ``/api/v2`` with a query, and returns the parsed answer. It raises
            for anything but success; on Airflow below 3.3 that is a 404.
    """

    def __init__(self, get: Get) -> None:
        self._get = get
        self._scope: tuple[str, ...] = ()
        self._rows: dict[str, Any] = {}

    def is_referenced(self, state: StateKey, uri: str) -> bool:
        """Tell whether the row of a key refers to an object, or to something that cannot be understood.

        Args:
            state: Of the object, as ``state.key_of_object`` returns it.
            uri: Of the object.
        """
        if state.scope != self._scope:
            self._rows = self._fetch(state.scope)
            self._scope = state.scope
        return _names(self._rows.get(state.key), uri)

    def _fetch(self, scope: tuple[str, ...]) -> dict[str, Any]:
        if scope[0] == "task":
            _, dag_id, run_id, task_id, region, index = scope
            path = f"/dags/{_quoted(dag_id)}/dagRuns/{_quoted(run_id)}/taskInstances/{_quoted(task_id)}/state-store"
            where = {"map_index": index} if region == "-" else {"region_id": region, "region_index": index}
            return self._pages(path, where, "task_state_store")
        rows: dict[str, Any] = {}
        for asset_id in self._asset_ids(scope[1], scope[2]):
            rows |= self._pages(f"/assets/{asset_id}/state-store", {}, "asset_state_store")
        return rows

    def _asset_ids(self, kind: str, text: str) -> list[int]:
        """Return the ids of assets with exactly this name or URI, of those that are not used any more too."""
        if kind == "id":
            return [int(text)]
        # A pattern finds more, and `_` and `%` in it stand for anything.
        query = {f"{kind}_pattern": text, "only_active": "false"}
        found = self._all("/assets", query, "assets")
        return [asset["id"] for asset in found if asset[kind] == text]

    def _pages(self, path: str, query: dict[str, Any], name: str) -> dict[str, Any]:
        return {row["key"]: row["value"] for row in self._all(path, query, name)}

    def _all(self, path: str, query: dict[str, Any], name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            answer = self._get(path, {**query, "limit": _PAGE_ROWS, "offset": len(found)})
            page = answer[name]
            found += page
            if not page or len(found) >= answer["total_entries"]:
                return found


def _names(value: Any, uri: str) -> bool:
    text = value.get(_MARKER) if isinstance(value, dict) else None
    if not isinstance(text, str):
        return False  # A value that was not written by a worker's backend.
    try:
        reference = StateReference.from_value(json.loads(text))
    except (ValueError, ReferenceNotAllowedError):
        return uri in text or json.dumps(uri)[1:-1] in text
    return reference is not None and reference.payload.uri == uri


def _quoted(text: str) -> str:
    return quote(text, safe="", errors="surrogatepass")
