"""What `astro dev parse` runs inside the image: every Dag file must import.

Connections, Variables and environment variables of a deployment are not there at that time, so
looking one up gives a placeholder instead of an error.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import airflow.sdk
import pytest
from airflow.models import Connection, DagBag, Variable
from airflow.utils.db import initdb

# Without a default, some libraries read the absence of these as an answer.
MAY_BE_ABSENT = {"JENKINS_HOME", "PYTEST_THEME"}
EXCEPTIONS = Path(".astro/dag_integrity_exceptions.txt")

_environment = os.environ.get


def environment_or_placeholder(name: str, default: Any = None) -> Any:
    """Return a variable of the environment, or a text in its place."""
    found = _environment(name, default)
    if found is None and name not in MAY_BE_ABSENT:
        return f"placeholder-of-{name}"
    return found


def variable_or_placeholder(name: str, *arguments: Any, **options: Any) -> Any:
    """Return the default of an Airflow Variable, or a text in its place."""
    if arguments:
        return arguments[0]
    for default in ("default", "default_var"):
        if default in options:
            return options[default]
    return {} if options.get("deserialize_json") else f"placeholder-of-{name}"


def placeholder_connection(conn_id: str, *_: Any, **__: Any) -> Connection:
    """Return an empty connection."""
    return Connection(conn_id=conn_id)


def import_errors() -> list[tuple[str, str | None]]:
    """Load every Dag file; pair each with what went wrong, or with None."""
    patch = pytest.MonkeyPatch()
    with patch.context() as patched:
        patched.setattr(os, "getenv", environment_or_placeholder)
        for variable in (Variable, airflow.sdk.Variable):
            patched.setattr(variable, "get", variable_or_placeholder)
        patched.setattr(airflow.sdk.BaseHook, "get_connection", placeholder_connection)
        # Airflow's own examples are none of this project's; the argument for that went away in 3.3.
        patched.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
        bag = DagBag()
    home = _environment("AIRFLOW_HOME", ".")
    found: dict[str, str | None] = {os.path.relpath(dag.fileloc, home): None for dag in bag.dags.values()}
    found.update({os.path.relpath(path, home): error.strip() for path, error in bag.import_errors.items()})
    return sorted(found.items(), key=lambda pair: pair[0])


initdb()
RESULTS = import_errors()


@pytest.mark.parametrize(("path", "error"), RESULTS, ids=[path for path, _ in RESULTS])
def test_dag_file_imports(path: str, error: str | None) -> None:
    """A file that raises while it is read has no Dag in the UI, only a red banner."""
    excepted = EXCEPTIONS.read_text().split("\n") if EXCEPTIONS.exists() else []

    assert error is None or path in (line.strip() for line in excepted), f"{path} does not import:\n{error}"
