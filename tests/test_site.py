"""The documentation builds as a site, strictly, and no link or picture in it leads nowhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from baking import BIN, REPOSITORY

# Its builder needs a newer Python than the template does; requirements/dev.in says so, too.
pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 11, 5),
    reason="zensical, which builds the site, needs Python 3.11.5: run the tests with a newer one",
)


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a checkout, as `make docs` does."""
    return subprocess.run(
        [BIN / "zensical", "build", "--clean", "--strict"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": "scripts"},
        capture_output=True,
        text=True,
        check=False,
    )


def check(site: Path) -> subprocess.CompletedProcess[str]:
    """Check the links of a site that was built."""
    command = [sys.executable, str(REPOSITORY / "scripts/check-links"), str(site)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built from a copy."""
    folder = tmp_path_factory.mktemp("site")
    for name in ("docs", "scripts"):
        shutil.copytree(REPOSITORY / name, folder / name)
    shutil.copy2(REPOSITORY / "mkdocs.yml", folder)
    done = build(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / ".site"


def test_site_has_every_page_and_no_dead_link(site: Path) -> None:
    """Pages that the navigation forgets are found as well; nothing is loaded from another host."""
    done = check(site)

    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(REPOSITORY / "docs").as_posix() for path in (REPOSITORY / "docs").rglob("*.md")}
    named = set(re.findall(r": ([a-z/-]+\.md)$", (REPOSITORY / "mkdocs.yml").read_text(), re.MULTILINE))
    assert named == pages


def test_diagrams_are_drawn_into_the_page(site: Path) -> None:
    """As pictures with their words in them, so that no script has to come from anywhere."""
    text = (site / "index.html").read_text()

    assert "flowchart LR" not in text
    assert re.search(r'class="mermaid-drawn".*<svg .*one object, one request', text, re.DOTALL)


@pytest.mark.parametrize(
    ("added", "said"),
    [
        pytest.param('<a href="nowhere.html">x</a>', "no such page or file: nowhere.html", id="page"),
        pytest.param(
            '<a href="tutorial.html#nothing">x</a>', "no such heading: tutorial.html#nothing", id="heading"
        ),
        pytest.param(
            '<script src="https://cdn.example/x.js"></script>', "loads https://cdn.example/x.js", id="script"
        ),
        pytest.param('<img src="images/none.png">', "no such page or file: images/none.png", id="picture"),
    ],
)
def test_link_check_finds_what_is_wrong(site: Path, tmp_path: Path, added: str, said: str) -> None:
    """Each kind of problem is named, and ends the command with an error."""
    broken = shutil.copytree(site, tmp_path / "site")
    index = broken / "index.html"
    index.write_text(index.read_text().replace("</article>", f"{added}</article>", 1))

    done = check(broken)

    assert done.returncode == 1
    assert f"index.html{': ' if said.startswith('no') else ' '}{said}" in done.stderr


def test_build_is_strict_about_headings(site: Path, tmp_path: Path) -> None:
    """A link to a heading that does not exist stops the build."""
    folder = shutil.copytree(site.parent, tmp_path / "copy")
    page = folder / "docs/tutorial.md"
    page.write_text(page.read_text() + "\n[x](retention.md#no-such-heading)\n")

    done = build(folder)

    assert done.returncode != 0
    assert "anchor does not exist" in done.stdout + done.stderr
