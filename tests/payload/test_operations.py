"""The commands against a real fake-gcs-server and a real API server of Airflow.

One API server for all tests: it takes several seconds to start. Every test has a bucket and Dag runs
of its own.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock
from urllib.parse import quote
from uuid import uuid4

import pytest
import urllib3
from airflow_server import PASSWORD, USERNAME, AirflowServer, environment, start
from fake_gcs_server import ROOT, GCSServer
from fault_proxy import FaultProxy, answer, flip_download, reset_in_answer, through


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowServer]:
    """A running API server with an empty database."""
    pytest.importorskip("airflow")
    server = start(tmp_path_factory.mktemp("airflow"))
    try:
        yield server
    finally:
        server.process.terminate()
        server.process.wait(30)


@pytest.fixture
def bucket(gcs_server: GCSServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """The deployment's bucket, behind a proxy that counts and breaks requests."""
    with FaultProxy(gcs_server.url) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        monkeypatch.setenv("AIRFLOW__GCS_XCOM__BUCKET", gcs_server.bucket)
        monkeypatch.setenv("AIRFLOW__GCS_XCOM__TIMEOUT_SECONDS", "5")
        yield proxy


@pytest.fixture
def operator(airflow: AirflowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the commands may ask Airflow."""
    monkeypatch.setenv("AIRFLOW_API_URL", airflow.url)
    monkeypatch.setenv("AIRFLOW_API_USERNAME", USERNAME)
    monkeypatch.setenv("AIRFLOW_API_PASSWORD", PASSWORD)


@pytest.fixture
def claimed(operator: None, bucket: FaultProxy, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody has said that this Airflow's deployment alone uses the bucket."""
    assert command("sweep", "--claim") == 0
    assert "Claimed" in capsys.readouterr().err


def command(*words: str) -> int:
    """Run a command in this process, and return its exit code."""
    from include.xcom.__main__ import main

    return main(list(words))


def sweep_later(*words: str) -> int:
    """Sweep as it would two days from now: all that is there is old then."""
    from include.xcom.commands import sweep

    with mock.patch.object(sweep, "time", SimpleNamespace(time=lambda: time.time() + 2 * 86_400)):
        return command("sweep", "--age-days", "1", *words)


def payloads_in(server: GCSServer) -> list[str]:
    """Return the names of all objects but the claim of the prefix."""
    return [name for name in server.names() if "/=deployment/" not in name]


def object_of(
    run: str, task: str = "load", index: int = -1, *, dag: str = "sales", prefix: str = "xcom"
) -> str:
    """Return a new object's name as the backend makes it."""
    from include.xcom.reference import Coordinates, object_name

    return object_name(prefix, Coordinates(dag, run, task, index, "return_value"), uuid4().hex, "bin")


def reference_to(bucket: str, name: str) -> dict[str, Any]:
    """Return the row that refers to an object."""
    from include.xcom.reference import PayloadReference

    reference = PayloadReference(f"gs://{bucket}/{name}", "bytes", 1, 1, "bytes", 1, "00000000", "1")
    return reference.to_row()


def new_run(airflow: AirflowServer, tasks: list[tuple[str, int]]) -> str:
    """Add a run of the Dag "sales" with task instances."""
    run = f"manual__{uuid4().hex[:12]}"
    airflow.add_run("sales", run, tasks)
    return run


def test_sweep_of_3000_objects_takes_pages_and_little_memory(
    airflow: AirflowServer,
    claimed: None,
    bucket: FaultProxy,
    gcs_server: GCSServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Memory is that of a page, whatever the bucket holds; runs without rows cost one question each."""
    from include.xcom.stores import json_api

    monkeypatch.setattr(json_api, "PAGE_OBJECTS", 200)
    live = new_run(airflow, [("load", -1)])
    kept = object_of(live)
    airflow.set_row("sales", live, "load", -1, "return_value", reference_to(gcs_server.bucket, kept))
    names = [object_of(f"manual__gone_{number % 10}", "map", number) for number in range(2999)] + [kept]
    pool = urllib3.PoolManager(maxsize=4)
    upload = f"{gcs_server.url}/upload/storage/v1/b/{gcs_server.bucket}/o?uploadType=media&name="
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda name: pool.request("POST", upload + quote(name, safe=""), body=b"x"), names))
    before = bucket.count()

    tracemalloc.start()
    code = sweep_later("--json")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    total = json.loads(capsys.readouterr().out.splitlines()[-1])["total"]
    assert code == 0
    assert (total["objects"], total["orphans"], total["kept"], total["deleted"]) == (3000, 2999, 1, 0)
    # Sixteen pages, since the claim is in one of them, the list of claims, and that of state objects.
    assert bucket.count() - before == 18
    assert peak < 12_000_000
    assert bucket.count("DELETE") == 0


_MILLION = """
import pathlib, re, resource, sys
from include.xcom.commands.orphans import Sweep
from include.xcom.commands.api import RowPage
from include.xcom.stores import Listed

class Store:
    def list(self, prefix, start=""):
        for first in range(0, int(sys.argv[1]), 1000):
            names = [
                f"xcom/sales/manual__{number // 50:08}/load/{number % 50}/return_value/{number:032x}.bin"
                for number in range(first, first + 1000)
            ]
            yield [Listed(f"gs://acme/{name}", name, "1", 1, 0.0) for name in names]

class API:
    def version(self):
        return (3, 3)

    def knows_dag(self, dag_id):
        return True

    def list_rows(self, dag_id, run_id=None, task_id=None, **more):
        return RowPage([], 1_000_000 if run_id is None else 0)

    def all_rows(self, dag_id, run_id):
        return iter(())

sweep = Sweep(Store(), API(), "gs://acme/xcom/", "xcom/", 1.0)
runs = sum(1 for run in sweep.runs())
status = pathlib.Path("/proc/self/status")
if status.exists():  # What getrusage says on Linux may be of the process that started this one.
    peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text())[1]) * 1024
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(runs, sweep.total.orphans, peak)
"""


def test_sweep_of_300_000_objects_takes_the_memory_of_ten_thousand() -> None:
    """Of the whole process; a byte kept for each object, or four for each run, would show."""

    def measure(count: int) -> tuple[int, int, int]:
        done = subprocess.run(
            [sys.executable, "-c", _MILLION, str(count)],
            cwd=ROOT / "{{cookiecutter.project_slug}}",
            capture_output=True,
            text=True,
            check=True,
        )
        runs, orphans, peak = map(int, done.stdout.split())
        return runs, orphans, peak

    *few, little = measure(10_000)
    *many, much = measure(300_000)

    assert (few, many) == ([200, 10_000], [6_000, 300_000])
    assert much - little < 1_500_000


def test_sweep_that_is_interrupted_goes_on_where_it_was(
    airflow: AirflowServer,
    claimed: None,
    bucket: FaultProxy,
    gcs_server: GCSServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ctrl-C ends it with the name to resume from; together both delete every orphan and nothing else."""
    from include.xcom.stores import bucket as gcs
    from include.xcom.stores import json_api

    monkeypatch.setattr(json_api, "PAGE_OBJECTS", 20)
    live = new_run(airflow, [("load", -1)])
    kept = object_of(live)
    airflow.set_row("sales", live, "load", -1, "return_value", reference_to(gcs_server.bucket, kept))
    for name in [kept, *(object_of("manual__gone", "map", number) for number in range(80))]:
        gcs_server.write(name, b"x")

    # Ignored where the tests run in the background of a shell script.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    delete, done = gcs.GCSStore.delete, itertools.count(1)

    def delete_and_interrupt(store: Any, uri: str, generation: str) -> bool:
        was_there = delete(store, uri, generation)
        if next(done) == 25:
            os.kill(os.getpid(), signal.SIGINT)
        return was_there

    monkeypatch.setattr(gcs.GCSStore, "delete", delete_and_interrupt)
    try:
        stopped = sweep_later("--delete")
    finally:
        signal.signal(signal.SIGINT, before)
    said = capsys.readouterr().err
    left = len(payloads_in(gcs_server))
    resume = said.rpartition("--resume ")[2].strip().strip("'")

    assert stopped == 1
    assert 1 < left < 60
    assert resume.startswith("xcom/sales/manual__gone/")
    assert sweep_later("--delete", "--resume", resume) == 0
    assert payloads_in(gcs_server) == [kept]


def test_sweep_deletes_orphans_of_every_kind_and_nothing_else(
    airflow: AirflowServer,
    claimed: None,
    bucket: FaultProxy,
    gcs_server: GCSServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Pushed twice, row deleted, killed before the row; kept: referred to, foreign prefix and Dag."""
    run = new_run(airflow, [("load", -1), ("map", 0), ("map", 10), ("inline", -1)])
    first, second = object_of(run), object_of(run)
    mapped = [object_of(run, "map", index) for index in (0, 10)]
    inline, killed = object_of(run, "inline"), object_of(run, "killed")
    cleaned = object_of("manual__cleaned")
    foreign = [
        object_of(run, prefix="other"),
        object_of(run, prefix="xcom2"),
        object_of(run, dag="theirs"),
        "xcom/x",
    ]
    for name in (first, second, *mapped, inline, killed, cleaned, *foreign):
        gcs_server.write(name, b"x")
    for task, index, name in (("load", -1, second), ("map", 0, mapped[0]), ("map", 10, mapped[1])):
        airflow.set_row("sales", run, task, index, "return_value", reference_to(gcs_server.bucket, name))
    airflow.set_row("sales", run, "inline", -1, "return_value", {"small": "now"})

    assert command("sweep") == 0
    assert sweep_later() == 0
    assert bucket.count("DELETE") == 0
    assert sweep_later("--delete") == 0
    # It has a row, and only that row, asked for singly, tells that it is inline now.
    assert payloads_in(gcs_server) == sorted([second, *mapped, *foreign, inline])
    assert sweep_later("--delete", "--thorough") == 0
    assert payloads_in(gcs_server) == sorted([second, *mapped, *foreign])
    said = capsys.readouterr()
    assert "9 younger than 7 days" in said.out
    assert "3 of 3 orphans deleted" in said.out
    assert "1 of 1 orphans deleted" in said.out
    assert "Airflow does not know the Dag" in said.err


def test_sweep_keeps_what_gets_its_row_meanwhile(
    airflow: AirflowServer,
    claimed: None,
    bucket: FaultProxy,
    gcs_server: GCSServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The row is written between the listing and the deletion."""
    from include.xcom.commands.api import AirflowAPI

    run = new_run(airflow, [("load", -1)])
    name = object_of(run)
    gcs_server.write(name, b"x")
    list_rows = AirflowAPI.list_rows

    def and_then_write(self: AirflowAPI, *ids: str, **more: Any) -> Any:
        found = list_rows(self, *ids, **more)
        airflow.set_row("sales", run, "load", -1, "return_value", reference_to(gcs_server.bucket, name))
        return found

    monkeypatch.setattr(AirflowAPI, "list_rows", and_then_write)

    assert sweep_later("--delete") == 0
    assert payloads_in(gcs_server) == [name]


def test_sweep_deletes_the_listed_generation_only(
    airflow: AirflowServer, claimed: None, bucket: FaultProxy, gcs_server: GCSServer
) -> None:
    """An object that is replaced after the list was made stays."""
    new_run(airflow, [])
    name = object_of("manual__gone")
    listed = gcs_server.write(name, b"x")

    assert sweep_later("--delete") == 0
    (target,) = [target for method, target, _ in bucket.requests if method == "DELETE"]
    assert target.endswith(f"?generation={listed}")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        pytest.param(
            "AIRFLOW_API_PASSWORD", "wrong", f"user '{USERNAME}' was not accepted", id="wrong-password"
        ),
        pytest.param("AIRFLOW_API_TOKEN", "no.such.token", "the token is not accepted", id="wrong-token"),
        pytest.param(
            "AIRFLOW_API_USERNAME", "", "set AIRFLOW_API_TOKEN, or AIRFLOW_API_USERNAME", id="no-login"
        ),
        pytest.param("AIRFLOW_API_URL", "http://127.0.0.1:9", "did not answer", id="api-down"),
        pytest.param("AIRFLOW_API_URL", "BUCKET", "no access to Airflow's API", id="another-server"),
    ],
)
def test_sweep_that_cannot_ask_deletes_nothing(
    name: str,
    value: str,
    words: str,
    airflow: AirflowServer,
    claimed: None,
    bucket: FaultProxy,
    gcs_server: GCSServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It says what to set, and the exit code is 1."""
    monkeypatch.setenv(name, gcs_server.url if value == "BUCKET" else value)
    names = sorted(object_of(f"manual__{number}") for number in range(3))
    for each in names:
        gcs_server.write(each, b"x")

    assert command("sweep", "--delete", "--unknown-dags") == 1
    assert words in capsys.readouterr().err
    assert payloads_in(gcs_server) == names


def test_maintenance_dag_sweeps_when_a_schedule_asks_for_it(
    airflow: AirflowServer, operator: None, tmp_path: Path
) -> None:
    """As a task of Airflow, over old files; without a schedule there is no such Dag."""
    project = ROOT / "{{cookiecutter.project_slug}}"
    home = airflow.database.parent
    (home / "dags" / "xcom_maintenance.py").write_bytes(
        (project / "dags" / "xcom_maintenance.py").read_bytes()
    )
    variables = environment(home, int(airflow.url.rpartition(":")[2])) | {"PYTHONPATH": str(project)}
    names = ("AIRFLOW_API_URL", "AIRFLOW_API_USERNAME", "AIRFLOW_API_PASSWORD")
    variables |= {name: os.environ[name] for name in names}
    variables["AIRFLOW__GCS_XCOM__BUCKET"] = tmp_path.as_uri()
    code = (
        "from airflow.dag_processing.dagbag import DagBag\n"
        "import sys\n"
        "print('dags:', list(DagBag(sys.argv[1]).dags))"
    )

    def run(*words: str, **more: str) -> str:
        done = subprocess.run(
            [sys.executable, *words],
            env=variables | more,
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    orphan = tmp_path / object_of("manual__gone")
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"x")
    os.utime(orphan, (0, 0))
    schedule = {"AIRFLOW__GCS_XCOM__SWEEP_SCHEDULE": "@weekly"}
    test = ("-m", "airflow", "dags", "test", "xcom_maintenance", "--conf")

    assert "dags: []" in run("-c", code, str(home / "dags"))
    # The Dag of the orphan is known once it has rows.
    live = new_run(airflow, [("load", -1)])
    airflow.set_row("sales", live, "load", -1, "return_value", 1)
    said = run(*test, "{}", **schedule)
    assert "no deployment has claimed" in said, said[-3000:]
    assert orphan.exists()
    said = run(*test, json.dumps({"claim": True, "delete": False}), **schedule)
    assert "1 orphan (1 B); nothing was deleted" in said, said[-3000:]
    said = run(*test, "{}", **schedule)
    assert "1 of 1 orphans deleted" in said, said[-3000:]
    assert not orphan.exists()


def test_fetch_of_a_damaged_download_leaves_nothing(
    bucket: FaultProxy, gcs_server: GCSServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Broken connections are tried again; a file appears only when every byte has arrived."""
    body = os.urandom(3_000_000)
    name = object_of("manual__1")
    gcs_server.write(name, body)
    uri = f"gs://{gcs_server.bucket}/{name}"
    target = tmp_path / "payload.bin"
    bucket.plan(through, reset_in_answer)
    assert command("fetch", uri, str(target)) == 0
    assert target.read_bytes() == body
    target.unlink()

    bucket.plan(flip_download, method="GET", path="alt=media", always=True)
    assert command("fetch", uri, str(target)) == 1
    assert "CRC32C" in capsys.readouterr().err
    assert list(tmp_path.glob("*payload*")) == []
    assert list(tmp_path.glob(".*.part")) == []


# What Cloud Storage says of an account without the role.
DENIED = json.dumps(
    {"error": {"message": "Caller does not have storage.objects.create access to the object."}}
).encode()
NO_SUCH_BUCKET = {"error": {"message": "conditionNotMet, or no such bucket"}}


class _Bucket(BaseHTTPRequestHandler):
    """A server that keeps one bucket's metadata, as fake-gcs-server does not."""

    resource: dict[str, Any]

    def do_GET(self) -> None:
        self._answer(self.resource.get("status", 200))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        # An object would be answered otherwise; no test stores one here.
        self._answer(self.resource.get("status", 200))

    def do_PATCH(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if f"ifMetagenerationMatch={self.resource['metageneration']}" not in self.path:
            self._answer(412)
            return
        self.resource.update(body, metageneration=str(int(self.resource["metageneration"]) + 1))
        self._answer()

    def _answer(self, status: int = 200) -> None:
        data = json.dumps(
            self.resource if status == 200 else json.loads(DENIED) if status == 403 else NO_SUCH_BUCKET
        ).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def resource(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The metadata of a bucket, served."""
    _Bucket.resource = {"name": "acme-xcom", "location": "EUROPE-WEST3", "metageneration": "7"}
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Bucket)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("AIRFLOW__GCS_XCOM__BUCKET", "acme-xcom")
    # It has no objects: what the doctor tries with one is tried again for so long.
    monkeypatch.setenv("AIRFLOW__GCS_XCOM__TIMEOUT_SECONDS", "1")
    yield _Bucket.resource
    server.shutdown()
    server.server_close()


def test_lifecycle_set_changes_one_rule(resource: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """Ours appears, then changes; another one stays; the command printed has both."""
    other = {"action": {"type": "Delete"}, "condition": {"age": 1, "matchesPrefix": ["logs/"]}}
    resource["lifecycle"] = {"rule": [other]}

    assert command("lifecycle", "show") == 0
    assert "no rule deletes objects below gs://acme-xcom/xcom/" in capsys.readouterr().out
    assert command("lifecycle", "set", "--age-days", "30") == 0
    assert command("lifecycle", "set", "--age-days", "90") == 0
    out = capsys.readouterr().out
    ours = {"action": {"type": "Delete"}, "condition": {"age": 90, "matchesPrefix": ["xcom/"]}}
    assert resource["lifecycle"] == {"rule": [other, ours]}
    assert "at an age of 90 days" in out
    assert json.dumps({"rule": [other, ours]}) in out
    assert "gcloud storage buckets update gs://acme-xcom --lifecycle-file=lifecycle.json" in out


def test_lifecycle_show_marks_other_rules_that_delete_payloads(
    resource: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The age is the least of all rules; whose it is stands beside the rule."""
    everything = {"action": {"type": "Delete"}, "condition": {"age": 1}}
    ours = {"action": {"type": "Delete"}, "condition": {"age": 90, "matchesPrefix": ["xcom/"]}}
    resource["lifecycle"] = {"rule": [everything, ours]}

    assert command("lifecycle", "show") == 0
    out = capsys.readouterr().out
    assert "are deleted at an age of 1 days" in out
    assert f"{json.dumps(everything)}  deletes payloads at 1 days" in out
    assert command("lifecycle", "show", "--json") == 0
    assert json.loads(capsys.readouterr().out)["age_days"] == 1


def test_lifecycle_set_on_a_server_that_keeps_no_rules_says_so(
    bucket: FaultProxy, capsys: pytest.CaptureFixture[str]
) -> None:
    """The emulator answers 200 and forgets."""
    assert command("lifecycle", "set", "--age-days", "30") == 1
    assert "does not keep lifecycle rules" in capsys.readouterr().err


def examined(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, dict[str, str]]:
    """Run the doctor without its slow look at how Airflow loads the class; findings by check."""
    command("doctor", "--json", *words)
    found = json.loads(capsys.readouterr().out)["findings"]
    return {f"{one['check']}: {one['level']}": one for one in found}


@pytest.fixture
def cloud(resource: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The same bucket, with nothing that says emulator."""
    from include.xcom.stores import bucket as gcs

    monkeypatch.setattr(gcs, "ENDPOINT", os.environ["STORAGE_EMULATOR_HOST"])
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv(
        "AIRFLOW_CONN_GOOGLE_CLOUD_STORAGE_DEFAULT",
        '{"conn_type": "google_cloud_platform", "extra": {"is_anonymous": true}}',
    )
    return resource


@pytest.fixture
def quick_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The import in a process of its own has its test in the project."""
    from include.xcom.commands import deployment

    monkeypatch.setattr(deployment, "examine_backend", lambda project: iter(()))


def test_doctor_with_a_bucket_that_works(
    quick_doctor: None,
    airflow: AirflowServer,
    operator: None,
    bucket: FaultProxy,
    gcs_server: GCSServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Access is tried for real, and the probe is removed."""
    found = examined(capsys)

    assert [name for name in found if "problem" in name or "warning" in name] == []
    assert "deletes nothing" in found["lifecycle: skipped"]["message"]
    assert "can create, list, read, delete" in found["access: ok"]["message"]
    assert "development" in found["emulator: ok"]["message"]
    assert gcs_server.names() == []


@pytest.mark.parametrize(
    ("method", "place", "verb"),
    [
        pytest.param("POST", 0, "create", id="create"),
        pytest.param("DELETE", 0, "delete", id="delete"),
    ],
)
def test_doctor_names_the_permission_that_is_missing(
    method: str,
    place: int,
    verb: str,
    quick_doctor: None,
    bucket: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With the command that grants it."""
    monkeypatch.setenv("AIRFLOW_API_URL", "http://127.0.0.1:9")
    bucket.plan(answer(403, DENIED), method=method, always=True)

    found = examined(capsys)["access: problem"]

    assert f"cannot {verb} objects" in found["message"]
    assert "roles/storage.objectUser" in found["fix"]


def test_doctor_offers_a_role_for_a_missing_permission_only(
    quick_doctor: None,
    bucket: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The message says what mends any other refusal; a role does not."""
    monkeypatch.setenv("AIRFLOW_API_URL", "http://127.0.0.1:9")
    body = b'{"error": {"message": "Permission denied on Cloud KMS key."}}'
    bucket.plan(answer(403, body), method="POST", always=True)

    found = examined(capsys)["access: problem"]

    assert "roles/cloudkms.cryptoKeyEncrypterDecrypter" in found["message"]
    assert found["fix"].startswith("gcloud storage buckets describe gs://")


def test_doctor_names_reading_and_listing_too(
    quick_doctor: None,
    bucket: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """GET serves both: the second of them is the list, the third the download."""
    monkeypatch.setenv("AIRFLOW_API_URL", "http://127.0.0.1:9")
    bucket.plan(through, answer(403), method="GET")
    assert "cannot list objects" in examined(capsys)["access: problem"]["message"]

    bucket.plan(through, through, answer(403), method="GET")
    assert "cannot read objects" in examined(capsys)["access: problem"]["message"]


def test_doctor_bucket_that_does_not_exist(
    quick_doctor: None,
    bucket: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With the command that makes it, in the emulator that was asked; pasted, it does."""
    monkeypatch.setenv("AIRFLOW__GCS_XCOM__BUCKET", f"nobody-made-this-{uuid4().hex[:8]}")
    monkeypatch.setenv("AIRFLOW_API_URL", "http://127.0.0.1:9")

    found = examined(capsys)
    assert "access: problem" in found
    subprocess.run(["bash", "-c", found["bucket: problem"]["fix"]], check=True, capture_output=True)

    assert {"bucket: ok", "access: ok"} <= set(examined(capsys))


def test_doctor_bucket_that_does_not_exist_in_the_cloud(
    quick_doctor: None, cloud: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The command has a place to choose, and what the next doctor would ask for."""
    cloud["status"] = 404

    fix = examined(capsys)["bucket: problem"]["fix"]

    assert fix.startswith("gcloud storage buckets create gs://acme-xcom ")
    for word in ("--location=", "--soft-delete-duration=0", "--uniform-bucket-level-access"):
        assert word in fix
    assert "--public-access-prevention" in fix


def test_doctor_reads_the_bucket_s_own_settings(
    quick_doctor: None, cloud: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Soft delete and versioning keep what was deleted; a rule is missing; location is shown."""
    cloud["softDeletePolicy"] = {"retentionDurationSeconds": "604800"}
    cloud["versioning"] = {"enabled": True}

    found = examined(capsys)

    assert "EUROPE-WEST3" in found["bucket: ok"]["message"]
    assert "7 more days" in found["soft delete: warning"]["message"]
    assert found["versioning: warning"]["fix"].endswith("--no-versioning")
    assert found["lifecycle: warning"]["fix"] == "python -m include.xcom lifecycle set --age-days 90"
    cloud["lifecycle"] = {
        "rule": [{"action": {"type": "Delete"}, "condition": {"age": 60, "matchesPrefix": ["xcom/"]}}]
    }
    assert "60 days" in examined(capsys)["lifecycle: ok"]["message"]


@pytest.mark.parametrize(
    ("rules", "level", "words"),
    [
        pytest.param([{"age": 90}], "ok", "at an age of 90 days", id="whole-bucket"),
        pytest.param([{"age": 30, "matchesPrefix": ["logs/", "xc"]}], "ok", "of 30 days", id="one-of-two"),
        pytest.param([{"age": 1}], "warning", "deletes payloads at an age of 1 days", id="whole-bucket-soon"),
        pytest.param(
            [{"age": 90, "matchesPrefix": ["xcom/"]}, {"age": 30, "matchesSuffix": [".parquet"]}],
            "warning",
            "age of 30 days; that of this prefix has 90",
            id="sooner-than-ours",
        ),
        pytest.param([{"matchesPrefix": ["xcom/"]}], "warning", "an age of 0 days", id="without-an-age"),
        pytest.param(
            [{"age": 30, "matchesPrefix": ["xcom/sales/"]}], "warning", "no rule deletes all", id="one-dag"
        ),
        pytest.param([{"age": 1, "matchesPrefix": ["logs/"]}], "warning", "no rule deletes old", id="others"),
        pytest.param(
            [{"age": 1, "isLive": False}, {"daysSinceNoncurrentTime": 0}, {"age": 0, "numNewerVersions": 3}],
            "warning",
            "no rule deletes old",
            id="old-versions",
        ),
        pytest.param([{"createdBefore": "2020-01-01"}], "warning", "no rule deletes old", id="before-a-day"),
    ],
)
def test_doctor_reads_every_rule_that_can_delete_payloads(
    rules: list[dict[str, Any]],
    level: str,
    words: str,
    quick_doctor: None,
    cloud: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whoever wrote it: a rule for the whole bucket, or for several prefixes, deletes payloads too."""
    cloud["lifecycle"] = {"rule": [{"action": {"type": "Delete"}, "condition": rule} for rule in rules]}
    cloud["lifecycle"]["rule"].append({"action": {"type": "SetStorageClass"}, "condition": {"age": 0}})

    assert words in examined(capsys)[f"lifecycle: {level}"]["message"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("KUBERNETES_SERVICE_HOST", "10.0.0.1", id="kubernetes"),
        pytest.param("AIRFLOW__API__BASE_URL", "https://airflow.acme.example", id="https"),
        pytest.param("AIRFLOW__CORE__EXECUTOR", "KubernetesExecutor", id="executor"),
        pytest.param("ASTRONOMER_ENVIRONMENT", "cloud", id="astro"),
    ],
)
def test_doctor_emulator_left_on_in_production(
    name: str,
    value: str,
    quick_doctor: None,
    bucket: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What the emulator is given is lost."""
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("AIRFLOW_API_URL", "http://127.0.0.1:9")

    assert examined(capsys)["emulator: problem"]["fix"] == "unset STORAGE_EMULATOR_HOST"


def test_doctor_emulator_under_astro_dev_start(
    quick_doctor: None,
    bucket: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The CLI sets a variable of the platform in the containers of this machine too, to a value of its own."""
    monkeypatch.setenv("ASTRONOMER_ENVIRONMENT", "local")
    monkeypatch.setenv("AIRFLOW_API_URL", "http://127.0.0.1:9")

    assert "development" in examined(capsys)["emulator: ok"]["message"]


def test_doctor_asks_for_a_bounded_part_of_a_crowded_prefix(
    quick_doctor: None,
    bucket: FaultProxy,
    gcs_server: GCSServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One list request for each folder, whether or not a Dag made it; and it says that there are more."""
    from include.xcom.commands import storage

    monkeypatch.setattr(storage, "_FOLDERS_AT_MOST", 5)
    monkeypatch.setenv("AIRFLOW_API_URL", "http://127.0.0.1:9")
    for number in range(20):
        gcs_server.write(f"xcom/folder{number:02}/of somebody", b"x")
    before = bucket.count()

    found = examined(capsys)

    assert "only the first 5 folders" in found["prefix: ok"]["message"]
    # Six of them, and the bucket, and the four of the access.
    assert bucket.count() - before == 11


@pytest.mark.parametrize(
    ("method", "wrong", "words"),
    [
        pytest.param("put", None, "other bytes came back", id="other-bytes"),
        pytest.param("list", lambda *a: iter([[]]), "is not listed", id="not-listed"),
        pytest.param("delete", lambda *a: False, "was gone before it was deleted", id="gone"),
    ],
)
def test_doctor_is_not_content_with_answers_that_are_wrong(
    method: str,
    wrong: Any,
    words: str,
    quick_doctor: None,
    bucket: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every step succeeds, and what it gives is not what was written: a problem, and no "ok" beside it."""
    from include.xcom.stores.bucket import GCSStore

    put = GCSStore.put
    monkeypatch.setenv("AIRFLOW_API_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(GCSStore, method, wrong or (lambda self, name, parts: put(self, name, [b"others"])))

    found = examined(capsys)

    assert words in found["access: problem"]["message"]
    assert "access: ok" not in found


def test_doctor_prefix_with_payloads_of_another_deployment(
    quick_doctor: None,
    airflow: AirflowServer,
    operator: None,
    bucket: FaultProxy,
    gcs_server: GCSServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It names the Dags that this Airflow does not know; one that it knows is fine."""
    run = new_run(airflow, [("load", -1)])
    airflow.set_row("sales", run, "load", -1, "return_value", 1)
    gcs_server.write(object_of(run), b"x")
    assert "prefix: ok" in examined(capsys)

    gcs_server.write(object_of(run, dag="theirs"), b"x")
    assert "(theirs)" in examined(capsys)["prefix: warning"]["message"]


def test_doctor_prefix_that_another_deployment_has_claimed(
    quick_doctor: None,
    airflow: AirflowServer,
    claimed: None,
    gcs_server: GCSServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A twin with the same Dags is told by its claim alone."""
    run = new_run(airflow, [("load", -1)])
    airflow.set_row("sales", run, "load", -1, "return_value", 1)
    gcs_server.write(object_of(run), b"x")
    assert "prefix: ok" in examined(capsys)

    gcs_server.write("xcom/=deployment/production/1.txt", b"https://airflow.example.com")
    found = examined(capsys)["prefix: problem"]

    assert "is claimed by another deployment, production (https://airflow.example.com" in found["message"]
    assert found["fix"] == "export AIRFLOW__GCS_XCOM__PREFIX=xcom-of-this-deployment"


def test_doctor_without_credentials(
    quick_doctor: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which kind was tried, and what to do; no request leaves this machine."""
    monkeypatch.setenv("AIRFLOW__GCS_XCOM__BUCKET", "acme-xcom-without-credentials")
    monkeypatch.setenv(
        "AIRFLOW_CONN_GOOGLE_CLOUD_STORAGE_DEFAULT",
        json.dumps({"conn_type": "google_cloud_platform", "extra": {"key_path": "/nowhere/key.json"}}),
    )

    found = examined(capsys)

    assert "/nowhere/key.json" in found["credentials: problem"]["message"]
    assert found["credentials: problem"]["message"].endswith("Nothing was stored or read.")
    assert "bucket: skipped" in found
    assert "access: problem" in found


def test_doctor_old_package(
    quick_doctor: None,
    bucket: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Versions are compared with the bounds of requirements.txt."""
    from include.xcom.commands import deployment

    monkeypatch.setattr(deployment, "REQUIREMENTS", {"pyarrow": "9999.0", "no-such-package": "1.0"})
    command("doctor")

    out = capsys.readouterr().out
    assert "fix: pip install 'pyarrow>=9999.0'" in out
    assert "no-such-package is not installed | fix: pip install 'no-such-package>=1.0'" in out


def test_doctor_of_a_bucket_in_the_cloud(
    quick_doctor: None,
    cloud: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without an emulator: who could see the bucket, and an anonymous connection that was left over."""
    found = examined(capsys)
    update = "gcloud storage buckets update gs://acme-xcom"
    assert found["public access: warning"]["fix"] == f"{update} --public-access-prevention"
    assert found["uniform access: warning"]["fix"] == f"{update} --uniform-bucket-level-access"
    assert found["credentials: warning"]["fix"] == "unset AIRFLOW_CONN_GOOGLE_CLOUD_STORAGE_DEFAULT"
    assert "emulator: ok" in found

    cloud["iamConfiguration"] = {
        "publicAccessPrevention": "enforced",
        "uniformBucketLevelAccess": {"enabled": True},
    }
    found = examined(capsys)
    assert {"public access: ok", "uniform access: ok"} <= set(found)


def test_doctor_that_may_not_see_the_bucket_s_settings_goes_on(
    quick_doctor: None,
    bucket: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """roles/storage.objectUser alone: what tasks need is tried all the same."""
    monkeypatch.setenv("AIRFLOW_API_URL", "http://127.0.0.1:9")
    bucket.plan(answer(403), method="GET")

    found = examined(capsys)

    assert "these credentials may not read the bucket's settings" in found["bucket: skipped"]["message"]
    assert "access: ok" in found


def test_doctor_exit_code_and_lines(
    quick_doctor: None,
    airflow: AirflowServer,
    operator: None,
    bucket: FaultProxy,
    gcs_server: GCSServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """0 with warnings alone, 1 with a problem; each finding is one line, and the last one counts them."""
    gcs_server.write(object_of("manual__1", dag="theirs"), b"x")
    assert command("doctor") == 0
    *lines, counts = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == {"ok", "skipped", "warning"}
    assert counts.startswith("0 problems, ")

    bucket.plan(answer(403), method="POST", always=True)
    assert command("doctor") == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("1 problem, ")


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({}, id="nothing-is-set"),
        pytest.param({"AIRFLOW__GCS_XCOM__BUCKET": "Not A Bucket"}, id="no-bucket-name"),
        pytest.param(
            {
                "AIRFLOW__GCS_XCOM__BUCKET": "acme",
                "AIRFLOW__GCS_XCOM__THRESHOLD_BYTES": "many",
                "AIRFLOW__GCS_XCOM__FRAME_FORMAT": "csv",
                "AIRFLOW__GCS_XCOM__LEGACY_REFERENCES": "perhaps",
                "AIRFLOW__GCS_XCOM__READ_URIS": "elsewhere",
            },
            id="wrong-settings",
        ),
        pytest.param(
            {
                "AIRFLOW__GCS_XCOM__BUCKET": "file:///nowhere/it's",
                "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
                "AIRFLOW__CORE__XCOM_BACKEND": "",
            },
            id="directory",
        ),
        pytest.param(
            {
                "AIRFLOW__GCS_XCOM__BUCKET": "acme-xcom",
                "KUBERNETES_SERVICE_HOST": "10.0.0.1",
                "AIRFLOW_CONN_GOOGLE_CLOUD_STORAGE_DEFAULT": '{"conn_type": "google_cloud_platform", '
                '"extra": {"key_path": "/nowhere/key.json"}}',
            },
            id="no-credentials",
        ),
        pytest.param({"acme": "403", "AIRFLOW__GCS_XCOM__BUCKET": "acme-xcom"}, id="no-rights"),
        pytest.param({"acme": "404", "AIRFLOW__GCS_XCOM__BUCKET": "acme-xcom"}, id="no-bucket"),
        pytest.param({"acme": "410", "AIRFLOW__GCS_XCOM__BUCKET": "acme-xcom"}, id="odd-answer"),
        pytest.param({"acme": "200", "AIRFLOW__GCS_XCOM__BUCKET": "acme-xcom"}, id="careless-bucket"),
    ],
)
def test_every_fix_of_the_doctor_can_be_pasted(
    environment: dict[str, str],
    resource: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each warning and problem is one line and ends with one that a shell can read, with nothing left out."""
    from include.xcom.commands import deployment
    from include.xcom.stores import bucket as gcs

    if status := environment.pop("acme", ""):
        resource |= {"status": int(status), "versioning": {"enabled": True}}
        resource["softDeletePolicy"] = {"retentionDurationSeconds": "604800"}
        monkeypatch.setenv(
            "AIRFLOW_CONN_GOOGLE_CLOUD_STORAGE_DEFAULT",
            '{"conn_type": "google_cloud_platform", "extra": {"is_anonymous": true}}',
        )
    monkeypatch.setattr(gcs, "ENDPOINT", os.environ["STORAGE_EMULATOR_HOST"])
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.delenv("AIRFLOW__GCS_XCOM__BUCKET")
    monkeypatch.setattr(deployment, "REQUIREMENTS", {"pyarrow": "9999.0", "no-such-package": "1.0"})
    monkeypatch.setenv("AIRFLOW_API_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AIRFLOW__GCS_XCOM__TIMEOUT_SECONDS", "1")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "it's mine").mkdir()
    (tmp_path / "it's mine/Dockerfile").write_text("FROM runtime\n")
    (tmp_path / "it's mine/docker-compose.override.yml").write_text("services:\n")

    assert command("doctor", "--json", "--project", str(tmp_path / "it's mine")) == 1
    found = json.loads(capsys.readouterr().out)["findings"]

    bad = [one for one in found if one["level"] in ("warning", "problem")]
    assert len(bad) >= 5
    for one in bad:
        if not one["fix"]:
            assert "by hand" in one["message"], one
            continue
        assert "\n" not in one["fix"], one
        assert not re.search(r"\.\.\.|…|[<>][A-Z]|\b[A-Z]+_?NAME\b", one["fix"]), one
        read = subprocess.run(["bash", "-n", "-c", one["fix"]], capture_output=True, text=True, check=False)
        assert (read.returncode, read.stderr) == (0, ""), one


def test_fix_of_a_missing_right_names_the_account_that_lacks_it(
    quick_doctor: None,
    cloud: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The credentials know it, for example from the key file; otherwise the shell asks for it."""
    from include.xcom.stores import credentials

    class OfTheTasks:
        token = "t"
        service_account_email = "tasks@acme.iam.gserviceaccount.com"

        def before_request(self, request: Any, method: str, url: str, headers: dict[str, str]) -> None:
            headers["authorization"] = "Bearer t"

    cloud["status"] = 403
    assert "${ACCOUNT:?" in examined(capsys)["access: problem"]["fix"]

    from include.xcom import stores

    stores.forget_stores()
    monkeypatch.setattr(credentials, "_credentials", lambda *a: OfTheTasks())
    fix = examined(capsys)["access: problem"]["fix"]
    assert fix.endswith("--member=serviceAccount:tasks@acme.iam.gserviceaccount.com")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables of a process beside a database that has the bucket and the connection, as the UI sets them."""
    pytest.importorskip("airflow")
    home = tmp_path_factory.mktemp("database")
    (home / "payloads").mkdir()
    variables = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    variables |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__XCOM_BACKEND": "include.xcom_backend.GCPBucketXComBackend",
        "AIRFLOW__WORKERS__STATE_STORE_BACKEND": "include.state_backend.GCSStateBackend",
        "AIRFLOW_API_URL": "http://127.0.0.1:9",
        "PYTHONPATH": str(ROOT / "{{cookiecutter.project_slug}}"),
    }
    extra = json.dumps({"key_path": "/nowhere/of-the-database.json"})
    for words in (
        ("db", "migrate"),
        ("variables", "set", "XCOM_BACKEND_DATA_GCS_NAME", (home / "payloads").as_uri()),
        (
            "connections",
            "add",
            "of_the_database",
            "--conn-type",
            "google_cloud_platform",
            "--conn-extra",
            extra,
        ),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *words],
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    return variables


def in_a_process(variables: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a shell of a deployment does."""
    return subprocess.run(
        [sys.executable, "-m", "include.xcom", *words],
        env=variables,
        cwd=variables["AIRFLOW_HOME"],
        capture_output=True,
        text=True,
        check=False,
    )


def test_commands_see_variables_and_connections_of_the_database(database: dict[str, str]) -> None:
    """Where they are by default; the environment counts more, as everywhere in Airflow."""
    done = in_a_process(database, "doctor")
    assert f"ok       settings: payloads are below file://{database['AIRFLOW_HOME']}/payloads" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 problems, 0 warnings", done.stdout
    assert in_a_process(database, "ls", "sales", "--json").returncode == 0

    more = {
        "AIRFLOW_VAR_XCOM_BACKEND_DATA_GCS_NAME": "acme-of-the-environment",
        "AIRFLOW__GCS_XCOM__CONN_ID": "of_the_database",
        "STORAGE_EMULATOR_HOST": "",
    }
    said = in_a_process(database | more, "doctor").stdout
    assert "payloads are below gs://acme-of-the-environment/xcom/" in said
    assert "problem  credentials: " in said
    assert "/nowhere/of-the-database.json" in said


def test_commands_without_a_database_say_nothing_of_it(database: dict[str, str], tmp_path: Path) -> None:
    """A laptop has settings in its environment and no database: no traceback of Airflow's."""
    folder = tmp_path / "payloads"
    folder.mkdir()
    variables = database | {"AIRFLOW_HOME": str(tmp_path)}

    with_bucket = in_a_process(variables | {"AIRFLOW__GCS_XCOM__BUCKET": folder.as_uri()}, "doctor")
    without = in_a_process(variables, "doctor")

    assert (with_bucket.returncode, with_bucket.stderr) == (0, "")
    assert "problem  settings: " in without.stdout
    assert "Traceback" not in without.stderr


@pytest.mark.parametrize("page", ["astro.md", "composer.md"])
def test_doctor_of_the_guides_runs_in_a_task(page: str, database: dict[str, str], tmp_path: Path) -> None:
    """What a task has: the Variable of the database, asked for through its supervisor."""
    text = (ROOT / "docs/how-to" / page).read_text()
    (code,) = re.findall(r"<!-- run: task -->\n```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags/doctor.py").write_text(code)

    def run() -> str:
        done = subprocess.run(
            [sys.executable, "-m", "airflow", "dags", "test", "xcom_doctor"],
            env=database | {"AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags")},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    said = run()
    assert "ok       settings: payloads are below file://" in said, said[-3000:]
    assert "ok       import: Airflow loads include.xcom_backend.GCPBucketXComBackend" in said
    assert "the doctor found problems" not in said

    database = database | {"AIRFLOW__GCS_XCOM__CONCURRENCY": "none"}
    assert "the doctor found problems" in run()
