"""``Items`` in every way in which Airflow maps tasks over a list, through ``airflow dags test``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import include.xcom
import pytest

PROJECT = Path(include.xcom.__file__).parents[2]
ITEM_BYTES = 400_000

DAG = """
import datetime, json, os

from airflow.sdk import dag, task, task_group
from include.xcom import Items
from include.xcom.stores import DirectoryStore

read = DirectoryStore.read
sizes = []


def counting(self, stored, start, stop, **options):
    sizes.append(stop - start)
    return read(self, stored, start, stop, **options)


DirectoryStore.read = counting


def note(name, value):
    with open(os.environ["NOTES"], "a") as file:
        file.write(json.dumps([name, value, sum(sizes)]) + "\\n")
    sizes.clear()


def start_of(item):
    return (item["data"][:1] * 2).hex()


@dag(schedule=None, start_date=datetime.datetime(2026, 1, 1))
def mapping():
    @task
    def items():
        return Items({"name": name, "data": os.urandom(ITEM_BYTES // 2) * 2} for name in "abc")

    @task
    def pairs():
        return Items([{"left": 1, "right": b"x"}, {"left": 2, "right": b"y"}])

    @task
    def each(item):
        note("expand", [item["name"], len(item["data"])])

    @task
    def kwargs(left, right):
        note("expand_kwargs", [left, right.decode()])

    @task
    def zipped(both):
        note("zip", [both[0]["name"], both[1]["left"]])

    @task
    def mapped(text):
        note("map", len(text))

    @task
    def concatenated(item):
        note("concat", sorted(item))

    @task_group
    def group(item):
        @task
        def first(item):
            note("group", item["left"])

        first(item)

    names, numbers = items(), pairs()
    each.expand(item=names)
    kwargs.expand_kwargs(numbers)
    zipped.expand(both=names.zip(numbers))
    mapped.expand(text=names.map(start_of))
    concatenated.expand(item=numbers.concat(numbers))
    group.expand(item=numbers)


mapping()
""".replace("ITEM_BYTES", str(ITEM_BYTES))


@pytest.mark.once
def test_every_way_to_map_over_items_reads_one_item_in_each_task(
    tmp_path: Path, payload_folder: Path
) -> None:
    """Each task gets its own item, and reads that and an index, not the list."""
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "mapping.py").write_text(DAG)
    notes = tmp_path / "notes"
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__XCOM_BACKEND": "include.xcom_backend.GCPBucketXComBackend",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path / 'airflow.db'}",
        "NOTES": str(notes),
    }
    for command in (["db", "migrate"], ["dags", "test", "mapping"]):
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *command],
            cwd=PROJECT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-5000:]

    found: dict[str, list[object]] = {}
    most: dict[str, int] = {}
    for name, value, size in map(json.loads, notes.read_text().splitlines()):
        found.setdefault(name, []).append(value)
        most[name] = max(most.get(name, 0), size)
    for values in found.values():
        values.sort()
    assert found == {
        "expand": [["a", ITEM_BYTES], ["b", ITEM_BYTES], ["c", ITEM_BYTES]],
        "expand_kwargs": [[1, "x"], [2, "y"]],
        "zip": [["a", 1], ["b", 2]],
        "map": [4, 4, 4],
        "concat": [["left", "right"]] * 4,
        "group": [1, 2],
    }
    print(f"bytes read by a task at most: {most}")
    assert max(most.values()) < 1.2 * ITEM_BYTES
