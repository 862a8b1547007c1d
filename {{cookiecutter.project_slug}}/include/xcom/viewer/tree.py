"""JSON as a tree of limited size; nothing of what the tags of the codec ``tree`` name is built."""

from __future__ import annotations

import json
from typing import Any

from ..codecs.compression import decompress
from ..errors import PayloadCorruptError, PayloadTooLargeError
from . import limits
from .pipe import PipedFile

__all__ = ["describe"]

_ZSTD = b"\x28\xb5\x2f\xfd"
_TABLE_COLUMNS = 30


def describe(file: PipedFile, asked: dict[str, Any]) -> dict[str, Any]:
    """Describe JSON text, plain or compressed; of a list, items from ``asked["start"]`` on.

    Raises:
        PayloadTooLargeError: It is longer than is looked at.
        PayloadCorruptError: It is not JSON.
    """
    if file.size > limits.JSON_BYTES:
        raise PayloadTooLargeError(
            f"it is {file.size:,} bytes of JSON; up to {limits.JSON_BYTES:,} are opened"
        )
    data = file.range(0, file.size)
    is_compressed = data[:4] == _ZSTD
    text = decompress(data, limits.JSON_BYTES) if is_compressed else data
    value = _loads(text)
    is_list = type(value) is list
    start = max(0, min(asked.get("start", 0), len(value) - 1)) if is_list and value else 0
    described: dict[str, Any] = {"kind": "tree", "bytes": len(text), "start": start}
    if is_list:
        described["count"] = len(value)
        value = value[start : start + limits.TREE_ITEMS]
        described["records"] = _records(value, start)
    described["tree"] = _Limited().node(value, 0, first=start)
    return described


def _loads(text: bytes) -> Any:
    try:
        import orjson

        return orjson.loads(text)
    except ValueError:
        pass
    try:
        return json.loads(text)  # Lone surrogates, NaN, deep nesting.
    except (ValueError, RecursionError) as error:
        raise PayloadCorruptError(f"it is not JSON: {error}") from error


class _Limited:
    """Turns a value into nodes ``{"t": type, ...}``, until there are too many, or too much text in them."""

    def __init__(self) -> None:
        self._left = limits.TREE_NODES
        self._characters_left = limits.TREE_CHARACTERS

    def node(self, value: Any, depth: int, first: int = 0) -> dict[str, Any]:
        self._left -= 1
        kind = type(value)
        if kind is str:
            self._characters_left -= min(len(value), limits.TEXT_CHARACTERS)
            return _string(value)
        if kind not in (dict, list):
            return {"t": "null" if value is None else kind.__name__, "v": _scalar(value)}
        made: dict[str, Any] = {"t": kind.__name__, "n": len(value)}
        if kind is dict and len(value) == 1:
            ((key, content),) = value.items()
            if key.startswith("$") and type(content) not in (dict, list):
                return {**self.node(content, depth + 1), "tag": _name(key[1:])}
            if key == "$part" and type(content) is list and len(content) == 4:
                return {"t": "part", "v": _name(str(content[0])), "tag": _name(str(content[3]))}
        if depth >= limits.TREE_DEPTH:
            return {**made, "cut": len(value)}
        items: list[list[Any]] = []
        pairs: Any = value.items() if kind is dict else enumerate(value, first)
        for key, item in pairs:
            if self._left <= 0 or self._characters_left <= 0 or len(items) == limits.TREE_ITEMS:
                break
            if kind is dict:
                self._characters_left -= min(len(key), limits.NAME_CHARACTERS)
            items.append([_name(key) if kind is dict else key, self.node(item, depth + 1)])
        made["inner"] = items
        if len(items) < len(value):
            made["cut"] = len(value) - len(items)
        return made


def _string(value: str) -> dict[str, Any]:
    made: dict[str, Any] = {"t": "str", "v": _clean(value[: limits.TEXT_CHARACTERS])}
    if len(value) > limits.TEXT_CHARACTERS:
        made["length"] = len(value)
    return made


def _records(items: list[Any], start: int) -> dict[str, Any] | None:
    """Return a list of flat dicts as a table; None for other lists."""
    if len(items) < 2 or not all(type(item) is dict and item for item in items):
        return None
    names = list(dict.fromkeys(name for item in items for name in item))[: _TABLE_COLUMNS + 1]
    values = [value for item in items for value in item.values()]
    flat = sum(type(value) not in (dict, list) for value in values)
    shared = sum(len(item) for item in items) / (len(items) * len(names))
    if len(names) > _TABLE_COLUMNS or flat < 0.8 * len(values) or shared < 0.5:
        return None
    return {
        "names": [_name(name) for name in names],
        "cells": [[_cell(item[name]) if name in item else None for name in names] for item in items],
        "numbers": [
            all(type(item.get(name)) in (int, float, type(None)) for item in items) for name in names
        ],
        "start": start,
    }


def _cell(value: Any) -> Any:
    if value is None:
        return None
    if type(value) in (dict, list):
        return [type(value).__name__, f"{len(value):,} items"]
    text = value if type(value) is str else _scalar(value)
    if len(text) <= limits.CELL_CHARACTERS:
        return _clean(text)
    return [_clean(text[: limits.CELL_CHARACTERS]), f"{len(text):,} characters"]


def _scalar(value: Any) -> str:
    return json.dumps(value)[: limits.TEXT_CHARACTERS]


def _name(key: str) -> str:
    cut = key if len(key) <= limits.NAME_CHARACTERS else f"{key[: limits.NAME_CHARACTERS]}… ({len(key):,})"
    return _clean(cut)


def _clean(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
