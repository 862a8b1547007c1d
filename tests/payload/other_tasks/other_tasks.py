"""Tasks that run their code elsewhere than in the worker's own Python, around payloads of a Python task."""

from __future__ import annotations

import datetime
import io
import json
import pickle
import sys
import tarfile
from typing import Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.docker.operators.docker import DockerOperator
from airflow.sdk import dag, task

ROWS = [{"id": number, "text": "x" * 20} for number in range(5000)]


class Pod(KubernetesPodOperator):
    """A pod whose sidecar has the result; there is no cluster, the rest is the operator's own."""

    def execute(self, context: Any) -> Any:
        """Return what the operator makes of the file /airflow/xcom/return.json."""

        class Manager:
            def extract_xcom(self, pod: Any, **_: Any) -> str:
                return json.dumps(ROWS)

        self.__dict__["pod_manager"] = Manager()
        return self.extract_xcom(pod=None)


class Engine:
    """A container engine, of which a container has left its result in a file."""

    def get_archive(self, container: str, path: str) -> tuple[list[bytes], dict[str, Any]]:
        """Return the file in a tar archive, as an engine does."""
        archive, body = io.BytesIO(), pickle.dumps(ROWS)
        with tarfile.open(fileobj=archive, mode="w") as tar:
            entry = tarfile.TarInfo("result.pkl")
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
        return [archive.getvalue()], {"name": "result.pkl", "size": len(body)}


class Container(DockerOperator):
    """A container; what becomes of its result is the operator's own."""

    cli = Engine()

    def execute(self, context: Any) -> Any:
        """Return what the operator makes of the file that ``retrieve_output_path`` names."""
        self.container = {"Id": "container"}
        return self._attempt_to_retrieve_result()  # type: ignore[no-untyped-call]


@dag(schedule=None, start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc))
def other_tasks() -> None:
    """Each task fails when what it gets is not what was returned."""

    @task
    def load() -> Any:
        return ROWS

    @task
    def frame() -> Any:
        import pandas as pd

        return pd.DataFrame(ROWS, index=pd.RangeIndex(5000, name="row"))

    @task.bash
    def shell() -> str:
        return (
            "test {{ ti.xcom_pull('load') | length }} = 5000 && "
            "test {{ ti.xcom_pull('load')[7]['id'] }} = 7 && printf 'y%.0s' {1..60000}"
        )

    @task.virtualenv(requirements=[], system_site_packages=False)
    def virtualenv(rows):  # type: ignore[no-untyped-def]
        import importlib.util

        assert importlib.util.find_spec("airflow") is None
        assert (len(rows), rows[7]["id"]) == (5000, 7)
        return [*rows, {"id": -1, "text": "virtualenv"}]

    @task.external_python(python=sys.executable)
    def external_python(frame):  # type: ignore[no-untyped-def]
        assert (type(frame).__name__, frame.index.name, len(frame)) == ("DataFrame", "row", 5000)
        return frame.tail(4000)

    @task
    def check(of_shell, of_virtualenv, of_external_python, of_pod, of_container):  # type: ignore[no-untyped-def]
        assert of_shell == "y" * 60_000
        assert (of_virtualenv[:-1], of_virtualenv[-1]["text"]) == (ROWS, "virtualenv")
        assert (type(of_external_python).__name__, of_external_python.index.name) == ("DataFrame", "row")
        assert of_pod == ROWS
        assert of_container == ROWS

    pod = Pod(
        task_id="pod",
        name="pod",
        image="none",
        do_xcom_push=True,
        arguments=["{{ ti.xcom_pull('load')[7] }}"],
    )
    container = Container(
        task_id="container", image="none", retrieve_output=True, retrieve_output_path="/tmp/result.pkl"
    )
    loaded = load()
    bash = shell()
    loaded >> [bash, pod, container]
    check(bash, virtualenv(loaded), external_python(frame()), pod.output, container.output)


other_tasks()
