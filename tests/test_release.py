"""The release checklist: it finds what is missing, and nothing in a checkout that is ready."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from baking import REPOSITORY, TEMPLATE_FOLDER, commit_all, export, git

CHANGELOG = "CHANGELOG.md"
VERSION_FILE = f"{TEMPLATE_FOLDER}/include/xcom/__init__.py"
LOCK = "requirements/dev.txt"
(VERSION,) = re.findall(r'(?m)^__version__ = "(.*)"$', (REPOSITORY / VERSION_FILE).read_text())


def replace(folder: Path, name: str, before: str, after: str) -> None:
    """Change a text that is there."""
    text = (folder / name).read_text()
    assert before in text
    (folder / name).write_text(text.replace(before, after, 1))


def check(folder: Path, *options: str) -> tuple[int, str]:
    """Run the script of a checkout; return its exit code and what it printed."""
    command = [sys.executable, str(folder / "scripts/release-check"), *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clone that is ready to be tagged."""
    folder = export(tmp_path / "checkout")
    text = (folder / CHANGELOG).read_text()
    heading = text.partition("\n## ")[2].partition("\n")[0]
    replace(folder, CHANGELOG, heading, f"{heading.split()[0]} (2026-01-31)")
    commit_all(folder, "Release")
    return folder


@pytest.mark.skipif(
    sys.version_info < (3, 11, 5), reason="zensical, which builds the site, needs Python 3.11.5"
)
def test_checkout_that_is_ready_passes(checkout: Path) -> None:
    """With package, project and site built from it."""
    exit_code, said = check(checkout)

    assert exit_code == 0, said
    assert said.endswith("ready to be tagged\n")
    assert git(checkout, "status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(
            lambda folder: git(folder, "tag", f"v{VERSION}"), f"the tag v{VERSION} exists", id="tagged"
        ),
        pytest.param(
            lambda folder: replace(folder, VERSION_FILE, f'"{VERSION}"', '"1.0"'),
            "has __version__ '1.0'",
            id="version",
        ),
        pytest.param(
            lambda folder: replace(folder, CHANGELOG, "(2026-01-31)", "(unreleased)"),
            f"begins with '## {VERSION} (unreleased)', not with",
            id="undated",
        ),
        pytest.param(
            lambda folder: replace(folder, CHANGELOG, "2026-01-31", "2999-01-31"),
            "in the future",
            id="future",
        ),
        pytest.param(
            lambda folder: replace(folder, CHANGELOG, "\n## ", f"\n## {VERSION} (2026-01-31)\n\n## "),
            f"the section '{VERSION} (2026-01-31)' is empty",
            id="empty-section",
        ),
        pytest.param(
            lambda folder: replace(folder, "package/README.md", f"@v{VERSION}", "@v0.9.0"),
            "package/README.md names 0.9.0 after '@v'",
            id="command-of-another-version",
        ),
        pytest.param(lambda folder: (folder / "notes.txt").touch(), "?? notes.txt", id="not-committed"),
        pytest.param(
            lambda folder: (folder / LOCK).write_text("ruff @ https://example.com/ruff.whl\n"),
            "requirements/dev.txt: ruff @ https://example.com/ruff.whl",
            id="address-in-the-lock-file",
        ),
    ],
)
def test_checkout_that_lacks_something_is_told(
    change: Callable[[Path], object], said: str, checkout: Path
) -> None:
    """The exit code is 1, and the line says what to mend."""
    change(checkout)

    exit_code, printed = check(checkout, "--quick")

    assert exit_code == 1
    assert said in printed


def test_package_and_project_of_another_version_are_told(checkout: Path) -> None:
    """What is built is looked at, not what the files say of it."""
    replace(checkout, "package/pyproject.toml", 'dynamic = ["version"]', 'version = "0.9.0"')
    (checkout / TEMPLATE_FOLDER / "include/xcom/__main__.py").write_text('print("0.9.0")\n')
    (checkout / "docs/index.md").write_text("[nowhere](nowhere.md)\n")

    exit_code, printed = check(checkout)

    assert exit_code == 1
    assert "built ['airflow_gcs_xcom-0.9.0-py3-none-any.whl']" in printed
    assert "prints '0.9.0'" in printed
    assert "MISSING  site" in printed
