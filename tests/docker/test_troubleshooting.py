"""The troubleshooting table of the generated README, tried as a new user would meet it."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stack import Stack, allowance

# A task's own errors, which other tests meet, and what only waiting shows.
NOT_TRIED_HERE = {
    "SettingsError",
    "StoreUnavailableError",
    "PayloadMissingError",
    "ModuleNotFoundError",
    "a new Dag does not appear",
}
SMALL_BUCKET = """\
volumes:
  gcs_data:
    driver_opts: {type: tmpfs, device: tmpfs, o: size=1m}
"""
STORE = "from include.xcom.stores import own_store; own_store().put('xcom/full', [bytes(2_000_000)])"
UP = ("up", "--detach", "--wait", "--wait-timeout", "120")


@pytest.fixture
def other(local_stack: Stack, tmp_path: Path) -> Iterator[Stack]:
    """A second copy of the project, with its image and ports of its own, not started."""
    other = local_stack.copy(tmp_path / "project", "stack-trouble", with_image=True)
    try:
        yield other
    finally:
        other.remove()


def rows(project: Path) -> list[str]:
    """Return the first cell of each row: what a person sees."""
    _, table = (project / "README.md").read_text().split("## Troubleshooting\n")
    return [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines() if line.startswith("| ")][
        1:
    ]


def add_line(stack: Stack, line: str) -> None:
    """Write one more line into .env."""
    with (stack.project / ".env").open("a") as env:
        env.write(f"{line}\n")


def taken_port(stack: Stack, local_stack: Stack, variable: str, service: str) -> str:
    """Start a service on a port that the first stack has."""
    url = local_stack.airflow if variable == "AIRFLOW_PORT" else local_stack.gcs
    port = url.rsplit(":", 1)[1]
    add_line(stack, f"{variable}={port}")
    said = stack.compose("up", "--detach", "--no-deps", service, check=False)
    assert f"127.0.0.1:{port}" in said
    return said


def taken_port_of_airflow(stack: Stack, local_stack: Stack) -> str:
    return taken_port(stack, local_stack, "AIRFLOW_PORT", "api-server")


def taken_port_of_gcs(stack: Stack, local_stack: Stack) -> str:
    return taken_port(stack, local_stack, "GCS_PORT", "gcs")


def engine_not_running(stack: Stack, _: Stack) -> str:
    stack.shell["DOCKER_HOST"] = "unix:///none"
    said = stack.compose(*UP, check=False)
    stack.shell.clear()
    return said


def engine_too_old(_: Stack, __: Stack) -> str:
    """A program that speaks a later version of the engine's API than there is."""
    return run("docker", "version", DOCKER_API_VERSION="1.99")


def compose_missing(_: Stack, __: Stack) -> str:
    """What docker says to a command that it does not have."""
    return run("docker", "composeless", "up", "-d", "--build", "--wait").replace("composeless", "compose")


def not_a_port(stack: Stack, _: Stack) -> str:
    add_line(stack, "AIRFLOW_PORT=abc")
    said = stack.compose(*UP, check=False)
    (stack.project / ".env").write_text("")
    return said


def not_a_variable(stack: Stack, _: Stack) -> str:
    (stack.project / ".env").write_text("a b\n")
    said = stack.compose(*UP, check=False)
    (stack.project / ".env").write_text("")
    return said


def no_space(stack: Stack, _: Stack) -> str:
    """The words of the error that a task gets."""
    small = stack.project / "small.yml"
    small.write_text(SMALL_BUCKET)
    files = ("docker-compose.yml", "docker-compose.override.yml", small.name)
    stack.options = tuple(part for name in files for part in ("--file", name))
    stack.compose(*UP, "gcs")
    settings = (
        "--env",
        "AIRFLOW__GCS_XCOM__BUCKET=xcom-local",
        "--env",
        "AIRFLOW__GCS_XCOM__TIMEOUT_SECONDS=5",
    )
    said = stack.compose(
        "run", "--rm", "--no-deps", "-T", *settings, "scheduler", "python", "-c", STORE, check=False
    )
    assert "StoreUnavailableError" in said
    return said


def wrong_value(stack: Stack, line: str, service: str, logged: str, *, seconds: float = 90) -> str:
    """Start with a wrong value; it ends in time, and the service that the message names logs the reason."""
    # The database's volume gets the first password.
    stack.compose(*UP, "postgres")
    add_line(stack, line)
    started, allowed = time.monotonic(), seconds * allowance()
    said = stack.compose(*UP, check=False)
    assert time.monotonic() - started < allowed
    assert logged in stack.compose("logs", service)
    return said.splitlines()[-1]


def refused_by_airflow(stack: Stack, _: Stack) -> str:
    line = "AIRFLOW__LOGGING__LOGGING_LEVEL=LOUD"
    return wrong_value(stack, line, "db-migration", "`[logging] logging_level`")


def another_password(stack: Stack, _: Stack) -> str:
    return wrong_value(stack, "POSTGRES_PASSWORD=other", "db-migration", "password authentication failed")


def refused_by_one_component(stack: Stack, _: Stack) -> str:
    # Compose may look whenever the scheduler has just started again, and then waits until its time is up.
    said = 'Current value: "many"'
    return wrong_value(stack, "AIRFLOW_PARALLELISM=many", "scheduler", said, seconds=200)


# What a person does, and the beginning of the row that they find.
TRIED: list[tuple[Callable[[Stack, Stack], str], str]] = [
    (taken_port_of_airflow, "`Bind for"),
    (taken_port_of_gcs, "`Bind for"),
    (engine_not_running, "`Cannot connect"),
    (engine_too_old, "`client version"),
    (compose_missing, "`env_file.0"),
    (no_space, "`no space left"),
    (refused_by_airflow, '`service "db-migration"'),
    (another_password, '`service "db-migration"'),
    (refused_by_one_component, "`container …-scheduler-1"),
    (not_a_port, "`invalid hostPort"),
    (not_a_variable, "`invalid hostPort"),
]


@pytest.mark.parametrize(("provoke", "row"), [pytest.param(*pair, id=pair[0].__name__) for pair in TRIED])
def test_user_finds_what_is_said_in_the_table(
    provoke: Callable[[Stack, Stack], str], row: str, other: Stack, local_stack: Stack
) -> None:
    """The words of the row are in what a terminal shows; … stands for anything, ports for any port."""
    (cell,) = [cell for cell in rows(local_stack.project) if cell.startswith(row)]

    said = provoke(other, local_stack)

    words = [
        re.escape(text).replace("…", ".*").replace("8080", r"\d+") for text in re.findall("`([^`]+)`", cell)
    ]
    assert [text for text in words if re.search(text.replace("5m0s", r"\w+"), said)], f"{cell}\n{said}"


def test_every_row_is_tried_or_known(local_stack: Stack) -> None:
    """A new row needs somebody to look at what is really said."""
    beginnings = {row for _, row in TRIED}
    left = [cell for cell in rows(local_stack.project) if not cell.startswith(tuple(beginnings))]

    assert len(left) == len(NOT_TRIED_HERE)
    assert [cell for cell in left if not any(name in cell for name in NOT_TRIED_HERE)] == []


def run(*command: str, **environment: str) -> str:
    """Run a program as a person would and return all that it prints."""
    done = subprocess.run(
        command,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout
