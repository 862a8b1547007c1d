"""Is there a container engine, and what happens to a test where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import NoReturn

import pytest

__all__ = ["compose_refusal", "engine_refusal", "give_up"]

REQUIRED = "REQUIRE_DOCKER"


def give_up(reason: str) -> NoReturn:
    """Skip the test that asks; where ``REQUIRE_DOCKER`` is set, as in CI, fail it."""
    if os.environ.get(REQUIRED):
        pytest.fail(f"{reason}; {REQUIRED} is set, so nothing may be skipped over this", pytrace=False)
    pytest.skip(reason)


def engine_refusal() -> str:
    """Say why no container can be started, in the daemon's words; empty where one can."""
    if not shutil.which("docker"):
        return "no container engine: `docker` is not installed"
    # Not `docker info`: it prints a page, and its last line is never the reason.
    command = ["docker", "version", "--format", "{{.Server.Version}}"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        said = " ".join((answer.stderr.strip() or answer.stdout.strip()).split())
        return f"no container engine answers: {said}"
    return compose_refusal()


def compose_refusal() -> str:
    """Say why `docker compose` cannot be called, which needs no engine; empty where it can."""
    command = ["docker", "compose", "version"]
    if not shutil.which("docker") or subprocess.run(command, capture_output=True, check=False).returncode:
        return "`docker compose` is not installed"
    return ""
