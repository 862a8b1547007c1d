"""Run Dags one after the other as ``airflow dags test`` does, in one process; for ``demo.py``.

One process, because each start of the command imports Airflow and builds its API server anew, which
takes longer than most Dags here. The Dags' output goes to one log file each; on the original standard
output there is one JSON object a line for whoever watches::

    {"event": "dags", "ids": [...], "broken": {"file": "why it cannot be imported"}}
    {"event": "ready"}
    {"event": "started", "dag": "..."}
    {"event": "ended", "dag": "...", "reason": null or "..."}

Usage: ``python run_dags.py LOG_FOLDER [DAG_ID ...]``, every Dag when none is named.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path


def main(log_folder: Path, chosen: list[str]) -> None:
    """Run the chosen Dags, or all; a Dag that fails does not keep the others from running."""
    watcher = os.fdopen(os.dup(1), "w", buffering=1)

    def tell(event: str, **facts: object) -> None:
        print(json.dumps({"event": event, **facts}), file=watcher)

    write_to(log_folder / "airflow.log")

    from airflow.configuration import conf
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(conf.get("core", "dags_folder"))
    known = sorted(bag.dags)
    tell("dags", ids=known, broken=bag.import_errors)
    start_api_server()
    tell("ready")

    for dag_id in chosen or known:
        write_to(log_folder / f"{dag_id}.log")
        tell("started", dag=dag_id)
        tell("ended", dag=dag_id, reason=run(dag_id))


def run(dag_id: str) -> str | None:
    """Run one Dag; return in one line why it failed, or None."""
    from airflow.__main__ import main as airflow

    sys.argv = ["airflow", "dags", "test", dag_id]
    try:
        airflow()  # type: ignore[no-untyped-call]
    except SystemExit as end:
        return None if end.code in (None, 0) else str(end.code)
    except Exception as error:  # noqa: BLE001 - whatever it is, it ends this Dag and not the next
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"
    return None


def start_api_server() -> None:
    """Build the API server that tasks speak to, which otherwise the first task does, and pays for."""
    import httpx
    from airflow.sdk.execution_time.supervisor import in_process_api_server

    with httpx.Client(
        transport=in_process_api_server().transport, base_url="http://in-process.invalid"
    ) as api:
        api.get("/health/ping")


def write_to(log: Path) -> None:
    """Send all that this process prints from now on, libraries and children included, to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
