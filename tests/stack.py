"""A running stack of a generated project, seen from outside: compose, the REST API, and the bucket."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from pytest_docker.plugin import get_docker_services

BUCKET = "xcom-local"
FINISHED = {"success", "failed"}
# What the last task of probe_pass returns.
PASSED = hashlib.sha256(hashlib.sha512(b"pass").digest() * (200_000 // 64)).hexdigest()


def free_port() -> int:
    """Return a port of this machine that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def busy() -> float:
    """Tell how many programs want each processor; 1.0 if not more than one."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def allowance() -> float:
    """Tell how much longer than on a quiet machine something may take; at most twice as long."""
    return min(busy(), 2.0)


def eventually(look: Callable[[], Any], *, seconds: float, what: str) -> Any:
    """Look until something true is seen, and return it; longer where others use the machine too."""
    until = time.monotonic() + seconds * busy()
    while True:
        # A server that is about to stop, or a machine that is busy, may not answer this once.
        with suppress(TimeoutError, URLError, ConnectionError):
            found = look()
            if found:
                return found
        assert time.monotonic() < until, f"not within {seconds:.0f} s: {what}"
        time.sleep(1)


@dataclass
class Stack:
    """What the tests know about a stack that runs.

    Attributes:
        project: Folder of the generated project.
        name: Compose's project name.
        airflow: Where the API server answers on this machine.
        gcs: Where the emulator answers on this machine.
        seconds_to_healthy: What `up --wait` took with the images built.
        allowance: What that may be multiplied by, since others used the machine before.
        options: Of `docker compose`, in front of every command: other files than those of the folder.
        shell: Variables of the shell, for this stack only.
        seconds_per_command: After which a command of `docker compose` counts as hanging.
    """

    project: Path
    name: str
    airflow: str
    gcs: str
    seconds_to_healthy: float = 0.0
    allowance: float = 1.0
    options: tuple[str, ...] = ()
    shell: dict[str, str] = field(default_factory=dict)
    seconds_per_command: float = 900.0
    _token: str = field(default="", repr=False)

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Run `docker compose` for this stack and return what it prints."""
        try:
            done = subprocess.run(
                ["docker", "compose", "--project-name", self.name, *self.options, *arguments],
                cwd=self.project,
                env=os.environ | self.shell,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                timeout=self.seconds_per_command,
            )
        except subprocess.TimeoutExpired as late:
            said = (late.stdout or b"").decode(errors="replace")
            message = f"docker compose {' '.join(arguments)}: no end after {late.timeout:.0f} s:\n{said}"
            raise AssertionError(message) from None
        assert done.returncode == 0 or not check, f"docker compose {' '.join(arguments)}:\n{done.stdout}"
        return done.stdout

    def states(self) -> dict[str, str]:
        """Map each container's service and number to its health, or to its state where it has no check."""
        output = self.compose("ps", "--all", "--format", "json")
        rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        return {row["Name"].removeprefix(f"{self.name}-"): row.get("Health") or row["State"] for row in rows}

    @property
    def image(self) -> str:
        """The image that the stack builds."""
        return f"{self.name}/airflow:local"

    def readme_figure(self, pattern: str) -> float:
        """Return the one number that the project's README has at the group of a pattern."""
        (figure,) = re.findall(pattern, (self.project / "README.md").read_text())
        return float(figure)

    def passes_check(self, service: str, **environment: str) -> bool:
        """Run the configured health check of a service's first container now, with some variables changed."""
        container = self.compose("ps", "--all", "--quiet", service).split()[0]
        form = "{{json .Config.Healthcheck}}"
        command = ["docker", "inspect", "--format", form, container]
        check = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        kind, *program = check["Test"]
        options = [part for pair in environment.items() for part in ("--env", "=".join(pair))]
        command = [
            "docker",
            "exec",
            *options,
            container,
            *(program if kind == "CMD" else ["sh", "-c", *program]),
        ]
        with suppress(subprocess.TimeoutExpired):
            done = subprocess.run(command, capture_output=True, check=False, timeout=check["Timeout"] / 1e9)
            return done.returncode == 0
        return False

    def copy(self, folder: Path, name: str, *, with_image: bool) -> Stack:
        """Make another project of this one, with other ports in its .env and perhaps the image, but do not start it."""
        shutil.copytree(self.project, folder)
        airflow_port, gcs_port = free_port(), free_port()
        (folder / ".env").write_text(f"AIRFLOW_PORT={airflow_port}\nGCS_PORT={gcs_port}\n")
        name = f"{name}-{uuid.uuid4().hex[:8]}"
        other = Stack(folder, name, f"http://127.0.0.1:{airflow_port}", f"http://127.0.0.1:{gcs_port}")
        if with_image:
            subprocess.run(["docker", "tag", self.image, other.image], check=True)
        return other

    def remove(self) -> None:
        """Remove containers, volumes, networks and the image's name, but no layer: others are built from them."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "10", check=False)
        command = ["docker", "image", "rm", "--no-prune", self.image]
        subprocess.run(command, capture_output=True, check=False)

    def memory(self) -> dict[str, float]:
        """Map each running container's service and number to the bytes of memory that the engine counts for it."""
        containers = self.compose("ps", "--quiet").split()
        form = "{{.Name}} {{.MemUsage}}"
        command = ["docker", "stats", "--no-stream", "--format", form, *containers]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        units = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
        used = {line.split()[0].removeprefix(f"{self.name}-"): line.split()[1] for line in lines}
        return {name: float(text[:-3]) * units[text[-3:]] for name, text in used.items()}

    def task_log(self, task: dict[str, Any], try_number: int = 0) -> str:
        """Return the log of a try of a task instance, the last one unless told otherwise."""
        run = f"/dags/{task['dag_id']}/dagRuns/{quote(task['dag_run_id'], safe='')}"
        path = f"{run}/taskInstances/{task['task_id']}/logs/{try_number or task['try_number']}"
        return json.dumps(self.call("GET", f"{path}?map_index={task['map_index']}")["content"])

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Ask Airflow's REST API."""
        if not self._token:
            with urlopen(f"{self.airflow}/auth/token", timeout=30) as response:
                self._token = json.load(response)["access_token"]
        request = Request(f"{self.airflow}/api/v2{path}", method=method)
        request.add_header("Authorization", f"Bearer {self._token}")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with urlopen(request, timeout=60) as response:
                text = response.read()
        except HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()[:500]}") from error
        return json.loads(text) if text else None

    def wait_for_dag(self, dag_id: str) -> None:
        """Wait until the Dag is known, and let it run."""

        def known() -> bool:
            return dag_id in {dag["dag_id"] for dag in self.call("GET", "/dags?limit=100")["dags"]}

        eventually(known, seconds=120, what=f"Dag {dag_id} in the API")
        self.call("PATCH", f"/dags/{dag_id}", {"is_paused": False})

    def trigger(self, dag_id: str) -> Run:
        """Start a run."""
        self.wait_for_dag(dag_id)
        started = self.call("POST", f"/dags/{dag_id}/dagRuns", {"logical_date": None})
        return Run(self, dag_id, started["dag_run_id"])

    def objects(self, prefix: str = "") -> dict[str, int]:
        """Map the names of the objects in the bucket to their sizes."""
        found: dict[str, int] = {}
        page = ""
        while True:
            query = urlencode({"prefix": prefix, "pageToken": page})
            with urlopen(f"{self.gcs}/storage/v1/b/{BUCKET}/o?{query}", timeout=30) as response:
                answer = json.load(response)
            found |= {item["name"]: int(item["size"]) for item in answer.get("items", [])}
            page = answer.get("nextPageToken", "")
            if not page:
                return found

    def read(self, name: str) -> bytes:
        """Return the bytes of an object."""
        with urlopen(
            f"{self.gcs}/download/storage/v1/b/{BUCKET}/o/{quote(name, safe='')}?alt=media", timeout=60
        ) as response:
            body: bytes = response.read()
            return body


@dataclass(frozen=True)
class Run:
    """A run of a Dag in a stack."""

    stack: Stack
    dag_id: str
    run_id: str

    @property
    def path(self) -> str:
        """Below the API's root."""
        return f"/dags/{self.dag_id}/dagRuns/{quote(self.run_id, safe='')}"

    @property
    def state(self) -> str:
        """Of the whole run."""
        state: str = self.stack.call("GET", self.path)["state"]
        return state

    def tasks(self) -> dict[tuple[str, int], dict[str, Any]]:
        """Map (task, map index) to the task instance."""
        found = self.stack.call("GET", f"{self.path}/taskInstances?limit=200")["task_instances"]
        return {(task["task_id"], task["map_index"]): task for task in found}

    def wait(self, *, seconds: float = 300) -> Run:
        """Wait until the run is over."""
        eventually(lambda: self.state in FINISHED, seconds=seconds, what=f"the end of {self.dag_id}")
        return self

    def xcoms(self) -> list[tuple[str, int, str]]:
        """List all XComs of the run: task, map index, key."""
        found: list[tuple[str, int, str]] = []
        while True:
            query = f"limit=100&offset={len(found)}"
            answer = self.stack.call("GET", f"{self.path}/taskInstances/~/xcomEntries?{query}")
            found += [
                (entry["task_id"], entry["map_index"], entry["key"]) for entry in answer["xcom_entries"]
            ]
            if len(found) >= answer["total_entries"]:
                return found

    def keys(self, task_id: str, map_index: int = -1) -> list[str]:
        """List the keys that a task pushed."""
        path = f"{self.path}/taskInstances/{task_id}/xcomEntries?map_index={map_index}"
        return [entry["key"] for entry in self.stack.call("GET", path)["xcom_entries"]]

    def xcom(self, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return what the API shows of an XCom."""
        path = f"{self.path}/taskInstances/{task_id}/xcomEntries/{key}?map_index={map_index}"
        return self.stack.call("GET", path)["value"]

    def reference(self, task_id: str, key: str = "return_value", map_index: int = -1) -> dict[str, Any]:
        """Return the facts of the reference that an XCom is."""
        value = self.xcom(task_id, key, map_index)
        assert isinstance(value, dict), f"{task_id} {key}: {value!r}"
        assert value["__classname__"] == "gcs_xcom.Payload"
        facts: dict[str, Any] = value["__data__"]
        return facts

    def object_name(self, task_id: str, key: str = "return_value", map_index: int = -1) -> str:
        """Return the name of the object that an XCom refers to."""
        uri: str = self.reference(task_id, key, map_index)["uri"]
        assert uri.startswith(f"gs://{BUCKET}/")
        return uri.removeprefix(f"gs://{BUCKET}/")

    def clear(self, *task_ids: str) -> None:
        """Clear tasks and what comes after them."""
        self.stack.call(
            "POST",
            f"/dags/{self.dag_id}/clearTaskInstances",
            {
                "dry_run": False,
                "dag_run_id": self.run_id,
                "task_ids": list(task_ids),
                "only_failed": False,
                "include_downstream": True,
                "reset_dag_runs": True,
            },
        )


@contextmanager
def running(project: Path, settings: dict[str, str], *, scale: str = "") -> Iterator[Stack]:
    """Build, start and wait for a project's stack under a name of its own; remove everything afterwards."""
    airflow_port, gcs_port = free_port(), free_port()
    ports = {"AIRFLOW_PORT": str(airflow_port), "GCS_PORT": str(gcs_port)}
    lines = [f"{name}={value}\n" for name, value in (ports | settings).items()]
    (project / ".env").write_text("".join(lines))
    name = f"{project.name}-{uuid.uuid4().hex[:8]}"
    stack = Stack(project, name, f"http://127.0.0.1:{airflow_port}", f"http://127.0.0.1:{gcs_port}")
    files = [str(project / file) for file in ("docker-compose.yml", "docker-compose.override.yml")]
    down = ["down --volumes --remove-orphans --timeout 10"]
    with get_docker_services("docker compose", files, name, [], down):
        stack.compose("build")
        stack.allowance = allowance()
        start = time.monotonic()
        wait = ["--wait", "--wait-timeout", "600"]
        try:
            stack.compose("up", "--detach", *wait, *(["--scale", scale] if scale else []))
        except AssertionError as error:
            raise AssertionError(f"{error}\n{report(stack)}") from None
        stack.seconds_to_healthy = time.monotonic() - start
        yield stack
    assert left_behind(name) == []
    stack.remove()


def left_behind(name: str) -> list[str]:
    """List containers, volumes and networks of a compose project."""
    label = ["--filter", f"label=com.docker.compose.project={name}", "--quiet"]
    found: list[str] = []
    for kind in (["ps", "--all"], ["volume", "ls"], ["network", "ls"]):
        output = subprocess.run(["docker", *kind, *label], capture_output=True, text=True, check=True).stdout
        found += output.split()
    return found


def report(stack: Stack, *, lines: int = 40) -> str:
    """Collect the states of all services, the logs of tasks that failed, and the last lines of all services.

    The unwell ones come first. Never raises: what cannot be had is replaced by the reason, since this
    is called while another failure is being reported.
    """
    parts: list[str] = []
    unwell: list[str] = []
    services: list[str] = []
    with _reported(parts, "states"):
        states = stack.states()
        parts.append("\n".join(f"{container}: {state}" for container, state in states.items()))
        services = sorted({container.rsplit("-", 1)[0] for container in states})
        for container, state in states.items():
            if state != "healthy" and (service := container.rsplit("-", 1)[0]) not in unwell:
                unwell.append(service)
    with _reported(parts, "tasks"):
        failed = (
            "/dags/~/dagRuns/~/taskInstances?state=failed&state=up_for_retry&limit=5&order_by=-start_date"
        )
        for task in stack.call("GET", failed)["task_instances"]:
            name = f"{task['dag_id']}.{task['task_id']}[{task['map_index']}], try {task['try_number']}"
            with _reported(parts, name):
                parts.append(f"----- task {name}\n{stack.task_log(task)[-4000:]}")
    for service in [*unwell, *(s for s in services if s not in unwell)]:
        with _reported(parts, service):
            logs = stack.compose("logs", "--no-color", "--tail", str(lines), service, check=False)
            parts.append(f"----- {service}\n{logs}")
    return "\n".join(parts)


@contextmanager
def _reported(parts: list[str], what: str) -> Iterator[None]:
    """Put an error among the parts of a report instead of raising it."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - a report says what it could not find out
        parts.append(f"----- {what}: not available: {type(error).__name__}: {error}")


def is_reachable(url: str) -> bool:
    """Tell whether anything answers there."""
    try:
        with urlopen(url, timeout=5):
            return True
    except HTTPError:
        return True
    except (URLError, OSError):
        return False
