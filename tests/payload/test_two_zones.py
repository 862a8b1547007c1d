"""Values of operators and clients, written on a worker of one time zone and read on one of another."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from airflow_server import environment
from fake_gcs_server import ROOT

DAGS = Path(__file__).parent / "two_zones"
READ = """\
[('B6', -5), ('UA', 2)] ['tuple', 'tuple']
{'departs': datetime.datetime(2026, 7, 1, 6, 30, tzinfo=TzInfo(7200)), \
'link': HttpUrl('https://example.com/1'), 'fares': [{'amount': Decimal('1.10'), 'currency': 'EUR'}]}
{'Contents': [{'Key': 'a.csv', 'LastModified': datetime.datetime(2026, 7, 1, 6, 30, tzinfo=tzutc())}], \
'cutoff': datetime.datetime(2026, 7, 1, 6, 30)}"""


def test_values_of_operators_and_clients_are_the_same_in_another_time_zone(tmp_path: Path) -> None:
    """Rows of an SQLExecuteQueryOperator, models of an API client, a listing as boto3 gives it."""
    pytest.importorskip(
        "airflow.providers.common.sql", reason="pip install apache-airflow-providers-common-sql"
    )
    (tmp_path / "payloads").mkdir()
    variables = environment(tmp_path, 8080) | {
        "AIRFLOW__CORE__ALLOWED_DESERIALIZATION_CLASSES": "airflow.* flight_models.*",
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__XCOM_BACKEND": "include.xcom_backend.GCPBucketXComBackend",
        "AIRFLOW__GCS_XCOM__BUCKET": (tmp_path / "payloads").as_uri(),
        "PYTHONPATH": f"{ROOT / '{{cookiecutter.project_slug}}'}:{DAGS}",
    }

    def airflow(*words: str, **more: str) -> str:
        command = [sys.executable, "-m", "airflow", *words]
        done = subprocess.run(
            command, env=variables | more, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        return done.stdout + done.stderr

    airflow("db", "migrate")
    runs: list[str] = []
    for day, threshold_bytes in enumerate(("0", "49152"), 1):
        written = airflow(
            *("dags", "test", "two_zones", f"2026-01-0{day}"),
            TZ="America/New_York",
            AIRFLOW__GCS_XCOM__THRESHOLD_BYTES=threshold_bytes,
        )
        runs += set(re.findall(r"DagRun Finished: .*?\brun_id=([^,]+),", written))

    said = airflow(
        "dags", "test", "two_zones", "2026-01-03", "--conf", json.dumps({"read": runs}), TZ="Asia/Kolkata"
    )

    read = re.findall(r"READ (.*?)(?: chan=stdout.*)?$", said, re.MULTILINE)
    assert "\n".join(read) == f"{READ}\n{READ}"
    assert "value[0] and 1 more: two_zones.Row as tuple" in written
