"""The sweep over random histories of XComs: what a row names is never deleted.

A history is made of pushes, retries, clears, deletions over REST, killed tasks, and values with attachments,
in a store and a database that forget nothing and know everything. While the sweep runs, rows are deleted
and written between its requests. ``SWEEP_HISTORIES=10000`` runs more of them.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from include.xcom.commands.api import MISSING, PAGE_ROWS, AirflowAPI, RowPage
from include.xcom.commands.orphans import Sweep
from include.xcom.reference import Coordinates, PayloadReference, object_name, stem_of
from include.xcom.stores import Listed

HISTORIES = int(os.environ.get("SWEEP_HISTORIES", "300"))
LONG_KEY = "выручка_по_регионам_за_отчетный_период"
OLD, NOW = 0.0, 1000.0
ROOT = "gs://acme/xcom/"


class World:
    """A deployment: its bucket and its rows, and what happens to both.

    Attributes:
        rows: By XCom.
        objects: By name.
        wrong: Objects that were deleted while a row named them.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.rows: dict[Coordinates, Any] = {}
        self.objects: dict[str, Listed] = {}
        self.wrong: list[str] = []
        self.is_moving = False

    def happen(self) -> None:
        """Let one thing happen to a random XCom."""
        self.random.choice(
            [self.push, self.push, self.retry, self.clear, self.lose_row, self.kill, self.inline]
        )(self.xcom())

    def xcom(self) -> Coordinates:
        """Choose an XCom."""
        choose = self.random.choice
        run = f"run{self.random.randrange(3)}" if self.random.random() < 0.9 else "лог" * 40
        key = choose(["return_value", "a/b", LONG_KEY])
        return Coordinates(choose(["sales", "stock"]), run, choose(["load", "map"]), choose([-1, 0, 10]), key)

    def upload(self, xcom: Coordinates, created: float = OLD) -> str:
        """Write a payload, sometimes with attachments or the parts of an upload; return its URI."""
        unique = UUID(int=self.random.getrandbits(128)).hex
        names = [object_name("xcom", xcom, unique, "bin")]
        folder = names[0].rpartition("/")[0]
        if self.random.random() < 0.2:
            names += [f"{folder}/{unique}.{number}.parquet" for number in range(2)]
        if self.random.random() < 0.1:
            names.append(f"{folder}/{unique[:16]}.part-00001")
        for name in names:
            self.objects[name] = Listed(f"gs://acme/{name}", name, "1", 1, created)
        return f"gs://acme/{names[0]}"

    def push(self, xcom: Coordinates, created: float = OLD) -> None:
        """Store a value; one that was pushed before under the same key stays behind."""
        uri = self.upload(xcom, created)
        self.rows[xcom] = PayloadReference(uri, "bytes", 1, 1, "bytes", 1, "00000000", "1").to_row()

    def retry(self, xcom: Coordinates) -> None:
        """Purge and push again."""
        self.clear(xcom)
        self.push(xcom)

    def clear(self, xcom: Coordinates) -> None:
        """Purge: the row and its objects go."""
        reference = PayloadReference.from_row(self.rows.pop(xcom, None))
        if reference:
            stem = stem_of(reference.uri)
            self.objects = {name: one for name, one in self.objects.items() if stem_of(one.uri) != stem}

    def lose_row(self, xcom: Coordinates) -> None:
        """Delete the row over REST."""
        self.rows.pop(xcom, None)

    def kill(self, xcom: Coordinates) -> None:
        """Upload, and die before the row."""
        self.upload(xcom)

    def inline(self, xcom: Coordinates) -> None:
        """Push a small value over a large one."""
        self.rows[xcom] = {"small": 1}

    def move(self) -> None:
        """While the sweep runs: rows go, and new payloads come with theirs."""
        if self.is_moving and self.random.random() < 0.2:
            if self.random.random() < 0.5 and self.rows:
                self.lose_row(self.random.choice(list(self.rows)))
            else:
                self.push(self.xcom(), NOW)

    def named(self) -> set[str]:
        """Return the stems that rows name."""
        found = (PayloadReference.from_row(row) for row in self.rows.values())
        return {stem_of(reference.uri) for reference in found if reference}

    # What the sweep asks of the store.

    def list(self, prefix: str, start: str = "") -> Iterator[list[Listed]]:
        """Yield pages of three."""
        names = sorted(name for name in self.objects if name >= start)
        for first in range(0, len(names), 3):
            yield [self.objects[name] for name in names[first : first + 3] if name in self.objects]

    def delete(self, uri: str, generation: str) -> bool:
        """Delete an object, and note when a row names it."""
        if stem_of(uri) in self.named():
            self.wrong.append(uri)
        return self.objects.pop(uri.removeprefix("gs://acme/"), None) is not None


class API(AirflowAPI):
    """Answers about the rows of a world, in pages of seven."""

    def __init__(self, world: World) -> None:
        self.world = world

    def version(self) -> tuple[int, ...]:
        """Airflow's."""
        return (3, 3)

    def knows_dag(self, dag_id: str) -> bool:
        """All of them."""
        return True

    def dag_ids(self) -> Iterator[str]:
        """Both of them."""
        return iter(("sales", "stock"))

    def value(self, xcom: Coordinates) -> Any:
        """The row."""
        self.world.move()
        return self.world.rows.get(xcom, MISSING)

    def list_rows(
        self, dag_id: str, run_id: str | None = None, task_id: str | None = None, **more: Any
    ) -> RowPage:
        """A page of rows."""
        self.world.move()
        filters = more.get("filters") or {}
        found = [
            row
            for row in sorted(self.world.rows)
            if row.dag_id == dag_id
            and run_id in (None, row.run_id)
            and task_id in (None, row.task_id)
            and filters.get("map_index", row.map_index) == row.map_index
            and filters.get("xcom_key", row.key) == row.key
        ]
        offset = more.get("offset", 0)
        return RowPage(found[offset : offset + min(more.get("limit", PAGE_ROWS), 7)], len(found))


def sweep(world: World, **options: Any) -> Sweep:
    """Sweep a world once."""
    store: Any = world  # Of a store, it has what a sweep uses.
    found = Sweep(
        store=store,
        api=API(world),
        root=ROOT,
        prefix="xcom/",
        created_before=NOW / 2,
        concurrency=1,
        **options,
    )
    assert list(found.runs()) is not None
    return found


@pytest.mark.parametrize("most_rows", [0, 5000], ids=["by-run", "by-dag"])
def test_sweep_deletes_nothing_that_a_row_names(most_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happened before and happens meanwhile; every orphan is found by the thorough mode."""
    monkeypatch.setattr("include.xcom.commands.rows._MOST_ROWS_OF_A_DAG", most_rows)
    monkeypatch.setattr("include.xcom.commands.rows.PAGE_ROWS", 7)
    monkeypatch.setattr("include.xcom.commands.orphans._PAGES_AT_ONCE", 2)
    missed = 0
    for seed in range(HISTORIES):
        world = World(seed)
        for _ in range(world.random.randrange(1, 40)):
            world.happen()
        world.is_moving = True
        total = sweep(world, is_deleting=True).total
        assert (world.wrong, total.failed) == ([], 0), seed
        world.is_moving = False
        before = set(world.objects)
        dry = sweep(world, is_thorough=True).total
        assert set(world.objects) == before, seed
        done = sweep(world, is_deleting=True, is_thorough=True).total
        assert world.wrong == [], seed
        assert (done.deleted, done.kept) == (dry.orphans, dry.kept), seed
        named = world.named()
        left = {
            name
            for name, one in world.objects.items()
            if one.created == OLD and stem_of(one.uri) not in named
        }
        # Ids that were hashed and are on no page of rows.
        missed += len(left)
        assert len(left) == done.undecided, seed
        assert {stem_of(one.uri) for one in world.objects.values()} >= named, seed
    assert missed < HISTORIES
