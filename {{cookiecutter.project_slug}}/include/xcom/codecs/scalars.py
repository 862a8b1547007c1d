"""Single values that JSON lacks, each as a tagged node of the skeleton (see ``tree``)."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from ..errors import PayloadCorruptError
from . import time_zones

__all__ = ["from_node", "to_node"]


def to_node(value: Any) -> dict[str, Any] | None:
    """Return the node of a scalar, or None if its type is not one of them.

    Raises:
        UnsupportedTypeError: A time zone, dtype or frequency that cannot be named.
    """
    kind = type(value)
    known = _KNOWN.get(kind)
    if known is not None:
        return {known[0]: known[1](value)}
    if isinstance(value, tzinfo):
        return {"$timezone": time_zones.to_content(value)}
    library = kind.__module__.partition(".")[0]
    if library == "numpy":
        return _numpy_node(value)
    if library == "pandas":
        return _pandas_node(value)
    if library == "pendulum" and isinstance(value, datetime):
        return {"$pendulum": _datetime_content(value)}
    return None


def from_node(tag: str, content: Any) -> Any:
    """Return the scalar of a node.

    Raises:
        PayloadCorruptError: The tag is unknown: written by a newer version, or by something else.
    """
    make = _MAKERS.get(tag)
    if make is None:
        raise PayloadCorruptError(f"the payload has a node {tag!r} that this version does not know")
    return make(content)


def _datetime_content(value: datetime) -> str | list[Any]:
    if value.tzinfo is None and not value.fold:
        return value.isoformat()
    return [
        value.replace(tzinfo=None, fold=0).isoformat()[:26],
        value.fold,
        _zone_content(value.tzinfo, value),
    ]


def _time_content(value: time) -> list[Any]:
    return [value.replace(tzinfo=None, fold=0).isoformat(), value.fold, _zone_content(value.tzinfo)]


def _zone_content(zone: tzinfo | None, at: datetime | None = None) -> list[Any] | None:
    return None if zone is None else time_zones.to_content(zone, at)


def _zone(content: list[Any] | None) -> tzinfo | None:
    return None if content is None else time_zones.from_content(content)


def _datetime(content: str | list[Any]) -> datetime:
    if isinstance(content, str):
        return datetime.fromisoformat(content)
    text, fold, zone = content
    return datetime.fromisoformat(text).replace(tzinfo=_zone(zone), fold=fold)


def _pendulum(content: list[Any]) -> Any:
    import pendulum

    plain = _datetime(content)
    return pendulum.DateTime(*plain.timetuple()[:6], plain.microsecond, tzinfo=plain.tzinfo, fold=plain.fold)


def _time(content: list[Any]) -> time:
    text, fold, zone = content
    return time.fromisoformat(text).replace(tzinfo=_zone(zone), fold=fold)


def _duration(value: timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _numpy_node(value: Any) -> dict[str, Any] | None:
    import numpy as np

    if not isinstance(value, np.generic) or isinstance(value, (np.object_, np.void)):
        return None
    if type(value) is np.longdouble or type(value) is np.clongdouble:
        return None  # Its bytes differ between processors.
    return {"$numpy": [value.dtype.str, base64.b64encode(value.tobytes()).decode(), str(value)]}


def _numpy(content: list[Any]) -> Any:
    import numpy as np

    dtype = np.dtype(content[0])
    if dtype.hasobject:
        raise PayloadCorruptError("the payload has a numpy scalar that holds objects")
    data = base64.b64decode(content[1], validate=True)
    # An empty string has no bytes, and frombuffer refuses that.
    return np.frombuffer(data, dtype)[0] if dtype.itemsize else dtype.type()


def _pandas_node(value: Any) -> dict[str, Any] | None:
    import pandas as pd

    if value is pd.NaT:
        return {"$pandas.NaT": None}
    if value is pd.NA:
        return {"$pandas.NA": None}
    kind = type(value)
    if kind is pd.Timestamp:
        naive = value.tz_localize(None) if value.tz is not None else value
        count = int(naive.asm8.view("i8"))
        return {"$pandas.Timestamp": [count, value.unit, value.fold, _zone_content(value.tz, value)]}
    if kind is pd.Timedelta:
        return {"$pandas.Timedelta": [int(value.asm8.view("i8")), value.unit]}
    if kind is pd.Period:
        return {"$pandas.Period": [int(value.ordinal), value.freqstr]}
    return None


def _pandas(name: str, content: Any) -> Any:
    import numpy as np
    import pandas as pd

    if name == "Timestamp":
        count, unit, fold, zone = content
        stamp = pd.Timestamp(np.datetime64(count, unit))
        if zone is None:
            return stamp
        return stamp.replace(tzinfo=_zone(zone), fold=fold)
    if name == "Timedelta":
        return pd.Timedelta(np.timedelta64(content[0], content[1]))
    if name == "Period":
        return pd.Period(ordinal=content[0], freq=content[1])
    return pd.NaT if name == "NaT" else pd.NA


_KNOWN: dict[type, tuple[str, Callable[[Any], Any]]] = {
    datetime: ("$datetime", _datetime_content),
    date: ("$date", date.isoformat),
    time: ("$time", _time_content),
    timedelta: ("$timedelta", _duration),
    Decimal: ("$Decimal", str),
    UUID: ("$UUID", str),
    complex: ("$complex", lambda value: [repr(value.real), repr(value.imag)]),
    range: ("$range", lambda value: [hex(value.start), hex(value.stop), hex(value.step)]),
    timezone: ("$timezone", _zone_content),
    ZoneInfo: ("$timezone", _zone_content),
}

_MAKERS: dict[str, Callable[[Any], Any]] = {
    "$datetime": _datetime,
    "$date": date.fromisoformat,
    "$time": _time,
    "$timedelta": lambda content: timedelta(*content),
    "$Decimal": Decimal,
    "$UUID": UUID,
    "$complex": lambda content: complex(float(content[0]), float(content[1])),
    "$range": lambda content: range(*(int(text, 16) for text in content)),
    "$timezone": _zone,
    "$pendulum": _pendulum,
    "$numpy": _numpy,
    "$pandas.Timestamp": lambda content: _pandas("Timestamp", content),
    "$pandas.Timedelta": lambda content: _pandas("Timedelta", content),
    "$pandas.Period": lambda content: _pandas("Period", content),
    "$pandas.NaT": lambda content: _pandas("NaT", content),
    "$pandas.NA": lambda content: _pandas("NA", content),
}
