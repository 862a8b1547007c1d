"""Windows and macOS: names, lengths, line ends and hooks, as far as one machine can tell.

The workflow runs this file on Windows.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from baking import COMBINATIONS, REPOSITORY, Baked, clean_environment, commit_all, files_of, git

FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f]|[. ]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE)
# Windows gives 260 characters to a whole path; what is above the project's parent folder needs some.
LONGEST = 150
LONGEST_SLUG = "x" * 50


def tracked() -> list[str]:
    """The files of this repository."""
    listed = git(REPOSITORY, "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    return [name for name in listed if name]


@pytest.mark.parametrize("answers", COMBINATIONS.values(), ids=COMBINATIONS)
def test_paths_of_a_project_fit_windows(answers: dict[str, str], baker: Callable[..., Baked]) -> None:
    """With the longest name of a folder that is accepted, and the folder included."""
    baked = baker(project_slug=LONGEST_SLUG, **answers)

    for name in files_of(baked.output):
        assert len(name) <= LONGEST, name
        assert not any(FORBIDDEN.search(part) for part in name.split("/")), name


def test_paths_of_the_template_fit_windows() -> None:
    """A clone of this repository: names with conditions are long ones."""
    for name in tracked():
        assert len(f"cookiecutter-astro-gcs-xcom/{name}") <= LONGEST, name
        assert not any(FORBIDDEN.search(part) for part in name.split("/")), name


def test_no_two_names_differ_by_case_alone(baked_combinations: Callable[[str], Path]) -> None:
    """Only one of them would be left on macOS and Windows."""
    for names in (tracked(), files_of(baked_combinations("3.3-local-pandas-examples"))):
        assert [name for name, count in Counter(map(str.lower, names)).items() if count > 1] == []


def test_line_ends_stay_those_of_linux_on_windows(
    baked_combinations: Callable[[str], Path], tmp_path: Path
) -> None:
    """Checked out with git's settings of Windows, no file gets a carriage return: containers read them."""
    origin = tmp_path / "origin"
    for name in files_of(baked_combinations("3.3-local-pandas-examples")):
        (origin / name).parent.mkdir(parents=True, exist_ok=True)
        (origin / name).write_bytes((baked_combinations("3.3-local-pandas-examples") / name).read_bytes())
    commit_all(origin, "Start the project")

    windows = ["-c", "core.autocrlf=true", "-c", "core.eol=crlf"]
    git(tmp_path, *windows, "clone", "--quiet", str(origin), str(tmp_path / "clone"))

    there = [name for name in files_of(tmp_path / "clone") if not name.startswith(".git/")]
    assert len(there) > 50
    assert [name for name in there if b"\r" in (tmp_path / "clone" / name).read_bytes()] == []


def test_line_ends_of_the_template_are_fixed_for_every_text() -> None:
    """Git says so of each file; pictures are binary."""
    said = subprocess.run(
        ["git", "-c", "safe.directory=*", "check-attr", "--stdin", "-z", "text", "eol"],
        cwd=REPOSITORY,
        input="\0".join(tracked()),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    answers = list(zip(said[::3], said[1::3], said[2::3], strict=False))

    assert len(answers) > 200
    for name, attribute, value in answers:
        if name.endswith(".png"):
            assert attribute == "eol" or value == "unset", name
        else:
            assert value == {"text": "auto", "eol": "lf"}[attribute], name


@pytest.mark.parametrize("hook", ["pre_gen_project.py", "post_gen_project.py"])
def test_hook_needs_the_standard_library_alone(hook: str, baker: Callable[..., Baked]) -> None:
    """It runs in a Python without packages, and names nothing that Windows lacks."""
    source = (REPOSITORY / "hooks" / hook).read_text(encoding="utf-8")
    imported = {
        name.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import)
        for name in node.names
    }
    answers = '{"project_name": "A", "project_slug": "a", "runtime_version": "3.3-8", "gcs_bucket": "abc",'
    answers += '"executor": "LocalExecutor", "dataframe_library": "pandas", "include_examples": true,'
    answers += '"ci": "none"}'

    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", source.replace("{{ cookiecutter | tojson }}", answers)],
        cwd=baker().project,
        capture_output=True,
        text=True,
        check=False,
    )

    assert imported <= set(sys.stdlib_module_names) - {"fcntl", "grp", "os", "posix", "pwd", "resource"}
    assert (done.returncode, done.stderr) == (0, "")


def test_hooks_speak_in_any_code_page(template: Path, tmp_path: Path) -> None:
    """Windows' consoles may know ASCII only: an answer with umlauts must not end in a traceback."""
    command = [sys.executable, "-m", "cookiecutter", str(template), "--no-input", "-o", str(tmp_path / "o")]
    done = subprocess.run(
        [*command, "project_name=Söhne"],
        env=clean_environment(tmp_path) | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "is ready." in done.stdout
