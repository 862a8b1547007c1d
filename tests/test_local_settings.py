"""airflow_local_settings.py: what it sets, where, and that it hides nobody's cluster policies."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import astro_standalone
import pytest
from baking import REPOSITORY, TEMPLATE_FOLDER, clean_environment
from existing_projects import ASTRO, adopt, lay_out

LOCAL_SETTINGS = "airflow_local_settings.py"
AIRFLOWS_OWN = "airflow.sdk.execution_time.xcom.BaseXCom"
POLICY = """
from __future__ import annotations

def task_policy(task):
    task.owner = "the policy"
"""
_LOOK = """
import json, os
from airflow import policies, settings
from airflow.configuration import conf
class Task: owner = "nobody"
settings.task_policy(Task)
print(json.dumps({
    "xcom": conf.get("core", "xcom_backend"),
    "state": conf.get("workers", "state_store_backend", fallback=""),
    "plugins": conf.get("core", "plugins_folder"),
    "owner": Task.owner,
}))
"""


def look(project: Path, **environment: str) -> dict[str, str]:
    """Return what a process of Airflow has taken from the file."""
    variables = astro_standalone.environment(project, 8080) | environment
    done = subprocess.run(
        [sys.executable, "-c", _LOOK], env=variables, cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the file alone."""
    folder = tmp_path / "project"
    folder.mkdir()
    text = (REPOSITORY / TEMPLATE_FOLDER / LOCAL_SETTINGS).read_text()
    (folder / LOCAL_SETTINGS).write_text(text)
    return folder


def test_standalone_mode_gets_both_backends_and_the_plugins(project: Path) -> None:
    """Which the Dockerfile and the place of plugins/ give the containers."""
    assert look(project) == {
        "xcom": "include.xcom_backend.GCPBucketXComBackend",
        "state": "include.state_backend.GCSStateBackend",
        "plugins": f"{project}/plugins",
        "owner": "nobody",
    }


def test_what_the_shell_says_wins(project: Path) -> None:
    """Somebody who turns the backend off for a try has it off."""
    assert look(project, AIRFLOW__CORE__XCOM_BACKEND=AIRFLOWS_OWN)["xcom"] == AIRFLOWS_OWN


@pytest.mark.parametrize("home", ["standalone", ".astro/standalone/airflow"])
def test_any_other_home_gets_nothing(project: Path, home: str) -> None:
    """A container, a deployment or a plain Airflow says by itself what its backend is."""
    found = look(project, AIRFLOW_HOME=str(project / home))

    assert found["xcom"] == AIRFLOWS_OWN
    assert found["state"] == ""
    assert found["plugins"] == f"{project}/{home}/plugins"


@pytest.mark.parametrize(("folder", "home"), [("config", "."), ("plugins", ".astro/standalone")])
def test_cluster_policies_of_a_file_that_it_hides_stay(project: Path, folder: str, home: str) -> None:
    """Both are on Python's path in Astro's images, and this one comes first."""
    (project / folder).mkdir()
    (project / folder / LOCAL_SETTINGS).write_text(POLICY)

    assert look(project, AIRFLOW_HOME=str(project / home))["owner"] == "the policy"


def test_doctor_adds_the_lines_to_a_file_of_ones_own(template: Path, tmp_path: Path) -> None:
    """An adopted project keeps its cluster policies and has the backend."""
    folder = lay_out(ASTRO | {LOCAL_SETTINGS: POLICY}, tmp_path)
    assert adopt(template, folder).exit_code == 0
    assert (folder / LOCAL_SETTINGS).read_text() == POLICY
    command = f"'{sys.executable}' -m include.xcom doctor --fixes | sh"

    subprocess.run(["sh", "-c", command], cwd=folder, env=clean_environment(tmp_path), check=True)

    found = look(folder)
    assert found["owner"] == "the policy"
    assert found["xcom"] == "include.xcom_backend.GCPBucketXComBackend"
    assert found["plugins"] == f"{folder}/plugins"
    assert look(folder, AIRFLOW_HOME=str(folder))["xcom"] == AIRFLOWS_OWN
