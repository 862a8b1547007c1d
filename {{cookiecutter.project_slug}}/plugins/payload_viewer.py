"""Add the tabs "Payloads" of task instances and Dag runs and "XCom history" of tasks to Airflow's UI.

Every component of Airflow loads this file, so it imports next to nothing. The API server imports the
pages at the first request. ``[gcs_xcom] viewer = false`` switches them off; Airflow 3.0 has no such
tabs.
"""

from __future__ import annotations

from threading import Lock
from typing import Any, ClassVar

from airflow import __version__
from airflow.plugins_manager import AirflowPlugin

from include.xcom.settings import is_viewer_enabled

PREFIX = "/payload-viewer"


class PayloadViewer:
    """ASGI application that imports the pages at the first request."""

    def __init__(self) -> None:
        self._app: Any = None
        self._importing = Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request to the pages."""
        if self._app is None:
            import asyncio

            # In a thread: the event loop keeps answering other requests.
            await asyncio.get_running_loop().run_in_executor(None, self._make)
        await self._app(scope, receive, send)

    def _make(self) -> None:
        with self._importing:
            if self._app is None:
                from include.xcom.viewer.app import make_app

                self._app = make_app()


def has_tabs(version: str) -> bool:
    """Tell whether this version of Airflow shows pages of plugins as tabs."""
    major, minor = (int(part) for part in version.split(".")[:2])
    return (major, minor) >= (3, 1)


class PayloadViewerPlugin(AirflowPlugin):
    """The plugin as Airflow lists it."""

    name = "payload_viewer"
    fastapi_apps: ClassVar[list[Any]] = []
    external_views: ClassVar[list[Any]] = []


if has_tabs(__version__) and is_viewer_enabled():
    PayloadViewerPlugin.fastapi_apps = [
        {"app": PayloadViewer(), "url_prefix": PREFIX, "name": "Payload viewer"}
    ]
    # No leading slash: the path is relative to the base URL of Airflow's own pages.
    PayloadViewerPlugin.external_views = [
        {
            "name": "Payloads",
            "href": PREFIX[1:] + "/instance/{DAG_ID}/{RUN_ID}/{TASK_ID}/{MAP_INDEX}",
            "destination": "task_instance",
            "url_route": "payloads",
        },
        {
            "name": "Payloads",
            "href": PREFIX[1:] + "/run/{DAG_ID}/{RUN_ID}",
            "destination": "dag_run",
            "url_route": "run_payloads",
        },
        {
            "name": "XCom history",
            "href": PREFIX[1:] + "/history/{DAG_ID}/{TASK_ID}",
            "destination": "task",
            "url_route": "xcom_history",
        },
    ]
