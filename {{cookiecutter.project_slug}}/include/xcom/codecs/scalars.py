"""Single values that JSON lacks, each as an object with one key that starts with ``$``."""

from __future__ import annotations

import base64
import ipaddress
import pathlib
import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from ..errors import PayloadCorruptError, UnsupportedTypeError
from . import time_zones
from .base import type_name

__all__ = ["from_node", "to_node"]

Note = Callable[[str, str, str], None]
"""Receives path, type before and type after of a part that does not come back exactly."""

_IP = ("IPv4Address", "IPv6Address", "IPv4Interface", "IPv6Interface", "IPv4Network", "IPv6Network")
_PATHS = frozenset({"PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"})
# Made again from their text; DSNs as well.
_PYDANTIC = frozenset(
    "AnyUrl AnyHttpUrl HttpUrl AnyWebsocketUrl WebsocketUrl FileUrl FtpUrl PostgresDsn CockroachDsn AmqpDsn "
    "RedisDsn MongoDsn KafkaDsn NatsDsn MySQLDsn MariaDBDsn ClickHouseDsn SnowflakeDsn ByteSize".split()
)
_PYDANTIC_CORE = frozenset({"Url", "MultiHostUrl"})
_SECRETS = frozenset({"SecretStr", "SecretBytes"})


def _refuse(path: str, before: str, after: str) -> None:
    raise UnsupportedTypeError(f"it would come back as {after}", path=path, type=before)


def to_node(value: Any, note: Note = _refuse, in_model: bool = False) -> dict[str, Any] | None:
    """Return the node of a scalar, or None if its type is not one of them.

    Args:
        value: Any value.
        note: Called for a time zone or a secret that does not come back exactly; by default such a
            value is refused.
        in_model: Whether it is a field of a pydantic model: paths and secrets are taken there only,
            as Airflow's default does.

    Raises:
        UnsupportedTypeError: A time zone, dtype or URL that cannot be written down.
    """
    kind = type(value)
    known = _KNOWN.get(kind)
    if known is not None:
        return {known[0]: known[1](value)}
    if kind is datetime:
        return {"$datetime": _datetime_content(value, note)}
    if kind is time:
        return {"$time": _time_content(value, note)}
    if isinstance(value, tzinfo):
        return {"$timezone": _zone_content(value, None, note, "")}
    if in_model and isinstance(value, pathlib.PurePath) and kind.__name__ in _PATHS:
        return {"$path": [kind.__name__, str(value)]}
    of_library = _LIBRARIES.get(kind.__module__.partition(".")[0])
    return of_library(value, note, in_model) if of_library is not None else None


def from_node(tag: str, content: Any) -> Any:
    """Return the scalar of a node.

    Raises:
        PayloadCorruptError: The tag is unknown: written by a newer version, or by something else.
    """
    make = _MAKERS.get(tag)
    if make is None:
        raise PayloadCorruptError(f"the payload has a node {tag!r:.100} that this version does not know")
    return make(content)


# ----------------------------------------------------------------------------------- dates and times


def _zone_content(zone: tzinfo | None, at: Any, note: Note, path: str = ".tzinfo") -> list[Any] | None:
    if zone is None:
        return None
    content = time_zones.to_content(zone, at)
    stand_in = {"fixed": timezone, "zone": ZoneInfo}.get(content[0])
    if stand_in is not None and type(zone) is not stand_in:
        note(path, type_name(type(zone)), type_name(stand_in))
    return content


def _zone(content: list[Any] | None) -> tzinfo | None:
    return None if content is None else time_zones.from_content(content)


def _datetime_content(value: datetime, note: Note) -> str | list[Any]:
    if value.tzinfo is None and not value.fold:
        return value.isoformat()
    wall = value.replace(tzinfo=None, fold=0).isoformat()[:26]  # pendulum adds an offset.
    return [wall, value.fold, _zone_content(value.tzinfo, value, note)]


def _time_content(value: time, note: Note) -> list[Any]:
    zone = value.tzinfo
    # A zone with daylight saving has no offset at a time without a date.
    content = _zone_content(zone, None, note)
    return [value.replace(tzinfo=None, fold=0).isoformat(), value.fold, content]


def _datetime(content: str | list[Any]) -> datetime:
    if isinstance(content, str):
        return datetime.fromisoformat(content)
    text, fold, zone = content
    return datetime.fromisoformat(text).replace(tzinfo=_zone(zone), fold=fold)


def _time(content: list[Any]) -> time:
    text, fold, zone = content
    return time.fromisoformat(text).replace(tzinfo=_zone(zone), fold=fold)


def _duration(value: timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _pendulum_node(value: Any, note: Note, in_model: bool) -> dict[str, Any] | None:
    name = type(value).__name__
    if name == "DateTime":
        return {"$pendulum": _datetime_content(value, note)}
    if name == "Date":
        return {"$pendulum.Date": value.isoformat()}
    return {"$pendulum.Time": _time_content(value, note)} if name == "Time" else None


def _pendulum(content: str | list[Any]) -> Any:
    import pendulum

    plain = _datetime(content)
    return pendulum.DateTime(*plain.timetuple()[:6], plain.microsecond, tzinfo=plain.tzinfo, fold=plain.fold)


def _pendulum_date(content: str) -> Any:
    import pendulum

    plain = date.fromisoformat(content)
    return pendulum.Date(plain.year, plain.month, plain.day)


def _pendulum_time(content: list[Any]) -> Any:
    import pendulum

    plain = _time(content)
    clock = (plain.hour, plain.minute, plain.second, plain.microsecond)
    return pendulum.Time(*clock, tzinfo=plain.tzinfo, fold=plain.fold)


# ----------------------------------------------------------------------------------- numpy and pandas


def _numpy_node(value: Any, note: Note, in_model: bool) -> dict[str, Any] | None:
    import numpy as np

    if not isinstance(value, np.generic) or isinstance(value, (np.object_, np.void)):
        return None
    if type(value) is np.longdouble or type(value) is np.clongdouble:
        return None  # Its bytes differ between processors.
    name = value.dtype.str
    if np.dtype(name).type is not type(value):
        name = value.dtype.char  # longlong, which has the size of another type.
    return {"$numpy": [name, base64.b64encode(value.tobytes()).decode(), str(value)]}


def _numpy(content: list[Any]) -> Any:
    import numpy as np

    dtype = np.dtype(content[0])
    if dtype.hasobject:
        raise PayloadCorruptError("the payload has a numpy scalar that holds objects")
    data = base64.b64decode(content[1], validate=True)
    # An empty string has no bytes, and frombuffer refuses that.
    return np.frombuffer(data, dtype)[0] if dtype.itemsize else dtype.type()


def _pandas_node(value: Any, note: Note, in_model: bool) -> dict[str, Any] | None:
    import pandas as pd

    kind = type(value)
    if value is pd.NaT:
        return {"$pandas.NaT": None}
    if value is pd.NA:
        return {"$pandas.NA": None}
    if kind is pd.Timestamp:
        # As the instant: the zone makes the wall time of it, also in an hour that occurs twice.
        instant = value.tz_convert("UTC").tz_localize(None) if value.tz is not None else value
        zone = _zone_content(value.tz, value, note, ".tz")
        return {"$pandas.Timestamp": [int(instant.asm8.view("i8")), value.unit, value.fold, zone]}
    if kind is pd.Timedelta:
        return {"$pandas.Timedelta": [int(value.asm8.view("i8")), value.unit]}
    if kind is pd.Period:
        return {"$pandas.Period": [int(value.ordinal), value.freqstr]}
    if kind is pd.Interval:
        ends = [_end_node(end, note) for end in (value.left, value.right)]
        return {"$pandas.Interval": [*ends, value.closed]}
    return None


def _end_node(end: Any, note: Note) -> Any:
    return end if type(end) is int else to_node(end, note)


def _timestamp(content: list[Any]) -> Any:
    import numpy as np
    import pandas as pd

    count, unit, fold, zone = content
    stamp = pd.Timestamp(np.datetime64(count, unit))
    if zone is None:
        return stamp.replace(fold=fold) if fold else stamp
    return stamp.tz_localize("UTC").tz_convert(_zone(zone))


def _timedelta(content: list[Any]) -> Any:
    import numpy as np
    import pandas as pd

    return pd.Timedelta(np.timedelta64(content[0], content[1]))


def _period(content: list[Any]) -> Any:
    import pandas as pd

    return pd.Period(ordinal=content[0], freq=content[1])


def _interval(content: list[Any]) -> Any:
    import pandas as pd

    left, right = (from_node(*next(iter(end.items()))) if type(end) is dict else end for end in content[:2])
    return pd.Interval(left, right, closed=content[2])


def _pandas_missing(name: str) -> Any:
    import pandas as pd

    return getattr(pd, name)


# ------------------------------------------------------------------------------------------- pydantic


def _pydantic_node(value: Any, note: Note, in_model: bool) -> dict[str, Any] | None:
    name = type(value).__name__
    if in_model and name in _SECRETS:
        # Never written: a reader gets the mask, as from Airflow's default. An empty secret has no mask.
        mask = value.get_secret_value() and "**********"
        if mask:
            note("", type_name(type(value)), f"{type_name(type(value))} without its secret")
        return {"$pydantic": [name, mask or ""]}
    if name not in _PYDANTIC and name not in _PYDANTIC_CORE:
        return None
    content = [name, int(value) if name == "ByteSize" else str(value)]
    made = _pydantic(content)
    if type(made) is not type(value) or made != value:
        raise UnsupportedTypeError(
            f"{name}({str(value)!r:.100}) is another URL when it is parsed again; use str"
        )
    return {"$pydantic": content}


def _pydantic(content: list[Any]) -> Any:
    import pydantic
    import pydantic_core

    name, text = content
    if name in _PYDANTIC_CORE:
        return getattr(pydantic_core, name)(text)
    if name not in _PYDANTIC and name not in _SECRETS:
        raise PayloadCorruptError(f"the payload has a value of pydantic's {name!r:.100}")
    return getattr(pydantic, name)(text.encode() if name == "SecretBytes" else text)


# --------------------------------------------------------------------------------------------- tables


def _path(content: list[str]) -> Any:
    name, text = content
    if name not in _PATHS:
        raise PayloadCorruptError(f"the payload has a path of class {name!r:.100}")
    return getattr(pathlib, name)(text)


def _pattern_content(value: re.Pattern[Any]) -> list[Any]:
    if not isinstance(value.pattern, str):
        raise UnsupportedTypeError("a pattern of bytes has no JSON form; return its source")
    return [value.pattern, value.flags]


_KNOWN: dict[type, tuple[str, Callable[[Any], Any]]] = {
    int: ("$int", hex),
    float: ("$float", repr),
    date: ("$date", date.isoformat),
    timedelta: ("$timedelta", _duration),
    Decimal: ("$Decimal", str),
    Fraction: ("$Fraction", lambda value: [hex(value.numerator), hex(value.denominator)]),
    UUID: ("$UUID", str),
    complex: ("$complex", lambda value: [repr(value.real), repr(value.imag)]),
    range: ("$range", lambda value: [hex(value.start), hex(value.stop), hex(value.step)]),
    re.Pattern: ("$pattern", _pattern_content),
    **{getattr(ipaddress, name): (f"${name}", str) for name in _IP},
}

_LIBRARIES: dict[str, Callable[[Any, Note, bool], dict[str, Any] | None]] = {
    "numpy": _numpy_node,
    "pandas": _pandas_node,
    "pendulum": _pendulum_node,
    "pydantic": _pydantic_node,
    "pydantic_core": _pydantic_node,
}

_MAKERS: dict[str, Callable[[Any], Any]] = {
    "$int": lambda content: int(content, 16),
    "$float": float,
    "$datetime": _datetime,
    "$date": date.fromisoformat,
    "$time": _time,
    "$timedelta": lambda content: timedelta(*content),
    "$timezone": _zone,
    "$Decimal": Decimal,
    # Not from text: an exponent in it takes hours.
    "$Fraction": lambda content: Fraction(*(int(text, 16) for text in content)),
    "$UUID": UUID,
    "$complex": lambda content: complex(float(content[0]), float(content[1])),
    "$range": lambda content: range(*(int(text, 16) for text in content)),
    "$pattern": lambda content: re.compile(content[0], content[1]),
    "$path": _path,
    **{f"${name}": getattr(ipaddress, name) for name in _IP},
    "$pendulum": _pendulum,
    "$pendulum.Date": _pendulum_date,
    "$pendulum.Time": _pendulum_time,
    "$numpy": _numpy,
    "$pandas.Timestamp": _timestamp,
    "$pandas.Timedelta": _timedelta,
    "$pandas.Period": _period,
    "$pandas.Interval": _interval,
    "$pandas.NaT": lambda content: _pandas_missing("NaT"),
    "$pandas.NA": lambda content: _pandas_missing("NA"),
    "$pydantic": _pydantic,
}
