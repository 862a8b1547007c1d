"""Look at payloads, remove what nobody refers to, and find out what is missing in a deployment.

Run it where the backend's settings are: in the project's folder, in a container of it (``astro dev
bash``, ``docker compose exec``), or in a deployment. Results go to stdout, everything else to stderr.

Exit codes: 0 fine, 1 problems were found or something could not be done, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import __version__

__all__ = ["main", "parser"]

_API = """Airflow's API is asked with AIRFLOW_API_TOKEN, or with AIRFLOW_API_USERNAME and
AIRFLOW_API_PASSWORD; with none of them where everybody is an admin (a development setup)."""


def parser() -> argparse.ArgumentParser:
    """Return the description of all commands; ``docs/reference/commands.md`` is made from it."""
    top = argparse.ArgumentParser(
        prog=f"python -m {__package__}",
        description=(__doc__ or "").replace("``", "`"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"cookiecutter-astro-gcs-xcom {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str, description: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=help,
            description=f"{help}\n\n{description}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    doctor = command(
        "doctor",
        "Check settings, packages, credentials and the bucket, and say how to mend what is wrong.",
        "One line for each finding: ok, warning, problem, or skipped for what cannot be known from here.\n"
        "Writes one small object below the prefix and deletes it again. Exit code 1 if there is a problem.",
    )
    doctor.add_argument(
        "--project", type=Path, metavar="DIR", help="folder of the project (default: this one)"
    )
    doctor.add_argument(
        "--fixes",
        action="store_true",
        help="look at the project's files alone, and print the commands that mend them, for `| sh`",
    )
    _add_api(doctor)
    _add_json(doctor)

    emulator = command(
        "emulator",
        "Add the bucket of this machine (fake-gcs-server) to a docker-compose.override.yml of your own.",
        "Every line of the file stays; a file that cannot be extended so is left alone, with the reason.",
    )
    emulator.add_argument(
        "--project", type=Path, metavar="DIR", help="folder of the project (default: this one)"
    )

    ls = command(
        "ls",
        "List the payloads of a Dag run, or the runs of a Dag that have payloads.",
        f"Types and counts come from the XCom rows; without Airflow's API they are left out.\n{_API}",
    )
    ls.add_argument("dag_id", metavar="DAG")
    ls.add_argument("run_id", metavar="RUN", nargs="?")
    ls.add_argument("--no-api", action="store_true", help="ask the store only")
    _add_api(ls)
    _add_json(ls)

    show = command(
        "show",
        "Show the reference and the first lines of a payload.",
        f"By its URI, or by the ids of Dag, run and task.\n{_API}",
    )
    _add_target(show)
    show.add_argument("--lines", type=_count, default=20, metavar="N", help="of the preview (default: 20)")
    _add_api(show)
    _add_json(show)

    fetch = command(
        "fetch",
        "Write a payload to a file, as it is stored (Parquet, zip, ...).",
        f"Size and CRC32C are checked; the file appears whole or not at all.\n{_API}",
    )
    _add_target(fetch)
    fetch.add_argument("file", type=Path, metavar="FILE")
    fetch.add_argument("--force", action="store_true", help="replace a file that exists")
    _add_api(fetch)
    _add_json(fetch)

    sweep = command(
        "sweep",
        "Find the objects below the prefix that no XCom row refers to, and delete them with --delete.",
        "Never outside of [gcs_xcom] prefix, never younger than --age-days, nothing that Airflow's API could\n"
        "not be asked about, and nothing before the prefix is claimed: two deployments that share one take\n"
        f"each other's payloads for orphans.\n{_API}",
    )
    sweep.add_argument(
        "--age-days",
        type=_days,
        default=7.0,
        metavar="N",
        help="younger objects stay (default: 7; at least an hour, and twice timeout_seconds)",
    )
    sweep.add_argument("--delete", action="store_true", help="delete; without it no payload is touched")
    sweep.add_argument(
        "--claim",
        action="store_true",
        help="note first that this deployment alone writes below the prefix; once, before the first --delete",
    )
    sweep.add_argument(
        "--take-over",
        default="",
        metavar="ID",
        help="claim the prefix of a deployment that is gone for good",
    )
    sweep.add_argument("--resume", default="", metavar="NAME", help="object name to begin with")
    sweep.add_argument("--objects", action="store_true", help="print each orphan, not only each Dag run")
    sweep.add_argument(
        "--unknown-dags",
        action="store_true",
        help="include objects of Dags that this Airflow does not know (deleted ones); "
        "only if no other deployment uses the prefix",
    )
    _add_api(sweep)
    _add_json(sweep, "one JSON object a line: each Dag run, at last the totals")

    lifecycle = command(
        "lifecycle",
        "Show or set the bucket's own rule that deletes old payloads.",
        "Other rules of the bucket stay as they are. Prints the gcloud command that does the same.",
    )
    lifecycle.add_argument("action", choices=("show", "set"))
    lifecycle.add_argument(
        "--age-days", type=_whole_days, metavar="N", help="with set: age at which to delete"
    )
    _add_json(lifecycle)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    described = parser()
    given = described.parse_args(argv)
    if (early := _without_airflow(given)) is not None:
        return early
    # Airflow logs to stdout, which belongs to the results.
    _log_to_stderr()
    _use_database()
    from .commands.api import AirflowAPIError
    from .errors import PayloadError

    try:
        return int(globals()[f"_{given.command}"](given, described))
    except PayloadError as error:
        where = "" if not error.uri or str(error.uri) in str(error) else f" ({error.uri})"
        _warn(f"{type(error).__name__}: {error}{where}")
        return 1
    except (AirflowAPIError, LookupError) as error:
        _warn(str(error))
        return 1
    except FileExistsError as error:
        _warn(f"{error} exists; replace it with --force")
        return 1
    except OSError as error:
        _warn(f"{type(error).__name__}: {error}")
        return 1
    except KeyboardInterrupt:
        _warn("interrupted")
        return 1


def _use_database() -> None:
    """Let Variables and connections of Airflow's database be read, if this process has one.

    A process that is neither a task nor a component sees those of the environment and of secrets
    backends alone, unless it says so, as `airflow connections get` does. Without a database, or in a
    process that a task started, nothing changes and nothing is said.
    """
    # A server that does not answer: libpq would wait for minutes.
    os.environ.setdefault("PGCONNECT_TIMEOUT", "5")
    try:
        from airflow.utils.session import create_session
        from sqlalchemy import text

        with create_session() as session:
            session.execute(text("SELECT 1 FROM variable WHERE 1 = 0"))
    except Exception:
        return
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")


def _without_airflow(given: argparse.Namespace) -> int | None:
    """Run what needs the project's files alone; None for everything else."""
    project = getattr(given, "project", None) or Path.cwd()
    if given.command == "emulator":
        return _emulator(project)
    if given.command != "doctor":
        return None
    from .commands.project import examine_project

    if given.fixes:
        for finding in examine_project(project):
            print(f"# {finding.message}\n{finding.fix}" if finding.fix else f"# {finding.message}")
        return 0
    return _doctor(given, None) if importlib.util.find_spec("airflow") is None else None


def _emulator(project: Path) -> int:
    from .commands.emulator import FILE, MergeError, add_emulator, merged

    try:
        was_changed = add_emulator(project)
    except MergeError as error:
        _warn(f"{FILE} was not changed: {error}. Add by hand, for the services that you have:")
        print(merged(""), end="")
        return 1
    print(f"{FILE} now has the service gcs" if was_changed else f"{FILE} has an emulator already")
    return 0


def _doctor(given: argparse.Namespace, described: argparse.ArgumentParser | None) -> int:
    from .commands.doctor import examine

    findings = list(examine(given.project or Path.cwd(), given.api_url, given.api_user))
    problems = sum(finding.level == "problem" for finding in findings)
    if given.json:
        print(
            json.dumps(
                {"findings": [finding.as_json() for finding in findings], "problems": problems}, indent=2
            )
        )
        return 1 if problems else 0
    for finding in findings:
        print(finding)
    warnings = sum(finding.level == "warning" for finding in findings)
    print(f"{problems} problems, {warnings} warnings")
    return 1 if problems else 0


def _ls(given: argparse.Namespace, described: argparse.ArgumentParser) -> int:
    from .commands.listing import list_payloads

    api = None if given.no_api or given.run_id is None else _connect(given)
    for line in list_payloads(given.dag_id, given.run_id, api, is_json=given.json, warn=_warn):
        print(line)
    return 0


def _show(given: argparse.Namespace, described: argparse.ArgumentParser) -> int:
    from .commands.listing import find_payload, show_payload

    row, reference = find_payload(_target(given, described), lambda: _connect(given))
    for line in show_payload(row, reference, lines=given.lines, is_json=given.json):
        print(line)
    return 0


def _fetch(given: argparse.Namespace, described: argparse.ArgumentParser) -> int:
    from .commands.listing import fetch_payload, find_payload
    from .commands.tables import size

    target = _target(given, described)
    if given.file.exists() and not given.force:
        raise FileExistsError(given.file)
    _, reference = find_payload(target, lambda: _connect(given))
    if reference is None:
        _warn(
            "this XCom is inline: its value is in the database row itself, and there is no payload to fetch"
        )
        return 1
    fetch_payload(reference, given.file, is_replacing=given.force)
    if given.json:
        found = {"file": str(given.file), "uri": reference.uri, "bytes": reference.bytes}
        print(json.dumps({**found, "crc32c": reference.crc32c}, indent=2))
        return 0
    print(f"{given.file}: {reference.bytes} bytes ({size(reference.bytes)}), CRC32C {reference.crc32c}")
    return 0


def _sweep(given: argparse.Namespace, described: argparse.ArgumentParser) -> int:
    from .commands.sweep import run_sweep

    try:
        return run_sweep(
            _connect(given),
            age_days=given.age_days,
            is_deleting=given.delete,
            warn=_warn,
            resume=given.resume,
            has_unknown_dags=given.unknown_dags,
            has_objects=given.objects,
            is_json=given.json,
            is_claiming=given.claim,
            taken_over=given.take_over,
        )
    except ValueError as error:
        described.error(str(error))


def _lifecycle(given: argparse.Namespace, described: argparse.ArgumentParser) -> int:
    from .commands.lifecycle import run_lifecycle

    if (given.action == "set") != (given.age_days is not None):
        described.error("lifecycle set needs --age-days N, and lifecycle show takes none")
    return run_lifecycle(given.age_days, is_json=given.json)


def _connect(given: argparse.Namespace) -> Any:
    from .commands.api import AirflowAPI, Login

    return AirflowAPI(Login.find(given.api_url, given.api_user))


def _target(given: argparse.Namespace, described: argparse.ArgumentParser) -> Any:
    from .commands.listing import uri_or_coordinates

    try:
        return uri_or_coordinates(given.target, given.map_index, given.key)
    except ValueError as error:
        described.error(str(error))


def _warn(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _log_to_stderr() -> None:
    """Send what Airflow logs, through ``logging`` or ``structlog``, to stderr."""
    import contextlib
    import warnings

    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import airflow.configuration  # noqa: F401
    # Airflow 3.0 loads it later.
    if importlib.util.find_spec("structlog"):
        import structlog

        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
            # Replaced, since the stream of Airflow 3.0's own handler cannot be set.
            root.removeHandler(handler)
            replacement = logging.StreamHandler(sys.stderr)
            replacement.setFormatter(handler.formatter)
            root.addHandler(replacement)


def _add_api(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--api-url",
        metavar="URL",
        help="Airflow's API server (default: AIRFLOW_API_URL, else the one that tasks use, else [api] base_url)",
    )
    command.add_argument("--api-user", metavar="NAME", help="user name (default: AIRFLOW_API_USERNAME)")


def _add_json(command: argparse.ArgumentParser, help: str = "print JSON") -> None:
    command.add_argument("--json", action="store_true", help=help)


def _add_target(command: argparse.ArgumentParser) -> None:
    command.add_argument("target", nargs="+", metavar="URI | DAG RUN TASK")
    command.add_argument(
        "--map-index", type=int, default=-1, metavar="N", help="of a mapped task (default: -1)"
    )
    command.add_argument("--key", default="return_value", help="of the XCom (default: return_value)")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed is 1 to 10000")
    return int(text)


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = 0.0
    if not 0 < days < 36_500:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed is a number of days over 0")
    return days


def _whole_days(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 36_500:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed is a whole number of days from 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
