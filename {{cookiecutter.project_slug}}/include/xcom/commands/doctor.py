"""``doctor``: check that everything the backend needs is here, and say how to fix what is not.

A check yields findings of one line: ``ok``, ``warning``, ``problem``, or ``skipped`` for what cannot be
known from here. A warning or problem ends with a fix to paste, or says what a person has to do. No check
needs Airflow's database or Docker, and none stops the others.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from ..errors import PayloadError
from ..units import format_count
from .findings import Finding
from .project import examine_project

__all__ = ["examine", "print_fixes", "run_doctor"]

# A check that breaks most often does so over packages that do not fit together.
_PIP_CHECK = "python -m pip check"

Check = Callable[[], Iterable[Finding]]


def run_doctor(
    project: Path, api_url: str | None = None, api_user: str | None = None, *, is_json: bool = False
) -> int:
    """Print the findings; return the exit code, 1 if there is a problem."""
    findings = []
    for finding in examine(project, api_url, api_user):
        findings.append(finding)
        if not is_json:
            print(finding, flush=True)
    problems, warnings = (
        sum(finding.level == level for finding in findings) for level in ("problem", "warning")
    )
    if is_json:
        print(json.dumps({"findings": [asdict(one) for one in findings], "problems": problems}, indent=2))
    else:
        print(f"{format_count(problems, 'problem')}, {format_count(warnings, 'warning')}")
    return 1 if problems else 0


def print_fixes(project: Path) -> int:
    """Print a shell script that fixes the project's files; what it does not fix is a comment in it."""
    for finding in examine_project(project):
        print(f"# {' '.join(finding.message.split())}")
        if finding.fix:
            print(finding.fix)
    return 0


def examine(project: Path, api_url: str | None = None, api_user: str | None = None) -> Iterator[Finding]:
    """Yield the findings, check by check; a check that breaks is a finding too.

    Args:
        project: Folder of the project, where a Dockerfile and requirements.txt may be.
        api_url: URL of Airflow's API; see ``api.Login.find``.
        api_user: User of Airflow's API.
    """
    if importlib.util.find_spec("airflow") is None:
        yield Finding(
            "problem",
            "airflow",
            f"not installed in {sys.executable}, so only the project's files are checked",
            "docker compose exec scheduler python -m include.xcom doctor",
        )
        yield from _guard("project", lambda: examine_project(project))
        return
    from . import deployment, storage
    from .mode import examine_mode

    checks: list[tuple[str, Check]] = [
        ("airflow", deployment.examine_airflow),
        ("mode", examine_mode),
        ("backend", lambda: deployment.examine_backend(project)),
        ("packages", deployment.examine_packages),
        ("project", lambda: examine_project(project)),
    ]
    for name, check in checks:
        yield from _guard(name, check)
    yield from _guard("settings", deployment.examine_settings)
    settings = deployment.usable_settings()
    if settings is None:
        yield Finding("skipped", "store", "cannot be checked before the settings are correct")
        return
    checks = [
        ("executor", lambda: deployment.examine_executor(settings)),
        ("temporary", deployment.examine_temporary),
        *storage.checks(settings, api_url, api_user),
    ]
    for name, check in checks:
        yield from _guard(name, check)


def _guard(name: str, check: Check) -> Iterator[Finding]:
    try:
        yield from check()
    except PayloadError as error:
        yield Finding("problem", name, str(error), _PIP_CHECK)
    except Exception as error:  # noqa: BLE001 - One broken check must not hide the others.
        yield Finding("problem", name, f"could not be checked: {type(error).__name__}: {error}", _PIP_CHECK)
