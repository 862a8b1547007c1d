"""The default project in containers, judged from outside: through the REST API and the bucket."""

from __future__ import annotations

import json
from functools import partial
from urllib.parse import quote
from urllib.request import urlopen

from stack import BUCKET, FINISHED, PASSED, Stack, eventually

# Every example Dag: a task whose value must lie in the bucket, and the type that its reference names.
EXAMPLES = {
    "example_arrays": ("correlation", "numpy.ndarray"),
    "example_flights": ("load", "pandas.DataFrame"),
    "example_large_values": ("extract", "Table"),
    "example_records": ("extract", "list"),
    "example_small_values": ("airports", "list"),
}
# The branch that is not taken.
SKIPPED = {("example_small_values", "few", -1)}


def test_stack_is_healthy_within_ninety_seconds(local_stack: Stack) -> None:
    """With the images there; longer only by as much as others use the machine. Each service passes its check."""
    states = local_stack.states()

    promised = local_stack.readme_figure(r"everything is healthy within (\d+) seconds")
    print(f"healthy after {local_stack.seconds_to_healthy:.1f} s; allowance {local_stack.allowance:.1f}")
    assert promised <= 90
    assert local_stack.seconds_to_healthy < promised * local_stack.allowance
    assert states.pop("db-migration-1") == "exited"
    assert set(states) == {
        f"{service}-1"
        for service in ("api-server", "dag-processor", "gcs", "postgres", "scheduler", "triggerer")
    }
    assert set(states.values()) == {"healthy"}


def test_idle_stack_uses_the_memory_that_the_readme_says(local_stack: Stack) -> None:
    """Before any task ran, by what the engine counts for all containers."""
    used = local_stack.memory()
    gigabytes = sum(used.values()) / 1e9

    promised = local_stack.readme_figure(r"about ([\d.]+) GB of memory at rest")
    print(f"idle stack: {gigabytes:.2f} GB; README: {promised}")
    assert len(used) == 6
    assert 0.7 * promised < gigabytes < 1.3 * promised


def test_dags_import_without_errors(local_stack: Stack) -> None:
    """The image has what the Dags need."""
    for dag_id in EXAMPLES:
        local_stack.wait_for_dag(dag_id)

    assert local_stack.call("GET", "/importErrors")["import_errors"] == []


def stem(name: str) -> str:
    """Return the name of an object up to what its payload and its attachments share."""
    folder, _, last = name.rpartition("/")
    return f"{folder}/{last.partition('.')[0]}"


def test_example_dags_succeed_and_refer_to_objects(local_stack: Stack) -> None:
    """Every task of every Dag tagged as an example; each reference names an object, and it is that large.

    All at once, which is the most that people start: the memory is what the README says at most.
    """
    runs = {dag_id: local_stack.trigger(dag_id) for dag_id in EXAMPLES}
    used: list[float] = []

    def over() -> bool:
        used.append(sum(local_stack.memory().values()) / 1e9)
        return {run.state for run in runs.values()} <= FINISHED

    eventually(over, seconds=420, what="the end of all examples")
    tagged = local_stack.call("GET", "/dags?tags=example&limit=100")["dags"]
    assert {dag["dag_id"] for dag in tagged} == set(EXAMPLES)
    skipped = set()
    for dag_id, run in runs.items():
        states = {task: instance["state"] for task, instance in run.tasks().items()}
        assert run.state == "success", states
        assert set(states.values()) <= {"success", "skipped"}
        skipped |= {(dag_id, *task) for task, state in states.items() if state == "skipped"}
        objects = local_stack.objects(f"xcom/{dag_id}/{run.run_id}/")
        sizes = {}
        for task_id, map_index, key in run.xcoms():
            value = run.xcom(task_id, key, map_index)
            if isinstance(value, dict) and value.get("__classname__") == "gcs_xcom.Payload":
                name = run.object_name(task_id, key, map_index)
                sizes[name] = run.reference(task_id, key, map_index)["bytes"]
        # No object is missing or of another size, and all others are the attachments of these.
        assert sizes
        assert sizes.items() <= objects.items()
        assert {stem(name) for name in objects} == {stem(name) for name in sizes}
        task_id, type_name = EXAMPLES[dag_id]
        assert run.reference(task_id)["type"] == type_name
    assert skipped == SKIPPED
    promised = local_stack.readme_figure(r"at most ([\d.]+) GB with the examples")
    print(f"examples at work: {max(used):.2f} GB; README: {promised}")
    assert max(used) < promised


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


def test_payloads_and_logs_survive_their_containers(local_stack: Stack) -> None:
    """All that is kept lies in volumes: after `down` and `up` an old payload and an old log are read as before."""
    run = local_stack.trigger("probe_pass").wait()
    name = run.object_name("produce")
    body = local_stack.read(name)
    log = local_stack.task_log(run.tasks()["produce", -1])
    assert "return_value" in log

    local_stack.compose("down")
    local_stack.compose("up", "--detach", "--wait", "--wait-timeout", "300")
    assert local_stack.task_log(run.tasks()["produce", -1]) == log
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


def test_health_checks_notice_that_the_database_is_away(local_stack: Stack) -> None:
    """Each configured check, run as the engine runs it; a check that cannot fail says nothing."""
    services = ("api-server", "dag-processor", "scheduler", "triggerer")
    assert [name for name in (*services, "gcs", "postgres") if not local_stack.passes_check(name)] == []
    # The emulator is up before its bucket, and PostgreSQL on its socket before it is on the network.
    assert not local_stack.passes_check("gcs", BUCKET="another")
    assert not local_stack.passes_check("postgres", PGPORT="5433")
    assert local_stack.passes_check("postgres", PGHOST="/no/socket")

    def fails_check(service: str) -> bool:
        return not local_stack.passes_check(service)

    try:
        local_stack.compose("stop", "postgres")
        for service in services:
            eventually(
                partial(fails_check, service),
                seconds=60,
                what=f"a failing check of {service}",
            )
    finally:
        local_stack.compose("up", "--detach", "--wait", "--wait-timeout", "300")
    # A component that has just been restarted counts as healthy until its first check.
    for service in services:
        eventually(
            partial(local_stack.passes_check, service),
            seconds=60,
            what=f"a passing check of {service}",
        )
