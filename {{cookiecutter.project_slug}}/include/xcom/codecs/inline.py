"""Values that stay in the database row: plain JSON as it is, others in a form of our own.

PostgreSQL keeps rows as JSONB, which refuses NUL characters and lone surrogates, turns floats of
1e16 and more into integers, and drops the sign of -0.0. SQLite does none of this; rows are held to
PostgreSQL's rules everywhere, so that a Dag behaves in production as it did on a laptop.

What JSON lacks is written as in payloads, tagged, in a row of Airflow's shape for serialised objects:
the UI shows ``gcs_xcom.Value@version=1($date=2013-01-01)``, and a task of a deployment whose backend
is off gets an error from Airflow. Airflow's own form is not used: that of a naive datetime is a local
timestamp, another time on a host of another time zone.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ..errors import PayloadCorruptError
from .base import Change

__all__ = ["CLASSNAME", "Inline", "from_row", "survives_database", "to_row"]

CLASSNAME = "gcs_xcom.Value"
VERSION = 1

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
        row: What the row holds: the value itself, or our form of it.
        changes: Parts that do not come back exactly, as in ``Encoded``.
    """

    row: Any
    changes: tuple[Change, ...] = ()


def to_row(node: Any) -> dict[str, Any]:
    """Return the row of a tagged value."""
    # The UI shows the items of a list here letter by letter.
    data = node if type(node) is dict else {"$list": node}
    return {"__classname__": CLASSNAME, "__version__": VERSION, "__data__": data}


def from_row(row: object) -> dict[str, Any] | None:
    """Return the tagged value of a row, or None for a row of another kind.

    Raises:
        PayloadCorruptError: The row claims to be of this kind and is malformed, or of a version that
            this code does not know.
    """
    if type(row) is not dict or row.get("__classname__") != CLASSNAME:
        return None
    version, data = row.get("__version__"), row.get("__data__")
    if type(version) is int and version > VERSION:
        raise PayloadCorruptError(
            f"the row is a value of version {version} and this code reads up to {VERSION}: update this "
            "deployment's copy of include/xcom"
        )
    if version != VERSION or type(version) is not int or len(row) != 3 or type(data) is not dict:
        raise PayloadCorruptError("the row looks like a value of this backend and is malformed")
    return data


def survives_database(value: Any) -> bool:
    """Tell whether plain JSON comes back from JSONB unchanged, and from Airflow as data."""
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
            if depth > _MAX_NESTING or not _RESERVED_KEYS.isdisjoint(item):
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
