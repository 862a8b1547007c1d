"""Runs the tasks of a queue in Node.js, as the NodeCoordinator of Airflow 3.4 does."""

from __future__ import annotations

from typing import Any

import attrs
from airflow.sdk.coordinators._subprocess import SubprocessCoordinator


@attrs.define(kw_only=True)
class NodeCoordinator(SubprocessCoordinator):
    """Starts a script; Airflow's own coordinator looks for it among packed bundles.

    Airflow 3.3 has none for Node.js, and 3.4.0b2's does not read what the SDK's 0.1.0-beta1 packs.
    """

    script: str

    def _build_execute_task_command(self, *, what: Any) -> tuple[list[str], str | None]:
        # No schema: Airflow 3.3 does not know that of the SDK. XComs are the same in both.
        return ["node", self.script], None
