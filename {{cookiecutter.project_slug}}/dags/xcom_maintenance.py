"""Delete payloads that no XCom refers to, on a schedule.

The Dag exists only where it is asked for, with ``AIRFLOW__GCS_XCOM__SWEEP_SCHEDULE=@weekly`` (or
``[gcs_xcom] sweep_schedule``; any cron expression), and begins paused. Trigger it with
``{"delete": false, "claim": true}``: that says that this deployment alone writes below ``[gcs_xcom]
prefix``, without which nothing is deleted, and shows in the log what would be. Then unpause it.

It asks Airflow's API which payloads are referred to, as ``AIRFLOW_API_TOKEN`` or
``AIRFLOW_API_USERNAME`` and ``AIRFLOW_API_PASSWORD`` say: set them for the workers. Cloud Composer
needs neither: there it asks as the environment's service account.
See docs/operations.md of the template.
"""

from __future__ import annotations

import logging
from datetime import datetime

from airflow.configuration import conf
from airflow.sdk import Param, dag, task

SCHEDULE = conf.get("gcs_xcom", "sweep_schedule", fallback="") or None


@dag(
    schedule=SCHEDULE,
    start_date=datetime(2025, 1, 1),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    params={
        "age_days": Param(30, type="number", exclusiveMinimum=0, description="Younger payloads stay."),
        "delete": Param(True, type="boolean", description="Off: only list what would be deleted."),
        "claim": Param(
            False, type="boolean", description="Note that no other deployment writes below this prefix."
        ),
    },
    tags=["maintenance"],
    doc_md=__doc__,
)
def xcom_maintenance():
    """One task: a sweep of this deployment's prefix."""

    @task
    def sweep(params: dict) -> None:
        # Here, so that parsing this file imports nothing.
        from include.xcom.commands.api import AirflowAPI, Login
        from include.xcom.commands.sweep import run_sweep

        log = logging.getLogger("xcom_maintenance")
        code = run_sweep(
            AirflowAPI(Login.find()),
            age_days=params["age_days"],
            is_deleting=params["delete"],
            is_claiming=params["claim"],
            warn=log.info,
        )
        if code:
            raise RuntimeError("The sweep could not do all of its work; the log above says why")

    sweep()


if SCHEDULE:
    xcom_maintenance()
