"""Turn a value into tagged JSON: see ``tagged_json`` for the format."""

from __future__ import annotations

import base64
import enum
import json
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from functools import partial
from typing import Any

from ..errors import UnsupportedTypeError
from . import instances
from .advice import advice_for
from .base import Attachments, Codec, Encoded, type_name
from .changes import ATTRIBUTES, MEMBER, Changes, Saved
from .classes import class_node, serde
from .equality import identical
from .numpy_arrays import NumpyCodec
from .plain_json import from_text, json_parts, to_text
from .raw_bytes import BytesCodec
from .scalars import rule_for
from .tagged_reader import FACTORIES, TaggedReader

__all__ = ["PartCodec", "TaggedWriter"]

PartCodec = Callable[[type], Codec | None]
"""Gives the codec of values that are stored in their own format, or None."""

# Bytes up to here stand in the JSON as base64: a file of their own costs about 200 bytes.
_MEMBER_BYTES = 1024
_LARGEST_PLAIN_INT = 2**63
# Lists of at least so many tuples of plain JSON are written as one table.
_TABLE_ROWS = 16

_AS_IS = frozenset({str, bool, type(None)})
_SEQUENCES: dict[type, str] = {list: "", tuple: "$tuple", set: "$set", frozenset: "$frozenset"}
_ORDERED = frozenset({list, tuple})
# As which Airflow's default stores instances of their subclasses, in its order.
_BASES: tuple[Any, ...] = (list, dict, int, float, str)

_Rule = Callable[[Any, Any], Any]


class TaggedWriter:
    """Writes one value; collects its parts, and what does not come back exactly.

    Args:
        part_codec: Tells what becomes a part; without it nothing does.
        attachments: Takes the handles in the value; without it they are refused.

    Attributes:
        parts: Parts in their own formats, by file name.
        has_handles: Whether there are handles in the value.
        changes: What does not come back exactly.
    """

    def __init__(self, part_codec: PartCodec | None = None, attachments: Attachments | None = None) -> None:
        self.parts: list[tuple[str, Encoded]] = []
        self.has_handles = False
        self._part_codec = part_codec
        self._attachments = attachments
        self.changes = Changes()
        self._rules: dict[type, _Rule] = {
            bytes: self._bytes,
            bytearray: self._bytes,
            OrderedDict: self._items,
            Counter: self._items,
            defaultdict: self._defaultdict,
            deque: self._deque,
        }
        self._names: dict[type, Any] = {}
        # Classes of which an instance was seen to be the same when it is made again.
        self._made_again: set[type] = set()
        # How many models and dataclasses the value is in that is written just now.
        self._models = 0
        self._dataclasses = 0

    def write(self, value: Any) -> Any:
        """Return the tagged JSON of a value, as Python's dicts and lists.

        Raises:
            UnsupportedTypeError: With the attribute ``path``, the place within the value.
        """
        try:
            return self._node(value)
        except RecursionError:
            raise UnsupportedTypeError(
                "it contains itself, or is nested too deep; about 900 levels can be stored"
            ) from None
        except UnsupportedTypeError as error:
            error.path = f"{self.changes.place()}{error.path}"
            raise

    def _node(self, value: Any) -> Any:
        # One Python frame per level of nesting and no comprehension (a frame of its own before
        # Python 3.12): 500 levels must fit below the interpreter's limit of 1000. Scalars are told
        # apart within the loops: a call for each would take three times as long.
        kind = type(value)
        path = self.changes.path
        if kind is dict:
            plain: dict[str, Any] = {}
            for key, item in value.items():
                if type(key) is not str or key.startswith("$"):
                    return {"$dict": self._pairs(value)}
                inner = type(item)
                if (
                    inner in _AS_IS
                    or (inner is float and item - item == 0.0)
                    or (inner is int and -_LARGEST_PLAIN_INT <= item < _LARGEST_PLAIN_INT)
                ):
                    plain[key] = item
                else:
                    path.append(key)
                    plain[key] = self._node(item)
                    path.pop()
            return plain
        tag = _SEQUENCES.get(kind)
        if tag is not None:
            if kind is list and len(value) >= _TABLE_ROWS:
                table = self._table(value)
                if table is not None:
                    return table
            count = self.changes.count
            items: list[Any] = []
            for item in value:
                inner = type(item)
                if (
                    inner in _AS_IS
                    or (inner is float and item - item == 0.0)
                    or (inner is int and -_LARGEST_PLAIN_INT <= item < _LARGEST_PLAIN_INT)
                ):
                    items.append(item)
                else:
                    path.append(len(items) if kind in _ORDERED else MEMBER)
                    items.append(self._node(item))
                    path.pop()
            if kind not in _ORDERED:
                # Not in the order of the process's hash seed.
                items.sort(key=None if set(map(type, items)) in ({str}, {int}) else to_text)
                if self.changes.count > count:
                    _refuse_collisions(items)
            return items if kind is list else {tag: items}
        if kind in _AS_IS or (kind is int and -_LARGEST_PLAIN_INT <= value < _LARGEST_PLAIN_INT):
            return value
        if kind is float and value - value == 0.0:
            return value
        rule = self._rules.get(kind)
        if rule is None:
            rule = self._rules[kind] = self._rule(value, kind)
        return rule(value, kind)

    # ------------------------------------------------------------------------------------ containers

    def _pairs(self, value: dict[Any, Any]) -> list[list[Any]]:
        pairs, count = [], self.changes.count
        for key, item in value.items():
            self.changes.path.append(key)
            pairs.append([self._key(key), self._node(item)])
            self.changes.path.pop()
        if self.changes.count > count:
            _refuse_collisions([key for key, _ in pairs])
        return pairs

    def _key(self, key: Any) -> Any:
        depth = len(self.changes.path)
        try:
            return self._node(key)
        except UnsupportedTypeError:
            del self.changes.path[depth:]
            self.changes.note("", type_name(type(key)), "str")  # As Airflow's default does with every key.
            return str(key)

    def _table(self, rows: list[Any]) -> dict[str, Any] | None:
        """Return the node of a list of tuples of one kind that hold plain JSON; None for other lists."""
        (kind, *others) = set(map(type, rows))
        is_table = not others and issubclass(kind, tuple) and (kind is tuple or _is_named(kind))
        if not is_table or (kind.__dictoffset__ and any(map(vars, rows))):
            return None
        plain = list(map(list, rows))
        if json_parts(plain) is None:
            return None
        return {"$rows": [None if kind is tuple else self._tuple_name(kind, "[0]", len(rows)), plain]}

    def _items(self, value: OrderedDict[Any, Any] | Counter[Any], kind: type) -> Any:
        return {f"${kind.__name__}": self._node(list(value.items()))}

    def _deque(self, value: deque[Any], kind: Any) -> Any:
        return {"$deque": [value.maxlen, self._node(list(value))]}

    def _defaultdict(self, value: defaultdict[Any, Any], kind: Any) -> Any:
        factory = value.default_factory
        name = getattr(factory, "__name__", "")
        if factory is not None and FACTORIES.get(name) is not factory:
            self.changes.note("", f"collections.defaultdict of {name or factory!r:.60}", "dict")
            return self._node(dict(value))
        return {"$defaultdict": [name or None, self._node(list(value.items()))]}

    # ---------------------------------------------------------------------------------------- leaves

    def _rule(self, value: Any, kind: Any) -> _Rule:
        """Return what writes values of a type; asked once for each type in a value."""
        codec = self._part_codec(kind) if self._part_codec is not None else None
        if codec is not None:
            return partial(self._part, codec)
        if type_name(kind) == "numpy.ndarray":
            return self._array
        if rule_for(kind, in_model=True) is not None:
            return self._scalar
        if self._attachments is not None and self._attachments.node_of(value) is not None:
            return self._handle
        rule = self._class_rule(kind)
        advice = advice_for(kind)
        if advice is None:
            return rule

        def write(value: Any, kind: Any) -> Any:
            depth = len(self.changes.path)
            try:
                return rule(value, kind)
            except UnsupportedTypeError:
                del self.changes.path[depth:]
                raise UnsupportedTypeError(advice, type=type_name(kind)) from None

        return write

    def _class_rule(self, kind: Any) -> _Rule:
        if issubclass(kind, enum.Enum):
            return self._enum
        if issubclass(kind, tuple) and _is_named(kind):
            return self._namedtuple
        if issubclass(kind, _BASES):
            return self._subclass
        if instances.has_state(kind):
            return self._instance
        if callable(getattr(kind, "serialize", None)):
            return self._serialized
        return self._airflow_form

    def _bytes(self, value: bytes | bytearray, kind: type) -> dict[str, Any]:
        if self._part_codec is not None and len(value) > _MEMBER_BYTES:
            return self._part(BytesCodec(), value, kind)
        return {f"${kind.__name__}": base64.b64encode(value).decode()}

    def _array(self, value: Any, kind: type) -> dict[str, Any]:
        return {"$array": base64.b64encode(b"".join(NumpyCodec().encode(value).parts)).decode()}

    def _part(self, codec: Codec, value: Any, kind: type) -> dict[str, Any]:
        part = codec.encode(value)
        name = f"{len(self.parts)}.{part.extension}"
        self.parts.append((name, part))
        for change in part.changes:
            self.changes.note(*change)
        return {"$part": [name, part.codec, part.version, part.type]}

    def _handle(self, value: Any, kind: type) -> Any:
        self.has_handles = True
        return self._attachments.node_of(value) if self._attachments is not None else None

    def _scalar(self, value: Any, kind: type) -> dict[str, Any]:
        write = rule_for(kind, in_model=self._models > 0)
        if write is None:
            raise UnsupportedTypeError(
                advice_for(kind) or "it is stored in models only", type=type_name(kind)
            )
        return write(value, self.changes.note)

    # --------------------------------------------------------------------------------------- classes

    def _found(self, kind: type) -> Any:
        """Return the node of a class, or the error that ``class_node`` raised; asked once for each class."""
        if kind not in self._names:
            try:
                self._names[kind] = class_node(kind)
            except UnsupportedTypeError as error:
                self._names[kind] = error
        return self._names[kind]

    def _name(self, kind: type) -> Any:
        name = self._found(kind)
        if isinstance(name, UnsupportedTypeError):
            raise UnsupportedTypeError(str(name), type=name.type)
        return name

    def _enum(self, value: enum.Enum, kind: Any) -> Any:
        if isinstance(value, _BASES) and isinstance(self._found(kind), UnsupportedTypeError):
            self.changes.note("", type_name(kind), type_name(type(value.value)))
            return self._node(value.value)
        name = self._name(kind)
        if kind.__members__.get(value.name) is value:
            return {"$enum": [name, value.name]}
        return {"$flag": [name, self._node(value.value)]}

    def _namedtuple(self, value: Any, kind: type) -> Any:
        name, items = self._tuple_name(kind), self._node(list(value))
        if name is None:
            return {"$tuple": items}
        extra = getattr(value, "__dict__", None)
        return {"$namedtuple": [name, items, self._attributes(extra)] if extra else [name, items]}

    def _tuple_name(self, kind: type, path: str = "", places: int = 1) -> Any:
        """Return the name of a class of named tuples; None if they come back as tuples."""
        name = self._found(kind)
        if not isinstance(name, UnsupportedTypeError):
            return name
        self.changes.note(path, type_name(kind), "tuple", places)
        return None

    def _subclass(self, value: Any, kind: type) -> Any:
        base = next(base for base in _BASES if isinstance(value, base))
        self.changes.note("", type_name(kind), base.__name__)
        if base in (list, dict):
            return self._node(list(value) if base is list else dict(value.items()))
        return self._node(base.__str__(value) if base is str else base.__pos__(value))

    def _instance(self, value: Any, kind: Any) -> Any:
        """Write an instance by its state, or as Airflow's default makes it again where that fails."""
        is_model, is_dataclass = instances.is_model(kind), hasattr(kind, "__dataclass_fields__")
        if is_dataclass and self._dataclasses and isinstance(self._found(kind), UnsupportedTypeError):
            self.changes.note("", type_name(kind), "dict")  # As dataclasses.asdict() of the outer one does.
            return self._node(instances.to_fields(value))
        name = self._name(kind)
        self._models += is_model
        self._dataclasses += is_dataclass
        try:
            return self._exact_or_remade(value, kind, name)
        finally:
            self._models -= is_model
            self._dataclasses -= is_dataclass

    def _exact_or_remade(self, value: Any, kind: Any, name: Any) -> Any:
        before, count = self._save(), self.changes.count
        problem = None
        try:
            node = self._state(value, kind, name)
            if self.changes.count == count or not instances.is_model(kind):
                return node
        except UnsupportedTypeError as error:
            problem = error
        # A model may come back exactly through validation where its parts alone do not: a class in it
        # need not be permitted.
        inexact = self._save()
        self._restore(before)
        remade, is_same = self._remade(value, kind, name)
        if remade is not None and (is_same or problem is not None):
            if not is_same:
                self.changes.note("", type_name(kind), f"{type_name(kind)} as its constructor makes it")
            return remade
        self._restore(inexact)
        if problem is not None:
            raise problem
        return node

    def _save(self) -> tuple[list[tuple[str, Encoded]], Saved]:
        return list(self.parts), self.changes.save()

    def _restore(self, saved: tuple[list[tuple[str, Encoded]], Saved]) -> None:
        self.parts = list(saved[0])
        self.changes.restore(saved[1])

    def _state(self, value: Any, kind: Any, name: Any) -> Any:
        state = instances.state_of(value)
        if kind not in self._made_again:
            try:
                same = instances.same_state(instances.state_of(instances.make(kind, state)), state)
            except Exception as error:  # Classes of others raise anything.
                raise UnsupportedTypeError(
                    f"it cannot be made again: {error!r:.200}", type=type_name(kind)
                ) from error
            if not same:
                raise UnsupportedTypeError("it is another one when it is made again", type=type_name(kind))
            self._made_again.add(kind)
        if not instances.is_model(kind):
            return {"$object": [name, self._attributes(state)]}
        content = [name, self._attributes(state["__dict__"]), state["__pydantic_fields_set__"]]
        extra, private = state["__pydantic_extra__"], state["__pydantic_private__"]
        if extra is not None or private is not None:
            content += [None if part is None else self._attributes(part) for part in (extra, private)]
        return {"$model": content}

    def _attributes(self, state: dict[str, Any]) -> Any:
        self.changes.path.append(ATTRIBUTES)
        node = self._node(state)
        self.changes.path.pop()
        return node

    def _remade(self, value: Any, kind: Any, name: Any) -> tuple[Any, bool]:
        """Return the node of an instance that its constructor makes again, and whether that is the same.

        The node is None if there is none.
        """
        try:
            fields = instances.to_fields(value)
            made = instances.from_fields(kind, fields)
            return {"$made": [name, self._node(fields)]}, identical(value, made)
        except Exception:  # noqa: BLE001 - Constructors of others raise anything.
            return None, False

    def _serialized(self, value: Any, kind: Any) -> Any:
        """Write what the class's own ``serialize()`` returns."""
        if not callable(getattr(kind, "deserialize", None)):
            raise UnsupportedTypeError(
                "it has a serialize(), but no deserialize(data, version) that reads it back; return a dict",
                type=type_name(kind),
            )
        name, version = self._name(kind), getattr(kind, "__version__", 0)
        try:
            node = self._node(value.serialize())
            made = kind.deserialize(TaggedReader().read(from_text(to_text(node))), version)
            is_same = identical(value, made)
        except UnsupportedTypeError:
            raise
        except Exception as error:
            raise UnsupportedTypeError(
                f"its serialize() and deserialize() fail: {error!r:.200}", type=type_name(kind)
            ) from error
        if not is_same:
            self.changes.note("", type_name(kind), f"{type_name(type(made))} as its deserialize() makes it")
        return {"$serialized": [name, version, node]}

    def _airflow_form(self, value: Any, kind: type) -> Any:
        """Write the form of one of Airflow's own serialisers, such as those of Kubernetes objects."""
        name = type_name(kind)
        try:
            form = serde().serialize(value)
            back = serde().deserialize(json.loads(json.dumps(form, allow_nan=False)))
        except Exception:  # noqa: BLE001 - Serialisers of others raise anything.
            raise UnsupportedTypeError(
                "no codec has a form for it; return a dict, list, DataFrame, array or bytes", type=name
            ) from None
        if not identical(value, back):
            self.changes.note("", name, f"{type_name(type(back))} as Airflow's serialiser makes it")
        return {"$serde": form}


def _is_named(kind: type) -> bool:
    return hasattr(kind, "_fields") and hasattr(kind, "_asdict")


def _refuse_collisions(nodes: list[Any]) -> None:
    try:
        left = len({TaggedReader().read(node) for node in from_text(to_text(nodes))})
    except TypeError:
        left = 0  # Not hashable any more.
    if left != len(nodes):
        raise UnsupportedTypeError(
            "two of its keys or members would become one without their classes; turn them into str"
        )
