"""Whether two values are the same: equal, and of equal type at every depth."""

from __future__ import annotations

import math
from collections import deque
from datetime import datetime, time
from decimal import Decimal
from typing import Any

from .classes import fields_of, has_equality, serde, undeclared

__all__ = ["canonical_text", "difference"]

_FRAMES = ("DataFrame", "Series", "Table", "RecordBatch")


def difference(one: Any, other: Any) -> str | None:
    """Return the path of the first difference (``"[3]['when']"``), or None if there is none.

    Stricter than ``==``: ``1`` is not ``True`` or ``1.0``, ``0.0`` is not ``-0.0``, NaN is NaN, a
    dict's order of keys counts, and times need equal time zones, not only equal instants.
    """
    pending: list[tuple[str, Any, Any]] = [("", one, other)]
    # A stack of ours instead of recursion: values may be nested as deep as they can be stored.
    while pending:
        path, mine, theirs = pending.pop()
        if type(mine) is not type(theirs):
            return path
        if isinstance(mine, dict):
            if len(mine) != len(theirs) or _shape(mine) != _shape(theirs):
                return path
            inner = []
            for (key, value), (their_key, their_value) in zip(mine.items(), theirs.items(), strict=True):
                inner.append((f"{path}[{key!r}]", key, their_key))
                inner.append((f"{path}[{key!r}]", value, their_value))
        elif isinstance(mine, (list, tuple, deque)):
            if len(mine) != len(theirs) or _shape(mine) != _shape(theirs):
                return path
            inner = [(f"{path}[{index}]", *pair) for index, pair in enumerate(zip(mine, theirs, strict=True))]
        elif (fields := fields_of(mine)) is not None:
            their_fields = fields_of(theirs) or {}
            if fields.keys() != their_fields.keys():
                return path
            mine_too, theirs_too = undeclared(mine), undeclared(theirs)
            if mine_too.keys() != theirs_too.keys():
                return f"{path}.{min(mine_too.keys() ^ theirs_too.keys())}"
            inner = [(f"{path}.{name}", value, their_fields[name]) for name, value in fields.items()]
            inner += [(f"{path}.{name}", value, theirs_too[name]) for name, value in mine_too.items()]
        else:
            if not _same_leaf(mine, theirs):
                return path
            continue
        pending.extend(reversed(inner))
    return None


def canonical_text(item: Any) -> str:
    """Return a text of a set's member that tells its types and does not depend on the hash seed."""
    kind = type(item)
    if kind is tuple:
        return f"tuple({','.join(map(canonical_text, item))})"
    if kind is frozenset:
        return f"frozenset({','.join(sorted(map(canonical_text, item)))})"
    return f"{kind.__module__}.{kind.__qualname__}:{item!r}"


def _shape(value: Any) -> tuple[object, object]:
    return getattr(value, "default_factory", None), getattr(value, "maxlen", None)


def _same_leaf(one: Any, other: Any) -> bool:
    kind = type(one)
    if one is other:
        return True
    if kind is float:
        return (one == other and math.copysign(1, one) == math.copysign(1, other)) or (
            one != one and other != other
        )
    if kind is complex:
        return _same_leaf(one.real, other.real) and _same_leaf(one.imag, other.imag)
    if kind is Decimal:
        return bool(one.as_tuple() == other.as_tuple())  # 1.10 is not 1.1, and NaN is NaN.
    if kind in (set, frozenset):
        # Equal sets may hold members of unequal types: {1} == {True}.
        return sorted(map(canonical_text, one)) == sorted(map(canonical_text, other))
    if isinstance(one, (datetime, time)):
        return _same_time(one, other)
    library = kind.__module__.partition(".")[0]
    if library == "numpy" and hasattr(one, "dtype"):
        return bool(
            one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
        )
    if library in ("pandas", "polars", "pyarrow") and kind.__name__ in _FRAMES:
        from .frames.equality import frames_equal

        return frames_equal(one, other) is None
    if not has_equality(kind):
        # Known to Airflow's serialisers only: the same if it is written the same.
        return bool(serde().serialize(one) == serde().serialize(other))
    return bool(one == other)


def _same_time(one: Any, other: Any) -> bool:
    def facts(value: Any) -> tuple[object, ...]:
        zone = value.tzinfo
        # pandas has times of several units, with nanoseconds.
        finer = getattr(value, "nanosecond", 0), getattr(value, "unit", "")
        return (value.replace(tzinfo=None), value.fold, type(zone), str(zone), value.utcoffset(), finer)

    return facts(one) == facts(other)
