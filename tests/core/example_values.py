"""The values that every test of round trips uses, by readable ids."""

from __future__ import annotations

import enum
import uuid
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

import attrs
import numpy as np
import pendulum
import pydantic

# Classes of values that tests store: they stand at the top of a module, as users' must.


class Color(enum.Enum):
    """Member values that JSON has."""

    RED = "red"
    BLUE = "blue"


class Access(enum.Flag):
    """Combinations have no name of their own."""

    READ = 1
    WRITE = 2


class Level(enum.IntEnum):
    """Equals a plain int, and must not come back as one."""

    LOW = 1


Point = namedtuple("Point", "x y")


@dataclass(frozen=True)
class Leg:
    """A dataclass inside another."""

    origin: str
    at: datetime


@dataclass
class Trip:
    """Airflow's own serialiser brings the inner instances back as dicts."""

    legs: list[Leg]
    tags: set[str] = field(default_factory=set)

    @cached_property
    def count(self) -> int:
        """Computed once, kept in the instance, and no part of the value."""
        return len(self.legs)


@dataclass
class Lossy:
    """Makes something else of its argument than it was given."""

    name: str

    def __post_init__(self) -> None:
        self.name = self.name.upper() + "!"


@attrs.define
class Gate:
    """An attrs class with an alias and a field that its constructor does not take."""

    name: str
    _open: bool = True
    rank: int = attrs.field(init=False, default=3)


class Seat(pydantic.BaseModel):
    """A model with an alias."""

    row: int = pydantic.Field(alias="rowNumber")
    letter: str = "A"


class Booking(pydantic.BaseModel):
    """A model with models inside, and with fields that it does not declare."""

    model_config = pydantic.ConfigDict(extra="allow")
    seats: list[Seat]
    at: datetime
    price: Decimal = Decimal("1.10")


class Renamed(pydantic.BaseModel):
    """Changes a field when it is made, and has state that is no field."""

    name: str
    _count: int = 0

    def model_post_init(self, context: Any) -> None:
        """Pydantic calls this after it has set the fields."""
        if not self.name.startswith("_"):
            self.name = f"{self.name}!"

    @classmethod
    def counted(cls) -> Renamed:
        """Return one whose state differs from a new one's."""
        made = cls(name="_")
        made._count = 5
        return made


def marked_trip() -> Trip:
    """Return an instance with an attribute that its class does not declare."""
    trip = Trip([])
    trip.mark = 1  # type: ignore[attr-defined]
    return trip


class Money:
    """Brings its own serialiser, as Airflow's documentation describes it, and its own equality."""

    __version__ = 1

    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and other.cents == self.cents

    def __hash__(self) -> int:
        return self.cents

    def serialize(self) -> dict[str, int]:
        """Called by Airflow."""
        return {"cents": self.cents}

    @staticmethod
    def deserialize(data: dict[str, int], version: int) -> Money:
        """Called by Airflow."""
        return Money(data["cents"])


class Token:
    """The same without equality: it is the same if it is written the same."""

    def __init__(self, text: str) -> None:
        self.text = text

    def serialize(self) -> dict[str, str]:
        """Called by Airflow."""
        return {"text": self.text}

    @staticmethod
    def deserialize(data: dict[str, str], version: int) -> Token:
        """Called by Airflow."""
        return Token(data["text"])


def nested(depth: int, wrap: Any) -> Any:
    """Wrap a number ``depth`` times."""
    value: Any = 1
    for _ in range(depth):
        value = wrap(value)
    return value


PARIS = ZoneInfo("Europe/Paris")

# Stay in the database, where PostgreSQL keeps them as they are.
INLINE: dict[str, Any] = {
    "none": None,
    "true": True,
    "zero": 0,
    "int": -42,
    "int-64-bit": -(2**63),
    "float": 0.1,
    "float-whole": 5.0,
    "float-tiny": 5e-324,
    "float-under-1e16": 9999999999999998.0,
    "str": "flight",
    "str-empty": "",
    "str-unicode": "Zürich ✈ 東京",
    "str-like-reference": "gs://acme-xcom/xcom/dag/run/task/-1/return_value/0.parquet",
    "str-like-legacy-reference": "gcs://manual__2023/task/0b0c8a3e-24e6-4ad5-9d5b-0f2d1f3b1a11.json",
    "list": [1, "a", None, True, 0.5, []],
    "dict": {"carrier": "UA", "delays": [1, 2], "nested": {"a": {}}},
    "dict-empty-key": {"": 1},
    "dict-dollar-key": {"$tuple": [1, 2]},
    "list-of-pairs": [["a", 1], ["b", 2]],
    "tuple": (1, "a"),
    "tuple-nested": {"pairs": [(1, 2), (3, (4,))]},
    "set": {1, 2},
    "datetime-naive": datetime(2013, 1, 1, 5, 17, 0, 123456),
    "date": date(2013, 12, 31),
    "timedelta": timedelta(days=1, seconds=2, microseconds=3),
    "uuid": uuid.UUID("0b0c8a3e-24e6-4ad5-9d5b-0f2d1f3b1a11"),
}

# Stay in the database where Airflow's own serialiser brings them back; it does not matter to anyone.
EITHER: dict[str, Any] = {
    "dict-tuple-of-dollar": {"$a": (1,)},
    "frozenset-nested": {frozenset({1, 2}), frozenset()},
    "numpy-float32": np.float32(0.1),
    "numpy-int8-in-dict": {"n": np.int8(-3)},
    "pendulum-utc": pendulum.datetime(2013, 1, 1),
    "decimal": Decimal("0.5"),
}

# Are stored at any size: the database, or Airflow's own serialiser, would change or refuse them.
STORED: dict[str, Any] = {
    "nan": float("nan"),
    "inf-nested": {"a": [1.0, float("-inf")]},
    "minus-zero": -0.0,
    "float-1e16": 1e16,
    "float-1e300": [1.5e300],
    "int-over-64-bit": 2**64 + 1,
    "int-10000-digits": -(10**10_000),
    "str-nul": "a\0b",
    "str-lone-surrogate": "\ud800",
    "key-lone-surrogate": {"\udfff": 1},
    "key-nul": {"\0": 1},
    "dict-classname": {"__classname__": "builtins.tuple", "__version__": 1, "__data__": [1]},
    "dict-classname-nested": {"a": [{"__classname__": "x"}]},
    "dict-old-serde": {"__type": "set", "__var": [1]},
    "dict-like-reference": {
        "__classname__": "gcs_xcom.Payload",
        "__version__": 1,
        "__data__": {"uri": "gs://other/x"},
    },
    "dict-int-keys": {1: "a", 2: "b"},
    "dict-mixed-keys": {1: "a", "1": "b", None: "c", (1, 2): "d", 1.5: "e"},
    "list-500-deep": nested(500, lambda value: [value]),
    "dict-500-deep": nested(500, lambda value: {"a": value}),
    "tuple-400-deep": nested(400, lambda value: (value,)),
    "ordered-dict": OrderedDict([("b", 1), ("a", 2)]),
    "counter": Counter("abca"),
    "defaultdict": defaultdict(list, {"a": [1]}),
    "deque": deque([1, 2], maxlen=5),
    "range": range(0, 10, 3),
    "complex": complex(1.5, -0.0),
    "time": time(5, 17, 30, 1, tzinfo=PARIS),
    "datetime-utc": datetime(2013, 1, 1, tzinfo=timezone.utc),
    "datetime-offset": datetime(2013, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    "datetime-offset-named": datetime(2013, 1, 1, tzinfo=timezone(timedelta(hours=-5), "EST")),
    "datetime-zone-fold": datetime(2013, 10, 27, 2, 30, tzinfo=PARIS, fold=1),
    "datetime-min-max": [datetime.min, datetime.max],
    "pendulum": pendulum.datetime(2013, 1, 1, 12, tz="America/New_York"),
    "decimal-scale": Decimal("1.10"),
    "decimal-special": [Decimal("NaN"), Decimal("-Infinity"), Decimal("1E+400")],
    "numpy-datetime64": np.datetime64("2013-01-01T05", "h"),
    "numpy-str": np.str_("a"),
    "bytes": b"\x89PNG\r\n",
    "bytes-empty": b"",
    "bytearray": bytearray(b"abc"),
    "array": np.arange(12.0).reshape(3, 4),
    "array-fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "array-strided": np.arange(20)[::3],
    "array-big-endian": np.arange(3, dtype=">i4"),
    "array-0d": np.array(7),
    "array-empty": np.zeros((0, 3), "float32"),
    "array-bool": np.array([True, False]),
    "array-complex": np.array([1 + 2j]),
    "array-datetime": np.array(["2013-01-01", "NaT"], "datetime64[s]"),
    "array-timedelta": np.array([1, 2], "timedelta64[ms]"),
    "array-text": np.array(["ab", "é"]),
    "array-structured": np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]),
    "array-aligned": np.zeros(2, np.dtype([("a", "i1"), ("b", "f8")], align=True)),
    "dict-of-arrays": {"x": np.arange(3), "y": [np.zeros(2), {"z": np.array(1)}]},
    "dict-of-images": {"a.png": b"\x89PNG" + bytes(5000), "small": b"x"},
    "list-of-bytes": [b"a", bytearray(b"b" * 2000), (b"",)],
    "mixed": {"when": date(2013, 1, 1), "matrix": np.eye(2), "pairs": {(1, 2): {3}}},
}

# Need a permission in [core] allowed_deserialization_classes, as with Airflow itself.
CLASSES: dict[str, Any] = {
    "enum": Color.RED,
    "enum-flag": Access.READ | Access.WRITE,
    "enum-int": [Level.LOW, 1],
    "namedtuple": Point(1, (2,)),
    "dataclass": Leg("JFK", datetime(2013, 1, 1)),
    "dataclass-nested": Trip([Leg("JFK", datetime(2013, 1, 1, tzinfo=PARIS))], {"a"}),
    "attrs": [Gate("A1", False)],
    "pydantic": Seat(rowNumber=3),
    "pydantic-nested": Booking(seats=[Seat(rowNumber=1, letter="C")], at=datetime(2013, 1, 1), note=(1, 2)),  # type: ignore[call-arg]
    "own-serialiser": Money(5),
    "own-serialiser-nested": {"tokens": [Token("a"), Money(1)], "when": date(2013, 1, 1)},
    "dataclass-in-list": [{"leg": Leg("LGA", datetime.min)}],
}

CLASSES["dataclass-nested"].count  # noqa: B018 - fills the cache

ALL: dict[str, Any] = {**INLINE, **EITHER, **STORED, **CLASSES}
