"""Values of classes: what they consist of, and which classes may be made again when reading.

A class is made again only where Airflow itself would do so: it must be importable under its own
name and permitted by ``[core] allowed_deserialization_classes`` (or the ``_regexp`` form of it, or
``allow_class()`` of Airflow 3.3). That is checked when storing as well, so that no task succeeds
with a value that no other task can read.
"""

from __future__ import annotations

import dataclasses
import re
from fnmatch import fnmatch
from functools import cache, cached_property
from importlib import import_module
from types import ModuleType
from typing import Any

from ..errors import PayloadCorruptError, UnsupportedTypeError

__all__ = ["build", "class_name", "fields_of", "find_class", "has_equality", "serde", "undeclared"]


def class_name(kind: type) -> str:
    """Return the dotted name under which ``find_class`` finds ``kind``.

    Raises:
        UnsupportedTypeError: It cannot be imported by that name, or Airflow does not permit it.
    """
    name = f"{kind.__module__}.{kind.__qualname__}"
    if "<locals>" in name or kind.__module__ == "__main__" or _import(name) is not kind:
        raise UnsupportedTypeError(
            f"class {name} cannot be imported by its name; define it at the top of a module that every "
            "worker has (include/), or return a dict",
            type=name,
        )
    if not _is_permitted(name):
        raise UnsupportedTypeError(
            f"class {name} is not permitted to be read back; add it to [core] "
            f"allowed_deserialization_classes (AIRFLOW__CORE__ALLOWED_DESERIALIZATION_CLASSES, for example "
            f"'airflow.* {name}'), or return a dict",
            type=name,
        )
    return name


def find_class(name: str) -> type:
    """Import a class that a payload names, if Airflow permits it.

    Raises:
        PayloadCorruptError: It is not permitted, or there is no class of that name.
    """
    if not _is_permitted(name):
        raise PayloadCorruptError(
            f"the payload holds a value of class {name}, which [core] allowed_deserialization_classes does "
            "not permit here; add it there if you trust it"
        )
    kind = _import(name)
    if not isinstance(kind, type):
        raise PayloadCorruptError(f"the payload holds a value of class {name}, which cannot be imported here")
    return kind


def fields_of(value: Any) -> dict[str, Any] | None:
    """Return the fields of a dataclass, attrs or pydantic instance by name; None for all else."""
    kind = type(value)
    if dataclasses.is_dataclass(kind):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(kind)}
    if hasattr(kind, "__attrs_attrs__"):
        return {field.name: getattr(value, field.name) for field in kind.__attrs_attrs__}
    if hasattr(kind, "__pydantic_fields__"):
        return {**value.__dict__, **(value.__pydantic_extra__ or {})}
    return None


def undeclared(value: Any) -> dict[str, Any]:
    """Return what an instance holds beside its fields, which ``build`` cannot give back.

    What a ``cached_property`` keeps is computed from the fields and does not count.
    """
    kind = type(value)
    fields = fields_of(value) or {}
    state = {**getattr(value, "__dict__", {}), **(getattr(value, "__pydantic_private__", None) or {})}
    return {
        name: item
        for name, item in state.items()
        if name not in fields and not isinstance(getattr(kind, name, None), cached_property)
    }


def build(kind: type, fields: dict[str, Any]) -> Any:
    """Make an instance from what ``fields_of`` gave, through the class's own constructor.

    Whether it equals the original is for the caller to compare: constructors may change things.

    Raises:
        Exception: Whatever the constructor raises.
    """
    if dataclasses.is_dataclass(kind):
        initial = {field.name for field in dataclasses.fields(kind) if field.init}
        return kind(**{name: value for name, value in fields.items() if name in initial})
    if hasattr(kind, "__attrs_attrs__"):
        aliases = {field.name: field.alias for field in kind.__attrs_attrs__ if field.init}
        return kind(**{alias: fields[name] for name, alias in aliases.items() if name in fields})
    if hasattr(kind, "__pydantic_fields__"):
        declared = kind.__pydantic_fields__
        aliases = {name: field.validation_alias or field.alias or name for name, field in declared.items()}
        names = {name: alias if isinstance(alias, str) else name for name, alias in aliases.items()}
        return kind.model_validate({names.get(name, name): value for name, value in fields.items()})  # type: ignore[attr-defined]
    raise PayloadCorruptError(f"class {kind.__module__}.{kind.__qualname__} has no fields any more")


def has_equality(kind: type) -> bool:
    """Tell whether ``==`` compares more than identity."""
    return any("__eq__" in vars(base) for base in kind.__mro__[:-1])


@cache
def serde() -> ModuleType:
    """Return Airflow's module of serialisers, which moved between versions."""
    try:
        return import_module("airflow.sdk.serde")  # Airflow 3.2 and later.
    except ModuleNotFoundError:
        return import_module("airflow.serialization.serde")


def _is_permitted(name: str) -> bool:
    globs, patterns = _allow_lists()
    return (
        any(fnmatch(name, glob) for glob in globs)
        or any(pattern.fullmatch(name) for pattern in patterns)
        # What allow_class() adds while a task runs; a private name, so absence means none.
        or name in getattr(serde(), "_extra_allowed", ())
    )


@cache
def _allow_lists() -> tuple[list[str], list[re.Pattern[str]]]:
    from airflow.configuration import conf

    globs = conf.get("core", "allowed_deserialization_classes", fallback="").split()
    patterns = conf.get("core", "allowed_deserialization_classes_regexp", fallback="").split()
    return globs, [re.compile(pattern) for pattern in patterns]


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
