"""A newcomer's way with an existing Astro project: adopt, mend, start; then a payload and a healthy doctor."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from baking import REPOSITORY, clean_environment
from existing_projects import ASTRO, adopt, lay_out
from stack import Stack, running

# What `astro dev start` gives to every container.
OF_THE_CLI = {"ASTRONOMER_ENVIRONMENT": "local"}


@pytest.fixture(scope="module")
def adopted_stack(engine: None, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The three commands, on a project as `astro dev init` lays it out."""
    base = tmp_path_factory.mktemp("adopted")
    folder = lay_out(ASTRO, base)
    # The name of the folder becomes Compose's, which takes lower-case letters only.
    folder = folder.rename(folder.parent / "sales")

    baked = adopt(template, folder, include_examples="true")
    assert baked.exit_code == 0, baked.said
    mended = subprocess.run(
        ["sh", "-c", f"'{sys.executable}' -m include.xcom doctor --fixes | sh"],
        cwd=folder,
        env=clean_environment(base),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (mended.returncode, mended.stderr) == (0, "")
    (folder / "dags/doctor.py").write_text(doctor_dag())
    with running(folder, OF_THE_CLI) as stack:
        yield stack


def doctor_dag() -> str:
    """Return the Dag that the guide for Astro gives."""
    text = (REPOSITORY / "docs/how-to/astro.md").read_text()
    (code,) = re.findall(r"<!-- run: task -->\n```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return str(code)


def test_example_of_an_adopted_project_stores_its_payload(adopted_stack: Stack) -> None:
    """The image has what was merged into the project's own files: a run succeeds, its object is in the bucket."""
    run = adopted_stack.trigger("example_records").wait()

    assert run.state == "success", run.tasks()
    facts = run.reference("extract")
    assert adopted_stack.objects("xcom/example_records/")[run.object_name("extract")] == facts["bytes"]


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("exec", "-T", "scheduler"), id="exec"),
        pytest.param(("run", "--rm", "-T", "scheduler"), id="run"),
    ],
)
def test_doctor_of_an_adopted_project_is_all_green(adopted_stack: Stack, words: tuple[str, ...]) -> None:
    """In the containers as the Astro CLI starts them, exit code 0 and not a single warning."""
    said = adopted_stack.compose(*words, "python", "-m", "include.xcom", "doctor")

    assert said.splitlines()[-1] == "0 problems, 0 warnings", said
    assert re.search(r"^ok +emulator: .*\(development\)$", said, re.MULTILINE), said
    assert re.search(r"^ok +prefix: ", said, re.MULTILINE), said


def test_doctor_in_a_task_is_all_green(adopted_stack: Stack) -> None:
    """The Dag of the guide: a task sees what tasks have, and the check of the import holds there too."""
    run = adopted_stack.trigger("xcom_doctor").wait()

    log = str(adopted_stack.call("GET", f"{run.path}/taskInstances/examine/logs/1"))
    assert run.state == "success", log
    assert "Airflow loads include.xcom_backend.GCPBucketXComBackend" in log
    assert "can create, list, read, delete objects below gs://xcom-local/xcom/" in log
