"""Compare two values strictly: equal, and of equal type at every depth."""

from __future__ import annotations

import math
from collections import deque
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from typing import Any

from ..errors import PayloadError
from . import time_zones
from .base import type_name
from .classes import serde
from .instances import has_state, state_of

__all__ = ["identical"]

# ``==`` and the type say all of these. They come first: a column may hold a million of them.
_BY_VALUE = frozenset({str, int, bool, bytes, type(None), date, timedelta})
_FRAMES = frozenset({"pandas", "polars", "pyarrow"})


def identical(left: Any, right: Any) -> bool:
    """Tell whether two values are the same at every depth.

    Stricter than ``==``: ``1`` is not ``True`` or ``1.0``, ``0.0`` is not ``-0.0``, NaN is NaN, a
    dict's order of keys counts, and times need time zones of one class and equal offsets, not only
    equal instants. Instances of dataclasses, attrs classes and pydantic models are compared by their
    state, all others by ``==``.
    """
    pending: list[tuple[Any, Any]] = [(left, right)]
    # A stack of ours instead of recursion: values may be nested as deep as they can be stored.
    while pending:
        mine, theirs = pending.pop()
        if mine is theirs:
            continue
        kind = type(mine)
        if kind is not type(theirs):
            return False
        if kind in _BY_VALUE:
            if mine != theirs:
                return False
        elif isinstance(mine, (dict, list, tuple, deque)):
            if not _same_shape(mine, theirs):
                return False
            pending += zip(mine, theirs, strict=True)
            if isinstance(mine, dict):
                pending += zip(mine.values(), theirs.values(), strict=True)
            elif hasattr(mine, "__dict__"):
                pending.append((_in_order(vars(mine)), _in_order(vars(theirs))))
        elif has_state(mine.__class__):
            pending.append((_in_order(state_of(mine)), _in_order(state_of(theirs))))
        elif not _same_leaf(mine, theirs):
            return False
    return True


def _in_order(attributes: dict[str, Any]) -> dict[str, Any]:
    return dict(sorted(attributes.items()))


def _same_shape(mine: Any, theirs: Any) -> bool:
    if type(mine) in (dict, list, tuple):
        return len(mine) == len(theirs)

    def facts(value: Any) -> tuple[object, ...]:
        return len(value), getattr(value, "default_factory", None), getattr(value, "maxlen", None)

    return facts(mine) == facts(theirs)


def _same_leaf(mine: Any, theirs: Any) -> bool:
    kind = type(mine)
    if kind is float:
        return (mine == theirs and math.copysign(1, mine) == math.copysign(1, theirs)) or (
            mine != mine and theirs != theirs
        )
    if kind is complex:
        return _same_leaf(mine.real, theirs.real) and _same_leaf(mine.imag, theirs.imag)
    if kind is Decimal:
        return bool(mine.as_tuple() == theirs.as_tuple())  # 1.10 is not 1.1, and NaN is NaN.
    if kind in (set, frozenset):
        # Equal sets may hold members of unequal types: {1} == {True}.
        return sorted(map(_typed, mine)) == sorted(map(_typed, theirs))
    if isinstance(mine, (datetime, time)):
        return _time_facts(mine) == _time_facts(theirs)
    if isinstance(mine, tzinfo):
        return _same_zone(mine, theirs)
    library = kind.__module__.partition(".")[0]
    if library == "numpy" and hasattr(mine, "dtype"):
        return _same_array(mine, theirs)
    if library in _FRAMES and kind.__name__ in ("DataFrame", "Series", "Table", "RecordBatch"):
        from .frames.comparison import frames_equal

        return frames_equal(mine, theirs)
    if any("__eq__" in vars(base) for base in kind.__mro__[:-1]):
        return bool(mine == theirs)
    # Known to Airflow's serialisers only: the same if it is written the same.
    try:
        return bool(serde().serialize(mine) == serde().serialize(theirs))
    except Exception:  # noqa: BLE001 - Serialisers of others raise anything.
        return False


def _typed(item: Any) -> str:
    if type(item) in (tuple, frozenset):
        texts = map(_typed, item)
        return f"{type(item).__name__}({','.join(sorted(texts) if type(item) is frozenset else texts)})"
    return f"{type_name(type(item))}:{item!r}"


def _same_array(mine: Any, theirs: Any) -> bool:
    if mine.dtype != theirs.dtype or mine.shape != theirs.shape:
        return False
    if mine.dtype.hasobject:
        return identical(mine.tolist(), theirs.tolist())
    return bool(mine.tobytes() == theirs.tobytes())


def _same_zone(mine: tzinfo, theirs: tzinfo) -> bool:
    try:
        return time_zones.to_content(mine) == time_zones.to_content(theirs)
    except PayloadError:
        return mine == theirs


def _time_facts(value: Any) -> tuple[object, ...]:
    zone = value.tzinfo
    # pandas has times of several units, with nanoseconds.
    finer = getattr(value, "nanosecond", 0), getattr(value, "unit", "")
    return (value.replace(tzinfo=None), value.fold, type(zone), str(zone), value.utcoffset(), finer)
