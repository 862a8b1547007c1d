"""Bake the template in tests: from a clean copy, with a cookiecutter that knows nothing of this user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

from cookiecutter.cli import main as cookiecutter_command

REPOSITORY = Path(__file__).resolve().parent.parent
TEMPLATE_FOLDER = "{{cookiecutter.project_slug}}"
BIN = Path(sys.executable).parent

# Every pair of answers occurs in one of these.
COMBINATIONS: dict[str, dict[str, str]] = {
    "3.3-local-pandas-examples": {},
    "3.3-celery-polars-bare": {
        "ci": "github",
        "executor": "CeleryExecutor",
        "dataframe_library": "polars",
        "include_examples": "false",
    },
    "3.2-local-polars-examples": {
        "ci": "github",
        "runtime_version": "3.2-9",
        "dataframe_library": "polars",
    },
    "3.2-celery-pandas-bare": {
        "runtime_version": "3.2-9",
        "executor": "CeleryExecutor",
        "include_examples": "false",
    },
    "3.1-local-pandas-bare": {
        "runtime_version": "3.1-21",
        "include_examples": "false",
    },
    "3.1-local-pandas-examples-workflow": {
        "ci": "github",
        "runtime_version": "3.1-21",
    },
    "3.1-celery-polars-examples": {
        "runtime_version": "3.1-21",
        "executor": "CeleryExecutor",
        "dataframe_library": "polars",
    },
}


@dataclass(frozen=True)
class Baked:
    """What one run of cookiecutter left behind and said."""

    output: Path
    exit_code: int
    said: str
    answers: dict[str, str] = field(default_factory=dict)

    @property
    def project(self) -> Path:
        """The generated folder; there is exactly one."""
        (project,) = self.output.iterdir()
        return project


def files_of(folder: Path) -> list[str]:
    """List the files below a folder, sorted, with ``/`` between the parts."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def contents_of(folder: Path) -> dict[str, bytes]:
    """Map each file below a folder to its bytes."""
    return {name: (folder / name).read_bytes() for name in files_of(folder)}


def export(target: Path) -> Path:
    """Copy the repository without what running made: what git tracks, or would track if added now."""
    listed = git(REPOSITORY, "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    for name in filter(None, listed):
        if (REPOSITORY / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target / name)
    return target


def git(folder: Path, *arguments: str) -> str:
    """Run git as nobody in particular and return what it prints."""
    identity = ["-c", "user.name=Tester", "-c", "user.email=tester@example.com", "-c", "commit.gpgsign=false"]
    command = ["git", "-c", "safe.directory=*", "-c", "init.defaultBranch=main", *identity, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def commit_all(folder: Path, message: str) -> None:
    """Make the folder a repository if it is none, and commit everything that is not ignored."""
    if not (folder / ".git").exists():
        git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)


def clean_environment(home: Path) -> dict[str, str]:
    """Give the environment of a person without settings: own home, no clouds, no Airflow."""
    foreign = ("AIRFLOW", "GOOGLE_", "CLOUDSDK_", "COOKIECUTTER", "STORAGE_", "COMPOSE_", "XCOM_", "GCS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    config = home / "cookiecutterrc"
    if not config.exists():
        config.write_text(f"cookiecutters_dir: '{home / 'templates'}'\nreplay_dir: '{home / 'replay'}'\n")
    # Docker's plugins and contexts stay those of the user: without them there is no `docker compose`.
    docker = os.environ.get("DOCKER_CONFIG", str(Path.home() / ".docker"))
    return kept | {
        "HOME": str(home),
        "COOKIECUTTER_CONFIG": str(config),
        "DOCKER_CONFIG": docker,
        "AIRFLOW_API_URL": "http://127.0.0.1:9",  # Somebody's Airflow may answer at the usual address.
    }


def bake(template: Path | str, output: Path, answers: dict[str, str], *options: str) -> Baked:
    """Run cookiecutter's command as a person would and report the outcome, good or bad.

    The command runs in this process, since starting Python and cookiecutter takes longer than baking.
    The template is a folder, or an address that git can clone.
    """
    output.mkdir(parents=True, exist_ok=True)
    home = output.parent / f"{output.name}-home"
    home.mkdir(exist_ok=True)
    config = clean_environment(home)["COOKIECUTTER_CONFIG"]
    command = [str(template), "--no-input", "--config-file", config, "--output-dir", str(output), *options]
    command += [f"{name}={answer}" for name, answer in answers.items()]
    with captured() as said:
        try:
            exit_code = cookiecutter_command(command, standalone_mode=True)
        except SystemExit as stop:
            exit_code = stop.code
        except Exception:  # noqa: BLE001 - whatever it is, the command would have failed with it
            # What the interpreter does with an error that nobody caught.
            traceback.print_exc()
            exit_code = 1
    return Baked(output, int(exit_code or 0), said[0], answers)


@contextmanager
def captured() -> Iterator[list[str]]:
    """Collect what is written to standard output and error, by child processes too."""
    said: list[str] = []
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as file:
        saved = [(number, os.dup(number)) for number in (1, 2)]
        try:
            for number, _ in saved:
                os.dup2(file.fileno(), number)
            with redirect_stdout(file), redirect_stderr(file):
                yield said
        finally:
            for number, copy in saved:
                os.dup2(copy, number)
                os.close(copy)
            file.flush()
            file.seek(0)
            said.append(file.read())
