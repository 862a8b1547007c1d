"""The tests with containers: they run where they must, and tell what the services said."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from baking import REPOSITORY
from stack import Stack

TIER = REPOSITORY / "tests" / "docker"

# A folder of tests with the hooks of tests/docker and, in place of a stack, something that answers like one.
CONFTEST = f"""
import importlib.util
import json
from pathlib import Path
import pytest
from stack import Stack

spec = importlib.util.spec_from_file_location("tier", {str(TIER / "conftest.py")!r})
tier = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tier)
pytest_runtest_makereport = tier.pytest_runtest_makereport

class Answers(Stack):
    def compose(self, *arguments, check=True):
        if arguments[0] == "ps":
            well = {{"Name": "stub-gcs-1", "Health": "healthy", "State": "running"}}
            unwell = {{"Name": "stub-scheduler-1", "Health": "unhealthy", "State": "running"}}
            return json.dumps(well) + chr(10) + json.dumps(unwell)
        return "words of " + arguments[-1]

    def call(self, method, path, body=None):
        task = {{"dag_id": "d", "dag_run_id": "r", "task_id": "t", "map_index": -1, "try_number": 2}}
        return {{"content": ["asked for " + path], "task_instances": [task]}}

class Broken(Answers):
    def compose(self, *arguments, check=True):
        raise FileNotFoundError("docker is gone")

@pytest.fixture(scope="session")
def stack():
    return Answers(Path(), "stub", "", "")

@pytest.fixture
def broken():
    return Broken(Path(), "stub", "", "")

@pytest.fixture(scope="module")
def run(stack):
    raise RuntimeError("the run did not start")
"""


def child(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Run pytest as a program and return its exit code and what it printed."""
    command = [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", *arguments]
    kept = {name: value for name, value in os.environ.items() if name != "REQUIRE_DOCKER"}
    paths = {"PYTHONPATH": str(REPOSITORY / "tests")}
    done = subprocess.run(
        command,
        cwd=folder,
        env=kept | paths | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def reported(tmp_path: Path, test: str) -> tuple[int, str]:
    """Run one test with the hooks of the tier."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(test)
    return child(tmp_path, "-c", os.devnull, "--rootdir", ".", "test_it.py")


@pytest.mark.usefixtures("compose")
def test_without_an_engine_the_tier_is_skipped_with_the_reason_of_docker() -> None:
    """A person reads what docker itself says, not the last line of a page."""
    code, said = child(REPOSITORY, str(TIER / "test_workers.py"), DOCKER_HOST="unix:///none")

    assert code == 0
    assert re.search(r"SKIPPED \[\d\].*no container engine answers: .*(connect|find).*unix:///none", said)


@pytest.mark.usefixtures("compose")
def test_where_it_is_required_the_tier_fails_without_an_engine() -> None:
    """A green run of CI has run it."""
    code, said = child(
        REPOSITORY, str(TIER / "test_workers.py"), DOCKER_HOST="unix:///none", REQUIRE_DOCKER="1"
    )

    assert code == 1
    assert re.search(r"no container engine answers: .*unix:///none.*REQUIRE_DOCKER is set", said)
    assert "SKIPPED" not in said


def test_where_it_is_required_compose_must_be_there(tmp_path: Path) -> None:
    """The tests of the compose files need no engine, but the program."""
    one = "tests/test_compose_config.py::test_two_copies_share_nothing"
    skipped = child(REPOSITORY, one, PATH=str(tmp_path))
    failed = child(REPOSITORY, one, PATH=str(tmp_path), REQUIRE_DOCKER="1")

    assert (skipped[0], failed[0]) == (0, 1)
    assert "`docker compose` is not installed" in skipped[1]
    assert "`docker compose` is not installed; REQUIRE_DOCKER is set" in failed[1]


def test_ci_requires_the_tier() -> None:
    """Both places that run it, and no test of it skips in another way."""
    workflow = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text())
    ci = (REPOSITORY / ".ci/run").read_text()

    assert workflow["jobs"]["containers"]["env"]["REQUIRE_DOCKER"] == "1"
    assert "export REQUIRE_DOCKER=1\n" in ci.partition("\nmake test\n")[0]
    for path in (*TIER.glob("*.py"), REPOSITORY / "tests/conftest.py", REPOSITORY / "tests/stack.py"):
        assert not re.search(r"pytest\.skip\(|mark\.skip|importorskip", path.read_text()), path


def test_failure_in_a_test_shows_states_and_logs(tmp_path: Path) -> None:
    """The unwell service first, and the log of the task that failed."""
    code, said = reported(tmp_path, "def test_it(stack):\n    assert stack is None\n")

    assert code == 1
    assert "services of stack" in said
    assert "scheduler-1: unhealthy" in said
    assert said.index("words of scheduler") < said.index("words of gcs")
    assert "----- task d.t[-1], try 2" in said
    assert "asked for /dags/d/dagRuns/r/taskInstances/t/logs/2?map_index=-1" in said


def test_failure_in_a_fixture_shows_them_too(tmp_path: Path) -> None:
    """Most of what waits for a stack waits in fixtures."""
    code, said = reported(tmp_path, "def test_it(run):\n    pass\n")

    assert code == 1
    assert "the run did not start" in said
    assert "words of scheduler" in said


def test_failure_is_shown_when_there_is_no_report(tmp_path: Path) -> None:
    """The reason why not stands where the report would, and the failure above it."""
    code, said = reported(tmp_path, "def test_it(broken):\n    assert 'mine' == 'yours'\n")

    assert code == 1
    assert "'mine' == 'yours'" in said
    assert "states: not available: FileNotFoundError: docker is gone" in said
    assert "asked for /dags/d/dagRuns/r/taskInstances/t/logs/2" in said
    assert "INTERNALERROR" not in said


def test_command_that_hangs_is_reported_with_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a failure, so that the logs of the services follow."""
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho half a sentence\nexec sleep 60\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    stack = Stack(tmp_path, "stub", "", "", seconds_per_command=1)

    with pytest.raises(AssertionError, match=r"docker compose up --wait: no end after 1 s:\nhalf a sentence"):
        stack.compose("up", "--wait")
