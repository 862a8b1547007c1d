"""The default project in containers, judged from outside: through the REST API and the bucket."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import time
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from stack import BUCKET, Stack, busy, eventually, free_port

# Every example Dag: a task whose value must lie in the bucket, and the type that its reference names.
EXAMPLES = {
    "example_arrays": ("correlation", "numpy.ndarray"),
    "example_flights": ("load", "pandas.DataFrame"),
    "example_records": ("extract", "list"),
    "example_small_values": ("airports", "list"),
}
PASSED = hashlib.sha256(hashlib.sha512(b"pass").digest() * (200_000 // 64)).hexdigest()


def test_stack_is_healthy_within_ninety_seconds(local_stack: Stack) -> None:
    """With the images there; longer only by as much as others use the machine. Each service passes its check."""
    states = local_stack.states()

    print(f"healthy after {local_stack.seconds_to_healthy:.0f} s, machine busy {local_stack.busy:.1f} times")
    assert local_stack.seconds_to_healthy < 90 * local_stack.busy
    assert states.pop("db-migration-1") == "exited"
    assert set(states) == {
        f"{service}-1"
        for service in ("api-server", "dag-processor", "gcs", "postgres", "scheduler", "triggerer")
    }
    assert set(states.values()) == {"healthy"}


def test_idle_stack_uses_the_memory_that_the_readme_says(local_stack: Stack) -> None:
    """About 1 GB before any task ran, by what the engine counts for all containers."""
    containers = local_stack.compose("ps", "--quiet").split()

    lines = subprocess.run(
        ["docker", "stats", "--no-stream", "--format", "{{.MemUsage}}", *containers],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    units = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
    used = [line.split(" / ")[0] for line in lines]
    total = sum(float(text[:-3]) * units[text[-3:]] for text in used)

    print(f"idle stack: {total / 2**20:.0f} MiB")
    assert len(lines) == 6
    assert total < 1.2e9


def test_dags_import_without_errors(local_stack: Stack) -> None:
    """The image has what the Dags need."""
    for dag_id in EXAMPLES:
        local_stack.wait_for_dag(dag_id)

    assert local_stack.call("GET", "/importErrors")["import_errors"] == []


def test_example_dags_succeed_and_refer_to_objects(local_stack: Stack) -> None:
    """Every task of every example; the reference says where the object lies, and the object is that large."""
    runs = {dag_id: local_stack.trigger(dag_id) for dag_id in EXAMPLES}

    for dag_id, run in runs.items():
        run.wait(seconds=420)
        states = {task["state"] for task in run.tasks().values()}
        assert (run.state, states <= {"success", "skipped"}) == ("success", True), run.tasks()
        task_id, type_name = EXAMPLES[dag_id]
        facts = run.reference(task_id)
        assert facts["type"] == type_name
        assert local_stack.objects(f"xcom/{dag_id}/")[run.object_name(task_id)] == facts["bytes"]


def test_small_values_stay_in_the_database(local_stack: Stack) -> None:
    """What is small looks in the API as it would without the backend."""
    run = local_stack.trigger("probe_pass").wait()

    assert run.xcom("consume") == PASSED
    assert [
        name for name in local_stack.objects(f"xcom/probe_pass/{run.run_id}/") if "/consume/" in name
    ] == []


def test_links_of_the_emulator_work_inside_and_from_this_machine(local_stack: Stack) -> None:
    """Google's clients follow `mediaLink`: its host must be right for whoever asked."""
    run = local_stack.trigger("probe_pass").wait()
    listing = f"/storage/v1/b/{BUCKET}/o?prefix={quote(run.object_name('produce'), safe='')}"
    follow = (
        "import json, urllib.request as r; "
        f"link = json.load(r.urlopen('http://gcs:4443{listing}'))['items'][0]['mediaLink']; "
        "print(link); print(len(r.urlopen(link).read()))"
    )

    with urlopen(f"{local_stack.gcs}{listing}", timeout=30) as response:
        outside = json.load(response)["items"][0]["mediaLink"]
    inside, size = local_stack.compose("exec", "-T", "triggerer", "python", "-c", follow).split()
    assert outside.startswith(local_stack.gcs + "/")
    assert inside.startswith("http://gcs:4443/")
    with urlopen(outside, timeout=30) as response:
        assert len(response.read()) == int(size) == 200_000 // 64 * 64


def test_clearing_a_task_replaces_its_object(local_stack: Stack) -> None:
    """The old object goes, a new one comes, and the reader gets the new one."""
    run = local_stack.trigger("probe_pass").wait()
    before = run.object_name("produce")

    run.clear("produce")
    eventually(lambda: run.tasks()["produce", -1]["try_number"] > 1, seconds=60, what="the second try")
    run.wait()

    after = run.object_name("produce")
    assert run.state == "success"
    assert after != before
    assert list(local_stack.objects(f"xcom/probe_pass/{run.run_id}/")) == [after]
    assert run.xcom("consume") == PASSED


def test_tasks_retry_and_recover_when_the_bucket_was_away(local_stack: Stack) -> None:
    """fake-gcs-server stops while a task runs: the task fails with a clear error, and a later try succeeds."""
    local_stack.call("POST", "/variables", {"key": "hold", "value": "yes"})
    run = local_stack.trigger("probe_held")
    eventually(lambda: "about_to_return" in run.keys("produce"), seconds=120, what="the task at its return")
    try:
        local_stack.compose("stop", "gcs")
        local_stack.call("DELETE", "/variables/hold")
        eventually(
            lambda: (
                run.tasks()["produce", -1]["try_number"] > 1
                or run.tasks()["produce", -1]["state"] == "up_for_retry"
            ),
            seconds=120,
            what="a try that failed",
        )
    finally:
        local_stack.compose("start", "gcs")
    run.wait()

    log = json.dumps(local_stack.call("GET", f"{run.path}/taskInstances/produce/logs/1"))
    assert run.state == "success"
    assert run.tasks()["produce", -1]["try_number"] > 1
    assert "StoreUnavailableError" in log
    assert list(local_stack.objects(f"xcom/probe_held/{run.run_id}/")) == [run.object_name("produce")]


def test_payloads_survive_a_restart(local_stack: Stack) -> None:
    """Stop and start keep the database and the bucket: an old payload is read as before."""
    run = local_stack.trigger("probe_pass").wait()
    name = run.object_name("produce")
    body = local_stack.read(name)

    local_stack.compose("stop")
    local_stack.compose("up", "--detach", "--wait")
    run.clear("consume")
    eventually(lambda: run.tasks()["consume", -1]["try_number"] > 1, seconds=60, what="the second try")
    run.wait()

    assert run.state == "success"
    assert run.object_name("produce") == name
    assert local_stack.read(name) == body
    assert run.xcom("consume") == PASSED
    assert run.tasks()["produce", -1]["try_number"] == 1


def test_ports_are_on_loopback_only(local_stack: Stack) -> None:
    """Whoever reaches the API is an admin, so nobody else may reach it."""
    published = local_stack.compose("ps", "--format", "{{.Service}} {{.Ports}}")

    addresses = [
        part for line in published.splitlines() for part in line.split(" ", 1)[1].split(", ") if "->" in part
    ]
    assert len(addresses) == 2
    assert all(address.startswith("127.0.0.1:") for address in addresses)


@pytest.mark.parametrize("variable", ["AIRFLOW_PORT", "GCS_PORT"])
def test_taken_port_is_named_in_the_message(local_stack: Stack, variable: str) -> None:
    """What the troubleshooting table promises: the message has the port in it."""
    port = (local_stack.airflow if variable == "AIRFLOW_PORT" else local_stack.gcs).rsplit(":", 1)[1]
    other = Stack(local_stack.project, f"{local_stack.name}-second", "", "")
    service = "api-server" if variable == "AIRFLOW_PORT" else "gcs"

    said = other.compose("up", "--detach", "--no-deps", service, check=False)
    other.compose("down", "--volumes", "--timeout", "1")

    assert f"127.0.0.1:{port}" in said
    assert "already allocated" in said or "already in use" in said


@pytest.mark.parametrize(
    ("wrong", "logged"),
    [
        pytest.param(
            "AIRFLOW__LOGGING__LOGGING_LEVEL=LOUD", "`[logging] logging_level`", id="refused-by-airflow"
        ),
        pytest.param("POSTGRES_PASSWORD=other", "password authentication failed", id="another-password"),
    ],
)
def test_wrong_value_in_env_ends_the_start_with_a_message(
    local_stack: Stack, tmp_path: Path, wrong: str, logged: str
) -> None:
    """What the troubleshooting table promises: `up --wait` names the service, its log names the value."""
    folder = shutil.copytree(local_stack.project, tmp_path / "project")
    ports = f"AIRFLOW_PORT={free_port()}\nGCS_PORT={free_port()}\n"
    stack = Stack(folder, "stack-wrong", "", "")
    try:
        # The database's volume gets the first password.
        (folder / ".env").write_text(ports)
        stack.compose("up", "--detach", "--wait", "postgres")
        (folder / ".env").write_text(f"{ports}{wrong}\n")
        started = time.monotonic()
        said = stack.compose("up", "--detach", "--wait", check=False)
        seconds = time.monotonic() - started
        log = stack.compose("logs", "db-migration")
    finally:
        stack.compose("down", "--volumes", "--timeout", "1")

    assert said.splitlines()[-1] == 'service "db-migration" didn\'t complete successfully: exit 1'
    assert logged in log
    assert seconds < 90 * busy()
