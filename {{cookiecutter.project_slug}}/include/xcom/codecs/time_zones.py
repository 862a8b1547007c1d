"""Time zones of any library, described by what they mean.

A description is ``[kind, *arguments]``: ``["zone", "Europe/Paris"]``, ``["fixed", [0, 3600, 0], null]``.
The same class comes back where it can be named; any other zone becomes the ``datetime.timezone`` of
its offset.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone, tzinfo
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
    make = _MAKE.get(kind)
    if make is None:
        raise PayloadCorruptError(f"the payload has a time zone of unknown kind {kind!r:.100}")
    return make(*arguments)


def _duration(value: timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise PayloadCorruptError(f"the payload has a time zone of malformed name {text!r:.100}")
    return text


# ------------------------------------------------------------------------- descriptions, by package


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

    if type(zone) is tz.tzutc:
        return ["dateutil-utc"]
    if type(zone) is tz.tzoffset:
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
    return ["psycopg2-fixed", offset.total_seconds(), name]


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


# ------------------------------------------------------------------------------ and what they mean


def _fixed(offset: list[int], name: str | None) -> tzinfo:
    delta = timedelta(*offset)
    if name is not None:
        return timezone(delta, name)
    return timezone(delta) if delta else timezone.utc


def _pendulum_fixed(offset: int, name: str) -> tzinfo:
    import pendulum

    return pendulum.FixedTimezone(offset, name)


def _pendulum_zone(name: str) -> tzinfo:
    import pendulum

    return pendulum.Timezone(_name(name))


def _dateutil_utc() -> tzinfo:
    from dateutil import tz

    return tz.tzutc()


def _dateutil_fixed(name: str | None, seconds: float) -> tzinfo:
    from dateutil import tz

    return tz.tzoffset(name, seconds)


def _dateutil_zone(name: str) -> tzinfo:
    from dateutil import tz

    return tz.gettz(_name(name)) or ZoneInfo(name)


def _pytz(name: str, *offsets: Any) -> tzinfo:
    from pytz.tzinfo import unpickler

    zone: tzinfo = unpickler(_name(name), *offsets)
    return zone


def _pytz_fixed(minutes: int) -> tzinfo:
    import pytz

    return pytz.FixedOffset(minutes)


def _psycopg2_fixed(seconds: float, name: str | None) -> tzinfo:
    from psycopg2.tz import FixedOffsetTimezone

    return FixedOffsetTimezone(timedelta(seconds=seconds), name)


def _pydantic_fixed(seconds: float) -> tzinfo:
    from pydantic_core import TzInfo

    return TzInfo(seconds)


_MAKE: dict[str, Callable[..., tzinfo]] = {
    "fixed": _fixed,
    "zone": lambda name: ZoneInfo(_name(name)),
    "pendulum-fixed": _pendulum_fixed,
    "pendulum-zone": _pendulum_zone,
    "dateutil-utc": _dateutil_utc,
    "dateutil-fixed": _dateutil_fixed,
    "dateutil-zone": _dateutil_zone,
    "pytz": _pytz,
    "pytz-fixed": _pytz_fixed,
    "psycopg2-fixed": _psycopg2_fixed,
    "pydantic-fixed": _pydantic_fixed,
}
