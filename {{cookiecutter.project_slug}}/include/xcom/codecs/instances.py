"""Instances of dataclasses, attrs classes and pydantic models: taking them apart, making them again.

An instance is its state: attributes and slots, set on a new instance without calling its constructor or
validators, as ``copy`` and ``pickle`` do. Constructors may not accept what they made: aliases, ``InitVar``,
validators of raw input, ``__post_init__``.
"""

from __future__ import annotations

import dataclasses
from functools import cache, cached_property
from typing import Any

from ..errors import UnsupportedTypeError

__all__ = ["from_fields", "has_state", "is_model", "make", "same_state", "state_of", "to_fields"]

# Set by typing on instances of Box[int]; it only says how they were made.
_NO_STATE = frozenset({"__orig_class__"})
# What attrs keeps of a hash, which is another one in another process.
_HASH = "_attrs_cached_hash"


@cache
def is_model(kind: type) -> bool:
    """Tell whether a class is a pydantic model, as Airflow tells it."""
    return (
        hasattr(kind, "__pydantic_fields__")
        and hasattr(kind, "__pydantic_validator__")
        and not dataclasses.is_dataclass(kind)
    )


@cache
def has_state(kind: type) -> bool:
    """Tell whether instances of a class are stored by their state."""
    return dataclasses.is_dataclass(kind) or hasattr(kind, "__attrs_attrs__") or is_model(kind)


def state_of(value: Any) -> dict[str, Any]:
    """Return the state of an instance by name.

    What a ``cached_property`` keeps is computed from the rest and left out. For a pydantic model:
    the fields, then ``__pydantic_fields_set__``, ``__pydantic_extra__`` and ``__pydantic_private__``.
    """
    kind: Any = type(value)
    computed = _computed(kind)
    state = {name: item for name, item in getattr(value, "__dict__", {}).items() if name not in computed}
    if is_model(kind):
        private = getattr(value, "__pydantic_private__", None)
        if private is not None:
            from pydantic_core import PydanticUndefined

            private = {name: item for name, item in private.items() if item is not PydanticUndefined}
        return {
            "__dict__": state,
            "__pydantic_fields_set__": sorted(value.__pydantic_fields_set__),
            "__pydantic_extra__": getattr(value, "__pydantic_extra__", None),
            "__pydantic_private__": private,
        }
    state |= {name: getattr(value, name) for name in _slots(kind) if hasattr(value, name)}
    if _HASH in state:
        state[_HASH] = None
    return state


def make(kind: Any, state: dict[str, Any]) -> Any:
    """Make an instance of what ``state_of`` returned.

    Raises:
        TypeError: It cannot be made so, such as a dataclass that derives from ``dict``.
    """
    if not is_model(kind):
        made = object.__new__(kind)
        slots = _slots(kind)
        for name, item in state.items():
            if name in slots:
                object.__setattr__(made, name, item)
            else:
                vars(made)[name] = item
        return made
    from pydantic import BaseModel, RootModel

    fields = state["__dict__"]
    # In the order of declaration, which is that of model_dump(): PostgreSQL keeps another.
    names = [*(name for name in kind.__pydantic_fields__ if name in fields), *fields]
    made = kind.__new__(kind)
    # A RootModel has no place for extra and private attributes.
    (RootModel if issubclass(kind, RootModel) else BaseModel).__setstate__(
        made,
        {
            "__dict__": {name: fields[name] for name in names},
            "__pydantic_fields_set__": set(state["__pydantic_fields_set__"]),
            "__pydantic_extra__": state["__pydantic_extra__"],
            "__pydantic_private__": state["__pydantic_private__"],
        },
    )
    return made


def same_state(state: dict[str, Any], other: dict[str, Any]) -> bool:
    """Compare shallowly: what a state consists of is compared by its own rules."""
    return state.keys() == other.keys() and all(
        item is other[name] or item == other[name] for name, item in state.items()
    )


def to_fields(value: Any) -> dict[str, Any]:
    """Return what ``from_fields`` needs to make an instance as Airflow's default does.

    Raises:
        UnsupportedTypeError: A model that cannot be dumped as JSON.
    """
    kind: Any = type(value)
    if not is_model(kind):
        return {name: getattr(value, attribute) for name, attribute in _parameters(kind).items()}
    try:
        fields: dict[str, Any] = {"data": value.model_dump(mode="json", warnings=False)}
    except Exception as error:  # Serialisers of others raise anything.
        raise UnsupportedTypeError(f"its model_dump(mode='json') fails: {error!r:.200}") from error
    return fields


def from_fields(kind: Any, fields: dict[str, Any]) -> Any:
    """Make an instance through its constructor, or a model through ``model_validate``.

    Raises:
        Exception: Whatever the class raises.
    """
    return kind.model_validate(fields["data"]) if is_model(kind) else kind(**fields)


def _parameters(kind: Any) -> dict[str, str]:
    """Return the names of the constructor's parameters, and the attributes that hold their values."""
    if dataclasses.is_dataclass(kind):
        return {field.name: field.name for field in dataclasses.fields(kind) if field.init}
    return {field.alias: field.name for field in kind.__attrs_attrs__ if field.init}


@cache
def _computed(kind: type) -> frozenset[str]:
    names = [
        name
        for base in kind.__mro__
        for name, item in vars(base).items()
        if isinstance(item, cached_property)
    ]
    return _NO_STATE.union(names)


@cache
def _slots(kind: type) -> tuple[str, ...]:
    names = []
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name.startswith("__") and not name.endswith("__"):
                names.append(f"_{base.__name__.lstrip('_')}{name}")
            elif name not in ("__dict__", "__weakref__"):
                names.append(name)
    return tuple(names)
