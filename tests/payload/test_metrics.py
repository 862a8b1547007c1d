"""The metrics of stores and loads, by way of Airflow's own ``Stats``, as a collector receives them.

Over OpenTelemetry, whose packages come with Airflow; ``tests/versions`` has the same over StatsD.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from airflow_server import environment
from fake_gcs_server import ROOT

_DAG = """
import datetime
from airflow.sdk import dag, task

@dag(schedule=None, start_date=datetime.datetime(2026, 1, 1))
def measured():
    @task
    def load():
        return b"x" * 12345

    @task
    def use(value):
        assert len(value) == 12345

    use(load())

measured()
"""


class _Collector(BaseHTTPRequestHandler):
    received: list[bytes]

    def do_POST(self) -> None:
        assert "content-encoding" not in self.headers
        self.received.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[ThreadingHTTPServer]:
    """A server that keeps what it is sent."""
    _Collector.received = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Collector)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_metrics_of_a_dag_reach_the_collector(collector: ThreadingHTTPServer, tmp_path: Path) -> None:
    """Names as docs/operations.md has them, the bytes to one, and a time for each."""
    messages = pytest.importorskip("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "measured.py").write_text(_DAG)
    (tmp_path / "payloads").mkdir()
    variables = environment(tmp_path, 9) | {
        "PYTHONPATH": str(ROOT / "{{cookiecutter.project_slug}}"),
        "AIRFLOW__CORE__XCOM_BACKEND": "include.xcom_backend.GCPBucketXComBackend",
        "AIRFLOW__GCS_XCOM__BUCKET": (tmp_path / "payloads").as_uri(),
        "AIRFLOW__METRICS__OTEL_ON": "True",
        "AIRFLOW__METRICS__OTEL_HOST": "127.0.0.1",
        "AIRFLOW__METRICS__OTEL_PORT": str(collector.server_address[1]),
    }
    for words in (["db", "migrate"], ["dags", "test", "measured"]):
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *words],
            env=variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    received: dict[str, list[float]] = {}
    for body in _Collector.received:
        request = messages.ExportMetricsServiceRequest()
        request.ParseFromString(body)
        scopes = [scope for resource in request.resource_metrics for scope in resource.scope_metrics]
        for metric in (one for scope in scopes for one in scope.metrics if "gcs_xcom" in one.name):
            # Cumulative: the last that was sent counts.
            if metric.HasField("sum"):
                received[metric.name] = [point.as_int or point.as_double for point in metric.sum.data_points]
            else:
                (point,) = metric.exponential_histogram.data_points
                received[metric.name] = [point.count, point.sum]
    times = {name: received.pop(f"airflow.gcs_xcom.{name}.duration") for name in ("store", "load")}
    assert received == {"airflow.gcs_xcom.store.bytes": [12345], "airflow.gcs_xcom.load.bytes": [12345]}
    assert all(count == 1 and 0 < milliseconds < 60_000 for count, milliseconds in times.values()), times
