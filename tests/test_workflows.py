"""Workflows of this repository and of generated projects: actionlint reads them, and they name real things."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import go_tools
import pytest
import yaml
from baking import REPOSITORY

ACTIONLINT = ("actionlint", "1.7.12", "github.com/rhysd/actionlint/cmd/actionlint")
USES = re.compile(r"^\s*-?\s*uses:\s*(.*)$", re.MULTILINE)


@pytest.fixture(params=["template", "project"])
def folder(request: pytest.FixtureRequest, baked_combinations: Callable[[str], Path]) -> Path:
    """What has a folder .github: this repository, and a project that was asked for one."""
    return REPOSITORY if request.param == "template" else baked_combinations("3.2-local-polars-examples")


def workflow_of(folder: Path) -> Path:
    """Its one workflow."""
    (path,) = (folder / ".github/workflows").iterdir()
    return path


def test_actionlint_finds_nothing(folder: Path) -> None:
    """Syntax, expressions, names of runners and inputs, keys that GitHub does not know."""
    name, version, package = ACTIONLINT
    found = shutil.which(name) or go_tools.cached(name, version) or go_tools.built(*ACTIONLINT)
    if not found:
        pytest.skip(f"{name} is not on PATH, and `go install {package}@v{version}` is not possible here")

    done = subprocess.run(
        [found, "-no-color", "-shellcheck=", "-pyflakes=", workflow_of(folder)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_actions_are_pinned_by_commit(folder: Path) -> None:
    """A tag can be moved to other code; the comment tells people and Dependabot the version."""
    used = USES.findall(workflow_of(folder).read_text())

    assert used
    for action in used:
        assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


def test_both_workflows_have_the_same_pins(baked_combinations: Callable[[str], Path]) -> None:
    """Dependabot raises those of this repository only."""
    ours = set(USES.findall(workflow_of(REPOSITORY).read_text()))
    theirs = set(USES.findall(workflow_of(baked_combinations("3.2-local-polars-examples")).read_text()))

    assert theirs <= ours


def test_jobs_may_read_only_and_end(folder: Path) -> None:
    """No token that writes, no secret, no credentials left in the checkout, a limit of time for each job."""
    text = workflow_of(folder).read_text()
    workflow = yaml.safe_load(text)

    assert workflow["permissions"] == {"contents": "read"}
    assert "secrets." not in text
    assert "pull_request_target" not in text
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        assert job["timeout-minutes"] <= 90
        checkout = next(step for step in job["steps"] if "checkout" in step.get("uses", ""))
        assert checkout["with"]["persist-credentials"] is False


def test_commands_of_the_template_s_workflow_exist() -> None:
    """Every target is one of the Makefile, every file and marker is there, all Pythons are tried."""
    text = workflow_of(REPOSITORY).read_text()
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    settings = (REPOSITORY / "pyproject.toml").read_text()

    assert set(re.findall(r"make ([a-z-]+)", text)) <= targets
    for path in re.findall(r"\btests/[\w./]+", text):
        assert (REPOSITORY / path).exists(), path
    for marker in re.findall(r"not (\w+)", " ".join(re.findall(r"-m '(.*?)'", text))):
        assert f'"{marker}: ' in settings, marker
    matrix = yaml.safe_load(text)["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python"] == ["3.10", "3.11", "3.12", "3.13", "3.14"]


def test_commands_of_the_project_s_workflow_are_those_of_its_readme(
    baked_combinations: Callable[[str], Path],
) -> None:
    """What CI runs is what people are told to run, by the Python of the image."""
    project = baked_combinations("3.2-local-polars-examples")
    readme = (project / "README.md").read_text()
    jobs = yaml.safe_load(workflow_of(project).read_text())["jobs"]

    commands = [step["run"] for step in jobs["test"]["steps"] if "run" in step]
    assert len(commands) == 4
    for command in commands:
        assert command in readme, command
    (python,) = (step["with"]["python-version"] for step in jobs["test"]["steps"] if "setup" in str(step))
    assert f"the image has {python}." in readme


@pytest.mark.parametrize("where", ["template", "project"])
def test_dependabot_looks_at_files_that_exist(where: str, baked_combinations: Callable[[str], Path]) -> None:
    """A folder or kind of file that is not there would be an error in every run."""
    folder = REPOSITORY if where == "template" else baked_combinations("3.2-local-polars-examples")
    settings = yaml.safe_load((folder / ".github/dependabot.yml").read_text())
    needed = {
        "github-actions": ".github/workflows/*.yml",
        "pip": "*.txt",
        "docker": "Dockerfile",
        "docker-compose": "docker-compose.yml",
    }

    assert settings["version"] == 2
    for update in settings["updates"]:
        for place in update.get("directories", [update.get("directory")]):
            assert list((folder / place.strip("/")).glob(needed[update["package-ecosystem"]])), update


def test_project_without_workflow_has_no_empty_folder(baked_combinations: Callable[[str], Path]) -> None:
    """The folder's name cannot depend on the answer, so the hook removes it."""
    assert not (baked_combinations("3.3-local-pandas-examples") / ".github").exists()
