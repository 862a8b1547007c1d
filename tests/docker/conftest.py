"""Two stacks of two projects, started once each, and reports of what their services said."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from baking import bake
from engine import engine_refusal, give_up
from stack import Stack, report, running

HERE = Path(__file__).parent
PROBES = HERE / "dags" / "stack_probes.py"

# Failures show themselves in seconds, not in minutes.
IMPATIENT = {
    "AIRFLOW__GCS_XCOM__TIMEOUT_SECONDS": "5",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
}

_running: dict[str, ExitStack] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this folder."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("docker")


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """End a stack after the last test that asks for it, and not with all the other tests of a worker."""
    later = item.session.items[item.session.items.index(item) + 1 :]
    wanted = {name for one in later if HERE in one.path.parents for name in getattr(one, "fixturenames", ())}
    for name in _running.keys() - wanted:
        _running.pop(name).close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach what the stacks say to the report of a test that failed, or of its fixtures."""
    outcome = yield
    if outcome.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, Stack):
                outcome.sections.append((f"services of {name}", report(value)))
    return outcome


@pytest.fixture(scope="session")
def engine() -> None:
    """Give up where no container engine answers."""
    if refusal := engine_refusal():
        give_up(refusal)


@pytest.fixture(scope="session", autouse=True)
def no_settings_of_this_shell() -> Iterator[None]:
    """Compose prefers variables of the shell to those of .env."""
    foreign = ("AIRFLOW", "XCOM_", "GCS_", "COMPOSE_", "POSTGRES_", "STORAGE_EMULATOR_HOST")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(foreign)]:
            patch.delenv(name)
        yield


def project(template: Path, folder: Path, answers: dict[str, str]) -> Path:
    """Bake a project and put the probes beside its Dags."""
    baked = bake(template, folder / "out", answers)
    assert baked.exit_code == 0, baked.said
    shutil.copy(PROBES, baked.project / "dags")
    return baked.project


@pytest.fixture(scope="session")
def local_stack(engine: None, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The default answers, started from what a colleague's clone has: no .env but the ports."""
    folder = project(template, tmp_path_factory.mktemp("local"), {"project_slug": "stack-local"})
    (folder / "airflow_settings.yaml").unlink()
    with ExitStack() as _running["local_stack"]:
        yield _running["local_stack"].enter_context(running(folder, IMPATIENT))


@pytest.fixture(scope="session")
def celery_stack(engine: None, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """CeleryExecutor with two workers, and polars."""
    answers = {"project_slug": "stack-celery", "executor": "CeleryExecutor", "dataframe_library": "polars"}
    folder = project(template, tmp_path_factory.mktemp("celery"), answers)
    with ExitStack() as _running["celery_stack"]:
        yield _running["celery_stack"].enter_context(running(folder, IMPATIENT, scale="worker=2"))
