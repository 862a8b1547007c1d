"""Projects live on: cruft creates, updates and links them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from baking import (
    BIN,
    TEMPLATE_FOLDER,
    bake,
    clean_environment,
    commit_all,
    contents_of,
    git,
)
from existing_projects import TREES, adopt, lay_out

VERSION_FILE = "include/xcom/__init__.py"


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


def release(repository: Path, version: str) -> None:
    """Set the version of the template, commit, and tag it as a release is tagged."""
    path = repository / TEMPLATE_FOLDER / VERSION_FILE
    text = re.sub(r'(?m)^__version__ = ".*"$', f'__version__ = "{version}"', path.read_text())
    path.write_text(text)
    (repository / TEMPLATE_FOLDER / "include/released.py").write_text(f'"""New in {version}."""\n')
    commit_all(repository, f"Release {version}")
    git(repository, "tag", f"v{version}")


def version_of(project: Path) -> str:
    """Return the version that a project says it has."""
    (version,) = re.findall(r'(?m)^__version__ = "(.*)"$', (project / VERSION_FILE).read_text())
    return str(version)


@pytest.fixture
def releases(repository: Path) -> Path:
    """The template with two releases, and something that is not released yet."""
    release(repository, "1.0.0")
    release(repository, "1.0.1")
    (repository / TEMPLATE_FOLDER / "include/unreleased.py").write_text('"""New."""\n')
    commit_all(repository, "Go on")
    return repository


def test_project_of_a_release_is_made_by_cookiecutter_and_by_cruft(releases: Path, tmp_path: Path) -> None:
    """``--checkout`` takes the tag, not what came after it, and both make the same files."""
    baked = bake(f"git+file://{releases}", tmp_path / "baked", {}, "--checkout", "v1.0.0")
    made = create(releases, tmp_path, "--checkout", "v1.0.0")

    assert baked.exit_code == 0, baked.said
    assert version_of(baked.project) == version_of(made) == "1.0.0"
    assert not (made / "include/unreleased.py").exists()
    of_cruft = {name: body for name, body in contents_of(made).items() if not name.startswith(".git/")}
    del of_cruft[".cruft.json"]
    assert of_cruft == contents_of(baked.project)


def test_project_of_a_release_is_updated_to_the_release_that_is_named(releases: Path, tmp_path: Path) -> None:
    """Its own changes nothing, the next brings what is in it and no more; own work stays."""
    project = create(releases, tmp_path, "--checkout", "v1.0.0")
    (project / "dags/own.py").write_text("# mine\n")
    commit_all(project, "Work")

    stayed = cruft(tmp_path, project, "update", "--checkout", "v1.0.0", "--skip-apply-ask")
    assert stayed.returncode == 0, stayed.stdout + stayed.stderr
    assert git(project, "status", "--porcelain") == ""
    done = cruft(tmp_path, project, "update", "--checkout", "v1.0.1", "--skip-apply-ask")

    assert done.returncode == 0, done.stdout + done.stderr
    assert version_of(project) == "1.0.1"
    assert (project / "include/released.py").read_text() == '"""New in 1.0.1."""\n'
    assert not (project / "include/unreleased.py").exists()
    assert (project / "dags/own.py").read_text() == "# mine\n"
    assert list(project.rglob("*.rej")) == []
    assert cruft(tmp_path, project, "check", "--checkout", "v1.0.1").returncode == 0


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


# What people edit in each file, and what a later template changes in it.
EDITED = {
    "Dockerfile": ("USER root\nRUN install-our-certificate\nUSER astro\n", "# later\n"),
    "requirements.txt": ("duckdb>=1\n", "# later\n"),
    "docker-compose.override.yml": ("  mine: {}\n", "# later\n"),
    "dags/example_records.py": ("# mine\n", "# later\n"),
    "README.md": ("\n## Ours\n", "<!-- later -->\n"),
}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="cruft reads pyproject.toml from Python 3.11 on")
def test_cruft_update_merges_into_files_that_people_edit(repository: Path, tmp_path: Path) -> None:
    """Their lines at the end, the template's at the beginning: both are there, and nothing is rejected.

    The template changes .env too, which people's git ignores: theirs stays, and the rest arrives all the same.
    """
    project = create(repository, tmp_path)
    (project / ".env").write_text("AIRFLOW_PORT=8099\nSECRET_OF_MINE=1\n")
    for name, (mine, _) in EDITED.items():
        (project / name).write_text((project / name).read_text() + mine)
    (project / "dags/own.py").write_text("# mine\n")
    (project / "dags/example_arrays.py").unlink()
    commit_all(project, "Work")
    assert ".env" not in git(project, "ls-files").split()
    for name, (_, later) in EDITED.items():
        path = repository / TEMPLATE_FOLDER / name
        if not path.exists():
            (path,) = path.parent.glob(f"*%}}{path.name}{{%*")
        first, _, rest = path.read_text().partition("\n")
        path.write_text(f"{first}\n{later}{rest}")
    environment = repository / TEMPLATE_FOLDER / ".env"
    environment.write_text(environment.read_text() + "LATER=1\n")
    commit_all(repository, "Improve the template")

    done = cruft(tmp_path, project, "update", "--skip-apply-ask")

    assert done.returncode == 0, done.stdout + done.stderr
    for name, (mine, later) in EDITED.items():
        text = (project / name).read_text()
        assert text.endswith(mine), name
        assert text.partition("\n")[2].startswith(later), name
    assert (project / ".env").read_text() == "AIRFLOW_PORT=8099\nSECRET_OF_MINE=1\n"
    assert (project / "dags/own.py").read_text() == "# mine\n"
    assert not (project / "dags/example_arrays.py").exists()
    assert list(project.rglob("*.rej")) == []
    assert "<<<<<<<" not in git(project, "diff")
    assert cruft(tmp_path, project, "check").returncode == 0


def test_cruft_update_that_meets_the_same_line_leaves_the_choice(repository: Path, tmp_path: Path) -> None:
    """A conflict as in any merge of git, in that file alone; the rest of the update is there."""
    project = create(repository, tmp_path)
    dockerfile = project / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text().replace("runtime:3.3-8", "runtime:3.3-9"))
    commit_all(project, "Take a newer image")
    theirs = repository / TEMPLATE_FOLDER / "Dockerfile"
    _, _, rest = theirs.read_text().partition("\n")
    theirs.write_text(f"FROM astrocrpublic.azurecr.io/runtime:3.4-1\n{rest}")
    (repository / TEMPLATE_FOLDER / "include/later.py").write_text('"""New."""\n')
    commit_all(repository, "Improve the template")

    cruft(tmp_path, project, "update", "--skip-apply-ask")

    assert git(project, "diff", "--name-only", "--diff-filter=U").split() == ["Dockerfile"]
    assert "runtime:3.3-9" in dockerfile.read_text()
    assert "runtime:3.4-1" in dockerfile.read_text()
    assert (project / "include/later.py").exists()


def test_cruft_update_can_change_an_answer(repository: Path, tmp_path: Path) -> None:
    """A workflow and workers for a project that was made without; files of the old answers go."""
    project = create(repository, tmp_path)
    answers = {"ci": "github", "executor": "CeleryExecutor", "include_examples": False}
    context = json.dumps(answers)

    done = cruft(
        tmp_path,
        project,
        "update",
        "--skip-apply-ask",
        "--variables-to-update",
        context,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert (project / ".github/workflows/ci.yml").exists()
    assert "\n  worker:\n" in (project / "docker-compose.yml").read_text()
    assert not (project / "dags/example_records.py").exists()


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_adopted_project_can_be_linked_and_updated(
    tree: dict[str, str], template: Path, repository: Path, tmp_path: Path
) -> None:
    """After `cruft link` the project gets later versions like any other, own files untouched, .env too.

    Also files that the template changes and that were there before it: their text is not the template's,
    so git cannot merge them, says so in a .rej file beside each, and leaves them as they are.
    """
    folder = lay_out(tree, tmp_path)
    adopt(template, folder)
    commit_all(folder, "Adopt the backend")
    context = json.dumps({"project_slug": folder.name, "include_examples": False})

    linked = cruft(tmp_path, folder, "link", "--no-input", "--extra-context", context, str(repository))
    assert linked.returncode == 0, linked.stdout + linked.stderr
    if "pyproject.toml" in tree or sys.version_info < (3, 11):
        # As adopt.md says: the template's own list is in a file that this project has not taken.
        notes = json.loads((folder / ".cruft.json").read_text())
        (folder / ".cruft.json").write_text(json.dumps(notes | {"skip": [".env"]}))
    commit_all(folder, "Link to the template")
    assert ".env" not in git(folder, "ls-files").split()
    kept = (folder / ".env").read_text()
    (repository / TEMPLATE_FOLDER / "include/later.py").write_text('"""New."""\n')
    environment = repository / TEMPLATE_FOLDER / ".env"
    environment.write_text(environment.read_text() + "LATER=1\n")
    commit_all(repository, "Improve the template")
    done = cruft(tmp_path, folder, "update", "--skip-apply-ask")

    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "include/later.py").read_text() == '"""New."""\n'
    assert (folder / ".env").read_text() == kept
    assert {name: (folder / name).read_text() for name in tree} == tree
    assert list(folder.rglob("*.rej")) == []

    commit_all(folder, "Update")
    requirements = repository / TEMPLATE_FOLDER / "requirements.txt"
    requirements.write_text(requirements.read_text().replace("orjson>=3.11", "orjson>=3.12"))
    settings = repository / TEMPLATE_FOLDER / "include/xcom/settings.py"
    settings.write_text(settings.read_text() + "\n# later\n")
    commit_all(repository, "Need a newer orjson")
    done = cruft(tmp_path, folder, "update", "--skip-apply-ask")

    assert (folder / "include/xcom/settings.py").read_text().endswith("# later\n")
    assert (folder / "requirements.txt").read_text() == tree["requirements.txt"]
    assert [path.name for path in folder.rglob("*.rej")] == ["requirements.txt.rej"]
