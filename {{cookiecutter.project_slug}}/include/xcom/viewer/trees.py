"""Describe JSON as a tree of limited size, and a list of flat records as a table."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ..codecs.compression import decompress
from ..errors import PayloadCorruptError, PayloadTooLargeError
from ..units import format_size
from . import limits
from .cells import Cell, cell, cut, utf8
from .pipe import PipedFile, Question

__all__ = ["describe", "describe_list", "load"]

_ZSTD = b"\x28\xb5\x2f\xfd"
_TABLE_COLUMNS = 30


def describe(file: PipedFile, question: Question) -> dict[str, Any]:
    """Describe JSON, plain or compressed; of a list, the items from ``question.start`` on.

    Raises:
        PayloadTooLargeError: Longer than ``limits.JSON_BYTES``, stored or expanded.
        PayloadCorruptError: Not JSON.
    """
    if file.size > limits.JSON_BYTES:
        raise PayloadTooLargeError(
            f"it is {format_size(file.size)} of JSON; the limit is {format_size(limits.JSON_BYTES)}"
        )
    value, size = load(file)
    if type(value) is not list:
        return {"kind": "tree", "bytes": size, "start": 0, "tree": _Nodes().node(value, 0)}
    start = max(0, min(question.start, len(value) - 1))
    return {**describe_list(value[start : start + limits.TREE_ITEMS], start, len(value)), "bytes": size}


def load(file: PipedFile) -> tuple[Any, int]:
    """Read JSON, plain or compressed; return its value, and the bytes of its text.

    Raises:
        PayloadTooLargeError: It expands to more than ``limits.JSON_BYTES``.
        PayloadCorruptError: Not JSON.
    """
    data = file.range(0, file.size)
    text = decompress(data, limits.JSON_BYTES) if data[:4] == _ZSTD else data
    return _loads(text), len(text)


def describe_list(items: list[Any], start: int, count: int) -> dict[str, Any]:
    """Describe some items of a list of ``count``, the first of them at ``start``."""
    return {
        "kind": "tree",
        "start": start,
        "count": count,
        "records": _records(items),
        "tree": _Nodes().node(items, 0, first=start),
    }


def _loads(text: bytes) -> Any:
    try:
        import orjson

        return orjson.loads(text)
    except ValueError:
        pass
    try:
        return json.loads(text)  # Lone surrogates, NaN, deep nesting.
    except (ValueError, RecursionError) as error:
        raise PayloadCorruptError(f"not JSON: {error}") from error


class _Nodes:
    """Turns a value into nodes ``{"t": type, ...}`` until there are too many, or too much text in them."""

    def __init__(self) -> None:
        self._nodes_left = limits.TREE_NODES
        self._characters_left = limits.TREE_CHARACTERS

    def node(self, value: Any, depth: int, first: int = 0) -> dict[str, Any]:
        self._nodes_left -= 1
        kind = type(value)
        if kind is str:
            self._characters_left -= min(len(value), limits.TEXT_CHARACTERS)
            shown = {"t": "str", "v": utf8(value[: limits.TEXT_CHARACTERS])}
            return {**shown, "length": len(value)} if len(value) > limits.TEXT_CHARACTERS else shown
        if kind not in (dict, list):
            return {"t": "null" if value is None else kind.__name__, "v": _scalar(value)}
        if kind is dict and len(value) == 1:
            ((key, content),) = value.items()
            if key.startswith("$") and type(content) not in (dict, list):
                return {**self.node(content, depth + 1), "tag": cut(key[1:])}
            if key == "$part" and type(content) is list and len(content) == 4:
                return {"t": "part", "v": cut(str(content[0])), "tag": cut(str(content[3]))}
        if depth >= limits.TREE_DEPTH:
            return {"t": kind.__name__, "n": len(value), "cut": len(value)}
        pairs = value.items() if kind is dict else enumerate(value, first)
        inner = self._inner(pairs, depth + 1)
        cut_items = {"cut": len(value) - len(inner)} if len(inner) < len(value) else {}
        return {"t": kind.__name__, "n": len(value), "inner": inner, **cut_items}

    def _inner(self, pairs: Iterable[tuple[Any, Any]], depth: int) -> list[list[Any]]:
        inner: list[list[Any]] = []
        for key, item in pairs:
            if self._nodes_left <= 0 or self._characters_left <= 0 or len(inner) == limits.TREE_ITEMS:
                break
            if type(key) is str:
                self._characters_left -= min(len(key), limits.NAME_CHARACTERS)
            inner.append([cut(key) if type(key) is str else key, self.node(item, depth)])
        return inner


def _records(items: list[Any]) -> dict[str, Any] | None:
    """Return a list of flat dicts as a table; None for other lists."""
    if len(items) < 2 or not all(type(item) is dict and item for item in items):
        return None
    names = list(dict.fromkeys(name for item in items for name in item))
    values = [value for item in items for value in item.values()]
    flat = sum(type(value) not in (dict, list) for value in values)
    shared = len(values) / (len(items) * len(names))
    if len(names) > _TABLE_COLUMNS or flat < 0.8 * len(values) or shared < 0.5:
        return None
    return {
        "names": [cut(name) for name in names],
        "cells": [[_cell(item.get(name)) for name in names] for item in items],
        "numbers": [
            all(type(item.get(name)) in (int, float, type(None)) for item in items) for name in names
        ],
    }


def _cell(value: Any) -> Cell:
    if value is None:
        return None
    if type(value) in (dict, list):
        return [type(value).__name__, f"{len(value):,} items"]
    return cell(value if type(value) is str else _scalar(value))


def _scalar(value: Any) -> str:
    return json.dumps(value)[: limits.TEXT_CHARACTERS]
