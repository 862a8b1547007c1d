"""Every generated file can be read by what reads it, on every system, from every checkout."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from baking import COMBINATIONS, REPOSITORY, TEMPLATE_FOLDER, bake, commit_all, export, files_of, git
from generated_files import NOT_CLONED, expected_files
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ALREADY_MADE = "3.3-celery-polars-bare"


def test_questions_are_few_and_all_explained() -> None:
    """At most ten, and each has a sentence; a choice has one for every option."""
    template = json.loads((REPOSITORY / "cookiecutter.json").read_text())
    asked = {name: value for name, value in template.items() if not name.startswith("_")}
    prompts = template["__prompts__"]

    assert len(asked) <= 10
    assert list(prompts) == list(asked)
    for name, value in asked.items():
        explained = prompts[name] if isinstance(value, list) else {"__prompt__": prompts[name]}
        assert set(explained) == {"__prompt__", *(value if isinstance(value, list) else [])}
        assert all(isinstance(text, str) and len(text) >= 6 for text in explained.values())


def test_no_jinja_is_left_in_any_file(project: Path) -> None:
    """Neither in a name nor in a text. GitHub's own expressions have a dollar in front."""
    left = {
        name: found
        for name in files_of(project)
        if (found := re.findall(r"(?<!\$)\{\{|\{%|\{#|cookiecutter\.", name + (project / name).read_text()))
        and name != "README.md"
    }

    assert left == {}
    assert not re.search(r"\{\{|\{%|cookiecutter\.", (project / "README.md").read_text())


def test_python_files_compile(project: Path) -> None:
    """On the oldest Python of the supported images' grammar."""
    names = [name for name in files_of(project) if name.endswith(".py")]

    assert len(names) > 20
    for name in names:
        ast.parse((project / name).read_text(), filename=name, feature_version=(3, 10))


def test_python_in_the_template_has_no_jinja() -> None:
    """It is linted, type-checked and tested where it lies."""
    folder = REPOSITORY / TEMPLATE_FOLDER
    for path in folder.rglob("*.py*"):
        if path.suffix == ".py" or path.name.endswith(".py{% endif %}"):
            assert not re.search(r"\{\{|\{%|\{#", path.read_text()), path


def test_yaml_and_toml_files_parse(project: Path) -> None:
    """All of them, into what their readers expect at the top: a mapping."""
    names = [name for name in files_of(project) if name.endswith((".yml", ".yaml"))]

    assert {"docker-compose.yml", "docker-compose.override.yml", ".astro/config.yaml"} < set(names)
    for name in names:
        assert isinstance(yaml.safe_load((project / name).read_text()), dict), name
    for name in (name for name in files_of(project) if name.endswith(".toml")):
        assert tomllib.loads((project / name).read_text()), name


def test_env_file_means_the_same_to_every_reader(project: Path) -> None:
    """Compose, the Astro CLI and shells differ in quotes, comments and expansion: plain lines only."""
    for line in (project / ".env").read_text().splitlines():
        assert re.fullmatch(r"[A-Z][A-Z0-9_]*=[A-Za-z0-9._:/-]+", line), line


def test_dockerfile_starts_with_a_literal_from_and_sets_the_backend(project: Path) -> None:
    """The Astro CLI reads the image's tag from the first line; the classes must be named in the image."""
    lines = [line for line in (project / "Dockerfile").read_text().splitlines() if line and line[0] != "#"]

    assert re.fullmatch(r"FROM astrocrpublic\.azurecr\.io/runtime:\d+\.\d+-\d+", lines[0])
    assert lines[1:] == [
        "ENV AIRFLOW__CORE__XCOM_BACKEND=include.xcom_backend.GCPBucketXComBackend",
        "ENV AIRFLOW__WORKERS__STATE_STORE_BACKEND=include.state_backend.GCSStateBackend",
    ]
    assert (project / "Dockerfile").read_text().startswith("FROM ")


def test_named_backend_classes_exist(project: Path) -> None:
    """What the Dockerfile names is defined in the files that it points to."""
    for file, name in (("xcom_backend.py", "GCPBucketXComBackend"), ("state_backend.py", "GCSStateBackend")):
        module = ast.parse((project / "include" / file).read_text())

        assert name in [node.name for node in module.body if isinstance(node, ast.ClassDef)]


def test_every_requirement_has_a_lower_bound(project: Path) -> None:
    """A resolver without bounds may choose versions from years ago."""
    for name in ("requirements.txt", "requirements-dev.txt"):
        for line in (project / name).read_text().splitlines():
            if line and not line.startswith(("#", "-r ")):
                operators = {specifier.operator for specifier in Requirement(line).specifier}
                # Airflow has lower bounds for what is only held back.
                assert operators & {">=", "=="} or operators == {"<"}, line


def test_third_party_imports_are_required(project: Path) -> None:
    """What the backend imports is in requirements.txt or comes with Airflow itself."""
    required = (project / "requirements.txt").read_text()
    imported: set[str] = set()
    for path in (project / "include").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.split(".")[0])
    # What every Airflow brings, and what is asked for only where it is installed.
    airflows = {
        "airflow",
        "dateutil",
        "fastapi",
        "fsspec",
        "httpx",
        "jinja2",
        "markupsafe",
        "packaging",
        "pendulum",
        "pydantic_core",
        "pydantic",
        "rich",
        "sqlalchemy",
        "starlette",
        "structlog",
    }
    elsewhere = airflows | {"include", "pandas", "polars", "pytz"}
    foreign = imported - set(sys.stdlib_module_names) - elsewhere
    packages = {"google": "google-auth", "google_crc32c": "google-crc32c"}
    assert {name for name in foreign if packages.get(name, name) not in required} == set()


def test_shell_commands_of_the_makefile_and_scripts_are_plain() -> None:
    """No address of an index or of a machine in anything that installs."""
    for name in (
        "Makefile",
        "scripts/make-environment",
        "requirements/dev.in",
        "requirements/dev.txt",
        ".ci/run",
    ):
        text = (REPOSITORY / name).read_text()
        assert not re.search(r"https?://|index-url|--index|trusted-host", text), name


def test_lock_file_has_every_direct_requirement() -> None:
    """`make lock` was run after the last edit."""
    locked = {
        Requirement(line).name
        for line in (REPOSITORY / "requirements/dev.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    wanted = [
        Requirement(line)
        for line in (REPOSITORY / "requirements/dev.in").read_text().splitlines()
        if line and not line.startswith("#")
    ]

    assert {requirement.name for requirement in wanted} - locked == set()


@pytest.mark.parametrize("folder", [".", TEMPLATE_FOLDER], ids=["template", "project"])
def test_hooks_of_pre_commit_have_the_versions_of_the_lock_file(folder: str) -> None:
    """A commit and `make lint` are checked by the same tools."""
    locked = dict(re.findall(r"^([\w-]+)==([\w.]+)", (REPOSITORY / "requirements/dev.txt").read_text(), re.M))
    settings = yaml.safe_load((REPOSITORY / folder / ".pre-commit-config.yaml").read_text())
    pinned = {
        repo["repo"].rpartition("/")[2].removesuffix("-pre-commit"): repo["rev"].removeprefix("v")
        for repo in settings["repos"]
    }

    assert pinned
    assert pinned == {name: locked[name] for name in pinned}


def test_text_files_end_their_lines_as_linux_does(project: Path) -> None:
    """And have no stray spaces; templates tend to leave some where a condition was."""
    for name in files_of(project):
        text = (project / name).read_bytes().decode()
        assert "\r" not in text, name
        assert not re.search(r"[ \t]$", text, re.MULTILINE), name
        assert text == "" or (text.endswith("\n") and not text.endswith("\n\n")), name
        assert "\n\n\n\n" not in text, name


def test_fresh_clone_of_the_template_bakes_every_file(tmp_path: Path) -> None:
    """Nothing that a project needs is hidden by an ignore file of this repository."""
    origin = export(tmp_path / "origin")
    commit_all(origin, "Everything that git sees")
    git(tmp_path, "clone", "--quiet", str(origin), "clone")

    baked = bake(tmp_path / "clone", tmp_path / "out", {})

    assert baked.exit_code == 0, baked.said
    assert files_of(baked.project) == expected_files({})


@pytest.mark.parametrize("combination", [ALREADY_MADE, "3.3-local-pandas-examples"], indirect=True)
def test_clone_of_a_project_lacks_only_the_personal_files(
    project: Path, combination: str, tmp_path: Path
) -> None:
    """What a colleague gets from the project's repository."""
    clone = clone_of(project, tmp_path)

    assert files_of(clone) == [n for n in expected_files(COMBINATIONS[combination]) if n not in NOT_CLONED]


def clone_of(project: Path, tmp_path: Path) -> Path:
    """Put a copy of the project into git and return a clone of it without .git."""
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    shutil.copytree(project, origin)
    commit_all(origin, "Start the project")
    git(tmp_path, "clone", "--quiet", str(origin), str(clone))
    shutil.rmtree(clone / ".git")
    return clone


def test_nothing_else_points_at_personal_files(project: Path) -> None:
    """Compose may read .env when it is there; nothing may need it or airflow_settings.yaml."""
    compose = yaml.safe_load((project / "docker-compose.yml").read_text())

    for service in compose["services"].values():
        for entry in service.get("env_file", []):
            assert entry == {"path": ".env", "required": False}
    assert "airflow_settings" not in (project / "docker-compose.yml").read_text()
    assert "env_file" not in (project / "docker-compose.override.yml").read_text()


def test_dockerignore_keeps_what_the_image_needs(project: Path) -> None:
    """The folders and files that Airflow or the image's build reads are not ignored."""
    ignored = {
        line for line in (project / ".dockerignore").read_text().splitlines() if line and line[0] != "#"
    }

    needed = {
        "dags",
        "include",
        "plugins",
        "tests",
        "requirements.txt",
        "packages.txt",
        ".astro",
        "Dockerfile",
    }
    assert needed & {name.strip("/") for name in ignored} == set()
    assert {".env", ".env.*", ".git", "airflow_settings.yaml", "**/__pycache__", ".venv"} <= ignored


def test_commands_of_both_readmes_are_shell(baked_combinations: Callable[[str], Path]) -> None:
    """A command block that a shell cannot read would never work."""
    for readme in (REPOSITORY / "README.md", baked_combinations("3.3-local-pandas-examples") / "README.md"):
        blocks = re.findall(r"```(?:bash|sh|shell)\n(.*?)```", readme.read_text(), re.DOTALL)

        assert blocks, readme
        for block in blocks:
            for line in re.sub(r"\\\n", " ", block).splitlines():
                shlex.split(line, comments=True)


def test_nothing_is_imported_from_a_conftest() -> None:
    """There are several: which one is meant would depend on what else is on pytest's command line."""
    for path in (REPOSITORY / "tests").rglob("*.py"):
        assert not re.search(r"^\s*(from|import) conftest\b", path.read_text(), re.MULTILINE), path
