"""What may stay in the database row, exactly as Airflow would write it.

PostgreSQL keeps rows as JSONB, which refuses NUL characters and lone surrogates, turns floats of
1e16 and more into integers, and drops the sign of -0.0. SQLite does none of this; rows are held to
PostgreSQL's rules everywhere, so that a Dag behaves in production as it did on a laptop.
"""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

from .classes import serde
from .equality import difference

__all__ = ["Inline", "airflow_row", "survives_database"]

# Keys by which Airflow tells its own objects from data: airflow/sdk/_shared/serialization.
_RESERVED_KEYS = frozenset(
    {"__classname__", "__version__", "__data__", "__id__", "__type", "__var", "__source"}
)
# Half of what the API server's JSON parser accepts (pydantic: 255), because rows travel wrapped.
_MAX_NESTING = 120
_INT_LIMIT = 2**63


class Inline(NamedTuple):
    """A value that stays in the database.

    Attributes:
        row: What the row holds: the value itself, or Airflow's serialised form of it.
    """

    row: Any


def survives_database(value: Any) -> bool:
    """Tell whether plain JSON comes back from JSONB unchanged, and from Airflow as data."""
    return _survives(value, _RESERVED_KEYS)


def airflow_row(value: Any, threshold_bytes: int) -> Inline | None:
    """Return Airflow's own form of a value if that brings it back unchanged; else None."""
    try:
        row = serde().serialize(value)
        text = json.dumps(row, allow_nan=False)
        if len(text) > threshold_bytes or not _survives(row, frozenset()):
            return None
        same = difference(value, serde().deserialize(json.loads(text))) is None
    except Exception:  # noqa: BLE001 - serialisers of others raise anything; the payload is made already
        return None
    return Inline(row) if same else None


def _survives(value: Any, reserved_keys: frozenset[str]) -> bool:
    pending = [(value, 0)]
    while pending:
        item, depth = pending.pop()
        kind = type(item)
        if kind is str:
            if "\0" in item or not (item.isascii() or _is_text(item)):
                return False
        elif kind is float:
            if not abs(item) < 1e16 or (item == 0 and math.copysign(1, item) < 0):
                return False
        elif kind is int:
            if not -_INT_LIMIT <= item < _INT_LIMIT:
                return False
        elif kind is dict:
            if depth > _MAX_NESTING or not reserved_keys.isdisjoint(item):
                return False
            pending.extend((key, depth) for key in item)
            pending.extend((inner, depth + 1) for inner in item.values())
        elif kind is list:
            if depth > _MAX_NESTING:
                return False
            pending.extend((inner, depth + 1) for inner in item)
        elif kind is not bool and item is not None:
            return False
    return True


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
