"""The backend as an installed package: the same files under another name, the same rows and objects."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from baking import REPOSITORY, TEMPLATE_FOLDER, clean_environment, export, files_of

FORMS = {"project": "include", "package": "gcs_xcom"}

EXCHANGE = """
import json, sys
from datetime import datetime, timezone
from importlib import import_module
from types import SimpleNamespace
import numpy as np, pandas as pd, polars as pl, pyarrow as pa

root, verb, file = sys.argv[1:]
backend = import_module(f"{root}.xcom_backend").GCPBucketXComBackend
values = {
    "small": {"n": 1},
    "typed": {"when": datetime(2026, 11, 25, 17, 30, tzinfo=timezone.utc), "days": (1, 2), "set": {"a"}},
    "records": [{"carrier": "UA", "delay": n, "at": datetime(2026, 1, 1)} for n in range(5000)],
    "bytes": b"\\x00\\xff" * 50_000,
    "array": np.arange(12.0).reshape(3, 4),
    "pandas": pd.DataFrame({"city": ["Bogotá", None], "degrees": [14.5, -0.0]}, index=[7, 8]),
    "polars": pl.DataFrame({"a": [1, None], "b": [["x"], []]}),
    "arrow": pa.table({"a": [1, 2]}),
    "bundle": {"frame": pd.DataFrame({"a": [1]}), "picture": b"\\x89PNG" * 20_000},
}

def facts(value):
    if isinstance(value, dict):
        return {key: facts(item) for key, item in value.items()}
    text = value.to_pandas().to_json() if isinstance(value, pa.Table) else repr(value)
    return f"{type(value).__module__}.{type(value).__name__} {text}"

if verb == "store":
    ids = {"dag_id": "sales", "run_id": "manual", "task_id": "load", "map_index": -1}
    rows = {name: backend.serialize_value(value, key=name, **ids) for name, value in values.items()}
    open(file, "w").write(json.dumps(rows))
    print(sum("uri" in json.dumps(row) for row in rows.values()))
else:
    rows = json.load(open(file))
    loaded = {name: backend.deserialize_value(SimpleNamespace(value=row)) for name, row in rows.items()}
    wrong = [name for name in values if facts(values[name]) != facts(loaded[name])]
    print(wrong or f"{len(loaded)} equal")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the repository, as `pip install REPOSITORY#subdirectory=package` does."""
    folder = tmp_path_factory.mktemp("package")
    export(folder)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", "dist", "./package"], cwd=folder, check=True)
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into a folder that has nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    subprocess.run([*command, str(wheel)], check=True)
    return folder


def run(installed: Path, form: str, home: Path, *arguments: str) -> str:
    """Run Python with one form of the backend and a folder as the bucket; return the last line of output."""
    path = {"project": REPOSITORY / TEMPLATE_FOLDER, "package": installed}[form]
    settings = {"AIRFLOW_HOME": str(home), "AIRFLOW__GCS_XCOM__BUCKET": (home / "bucket").as_uri()}
    (home / "bucket").mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=home,
        env=clean_environment(home) | settings | {"PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_wheel_has_the_files_of_the_library_and_nothing_else(installed: Path) -> None:
    """Not the example's helper, no caches."""
    include = REPOSITORY / TEMPLATE_FOLDER / "include"
    ours = {name for name in files_of(include) if "__pycache__" not in name and "flights" not in name}
    there = {name for name in files_of(installed / "gcs_xcom") if "__pycache__" not in name}

    assert there == ours | {"__init__.py"}
    for name in ours:
        assert (installed / "gcs_xcom" / name).read_bytes() == (include / name).read_bytes()


@pytest.mark.parametrize(("writer", "reader"), [("project", "package"), ("package", "project")])
def test_one_form_loads_what_the_other_stored(
    writer: str, reader: str, installed: Path, tmp_path: Path
) -> None:
    """Rows and objects name formats, not modules."""
    file = str(tmp_path / "rows.json")

    stored = run(installed, writer, tmp_path, "-c", EXCHANGE, FORMS[writer], "store", file)
    loaded = run(installed, reader, tmp_path, "-c", EXCHANGE, FORMS[reader], "load", file)

    assert int(stored) >= 7
    assert loaded == "9 equal"


def test_airflow_loads_the_installed_class(installed: Path, tmp_path: Path) -> None:
    """By the path that the guide for Composer gives."""
    code = (
        "import os; os.environ['AIRFLOW__CORE__XCOM_BACKEND'] = 'gcs_xcom.xcom_backend.GCPBucketXComBackend'\n"
        "from airflow.sdk.execution_time.xcom import resolve_xcom_backend; print(resolve_xcom_backend().__module__)"
    )

    assert run(installed, "package", tmp_path, "-c", code) == "gcs_xcom.xcom_backend"


def test_commands_of_the_package_have_its_version(installed: Path, tmp_path: Path, wheel: Path) -> None:
    """One number: of the template, of the wheel and of the commands."""
    said = run(installed, "package", tmp_path, "-m", "gcs_xcom.xcom", "--version")

    assert wheel.name.split("-")[1] == said.rpartition(" ")[2]
    assert run(installed, "project", tmp_path, "-m", "include.xcom", "--version") == said


def test_requirements_of_the_package_are_those_of_a_project() -> None:
    """The same lower bounds."""
    package = (REPOSITORY / "package/pyproject.toml").read_text()
    project = (REPOSITORY / TEMPLATE_FOLDER / "requirements.txt").read_text()
    wanted = set(re.findall(r'^    "([a-z0-9-]+>=[\d.]+)",$', package, re.MULTILINE)) - {
        "apache-airflow>=3.0"
    }
    wanted |= set(re.findall(r'= \["((?:pandas|polars)>=[\d.]+)"\]', package))

    assert len(wanted) > 8
    assert {line for line in wanted if f"\n{line}\n" not in project} == set()
