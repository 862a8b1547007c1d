"""The compose files, as compose reads them; no engine is needed for that."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from baking import COMBINATIONS, clean_environment
from test_hygiene import clone_of

AIRFLOW_SERVICES = {"scheduler", "dag-processor", "api-server", "triggerer"}
# `astro dev start` looks for containers whose name contains one of these.
NAMES_OF_THE_CLI = ("postgres", "scheduler", "api-server", "webserver", "triggerer", "dag-processor")


needs_compose = pytest.mark.usefixtures("compose")


def config(project: Path, home: Path, *options: str, **variables: str) -> dict[str, Any]:
    """Return the merged configuration that compose would start."""
    done = subprocess.run(
        ["docker", "compose", *options, "config", "--format", "json"],
        cwd=project,
        env=clean_environment(home) | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr.lower(), done.stderr
    merged: dict[str, Any] = json.loads(done.stdout)
    return merged


def parsed(project: Path, name: str) -> dict[str, Any]:
    """Read one compose file as YAML."""
    content: dict[str, Any] = yaml.safe_load((project / name).read_text())
    return content


def test_every_interpolation_has_a_default(project: Path) -> None:
    """Both stacks start without .env and without a single variable."""
    for name in ("docker-compose.yml", "docker-compose.override.yml"):
        text = re.sub(r"^\s*#.*$", "", (project / name).read_text(), flags=re.MULTILINE).replace("$$", "")
        used = re.findall(r"\$\{[^}]*\}|\$\w*", text)

        assert used
        assert [hit for hit in used if not re.fullmatch(r"\$\{[A-Z][A-Z0-9_]*:-[^${}]+\}", hit)] == []


def test_every_variable_is_explained_at_the_top(project: Path) -> None:
    """With the default that is really used, in the file that defines what it is for."""
    texts = [(project / name).read_text() for name in ("docker-compose.yml", "docker-compose.override.yml")]
    explained = {
        variable: default
        for text in texts
        for variable, default in re.findall(r"^#   ([A-Z_]+) .* {2,}(\S.*)$", text, re.MULTILINE)
    }
    used = {pair for text in texts for pair in re.findall(r"\$\{([A-Z0-9_]+):-([^}]+)\}", text)}

    assert {name for name, _ in used} | {"COMPOSE_PROJECT_NAME"} == set(explained)
    for variable, default in used:
        assert explained[variable] in (default, "(for development)")


def test_override_adds_to_services_of_the_cli_without_a_base(project: Path) -> None:
    """`astro dev start` merges the override alone: a new service needs an image, the others a name it knows."""
    services = parsed(project, "docker-compose.override.yml")["services"]

    assert set(services) == AIRFLOW_SERVICES | {"gcs"}
    assert services["gcs"]["image"] == "fsouza/fake-gcs-server:1.56.1"
    for name in AIRFLOW_SERVICES:
        assert set(services[name]) == {"environment", "depends_on"}


def test_own_services_cannot_be_taken_for_those_of_the_cli(project: Path) -> None:
    """The CLI finds containers by a part of their name."""
    own = (
        {
            service
            for name in ("docker-compose.yml", "docker-compose.override.yml")
            for service in parsed(project, name)["services"]
        }
        - AIRFLOW_SERVICES
        - {"postgres", "db-migration"}
    )

    assert not [service for service in own for part in NAMES_OF_THE_CLI if part in service]


def test_images_are_pinned_and_containers_unnamed(project: Path) -> None:
    """No `latest`, and nothing that stops a second copy of the project."""
    for name in ("docker-compose.yml", "docker-compose.override.yml"):
        content = parsed(project, name)
        assert "version" not in content
        for service in content["services"].values():
            assert "container_name" not in service
            assert re.search(r":[\w.-]+$", service.get("image", ":x"))
            assert not service.get("image", "").endswith(":latest")


@needs_compose
def test_config_starts_the_right_services(project: Path, combination: str, tmp_path: Path) -> None:
    """Per executor, with every host port on loopback only, and with a health check for each that stays up."""
    services = config(project, tmp_path)["services"]

    celery = COMBINATIONS[combination].get("executor") == "CeleryExecutor"
    expected = (
        AIRFLOW_SERVICES | {"postgres", "db-migration", "gcs"} | ({"redis", "worker"} if celery else set())
    )
    assert set(services) == expected
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(published) == {"api-server", "gcs"}
    assert {port["host_ip"] for ports in published.values() for port in ports} == {"127.0.0.1"}
    assert {name for name in services if "healthcheck" not in services[name]} == {"db-migration"}
    assert all("restart" in service for service in services.values())
    assert set(services["api-server"]["networks"]) == {"airflow"}


@needs_compose
def test_config_waits_for_what_is_needed(project: Path, combination: str, tmp_path: Path) -> None:
    """Each dependency names a condition that means ready, not merely started."""
    services = config(project, tmp_path)["services"]

    waits = {
        name: {on: how["condition"] for on, how in service.get("depends_on", {}).items()}
        for name, service in services.items()
    }
    assert waits["db-migration"] == {"postgres": "service_healthy"}
    for name in AIRFLOW_SERVICES:
        assert waits[name] == {"db-migration": "service_completed_successfully", "gcs": "service_healthy"}
    if "worker" in services:
        # Not for gcs, which this file may not know: the scheduler waits for it before it hands out tasks.
        assert waits["worker"] == {
            "db-migration": "service_completed_successfully",
            "redis": "service_healthy",
        }


@needs_compose
def test_config_gives_all_that_run_tasks_the_same_bucket(project: Path, tmp_path: Path) -> None:
    """Celery's workers stand in another file than the rest, yet must see the same bucket."""
    services = config(project, tmp_path, XCOM_BUCKET="other-bucket", GCS_PORT="14443")["services"]

    runs_tasks = [services[name] for name in services if name in AIRFLOW_SERVICES | {"worker"}]
    names = (
        "AIRFLOW_VAR_XCOM_BACKEND_DATA_GCS_NAME",
        "AIRFLOW_CONN_GOOGLE_CLOUD_STORAGE_DEFAULT",
        "STORAGE_EMULATOR_HOST",
    )
    seen = {tuple(service["environment"][name] for name in names) for service in runs_tasks}
    ((bucket, connection, host),) = seen
    assert (bucket, host) == ("other-bucket", "http://gcs:4443")
    assert json.loads(connection) == {"conn_type": "google_cloud_platform", "extra": {"is_anonymous": True}}
    assert services["gcs"]["environment"]["BUCKET"] == "other-bucket"
    assert services["gcs"]["ports"][0]["published"] == "14443"


@needs_compose
@pytest.mark.parametrize(
    "combination", ["3.3-local-pandas-examples", "3.3-celery-polars-bare"], indirect=True
)
def test_config_of_a_clone_equals_that_of_the_original(project: Path, tmp_path: Path) -> None:
    """A colleague's clone has no .env: all values are the defaults."""
    clone = clone_of(project, tmp_path)
    mine, theirs = config(project, tmp_path), config(clone, tmp_path)

    for name in mine["services"]:
        ours = mine["services"][name].get("environment", {})
        others = theirs["services"][name].get("environment", {})
        assert {k: v for k, v in ours.items() if k not in ("AIRFLOW_PORT", "GCS_PORT")} == others


@needs_compose
def test_config_keeps_services_that_people_add(
    baked_combinations: Callable[[str], Path], tmp_path: Path
) -> None:
    """A project with more services of its own has them still."""
    project = baked_combinations("3.3-local-pandas-examples")
    extra = tmp_path / "docker-compose.extra.yml"
    extra.write_text("services:\n  mailcatcher:\n    image: mail:1.0\n    networks: [airflow]\n")
    files = ["docker-compose.yml", "docker-compose.override.yml", str(extra)]

    merged = config(project, tmp_path, *[part for name in files for part in ("-f", name)])

    assert {"mailcatcher", "gcs", "scheduler"} < set(merged["services"])


@needs_compose
@pytest.mark.parametrize("combination", ["3.3-celery-polars-bare"], indirect=True)
def test_config_without_the_override_still_parses(project: Path, tmp_path: Path) -> None:
    """Somebody may want the stack with a real bucket and no emulator."""
    services = config(project, tmp_path, "-f", "docker-compose.yml")["services"]

    assert "gcs" not in services
