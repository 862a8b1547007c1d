"""Projects live on: cruft creates, updates and links them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from baking import (
    BIN,
    TEMPLATE_FOLDER,
    clean_environment,
    commit_all,
    contents_of,
    git,
)
from existing_projects import ASTRO_IN_USE, adopt, lay_out


@pytest.fixture
def repository(template: Path, tmp_path: Path) -> Path:
    """The template as a git repository of its own, as cruft needs it."""
    folder = shutil.copytree(template, tmp_path / "cookiecutter-astro-gcs-xcom")
    commit_all(folder, "Publish the template")
    return folder


def cruft(home: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run cruft in a folder, without questions."""
    identity = {
        f"GIT_{who}_{what}": "tester@example.com"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    return subprocess.run(
        [BIN / "cruft", *arguments],
        cwd=folder,
        env=clean_environment(home) | identity | {"PATH": path, "GIT_CONFIG_GLOBAL": os.devnull},
        capture_output=True,
        text=True,
        check=False,
    )


def create(repository: Path, home: Path, *arguments: str) -> Path:
    """Make a project with cruft and put it under git."""
    done = cruft(home, home, "create", "--no-input", str(repository), *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    commit_all(home / "my-airflow", "Start the project")
    return home / "my-airflow"


def test_cruft_makes_the_tree_that_cookiecutter_makes(
    repository: Path, tmp_path: Path, baked_combinations: Callable[[str], Path]
) -> None:
    """One file more: cruft's own notes."""
    project = create(repository, tmp_path)
    made = contents_of(baked_combinations("3.3-local-pandas-examples"))
    theirs = {name: body for name, body in contents_of(project).items() if not name.startswith(".git/")}

    notes = json.loads(theirs.pop(".cruft.json"))
    assert notes["template"] == str(repository)
    assert theirs == made


def test_cruft_finds_a_new_project_up_to_date(repository: Path, tmp_path: Path) -> None:
    """Right after creating there is nothing to update and nothing that differs."""
    project = create(repository, tmp_path)

    assert cruft(tmp_path, project, "check").returncode == 0
    difference = cruft(tmp_path, project, "diff", "--exit-code")
    assert difference.returncode == 0
    assert "diff --git" not in difference.stdout


def test_cruft_update_brings_changes_and_keeps_own_work(repository: Path, tmp_path: Path) -> None:
    """The template's new line arrives; an edited file, a new file and answers stay."""
    project = create(repository, tmp_path)
    (project / "requirements.txt").write_text((project / "requirements.txt").read_text() + "duckdb>=1\n")
    (project / "dags/own.py").write_text("# mine\n")
    commit_all(project, "Work")
    dockerfile = repository / TEMPLATE_FOLDER / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text() + "\n# A later version of the template.\n")
    (repository / TEMPLATE_FOLDER / "include/later.py").write_text('"""New."""\n')
    commit_all(repository, "Improve the template")

    assert cruft(tmp_path, project, "check").returncode == 1
    done = cruft(tmp_path, project, "update", "--skip-apply-ask")

    assert done.returncode == 0, done.stdout + done.stderr
    assert (project / "Dockerfile").read_text().endswith("# A later version of the template.\n")
    assert (project / "include/later.py").read_text() == '"""New."""\n'
    assert (project / "requirements.txt").read_text().endswith("duckdb>=1\n")
    assert (project / "dags/own.py").read_text() == "# mine\n"
    assert list(project.rglob("*.rej")) == []
    assert cruft(tmp_path, project, "check").returncode == 0


def test_cruft_update_works_in_a_clone_without_personal_files(repository: Path, tmp_path: Path) -> None:
    """.env and airflow_settings.yaml are in nobody's clone; an update must not stumble over that."""
    project = create(repository, tmp_path)
    git(tmp_path, "clone", "--quiet", str(project), "clone")
    packages = repository / TEMPLATE_FOLDER / "packages.txt"
    packages.write_text(packages.read_text() + "# later\n")
    commit_all(repository, "Improve the template")

    done = cruft(tmp_path, tmp_path / "clone", "update", "--skip-apply-ask")

    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "clone/packages.txt").read_text().endswith("# later\n")
    assert list((tmp_path / "clone").rglob("*.rej")) == []


def test_adopted_project_can_be_linked_and_updated(template: Path, repository: Path, tmp_path: Path) -> None:
    """After `cruft link` the project gets later versions like any other, own files untouched."""
    folder = lay_out(ASTRO_IN_USE, tmp_path)
    adopt(template, folder)
    commit_all(folder, "Adopt the backend")
    context = json.dumps({"project_slug": folder.name, "include_examples": False})

    linked = cruft(tmp_path, folder, "link", "--no-input", "--extra-context", context, str(repository))
    assert linked.returncode == 0, linked.stdout + linked.stderr
    commit_all(folder, "Link to the template")
    (repository / TEMPLATE_FOLDER / "include/later.py").write_text('"""New."""\n')
    commit_all(repository, "Improve the template")
    done = cruft(tmp_path, folder, "update", "--skip-apply-ask")

    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "include/later.py").read_text() == '"""New."""\n'
    assert {name: (folder / name).read_text() for name in ASTRO_IN_USE} == ASTRO_IN_USE
