"""Fixtures of all tests of the template."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from baking import COMBINATIONS, REPOSITORY, Baked, bake, export
from engine import compose_refusal, give_up
from fake_gcs_server import HOW_TO_GET, find_binary, serving
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

# A script's background jobs ignore SIGINT, and so would every process that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class _ByFile(LoadFileScheduling):
    """Keep a file in one worker, since its tests share servers; all stacks in one, and all Airflows.

    Two stacks, or two complete Airflows at a time are too much for two cores: their heartbeats would be
    late. Groups of pytest-xdist 3.8 would do the same, but pytest 9.2 loses them.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return _kind(file) or file


def _kind(file: str) -> str:
    """Tell what a file of tests starts, if that is more than a process or two."""
    if file.startswith("tests/docker/"):
        return "docker"
    return "airflow" if "pytest.mark.airflow" in _source(file) else ""


@cache
def _source(file: str) -> str:
    return (REPOSITORY / file).read_text(encoding="utf-8")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _ByFile:
    """Distribute whole files."""
    return _ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the groups that take longest; the files at the end of the alphabet take seconds."""
    order = ("docker", "airflow", "")
    items.sort(key=lambda item: order.index(_kind(item.nodeid.partition("::")[0])))


@pytest.fixture(scope="session")
def gcs_server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start fake-gcs-server natively, in memory, on a free loopback port; one for all tests."""
    binary = find_binary()
    if binary is None:
        give_up(HOW_TO_GET)
    with serving(binary, tmp_path_factory.mktemp("gcs") / "server.log") as url:
        yield url


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as a checkout has it, without caches of this working tree."""
    return export(tmp_path_factory.mktemp("template"))


@pytest.fixture
def baker(template: Path, tmp_path: Path) -> Callable[..., Baked]:
    """Bake with some answers, the others by default."""
    return lambda *options, **answers: bake(template, tmp_path / "out", answers, *options)


@pytest.fixture(scope="session")
def baked_combinations(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """One project for each combination of answers, baked when first asked for. Read it, do not change it."""
    done: dict[str, Path] = {}

    def project(name: str) -> Path:
        if name not in done:
            baked = bake(template, tmp_path_factory.mktemp(name) / "out", COMBINATIONS[name])
            assert baked.exit_code == 0, baked.said
            done[name] = baked.project
        return done[name]

    return project


@pytest.fixture(params=COMBINATIONS)
def combination(request: pytest.FixtureRequest) -> str:
    """The name of a combination of answers."""
    return str(request.param)


@pytest.fixture
def project(combination: str, baked_combinations: Callable[[str], Path]) -> Path:
    """The project of a combination."""
    return baked_combinations(combination)


@pytest.fixture(scope="session")
def compose() -> None:
    """Give up where `docker compose` is not installed; no engine needs to run."""
    if refusal := compose_refusal():
        give_up(refusal)
