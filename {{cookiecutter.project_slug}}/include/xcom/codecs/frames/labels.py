"""Python values as JSON that brings back their exact types: names, attrs, mixed object columns.

Plain JSON stays plain JSON; everything else becomes an object with one key that starts with ``$``,
as in ``tree`` and ``scalars``. The kinds are fixed: nothing in the data can name a class.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from ..scalars import from_node, to_node

__all__ = ["decode_label", "decode_tz", "encode_label", "encode_tz", "from_text", "to_text"]


def to_text(value: Any) -> str:
    """Encode as one line of ASCII JSON.

    Raises:
        TypeError: Holds a type that would not come back; the message names it.
    """
    try:
        return json.dumps(encode_label(value), separators=(",", ":"), allow_nan=False)
    except RecursionError:
        raise TypeError("a value nested too deeply, or one that contains itself") from None


def from_text(text: str) -> Any:
    """Undo ``to_text``."""
    return decode_label(json.loads(text))


def encode_label(value: Any) -> Any:
    """Turn a value into what ``json`` writes without loss.

    Raises:
        TypeError: Holds a type that would not come back; the message names it.
    """
    kind = type(value)
    if value is None or kind in (str, bool, int):
        return value
    if kind is float:
        return value if value - value == 0 else {"$float": repr(value)}
    if kind is list:
        return [encode_label(item) for item in value]
    if kind is dict:
        if all(type(key) is str for key in value) and not _is_tagged(value):
            return {key: encode_label(item) for key, item in value.items()}
        return {"$dict": [[encode_label(key), encode_label(item)] for key, item in value.items()]}
    if kind is tuple:
        return {"$tuple": [encode_label(item) for item in value]}
    if kind is bytes:
        return {"$bytes": base64.b64encode(value).decode("ascii")}
    if (kind.__module__.partition(".")[0], kind.__name__) == ("pandas", "Interval"):
        return {"$pandas.Interval": [encode_label(value.left), encode_label(value.right), value.closed]}
    if (kind.__module__.partition(".")[0], kind.__name__) == ("pandas", "Timestamp") and value.tz is not None:
        # Held as the instant: the wall time of an hour that occurs twice would need the fold.
        return {"$pandas.Timestamp+tz": [_count(value), value.unit, encode_tz(value.tz)]}
    node = to_node(value)
    if node is None:
        raise TypeError(f"{kind.__module__}.{kind.__qualname__}")
    return node


def decode_label(value: Any) -> Any:
    """Undo ``encode_label``."""
    if type(value) is list:
        return [decode_label(item) for item in value]
    if type(value) is not dict:
        return value
    if not _is_tagged(value):
        return {key: decode_label(item) for key, item in value.items()}
    ((tag, content),) = value.items()
    if tag == "$float":
        return float(content)
    if tag == "$dict":
        return {decode_label(key): decode_label(item) for key, item in content}
    if tag == "$tuple":
        return tuple(decode_label(item) for item in content)
    if tag == "$bytes":
        return base64.b64decode(content, validate=True)
    if tag == "$pandas.Interval":
        import pandas as pd

        return pd.Interval(decode_label(content[0]), decode_label(content[1]), closed=content[2])
    if tag == "$pandas.Timestamp+tz":
        import numpy as np
        import pandas as pd

        instant = pd.Timestamp(np.datetime64(content[0], content[1]))
        return instant.tz_localize("UTC").tz_convert(decode_tz(content[2]))
    return from_node(tag, content)


def encode_tz(tz: Any) -> Any:
    """Describe a time zone so that one of the same class comes back.

    Raises:
        TypeError: Neither a ``datetime.timezone`` nor a named zoneinfo or pytz zone.
    """
    if type(tz).__module__.partition(".")[0] == "pytz":
        import pytz

        if tz.zone is None:
            minutes = int(tz.utcoffset(None).total_seconds() // 60)
            return {"$pytz": minutes}
        # pytz has one more instance for each offset that a zone ever had; that is not the zone.
        if pytz.timezone(tz.zone) is tz:
            return {"$pytz": tz.zone}
    else:
        node = to_node(tz)
        if node is not None and "$timezone" in node:
            return node
    raise TypeError(f"the time zone {tz!r}; use zoneinfo.ZoneInfo(name) or datetime.timezone")


def decode_tz(facts: Any) -> Any:
    """Undo ``encode_tz``."""
    ((tag, content),) = facts.items()
    if tag == "$pytz":
        import pytz

        return pytz.timezone(content) if isinstance(content, str) else pytz.FixedOffset(content)
    return from_node(tag, content)


def _is_tagged(value: dict[str, Any]) -> bool:
    return len(value) == 1 and next(iter(value)).startswith("$")


def _count(stamp: Any) -> int:
    return int(stamp.tz_convert("UTC").tz_localize(None).asm8.view("i8"))
