"""Two stacks of two projects, started once each, and reports of what their services said."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from baking import bake
from engine import engine_refusal, give_up
from stack import Stack, allowance, report, running

PROBES = Path(__file__).parent / "dags" / "stack_probes.py"

# Failures show themselves in seconds, not in minutes.
IMPATIENT = {
    "AIRFLOW__GCS_XCOM__TIMEOUT_SECONDS": "5",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
}

# What all tests of this folder may take together, on a machine that does nothing else.
LIMIT_SECONDS = 20 * 60
_spent: list[float] = []
_allowed: list[float] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this folder, and run it last: the stacks take the machine for themselves."""
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in here:
        item.add_marker("docker")
    items[:] = [item for item in items if item not in here] + here


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach what the stacks say to the report of a test that failed, or of its fixtures."""
    outcome = yield
    _spent.append(outcome.duration)
    if outcome.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, Stack):
                outcome.sections.append((f"services of {name}", report(value)))
    return outcome


def pytest_runtest_setup() -> None:
    """Remember how busy others keep the machine before the first stack does."""
    if not _allowed:
        _allowed.append(LIMIT_SECONDS * allowance())


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run whose container tests take too long together, however green they are."""
    if _allowed and sum(_spent) > _allowed[0]:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what they took."""
    if _allowed:
        is_late = sum(_spent) > _allowed[0]
        terminalreporter.line(
            f"tests with containers: {sum(_spent):.0f} s, {'MORE THAN' if is_late else 'of'} {_allowed[0]:.0f} s",
            red=is_late,
        )


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
    with running(folder, IMPATIENT) as stack:
        yield stack


@pytest.fixture(scope="session")
def celery_stack(engine: None, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """CeleryExecutor with two workers, and polars."""
    answers = {"project_slug": "stack-celery", "executor": "CeleryExecutor", "dataframe_library": "polars"}
    folder = project(template, tmp_path_factory.mktemp("celery"), answers)
    with running(folder, IMPATIENT, scale="worker=2") as stack:
        yield stack
