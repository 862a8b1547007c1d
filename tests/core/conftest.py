"""Every test has settings and a directory of its own, and nothing of the machine's credentials."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# A baked project, where `make test-versions` runs these tests; else the template's own folder.
_TEMPLATE = Path(__file__).resolve().parents[2] / "{{cookiecutter.project_slug}}"
_PATHS = [os.environ.get("XCOM_PROJECT", str(_TEMPLATE)), str(Path(__file__).parent)]
sys.path[:0] = _PATHS
# For the processes that tests start.
os.environ["PYTHONPATH"] = os.pathsep.join(_PATHS)
# Airflow writes a configuration there when it is first imported.
os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="airflow-home-"))

from include.xcom import settings  # noqa: E402


@pytest.fixture(autouse=True)
def payload_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Point the backend to an empty directory; give its path."""
    for name in list(os.environ):
        if name.startswith(("AIRFLOW__GCS_XCOM__", "GOOGLE_", "CLOUDSDK_", "STORAGE_EMULATOR")):
            monkeypatch.delenv(name)
    folder = tmp_path / "payloads"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__GCS_XCOM__BUCKET", folder.as_uri())
    settings.load_settings.cache_clear()
    yield folder
    settings.load_settings.cache_clear()
