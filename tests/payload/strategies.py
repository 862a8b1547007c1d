"""Values for property tests, in one place."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pendulum
import pytz
from dateutil import tz
from hypothesis import strategies as st
from pydantic_core import TzInfo

TEXT = st.text(st.characters(exclude_categories=()), max_size=8)  # Lone surrogates and NUL too.

ZONES = st.none() | st.sampled_from(
    [
        timezone.utc,
        timezone(timedelta(hours=-3, minutes=-30)),
        timezone(timedelta(seconds=12345), "odd"),
        ZoneInfo("Europe/Paris"),
        ZoneInfo("America/New_York"),
        pytz.utc,
        pytz.FixedOffset(-90),
        tz.tzutc(),
        tz.tzoffset("odd", 7200),
        tz.gettz("Europe/Paris"),
        TzInfo(19_800),
        pendulum.timezone("America/New_York"),
        pendulum.FixedTimezone(3600),
    ]
)
# Zones of pytz must be asked for the offset of a time: with tzinfo= alone it is that of 1883.
LOCALISED = st.builds(
    lambda moment, zone, is_dst: zone.localize(moment, is_dst=is_dst),
    st.datetimes(datetime(1990, 1, 1), datetime(2040, 1, 1)),
    st.sampled_from([pytz.timezone("Europe/Paris"), pytz.timezone("Etc/GMT+5")]),
    st.booleans(),
)

PLAIN_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=True, allow_infinity=True)
    | TEXT
)

SCALARS = (
    PLAIN_SCALARS
    | st.binary(max_size=8)
    | st.binary(max_size=8).map(bytearray)
    | st.complex_numbers()
    | st.datetimes(timezones=ZONES)
    | LOCALISED
    | st.dates()
    | st.times(timezones=ZONES)
    | st.timedeltas()
    | st.decimals()
    | st.uuids()
    | st.builds(range, st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 9))
    | st.floats(width=32).map(np.float32)
    | st.integers(-128, 127).map(np.int8)
    | st.sampled_from([np.datetime64("2013-01-01"), np.timedelta64(5, "ms"), np.str_(""), np.bool_(True)])
)

HASHABLE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.dates() | st.binary(max_size=4),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)

ARRAYS = st.sampled_from(
    [
        np.arange(6).reshape(2, 3),
        np.asfortranarray(np.ones((2, 2))),
        np.zeros((0, 2), ">f4"),
        np.array("2013", "datetime64[s]"),
        np.array([(1, b"x")], [("n", "<i2"), ("s", "S1")]),
    ]
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Everything that holds other values."""
    return (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(TEXT, inner, max_size=4)
        | st.dictionaries(HASHABLE, inner, max_size=3)
        | st.dictionaries(st.sampled_from(["$tuple", "$part", "__classname__", "__type", "__var", ""]), inner)
        | st.sets(HASHABLE, max_size=4)
        | st.frozensets(HASHABLE, max_size=4)
        | st.dictionaries(TEXT, inner, max_size=3).map(OrderedDict)
        | st.lists(inner, max_size=3).map(lambda items: deque(items, maxlen=5))
        | st.lists(HASHABLE, max_size=4).map(Counter)
    )


PLAIN = st.recursive(
    PLAIN_SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5)
)
VALUES = st.recursive(SCALARS | ARRAYS, containers, max_leaves=12)
