"""A real fake-gcs-server for the tests of payloads, and nothing of the machine's own settings."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest
from fake_gcs_server import GCSServer

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [
    str(ROOT / "{{cookiecutter.project_slug}}"),
    str(Path(__file__).parent),
    str(ROOT / "tests/core"),  # example_values
]
# Airflow writes a configuration there when it is first imported.
os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="airflow-home-"))

_HIDDEN = (
    "AIRFLOW__GCS_XCOM__",
    "AIRFLOW_CONN_",
    "GOOGLE_",
    "CLOUDSDK_",
    "GCE_METADATA_",
    "STORAGE_EMULATOR",
)
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take away what would lead tests to somebody's real bucket, or give them his credentials."""
    for name in list(os.environ):
        if name.startswith(_HIDDEN) or name.upper() in _PROXIES:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    # Else google-auth looks for a metadata server, for seconds.
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    _forget()
    # Airflow's own configuration of logs would keep them from `caplog`.
    monkeypatch.setattr(logging.getLogger("include"), "propagate", True)
    yield
    _forget()


def _forget() -> None:
    """Settings and stores are kept for the life of a process; a test's server ends with the test."""
    if "include.xcom.settings" in sys.modules:
        sys.modules["include.xcom.settings"].load_settings.cache_clear()
    if "include.xcom.stores" in sys.modules:
        sys.modules["include.xcom.stores"].forget_stores()


@pytest.fixture
def gcs_server(gcs_server_url: str) -> GCSServer:
    """A fresh bucket on the session's server."""
    # With the word in it, as in many names, and in messages about other things than buckets.
    bucket = f"test-bucket-{uuid4().hex[:12]}"
    body = json.dumps({"name": bucket}).encode()
    request = Request(f"{gcs_server_url}/storage/v1/b", body, {"content-type": "application/json"})
    urlopen(request, timeout=10).close()
    return GCSServer(gcs_server_url, bucket)
