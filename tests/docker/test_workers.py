"""CeleryExecutor: payloads pass between workers, and outlive one that dies."""

from __future__ import annotations

import hashlib
import subprocess

from stack import Stack, eventually

HELD = hashlib.sha256(hashlib.sha512(b"held").digest() * (64_000_000 // 64)).hexdigest()


def test_two_stacks_run_side_by_side(local_stack: Stack, celery_stack: Stack) -> None:
    """Two projects, two names, other ports: nothing is shared but the images."""
    assert {state for name, state in local_stack.states().items() if name != "db-migration-1"} == {"healthy"}
    celery = celery_stack.states()

    assert celery.pop("db-migration-1") == "exited"
    assert {"worker-1", "worker-2", "redis-1"} < set(celery)
    assert set(celery.values()) == {"healthy"}


def test_idle_stack_uses_the_memory_that_the_readme_says(celery_stack: Stack) -> None:
    """With one worker; each further one costs what the README says as well."""
    used = {name: size / 1e9 for name, size in celery_stack.memory().items()}
    worker = max(used["worker-1"], used["worker-2"])
    total = sum(used.values()) - worker

    idle = celery_stack.readme_figure(r"about ([\d.]+) GB of memory at rest")
    each = celery_stack.readme_figure(r"Tasks run in workers, each about ([\d.]+) GB at rest")
    print(f"idle stack with one worker: {total:.2f} GB, a worker: {worker:.2f} GB; README: {idle}, {each}")
    assert len(used) == 9
    assert 0.7 * idle < total < 1.3 * idle
    assert 0.7 * each < worker < 1.3 * each


def test_payloads_pass_between_workers(celery_stack: Stack) -> None:
    """One task reads what tasks on both workers wrote."""
    run = celery_stack.trigger("probe_crossing").wait()

    result = run.xcom("consume")
    assert run.state == "success"
    assert len(set(result["producers"])) == 2
    assert result["right"] == [True] * 6
    assert run.reference("produce", map_index=0)["uri"].endswith(".zip")


def test_flights_of_polars_pass_through_workers(celery_stack: Stack) -> None:
    """The example for the other DataFrame library."""
    run = celery_stack.trigger("example_flights").wait(seconds=420)

    assert (run.state, {task["state"] for task in run.tasks().values()}) == ("success", {"success"})
    assert run.reference("load")["type"] == "polars.DataFrame"


def test_killed_worker_leaves_the_right_value_to_the_retry(celery_stack: Stack) -> None:
    """Killed while its task hands over the payload: the retry, elsewhere, writes it whole, and once."""
    celery_stack.call("POST", "/variables", {"key": "hold", "value": "yes"})
    run = celery_stack.trigger("probe_held")
    eventually(lambda: "about_to_return" in run.keys("produce"), seconds=120, what="the task at its return")
    host = run.tasks()["produce", -1]["hostname"]
    workers = celery_stack.compose("ps", "--quiet", "worker").split()
    (victim,) = [container for container in workers if container.startswith(host)]

    # The bucket hangs, so that the kill comes when the upload has begun and cannot have ended.
    celery_stack.compose("pause", "gcs")
    try:
        celery_stack.call("DELETE", "/variables/hold")
        eventually(lambda: uploading(victim), seconds=60, what="the upload")
        docker("kill", victim)
    finally:
        celery_stack.compose("unpause", "gcs")
    docker("start", victim)
    run.wait()

    produce = run.tasks()["produce", -1]
    assert run.state == "success"
    assert produce["try_number"] > 1
    assert run.xcom("consume") == HELD
    # The kill ended the first try, not the bucket that hung.
    assert "StoreUnavailableError" not in celery_stack.task_log(produce, 1)
    objects = celery_stack.objects(f"xcom/probe_held/{run.run_id}/")
    assert objects == {run.object_name("produce"): 64_000_000}


def test_health_checks_notice_that_the_broker_is_away(celery_stack: Stack) -> None:
    """A worker that nothing reaches is no healthy one."""
    assert celery_stack.passes_check("worker")
    assert celery_stack.passes_check("redis")

    try:
        celery_stack.compose("stop", "redis")
        eventually(lambda: not celery_stack.passes_check("worker"), seconds=60, what="a failing check")
    finally:
        celery_stack.compose("up", "--detach", "--wait", "--wait-timeout", "300", "--scale", "worker=2")
    eventually(lambda: celery_stack.passes_check("worker"), seconds=60, what="a passing check")


def docker(*arguments: str) -> str:
    """Run docker and return what it prints."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout


def uploading(container: str) -> bool:
    """Tell whether a process in the container has an open connection to the emulator, to port 4443."""
    connections = docker("exec", container, "cat", "/proc/net/tcp").splitlines()[1:]
    return any(line.split()[2].endswith(":115B") and line.split()[3] == "01" for line in connections)
