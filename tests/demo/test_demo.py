"""`make demo` shows what passed, and says why when something does not work."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "demo" / "demo.py"

FAILS = """
from datetime import timedelta

from airflow.sdk import dag, task


@dag(schedule=None, default_args={"retries": 2, "retry_delay": timedelta(minutes=5)})
def fails():
    @task
    def numbers():
        return [1, 0]

    @task
    def divide(number):
        return 1 / number

    divide.expand(number=numbers())


fails()
"""


def load_demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_under_test", DEMO)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Dataclasses look their module up.
    spec.loader.exec_module(module)
    return module


demo = load_demo()


def run_demo(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the demo as `make demo` does, its output going to no terminal."""
    return subprocess.run(
        [sys.executable, str(DEMO), *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@dataclass(frozen=True)
class Ended:
    """What a demo left."""

    code: int
    lines: list[str]
    folder: Path


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Run one Dag that works, one that fails, and one file that is not Python."""
    home = tmp_path_factory.mktemp("demo with a space")
    (home / "fails.py").write_text(FAILS)
    (home / "no_dag.py").write_text("import no_such_module\nfrom airflow.sdk import dag\n")
    folder = home / "folder"
    arguments: list[str | Path] = [
        "--folder",
        folder,
        "--add",
        home / "fails.py",
        "--add",
        home / "no_dag.py",
    ]
    done = run_demo(
        *arguments,
        "example_small_values",
        "fails",
        # What the caller's shell says about another Airflow must not matter here.
        AIRFLOW__CORE__DAGS_FOLDER="/nonexistent",
        AIRFLOW__GCS_XCOM__THRESHOLD_BYTES="none of this",
        STORAGE_EMULATOR_HOST="http://nowhere.invalid",
    )
    return Ended(done.returncode, done.stdout.rstrip().splitlines(), folder)


def test_demo_of_a_failing_dag_ends_with_task_reason_and_log(ended: Ended) -> None:
    """The exit code is 1, and the last lines name the Dag, the task, the exception and the whole log."""
    failed, reason, log = ended.lines[-3:]

    assert ended.code == 1
    assert failed == "FAILED: task divide[1] of Dag fails"
    assert reason == "ZeroDivisionError: division by zero"
    path = ROOT / log.removeprefix("whole log: ")
    assert path == ended.folder / "logs" / "fails.log" or path.samefile(ended.folder / "logs" / "fails.log")
    assert "1 / number" in path.read_text()


def test_demo_of_a_failing_dag_does_not_wait_for_retries(ended: Ended) -> None:
    """The failed task was tried once, though its Dag asks for retries."""
    connection = sqlite3.connect(ended.folder / "airflow" / "airflow.db")
    tries = connection.execute(
        "SELECT task_id, map_index, state, try_number FROM task_instance WHERE dag_id = 'fails'"
    ).fetchall()
    connection.close()

    assert ("divide", 1, "failed", 1) in tries
    assert ("divide", 0, "success", 1) in tries


def test_demo_of_a_file_that_is_not_a_dag_names_file_and_reason(ended: Ended) -> None:
    """A file that cannot be imported is a failure, too."""
    position = ended.lines.index("FAILED: Dag no_dag.py")

    assert "No module named 'no_such_module'" in ended.lines[position + 1]


def test_demo_shows_what_passed_before_another_dag_failed(ended: Ended) -> None:
    """The table of the Dag that works is there, and fits a terminal that nobody has widened."""
    start = ended.lines.index("example_small_values")
    end = next(number for number, line in enumerate(ended.lines) if re.match(r"\d+ payloads, ", line))
    table = ended.lines[start:end]
    (stored,) = (line for line in table if line.startswith("text [1]"))
    (inline,) = (line for line in table if line.startswith("text [0]"))

    (period,) = (line for line in table if line.startswith("period"))

    assert max(map(len, table)) <= 80
    assert re.search(r"str +49\.2 kB +\d+ B \.json\.zst +\d+\.\d$", stored)
    assert re.search(r"str +49\.2 kB database +\d+\.\d$", inline)
    assert re.search(r"^period +dict +\d+ B database", period)


def test_demo_says_how_to_see_the_same_in_the_ui(ended: Ended) -> None:
    """Commands to paste, which are those of the README, and the address."""
    readme = (ROOT / "README.md").read_text()
    start = next(at for at, line in enumerate(ended.lines) if "http://localhost:8080" in line)
    bake, up = (line.strip() for line in ended.lines[start + 1 : start + 3])

    assert re.fullmatch(r"pipx run cookiecutter --no-input \S+", bake)
    assert "pipx run cookiecutter " in readme
    assert re.fullmatch(r"cd my-airflow && (docker compose up .*)", up)
    assert up.partition(" && ")[2] in readme


def test_demo_tells_its_steps_with_seconds(ended: Ended) -> None:
    """Without a terminal each step is one plain line."""
    steps = [line for line in ended.lines if re.fullmatch(r"  \w.* \d+\.\d s", line) and "..." not in line]

    assert [step.split("  ")[1] for step in steps] == [
        "bake the template, default answers",
        "airflow db migrate",
        "start Airflow",
        "example_small_values",
        "fails",
    ]
    assert not any("\r" in line or "\033" in line for line in ended.lines)
    # With the installation before it, a first value is stored within two minutes.
    assert sum(float(step.split()[-2]) for step in steps[:-1]) < 100


def test_demo_writes_every_value_with_its_whole_path(ended: Ended) -> None:
    """The file beside the table has what the table shortens, and the payloads are where it says."""
    rows = (ended.folder / "passed.csv").read_text().splitlines()
    paths = [match[0] for row in rows if (match := re.search(r"xcom/[^,]+", row))]

    assert len(paths) == 2
    assert all((ended.folder / "payloads" / path).is_file() for path in paths)


def test_demo_of_an_unknown_dag_names_those_that_exist(ended: Ended) -> None:
    """A typo in a Dag's name is answered with the names there are; --keep goes on with what is there."""
    for name in ("fails.py", "no_dag.py"):
        (demo.Place(ended.folder).project / "dags" / name).unlink()
    done = run_demo("--folder", ended.folder, "--keep", "example_flihgts")

    assert done.returncode == 1
    assert "bake" not in done.stdout
    known = "example_arrays, example_flights, example_large_values, example_records, example_small_values"
    assert done.stdout.splitlines()[-1] == f"no Dag example_flihgts; there are {known}"


def test_demo_help_is_fast_and_makes_nothing(tmp_path: Path) -> None:
    """--help needs no environment and leaves no folder."""
    done = run_demo("--folder", tmp_path / "folder", "--help")

    assert done.returncode == 0
    assert "--keep" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_demo_never_removes_a_folder_of_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that the demo did not make is refused and left as it is."""
    (tmp_path / "thesis.txt").write_text("years of work")

    assert demo.main(["--folder", str(tmp_path)]) == 1
    assert "was not made by this demo" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_demo_refuses_a_folder_in_which_another_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two demos at once would remove each other's files: the second says so and changes nothing."""
    with demo.alone(tmp_path):
        (tmp_path / "payloads").mkdir()
        code = demo.main(["--folder", str(tmp_path)])

    assert code == 1
    assert f"another demo runs in {tmp_path}" in capsys.readouterr().out
    assert (tmp_path / "payloads").is_dir()


def test_demo_clears_what_the_last_one_left(tmp_path: Path) -> None:
    """Nothing of an earlier demo is left when a new one starts."""
    with demo.alone(tmp_path):
        (tmp_path / "baked" / "old").mkdir(parents=True)
        (tmp_path / "passed.csv").touch()
        demo.clear(tmp_path)

        assert [path.name for path in tmp_path.iterdir()] == [demo.MARK]


def test_bake_leaves_out_what_tools_left_in_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Caches of compiled Python stop cookiecutter or end up in the project; the demo bakes without."""
    checkout = tmp_path / "checkout"
    (project,) = ROOT.glob("{{*")
    shutil.copytree(
        project, checkout / project.name, ignore=shutil.ignore_patterns("__pycache__", ".*_cache")
    )
    shutil.copytree(ROOT / "hooks", checkout / "hooks")
    shutil.copy(ROOT / "cookiecutter.json", checkout)
    cache = checkout / project.name / "include" / "__pycache__"
    cache.mkdir()
    (cache / "x.pyc").write_bytes(b"\xcb\r\xe2{{ not Jinja")
    monkeypatch.setattr(demo, "ROOT", checkout)
    place = demo.Place(tmp_path / "folder")
    place.home.mkdir()

    demo.bake(place, demo.Progress(io.StringIO()))

    assert (place.project / "dags" / "example_flights.py").is_file()
    assert not list(place.project.rglob("__pycache__"))


# ---------------------------------------------------------------------------------------------- parts


def passed(**changes: object) -> object:
    value = demo.Passed(
        task="load",
        map_index=-1,
        key="return_value",
        type="pandas.DataFrame",
        extent="336,776 x 19",
        rows=336_776,
        raw_bytes=64_100_000,
        stored_bytes=6_000_000,
        codec="pandas",
        path="xcom/dag/manual__2026-11-22T22:19:35.270368+00:00/load/-1/return_value/0123456789abcdef.parquet",
        seconds=1.26,
    )
    return replace(value, **changes)


def test_table_shows_a_payload_with_all_its_facts() -> None:
    """Task, type, rows, both sizes, form and seconds are in one line."""
    lines = demo.table({"dag": [passed()]})

    words = "load DataFrame 336,776 x 19 64.1 MB 6.0 MB .parquet 1.3"
    assert lines[-1].split() == words.split()


def test_table_condenses_mapped_tasks_into_one_row_with_totals() -> None:
    """Twelve instances are one line: their rows, bytes and seconds added up."""
    values = [passed(task="month", map_index=index, extent="1,000 x 7", rows=1000) for index in range(12)]

    (row,) = demo.condense(values)

    assert row == [
        "month x12",
        "DataFrame",
        "12,000 x 7",
        "769.2 MB",
        "72.0 MB",
        "12 x .parquet",
        "15.1",
    ]


def test_table_condenses_the_keys_of_one_task_and_counts_its_seconds_once() -> None:
    """Keys that one task pushed are one line, from the first to the last."""
    values = [passed(task="split", key=key, rows=5, extent="5 x 2") for key in ("Jan", "Feb", "Mar")]

    (row,) = demo.condense(values)

    assert row[0] == "split: Jan..Mar"
    assert row[2] == "15 x 2"
    assert row[-1] == "1.3"


def test_table_shows_small_values_as_in_the_database() -> None:
    """A value without a payload has its bytes in the database, and no file."""
    value = passed(type="dict", extent="", rows=0, raw_bytes=None, stored_bytes=41, codec="", path="")

    assert demo.condense([value]) == [["load", "dict", "", "", "41 B", "database", "1.3"]]


def test_table_keeps_both_sides_of_the_threshold_apart() -> None:
    """Instances of one mapped task of which one is stored and one is not are two lines."""
    values = [
        passed(task="text", map_index=0, type="str", extent="", rows=0, codec="", path="", raw_bytes=None),
        passed(task="text", map_index=1, type="str", extent="", rows=0, codec="json"),
    ]

    assert [row[0] for row in demo.condense(values)] == ["text [0]", "text [1]"]


def test_table_of_the_longest_names_fits_80_columns() -> None:
    """Names of any length are cut, never the numbers, and no line is wider than the limit."""
    value = passed(
        task="a_task_with_a_name_that_nobody_would_like_to_type" * 3,
        key="and_a_key_just_as_long" * 5,
        type="a_library.with.a.ClassOfAnEvenLongerNameThanThat",
        extent="123,456,789,012 x 1,234",
        raw_bytes=999_949_999_999,
        stored_bytes=999_949_999_999,
        codec="a_codec_of_somebody",
        path=f"xcom/{'dag' * 60}/{'run' * 60}/task/-1/key/0123456789abcdef.json.zst",
        seconds=123_456.0,
    )

    lines = demo.table({"dag" * 60: [value]})

    assert max(map(len, lines)) == 80
    assert lines[-1].endswith(" 999.9 GB 999.9 GB .json.zst 123456.0")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (5e12, "5000.0 GB"),
    ],
    ids=["nothing", "bytes", "kilo", "below-mega", "rounds-to-mega", "beyond-giga"],
)
def test_size_is_short_and_rounds_to_the_next_unit(count: int, text: str) -> None:
    """Sizes are read at a glance: never 1000.0 of a unit that has a larger one."""
    assert demo.size(count) == text


@pytest.mark.parametrize(
    ("summary", "extent"),
    [
        ({"rows": 336_776, "columns": 19}, ("336,776 x 19", 336_776)),
        ({"rows": 12}, ("12 rows", 12)),
        ({"items": 111_279}, ("111,279 items", 111_279)),
        ({"shape": "365 x 104", "dtype": "float64"}, ("365 x 104", 0)),
        ({}, ("", 0)),
    ],
    ids=["frame", "series", "list", "array", "nothing"],
)
def test_extent_says_how_much_a_value_is(summary: dict[str, object], extent: tuple[str, int]) -> None:
    """What a reference says about its value is shown as people write it."""
    assert demo.extent_of(summary) == extent


def test_step_that_fails_ends_with_the_last_lines_of_its_log(tmp_path: Path) -> None:
    """The message has what the command printed last, and the path of all of it."""
    command = [sys.executable, "-c", "print('first'); raise SystemExit('no space left')"]
    out = io.StringIO()

    with pytest.raises(
        demo.DemoError, match=r"^a step failed:\n(?s:.*)no space left\n(?s:.*)whole log: .*step\.log$"
    ):
        demo.run_step(demo.Progress(out), "a step", command, tmp_path / "step.log")
    assert re.fullmatch(r"  a step +FAILED +\d+\.\d s\n", out.getvalue())


def test_progress_in_a_terminal_rewrites_its_line() -> None:
    """While a step runs its line is written anew; its end is one line that stays."""
    out = io.StringIO()
    out.isatty = lambda: True  # type: ignore[method-assign]
    progress = demo.Progress(out)

    progress.start("flights")
    progress.note("3 of 18 tasks")
    progress.end("18 tasks")

    assert out.getvalue().count("\n") == 1
    assert out.getvalue().count("\r\033[K") == 3
    assert "3 of 18 tasks" in out.getvalue()
    # In the last column of a terminal a line may wrap, and is not rewritten then.
    assert max(map(len, re.split(r"\r\033\[K|\n", out.getvalue()))) < demo.WIDTH


def test_progress_without_a_terminal_says_now_and_then_that_it_is_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A long step has a plain line every few seconds, not one for every look."""
    now = 0.0
    monkeypatch.setattr(demo.time, "monotonic", lambda: now)
    out = io.StringIO()
    progress = demo.Progress(out)
    progress.start("flights")
    for now in range(25):  # noqa: B007 - read by the clock above
        progress.note("3 of 18 tasks")
    progress.end("18 tasks")

    assert [line.split()[-2] for line in out.getvalue().splitlines()] == ["10.0", "20.0", "24.0"]


def test_reason_of_many_lines_is_cut() -> None:
    """An exception with a page of text does not push the Dag's name out of sight."""
    reason = demo.shorten_reason("\n".join(f"line {number}" for number in range(50)))

    assert reason.splitlines() == [*(f"line {number}" for number in range(10)), "..."]
