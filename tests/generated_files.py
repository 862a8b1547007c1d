"""The exact files of a generated project, by answer.

What a user meets first is listed by name: edit here when such a file is added or renamed. The library
below ``include/xcom`` is whatever the template's folder has.
"""

from __future__ import annotations

from baking import REPOSITORY, TEMPLATE_FOLDER, files_of

LIBRARY = "include/xcom"

ALWAYS = [
    ".astro/config.yaml",
    ".astro/dag_integrity_exceptions.txt",
    ".astro/test_dag_integrity_default.py",
    ".devcontainer/devcontainer.json",
    ".dockerignore",
    ".editorconfig",
    ".env",
    ".gitattributes",
    ".gitignore",
    ".pre-commit-config.yaml",
    "AGENTS.md",
    "Dockerfile",
    "README.md",
    "airflow_local_settings.py",
    "airflow_settings.yaml",
    "dags/.airflowignore",
    "dags/xcom_maintenance.py",
    "deploy/helm/Dockerfile",
    "deploy/helm/values.yaml",
    "deploy/remote-execution/values.yaml",
    "deploy/terraform/main.tf",
    "docker-compose.override.yml",
    "docker-compose.yml",
    "include/state_backend.py",
    "include/xcom_backend.py",
    "packages.txt",
    "plugins/payload_viewer.py",
    "pyproject.toml",
    "requirements-dev.txt",
    "requirements.txt",
    "tests/test_xcom_backend.py",
]

# include_examples
EXAMPLES = [
    "dags/example_arrays.py",
    "dags/example_flights.py",
    "dags/example_large_values.py",
    "dags/example_records.py",
    "dags/example_small_values.py",
    "include/flights.py",
    "tests/dags/test_example_dags.py",
]

# ci=github
GITHUB = [".github/dependabot.yml", ".github/workflows/ci.yml"]

# Git-ignored in a generated project: a colleague's clone has none of them.
NOT_CLONED = [".env", "airflow_settings.yaml"]

# What templates of other origin do not touch: baked bytes equal the bytes in this repository.
VERBATIM_FOLDERS = (LIBRARY, "include/xcom_backend.py", "include/state_backend.py")


def library_files() -> list[str]:
    """List the files of the library as they are on disk, so that no ignore file can hide one."""
    return [
        f"{LIBRARY}/{name}"
        for name in files_of(REPOSITORY / TEMPLATE_FOLDER / LIBRARY)
        if "__pycache__" not in name
    ]


def expected_files(answers: dict[str, str]) -> list[str]:
    """List the files that a project with these answers has."""
    with_examples = answers.get("include_examples", "true") == "true"
    has_workflow = answers.get("ci") == "github"
    return sorted(
        [
            *ALWAYS,
            *library_files(),
            *(EXAMPLES if with_examples else []),
            *(GITHUB if has_workflow else []),
        ]
    )
