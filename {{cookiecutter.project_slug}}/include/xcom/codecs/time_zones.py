"""Time zones of any library, described by what they mean.

A description is ``[kind, *arguments]``: ``["zone", "Europe/Paris"]``, ``["fixed", [0, 3600, 0], null]``.
The same class comes back where it can be named; any other zone becomes the ``datetime.timezone`` of
its offset.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone, tzinfo
from importlib import import_module
from typing import Any
from zoneinfo import ZoneInfo

from ..errors import PayloadCorruptError, UnsupportedTypeError

__all__ = ["from_content", "to_content"]

# dateutil and pytz would also open a path.
_NAME = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*")
_DATEUTIL_FILE = re.compile(r"tzfile\('(?:.*/zoneinfo/)?([^']+)'\)")


def to_content(zone: tzinfo, at: datetime | None = None) -> list[Any]:
    """Describe a time zone.

    Args:
        zone: Time zone of any class.
        at: Wall time at which a zone that cannot be named, such as dateutil's ``tzlocal()``, is
            replaced by its offset.

    Returns:
        The description. ``type(from_content(...))`` is another class than that of ``zone`` only
        where that cannot be named.

    Raises:
        UnsupportedTypeError: The zone has neither a name nor one fixed offset.
    """
    describe = _DESCRIBE.get(type(zone).__module__.partition(".")[0])
    content = describe(zone) if describe is not None else None
    if content is not None:
        return content
    offset = zone.utcoffset(at)
    if offset is None:
        raise UnsupportedTypeError(
            f"the time zone {zone!r:.100} has neither a name nor a fixed offset; use zoneinfo.ZoneInfo",
            path=".tzinfo",
        )
    return ["fixed", _duration(offset), None]


def from_content(content: list[Any]) -> tzinfo:
    """Return the time zone of a description.

    Raises:
        PayloadCorruptError: ``to_content`` does not write this.
        ModuleNotFoundError: The library of its class is not installed here.
    """
    kind, *arguments = content
    if kind == "fixed":
        offset, name = timedelta(*arguments[0]), arguments[1]
        if name is not None:
            return timezone(offset, name)
        return timezone(offset) if offset else timezone.utc
    if kind not in _MAKE:
        raise PayloadCorruptError(f"the payload has a time zone of unknown kind {kind!r:.100}")
    if kind in _NAMED and not (len(arguments[0]) < 100 and _NAME.fullmatch(arguments[0])):
        raise PayloadCorruptError(f"the payload has a time zone of malformed name {arguments[0]!r:.100}")
    module, make = _MAKE[kind]
    # gettz() gives None for a name that it does not know.
    zone: tzinfo = getattr(import_module(module), make)(*arguments) or ZoneInfo(arguments[0])
    return zone


def _duration(value: timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _of_datetime(zone: Any) -> list[Any] | None:
    if type(zone) is not timezone:
        return None
    offset, name = zone.utcoffset(None), zone.tzname(None)
    # The name is part of the zone only if it was given: others are computed from the offset.
    return ["fixed", _duration(offset), None if name == timezone(offset).tzname(None) else name]


def _of_zoneinfo(zone: Any) -> list[Any] | None:
    return ["zone", zone.key] if type(zone) is ZoneInfo and zone.key else None


def _of_pendulum(zone: Any) -> list[Any] | None:
    kind = type(zone).__name__
    if kind == "FixedTimezone":
        return ["pendulum-fixed", zone.offset, zone.name]
    return ["pendulum-zone", zone.name] if kind == "Timezone" and zone.name else None


def _of_dateutil(zone: Any) -> list[Any] | None:
    from dateutil import tz

    kind = type(zone)
    if kind is tz.tzutc:
        return ["dateutil-utc"]
    if kind is tz.tzoffset:
        return ["dateutil-fixed", zone.tzname(None), zone.utcoffset(None).total_seconds()]
    named = _DATEUTIL_FILE.fullmatch(repr(zone))
    if named and _NAME.fullmatch(named[1]) and tz.gettz(named[1]) == zone:
        return ["dateutil-zone", named[1]]
    return None


def _of_pytz(zone: Any) -> list[Any]:
    # The arguments of pytz's own pickles: pytz has an instance for each offset that a zone ever had.
    arguments = zone.__reduce__()[1]
    if zone.zone is None:
        return ["pytz-fixed", *arguments]
    return ["pytz", *(arguments or (zone.zone,))]


def _of_psycopg2(zone: Any) -> list[Any] | None:
    if type(zone).__name__ != "FixedOffsetTimezone":
        return None
    offset, name = zone.__getinitargs__()
    return ["psycopg2-fixed", offset.total_seconds() / 60, name]


def _of_pydantic(zone: Any) -> list[Any]:
    return ["pydantic-fixed", zone.utcoffset(None).total_seconds()]


_DESCRIBE: dict[str, Callable[[Any], list[Any] | None]] = {
    "datetime": _of_datetime,
    "zoneinfo": _of_zoneinfo,
    "pendulum": _of_pendulum,
    "dateutil": _of_dateutil,
    "pytz": _of_pytz,
    "psycopg2": _of_psycopg2,
    "pydantic_core": _of_pydantic,
}


_MAKE: dict[str, tuple[str, str]] = {
    "zone": ("zoneinfo", "ZoneInfo"),
    "pendulum-fixed": ("pendulum", "FixedTimezone"),
    "pendulum-zone": ("pendulum", "Timezone"),
    "dateutil-utc": ("dateutil.tz", "tzutc"),
    "dateutil-fixed": ("dateutil.tz", "tzoffset"),
    "dateutil-zone": ("dateutil.tz", "gettz"),
    "pytz": ("pytz.tzinfo", "unpickler"),
    "pytz-fixed": ("pytz", "FixedOffset"),
    "psycopg2-fixed": ("psycopg2.tz", "FixedOffsetTimezone"),
    "pydantic-fixed": ("pydantic_core", "TzInfo"),
}
_NAMED = frozenset({"zone", "pendulum-zone", "dateutil-zone", "pytz"})
