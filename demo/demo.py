"""Bake the template, run its example Dags through Airflow, and show what passed between their tasks.

``make demo`` runs this in an environment that has everything. Nothing is needed beyond it: the
metadata database is SQLite and the payloads lie in a folder, all of it below ``.demo/``.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import json
import os
import queue
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "demo"
WIDTH = 80
"""Columns of a terminal that nobody has widened."""
HEARTBEAT_SECONDS = 10
"""Where no line can be rewritten, a step that takes longer than this says that it is alive."""


class DemoError(Exception):
    """A step failed; the message is what the last lines shall say."""


@dataclass(frozen=True)
class Place:
    """The folders of one demo."""

    home: Path

    @property
    def airflow(self) -> Path:
        """Give Airflow's home."""
        return self.home / "airflow"

    @property
    def database(self) -> Path:
        """Give the metadata database."""
        return self.airflow / "airflow.db"

    @property
    def failures(self) -> Path:
        """Give the file with one line of JSON for each failed task."""
        return self.airflow / "failures.jsonl"

    @property
    def logs(self) -> Path:
        """Give the folder with one log for each step."""
        return self.home / "logs"

    @property
    def payloads(self) -> Path:
        """Give the folder that is the bucket."""
        return self.home / "payloads"

    @property
    def project(self) -> Path:
        """The one folder that the template made."""
        return next(path for path in (self.home / "baked").iterdir() if path.is_dir())

    def environment(self) -> dict[str, str]:
        """Return what Airflow needs to run here, without what the caller's shell says about others."""
        foreign = ("AIRFLOW", "GOOGLE_", "CLOUDSDK_", "STORAGE_EMULATOR_HOST", "PYTHON")
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(foreign)},
            "AIRFLOW_HOME": str(self.airflow),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.project / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__XCOM_BACKEND": "include.xcom_backend.GCPBucketXComBackend",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.database}",
            "AIRFLOW__GCS_XCOM__BUCKET": f"file://{self.payloads}",
            "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
            "NO_COLOR": "1",
            "PYTHONPATH": str(self.project),
        }


# ------------------------------------------------------------------------------------------ progress


class Progress:
    """Says what goes on: one line per step, rewritten while it runs where the output is a terminal."""

    def __init__(self, out: IO[str]) -> None:
        self.out = out
        self.live = out.isatty()
        self.step = ""
        self.began = 0.0
        self.told = 0.0

    def start(self, step: str) -> None:
        """Begin a step."""
        self.step, self.began = step, time.monotonic()
        self.told = self.began
        self.note("")

    def note(self, news: str) -> None:
        """Show that the step is alive; called as often as one likes."""
        now = time.monotonic()
        if self.live:
            self.out.write("\r\033[K" + self._line(news or "..."))
            self.out.flush()
        elif now - self.told >= HEARTBEAT_SECONDS:
            self.told = now
            print(self._line(f"... {news}".rstrip()), file=self.out, flush=True)

    def end(self, outcome: str) -> None:
        """End the step with a line that stays."""
        self.out.write("\r\033[K" if self.live else "")
        print(self._line(outcome), file=self.out, flush=True)

    def _line(self, text: str) -> str:
        # One less than the terminal has: in the last column some of them begin a new line.
        return f"  {self.step:<36.36} {text:<30.30} {time.monotonic() - self.began:6.1f} s"


def run_step(progress: Progress, step: str, command: list[str], log: Path, **options: Any) -> None:
    """Run a command as one step of the progress, its output in a log.

    Raises:
        DemoError: It failed; the message ends with the log's last lines.
    """
    progress.start(step)
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, **options)
        try:
            while process.poll() is None:
                progress.note("")
                time.sleep(0.2)
        finally:
            stop(process)
    if process.returncode:
        progress.end("FAILED")
        last = log.read_text(errors="replace").rstrip().splitlines()[-12:]
        raise DemoError("\n".join([f"{step} failed:", *last, f"whole log: {relative(log)}"]))
    progress.end("done")


def stop(process: subprocess.Popen[Any]) -> None:
    """Leave no child behind, whatever ended the wait for it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def relative(path: Path) -> str:
    """Return a path as one would type it here."""
    return os.path.relpath(path)


# ---------------------------------------------------------------------------------------- preparation


MARK = "made-by-demo"
"""The first file in the folder of a demo: looked for before anything is removed, and locked while it runs."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep two demos from running in one folder: the second would remove what the first works with.

    Raises:
        DemoError: The folder is something else than a demo's, or a demo runs in it. Nothing was changed.
    """
    mark = folder / MARK
    if folder.exists() and any(folder.iterdir()) and not mark.exists():
        raise DemoError(f"{folder} was not made by this demo, and is not removed for it: name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    with mark.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoError(f"another demo runs in {folder}: wait for it, or name another --folder") from None
        yield


def clear(folder: Path) -> None:
    """Remove what the last demo left, but for the mark, which is locked."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != MARK:
            path.unlink()


def bake(place: Place, progress: Progress) -> None:
    """Make a project with default answers from this checkout, as it is now."""
    clear(place.home)
    template = place.home / "template"
    # A copy without what tools leave in a checkout: cookiecutter would render their caches as well,
    # and stop at the first binary file that it takes for text.
    (project,) = ROOT.glob("{{*")
    ignore = shutil.ignore_patterns("__pycache__", ".*_cache", ".DS_Store")
    for part in (project, ROOT / "hooks"):
        shutil.copytree(part, template / part.name, ignore=ignore)
    shutil.copy(ROOT / "cookiecutter.json", template)
    for folder in (place.logs, place.home / "baked", place.airflow / "config"):
        folder.mkdir(parents=True)
    # JSON is YAML. Without this the answers would be kept in the home directory of whoever runs it.
    config = place.home / "cookiecutter.yaml"
    config.write_text(json.dumps({"replay_dir": str(place.home / "replay")}))
    command = [sys.executable, "-m", "cookiecutter", str(template), "--no-input"]
    command += ["--config-file", str(config), "--output-dir", str(place.home / "baked")]
    run_step(progress, "bake the template, default answers", command, place.logs / "bake.log")


def migrate(place: Place, progress: Progress) -> None:
    """Make the metadata database and the folder of the payloads."""
    place.payloads.mkdir()
    shutil.copy(HERE / "airflow_local_settings.py", place.airflow / "config")
    command = [sys.executable, "-m", "airflow", "db", "migrate"]
    log = place.logs / "migrate.log"
    run_step(progress, "airflow db migrate", command, log, cwd=place.project, env=place.environment())


# ------------------------------------------------------------------------------------------------ run


@dataclass(frozen=True)
class Failure:
    """Why a Dag did not succeed."""

    dag: str
    task: str
    reason: str
    log: Path

    def __str__(self) -> str:
        where = f"task {self.task} of Dag {self.dag}" if self.task else f"Dag {self.dag}"
        return f"FAILED: {where}\n{shorten_reason(self.reason)}\nwhole log: {relative(self.log)}"


def run_dags(place: Place, chosen: list[str], progress: Progress) -> tuple[list[str], list[Failure]]:
    """Run Dags through Airflow; return the ids of those that ran, and why some failed.

    Raises:
        DemoError: A Dag that was asked for is not there, or Airflow itself ended before its time.
    """
    place.failures.unlink(missing_ok=True)
    log = place.logs / "airflow.log"
    progress.start("start Airflow")
    process = subprocess.Popen(
        [sys.executable, str(HERE / "run_dags.py"), str(place.logs), *chosen],
        stdout=subprocess.PIPE,
        stderr=log.open("ab"),
        cwd=place.project,
        env=place.environment(),
        text=True,
    )
    ran: list[str] = []
    failures: list[Failure] = []
    try:
        for event in events(process, lambda: progress.note(tasks_so_far(place.database, ran[-1:]))):
            if event["event"] == "dags":
                missing = [dag for dag in chosen if dag not in event["ids"]]
                if missing and not event["broken"]:
                    progress.end("FAILED")
                    raise DemoError(f"no Dag {', '.join(missing)}; there are {', '.join(event['ids'])}")
                for file, why in event["broken"].items():
                    reason = why.strip().splitlines()[-1]
                    failures.append(Failure(Path(file).name, "", f"cannot be imported: {reason}", log))
            elif event["event"] == "ready":
                progress.end("done")
            elif event["event"] == "started":
                ran.append(event["dag"])
                progress.start(event["dag"])
            else:
                done = tasks_so_far(place.database, ran[-1:])
                progress.end(done if event["reason"] is None else f"FAILED, {done}")
                if event["reason"] is not None:
                    failures.append(failure_of(place, event["dag"], event["reason"]))
    finally:
        stop(process)
    if process.returncode:
        progress.end("FAILED")
        current = place.logs / f"{ran[-1]}.log" if ran else log
        last = current.read_text(errors="replace").rstrip().splitlines()[-12:]
        raise DemoError("\n".join(["Airflow ended:", *last, f"whole log: {relative(current)}"]))
    return ran, failures


def events(process: subprocess.Popen[str], idle: Callable[[], None]) -> Iterator[dict[str, Any]]:
    """Yield what the runner says until it ends; call ``idle`` while it says nothing."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=0.5)
        except queue.Empty:
            idle()
            continue
        if line is None:
            process.wait()
            return
        yield json.loads(line)


def tasks_so_far(database: Path, dags: list[str]) -> str:
    """Count the task instances of a Dag's last run: all, and those that are done."""
    if not dags:
        return ""
    try:
        states = [state for (state,) in query(database, LAST_RUN + "SELECT state FROM ti", dags)]
    except sqlite3.OperationalError:
        return ""  # Airflow is writing; the next look will do.
    done = sum(state in ("success", "skipped", "failed", "upstream_failed") for state in states)
    return f"{done} tasks" if done == len(states) else f"{done} of {len(states)} tasks"


def failure_of(place: Place, dag: str, reason: str) -> Failure:
    """Find the task that failed first, and its exception."""
    lines = place.failures.read_text().splitlines() if place.failures.exists() else []
    for failure in map(json.loads, lines):
        if failure["dag"] == dag:
            index = f"[{failure['map_index']}]" if failure["map_index"] >= 0 else ""
            return Failure(dag, failure["task"] + index, failure["error"], place.logs / f"{dag}.log")
    return Failure(dag, "", reason, place.logs / f"{dag}.log")


def shorten_reason(reason: str, lines: int = 10) -> str:
    """Return a reason of a few lines, so that what ends the output can be seen at a glance."""
    parts = reason.strip().splitlines()
    return "\n".join(part[:400] for part in parts[:lines]) + ("\n..." if len(parts) > lines else "")


# ---------------------------------------------------------------------------------------------- table

LAST_RUN = """
WITH run AS (SELECT dag_id, run_id FROM dag_run WHERE dag_id = ? ORDER BY id DESC LIMIT 1),
     ti AS (SELECT task_instance.* FROM task_instance JOIN run USING (dag_id, run_id))
"""
XCOMS = (
    LAST_RUN
    # SQLite keeps JSON that looks like a number as one.
    + """
SELECT task_id, map_index, key, CAST(value AS TEXT), duration
FROM ti JOIN xcom USING (dag_id, run_id, task_id, map_index)
ORDER BY ti.start_date, map_index, xcom.timestamp
"""
)


@dataclass(frozen=True)
class Passed:
    """One XCom: a value that a task handed on."""

    task: str
    map_index: int
    key: str
    type: str
    extent: str
    """Rows and columns, a shape, or a number of items, as people write it."""
    rows: int
    raw_bytes: int | None
    stored_bytes: int
    codec: str
    path: str
    """Below the folder of the payloads; empty when the value is in the database."""
    seconds: float


def query(database: Path, statement: str, values: list[str]) -> list[tuple[Any, ...]]:
    """Ask the metadata database, without being able to change it."""
    connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=1)
    try:
        return connection.execute(statement, values).fetchall()
    finally:
        connection.close()


def read_passed(place: Place, dag: str) -> list[Passed]:
    """Read what the tasks of a Dag's last run passed on, from the rows that Airflow keeps."""
    if str(place.project) not in sys.path:
        sys.path.insert(0, str(place.project))
    from include.xcom.reference import PayloadReference

    found = []
    for task, map_index, key, text, seconds in query(place.database, XCOMS, [dag]):
        row = json.loads(text) if text is not None else None
        reference = PayloadReference.from_row(row)
        if reference is None:
            facts: tuple[str, str, int, int | None, int, str, str]
            facts = (name_of_type(row), "", 0, None, len((text or "").encode()), "", "")
        else:
            extent, rows = extent_of(reference.summary)
            path = reference.uri.removeprefix(f"file://{place.payloads}/")
            facts = (
                reference.type,
                extent,
                rows,
                reference.raw_bytes,
                reference.bytes,
                reference.codec,
                path,
            )
        found.append(Passed(task, map_index, key, *facts, seconds or 0.0))  # type: ignore[call-arg]
    return found


def name_of_type(row: object) -> str:
    """Return the type of a value that is in the database: as JSON, or in our form or that of Airflow's serde."""
    from include.xcom import codecs
    from include.xcom.errors import PayloadError

    try:
        decoded = codecs.decode_row(row)
    except PayloadError:  # Of a class that only the Dag's own environment has.
        return "an object"
    if decoded is not None:
        return type(decoded[0]).__name__
    if isinstance(row, dict) and isinstance(row.get("__classname__"), str):
        return str(row["__classname__"])
    return "None" if row is None else type(row).__name__


def extent_of(summary: dict[str, Any]) -> tuple[str, int]:
    """Return how much a value is, as people write it, and the part of it that can be added up."""
    if "rows" in summary:
        columns = f" x {summary['columns']}" if "columns" in summary else " rows"
        return f"{summary['rows']:,}{columns}", summary["rows"]
    if "items" in summary:
        return f"{summary['items']:,} items", summary["items"]
    return str(summary.get("shape", "")), 0


def condense(values: list[Passed]) -> list[list[str]]:
    """Return the table's cells: one row for the values of a kind that a task's instances passed."""
    kinds: dict[tuple[str, ...], list[Passed]] = {}
    for value in values:
        suffix = extension(value.path)
        kinds.setdefault((value.task, value.type, value.codec, suffix), []).append(value)
    return [cells(group) for group in kinds.values()]


def cells(group: list[Passed]) -> list[str]:
    """Return one row of the table for values of one task and one kind."""
    first = group[0]
    instances = {value.map_index: value.seconds for value in group}
    keys = list(dict.fromkeys(value.key for value in group))
    task = first.task
    if first.map_index >= 0:
        task += f" x{len(instances)}" if len(instances) > 1 else f" [{first.map_index}]"
    if keys != ["return_value"]:
        task += f": {keys[0]}" if len(keys) == 1 else f": {keys[0]}..{keys[-1]}"
    extent = first.extent
    if len(group) > 1 and first.rows:
        extent = extent.replace(f"{first.rows:,}", f"{sum(value.rows for value in group):,}", 1)
    elif len({value.extent for value in group}) > 1:
        extent = ""
    where = extension(first.path) if first.path else "database"
    if first.path and len(group) > 1:
        where = f"{len(group)} x {where}"
    return [
        task,
        first.type.rpartition(".")[2],
        extent,
        size(sum(value.raw_bytes or 0 for value in group)) if first.path else "",
        size(sum(value.stored_bytes for value in group)),
        where,
        f"{sum(instances.values()):.1f}",
    ]


def extension(path: str) -> str:
    """Return what follows the first dot of a file's name: ``.json.zst``."""
    name = path.rpartition("/")[2]
    return name[name.index(".") :] if "." in name else ""


def size(count: int) -> str:
    """Write a number of bytes in at most eight characters."""
    if count < 1000:
        return f"{count} B"
    for unit in ("kB", "MB", "GB"):
        count_in_unit = count / 1000 ** (1 + ("kB", "MB", "GB").index(unit))
        if count_in_unit < 999.95 or unit == "GB":
            break
    return f"{count_in_unit:.1f} {unit}"


HEADINGS = ["task (: key)", "type", "rows, shape", "memory", "stored", "where", "s"]
WIDEST = [30, 12, 14, 8, 8, 14, 8]
RIGHT = {3, 4, 6}


def table(passed: dict[str, list[Passed]]) -> list[str]:
    """Return the lines of the table, each of at most ``WIDTH`` characters."""
    groups = {dag: condense(values) for dag, values in passed.items()}
    rows = [HEADINGS, *(row for group in groups.values() for row in group)]
    widths = [min(widest, max(len(row[i]) for row in rows)) for i, widest in enumerate(WIDEST)]
    # What is wide gives way first: the names of tasks and keys.
    widths[0] -= max(0, sum(widths) + len(widths) - 1 - WIDTH)

    def line(row: list[str]) -> str:
        parts = []
        for i, (text, width) in enumerate(zip(row, widths, strict=True)):
            text = text if len(text) <= width else text[: width - 2] + ".."
            parts.append(text.rjust(width) if i in RIGHT else text.ljust(width))
        return " ".join(parts).rstrip()

    lines = []
    for dag, group in groups.items():
        lines += ["", dag, line(HEADINGS), "-" * (sum(widths) + len(widths) - 1), *map(line, group)]
    return [text if len(text) <= WIDTH else text[: WIDTH - 2] + ".." for text in lines]


def summary(passed: dict[str, list[Passed]]) -> str:
    """Say in one sentence what passed."""
    values = [value for group in passed.values() for value in group]
    payloads = [value for value in values if value.path]
    inline = [value for value in values if not value.path]
    return (
        f"{len(payloads)} payloads, {size(sum(value.raw_bytes or 0 for value in payloads))} in memory and "
        f"{size(sum(value.stored_bytes for value in payloads))} stored;\n"
        f"{len(inline)} small values, {size(sum(value.stored_bytes for value in inline))}, in the database."
    )


def write_csv(passed: dict[str, list[Passed]], file: Path) -> None:
    """Write every value in full, one a line, for those to whom the table is too short."""
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        fields = list(Passed.__dataclass_fields__)
        writer.writerow(["dag", *fields])
        for dag, values in passed.items():
            writer.writerows([dag, *(getattr(value, field) for field in fields)] for value in values)


# ----------------------------------------------------------------------------------------------- main


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="demo.py",
        description="Bake the template, run its example Dags through Airflow, show what passed between tasks.",
        epilog="Everything lies in .demo/ afterwards: the project, its database, the payloads, the logs.",
    )
    parser.add_argument("dags", nargs="*", metavar="DAG", help="run only this Dag (default: every Dag)")
    parser.add_argument(
        "--keep", action="store_true", help="go on with the project and database of last time"
    )
    parser.add_argument("--add", action="append", default=[], type=Path, metavar="FILE",
                        help="copy this Dag file into the baked project, too")  # fmt: skip
    parser.add_argument("--folder", type=Path, default=ROOT / ".demo", metavar="FOLDER",
                        help="instead of .demo; it is removed first, unless --keep is given")  # fmt: skip
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the demo; return the exit code."""
    options = arguments(argv)
    place = Place(options.folder.resolve())
    try:
        with alone(place.home):
            return run(place, options, Progress(sys.stdout))
    except DemoError as error:
        print(f"\n{error}", flush=True)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", flush=True)
        return 130


def run(place: Place, options: argparse.Namespace, progress: Progress) -> int:
    """Take all steps, print the table; return the exit code.

    Raises:
        DemoError: A step failed, so that there is nothing to show.
    """
    began = time.monotonic()
    if not (options.keep and place.database.exists()):
        bake(place, progress)
        migrate(place, progress)
    for file in options.add:
        shutil.copy(file, place.project / "dags")
    ran, failures = run_dags(place, options.dags, progress)

    passed = {dag: read_passed(place, dag) for dag in ran}
    write_csv(passed, place.home / "passed.csv")
    print(*table(passed), sep="\n")
    print(f"\n{summary(passed)} Took {time.monotonic() - began:.0f} s.")
    print(f"Payloads: {relative(place.payloads)}/xcom/DAG/RUN/TASK/MAP_INDEX/KEY/")
    print(f"Each value in full: {relative(place.home / 'passed.csv')}")
    print("\nThe same in Airflow's UI, with Docker; then open http://localhost:8080")
    print(f"  pipx run cookiecutter --no-input {relative(ROOT)}")
    print(f"  cd {place.project.name} && docker compose up -d --build --wait --wait-timeout 300")
    for failure in failures:
        print(f"\n{failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
