"""Turn tagged JSON back into its value: see ``tagged_json`` for the format."""

from __future__ import annotations

import base64
import enum
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from ..errors import PayloadCorruptError, UnsupportedTypeError
from . import instances
from .base import HANDLE_KINDS, HandleOf, type_name
from .classes import find_class, serde
from .numpy_arrays import NumpyCodec
from .scalars import from_node

__all__ = ["FACTORIES", "HANDLE_TAGS", "TaggedReader"]

FACTORIES = {kind.__name__: kind for kind in (list, dict, set, int, float, str, tuple)}
"""Factories of a ``defaultdict``, by name."""

HANDLE_TAGS = frozenset(f"${kind}" for kind in HANDLE_KINDS)
"""Tags that ``Attachments.node_of`` returns."""

_NODES = frozenset({list, dict})
_COLLECTIONS: dict[str, Callable[[Any], Any]] = {
    "$tuple": tuple,
    "$set": set,
    "$frozenset": frozenset,
    "$dict": dict,
    "$list": list,
    "$OrderedDict": OrderedDict,
    "$Counter": lambda pairs: Counter(dict(pairs)),
}


class TaggedReader:
    """Turns tagged JSON back into its value.

    Args:
        part: Returns the value of a part, for the content of its node; without it, JSON that names
            one is refused.
        handle_of: Returns a handle, for its tag and content; the same.
    """

    def __init__(
        self,
        part: Callable[[str, str, int, str], Any] | None = None,
        handle_of: HandleOf | None = None,
    ) -> None:
        self._part = part
        self._handle_of = handle_of
        self._classes: dict[str, Any] = {}
        self._rules: dict[str, Callable[[Any], Any]] = {
            "$part": self._part_value,
            **{tag: partial(self._handle, tag) for tag in HANDLE_TAGS},
            "$rows": self._rows,
            "$defaultdict": self._defaultdict,
            "$deque": lambda content: deque(self._node(content[1]), content[0]),
            "$array": self._array,
            "$bytes": lambda content: base64.b64decode(content, validate=True),
            "$bytearray": lambda content: bytearray(base64.b64decode(content, validate=True)),
            "$enum": lambda content: self._class(content[0], _is_enum).__members__[content[1]],
            "$flag": lambda content: self._class(content[0], _is_enum)(self._node(content[1])),
            "$namedtuple": self._namedtuple,
            "$object": self._object,
            "$model": self._model,
            "$made": self._made,
            "$serialized": self._serialized,
            "$serde": self._serde,
        }

    def read(self, node: Any) -> Any:
        """Return the value of a node; its lists and dicts are changed in place, not copied.

        Raises:
            PayloadCorruptError: No writer writes this.
            UnsupportedTypeError: A class inside is not permitted here, or not there.
        """
        try:
            return self._node(node)
        except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            if isinstance(error, UnsupportedTypeError):
                raise
            raise PayloadCorruptError(f"its JSON is not what was written: {error!r:.200}") from error

    def _node(self, node: Any) -> Any:
        kind = type(node)
        if kind is list:
            for index, item in enumerate(node):
                if type(item) in _NODES:
                    node[index] = self._node(item)
            return node
        if kind is not dict:
            return node
        if len(node) == 1:
            ((tag, content),) = node.items()
            if tag.startswith("$"):
                make = _COLLECTIONS.get(tag)
                if make is not None:
                    return make(self._node(content))
                read = self._rules.get(tag)
                return read(content) if read is not None else from_node(tag, content)
        for key, item in node.items():
            if type(item) in _NODES:
                node[key] = self._node(item)
        return node

    def _part_value(self, content: Any) -> Any:
        if self._part is None:
            raise PayloadCorruptError("it names a part where there can be none")
        return self._part(*content)

    def _handle(self, tag: str, content: Any) -> Any:
        if self._handle_of is None:
            raise PayloadCorruptError("it names a handle where there can be none")
        return self._handle_of(tag, content)

    # ------------------------------------------------------------------------------------- containers

    def _rows(self, content: Any) -> list[Any]:
        name, rows = content
        if name is None:
            return list(map(tuple, rows))
        kind = self._class(name, _is_tuple)
        return [tuple.__new__(kind, row) for row in rows]

    def _defaultdict(self, content: Any) -> Any:
        name, pairs = content
        return defaultdict(FACTORIES[name] if name else None, self._node(pairs))

    def _array(self, content: str) -> Any:
        data = bytearray(base64.b64decode(content, validate=True))
        return NumpyCodec().decode(memoryview(data), "numpy.ndarray", 1, len(data))

    # ---------------------------------------------------------------------------------------- classes

    def _class(self, node: Any, fits: Callable[[Any], bool]) -> Any:
        """Return a class, if it is of the kind that a node's tag stands for."""
        key = str(node)
        kind = self._classes.get(key)
        if kind is None:
            kind = self._classes[key] = find_class(node)
        if not fits(kind):
            raise PayloadCorruptError(
                f"class {type_name(kind):.200} is of another kind than what was written"
            )
        return kind

    def _namedtuple(self, content: Any) -> Any:
        name, items, *extra = content
        made = tuple.__new__(self._class(name, _is_tuple), self._node(items))
        if extra:
            vars(made).update(self._node(extra[0]))
        return made

    def _object(self, content: Any) -> Any:
        kind = self._class(content[0], _is_record)
        return instances.make(kind, self._node(content[1]))

    def _model(self, content: Any) -> Any:
        name, fields, fields_set, *rest = content
        kind = self._class(name, instances.is_model)
        extra, private = rest or (None, None)
        state = {
            "__dict__": self._node(fields),
            "__pydantic_fields_set__": fields_set,
            "__pydantic_extra__": self._node(extra),
            "__pydantic_private__": self._node(private),
        }
        return instances.make(kind, state)

    def _made(self, content: Any) -> Any:
        kind, fields = self._class(content[0], instances.has_state), self._node(content[1])
        with _others_code(type_name(kind)):
            return instances.from_fields(kind, fields)

    def _serialized(self, content: Any) -> Any:
        name, version, data = content
        kind, value = self._class(name, lambda kind: hasattr(kind, "deserialize")), self._node(data)
        with _others_code(type_name(kind)):
            return kind.deserialize(value, version)

    def _serde(self, form: Any) -> Any:
        with _others_code("of Airflow's serialiser"):
            return serde().deserialize(form)


def _is_enum(kind: Any) -> bool:
    return issubclass(kind, enum.Enum)


def _is_tuple(kind: Any) -> bool:
    return issubclass(kind, tuple)


def _is_record(kind: Any) -> bool:
    return instances.has_state(kind) and not instances.is_model(kind)


@contextmanager
def _others_code(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Constructors and serialisers of others raise anything.
        raise PayloadCorruptError(
            f"class {name:.200} does not make it again: {error!r:.200}; it may have changed since"
        ) from error
