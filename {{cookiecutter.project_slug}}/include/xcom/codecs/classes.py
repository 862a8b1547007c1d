"""Classes in payloads: their names, and which of them a reader may make.

A reader makes an instance only where Airflow itself would: the class is importable under its own name
and permitted by ``[core] allowed_deserialization_classes`` (or ``..._regexp``, or ``allow_class()`` of
Airflow 3.3). Writers check the same, so that no task succeeds with a value that no other task can read.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fnmatch import fnmatch
from functools import cache, reduce
from importlib import import_module
from operator import or_
from types import ModuleType, NoneType, UnionType
from typing import Any, Union, get_args, get_origin
from uuid import UUID

from ..errors import PayloadCorruptError, UnsupportedTypeError
from .base import DAG_FILE, type_name

__all__ = ["allow_lists", "class_name", "class_node", "find_class", "serde"]

# Enumerations of the standard library that HTTP clients return.
_ALWAYS_PERMITTED = frozenset({"http.HTTPStatus", "http.HTTPMethod"})

# Arguments of generic models; their names have no dot, those of other classes do.
_PLAIN_TYPES: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        *(int, float, str, bool, bytes, list, dict, set, tuple, frozenset, NoneType),
        *(date, datetime, time, timedelta, Decimal, UUID),
    )
} | {"Any": Any, "...": ...}
_PLAIN_NAMES = {kind: name for name, kind in _PLAIN_TYPES.items()}


def class_name(kind: type) -> str:
    """Return the dotted name under which ``find_class`` finds ``kind``.

    Raises:
        UnsupportedTypeError: It cannot be imported by that name, or Airflow does not permit it.
    """
    name = f"{kind.__module__}.{kind.__qualname__}"
    if name in _ALWAYS_PERMITTED or (_is_permitted(name) and _import(name) is kind):
        return name
    shown = type_name(kind)
    if DAG_FILE.match(name) or kind.__module__ == "__main__":
        advice = "its class is in a Dag file, where readers cannot import it; move the class to include/"
    elif "<locals>" in name:
        advice = "its class is made inside a function; define it at the top of a module in include/"
    elif _import(name) is not kind:
        advice = f"its class cannot be imported as {shown}; define it at the top of a module in include/"
    else:
        permitted = " ".join([*allow_lists()[0], name])
        advice = (
            "its class is not permitted to be read; add it to [core] allowed_deserialization_classes "
            f"(AIRFLOW__CORE__ALLOWED_DESERIALIZATION_CLASSES='{permitted}'), or return a dict"
        )
    raise UnsupportedTypeError(advice, type=shown)


def class_node(kind: Any) -> Any:
    """Return JSON that names a class; for a parametrised generic, ``[origin, *arguments]``.

    Raises:
        UnsupportedTypeError: See ``class_name``; or an argument is something else than a type.
    """
    generic = getattr(kind, "__pydantic_generic_metadata__", None) or {}
    origin = generic.get("origin") or get_origin(kind)
    if origin is not None:
        arguments = [_argument_node(item) for item in generic.get("args") or get_args(kind)]
        return ["|" if origin in (Union, UnionType) else _argument_node(origin), *arguments]
    return class_name(kind)


def _argument_node(kind: Any) -> Any:
    try:
        if kind in _PLAIN_NAMES:
            return _PLAIN_NAMES[kind]
    except TypeError:
        pass  # An unhashable argument of Annotated or Literal.
    if not isinstance(kind, type) and get_origin(kind) is None:
        raise UnsupportedTypeError(
            f"the type argument {kind!r:.100} of its class cannot be named; return a dict"
        )
    return class_node(kind)


def find_class(node: Any) -> Any:
    """Return the class that ``class_node`` named, if Airflow permits it.

    Raises:
        UnsupportedTypeError: It is not permitted or not there.
        PayloadCorruptError: The node names something else than a class.
    """
    if type(node) is list:
        origin, *arguments = node
        types = tuple(find_class(item) for item in arguments)
        if origin == "|":
            return reduce(or_, types)
        return find_class(origin)[types if len(types) != 1 else types[0]]
    if node in _PLAIN_TYPES:
        return _PLAIN_TYPES[node]
    if node not in _ALWAYS_PERMITTED and not _is_permitted(node):
        raise UnsupportedTypeError(
            f"class {node:.200} is not permitted to be read here: if you trust it, add it to [core] "
            "allowed_deserialization_classes",
            type=node[:200],
        )
    try:
        kind = _import(node)
    except Exception as error:  # Importing runs code of others.
        raise UnsupportedTypeError(
            f"class {node:.200} cannot be imported here: {error!r:.200}", type=node[:200]
        ) from error
    if kind is None:
        raise UnsupportedTypeError(
            f"class {node:.200} cannot be imported: add its module to this deployment", type=node[:200]
        )
    if not isinstance(kind, type):
        raise PayloadCorruptError(f"{node:.200} is not a class")
    return kind


@cache
def serde() -> ModuleType:
    """Return Airflow's module of serialisers, which moved between versions."""
    try:
        return import_module("airflow.sdk.serde")  # Airflow 3.2 and later.
    except ModuleNotFoundError:
        return import_module("airflow.serialization.serde")


@cache
def allow_lists() -> tuple[list[str], list[re.Pattern[str]]]:
    """Return the globs and the regular expressions of class names that Airflow permits."""
    from airflow.configuration import conf

    globs = conf.get("core", "allowed_deserialization_classes", fallback="").split()
    patterns = conf.get("core", "allowed_deserialization_classes_regexp", fallback="").split()
    return globs, [re.compile(pattern) for pattern in patterns]


def _is_permitted(name: str) -> bool:
    globs, patterns = allow_lists()
    return (
        any(fnmatch(name, glob) for glob in globs)
        or any(pattern.fullmatch(name) for pattern in patterns)
        # What allow_class() adds while a task runs; a private name, so absence means none.
        or name in getattr(serde(), "_extra_allowed", ())
    )


def _import(name: str) -> object:
    """Import ``package.module.Outer.Inner``; None if there is no such thing."""
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            found: object = import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = getattr(found, part, None)
        return found
    return None
