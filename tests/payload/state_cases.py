"""What a state store backend must withstand, for this project's backend and common-io's alike.

Each case plays Airflow: it keeps the rows, calls the backend as tasks do, and complains with a ``Bad``.
``python tests/payload/state_cases.py`` prints how many cases of each kind each backend withstands.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "{{cookiecutter.project_slug}}"))
    os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="airflow-home-"))

from airflow.sdk.state import AssetScope, BaseStoreBackend, TaskScope

TASK = TaskScope("sales", "manual__2026-11-01T00:00:00+00:00", "load")
ASSET = AssetScope(name="orders/daily")
LARGE = {"rows": [{"id": number, "text": "x" * 50} for number in range(2000)]}
SECONDS = 20
Scope = TaskScope | AssetScope


class Bad(Exception):
    """What a user would notice: ``wrong value``, ``None``, ``accepted``, ``unclear error``, ``leak``, ``hang``."""


@dataclass
class Rig:
    """A backend with the rows that Airflow would keep for it.

    Attributes:
        folder: Where objects are; nothing else is there.
    """

    backend: BaseStoreBackend
    folder: Path
    is_ours: bool
    rows: dict[tuple[Scope, str], str] = field(default_factory=dict)

    def set(self, scope: Scope, key: str, value: Any, *, is_sent: bool = True) -> None:
        """Serialise, then send the row; the database may refuse the latter."""
        kind = "task" if isinstance(scope, TaskScope) else "asset"
        serialize = getattr(self.backend, f"serialize_{kind}_state_store_to_ref")
        row = serialize(value=value, key=key, scope=scope)
        # As it travels: JSON within JSON, in a database that refuses NUL.
        sent = json.loads(json.dumps(row))
        if "\0" in sent or sent != row:
            raise Bad("the database refuses the row")
        if is_sent:
            self.rows[scope, key] = sent

    def get(self, scope: Scope, key: str) -> Any:
        kind = "task" if isinstance(scope, TaskScope) else "asset"
        return getattr(self.backend, f"deserialize_{kind}_state_store_from_ref")(self.rows[scope, key])

    def delete(self, scope: Scope, key: str) -> None:
        del self.rows[scope, key]
        self.backend.delete(scope, key)

    def clear(self, scope: Scope, *, all_map_indices: bool = False) -> None:
        """Forget the rows, then clear; rows of all map indexes where that is asked for."""
        everywhere = isinstance(scope, TaskScope) and all_map_indices
        for row in list(self.rows):
            if row[0] == scope or (everywhere and _task(row[0]) == _task(scope)):
                del self.rows[row]
        self.backend.clear(scope, all_map_indices=all_map_indices)

    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def expect(self, scope: Scope, key: str, value: Any) -> None:
        """Complain unless the value comes back, equal and of equal types."""
        try:
            found = self.get(scope, key)
        except Exception as error:
            raise Bad(f"error instead of the value: {type(error).__name__}") from error
        if found is None and value is not None:
            raise Bad("None")
        if not same(found, value):
            raise Bad("wrong value")

    def expect_error(self, scope: Scope, key: str, *, is_named: bool = True) -> None:
        """Complain unless reading raises an error that says which Dag, task and key, or asset and key."""
        try:
            found = self.get(scope, key)
        except Exception as error:
            named = (scope.dag_id, scope.task_id, key) if isinstance(scope, TaskScope) else (scope.name, key)
            if is_named and not all(str(word) in str(error) for word in named):
                raise Bad("unclear error") from error
            return
        raise Bad("None" if found is None else "wrong value")

    def expect_refusal(self, scope: Scope, key: str, value: Any) -> None:
        """Complain unless storing raises an error that names the key, and leaves nothing."""
        try:
            self.set(scope, key, value)
        except Exception as error:
            if key not in str(error):
                raise Bad("unclear error") from error
            if self.files():
                raise Bad("leak") from error
            return
        raise Bad("accepted")

    def expect_files(self, count: int) -> None:
        if len(self.files()) > count:
            raise Bad("leak")
        if len(self.files()) < count:
            raise Bad("deleted too much")


def _task(scope: Scope) -> tuple[str, ...]:
    return (scope.dag_id, scope.run_id, scope.task_id) if isinstance(scope, TaskScope) else ()


def same(left: Any, right: Any) -> bool:
    """Tell whether JSON is equal, with equal types, signs of zero and NaN included."""
    if type(left) is not type(right):
        return False
    if type(left) is dict:
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if type(left) is list:
        return len(left) == len(right) and all(map(same, left, right))
    if type(left) is float:
        return (left == right and math.copysign(1, left) == math.copysign(1, right)) or left != left != right
    return bool(left == right)


Case = Callable[[Rig], None]
CASES: dict[str, Case] = {}


def add(kind: str, name: str, case: Case) -> None:
    assert f"{kind}: {name}" not in CASES
    CASES[f"{kind}: {name}"] = case


def case(kind: str) -> Callable[[Case], Case]:
    """Add a function by its name."""

    def register(function: Case) -> Case:
        add(kind, function.__name__.replace("_", " ").strip(), function)
        return function

    return register


def _deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


# ------------------------------------------------------------------------------------------------ values

VALUES: dict[str, Any] = {
    "text": "plain",
    "empty text": "",
    "NUL": "a\0b",
    "emoji": "\N{SNAKE}\N{COMBINING ACUTE ACCENT}",
    "lone surrogate": "a\ud800",
    "quotes": '"\\"\'' * 20,
    "true": True,
    "zero": 0,
    "large int": 2**70,
    "negative zero": -0.0,
    "1e16": 1e16,
    "5e-324": 5e-324,
    "NaN": float("nan"),
    "infinity": float("-inf"),
    "empty list": [],
    "empty dict": {},
    "nested": {"b": [1, 2.0, None, {"": ["x"]}], "a": {"10": 1, "9": 2}},
    "depth 100": _deep(100),
    "a marker of Airflow": {"__airflow_state_ref__": "x"},
    "Airflow's own keys": {"__classname__": "builtins.dict", "__version__": 1, "__data__": {}},
    "an XCom reference": {"__classname__": "gcs_xcom.Payload", "__version__": 1, "__data__": {}},
    "a state reference": {"__classname__": "gcs_xcom.State", "__version__": 1, "__data__": {}},
    "our tags": {"$date": "2026-11-01", "$": 1},
    "a URI": "file:///etc/hostname",
    "5 MB of text": "é" * 2_500_000,
}


def _round_trip(value: Any) -> Case:
    def run(rig: Rig) -> None:
        for scope in (TASK, ASSET):
            rig.set(scope, "key", value)
            rig.expect(scope, "key", value)

    return run


for _name, _value in VALUES.items():
    add("values", _name, _round_trip(_value))
    add("values", f"{_name}, beside much", _round_trip([_value, LARGE]))


@case("values")
def subclass_comes_back_as_airflow_stores_it(rig: Rig) -> None:
    rig.set(TASK, "key", OrderedDict(a=1))
    rig.expect(TASK, "key", {"a": 1})


# ------------------------------------------------------------------------------------- values that are none


def _refused(make: Callable[[], Any]) -> Case:
    return lambda rig: rig.expect_refusal(TASK, "watermark", make())


def _cycle() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


for _name, _make in {
    "datetime": lambda: datetime(2026, 11, 1, tzinfo=timezone.utc),
    "nested datetime": lambda: {"rows": [{"at": datetime(2026, 11, 1)}]},
    "set": lambda: {1, 2},
    "bytes": lambda: b"x",
    "tuple": lambda: (1, 2),
    "int as a key": lambda: {1: "a"},
    "object": object,
    "generator": lambda: (number for number in range(3)),
    "cycle": _cycle,
    "depth 100,000": lambda: _deep(100_000),
}.items():
    add("no JSON", _name, _refused(_make))


# ------------------------------------------------------------------------------------------- lost, altered


def _only_file(rig: Rig) -> Path:
    (path,) = rig.files()
    return path


def _damaged(damage: Callable[[Path], object], scope: Scope) -> Case:
    def run(rig: Rig) -> None:
        rig.set(scope, "cursor", LARGE)
        damage(_only_file(rig))
        rig.expect_error(scope, "cursor")

    return run


def _flip(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)


def _to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _to_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _to_link(path: Path) -> None:
    other = path.parents[len(path.parents) - 2] / f"other-{os.getpid()}"
    path.unlink()
    path.symlink_to(other)


_DAMAGES: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer by a space": lambda path: path.write_bytes(path.read_bytes() + b" "),
    "one bit flipped": _flip,
    "another value": lambda path: path.write_text('{"rows": []}'),
    "null": lambda path: path.write_text("null"),
    "binary": lambda path: path.write_bytes(os.urandom(500)),
    "a folder": _to_folder,
    "a pipe": _to_pipe,
    "a dangling link": _to_link,
}
for _name, _damage in _DAMAGES.items():
    add("lost or altered", f"{_name}, of a task", _damaged(_damage, TASK))
    add("lost or altered", f"{_name}, of an asset", _damaged(_damage, ASSET))


# ------------------------------------------------------------------------------------------- order of events


@case("order of events")
def row_that_was_not_sent_leaves_the_value_before_it(rig: Rig) -> None:
    rig.set(TASK, "cursor", LARGE)
    rig.set(TASK, "cursor", [LARGE, LARGE], is_sent=False)
    rig.expect(TASK, "cursor", LARGE)


@case("order of events")
def row_that_was_not_sent_leaves_the_value_of_an_asset(rig: Rig) -> None:
    rig.set(ASSET, "cursor", LARGE)
    rig.set(ASSET, "cursor", [LARGE, LARGE], is_sent=False)
    rig.expect(ASSET, "cursor", LARGE)


@case("order of events")
def earlier_row_still_finds_its_value(rig: Rig) -> None:
    """A reader that was given the row just before somebody wrote again."""
    rig.set(ASSET, "cursor", LARGE)
    row = rig.rows[ASSET, "cursor"]
    rig.set(ASSET, "cursor", ["new", LARGE])
    rig.rows[ASSET, "cursor"] = row
    rig.expect(ASSET, "cursor", LARGE)


@case("order of events")
def small_value_after_a_large_one(rig: Rig) -> None:
    rig.set(TASK, "cursor", LARGE)
    rig.set(TASK, "cursor", 5)
    rig.expect(TASK, "cursor", 5)


@case("order of events")
def large_value_after_a_small_one(rig: Rig) -> None:
    rig.set(TASK, "cursor", 5)
    rig.set(TASK, "cursor", LARGE)
    rig.expect(TASK, "cursor", LARGE)


@case("order of events")
def delete_takes_every_object_of_the_key(rig: Rig) -> None:
    for number in range(3):
        rig.set(TASK, "cursor", [number, LARGE], is_sent=number != 1)
    rig.delete(TASK, "cursor")
    rig.expect_files(0)


@case("order of events")
def delete_without_objects_is_no_error(rig: Rig) -> None:
    rig.backend.delete(TASK, "never")
    rig.backend.clear(TASK)
    rig.backend.clear(ASSET, all_map_indices=True)
    rig.expect_files(0)


@case("order of events")
def set_after_delete(rig: Rig) -> None:
    rig.set(TASK, "cursor", LARGE)
    rig.delete(TASK, "cursor")
    rig.set(TASK, "cursor", [LARGE])
    rig.expect(TASK, "cursor", [LARGE])


# ---------------------------------------------------------------------------------------------------- keys

PAIRS = {
    "slash and underscore": ("a/b", "a_b"),
    "dot and its escape": (".", "%2E"),
    "dots": ("..", "."),
    "empty and equals sign": ("", "="),
    "space and plus": ("a b", "a+b"),
    "percent": ("%2F", "/"),
    "capitals": ("key", "KEY"),
    "composed and combined": ("\u00e9", "e\u0301"),
    "star": ("*", "a"),
    "brackets": ("[a]", "a"),
    "question mark": ("a?", "ab"),
    "line end": ("a\n", "a"),
    "out of the folder": ("../../x", "x"),
    "prefix of another": ("key", "key2"),
    "folder of another": ("key", "key/inner"),
    "300 letters": ("k" * 299 + "a", "k" * 299 + "b"),
    "512 snakes": ("\N{SNAKE}" * 511 + "a", "\N{SNAKE}" * 511 + "b"),
    "extension": ("key", "key.json"),
}


def _apart(left: str, right: str) -> Case:
    def run(rig: Rig) -> None:
        for scope in (TASK, ASSET):
            try:
                rig.set(scope, left, ["left", LARGE])
                rig.set(scope, right, ["right", LARGE])
            except Exception as error:
                raise Bad("refused") from error
            rig.expect(scope, left, ["left", LARGE])
            rig.expect(scope, right, ["right", LARGE])
            rig.delete(scope, left)
            rig.expect(scope, right, ["right", LARGE])
            rig.delete(scope, right)
            rig.expect_files(0)

    return run


for _name, (_left, _right) in PAIRS.items():
    add("keys", _name, _apart(_left, _right))


# -------------------------------------------------------------------------------------------------- scopes


def _clears_only(cleared: Scope, other: Scope, *, all_map_indices: bool = False) -> Case:
    def run(rig: Rig) -> None:
        for key in ("one", "two/2"):
            rig.set(cleared, key, ["cleared", LARGE])
            rig.set(other, key, ["other", LARGE])
        rig.clear(cleared, all_map_indices=all_map_indices)
        for key in ("one", "two/2"):
            rig.expect(other, key, ["other", LARGE])
        rig.expect_files(2)

    return run


def _with(dag_id: str = "sales", run_id: str = "r", task_id: str = "load", map_index: int = -1) -> TaskScope:
    return TaskScope(dag_id, run_id, task_id, map_index)


_SCOPES: dict[str, tuple[Scope, Scope]] = {
    "map indexes": (_with(map_index=1), _with(map_index=11)),
    "mapped and not": (_with(), _with(map_index=1)),
    "task ids": (_with(task_id="load"), _with(task_id="load_more")),
    "a task id with a star": (_with(task_id="*"), _with(task_id="load")),
    "groups": (_with(task_id="group.load"), _with(task_id="group")),
    "run ids": (_with(run_id="r"), _with(run_id="r/1")),
    "Dag ids": (_with(dag_id="sales"), _with(dag_id="sales.v2")),
    "assets": (AssetScope(name="a"), AssetScope(name="a/b")),
    "name and URI": (AssetScope(name="s3://a"), AssetScope(uri="s3://a")),
    "name and id": (AssetScope(name="7"), AssetScope(asset_id=7)),
    "an asset and a Dag of its name": (AssetScope(name="r"), _with(dag_id="assets")),
    "a Dag named as the folder": (_with(dag_id="=state"), _with(dag_id="state")),
}
for _name, (_cleared, _other) in _SCOPES.items():
    add("scopes", _name, _clears_only(_cleared, _other))

add(
    "scopes",
    "an asset and a Dag called assets",
    _clears_only(AssetScope(name="x"), _with(dag_id="assets", run_id="x")),
)
add(
    "scopes",
    "all map indexes",
    _clears_only(_with(map_index=3), _with(task_id="load2", map_index=3), all_map_indices=True),
)


@case("scopes")
def all_map_indexes_are_cleared(rig: Rig) -> None:
    for index in (-1, 0, 10):
        rig.set(_with(map_index=index), "key", [index, LARGE])
    rig.clear(_with(map_index=0), all_map_indices=True)
    rig.expect_files(0)


@case("scopes")
def all_map_indices_says_nothing_of_assets(rig: Rig) -> None:
    rig.set(AssetScope(name="a"), "key", LARGE)
    rig.set(AssetScope(name="b"), "key", LARGE)
    rig.clear(AssetScope(name="a"), all_map_indices=True)
    rig.expect(AssetScope(name="b"), "key", LARGE)
    rig.expect_files(1)


# ---------------------------------------------------------------------------------- rows of somebody else


def _forged(forge: Callable[[Rig, str], str], *, is_named: bool = False) -> Case:
    def run(rig: Rig) -> None:
        secret = rig.folder.parent / "secret.json"
        secret.write_text('"of another deployment"')
        rig.set(TASK, "cursor", LARGE)
        rig.rows[TASK, "cursor"] = forge(rig, rig.rows[TASK, "cursor"])
        rig.expect_error(TASK, "cursor", is_named=is_named)

    return run


def _edit(row: str, **changes: Any) -> str:
    """Change the reference's payload; of common-io's, whose reference is a path, the path."""
    if not row.startswith("{"):
        return str(changes.get("uri", row))
    value = json.loads(row)
    value["__data__"]["payload"]["__data__"] |= changes
    return json.dumps(value)


def _uri(rig: Rig, row: str) -> str:
    return row if not row.startswith("{") else json.loads(row)["__data__"]["payload"]["__data__"]["uri"]


def _neighbour(rig: Rig, row: str) -> str:
    """A file in the store that is no state."""
    (rig.folder / "xcom").mkdir(exist_ok=True)
    (rig.folder / "xcom" / "payload.json").write_text('"an XCom of another Dag"')
    return _edit(row, uri=f"file://{rig.folder}/xcom/payload.json")


for _name, _forge in {
    "a file outside": lambda rig, row: _edit(row, uri=f"file://{rig.folder.parent}/secret.json"),
    "a way up": lambda rig, row: _edit(row, uri=f"file://{rig.folder}/../secret.json"),
    "a way up, below the key": lambda rig, row: _edit(row, uri=f"{_uri(rig, row)}/../../../secret.json"),
    "another bucket": lambda rig, row: _edit(row, uri="gs://elsewhere/xcom/=state/a/b.json"),
    "no state": _neighbour,
    "http": lambda rig, row: _edit(row, uri="http://127.0.0.1:9/x.json"),
    "not JSON": lambda rig, row: "{",
    "a word": lambda rig, row: "hello",
}.items():
    add("rows of others", _name, _forged(_forge))


# --------------------------------------------------------------------------------------------------- running


@contextmanager
def rig(which: str, root: Path) -> Iterator[Rig]:
    """Give a backend, ``ours`` or ``common-io``, with a new folder below ``root``."""
    folder = root / "objects"
    folder.mkdir()
    before = dict(os.environ)
    try:
        if which == "ours":
            from include.state_backend import GCSStateBackend
            from include.xcom.settings import load_settings

            os.environ["AIRFLOW__GCS_XCOM__BUCKET"] = folder.as_uri()
            load_settings.cache_clear()
            yield Rig(GCSStateBackend(), folder, True)
            load_settings.cache_clear()
        else:
            from airflow.providers.common.io.state_store import backend

            os.environ["AIRFLOW__COMMON_IO__STATE_STORE_OBJECTSTORAGE_PATH"] = folder.as_uri()
            for name in ("base_path", "compression", "threshold"):
                getattr(backend, f"_get_{name}").cache_clear()
            yield Rig(backend.StateStoreObjectStorageBackend(), folder, False)
    finally:
        os.environ.clear()
        os.environ.update(before)


def complaint(name: str, backend: str, root: Path) -> str:
    """Run one case; return what is bad, ``""`` for nothing."""

    def give_up(*_: object) -> None:
        raise Bad("hang")

    former = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(SECONDS)
    try:
        with rig(backend, root) as made:
            CASES[name](made)
    except Bad as bad:
        return str(bad)
    except Exception as error:  # noqa: BLE001 - whatever a backend raises is its outcome
        return f"unexpected {type(error).__name__}: {error}"[:200]
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)
    return ""


def table() -> str:
    """Return a table in Markdown: kinds of cases, and of how many nothing is to complain."""
    from collections import Counter, defaultdict

    good: dict[tuple[str, str], int] = defaultdict(int)
    bad: dict[str, Counter[str]] = defaultdict(Counter)
    for backend in ("ours", "common-io"):
        for name in CASES:
            with tempfile.TemporaryDirectory() as root:
                said = complaint(name, backend, Path(root))
            kind = name.partition(":")[0]
            good[backend, kind] += not said
            if backend == "common-io" and said:
                bad[kind][said.partition(":")[0]] += 1
    kinds = list(dict.fromkeys(name.partition(":")[0] for name in CASES))
    lines = ["| | Cases | GCSStateBackend | StateStoreObjectStorageBackend | |", "|---|---|---|---|---|"]
    for kind in kinds:
        total = sum(name.partition(":")[0] == kind for name in CASES)
        why = ", ".join(f"{count} {word}" for word, count in bad[kind].most_common())
        lines.append(f"| {kind} | {total} | {good['ours', kind]} | {good['common-io', kind]} | {why} |")
    sums = [sum(good[backend, kind] for kind in kinds) for backend in ("ours", "common-io")]
    return "\n".join([*lines, f"| **all** | {len(CASES)} | {sums[0]} | {sums[1]} | |"])


if __name__ == "__main__":
    import logging

    logging.disable()
    print(table())
