"""Linters find nothing in the template and in what it generates, and would find it if there were something."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from baking import REPOSITORY, TEMPLATE_FOLDER, commit_all, export

WITH_WORKFLOW, WITHOUT = "3.3-celery-polars-bare", "3.3-local-pandas-examples"


def clone(folder: Path) -> Path:
    """Return a repository of its own."""
    repository = export(folder / "repository")
    commit_all(repository, "Start")
    return repository


def check(repository: Path, *names: str) -> subprocess.CompletedProcess[str]:
    """Run the script of a checkout."""
    command = [sys.executable, str(repository / "scripts/check-bakes"), *names]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_linters_find_nothing() -> None:
    """In the template, and in two projects that have every kind of file."""
    done = check(REPOSITORY, WITH_WORKFLOW, WITHOUT)

    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 3 * 6


# What is added to a file of the template, and what its tool says of it.
WORKFLOW = ".github/workflows/{% if cookiecutter.ci == 'github' %}ci.yml{% endif %}"
MISTAKES = {
    "hadolint": ("Dockerfile", "RUN cd /tmp && make\n", "DL3003"),
    "yamllint": ("docker-compose.override.yml", "a:   1\n", "too many spaces"),
    "codespell": ("packages.txt", "# \x74eh list\n", "==> the"),
    "shellcheck": ("deploy/start", "#!/bin/sh\nrm -r $1/\n", "SC2086"),
    "zizmor": (
        WORKFLOW,
        "      - run: echo ${{ '{{' }} github.head_ref {{ '}}' }}\n",
        "template-injection",
    ),
    "sp-repo-review": ("pyproject.toml", "[tool.mypy]\nstrict = false\n", "MY103"),
}


def test_mistakes_in_generated_files_are_found(tmp_path: Path) -> None:
    """Each tool reads the files that it should."""
    repository = clone(tmp_path)
    for name, text, _ in MISTAKES.values():
        path = repository / TEMPLATE_FOLDER / name
        path.write_text((path.read_text() if path.exists() else "") + text)

    done = check(repository, WITH_WORKFLOW)

    assert done.returncode == 1, done.stderr
    for tool, (_, _, said) in MISTAKES.items():
        ((findings, text),) = re.findall(
            rf"^{WITH_WORKFLOW} +{tool} +(\d+)\n((?:    .*\n)*)", done.stdout, re.MULTILINE
        )
        assert int(findings) > 0, tool
        assert said in text, tool


def test_page_of_the_exceptions_is_current(tmp_path: Path) -> None:
    """Written by the script."""
    repository = clone(tmp_path)
    page = repository / "docs/reference/checks.md"
    before = page.read_text()
    page.unlink()

    assert check(repository, "--table").returncode == 0
    assert page.read_text() == before
