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
from functools import cache, partial
from importlib import import_module
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from ..errors import PayloadCorruptError, UnsupportedTypeError
from . import time_zones
from .base import type_name

__all__ = ["Note", "ScalarRule", "from_node", "rule_for"]

Note = Callable[[str, str, str], None]
"""Receives path, type before and type after of a part that does not come back exactly."""
ScalarRule = Callable[[Any, Note], dict[str, Any]]
"""Returns the node of a scalar."""

_PATHS = frozenset({"PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"})
_IPS = ("IPv4Address", "IPv6Address", "IPv4Interface", "IPv6Interface", "IPv4Network", "IPv6Network")
# Made again from their text: URLs, among them those of databases.
_URLS = frozenset(
    "Url MultiHostUrl AnyUrl AnyHttpUrl HttpUrl AnyWebsocketUrl WebsocketUrl FileUrl FtpUrl PostgresDsn "
    "CockroachDsn AmqpDsn RedisDsn MongoDsn KafkaDsn NatsDsn MySQLDsn MariaDBDsn ClickHouseDsn SnowflakeDsn".split()
)
_SECRETS = frozenset({"SecretStr", "SecretBytes"})
_MASK = "**********"


@cache
def rule_for(kind: type, in_model: bool = False) -> ScalarRule | None:
    """Return what writes scalars of a type, or None if it is not one of them.

    Args:
        kind: Type of the scalar.
        in_model: Whether it is in a field of a pydantic model: paths and secrets are taken there only,
            as Airflow's default does.
    """
    library, name = kind.__module__.partition(".")[0], kind.__name__
    known = _KNOWN.get(kind) or _OF_LIBRARIES.get(f"{library}.{name}")
    if issubclass(kind, tzinfo):
        known = "$timezone", lambda value, note: _zone_content(value, None, note, "")
    elif library == "numpy" and _is_numpy_scalar(kind):
        known = "$numpy", _by(_numpy_content)
    elif library in ("pydantic", "pydantic_core") and name in _URLS:
        known = "$url", _by(_url_content)
    elif in_model and library == "pathlib" and name in _PATHS:
        known = "$path", _by(lambda value: [name, str(value)])
    elif in_model and library == "pydantic" and name in _SECRETS:
        known = "$secret", _secret_content
    return None if known is None else partial(_write, *known)


def _write(tag: str, content: Callable[[Any, Note], Any], value: Any, note: Note) -> dict[str, Any]:
    return {tag: content(value, note)}


def from_node(tag: str, content: Any) -> Any:
    """Return the scalar of a node.

    Raises:
        PayloadCorruptError: The tag is unknown: written by a newer version, or by something else.
    """
    make = _MAKERS.get(tag)
    if make is None:
        raise PayloadCorruptError(f"it has a node {tag!r:.100} that this version does not know")
    return make(content)


# ---------------------------------------------------------------------------------- dates and times


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
    # A zone with daylight saving has no offset at a time without a date.
    zone = _zone_content(value.tzinfo, None, note)
    return [value.replace(tzinfo=None, fold=0).isoformat(), value.fold, zone]


def _datetime(content: str | list[Any]) -> datetime:
    if isinstance(content, str):
        return datetime.fromisoformat(content)
    text, fold, zone = content
    return datetime.fromisoformat(text).replace(tzinfo=_zone(zone), fold=fold)


def _time(content: list[Any], kind: type[time] = time) -> time:
    text, fold, zone = content
    return kind.fromisoformat(text).replace(tzinfo=_zone(zone), fold=fold)


def _pendulum(content: str | list[Any]) -> Any:
    plain, kind = _datetime(content), _lazy("pendulum", "DateTime")
    return kind(*plain.timetuple()[:6], plain.microsecond, tzinfo=plain.tzinfo, fold=plain.fold)


# ---------------------------------------------------------------------------------- numpy and pandas


def _is_numpy_scalar(kind: type) -> bool:
    import numpy as np

    # The bytes of long doubles differ between processors.
    return issubclass(kind, np.generic) and not issubclass(
        kind, (np.object_, np.void, np.longdouble, np.clongdouble)
    )


def _numpy_content(value: Any) -> list[Any]:
    import numpy as np

    name = value.dtype.str
    if np.dtype(name).type is not type(value):
        name = value.dtype.char  # longlong, which has the size of another type.
    return [name, base64.b64encode(value.tobytes()).decode(), str(value)]


def _numpy(content: list[Any]) -> Any:
    import numpy as np

    dtype = np.dtype(content[0])
    if dtype.hasobject:
        raise PayloadCorruptError("it has a numpy scalar that holds objects")
    data = base64.b64decode(content[1], validate=True)
    # An empty string has no bytes, and frombuffer refuses that.
    return np.frombuffer(data, dtype)[0] if dtype.itemsize else dtype.type()


def _timestamp_content(value: Any, note: Note) -> list[Any]:
    # As the instant: the zone makes the wall time of it, also in an hour that occurs twice.
    instant = value.tz_convert("UTC").tz_localize(None) if value.tz is not None else value
    return [_count(instant), value.unit, value.fold, _zone_content(value.tz, value, note, ".tz")]


def _timestamp(content: list[Any]) -> Any:
    import numpy as np
    import pandas as pd

    count, unit, fold, zone = content
    stamp = pd.Timestamp(np.datetime64(count, unit))
    if zone is None:
        return stamp.replace(fold=fold) if fold else stamp
    return stamp.tz_localize("UTC").tz_convert(_zone(zone))


def _count(value: Any) -> int:
    return int(value.asm8.view("i8"))


def _timedelta(content: list[Any]) -> Any:
    return _lazy("pandas", "Timedelta")(_lazy("numpy", "timedelta64")(content[0], content[1]))


def _interval_content(value: Any, note: Note) -> list[Any]:
    ends: list[Any] = []
    for end in (value.left, value.right):
        kind: Any = type(end)
        rule = rule_for(kind)
        if rule is None:
            raise UnsupportedTypeError("an end of the interval has no exact form", type=type_name(kind))
        ends.append(rule(end, note))
    return [*ends, value.closed]


def _interval(content: list[Any]) -> Any:
    left, right = (from_node(*pair) for end in content[:2] for pair in end.items())
    return _lazy("pandas", "Interval")(left, right, closed=content[2])


# ------------------------------------------------------------------------- text of the standard library


def _pattern_content(value: re.Pattern[Any]) -> list[Any]:
    if not isinstance(value.pattern, str):
        raise UnsupportedTypeError("a pattern of bytes has no JSON form; return its source")
    return [value.pattern, value.flags]


def _path(content: list[str]) -> Any:
    name, text = content
    if name not in _PATHS:
        raise PayloadCorruptError(f"it has a path of class {name!r:.100}")
    return getattr(pathlib, name)(text)


# ------------------------------------------------------------------------------------------- pydantic


def _url_content(value: Any) -> list[str]:
    content = [type(value).__name__, str(value)]
    made = _url(content)
    if type(made) is not type(value) or made != value:
        raise UnsupportedTypeError("it is another URL when it is parsed again; return str(...) of it")
    return content


def _url(content: list[str]) -> Any:
    name, text = content
    if name not in _URLS:
        raise PayloadCorruptError(f"it has a URL of class {name!r:.100}")
    return _lazy("pydantic_core" if name in ("Url", "MultiHostUrl") else "pydantic", name)(text)


def _secret_content(value: Any, note: Note) -> list[str]:
    # Never written: a reader gets the mask, as from Airflow's default. An empty secret has no mask.
    mask = _MASK if value.get_secret_value() else ""
    if mask:
        note("", type_name(type(value)), f"{type_name(type(value))} without its secret")
    return [type(value).__name__, mask]


def _secret(content: list[str]) -> Any:
    name, mask = content
    kind = _lazy("pydantic", "SecretBytes" if name == "SecretBytes" else "SecretStr")
    return kind(mask.encode() if name == "SecretBytes" else mask)


def _lazy(module: str, name: str) -> Any:
    return getattr(import_module(module), name)


# --------------------------------------------------------------------------------------------- tables

Known = tuple[str, Callable[[Any, Note], Any]]


def _by(function: Callable[[Any], Any]) -> Callable[[Any, Note], Any]:
    return lambda value, note: function(value)


_KNOWN: dict[type, Known] = {
    int: ("$int", _by(hex)),
    float: ("$float", _by(repr)),
    datetime: ("$datetime", _datetime_content),
    date: ("$date", _by(date.isoformat)),
    time: ("$time", _time_content),
    timedelta: ("$timedelta", _by(lambda value: [value.days, value.seconds, value.microseconds])),
    Decimal: ("$Decimal", _by(str)),
    Fraction: ("$Fraction", _by(lambda value: [hex(value.numerator), hex(value.denominator)])),
    UUID: ("$UUID", _by(str)),
    complex: ("$complex", _by(lambda value: [repr(value.real), repr(value.imag)])),
    range: ("$range", _by(lambda value: [hex(value.start), hex(value.stop), hex(value.step)])),
    re.Pattern: ("$pattern", _by(_pattern_content)),
    **{getattr(ipaddress, name): (f"${name}", _by(str)) for name in _IPS},
}
_OF_LIBRARIES: dict[str, Known] = {
    "pandas.Timestamp": ("$pandas.Timestamp", _timestamp_content),
    "pandas.Timedelta": ("$pandas.Timedelta", _by(lambda value: [_count(value), value.unit])),
    "pandas.Period": ("$pandas.Period", _by(lambda value: [int(value.ordinal), value.freqstr])),
    "pandas.Interval": ("$pandas.Interval", _interval_content),
    "pandas.NaTType": ("$pandas", _by(lambda value: "NaT")),
    "pandas.NAType": ("$pandas", _by(lambda value: "NA")),
    "pendulum.DateTime": ("$pendulum", _datetime_content),
    "pendulum.Date": ("$pendulum.Date", _by(date.isoformat)),
    "pendulum.Time": ("$pendulum.Time", _time_content),
    "pydantic.ByteSize": ("$ByteSize", _by(int)),
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
    **{f"${name}": getattr(ipaddress, name) for name in _IPS},
    "$path": _path,
    "$pendulum": _pendulum,
    "$pendulum.Date": lambda content: _lazy("pendulum", "Date").fromisoformat(content),
    "$pendulum.Time": lambda content: _time(content, _lazy("pendulum", "Time")),
    "$numpy": _numpy,
    "$pandas": lambda content: _lazy("pandas", "NaT" if content == "NaT" else "NA"),
    "$pandas.Timestamp": _timestamp,
    "$pandas.Timedelta": _timedelta,
    "$pandas.Period": lambda content: _lazy("pandas", "Period")(ordinal=content[0], freq=content[1]),
    "$pandas.Interval": _interval,
    "$url": _url,
    "$secret": _secret,
    "$ByteSize": lambda content: _lazy("pydantic", "ByteSize")(content),  # noqa: PLW0108 - imports when called
}
