"""The template taken into projects that exist: nothing of theirs changes, and it works there."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from baking import REPOSITORY, TEMPLATE_FOLDER, clean_environment, contents_of, files_of
from existing_projects import ASTRO_IN_USE, PLAIN, TREES, adopt, lay_out
from generated_files import expected_files

OVERRIDE = "docker-compose.override.yml"
LOCAL_BUCKET = "include/xcom/commands/local_bucket.yml"
# Laying the template over a project and extending its override is for every system; these are not.
needs_unix = pytest.mark.skipif(
    sys.platform == "win32", reason="needs sh, or Airflow, which do not run on Windows: use WSL"
)
STORE_A_FRAME = """
import pandas
from airflow.sdk.execution_time.xcom import XCom
from include.xcom.reference import PayloadReference
row = XCom.serialize_value(pandas.DataFrame({"a": range(9)}), key="return_value", dag_id="sales",
                           run_id="manual__1", task_id="load", map_index=-1)
class Row: value = row
print(row["__data__"]["uri"], len(XCom.deserialize_value(Row)))
"""


@pytest.fixture(params=TREES)
def tree(request: pytest.FixtureRequest) -> dict[str, str]:
    """The files of a project that exists."""
    return TREES[request.param]


def doctor(folder: Path, home: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the doctor as people do: in the project's folder, by the Python that has Airflow."""
    return python(folder, home, "-m", "include.xcom", "doctor", *options, **environment)


def python(folder: Path, home: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the Python that has Airflow in a folder."""
    variables = clean_environment(home) | {"AIRFLOW_HOME": str(home / "airflow"), "NO_GCE_CHECK": "true"}
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=variables | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def findings(done: subprocess.CompletedProcess[str]) -> list[dict[str, str]]:
    """What the doctor said with --json."""
    assert done.stdout, done.stderr
    return list(json.loads(done.stdout)["findings"])


def test_adoption_leaves_every_existing_file_and_adds_the_rest(
    tree: dict[str, str], template: Path, tmp_path: Path
) -> None:
    """Byte for byte, rights too; what is added is exactly what was not there, and nothing outside."""
    folder = lay_out(tree, tmp_path)
    rights = {name: stat.S_IMODE((folder / name).stat().st_mode) for name in tree}

    baked = adopt(template, folder, include_examples="true")

    assert baked.exit_code == 0, baked.said
    assert {name: (folder / name).read_bytes().decode() for name in tree} == tree
    assert {name: stat.S_IMODE((folder / name).stat().st_mode) for name in tree} == rights
    assert set(files_of(folder)) == set(tree) | set(expected_files({}))
    assert sorted(path.name for path in folder.parent.iterdir()) == ["Sales.v2", "neighbour.txt"]


def test_adoption_twice_changes_nothing(tree: dict[str, str], template: Path, tmp_path: Path) -> None:
    """Also after the lines were merged by hand."""
    folder = lay_out(tree, tmp_path)
    adopt(template, folder)
    (folder / "requirements.txt").write_text("mine now\n")
    before = contents_of(folder)

    again = adopt(template, folder)

    assert again.exit_code == 0, again.said
    assert contents_of(folder) == before


@pytest.mark.parametrize(
    ("name", "sentences", "absent"),
    [
        pytest.param(
            "astro",
            [
                "Dockerfile does not set the backend of XComs",
                "requirements.txt lacks apache-airflow-providers-google>=22.0.0, google-auth>=2.40",
            ],
            "docker-compose",
            id="astro",
        ),
        pytest.param(
            "astro-in-use",
            [
                "Dockerfile does not set the backend of XComs",
                "requirements.txt lacks apache-airflow-providers-google>=22.0.0",
                f"{OVERRIDE} has no bucket for this machine. Copy the services of {LOCAL_BUCKET} into it by hand",
            ],
            "docker-compose.yml",
            id="astro-in-use",
        ),
        pytest.param(
            "plain",
            [
                "requirements.txt lacks apache-airflow-providers-google",
                "docker compose reads either docker-compose.yaml or docker-compose.yml",
            ],
            "Dockerfile",
            id="plain",
        ),
    ],
)
def test_adoption_names_what_existing_files_lack(
    name: str, sentences: list[str], absent: str, template: Path, tmp_path: Path
) -> None:
    """The person reads the doctor's own list, and the command that adds the lines; no other file is named."""
    folder = lay_out(TREES[name], tmp_path)
    said = adopt(template, folder).said

    needed, _, rest = said.partition("They need:")[2].partition("This adds missing lines")
    assert "python3 -m include.xcom doctor --fixes | sh" in rest
    assert [sentence for sentence in sentences if sentence not in needed] == []
    assert absent not in needed
    fixes = doctor(folder, tmp_path, "--fixes").stdout
    assert [line[4:] for line in needed.strip("\n").splitlines() if line] == [
        line[2:] for line in fixes.splitlines() if line.startswith("# ")
    ]


def test_new_project_needs_nothing(
    baked_combinations: Callable[[str], Path], template: Path, tmp_path: Path
) -> None:
    """Neither for the hook nor for the doctor, with any combination of answers."""
    said = adopt(template, tmp_path / "out" / "fresh").said

    assert "They need" not in said
    for name in ("3.3-local-pandas-examples", "3.1-celery-polars-examples", "3.3-celery-polars-bare"):
        done = doctor(baked_combinations(name), tmp_path, "--fixes", PYTHONDONTWRITEBYTECODE="1")
        assert done.stdout == "# Dockerfile and requirements.txt have the backend's lines\n"


@needs_unix
def test_existing_project_stores_a_payload_after_three_commands(
    tree: dict[str, str], template: Path, tmp_path: Path
) -> None:
    """In two minutes: the doctor is all green, a frame lies in the store and comes back."""
    folder = lay_out(tree, tmp_path)
    started = time.monotonic()
    adopt(template, folder)
    before = findings(doctor(folder, tmp_path, "--json"))
    assert "problem" in {one["level"] for one in before if one["check"] == "project"}

    # From the shell of a person who has python3 on PATH and nothing installed.
    pasted = subprocess.run(
        ["sh", "-c", f"'{sys.executable}' -m include.xcom doctor --fixes | sh"],
        cwd=folder,
        env=clean_environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (pasted.returncode, pasted.stderr) == (0, "")
    if OVERRIDE in tree:
        merge_by_hand(folder)

    # What the Dockerfile and the settings would give the containers.
    (folder / "xcoms").mkdir()
    line = next(line for line in (folder / "Dockerfile").read_text().splitlines() if "XCOM_BACKEND" in line)
    name, value = line.removeprefix("ENV ").split("=")
    settings = {
        name: value,
        "PYTHONPATH": str(folder),
        "AIRFLOW__WORKERS__STATE_STORE_BACKEND": "include.state_backend.GCSStateBackend",
        "AIRFLOW__GCS_XCOM__BUCKET": (folder / "xcoms").as_uri(),
        # Tasks that were killed may have left something in that of this machine.
        "AIRFLOW__GCS_XCOM__TEMPORARY_DIRECTORY": str(tmp_path),
    }
    stored = python(folder, tmp_path, "-c", STORE_A_FRAME, **settings)
    uri, rows = stored.stdout.split()[-2:]
    done = doctor(folder, tmp_path, "--json", **settings)

    assert time.monotonic() - started < 120
    assert rows == "9", stored.stderr
    assert Path(uri.removeprefix("file://")).read_bytes().startswith(b"PAR1")
    levels = {one["check"]: one["level"] for one in findings(done)}
    # Whose the prefix is only a running Airflow could tell.
    assert levels.pop("prefix") == "skipped"
    assert (done.returncode, set(levels.values())) == (0, {"ok"}), done.stdout
    for kept, text in tree.items():
        if kept != OVERRIDE:
            assert set(text.splitlines()) <= set((folder / kept).read_text().splitlines()), kept


def test_doctor_works_before_anything_is_installed(template: Path, tmp_path: Path) -> None:
    """A Python without any package names the lines, and that this is not all."""
    folder = lay_out(ASTRO_IN_USE, tmp_path)
    adopt(template, folder)

    done = python(folder, tmp_path, "-S", "-m", "include.xcom", "doctor")

    assert done.returncode == 1
    assert done.stderr == ""
    assert "problem  airflow: not installed in" in done.stdout
    assert "problem  project: Dockerfile does not set the backend" in done.stdout
    assert f"warning  project: {OVERRIDE} has no bucket for this machine" in done.stdout


@needs_unix
def test_requirements_of_examples_are_asked_for(template: Path, tmp_path: Path) -> None:
    """The example Dags and Celery's workers need more than the backend; the lines are the template's own."""
    folder = lay_out(PLAIN, tmp_path)
    adopt(template, folder, include_examples="true", dataframe_library="polars", executor="CeleryExecutor")
    fresh = adopt(
        template,
        tmp_path / "other" / "fresh",
        include_examples="true",
        dataframe_library="polars",
        executor="CeleryExecutor",
    ).project

    fixes = doctor(folder, tmp_path, "--fixes").stdout
    subprocess.run(["sh", "-c", fixes], cwd=folder, check=True)

    def lines(path: Path) -> set[str]:
        return {line for line in path.read_text().splitlines() if line and line[0] != "#"}

    own = set(PLAIN["requirements.txt"].splitlines())
    assert lines(folder / "requirements.txt") - own == lines(fresh / "requirements.txt")


def test_local_bucket_is_that_of_the_template() -> None:
    """What an override of one's own gets means the same as the template's whole file."""
    project = REPOSITORY / TEMPLATE_FOLDER
    own, copy = (yaml.safe_load((project / name).read_text()) for name in (OVERRIDE, LOCAL_BUCKET))

    assert own == copy


def merge_by_hand(folder: Path) -> None:
    """Copy the services of the local bucket into the project's own override, as a person does."""
    own, added = (yaml.safe_load((folder / name).read_text()) for name in (OVERRIDE, LOCAL_BUCKET))
    for name, service in added["services"].items():
        there = own["services"].setdefault(name, {})
        for key, value in service.items():
            if isinstance(there.get(key), list):
                there[key] += (
                    [f"{one}={value[one]}" for one in value] if key == "environment" else list(value)
                )
            else:
                there[key] = value if key not in there else there[key] | value
    own["volumes"] |= added["volumes"]
    (folder / OVERRIDE).write_text(yaml.safe_dump(own))


@needs_unix
@pytest.mark.parametrize("base", ["cli", "compose"])
def test_merged_override_is_a_stack_for_compose(
    compose: None, base: str, template: Path, tmp_path: Path
) -> None:
    """Both stacks take it: the one that `astro dev start` makes, and the template's docker-compose.yml."""
    folder = lay_out(ASTRO_IN_USE, tmp_path)
    adopt(template, folder)
    merge_by_hand(folder)
    names = ("postgres", "db-migration", "scheduler", "dag-processor", "api-server", "triggerer")
    stack = {
        "services": {name: {"image": "astro", "networks": ["airflow"]} for name in names},
        "networks": {"airflow": {"driver": "bridge"}},
    }
    (tmp_path / "base.yml").write_text(yaml.safe_dump(stack))
    first = "docker-compose.yml" if base == "compose" else str(tmp_path / "base.yml")

    done = subprocess.run(
        ["docker", "compose", "-f", first, "-f", OVERRIDE, "config"],
        cwd=folder,
        env=clean_environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    for name in ("scheduler", "dag-processor", "api-server", "triggerer"):
        assert services[name]["environment"]["STORAGE_EMULATOR_HOST"] == "http://gcs:4443"
        assert "gcs" in services[name]["depends_on"]


@needs_unix
def test_plain_project_goes_on_with_its_own_compose_file(
    compose: None, template: Path, tmp_path: Path
) -> None:
    """After the fixes `docker compose` reads the file that it read before."""
    folder = lay_out(PLAIN, tmp_path)
    adopt(template, folder)
    subprocess.run(["sh", "-c", doctor(folder, tmp_path, "--fixes").stdout], cwd=folder, check=True)

    done = subprocess.run(
        ["docker", "compose", "config", "--services"],
        cwd=folder,
        env=clean_environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.split() == ["airflow-scheduler"]
