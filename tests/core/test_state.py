"""The state backend on every version of Airflow; tests/payload/test_state.py has the rest."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

LARGE: Any = ["x" * 100_000]

try:
    state: Any = importlib.import_module("airflow.sdk.state")
except ImportError:
    state = None


@pytest.mark.skipif(state is not None, reason="this Airflow has a state store")
def test_older_airflow_is_told_what_is_needed() -> None:
    """The Dockerfile sets the backend for every version; nothing below 3.3 imports it."""
    with pytest.raises(ImportError, match=r"needs Airflow 3\.3 or newer"):
        importlib.import_module("include.state_backend")


@pytest.mark.skipif(state is None, reason="the state store came with Airflow 3.3")
class TestState:
    """With a directory."""

    def test_values_come_back_and_go(self, payload_folder: Path) -> None:
        """Of a task instance and of an asset; small ones need no object."""
        from include.state_backend import GCSStateBackend

        backend, task, asset = (
            GCSStateBackend(),
            state.TaskScope("d", "r", "t", 3),
            state.AssetScope(name="orders"),
        )
        small = backend.serialize_task_state_store_to_ref(value=5, key="small", scope=task)
        of_task = backend.serialize_task_state_store_to_ref(value=LARGE, key="large", scope=task)
        of_asset = backend.serialize_asset_state_store_to_ref(value=LARGE, key="large", scope=asset)

        assert backend.deserialize_task_state_store_from_ref(small) == 5
        assert backend.deserialize_task_state_store_from_ref(of_task) == LARGE
        assert backend.deserialize_asset_state_store_from_ref(of_asset) == LARGE
        assert len(files(payload_folder)) == 2
        backend.clear(task)
        backend.delete(asset, "large")
        assert files(payload_folder) == []

    def test_iterations_of_loops_are_apart(self, payload_folder: Path) -> None:
        """Airflow 3.4 gives each run of a loop a region, in which indexes count from 0 again."""
        from include.state_backend import GCSStateBackend

        if not hasattr(state.TaskScope("d", "r", "t"), "region_id"):
            pytest.skip("loops came with Airflow 3.4")
        backend = GCSStateBackend()
        scopes = [state.TaskScope("d", "r", "t", 0, UUID(int=number)) for number in range(3)]
        rows = [
            backend.serialize_task_state_store_to_ref(value=[number, *LARGE], key="k", scope=scope)
            for number, scope in enumerate(scopes)
        ]

        backend.clear(scopes[1], all_map_indices=True)

        assert backend.deserialize_task_state_store_from_ref(rows[0]) == [0, *LARGE]
        assert backend.deserialize_task_state_store_from_ref(rows[2]) == [2, *LARGE]
        assert len(files(payload_folder)) == 2


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
