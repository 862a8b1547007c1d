"""Delete payloads that no XCom refers to, on a schedule.

The Dag exists only if ``AIRFLOW__GCS_XCOM__SWEEP_SCHEDULE`` (or ``[gcs_xcom] sweep_schedule``) is set, for
example to ``@weekly``, and starts paused. Trigger it with ``{"delete": false, "claim": true}``: that states
that only this deployment writes below ``[gcs_xcom] prefix``, without which nothing is deleted, and the log
shows what would be. Then unpause it.

It asks Airflow's API which payloads are referred to, with ``AIRFLOW_API_TOKEN``, or with
``AIRFLOW_API_USERNAME`` and ``AIRFLOW_API_PASSWORD``: set them for the workers. Cloud Composer needs neither;
there it uses the environment's service account. See docs/operations.md of the template.
"""

from __future__ import annotations

import logging
from datetime import datetime, timezone

from airflow.configuration import conf
from airflow.sdk import Param, dag, task

SCHEDULE = conf.get("gcs_xcom", "sweep_schedule", fallback="") or None


@dag(
    schedule=SCHEDULE,
    start_date=datetime(2025, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    params={
        "age_days": Param(30, type="number", exclusiveMinimum=0, description="Younger payloads stay."),
        "delete": Param(True, type="boolean", description="Off: only report what would be deleted."),
        "claim": Param(
            False, type="boolean", description="State that no other deployment writes below this prefix."
        ),
    },
    tags=["maintenance"],
    doc_md=__doc__,
)
def xcom_maintenance():
    """One task: a sweep of this deployment's prefix."""

    @task
    def sweep(params: dict) -> None:
        # Imported here, so that parsing this file costs nothing.
        from include.xcom.commands.api import AirflowAPI, Login
        from include.xcom.commands.sweep import Options, run_sweep

        log = logging.getLogger("xcom_maintenance")
        options = Options(
            age_days=params["age_days"], is_deleting=params["delete"], is_claiming=params["claim"]
        )
        if run_sweep(AirflowAPI(Login.find()), options, log.info):
            raise RuntimeError("The sweep could not do all of its work; the log above says why")

    sweep()


if SCHEDULE:
    xcom_maintenance()
