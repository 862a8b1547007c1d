"""The override in a stack as `astro dev start` has it, in a colleague's clone: without .env."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from baking import REPOSITORY
from stack import PASSED, Stack, eventually, free_port, is_reachable, report


@pytest.fixture
def cli_stack(local_stack: Stack, tmp_path: Path) -> Iterator[Stack]:
    """The same project and image, another base, and variables of the shell only."""
    project = local_stack.copy(tmp_path / "project", "unused", with_image=False).project
    for name in (".env", "docker-compose.yml"):
        (project / name).unlink()
    airflow_port, gcs_port = free_port(), free_port()
    files = ("--file", str(REPOSITORY / "tests/astro_base.yml"), "--file", "docker-compose.override.yml")
    stack = Stack(
        project,
        f"stack-cli-{uuid.uuid4().hex[:8]}",
        f"http://127.0.0.1:{airflow_port}",
        f"http://127.0.0.1:{gcs_port}",
        options=("--env-file", os.devnull, "--project-directory", str(project), *files),
        shell={"ASTRO_IMAGE": local_stack.image, "ASTRO_PORT": str(airflow_port), "GCS_PORT": str(gcs_port)},
    )
    try:
        stack.compose("up", "--detach")
        health = f"{stack.airflow}/api/v2/monitor/health"
        try:
            eventually(lambda: is_reachable(health), seconds=180, what="an answer of the API server")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{report(stack)}") from None
        yield stack
    finally:
        stack.remove()


def test_payload_passes_in_the_stack_of_the_cli(cli_stack: Stack) -> None:
    """The value comes back right, and lies in the bucket of the override."""
    run = cli_stack.trigger("probe_pass").wait()

    assert not (cli_stack.project / ".env").exists()
    assert run.state == "success"
    assert run.xcom("consume") == PASSED
    objects = cli_stack.objects(f"xcom/probe_pass/{run.run_id}/")
    assert objects == {run.object_name("produce"): 200_000 // 64 * 64}
