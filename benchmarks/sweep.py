#!/usr/bin/env python3
"""Measure how many live objects a sweep looks at in a second, against a real API server with PostgreSQL.

benchmarks/sweep.py                       5,000 objects, two minutes
benchmarks/sweep.py --objects 100000      as docs/operations.md quotes it

In the same run, the same sweep asks for every row singly (--thorough) on some of the Dag runs: that is what
every sweep did before rows were listed. Objects are empty files, because only Airflow's part is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [
    str(ROOT / "tests"),
    str(ROOT / "tests/payload"),
    str(ROOT / "{{cookiecutter.project_slug}}"),
]
os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="airflow-home-"))

from airflow_server import PASSWORD, USERNAME, environment  # noqa: E402
from postgres import postgres_server  # noqa: E402
from servers import answers  # noqa: E402

UNIQUE = "0123456789abcdef0123456789abcdef"
DAG = "sales"


def main(argv: list[str] | None = None) -> int:
    """Print a line for each way; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--objects", type=int, default=5000, help="live objects in all (default: 5000)")
    parser.add_argument("--of-run", type=int, default=100, help="XComs of each Dag run (default: 100)")
    parser.add_argument("--singly", type=int, default=200, help="objects asked about singly (default: 200)")
    parser.add_argument("--concurrency", type=int, default=4, help="requests at a time (default: 4)")
    given = parser.parse_args(argv)
    with airflow() as (url, database), tempfile.TemporaryDirectory() as folder:
        runs = given.objects // given.of_run
        fill(database, runs, given.of_run, folder)
        print(
            f"{runs * given.of_run} live objects in {runs} Dag runs, {given.concurrency} requests at a time"
        )
        # Printed at once: the folder takes minutes to be removed.
        singly = sweep(url, folder, given.concurrency, most=given.singly, is_thorough=True)
        print(f"one by one: {singly:.0f} objects per second", flush=True)
        listed = sweep(url, folder, given.concurrency)
        factor = listed / singly
        print(f"by pages of rows: {listed:.0f} objects per second, {factor:.1f} times as many")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"peak memory of this process: {peak:.0f} MiB", flush=True)
    return 0


@contextmanager
def airflow() -> Iterator[tuple[str, str]]:
    """Start an API server with a database of its own; yield its URL and that of the database."""
    home = Path(tempfile.mkdtemp(prefix="sweep-"))
    (home / "dags").mkdir()
    (home / "passwords.json").write_text(json.dumps({USERNAME: PASSWORD}))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with postgres_server() as where, (home / "server.log").open("wb") as log:
        variables = environment(home, port) | {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{where}"
        }
        command = [sys.executable, "-m", "airflow"]
        subprocess.run([*command, "db", "migrate"], env=variables, cwd=home, capture_output=True, check=True)
        serve = [*command, "api-server", "--host", "127.0.0.1", "--port", str(port), "--apps", "core"]
        server = subprocess.Popen(serve, env=variables, cwd=home, stdout=log, stderr=log)
        try:
            if not answers(f"http://127.0.0.1:{port}/api/v2/version", server, seconds=180, pause=0.2):
                raise RuntimeError(f"the API server does not answer: {home / 'server.log'}")
            yield f"http://127.0.0.1:{port}", f"postgresql://{where}"
        finally:
            server.terminate()
            server.wait(30)


def fill(database: str, runs: int, of_run: int, folder: str) -> None:
    """Write the rows of a Dag with mapped tasks, and the payload that each of them names."""
    import psycopg2

    with psycopg2.connect(database) as connection, connection.cursor() as cursor:
        insert(cursor, "dag_bundle", name="'b'", active="true")
        insert(cursor, "dag", dag_id=f"'{DAG}'", bundle_name="'b'", is_stale="false", is_paused="false")
        run = "'manual__' || lpad(r::text, 6, '0')"
        every_run = f"generate_series(0, {runs - 1}) r"
        every = f"{every_run}, generate_series(0, {of_run - 1}) i"
        known = {"dag_id": f"'{DAG}'", "run_id": run}
        insert(cursor, "dag_run", every_run, id="r + 1", state="'success'", run_type="'manual'", **known)
        ids = {**known, "task_id": "'load'", "map_index": "i"}
        insert(cursor, "task_instance", every, id="gen_random_uuid()", state="'success'", **ids)
        uri = f"'file://{folder}/xcom/{DAG}/' || {run} || '/load/' || i || '/return_value/{UNIQUE}.bin'"
        facts = "'type', 'bytes', 'bytes', 1, 'raw_bytes', 1, 'codec', 'bytes', 'codec_version', 1"
        data = f"jsonb_build_object('uri', {uri}, {facts}, 'crc32c', '00000000', 'generation', '0')"
        row = f"jsonb_build_object('__classname__', 'gcs_xcom.Payload', '__version__', 1, '__data__', {data})"
        insert(cursor, "xcom", every, dag_run_id="r + 1", key="'return_value'", value=row, **ids)
        cursor.execute("analyze")
    for number in range(runs):
        for index in range(of_run):
            path = Path(folder, "xcom", DAG, f"manual__{number:06}", "load", str(index), "return_value")
            path.mkdir(parents=True)
            (path / f"{UNIQUE}.bin").touch()
            os.utime(path / f"{UNIQUE}.bin", (0, 0))


def insert(cursor: Any, table: str, series: str = "generate_series(1, 1)", **values: str) -> None:
    """Insert a row for each element of a series; columns that need a value get one of their type."""
    cursor.execute(
        "select column_name, data_type from information_schema.columns where table_name = %s and is_nullable = "
        "'NO' and column_default is null and is_identity = 'NO'",
        (table,),
    )
    for name, kind in cursor.fetchall():
        filler = {"boolean": "false", "integer": "0", "bigint": "0", "double precision": "0"}.get(
            kind, "'{}'"
        )
        values.setdefault(name, "now()" if "time" in kind else filler)
    columns = ", ".join(f'"{name}"' for name in values)
    cursor.execute(f"insert into {table} ({columns}) select {', '.join(values.values())} from {series}")


def sweep(
    url: str, folder: str, concurrency: int, *, most: int | None = None, is_thorough: bool = False
) -> float:
    """Sweep, as a dry run; return the objects per second."""
    from include.xcom.commands.api import AirflowAPI, Login
    from include.xcom.commands.orphans import Sweep
    from include.xcom.stores import DirectoryStore

    class First(DirectoryStore):
        """Lists the first objects only."""

        def list(self, prefix: str, start: str = "") -> Iterator[Any]:
            for page in super().list(prefix, start):
                yield page[:most]
                if most:
                    return

    found = Sweep(
        store=First(f"file://{folder}"),
        api=AirflowAPI(Login(url, USERNAME, PASSWORD), concurrency),
        root=f"file://{folder}/xcom/",
        prefix="xcom/",
        created_before=time.time(),
        is_thorough=is_thorough,
        concurrency=concurrency,
    )
    began = time.monotonic()
    for run in found.runs():
        if run.orphans or run.failed or run.undecided:
            raise RuntimeError(f"every object is live, and of {run.run_id} this was said: {run}")
    return found.total.objects / (time.monotonic() - began)


if __name__ == "__main__":
    sys.exit(main())
