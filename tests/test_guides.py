"""The guides of docs/how-to/: what one machine can run is run, and every name in them exists.

A block below ``<!-- run -->`` is run by its page's test, all such blocks of a page (or of one name,
``<!-- run: name -->``) in one shell, in order. Only the template's address is replaced.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from baking import BIN, REPOSITORY, TEMPLATE_FOLDER, Baked, clean_environment, commit_all

DOCS = REPOSITORY / "docs"
PROJECT = REPOSITORY / TEMPLATE_FOLDER
GUIDES = (
    "adopt.md",
    "astro.md",
    "celery.md",
    "composer.md",
    "helm.md",
    "remote-execution.md",
    "update.md",
)
PAGES = sorted([*DOCS.rglob("*.md"), REPOSITORY / "README.md", PROJECT / "README.md"])
ADDRESS = "gh:org/cookiecutter-astro-gcs-xcom"

# Commands of other products that the guides use, as their references have them (read in November 2026:
# cloud.google.com/sdk/gcloud/reference, astronomer.io/docs/cli/v1.47, helm.sh/docs/helm,
# docs.docker.com/reference/cli, kubernetes.io/docs/reference/kubectl, cruft.github.io).
FOREIGN = {
    "gcloud storage buckets create": {
        "--location",
        "--uniform-bucket-level-access",
        "--public-access-prevention",
        "--soft-delete-duration",
        "--default-encryption-key",
    },
    "gcloud storage buckets update": {
        "--lifecycle-file",
        "--clear-soft-delete",
        "--no-versioning",
        "--default-encryption-key",
        "--public-access-prevention",
        "--uniform-bucket-level-access",
    },
    "gcloud storage buckets add-iam-policy-binding": {"--member", "--role", "--condition"},
    "gcloud storage rsync": {"--recursive"},
    "gcloud storage service-agent": {"--project", "--authorize-cmek"},
    "gcloud composer environments update": {
        "--location",
        "--update-airflow-configs",
        "--update-pypi-packages-from-file",
    },
    "astro deployment variable create": {"--deployment-id"},
    "astro dev start": {"--no-proxy", "--standalone"},
    "astro dev parse": set(),
    "astro deploy": {"--dags"},
    "astro remote deploy": {"--platform"},
    "astro config set": set(),
    "cruft check": {"--checkout"},
    "cruft create": {"--checkout"},
    "cruft link": {"--no-input", "--extra-context"},
    "cruft update": {"--checkout"},
    "docker build": {"-f", "-t"},
    "docker compose exec": {"-T"},
    "docker compose up": {"-d", "--build", "--wait", "--wait-timeout", "--scale"},
    "docker compose stop": set(),
    "docker compose down": {"--volumes"},
    "docker push": set(),
    "kubectl annotate": {"--namespace"},
    "kubectl create serviceaccount": {"--namespace"},
    "kubectl exec": {"--namespace", "--container"},
    "helm repo add": set(),
    "helm upgrade": {"--install", "--namespace", "--create-namespace", "--values"},
    "terraform init": set(),
    "terraform workspace new": set(),
    "terraform apply": {"-var"},
}
OF_OTHERS = {command.split()[0] for command in FOREIGN} | {"gsutil"}


def blocks(page: Path, name: str = "") -> str:
    """Return the shell code of a page's marked blocks."""
    mark = f"<!-- run: {name} -->" if name else "<!-- run -->"
    found = re.findall(
        rf"^( *){re.escape(mark)}\n\1```sh\n(.*?)^\1```$", page.read_text(), re.DOTALL | re.MULTILINE
    )
    assert found, f"{page.name} has no block below {mark}"
    return "\n".join(textwrap.dedent(code) for _, code in found)


@pytest.fixture
def run(template: Path, tmp_path: Path) -> Callable[..., str]:
    """Run shell code as a person without settings would, and return what it printed."""
    tools = tmp_path / "tools"
    tools.mkdir()
    # pipx brings cookiecutter from the network; here it is the one of these tests.
    (tools / "pipx").write_text(f'#!/bin/sh\nshift 2\nexec "{BIN}/cookiecutter" "$@"\n')
    (tools / "pipx").chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()

    def run(code: str, folder: Path) -> str:
        environment = clean_environment(home) | {"PATH": f"{tools}:{BIN}:{os.environ['PATH']}"}
        script = "set -euo pipefail\n" + code.replace(ADDRESS, shlex.quote(str(template)))
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


def astro_project(folder: Path) -> dict[str, bytes]:
    """Lay out a project as people have it; return its files."""
    files = {
        "Dockerfile": b"FROM astrocrpublic.azurecr.io/runtime:3.3-8\n",
        "requirements.txt": b"# Ours.\n",
        "dags/ours.py": b"",
        "include/helpers.py": b"X = 1\n",
    }
    for name, body in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
    return files


def test_astro_project_gets_to_a_stored_payload_and_a_healthy_doctor(
    run: Callable[..., str], tmp_path: Path
) -> None:
    """adopt.md from its first command to the last one, turning off included."""
    page = DOCS / "how-to/adopt.md"
    before = astro_project(tmp_path / "work/sales")

    said = run(blocks(page) + "\n" + blocks(page, "off"), tmp_path / "work")

    assert re.search(r"^ok +project: Dockerfile and requirements.txt have the backend's lines$", said, re.M)
    assert re.search(r"^ok +import: Airflow loads include\.xcom_backend\.GCPBucketXComBackend$", said, re.M)
    assert re.search(r"^0 problems, 0 warnings$", said, re.M), said
    listed = re.findall(r"^(\d+) runs?, (\d+) payloads", said, re.M) or re.findall(
        r"^manual__.*$", said, re.M
    )
    assert len(listed) == 2, said[-3000:]
    for name, body in before.items():
        assert (tmp_path / "work/sales" / name).read_bytes().startswith(body), name


def test_plain_airflow_project_gets_a_healthy_doctor(run: Callable[..., str], tmp_path: Path) -> None:
    """adopt.md, without Astro's files."""
    (tmp_path / "work/my-airflow/dags").mkdir(parents=True)

    said = run(blocks(DOCS / "how-to/adopt.md", "plain"), tmp_path / "work")

    assert re.search(r"^0 problems, 0 warnings$", said, re.M), said
    assert not (tmp_path / "work/my-airflow/Dockerfile").exists()
    assert (tmp_path / "work/my-airflow/plugins/payload_viewer.py").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_airflow_without_an_image_is_shown_the_plugins(page: Path) -> None:
    """A home elsewhere has plugins of its own, so the Payloads pages would not appear."""
    for block in re.findall(r"^```(?:ba)?sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        assert ("__DAGS_FOLDER=" in block) == ("__PLUGINS_FOLDER=" in block), block


def test_adopted_project_is_linked_to_later_versions(
    run: Callable[..., str], template: Path, tmp_path: Path
) -> None:
    """adopt.md: the notes of cruft are right, and .env stays out of updates."""
    repository = shutil.copytree(template, tmp_path / "template")
    commit_all(repository, "Publish the template")
    page = DOCS / "how-to/adopt.md"
    project = tmp_path / "work/sales"
    astro_project(project)
    adopt = blocks(page).partition("python -m pip")[0]
    identity = "export GIT_AUTHOR_NAME=T GIT_AUTHOR_EMAIL=t@example.com\n"
    identity += "export GIT_COMMITTER_NAME=T GIT_COMMITTER_EMAIL=t@example.com\ngit init --quiet\n"
    link = blocks(page, "link").replace(ADDRESS, shlex.quote(str(repository)))

    said = run(f"{adopt}\n{identity}{link}", tmp_path / "work")

    assert "up to date" in said.splitlines()[-1], said
    notes = json.loads((project / ".cruft.json").read_text())
    assert (notes["template"], notes["skip"]) == (str(repository), [".env"])


def test_tutorial_ends_with_payloads_in_the_folder(run: Callable[..., str], tmp_path: Path) -> None:
    """tutorial.md, but for the installation: these tests have everything installed."""
    said = run(blocks(DOCS / "tutorial.md"), tmp_path)

    assert re.search(r"^0 problems, 0 warnings$", said, re.M), said
    assert "Stored XCom payload dag_id=example_records" in said
    assert re.search(r"^\.airflow/xcoms/xcom/example_records/.*\.json\.zst$", said, re.M), said[-2000:]


def test_turning_off_gives_the_error_that_the_guide_prints(tmp_path: Path) -> None:
    """Who reads an old reference without the backend gets exactly that, and never the reference."""
    text = (DOCS / "how-to/adopt.md").read_text()
    (printed,) = re.findall(r"^(ImportError: .*)$", text, re.MULTILINE)
    code = (
        "from types import SimpleNamespace; from include.xcom.reference import PayloadReference\n"
        "from airflow.sdk.bases.xcom import BaseXCom\n"
        "row = PayloadReference('gs://acme/xcom/a', 'bytes', 1, 1, 'bytes', 1, '00000000', '1').to_row()\n"
        "print(BaseXCom.deserialize_value(SimpleNamespace(value=row)))"
    )

    def read(**more: str) -> str:
        environment = clean_environment(tmp_path) | {
            "AIRFLOW_HOME": str(tmp_path),
            "PYTHONPATH": str(PROJECT),
        }
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment | more,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert not done.stdout
        return done.stderr.strip().splitlines()[-1]

    assert read() == printed
    allowed = read(AIRFLOW__CORE__ALLOWED_DESERIALIZATION_CLASSES="gcs_xcom.*")
    assert allowed == "ModuleNotFoundError: No module named 'gcs_xcom'"


def test_package_for_composer_brings_the_backend(
    run: Callable[..., str], baker: Callable[..., Baked], template: Path, tmp_path: Path
) -> None:
    """composer.md: the wheel alone is enough to import the class and the plugin, and has the viewer's pages."""
    repository = shutil.copytree(template, tmp_path / "repository")
    commit_all(repository, "Publish the template")
    project = baker(include_examples="false").project
    page = DOCS / "how-to/composer.md"

    run(f"export TEMPLATE={shlex.quote(str(repository))}\n{blocks(page, 'package')}", tmp_path)
    run(blocks(page, "plugin"), project)

    (wheel,) = (tmp_path / "dist").glob("*.whl")
    code = (
        "from gcs_xcom.xcom_backend import GCPBucketXComBackend as backend\n"
        "import gcs_xcom.xcom.viewer as viewer, payload_viewer; from importlib.resources import files\n"
        "print(backend.__module__, files(viewer).joinpath('templates/viewer.css').is_file())"
    )
    run(f"python -m pip install --quiet --no-deps --target installed {shlex.quote(str(wheel))}", tmp_path)
    environment = clean_environment(tmp_path) | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "installed"), str(project / "upload")]),
        "AIRFLOW_HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "gcs_xcom.xcom_backend True\n", done.stderr


def test_plugins_folder_for_composer_serves_the_backend(
    run: Callable[..., str], baker: Callable[..., Baked], tmp_path: Path
) -> None:
    """composer.md: with .airflowignore Airflow finds its plugin and the class; without, it stumbles over every file."""
    project = baker(include_examples="false").project
    run(blocks(DOCS / "how-to/composer.md", "plugins"), project)
    (project / "upload").rename(tmp_path / "plugins")
    code = f'export AIRFLOW_HOME="{tmp_path}" AIRFLOW__CORE__LOAD_EXAMPLES=False\nairflow {{}} 2>&1'

    def count_errors() -> int:
        ask = "from airflow import plugins_manager; print(len(plugins_manager._get_plugins()[1]))"
        return int(
            run(f"export AIRFLOW_HOME={tmp_path}\npython -c '{ask}' 2>/dev/null", tmp_path).split()[-1]
        )

    assert "payload_viewer" in run(code.format("plugins"), tmp_path)
    assert count_errors() == 0
    setting = "AIRFLOW__CORE__XCOM_BACKEND=include.xcom_backend.GCPBucketXComBackend"
    imported = run(
        f"export {setting}\n" + code.format("db migrate") + " | tail -n 1\n",
        tmp_path,
    )
    assert "Database migration done" in imported
    (tmp_path / "plugins/.airflowignore").unlink()
    assert count_errors() > 10


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of every command in a page's shell blocks and transcripts."""
    for code in re.findall(
        r"^ *```(?:sh|bash|console)\n(.*?)^ *```$", page.read_text(), re.DOTALL | re.MULTILINE
    ):
        code = re.sub(r"<<'END'\n.*?\n *END\n", "\n", code, flags=re.DOTALL).replace("\\\n", " ")
        is_transcript = bool(re.search(r"^\$ ", code, re.MULTILINE))
        for line in code.splitlines():
            if is_transcript and not line.startswith("$ "):
                continue
            try:
                words = shlex.split(line.strip().removeprefix("$ "), comments=True)
            except ValueError:
                continue  # A quoted text of several lines.
            if words:
                yield words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_commands_of_the_pages_exist(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own are parsed by the program itself; those of others are compared with their references."""
    monkeypatch.syspath_prepend(str(PROJECT))
    from include.xcom.__main__ import parser

    for words in commands(page):
        line = " ".join(words)
        if "include.xcom" in words and words[words.index("include.xcom") - 1] == "-m":
            rest = words[words.index("include.xcom") + 1 :]
            rest = rest[: next((at for at, word in enumerate(rest) if word in ("|", ">")), len(rest))]
            if rest == ["--help"]:
                continue
            try:
                parser().parse_args(rest)
            except SystemExit:
                pytest.fail(f"{page.name}: no such command: {line}")
        if words[0] in OF_OTHERS and not line.startswith("gcloud auth"):
            known = [command for command in FOREIGN if line.startswith(command)]
            assert known, f"{page.name}: not looked up: {line}"
            flags = FOREIGN[max(known, key=len)]
            # What is run inside of a container has options of its own.
            inside = next((at for at, word in enumerate(words) if word in ("--", "python")), len(words))
            used = {word.partition("=")[0] for word in words[:inside] if re.match(r"--?[a-zA-Z]", word)}
            assert flags is None or used <= flags, f"{page.name}: {line}"
        if words[0] == "make" and len(words) > 1:
            assert re.search(rf"^{words[1]}:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE), line


def test_commands_that_the_forms_ask_for_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reports a bug is asked for what the program prints, in the form that it has."""
    monkeypatch.syspath_prepend(str(PROJECT))
    from include.xcom.__main__ import parser

    forms = [*(REPOSITORY / ".github/ISSUE_TEMPLATE").glob("*.yml"), REPOSITORY / "SECURITY.md"]
    asked = [re.findall(r"`python -m include\.xcom ([^`]+)`", form.read_text()) for form in forms]
    found = {command for commands in asked for command in commands}

    assert found == {"--version", "doctor --json"}
    assert parser().parse_args(["doctor", "--json"]).json
    with pytest.raises(SystemExit, match="0"):
        parser().parse_args(["--version"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_settings_of_the_pages_exist(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours are fields of Settings, or of the maintenance Dag; others are known to Airflow."""
    monkeypatch.syspath_prepend(str(PROJECT))
    from airflow.configuration import conf
    from include.xcom.settings import Settings

    ours = {field.name for field in dataclasses.fields(Settings)} | {"sweep_schedule"}
    text = page.read_text()
    # Celery's options come with its provider, which is not needed here.
    elsewhere = {("celery", "broker_url"), ("celery", "result_backend"), ("celery", "worker_concurrency")}
    for section, name in re.findall(r"AIRFLOW__([A-Z_]+?)__([A-Z][A-Z_]*[A-Z])\b", text):
        if (section, name) == ("SECTION", "NAME") or (section, name) == ("SECTION", "KEY"):
            continue
        section, name = section.lower(), name.lower()
        if section == "gcs_xcom":
            assert name in ours, f"{page.name}: {name}"
        elif (section, name) not in elsewhere:
            assert name in conf.configuration_description.get(section, {}).get("options", {}), (
                f"{section}.{name}"
            )
    for name in re.findall(r"gcs_xcom-([a-z_]+)=", text):
        assert name in ours, f"{page.name}: {name}"
    api = (PROJECT / "include/xcom/commands/api.py").read_text()
    for name in re.findall(r"\bAIRFLOW_API_[A-Z]+\b", text):
        assert name in api, f"{page.name}: {name}"


def test_every_guide_is_named_here() -> None:
    """A new guide is run or checked as well."""
    assert sorted(path.name for path in (DOCS / "how-to").glob("*.md")) == sorted(GUIDES)
    for path in re.findall(
        r"`(deploy/[a-zA-Z./-]+)`", "".join((DOCS / "how-to" / name).read_text() for name in GUIDES)
    ):
        assert (PROJECT / path).exists(), path
