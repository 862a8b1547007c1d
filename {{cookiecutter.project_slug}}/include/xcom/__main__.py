"""Inspect payloads, delete those that no XCom refers to, and check a deployment.

Run it where the backend's settings are: in the project's folder, in a container of it (``astro dev
bash``, ``docker compose exec``), or in a deployment. Results go to stdout, everything else to stderr.

Exit codes: 0 success, 1 problems were found or something could not be done, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .commands.output import CommandError, UsageError, close_stdout, explain, prepare_streams, warn
from .errors import PayloadError

if TYPE_CHECKING:
    from .commands.api import AirflowAPI
    from .reference import Coordinates

from . import __version__

__all__ = ["main", "parser"]

_API = """Airflow's API is asked with AIRFLOW_API_TOKEN, or with AIRFLOW_API_USERNAME and AIRFLOW_API_PASSWORD.
Neither is needed where everybody is an admin (a development setup)."""


class _Paragraphs(argparse.HelpFormatter):
    """Fit each paragraph of a description to the terminal."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            super(_Paragraphs, self)._fill_text(part, width, indent) for part in text.split("\n\n")
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    prepare_streams()
    given = parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = given.run
    try:
        code = run(given)
        sys.stdout.flush()
    except UsageError as error:
        given.parser.error(str(error))
    except CommandError as error:
        warn(str(error))
    except PayloadError as error:
        warn(explain(error))
    except BrokenPipeError:
        close_stdout()
    except OSError as error:
        warn(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        warn("interrupted")
    else:
        return code
    return 1


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; ``docs/reference/commands.md`` is generated from it."""
    top = argparse.ArgumentParser(
        prog=f"python -m {__package__}",
        description=(__doc__ or "").replace("``", "`"),
        formatter_class=_Paragraphs,
    )
    top.add_argument("--version", action="version", version=f"cookiecutter-astro-gcs-xcom {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(
        name: str, run: Callable[[argparse.Namespace], int], help: str, description: str
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=help,
            description=f"{help}\n\n{description}",
            formatter_class=_Paragraphs,
        )
        command.set_defaults(run=run, parser=command)
        return command

    _add_doctor(
        add(
            "doctor",
            _doctor,
            "Check settings, packages, credentials, and the bucket, and say how to fix what is wrong.",
            "One line per finding: ok, warning, problem, or skipped for what cannot be known from here.\n"
            "Writes one small object below the prefix and deletes it again. Exit code 1 if there is a problem.",
        )
    )
    _add_ls(
        add(
            "ls",
            _ls,
            "List the payloads of a Dag run, or the runs of a Dag that have payloads.",
            "Types and shapes come from the XCom rows; without Airflow's API they are left out.\n"
            "With --state: the state of a run's tasks, of a Dag's, or of all tasks and assets if no Dag is named.\n"
            f"{_API}",
        )
    )
    _add_history(
        add(
            "history",
            _history,
            "Show an XCom over the last runs of its Dag, and what changed from run to run.",
            "Rows, columns or items, value, size, and the seconds that storing took. The payload viewer of the API\n"
            f"server (Airflow 3.1 and newer) is asked; no payload is read.\n{_API}",
        )
    )
    _add_show(
        add(
            "show",
            _show,
            "Show the reference and the first lines of a payload.",
            f"By its URI, or by the ids of Dag, run, and task.\n{_API}",
        )
    )
    _add_fetch(
        add(
            "fetch",
            _fetch,
            "Write a payload to a file, as it is stored (Parquet, zip, ...).",
            f"Size and CRC32C are checked; the file appears whole or not at all.\n{_API}",
        )
    )
    _add_sweep(
        add(
            "sweep",
            _sweep,
            "Find the objects below the prefix that no XCom row refers to, and delete them with --delete.",
            "Never deletes anything outside [gcs_xcom] prefix, younger than --age-days, or about which Airflow's\n"
            "API did not answer, and nothing before the prefix is claimed: two deployments that share one take\n"
            f"each other's payloads for orphans.\n{_API}",
        )
    )
    _add_lifecycle(
        add(
            "lifecycle",
            _lifecycle,
            "Show or set the bucket's own rule that deletes old payloads.",
            "Other rules of the bucket stay as they are. Prints the gcloud command that does the same.",
        )
    )
    return top


def _add_doctor(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--project", type=Path, metavar="DIR", help="folder of the project (default: this one)"
    )
    command.add_argument(
        "--fixes",
        action="store_true",
        help="check the project's files only, and print commands that fix them, for `| sh`",
    )
    _add_api(command)
    _add_json(command)


def _doctor(given: argparse.Namespace) -> int:
    from .commands.doctor import print_fixes, run_doctor

    project = given.project or Path.cwd()
    if not project.is_dir():
        raise UsageError(f"--project {project} is not a folder")
    if given.fixes:
        return print_fixes(project)
    _load_airflow()
    return run_doctor(project, given.api_url, given.api_user, is_json=given.json)


def _add_ls(command: argparse.ArgumentParser) -> None:
    command.add_argument("dag_id", metavar="DAG", nargs="?")
    command.add_argument("run_id", metavar="RUN", nargs="?")
    command.add_argument("--state", action="store_true", help="list what is kept in the state store")
    command.add_argument("--no-api", action="store_true", help="ask only the store")
    _add_api(command)
    _add_json(command)


def _ls(given: argparse.Namespace) -> int:
    if given.dag_id is None and not given.state:
        raise UsageError("name a Dag: ls DAG [RUN]; only ls --state does without")
    _load_airflow()
    from .commands.listing import list_payloads
    from .commands.state_listing import list_state

    has_rows = given.state or given.run_id is not None
    api = _connect(given) if has_rows and not given.no_api else None
    list_objects = list_state if given.state else list_payloads
    for line in list_objects(given.dag_id, given.run_id, api, is_json=given.json):
        print(line)
    return 0


def _add_history(command: argparse.ArgumentParser) -> None:
    command.add_argument("dag_id", metavar="DAG")
    command.add_argument("task_id", metavar="TASK")
    command.add_argument("key", metavar="KEY", nargs="?", default="return_value")
    command.add_argument("--runs", type=_runs, default=30, metavar="N", help="up to 365 (default: 30)")
    command.add_argument(
        "--map-index", type=_index, metavar="N", help="of a mapped task (default: the sum of all)"
    )
    _add_api(command)
    _add_json(command)


def _history(given: argparse.Namespace) -> int:
    _load_airflow()
    from .commands.history import print_history

    where = (given.dag_id, given.task_id, given.key)
    print_history(_connect(given), *where, runs=given.runs, map_index=given.map_index, is_json=given.json)
    return 0


def _add_show(command: argparse.ArgumentParser) -> None:
    command.add_argument("target", nargs="+", metavar="URI | DAG RUN TASK")
    _add_xcom(command)
    command.add_argument("--lines", type=_count, default=20, metavar="N", help="of the preview (default: 20)")
    _add_api(command)
    _add_json(command)


def _show(given: argparse.Namespace) -> int:
    target = _target(given.target, given)
    _load_airflow()
    from .commands.show import run_show

    return run_show(target, lambda: _connect(given), lines=given.lines, is_json=given.json)


def _add_fetch(command: argparse.ArgumentParser) -> None:
    command.add_argument("target", nargs="+", metavar="URI | DAG RUN TASK")
    command.add_argument("file", type=Path, metavar="FILE")
    _add_xcom(command)
    command.add_argument("--force", action="store_true", help="replace a file that exists")
    _add_api(command)
    _add_json(command)


def _fetch(given: argparse.Namespace) -> int:
    if len(given.target) == 2:
        raise UsageError(f"FILE is missing: fetch {' '.join(given.target)} {given.file} FILE")
    target = _target(given.target, given)
    _load_airflow()
    from .commands.fetch import run_fetch

    return run_fetch(
        target, given.file, lambda: _connect(given), is_replacing=given.force, is_json=given.json
    )


def _add_sweep(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--age-days",
        type=_days,
        default=7.0,
        metavar="N",
        help="younger objects stay (default: 7; at least an hour, and twice timeout_seconds)",
    )
    command.add_argument("--delete", action="store_true", help="delete; without it no payload is touched")
    command.add_argument(
        "--thorough",
        action="store_true",
        help="ask for every row, one by one, instead of listing rows: finds every orphan, and takes 20 to 40 "
        "times as long",
    )
    command.add_argument(
        "--concurrency",
        type=_at_once,
        default=4,
        metavar="N",
        help="requests to Airflow at a time (default: 4)",
    )
    command.add_argument(
        "--claim",
        action="store_true",
        help="record first that only this deployment writes below the prefix; once, before the first --delete",
    )
    command.add_argument(
        "--take-over",
        default="",
        metavar="ID",
        help="claim the prefix of a deployment that is gone for good",
    )
    command.add_argument("--resume", default="", metavar="NAME", help="object name to begin with")
    command.add_argument("--objects", action="store_true", help="print each orphan, not only each Dag run")
    command.add_argument(
        "--unknown-dags",
        action="store_true",
        help="include objects of Dags that this Airflow does not know (deleted ones); "
        "only if no other deployment uses the prefix",
    )
    _add_api(command)
    _add_json(command, "print one JSON object per line: each Dag run, finally the totals")


def _sweep(given: argparse.Namespace) -> int:
    _load_airflow()
    from .commands.sweep import Options, run_sweep

    options = Options(
        age_days=given.age_days,
        is_deleting=given.delete,
        is_thorough=given.thorough,
        is_claiming=given.claim,
        taken_over=given.take_over,
        has_unknown_dags=given.unknown_dags,
        concurrency=given.concurrency,
        resume=given.resume,
        has_objects=given.objects,
        is_json=given.json,
    )
    return run_sweep(_connect(given, given.concurrency), options)


def _add_lifecycle(command: argparse.ArgumentParser) -> None:
    command.add_argument("action", choices=("show", "set"))
    command.add_argument("--age-days", type=_whole_days, metavar="N", help="with set: age at which to delete")
    _add_json(command)


def _lifecycle(given: argparse.Namespace) -> int:
    if (given.action == "set") != (given.age_days is not None):
        raise UsageError("lifecycle set needs --age-days N, and lifecycle show takes none")
    _load_airflow()
    from .commands.lifecycle import run_lifecycle

    return run_lifecycle(given.age_days, is_json=given.json)


def _add_api(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--api-url",
        metavar="URL",
        help="Airflow's API server (default: AIRFLOW_API_URL, else the one that tasks use, else [api] base_url)",
    )
    command.add_argument("--api-user", metavar="NAME", help="user name (default: AIRFLOW_API_USERNAME)")


def _add_json(command: argparse.ArgumentParser, help: str = "print JSON") -> None:
    command.add_argument("--json", action="store_true", help=help)


def _add_xcom(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--map-index", type=int, default=-1, metavar="N", help="of a mapped task (default: -1)"
    )
    command.add_argument("--key", default="return_value", help="XCom key (default: return_value)")


def _load_airflow() -> None:
    # Only now: `doctor --fixes` and --help work without any package.
    from .commands.startup import log_to_stderr, use_database

    log_to_stderr()
    use_database()


def _connect(given: argparse.Namespace, connections: int = 8) -> AirflowAPI:
    from .commands.api import AirflowAPI, Login

    return AirflowAPI(Login.find(given.api_url, given.api_user), connections)


def _target(words: list[str], given: argparse.Namespace) -> str | Coordinates:
    from .reference import Coordinates

    if len(words) == 1 and words[0].startswith(("gs://", "file://")):
        return words[0]
    if len(words) == 3:
        return Coordinates(words[0], words[1], words[2], given.map_index, given.key)
    raise UsageError("name a URI (gs://... or file://...), or three ids: DAG RUN TASK")


def _count(text: str) -> int:
    return _whole_number(text, 1, 10_000)


def _runs(text: str) -> int:
    return _whole_number(text, 1, 365)


def _index(text: str) -> int:
    return _whole_number(text, 0, 999_999_999)


def _at_once(text: str) -> int:
    return _whole_number(text, 1, 64)


def _whole_days(text: str) -> int:
    return _whole_number(text, 1, 36_500)


def _whole_number(text: str, least: int, most: int) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed is a whole number from {least} to {most}")
    return int(text)


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = 0.0
    if not 0 < days < 36_500:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed is a number of days over 0")
    return days


if __name__ == "__main__":
    sys.exit(main())
