"""The image: what is in it, and what a change of a Dag costs."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from stack import Stack, allowance

# Of people, of machines, and of what is not run in the image.
NOT_IN_THE_IMAGE = (
    ".DS_Store",
    ".airflow/airflow.cfg",
    ".astro/standalone/state",
    ".env",
    ".env.production",
    ".git/config",
    ".github/workflows/ci.yml",
    ".hypothesis/examples",
    ".mypy_cache/3.13",
    ".pytest_cache/README.md",
    ".ruff_cache/CACHEDIR.TAG",
    ".venv/bin/python",
    "airflow.db",
    "airflow_settings.yaml",
    "compose.dev.yml",
    "compose.yaml",
    "dags/.DS_Store",
    "dags/__pycache__/probe.pyc",
    "docker-compose.prod.yaml",
    "include/xcom/__pycache__/probe.pyc",
    "logs/scheduler.log",
)
# In all of them; a line that .env may have.
MARK = "NOT_FOR_THE_IMAGE=yes"
# In the project's folder there, besides what the image of Astronomer has itself.
IN_THE_IMAGE = {
    ".astro",
    ".dockerignore",
    "Dockerfile",
    "airflow_local_settings.py",
    "dags",
    "include",
    "packages.txt",
    "plugins",
    "pyproject.toml",
    "requirements.txt",
    "tests",
}


@pytest.fixture
def other(local_stack: Stack, tmp_path: Path) -> Iterator[Stack]:
    """A copy of the project in which everything lies that must not get into the image."""
    other = local_stack.copy(tmp_path / "project", "stack-rebuild", with_image=False)
    # Named, since compose would take the compose.yaml of the list.
    other.options = ("--file", "docker-compose.yml", "--file", "docker-compose.override.yml")
    for name in NOT_IN_THE_IMAGE:
        path = other.project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{MARK}\n")
    try:
        yield other
    finally:
        other.remove()


def test_change_of_a_dag_rebuilds_the_last_layer_only(other: Stack) -> None:
    """In seconds: packages are not installed again. And nothing of this machine gets in."""
    # A first start without --build makes the image as well, and asks no registry for it.
    said = other.compose("up", "--no-start")
    assert "Pulling" not in said
    before = layers(other.image)
    with (other.project / "dags/stack_probes.py").open("a") as dag:
        dag.write("# One line more.\n")

    started, allowed = time.monotonic(), 30 * allowance()
    other.compose("build")
    seconds = time.monotonic() - started

    after = layers(other.image)
    print(f"build after a change of a Dag: {seconds:.1f} s")
    assert len(after) == len(before)
    assert [old == new for old, new in zip(before, after, strict=True)] == [True] * (len(before) - 1) + [
        False
    ]
    assert seconds < allowed
    (from_line, *_) = (other.project / "Dockerfile").read_text().splitlines()
    of_the_base = listed(from_line.removeprefix("FROM "), "ls", "-A")
    assert listed(other.image, "ls", "-A") - of_the_base == IN_THE_IMAGE - of_the_base
    everything = listed(other.image, "grep", "-rlx", MARK, ".")
    assert everything == set()


def layers(image: str) -> list[str]:
    """List the layers of an image."""
    command = ["docker", "image", "inspect", "--format", "{{json .RootFS.Layers}}", image]
    found: list[str] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


def listed(image: str, program: str, *arguments: str) -> set[str]:
    """Run a program in an image's folder of the project and return the lines that it prints."""
    command = ["docker", "run", "--rm", "--workdir", "/usr/local/airflow", "--entrypoint", program]
    done = subprocess.run([*command, image, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return set(done.stdout.splitlines())
