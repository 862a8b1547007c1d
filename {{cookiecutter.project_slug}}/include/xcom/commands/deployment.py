"""Checks of the doctor: Airflow, the backend's class, packages, settings, and the executor."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from airflow.configuration import conf

from .. import __version__
from ..errors import PayloadError, SettingsError
from ..legacy import place_of
from ..settings import BUCKET_VARIABLE, SECTION, Settings, load_settings, platform_variables
from ..stores import runs_here
from ..units import format_size
from .findings import Finding
from .project import BACKEND, DATAFRAMES, REQUIREMENTS, STATE_BACKEND, STATE_VARIABLE

__all__ = [
    "examine_airflow",
    "examine_backend",
    "examine_executor",
    "examine_packages",
    "examine_settings",
    "examine_temporary",
    "executor_name",
    "export_of",
    "usable_settings",
]

_DATABASE = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
_LOAD_BACKEND = (
    "from airflow import settings; settings.prepare_syspath_for_config_and_plugins(); "
    "from airflow.sdk.execution_time.xcom import XCom; print('\\n' + XCom.__module__ + '.' + XCom.__qualname__)"
)


def examine_airflow() -> Iterator[Finding]:
    """Compare Airflow's version with those that were tested."""
    import airflow
    from packaging.version import Version

    version = Version(airflow.__version__)
    if version < Version("3.0"):
        yield Finding("problem", "airflow", f"{version} is too old", "pip install 'apache-airflow>=3.0,<3.5'")
    elif version >= Version("3.5.dev0"):
        message = f"{version} is newer than what was tested (3.0 to 3.4)"
        yield Finding("warning", "airflow", message, "python -m pytest")
    else:
        yield Finding("ok", "airflow", f"{version}, Python {sys.version.split()[0]}, backend {__version__}")


def examine_backend(project: Path) -> Iterator[Finding]:
    """Load the backend as Airflow does: in its own process, which does not start in the project's folder."""
    setting = conf.get("core", "xcom_backend", fallback="") or ""
    if not setting.endswith("GCPBucketXComBackend"):
        yield Finding(
            "problem",
            "backend",
            f"[core] xcom_backend is {setting or 'not set'}, so XComs stay in the database",
            f"export AIRFLOW__CORE__XCOM_BACKEND={BACKEND}",
        )
        setting = BACKEND
    environment = {**os.environ, "AIRFLOW__CORE__XCOM_BACKEND": setting}
    if "airflow-db-not-allowed" in environment.get(_DATABASE, ""):
        # Airflow leaves this address in tasks, and no other process of it starts with it.
        environment[_DATABASE] = "sqlite://"
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", _LOAD_BACKEND],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    loaded = done.stdout.strip().rpartition("\n")[2]
    if done.returncode == 0 and loaded.endswith(".GCPBucketXComBackend"):
        yield Finding("ok", "import", f"Airflow loads {loaded}")
        yield from _state_store()
        return
    lines = done.stderr.strip().splitlines() or [f"it loaded {loaded}"]
    said = next((line for line in lines if re.match(r"(ModuleNotFound|Import|Syntax)Error", line)), lines[-1])
    message = f"a process of Airflow cannot load {setting}: {said}"
    yield Finding("problem", "import", message, f"export PYTHONPATH={shlex.quote(str(project.resolve()))}")


def _state_store() -> Iterator[Finding]:
    """Tell where the state of tasks and assets goes; Airflow below 3.3 has no such store."""
    if importlib.util.find_spec("airflow.sdk.state") is None:
        return
    setting = conf.get("workers", "state_store_backend", fallback="") or ""
    module, _, name = setting.rpartition(".")
    if not setting:
        message = (
            "[workers] state_store_backend is not set, so the state of tasks and assets stays in the database"
        )
        yield Finding("warning", "state", message, f"export {STATE_VARIABLE}={STATE_BACKEND}")
        return
    try:
        getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        message = f"tasks cannot load {setting}, which [workers] state_store_backend names: {error}"
        yield Finding("problem", "state", message, f"export {STATE_VARIABLE}={STATE_BACKEND}")
    else:
        yield Finding("ok", "state", f"the state of tasks and assets goes through {setting}")


def examine_packages() -> Iterator[Finding]:
    """Compare installed packages with the lower bounds of requirements.txt."""
    from packaging.version import Version

    found = []
    is_complete = True
    for name, least in REQUIREMENTS.items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if name in DATAFRAMES:
                continue
            what = "is not installed"
        else:
            if Version(version) >= Version(least):
                found.append(f"{name} {version}")
                continue
            what = f"is {version}, and {least} is the oldest that was tested"
        is_complete = False
        yield Finding("problem", "packages", f"{name} {what}", f"pip install '{name}>={least}'")
    if is_complete:
        yield Finding("ok", "packages", ", ".join(found))


def usable_settings() -> Settings | None:
    """Return the settings; None if they cannot work."""
    try:
        return load_settings()
    except Exception:  # noqa: BLE001 - examine_settings says which
        return None


def examine_settings() -> Iterator[Finding]:
    """Read the settings, and what they say about values that have no exact form."""
    load_settings.cache_clear()
    try:
        settings = load_settings()
    except PayloadError as error:
        problems = error.problems if isinstance(error, SettingsError) else {}
        yield Finding("problem", "settings", str(error), _defaults(sorted(problems)))
        return
    except Exception as error:  # noqa: BLE001 - the Variable needs a database or a supervisor
        message = f"the Variable {BUCKET_VARIABLE} could not be read: {type(error).__name__}: {error}"[:300]
        yield Finding("problem", "settings", message, _defaults(["bucket"]))
        return
    message = f"payloads are below {settings.root}, for values over {settings.threshold_bytes} bytes"
    yield Finding("ok", "settings", message)
    yield from _unknown_settings()
    yield from _legacy(settings)


def _unknown_settings() -> Iterator[Finding]:
    """Tell which variables of the section nobody reads: Airflow takes any name, so a typo passes unnoticed."""
    known = {field.name for field in fields(Settings)} | {"sweep_schedule"}
    known |= {f"{name}_{source}" for name in known for source in ("cmd", "secret")}
    prefix = f"AIRFLOW__{SECTION.upper()}__"
    for variable in sorted(os.environ):
        if variable.startswith(prefix) and variable.removeprefix(prefix).lower() not in known:
            message = f"{variable} is set, and no setting of [{SECTION}] has that name"
            yield Finding("warning", "settings", message, f"unset {variable}")


def _legacy(settings: Settings) -> Iterator[Finding]:
    path = conf.get("common.io", "xcom_objectstorage_path", fallback="") or ""
    if path and not settings.legacy_references:
        yield Finding(
            "warning",
            "legacy",
            f"[common.io] xcom_objectstorage_path is {path}: tasks get the paths that Airflow's object storage "
            "backend stored, not the values",
            f"export {export_of('legacy_references', 'true')} {export_of('read_uris', place_of(path))}",
        )


def _defaults(names: list[str]) -> str:
    """Return the command that sets settings to their defaults, and the bucket where its name is looked for."""
    defaults = {field.name: field.default for field in fields(Settings)}
    words = []
    for name in names:
        value = defaults[name]
        text = "" if value == () else str(value).lower() if isinstance(value, bool) else str(value)
        if name != "bucket":
            words.append(export_of(name, text))
        elif conf.get(SECTION, "bucket", fallback=""):
            words.append(export_of(name, "acme-xcom"))
        else:
            words.append(f"AIRFLOW_VAR_{BUCKET_VARIABLE}=acme-xcom")
    return f"export {' '.join(words)}" if words else ""


def export_of(name: str, value: str) -> str:
    """Return the assignment of a setting's environment variable."""
    return f"AIRFLOW__{SECTION.upper()}__{name.upper()}={shlex.quote(value) if value else ''}"


def executor_name() -> str:
    """Return the setting ``[core] executor``."""
    return conf.get("core", "executor", fallback="LocalExecutor") or ""


def examine_executor(settings: Settings) -> Iterator[Finding]:
    """Tell whether all tasks can reach the store: a directory is on one machine, or in one container."""
    executor = executor_name()
    platforms = platform_variables()
    fix = f"export {export_of('bucket', 'acme-xcom')}"
    if not settings.bucket.startswith("file://"):
        yield Finding("ok", "executor", executor)
    elif not runs_here(executor):
        message = f"{executor} runs tasks on other machines, and {settings.bucket} is a directory of this one"
        yield Finding("problem", "executor", message, fix)
    elif platforms:
        message = (
            f"{settings.bucket} is a directory of this container alone, and gone with it "
            f"({', '.join(platforms)} is set)"
        )
        yield Finding("problem", "executor", message, fix)
    else:
        yield Finding("ok", "executor", f"{executor}, and the store is a directory of this machine")


def examine_temporary() -> Iterator[Finding]:
    """Tell whether tasks that were killed on this machine left downloaded files."""
    from ..handles import temporary

    if left := temporary.leftovers():
        size = sum(path.stat().st_size for folder in left for path in folder.rglob("*") if path.is_file())
        message = (
            f"killed tasks left {len(left)} directories with {format_size(size)} in {left[0].parent}; the next "
            "task here that uses a temporary directory deletes them"
        )
        code = f"from {temporary.__name__} import remove_leftovers; remove_leftovers()"
        yield Finding("warning", "temporary", message, f"python -c {shlex.quote(code)}")
