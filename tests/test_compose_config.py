"""The compose files, as compose reads them; no engine is needed for that."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from baking import COMBINATIONS, REPOSITORY, TEMPLATE_FOLDER, clean_environment
from test_hygiene import clone_of

AIRFLOW_SERVICES = {"scheduler", "dag-processor", "api-server", "triggerer"}
# `astro dev start` looks for containers whose name contains one of these.
NAMES_OF_THE_CLI = ("postgres", "scheduler", "api-server", "webserver", "triggerer", "dag-processor")
# What stands in for the file that `astro dev start` merges the override into.
ASTRO_BASE = Path(__file__).parent / "astro_base.yml"

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


def test_compose_files_depend_on_two_answers_only() -> None:
    """The name and the executor: the combinations that the tests bake are then all that there are."""
    texts = [
        (REPOSITORY / TEMPLATE_FOLDER / name).read_text()
        for name in ("docker-compose.yml", "docker-compose.override.yml")
    ]

    used = {
        name
        for text in texts
        for part in re.findall(r"\{\{.*?\}\}|\{%.*?%\}", text, re.DOTALL)
        for name in re.findall(r"cookiecutter\.(\w+)", part)
    }
    assert used == {"__compose_name", "executor"}
    assert {answers.get("executor", "LocalExecutor") for answers in COMBINATIONS.values()} == set(
        json.loads((REPOSITORY / "cookiecutter.json").read_text())["executor"]
    )


@needs_compose
def test_one_service_builds_and_no_registry_is_asked_for_the_image(project: Path, tmp_path: Path) -> None:
    """Builds of one tag side by side can refuse each other; a name like ours may be somebody's on a registry."""
    services = config(project, tmp_path)["services"]

    assert [name for name in services if "build" in services[name]] == ["db-migration"]
    ours = [name for name in services if services[name]["image"].endswith("/airflow:local")]
    assert set(ours) == {name for name in services if name not in ("postgres", "redis", "gcs")}
    assert {services[name]["image"] for name in ours} == {services["db-migration"]["image"]}
    assert {services[name]["pull_policy"] for name in ours} == {"never"}


@needs_compose
def test_lines_of_env_reach_every_airflow_service(
    baked_combinations: Callable[[str], Path], tmp_path: Path
) -> None:
    """What the head of the file lists replaces its default, and everything else is added."""
    project = shutil.copytree(baked_combinations("3.3-celery-polars-bare"), tmp_path / "project")
    lines = {
        "AIRFLOW__CORE__LOAD_EXAMPLES": "True",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        "AIRFLOW__API__WORKERS": "2",
        "AIRFLOW__CELERY__WORKER_CONCURRENCY": "3",
        "AIRFLOW__GCS_XCOM__THRESHOLD_BYTES": "1000",
    }
    (project / ".env").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))

    services = config(project, tmp_path)["services"]

    for name in AIRFLOW_SERVICES | {"worker", "db-migration"}:
        assert {key: services[name]["environment"].get(key) for key in lines} == lines, name


@needs_compose
def test_values_for_development_can_all_be_replaced(
    baked_combinations: Callable[[str], Path], tmp_path: Path
) -> None:
    """Each reaches all its places, and nothing of the default is left."""
    project = baked_combinations("3.3-celery-polars-bare")
    secret = "s" * 64
    own = {"AIRFLOW_SECRET": secret, "POSTGRES_PASSWORD": "Own0Password", "AIRFLOW_PARALLELISM": "3"}

    merged = config(project, tmp_path, **own)

    services = merged["services"]
    assert services["postgres"]["environment"]["POSTGRES_PASSWORD"] == "Own0Password"
    for name in AIRFLOW_SERVICES | {"worker", "db-migration"}:
        environment = services[name]["environment"]
        assert environment["AIRFLOW__API__SECRET_KEY"] == secret
        assert environment["AIRFLOW__API_AUTH__JWT_SECRET"] == secret
        assert environment["AIRFLOW__CORE__PARALLELISM"] == "3"
        database = "postgresql://postgres:Own0Password@postgres:5432/airflow"
        assert environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("+psycopg2", "") == database
        assert environment["AIRFLOW__CELERY__RESULT_BACKEND"] == f"db+{database}"
    assert "for-development" not in json.dumps(merged)
    assert "postgres:postgres@" not in json.dumps(merged)


@needs_compose
def test_two_copies_share_nothing(baked_combinations: Callable[[str], Path], tmp_path: Path) -> None:
    """Another COMPOSE_PROJECT_NAME gives other volumes, another network and another image."""
    project = baked_combinations("3.3-celery-polars-bare")

    def names(merged: dict[str, Any]) -> set[str]:
        images = {service["image"] for service in merged["services"].values() if "build" in service}
        kinds = (merged["volumes"], merged["networks"])
        return images | {entry["name"] for kind in kinds for entry in kind.values()}

    first = names(config(project, tmp_path))
    second = names(config(project, tmp_path, COMPOSE_PROJECT_NAME="second"))

    assert len(first) == len(second) == 6
    assert first & second == set()


@needs_compose
def test_override_fits_the_stack_of_the_cli(
    baked_combinations: Callable[[str], Path], tmp_path: Path
) -> None:
    """As `astro dev start` reads it: another base, variables of the shell, none of .env."""
    project = baked_combinations("3.3-celery-polars-bare")
    files = ["-f", str(ASTRO_BASE), "-f", "docker-compose.override.yml"]

    merged = config(
        project,
        tmp_path,
        *("--env-file", "/dev/null", "--project-directory", ".", *files),
        GCS_PORT="14443",
    )

    services = merged["services"]
    own = parsed(ASTRO_BASE.parent, ASTRO_BASE.name)
    assert set(services) == set(own["services"]) | {"gcs"}
    assert [name for name in services if not {"image", "build"} & set(services[name])] == []
    assert services["gcs"]["ports"][0]["published"] == "14443"
    for name in AIRFLOW_SERVICES:
        assert services[name]["depends_on"]["gcs"]["condition"] == "service_healthy"
        assert "db-migration" in services[name]["depends_on"]
        environment = services[name]["environment"]
        assert set(own["x-environment"]) < set(environment)
        assert environment["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
        assert environment["STORAGE_EMULATOR_HOST"] == "http://gcs:4443"


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
@pytest.mark.parametrize("executor", ["local", "celery"])
def test_stack_without_the_override_takes_the_bucket_of_env(
    executor: str, baked_combinations: Callable[[str], Path], tmp_path: Path
) -> None:
    """Somebody may want the stack with a real bucket and no emulator, in its workers too."""
    name = "3.3-celery-polars-bare" if executor == "celery" else "3.3-local-pandas-examples"
    project = shutil.copytree(baked_combinations(name), tmp_path / "project")
    (project / ".env").write_text("AIRFLOW_VAR_XCOM_BACKEND_DATA_GCS_NAME=acme-xcom\n")
    compose = project / "docker-compose.yml"
    # What the comment above them tells a person to do.
    text = re.sub(
        r"^      (AIRFLOW_VAR_|AIRFLOW_CONN_|STORAGE_EMULATOR).*\n", "", compose.read_text(), flags=re.M
    )
    compose.write_text(text)

    services = config(project, tmp_path, "-f", "docker-compose.yml")["services"]

    assert "gcs" not in services
    for service in AIRFLOW_SERVICES | ({"worker"} if executor == "celery" else set()):
        environment = services[service]["environment"]
        assert environment["AIRFLOW_VAR_XCOM_BACKEND_DATA_GCS_NAME"] == "acme-xcom"
        assert "STORAGE_EMULATOR_HOST" not in environment
        assert "AIRFLOW_CONN_GOOGLE_CLOUD_STORAGE_DEFAULT" not in environment
