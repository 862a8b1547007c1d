"""The values that every test of round trips uses, by readable ids."""

from __future__ import annotations

import enum
import re
import uuid
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque, namedtuple
from dataclasses import InitVar, dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from http import HTTPStatus
from ipaddress import IPv4Address, ip_address, ip_interface, ip_network
from pathlib import Path
from signal import SIGTERM
from threading import Lock
from types import MappingProxyType, SimpleNamespace
from typing import Any, Generic, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import attrs
import numpy as np
import pandas as pd
import pendulum
import pydantic
import pytz
from airflow.sdk import Asset
from dateutil import tz
from include.xcom.codecs.equality import identical
from psycopg2.tz import FixedOffsetTimezone

T = TypeVar("T")

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
    """Its constructor makes something else of its argument than it was given."""

    name: str
    factor: InitVar[int] = 2

    def __post_init__(self, factor: int) -> None:
        self.name = self.name.upper() * factor


@dataclass(slots=True, kw_only=True)
class Slotted:
    """Has no ``__dict__``."""

    name: str
    rank: int = field(init=False, default=3)


@dataclass
class Box(Generic[T]):
    """typing notes on ``Box[int](...)`` how it was made."""

    item: T


@dataclass
class Guarded:
    """Makes something in its constructor that cannot be stored."""

    name: str

    def __post_init__(self) -> None:
        self.lock = Lock()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Guarded) and other.name == self.name

    __hash__ = None  # type: ignore[assignment]


@dataclass
class Failure(Exception):
    """A dataclass that is an exception too."""

    text: str


class Route(NamedTuple):
    """A named tuple with annotations."""

    origin: str
    stops: int = 0


class Noted(Route):
    """Its instances may have attributes next to their items."""


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


class Tags(pydantic.RootModel[list[str]]):
    """A model that is its one value."""


class Page(pydantic.BaseModel, Generic[T]):
    """A generic model."""

    items: list[T]


class Address(pydantic.BaseModel):
    """Its constructor does not take its own fields."""

    city: str = pydantic.Field(validation_alias=pydantic.AliasPath("address", "city"))


class Resource(pydantic.BaseModel):
    """Fields of types that JSON lacks."""

    link: pydantic.HttpUrl
    host: IPv4Address
    path: Path
    match: re.Pattern[str]
    size: pydantic.ByteSize
    status: Access
    inner: Page[int]
    when: datetime


class Login(pydantic.BaseModel):
    """Has a secret."""

    user: str
    password: pydantic.SecretStr = pydantic.SecretStr("")


class Tree(pydantic.BaseModel):
    """Contains its own kind."""

    name: str
    children: list[Tree] = []


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


class Text(str):
    """A subclass that JSON flattens."""


class Rows(list):  # type: ignore[type-arg]
    """The same of a list."""


class Record(dict):  # type: ignore[type-arg]
    """The same of a dict."""


class Number(float):
    """The same of a float."""


class Cookie(Money):
    """Loses something through its own serialiser."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cookie) and other.cents == self.cents

    __hash__ = Money.__hash__

    @staticmethod
    def deserialize(data: dict[str, int], version: int) -> Money:
        """Called by Airflow."""
        return Cookie(data["cents"] + 1)


class Pair(tuple):  # type: ignore[type-arg]
    """A subclass of a tuple that is no named tuple."""


class Moment(datetime):
    """A subclass of a datetime."""


class Weight(enum.Enum):
    """Members of which a value has no JSON form."""

    LIGHT = Decimal("0.1")
    BOTH = (1, 2)


class Word(str, enum.Enum):
    """A member equals its text."""

    YES = "yes"


class Plain:
    """Has nothing that would tell how to store it."""


class Entry(pydantic.BaseModel):
    """Has a field of any type."""

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    item: Any = None


@attrs.define
class Anything:
    """The same as an attrs class."""

    item: Any = None


class HalfSerialised:
    """Lacks ``deserialize``."""

    def serialize(self) -> dict[str, int]:
        """Called by Airflow."""
        return {}


def local_instance() -> Any:
    """Return an instance of a class that nobody can import."""

    @dataclass
    class Inner:
        number: int = 1

    return Inner()


def noted_route() -> Noted:
    """Return a named tuple with an attribute."""
    made = Noted("JFK", 1)
    made.note = "late"  # type: ignore[attr-defined]
    return made


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are the same at every depth, but for locks that constructors make."""
    has_lock = type(one) is list and [type(item) for item in one] == [Guarded]
    return identical(one, other) or (has_lock and bool(one == other))


PARIS = ZoneInfo("Europe/Paris")
FOLD = datetime(2013, 10, 27, 2, 30)
DATEUTIL_ZONES = [tz.tzutc(), tz.tzoffset("EST", -18000), tz.tzoffset(None, 0), tz.gettz("Europe/Paris")]

# Stay in the database as Airflow's default writes them: plain JSON.
PLAIN: dict[str, Any] = {
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
}

# Stay in the database in our own form: JSON lacks them, and PostgreSQL keeps that form as it is.
TAGGED: dict[str, Any] = {
    "tuple": (1, "a"),
    "tuple-nested": {"pairs": [(1, 2), (3, (4,))]},
    "set": {1, 2},
    "datetime-naive": datetime(2013, 1, 1, 5, 17, 0, 123456),
    "date": date(2013, 12, 31),
    "timedelta": timedelta(days=1, seconds=2, microseconds=3),
    "uuid": uuid.UUID("0b0c8a3e-24e6-4ad5-9d5b-0f2d1f3b1a11"),
    "dict-tuple-of-dollar": {"$a": (1,)},
    "frozenset-nested": {frozenset({1, 2}), frozenset()},
    "numpy-float32": np.float32(0.1),
    "numpy-int8-in-dict": {"n": np.int8(-3)},
    "pendulum-utc": pendulum.datetime(2013, 1, 1),
    "decimal": Decimal("0.5"),
    "nan": float("nan"),
    "inf-nested": {"a": [1.0, float("-inf")]},
    "int-over-64-bit": 2**64 + 1,
    "int-10000-digits": -(10**10_000),
    "dict-int-keys": {1: "a", 2: "b"},
    "dict-mixed-keys": {1: "a", "1": "b", None: "c", (1, 2): "d", 1.5: "e"},
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
    "pendulum-date-time": [pendulum.date(2013, 1, 1), pendulum.time(5, 17)],
    "fraction": Fraction(-1, 3),
    "ip": [ip_address("10.0.0.1"), ip_network("2001:db8::/32"), ip_interface("10.0.0.1/8")],
    "pattern": re.compile("a.*", re.IGNORECASE),
    "url": [pydantic.HttpUrl("https://example.com/a"), pydantic.AnyUrl("gs://acme/x")],
    "http": [HTTPStatus.NOT_FOUND, {HTTPStatus.OK: 1}],
    "tuples": [(n, str(n)) for n in range(20)],
    "numpy-longlong": [np.longlong(1), np.ulonglong(2), {np.longlong(3): np.timedelta64(5, "s")}],
    "bytes-nested": [b"a", (b"", bytearray(b"b"))],
    "zones": [zone.localize(datetime(2013, 7, 1)) for zone in (pytz.timezone("Europe/Paris"), pytz.utc)],
    "zone-pytz-fold": [
        pytz.timezone("Europe/Paris").localize(FOLD, is_dst=is_dst) for is_dst in (True, False)
    ],
    "zone-pytz-fixed": datetime(2013, 1, 1, tzinfo=pytz.FixedOffset(90)),
    "zone-pydantic": pydantic.TypeAdapter(datetime).validate_python("2013-01-01T00:00:00+05:30"),
    "zone-dateutil": [FOLD.replace(tzinfo=zone, fold=1) for zone in DATEUTIL_ZONES],
    "zone-psycopg2": datetime(2013, 1, 1, tzinfo=FixedOffsetTimezone(timedelta(hours=1))),
    "zone-alone": [PARIS, timezone.utc, pytz.timezone("Asia/Tokyo"), DATEUTIL_ZONES[0]],
    "pandas-scalars": [
        # Not by name: of that, pandas 2 makes a zone of pytz.
        pd.Timestamp(2013, 10, 27, 1, tz="UTC").tz_convert(PARIS),
        pd.Timestamp("2013-01-01 00:00:00.123456789"),
        pd.Timedelta(days=1),
        pd.Period("2013-01", "M"),
        pd.Interval(0.5, float("inf")),
        pd.NaT,
        pd.NA,
    ],
}

# Are stored at any size: the database would change or refuse them, or they have a format of their own.
STORED: dict[str, Any] = {
    "minus-zero": -0.0,
    "float-1e16": 1e16,
    "float-1e300": [1.5e300],
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
    "list-500-deep": nested(500, lambda value: [value]),
    "dict-500-deep": nested(500, lambda value: {"a": value}),
    "tuple-400-deep": nested(400, lambda value: (value,)),
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
    "array-longlong": np.arange(3, dtype=np.longlong),
    "array-longlong-big-endian": np.arange(3, dtype=np.dtype(np.longlong).newbyteorder(">")),
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
    "dataclass-with-init-var": [Lossy("a", 3)],
    "dataclass-slots": Slotted(name="a"),
    "dataclass-generic": Box[int](1),
    "dataclass-undeclared": marked_trip(),
    "namedtuples": [Route("JFK", n) for n in range(20)],
    "namedtuple-with-attribute": [noted_route()],
    "pydantic-root": Tags(["a"]),
    "pydantic-generic": [
        Page[int](items=[1]),
        Page[list[Seat]](items=[[Seat(rowNumber=1)]]),
        Page(items=[0.5]),
    ],
    "pydantic-optional-argument": Page[int | None](items=[None]),
    "pydantic-alias-path": Address.model_validate({"address": {"city": "Basel"}}),
    "pydantic-types": Resource(
        link="https://example.com/a",  # type: ignore[arg-type]
        host="10.0.0.1",  # type: ignore[arg-type]
        path="/data/a.csv",  # type: ignore[arg-type]
        match="a.*",  # type: ignore[arg-type]
        size="1GB",  # type: ignore[arg-type]
        status=Access.READ,
        inner=Page[int](items=[1]),
        when="2013-01-01T00:00:00Z",  # type: ignore[arg-type]
    ),
    "pydantic-fields-set": [Booking(seats=[], at=FOLD), Booking(seats=[], at=FOLD, price=Decimal("1.10"))],
    "pydantic-constructed": Seat.model_construct(row="unchecked"),
    "pydantic-changes-its-fields": [Renamed(name="a")],
    "pydantic-private": Renamed.counted(),
    "pydantic-tree": Tree(name="a", children=[Tree(name="b")]),
    "pydantic-empty-secret": Login(user="a"),
}

CLASSES["dataclass-nested"].count  # noqa: B018 - fills the cache

Flown = namedtuple("Flown", "carrier delay")
Flown.__module__ = "made_on_the_fly"  # As hooks of databases make them: nobody can import it.


class Inexact(NamedTuple):
    """A value that has no exact form.

    Attributes:
        value: What a task returns.
        expected: What comes back.
        before: Type of the part that changes.
        after: What it becomes.
        places: How many parts change.
    """

    value: Any
    expected: Any
    before: str
    after: str
    places: int = 1


INEXACT: dict[str, Inexact] = {
    "namedtuple-made-on-the-fly": Inexact(Flown("UA", 2), ("UA", 2), "made_on_the_fly.Flown", "tuple"),
    "namedtuples-made-on-the-fly": Inexact(
        [Flown("UA", n) for n in range(50)],
        [("UA", n) for n in range(50)],
        "made_on_the_fly.Flown",
        "tuple",
        50,
    ),
    "itertuples": Inexact(
        list(pd.DataFrame({"a": [1, 2]}).itertuples()),
        [(0, 1), (1, 2)],
        "pandas.core.frame.Pandas",
        "tuple",
        2,
    ),
    "namedtuple-with-dates": Inexact(
        [Flown("UA", date(2013, 1, 1))], [("UA", date(2013, 1, 1))], "made_on_the_fly.Flown", "tuple"
    ),
    "str-subclass": Inexact({"a": [Text("x")]}, {"a": ["x"]}, "example_values.Text", "str"),
    "str-subclass-as-key": Inexact({Text("x"): 1}, {"x": 1}, "example_values.Text", "str"),
    "float-subclass": Inexact(Number(0.5), 0.5, "example_values.Number", "float"),
    "list-subclass": Inexact((Rows([1, (2,)]),), ([1, (2,)],), "example_values.Rows", "list"),
    "dict-subclass": Inexact(Record({1: "a"}), {1: "a"}, "example_values.Record", "dict"),
    "enum-of-the-standard-library": Inexact(SIGTERM, 15, "signal.Signals", "builtins.int"),
    "defaultdict-lambda": Inexact(
        {"a": defaultdict(lambda: 1, b=2)}, {"a": {"b": 2}}, "collections.defaultdict", "dict"
    ),
    "secret-in-a-model": Inexact(
        {"login": Login(user="a", password="hunter2")},  # type: ignore[arg-type]
        {"login": Login(user="a", password="**********")},  # type: ignore[arg-type]
        "pydantic.types.SecretStr",
        "pydantic.types.SecretStr without its secret",
    ),
    "dataclass-with-a-lock": Inexact(
        [Guarded("a")],
        [Guarded("a")],
        "example_values.Guarded",
        "example_values.Guarded as its constructor makes it",
    ),
    "own-serialiser-lossy": Inexact(
        Cookie(5), Cookie(6), "example_values.Cookie", "example_values.Cookie as its deserialize() makes it"
    ),
    "local-dataclass-in-a-dataclass": Inexact(
        Box(local_instance()), Box({"number": 1}), "example_values.local_instance.<locals>.Inner", "dict"
    ),
    "zone-without-a-name": Inexact(
        datetime(2013, 7, 1, tzinfo=tz.tzstr("EST5EDT")),
        datetime(2013, 7, 1, tzinfo=timezone(timedelta(hours=-4))),
        "dateutil.tz.tz.tzstr",
        "datetime.timezone",
    ),
}

ALL: dict[str, Any] = {**PLAIN, **TAGGED, **STORED, **CLASSES}

# What else a task may return by design or mistake. Airflow's default returns some of it, changed or
# not, and refuses the rest.
ODD: dict[str, Any] = {
    "object": object(),
    "class": Plain,
    "model-class": Seat,
    "instance": Plain(),
    "function": len,
    "generator": (n for n in range(0)),
    "map": map(str, [1]),
    "dict-keys": {"a": 1}.keys(),
    "mapping-proxy": MappingProxyType({"a": 1}),
    "namespace": SimpleNamespace(a=1),
    "chain-map": ChainMap({"a": 1}),
    "memoryview": memoryview(b"a"),
    "exception": ValueError("x"),
    "ellipsis": ...,
    "path": Path("/data/a.csv"),
    "secret": pydantic.SecretStr("x"),
    "tuple-subclass": Pair((1, 2)),
    "datetime-subclass": Moment(2013, 1, 1),
    "enum-with-decimal": Weight.LIGHT,
    "enum-with-tuple": [Weight.BOTH],
    "enum-str": {"answer": Word.YES, "more": [(Word.YES,)]},
    "enum-as-key": {Color.RED: 1},
    "enum-with-a-value-type-as-key": {Level.LOW: 2, Word.YES: 3},
    "object-as-key": {frozenset({1}): 1, b"x": 2, None: 3, date(2013, 1, 1): 4},
    "dict-in-tuple": ({1: (2,)}, {(1, 2): {3}}),
    "local-instance": local_instance(),
    "local-instance-in-model": Entry(item=local_instance()),
    "enum-in-dataclass": Box(Word.YES),
    "enum-in-model": Entry(item=Word.YES),
    "path-in-dataclass": Box(Path("/data/a.csv")),
    "path-in-model": Entry(item=Path("/data/a.csv")),
    "object-in-model": Entry(item=object()),
    "lock-in-attrs": Anything(Lock()),
    "tuple-in-model": Entry(item=(1, {2})),
    "frame-in-model": Entry(item=pd.DataFrame({"a": [1]})),
    "model-in-dataclass": Box(Seat(rowNumber=1)),
    "dataclass-in-attrs": Anything(Box((1,))),
    "model-in-attrs": [Anything(Seat(rowNumber=1))],
    "exception-dataclass": Failure("x"),
    "frame": pd.DataFrame({"a": [1, 2], "b": ["x", None]}),
    "frame-in-dict": {"train": pd.DataFrame({"a": [1.5]})},
    "frame-groupby": pd.DataFrame({"a": [1]}).groupby("a"),
    "frame-of-lists": pd.DataFrame({"a": [[1], [2, 3]]}),
    "index": pd.Index([1]),
    "unique": pd.Series(["a"]).unique(),
    "array-of-objects": np.array([object()]),
    "array-masked": np.ma.masked_array([1], [True]),
    "numpy-void": np.zeros(1, "i4,i4")[0],
    "numpy-complex": np.complex128(1 + 2j),
    "pendulum-duration": pendulum.duration(days=1),
    "zone-local": datetime(2013, 1, 1, tzinfo=tz.tzlocal()),
    "asset": Asset("s3://acme/x"),
}
