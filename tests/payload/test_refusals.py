"""What a person sees in the log of a task whose value cannot be stored."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from airflow_server import environment
from fake_gcs_server import ROOT

ADVICE = {
    "forwarded": "Cannot store airflow.sdk.execution_time.lazy_sequence.LazyXComSequence: .*return list",
    "order": r"Cannot store refusing.Order at value\['orders'\]\[0\]: its class is in a Dag file.*move the class to include/",
    "context": r"Cannot store .*: the context belongs to this task; return the parts of it that you need",
    "operator": r"Cannot store .* at value\[0\]: an operator is a task of its own; use its \.output",
    "group": "Cannot store .*GroupBy: return the aggregated frame",
}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Run the Dag; give the lines of its log."""
    pytest.importorskip("airflow")
    folder = tmp_path_factory.mktemp("refusing")
    (folder / "payloads").mkdir()
    variables = environment(folder, 8080) | {
        "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parent / "refusing"),
        "AIRFLOW__CORE__XCOM_BACKEND": "include.xcom_backend.GCPBucketXComBackend",
        "AIRFLOW__GCS_XCOM__BUCKET": (folder / "payloads").as_uri(),
        "PYTHONPATH": str(ROOT / "{{cookiecutter.project_slug}}"),
    }
    for words in (("db", "migrate"), ("dags", "test", "refusing")):
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *words],
            env=variables,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1, done.stderr[-3000:]
    assert not list((folder / "payloads").rglob("*.*"))
    return (done.stdout + done.stderr).splitlines()


@pytest.mark.parametrize(("task_id", "advice"), ADVICE.items(), ids=ADVICE.keys())
def test_refused_value_is_answered_with_what_to_return_instead(
    task_id: str, advice: str, log: list[str]
) -> None:
    """Cause and remedy come first; what identifies the XCom follows."""
    (said,) = {line for line in log if "UnsupportedTypeError: " in line and f"of refusing.{task_id} " in line}

    assert re.search(advice, said)
    assert "Nothing was uploaded" in said


def test_error_is_outside_of_the_folded_groups_of_the_log_page(log: list[str]) -> None:
    """Read as Airflow's page reads it: a group ends at ``::endgroup::``, and is folded at first."""
    open_groups = 0
    errors = []
    for line in log:
        if "::group::" in line:
            open_groups += 1
        elif "::endgroup::" in line:
            open_groups = max(0, open_groups - 1)
        elif "Task failed with exception" in line:
            errors.append(open_groups)

    assert errors == [0] * len(ADVICE)
