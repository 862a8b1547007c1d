"""The exact files of a generated project, by answer. Edit here when a file is added or renamed."""

from __future__ import annotations

ALWAYS = [
    ".astro/config.yaml",
    ".astro/dag_integrity_exceptions.txt",
    ".astro/test_dag_integrity_default.py",
    ".dockerignore",
    ".env",
    ".gitattributes",
    ".gitignore",
    "Dockerfile",
    "README.md",
    "airflow_local_settings.py",
    "airflow_settings.yaml",
    "dags/.airflowignore",
    "dags/xcom_maintenance.py",
    "deploy/helm/Dockerfile",
    "deploy/helm/values.yaml",
    "deploy/terraform/main.tf",
    "docker-compose.override.yml",
    "docker-compose.yml",
    "include/xcom/__init__.py",
    "include/xcom/__main__.py",
    "include/xcom/codecs/__init__.py",
    "include/xcom/codecs/base.py",
    "include/xcom/codecs/classes.py",
    "include/xcom/codecs/compression.py",
    "include/xcom/codecs/equality.py",
    "include/xcom/codecs/frames/__init__.py",
    "include/xcom/codecs/frames/arrow_tables.py",
    "include/xcom/codecs/frames/equality.py",
    "include/xcom/codecs/frames/formats.py",
    "include/xcom/codecs/frames/labels.py",
    "include/xcom/codecs/frames/pandas_arrays.py",
    "include/xcom/codecs/frames/pandas_frames.py",
    "include/xcom/codecs/frames/pandas_indexes.py",
    "include/xcom/codecs/frames/polars_frames.py",
    "include/xcom/codecs/frames/reading.py",
    "include/xcom/codecs/frames/writing.py",
    "include/xcom/codecs/inline.py",
    "include/xcom/codecs/numpy_arrays.py",
    "include/xcom/codecs/plain_json.py",
    "include/xcom/codecs/raw_bytes.py",
    "include/xcom/codecs/scalars.py",
    "include/xcom/codecs/tagged_json.py",
    "include/xcom/codecs/zip_bundle.py",
    "include/xcom/commands/__init__.py",
    "include/xcom/commands/api.py",
    "include/xcom/commands/claim.py",
    "include/xcom/commands/doctor.py",
    "include/xcom/commands/emulator.py",
    "include/xcom/commands/findings.py",
    "include/xcom/commands/lifecycle.py",
    "include/xcom/commands/listing.py",
    "include/xcom/commands/mode.py",
    "include/xcom/commands/objects.py",
    "include/xcom/commands/preview.py",
    "include/xcom/commands/progress.py",
    "include/xcom/commands/project.py",
    "include/xcom/commands/sweep.py",
    "include/xcom/commands/tables.py",
    "include/xcom/errors.py",
    "include/xcom/metrics.py",
    "include/xcom/payloads.py",
    "include/xcom/reference.py",
    "include/xcom/settings.py",
    "include/xcom/stores/__init__.py",
    "include/xcom/stores/bucket.py",
    "include/xcom/stores/checksums.py",
    "include/xcom/stores/contract.py",
    "include/xcom/stores/credentials.py",
    "include/xcom/stores/directory.py",
    "include/xcom/stores/transport.py",
    "include/xcom/units.py",
    "include/xcom/viewer/__init__.py",
    "include/xcom/viewer/app.py",
    "include/xcom/viewer/array.py",
    "include/xcom/viewer/blob.py",
    "include/xcom/viewer/bundle.py",
    "include/xcom/viewer/charts.py",
    "include/xcom/viewer/child.py",
    "include/xcom/viewer/describe.py",
    "include/xcom/viewer/frame.py",
    "include/xcom/viewer/inspector.py",
    "include/xcom/viewer/journal.py",
    "include/xcom/viewer/limits.py",
    "include/xcom/viewer/numbers.py",
    "include/xcom/viewer/pages.py",
    "include/xcom/viewer/pipe.py",
    "include/xcom/viewer/places.py",
    "include/xcom/viewer/ranged.py",
    "include/xcom/viewer/rows.py",
    "include/xcom/viewer/templates/base.html",
    "include/xcom/viewer/templates/instance.html",
    "include/xcom/viewer/templates/message.html",
    "include/xcom/viewer/templates/parts.html",
    "include/xcom/viewer/templates/run.html",
    "include/xcom/viewer/templates/viewer.css",
    "include/xcom/viewer/templates/viewer.js",
    "include/xcom/viewer/tree.py",
    "include/xcom/viewer/words.py",
    "include/xcom_backend.py",
    "packages.txt",
    "plugins/payload_viewer.py",
    "pyproject.toml",
    "requirements-dev.txt",
    "requirements.txt",
]

# include_examples
EXAMPLES = [
    "dags/example_arrays.py",
    "dags/example_flights.py",
    "dags/example_records.py",
    "dags/example_small_values.py",
    "include/flights.py",
    "tests/dags/test_example_dags.py",
    "tests/test_flights.py",
]

# ci=github
GITHUB = [".github/dependabot.yml", ".github/workflows/ci.yml"]

# Git-ignored in a generated project: a colleague's clone has none of them.
NOT_CLONED = [".env", "airflow_settings.yaml"]

# What templates of other origin do not touch: baked bytes equal the bytes in this repository.
VERBATIM_FOLDERS = ("include/xcom", "include/xcom_backend.py")


def expected_files(answers: dict[str, str]) -> list[str]:
    """List the files that a project with these answers has."""
    with_examples = answers.get("include_examples", "true") == "true"
    has_workflow = answers.get("ci") == "github"
    return sorted(
        [
            *ALWAYS,
            *(EXAMPLES if with_examples else []),
            *(GITHUB if has_workflow else []),
        ]
    )
