"""Every test has settings and a directory of its own, and nothing of the machine's credentials."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.xcom import settings


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
