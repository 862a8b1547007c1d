"""Everything that plain JSON is not: tuples, dates, sets, classes, and containers of large parts.

The value becomes JSON in which an object with one key that starts with ``$`` stands for what JSON
lacks: ``{"$tuple": [1, 2]}``, ``{"$date": "2013-01-01"}``. Frames, arrays and large bytes inside it
become files of their own format next to it, ``{"$part": ["0.parquet", ...]}``, and the whole is one zip
file: one object, one request, readable with any zip tool. Without such parts the JSON alone is stored,
compressed, or stays in the row.
"""

from __future__ import annotations

import base64
import enum
import json
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

from ..errors import PayloadCorruptError, PayloadTooLargeError, UnsupportedTypeError
from . import instances, scalars
from .advice import advice_for
from .base import Buffer, Change, Codec, Encoded, type_name
from .classes import class_node, find_class, serde
from .compression import compress, decompress
from .equality import difference
from .plain_json import gc_paused, json_parts
from .zip_bundle import is_bundle, pack, unpack

__all__ = ["TaggedJsonCodec", "Written", "dump", "load"]

_SKELETON = "value.json"
# Bytes up to here stand in the JSON as base64: a file of their own costs about 200 bytes.
_MEMBER_BYTES = 1024
_LARGEST_PLAIN_INT = 2**63
# Lists of at least so many tuples of plain JSON are written as one table.
_TABLE_ROWS = 16

_FACTORIES = {kind.__name__: kind for kind in (list, dict, set, int, float, str, tuple)}

PartCodec = Callable[[type], Codec | None]
PartDecoder = Callable[[memoryview, str, int, str, int], Any]


def dump(value: Any, changes: list[Change] | None = None) -> Any:
    """Turn a value into plain JSON: dicts, lists, str, int of 64 bits, finite float, bool and None.

    For values that stand within another format, such as labels of a frame. Arrays are written as
    base64; frames are refused.

    Args:
        value: Any value.
        changes: Receives the parts that have no exact form and come back as Airflow's default would
            return them. Without it they are refused.

    Raises:
        UnsupportedTypeError: Its attribute ``path`` is the place within the value.
    """
    writer = _Writer(None)
    node = writer.root(value)
    found = writer.changes()
    if changes is not None:
        changes += found
    elif found:
        first = found[0]
        raise UnsupportedTypeError(f"would come back as {first.after}", path=first.path, type=first.before)
    return node


def load(node: Any) -> Any:
    """Turn what ``dump`` returned back into the value; lists and dicts of ``node`` are changed in place.

    Raises:
        PayloadCorruptError: ``dump`` does not write this.
        UnsupportedTypeError: A class inside is not permitted here, or not there.
    """
    return _Reader().root(node)


class Written(NamedTuple):
    """A value as JSON, with what is stored next to it.

    Attributes:
        node: The JSON, as Python's dicts and lists.
        text: The same as text.
        parts: Parts in their own formats, by file name.
        changes: Parts that do not come back exactly.
    """

    node: Any
    text: bytes
    parts: list[tuple[str, Encoded]]
    changes: tuple[Change, ...]


class TaggedJsonCodec:
    """Tuples, sets, dates, numbers of every kind, enums, named tuples, dataclasses, attrs and pydantic
    models, nested in anything, as JSON with tags; frames, arrays and large bytes inside become files of
    their own format next to it in a zip file.

    Args:
        part_codec: Gives the codec of a value that is stored in its own format, or None.
        part_decoder: Decodes such a part: ``(payload, codec, version, type, max_bytes) -> value``.
    """

    name: ClassVar[str] = "tagged-json"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...]] = ()  # Whatever no other codec takes: see ``codecs.encode``.

    def __init__(self, part_codec: PartCodec, part_decoder: PartDecoder) -> None:
        self._part_codec = part_codec
        self._part_decoder = part_decoder

    def encode(self, value: Any) -> Encoded:
        """Encode, each part with its own codec.

        Raises:
            UnsupportedTypeError: With the attribute ``path``, the place within the value.
        """
        return self.pack(value, self.write(value))

    def write(self, value: Any) -> Written:
        """Turn a value into JSON and parts.

        Raises:
            UnsupportedTypeError: With the attribute ``path``, the place within the value.
        """
        writer = _Writer(self._part_codec)
        with gc_paused():
            node = writer.root(value)
        return Written(node, _dumps(node), writer.parts, writer.changes())

    def pack(self, value: Any, written: Written) -> Encoded:
        """Return the payload of what ``write`` returned for ``value``."""
        size = len(written.text) + sum(part.raw_bytes for _, part in written.parts)
        summary: dict[str, int | str] = {"items": len(value)} if isinstance(value, Sized) else {}
        if written.parts:
            members: list[tuple[str, list[Buffer]]] = [(_SKELETON, [written.text])]
            members += [(name, part.parts) for name, part in written.parts]
            parts, extension = pack(members), "zip"
            summary["parts"] = len(written.parts)
        else:
            parts, extension = compress([written.text]), "json.zst"
        kind = type(value).__name__
        return Encoded(self.name, self.version, extension, kind, parts, size, summary, written.changes)

    def decode(self, payload: memoryview, type: str, version: int, max_bytes: int) -> Any:
        """Decode JSON, alone or in a zip file with its parts."""
        members = {}
        if is_bundle(payload):
            members = dict(unpack(payload))
            text: Buffer = members.pop(_SKELETON, memoryview(b""))
        else:
            text = decompress(payload, max_bytes)
        if len(text) > max_bytes:
            raise PayloadTooLargeError(f"expands to {len(text)} bytes; the limit is {max_bytes}")

        def part(name: str, codec: str, version: int, kind: str) -> Any:
            return self._part_decoder(members[name], codec, version, kind, max_bytes)

        with gc_paused():
            try:
                node = _loads(text)
            except (ValueError, RecursionError) as error:
                raise PayloadCorruptError(
                    f"the payload's JSON is not what was written: {error!r:.200}"
                ) from error
            return _Reader(part).root(node)


class _Writer:
    """Turns a value into JSON; collects its parts, and what does not come back exactly."""

    def __init__(self, part_codec: PartCodec | None) -> None:
        self.parts: list[tuple[str, Encoded]] = []
        self._part_codec = part_codec
        # By the types before and after.
        self._changes: dict[tuple[str, str], Change] = {}
        self._names: dict[type, Any] = {}
        self._models = 0
        self._dataclasses = 0

    def root(self, value: Any) -> Any:
        try:
            return self.node(value)
        except RecursionError:
            raise UnsupportedTypeError(
                "it contains itself, or is nested too deep; about 900 levels can be stored"
            ) from None

    def changes(self) -> tuple[Change, ...]:
        return tuple(self._changes.values())

    def node(self, value: Any) -> Any:
        # One Python frame per level of nesting and no comprehension (a frame of its own before
        # Python 3.12): 500 levels must fit below the interpreter's limit of 1000. Scalars are told
        # apart within the loops: a call for each would take three times as long.
        kind = type(value)
        at: Any = ""
        known = before = len(self._changes)
        try:
            if kind is dict:
                plain: dict[str, Any] = {}
                for at, item in value.items():
                    if type(at) is not str or at.startswith("$"):
                        return {"$dict": self._pairs(value)}
                    inner = type(item)
                    if inner in _AS_IS or (inner is float and item - item == 0.0):
                        plain[at] = item
                    elif inner is int and -_LARGEST_PLAIN_INT <= item < _LARGEST_PLAIN_INT:
                        plain[at] = item
                    else:
                        plain[at] = self.node(item)
                        if len(self._changes) > known:
                            known = self._place(known, f"[{_shown(at)}]")
                return plain
            tag = _SEQUENCES.get(kind)
            if tag is not None:
                if kind is list and len(value) >= _TABLE_ROWS:
                    table = self._table(value)
                    if table is not None:
                        return table
                items: list[Any] = []
                for item in value:
                    inner = type(item)
                    if inner in _AS_IS or (inner is float and item - item == 0.0):
                        items.append(item)
                    elif inner is int and -_LARGEST_PLAIN_INT <= item < _LARGEST_PLAIN_INT:
                        items.append(item)
                    else:
                        at = len(items)
                        items.append(self.node(item))
                        if len(self._changes) > known:
                            known = self._place(known, f"[{at}]" if kind in _ORDERED else "{...}")
                if kind not in _ORDERED:
                    items.sort(key=_dumps)  # Not in the order of the process's hash seed.
                    self._refuse_collisions(items, len(value), known > before)
                return items if kind is list else {tag: items}
        except UnsupportedTypeError as error:
            inside = "{...}" if kind in (set, frozenset) else f"[{_shown(at)}]"
            error.path = f"{inside}{error.path}"
            raise
        if kind in _AS_IS or (kind is int and -_LARGEST_PLAIN_INT <= value < _LARGEST_PLAIN_INT):
            return value
        return value if kind is float and value - value == 0.0 else self._leaf(value, kind)

    # ------------------------------------------------------------------------------------ containers

    def _pairs(self, value: dict[Any, Any]) -> list[list[Any]]:
        pairs = []
        known = before = len(self._changes)
        for at, item in value.items():
            try:
                pairs.append([self._key(at), self.node(item)])
            except UnsupportedTypeError as error:
                error.path = f"[{_shown(at)}]{error.path}"
                raise
            known = self._place(known, f"[{_shown(at)}]")
        self._refuse_collisions([key for key, _ in pairs], len(value), known > before)
        return pairs

    def _key(self, key: Any) -> Any:
        try:
            return self.node(key)
        except UnsupportedTypeError:
            self._note("", type_name(type(key)), "str")  # As Airflow's default does with every key.
            return str(key)

    def _table(self, rows: list[Any]) -> dict[str, Any] | None:
        """Return the node of a list of tuples of one kind that hold plain JSON; None for other lists."""
        (kind, *others) = set(map(type, rows))
        if others or not issubclass(kind, tuple) or (kind is not tuple and not _is_named(kind)):
            return None
        if kind.__dictoffset__ and any(map(vars, rows)):
            return None
        plain = list(map(list, rows))
        if json_parts(plain) is None:
            return None
        return {"$rows": [None if kind is tuple else self._tuple_name(kind, len(rows)), plain]}

    def _tuple_name(self, kind: type, places: int = 1) -> Any:
        """Return the name of a class of named tuples; None if they come back as tuples."""
        try:
            return self._name(kind)
        except UnsupportedTypeError:
            self._note("" if places == 1 else "[0]", type_name(kind), "tuple", places)
            return None

    def _refuse_collisions(self, nodes: list[Any], count: int, have_changed: bool) -> None:
        if not have_changed:
            return
        try:
            left = len(set(map(load, _loads(_dumps(nodes)))))
        except TypeError:
            left = 0  # Not hashable any more.
        if left != count:
            raise UnsupportedTypeError(
                "two of its keys or members would become one without their classes; turn them into str"
            )

    # ---------------------------------------------------------------------------------------- leaves

    def _leaf(self, value: Any, kind: type) -> Any:
        if kind in (bytes, bytearray) and (self._part_codec is None or len(value) <= _MEMBER_BYTES):
            return {f"${kind.__name__}": base64.b64encode(value).decode()}
        if self._part_codec is None and type_name(kind) == "numpy.ndarray":
            from .numpy_arrays import NumpyCodec

            return {"$array": base64.b64encode(b"".join(NumpyCodec().encode(value).parts)).decode()}
        codec = self._part_codec(kind) if self._part_codec is not None else None
        if codec is not None:
            return self._part(codec.encode(value))
        node = scalars.to_node(value, self._note, bool(self._models))
        if node is not None:
            return node
        write = _CONTAINERS.get(kind)
        if write is not None:
            return write(self, value)
        try:
            if isinstance(value, enum.Enum):
                return self._enum(value, kind)
            if isinstance(value, tuple) and _is_named(kind):
                return self._namedtuple(value, kind)
            if isinstance(value, _BASES):
                return self._subclass(value, kind)
            if instances.has_state(kind):
                return self._instance(value, kind)
            return self._serialized(value, kind)
        except UnsupportedTypeError:
            advice = advice_for(kind)
            if advice is None:
                raise
            raise UnsupportedTypeError(advice, type=type_name(kind)) from None

    def _part(self, part: Encoded) -> dict[str, Any]:
        name = f"{len(self.parts)}.{part.extension}"
        self.parts.append((name, part))
        for change in part.changes:
            self._note(*change)
        return {"$part": [name, part.codec, part.version, part.type]}

    def _enum(self, value: enum.Enum, kind: Any) -> Any:
        try:
            name = self._name(kind)
        except UnsupportedTypeError:
            if not isinstance(value, _BASES):
                raise
            self._note("", type_name(kind), type_name(type(value.value)))
            return self.node(value.value)
        if kind.__members__.get(value.name) is value:
            return {"$enum": [name, value.name]}
        return {"$flag": [name, self.node(value.value)]}

    def _namedtuple(self, value: Any, kind: type) -> Any:
        name, items = self._tuple_name(kind), self.node(list(value))
        if name is None:
            return {"$tuple": items}
        extra = getattr(value, "__dict__", None)
        return {"$namedtuple": [name, items, self._attributes(extra)] if extra else [name, items]}

    def _subclass(self, value: Any, kind: type) -> Any:
        base = next(base for base in _BASES if isinstance(value, base))
        self._note("", type_name(kind), base.__name__)
        if base in (list, dict):
            return self.node(list(value) if base is list else dict(value.items()))
        return self.node(base.__str__(value) if base is str else base.__pos__(value))

    def defaultdict(self, value: defaultdict[Any, Any]) -> Any:
        factory = value.default_factory
        name = getattr(factory, "__name__", "")
        if factory is not None and _FACTORIES.get(name) is not factory:
            self._note("", f"collections.defaultdict of {name or factory!r:.60}", "dict")
            return self.node(dict(value))
        return {"$defaultdict": [name or None, self.node(list(value.items()))]}

    def ordered_dict(self, value: OrderedDict[Any, Any]) -> Any:
        return {"$OrderedDict": self.node(list(value.items()))}

    def counter(self, value: Counter[Any]) -> Any:
        return {"$Counter": self.node(list(value.items()))}

    def deque(self, value: deque[Any]) -> Any:
        return {"$deque": [value.maxlen, self.node(list(value))]}

    def _name(self, kind: type) -> Any:
        known = self._names.get(kind)
        if known is None:
            try:
                known = class_node(kind)
            except UnsupportedTypeError as error:
                known = error
            self._names[kind] = known
        if isinstance(known, UnsupportedTypeError):
            raise UnsupportedTypeError(str(known), type=known.type)
        return known

    # ------------------------------------------------------------------------- instances of classes

    def _instance(self, value: Any, kind: Any) -> Any:
        """Write an instance by its state, or as Airflow's default makes it again where that fails."""
        is_model, is_dataclass = instances.is_model(kind), hasattr(kind, "__dataclass_fields__")
        try:
            name = self._name(kind)
        except UnsupportedTypeError:
            if not (is_dataclass and self._dataclasses):
                raise
            self._note("", type_name(kind), "dict")  # As dataclasses.asdict() of the outer one does.
            return self.node(instances.to_fields(value))
        self._models += is_model
        self._dataclasses += is_dataclass
        try:
            return self._exact_or_remade(value, kind, name)
        finally:
            self._models -= is_model
            self._dataclasses -= is_dataclass

    def _exact_or_remade(self, value: Any, kind: Any, name: Any) -> Any:
        parts, changes = len(self.parts), dict(self._changes)
        problem = None
        try:
            node = self._state(value, kind, name)
            if self._changes == changes or not instances.is_model(kind):
                return node
        except UnsupportedTypeError as error:
            problem = error
        # A model may come back exactly through validation where its parts alone do not: a class in it
        # need not be permitted.
        inexact = self.parts[parts:], self._changes
        del self.parts[parts:]
        self._changes = changes
        remade, is_same = self._remade(value, kind, name)
        if remade is not None and (is_same or problem is not None):
            if not is_same:
                self._note("", type_name(kind), f"{type_name(kind)} as its constructor makes it")
            return remade
        if problem is not None:
            raise problem
        self.parts += inexact[0]
        self._changes = inexact[1]
        return node

    def _state(self, value: Any, kind: Any, name: Any) -> Any:
        state = instances.state_of(value)
        try:
            again = instances.state_of(instances.make(kind, state))
        except Exception as error:  # Classes of others raise anything.
            raise UnsupportedTypeError(
                f"it cannot be made again: {error!r:.200}", type=type_name(kind)
            ) from error
        if not _same_state(state, again):
            raise UnsupportedTypeError("it is another one when it is made again", type=type_name(kind))
        if not instances.is_model(kind):
            return {"$object": [name, self._attributes(state)]}
        content = [name, self._attributes(state["__dict__"]), state["__pydantic_fields_set__"]]
        extra, private = state["__pydantic_extra__"], state["__pydantic_private__"]
        if extra is not None or private is not None:
            content += [None if part is None else self._attributes(part) for part in (extra, private)]
        return {"$model": content}

    def _attributes(self, state: dict[str, Any]) -> Any:
        known = len(self._changes)
        try:
            node = self.node(state)
        except UnsupportedTypeError as error:
            error.path = _as_attribute(error.path)
            raise
        for change in list(self._changes.values())[known:]:
            self._changes[change.before, change.after] = change._replace(path=_as_attribute(change.path))
        return node

    def _remade(self, value: Any, kind: Any, name: Any) -> tuple[Any, bool]:
        """Return the node of an instance that its constructor makes again, and whether that is the same.

        The node is None if there is none.
        """
        parts, changes = len(self.parts), dict(self._changes)
        try:
            fields = instances.to_fields(value)
            made = instances.from_fields(kind, fields)
            return {"$made": [name, self.node(fields)]}, difference(value, made) is None
        except Exception:  # Constructors of others raise anything.
            del self.parts[parts:]
            self._changes = changes
            return None, False

    def _serialized(self, value: Any, kind: Any) -> Any:
        """Write what the class's own ``serialize()`` returns, or what Airflow's serialiser does."""
        if not callable(getattr(value, "serialize", None)) or isinstance(value, type):
            return {"$serde": self._airflow_form(value, kind)}
        name = self._name(kind)
        try:
            data = value.serialize()
            version = getattr(kind, "__version__", 0)
            node = [name, version, self.node(data)]
            made = kind.deserialize(load(json.loads(_dumps(node[2]))), version)
            is_same = difference(value, made) is None
        except UnsupportedTypeError:
            raise
        except Exception as error:
            raise UnsupportedTypeError(
                f"its serialize() and deserialize() fail: {error!r:.200}", type=type_name(kind)
            ) from error
        if not is_same:
            self._note("", type_name(kind), f"{type_name(type(made))} as its deserialize() makes it")
        return {"$serialized": node}

    def _airflow_form(self, value: Any, kind: type) -> Any:
        name = type_name(kind)
        try:
            form = serde().serialize(value)
            back = serde().deserialize(json.loads(json.dumps(form, allow_nan=False)))
        except Exception:  # Serialisers of others raise anything.
            raise UnsupportedTypeError(
                "no codec has a form for it; return a dict, list, DataFrame, array or bytes", type=name
            ) from None
        if difference(value, back) is not None:
            self._note("", name, f"{type_name(type(back))} as Airflow's serialiser makes it")
        return form

    # --------------------------------------------------------------------------- what is not exact

    def _note(self, path: str, before: str, after: str, places: int = 1) -> None:
        known = self._changes.get((before, after))
        if known is not None:
            path, places = known.path, known.places + places
        self._changes[before, after] = Change(path, before, after, places)

    def _place(self, known: int, inside: str) -> int:
        """Put the place of an item before the paths of changes that were noted within it."""
        for change in list(self._changes.values())[known:]:
            self._changes[change.before, change.after] = change._replace(path=f"{inside}{change.path}")
        return len(self._changes)


class _Reader:
    """Turns JSON back into the value.

    Args:
        part: Returns the value of a part; without it, JSON that names one is refused.
    """

    def __init__(self, part: Callable[[str, str, int, str], Any] | None = None) -> None:
        self._part = part

    def root(self, node: Any) -> Any:
        try:
            return self.node(node)
        except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            if isinstance(error, UnsupportedTypeError):
                raise
            raise PayloadCorruptError(f"its JSON is not what was written: {error!r:.200}") from error

    def node(self, node: Any) -> Any:
        """Return the value of a node; lists and dicts are changed in place, not copied."""
        kind = type(node)
        if kind is list:
            for index, item in enumerate(node):
                if type(item) in _NODES:
                    node[index] = self.node(item)
            return node
        if kind is not dict:
            return node
        if len(node) == 1:
            ((tag, content),) = node.items()
            if tag.startswith("$"):
                make = _COLLECTIONS.get(tag)
                return make(self.node(content)) if make is not None else self._leaf(tag, content)
        for key, item in node.items():
            if type(item) in _NODES:
                node[key] = self.node(item)
        return node

    def _leaf(self, tag: str, content: Any) -> Any:
        if tag == "$part":
            if self._part is None:
                raise PayloadCorruptError("it names a part where there can be none")
            return self._part(*content)
        read = _READERS.get(tag)
        return read(self, content) if read is not None else scalars.from_node(tag, content)

    # ------------------------------------------------------------------------------------- containers

    def rows(self, content: Any) -> list[Any]:
        name, rows = content
        if name is None:
            return list(map(tuple, rows))
        kind = _subclass(name, tuple)
        return [tuple.__new__(kind, row) for row in rows]

    def defaultdict(self, content: Any) -> Any:
        name, pairs = content
        return defaultdict(_FACTORIES[name] if name else None, self.node(pairs))

    def deque(self, content: Any) -> Any:
        return deque(self.node(content[1]), content[0])

    def array(self, content: str) -> Any:
        from .numpy_arrays import NumpyCodec

        data = bytearray(base64.b64decode(content, validate=True))
        return NumpyCodec().decode(memoryview(data), "numpy.ndarray", 1, len(data))

    # ---------------------------------------------------------------------------------------- classes

    def enum(self, content: Any) -> Any:
        return _subclass(content[0], enum.Enum).__members__[content[1]]

    def flag(self, content: Any) -> Any:
        return _subclass(content[0], enum.Enum)(self.node(content[1]))

    def namedtuple(self, content: Any) -> Any:
        name, items, *extra = content
        made = tuple.__new__(_subclass(name, tuple), self.node(items))
        if extra:
            vars(made).update(self.node(extra[0]))
        return made

    def object(self, content: Any) -> Any:
        kind = _with_state(content[0])
        if instances.is_model(kind):
            raise PayloadCorruptError(f"class {type_name(kind)} is a model now")
        return instances.make(kind, self.node(content[1]))

    def model(self, content: Any) -> Any:
        name, fields, fields_set, *rest = content
        kind = _with_state(name)
        extra, private = rest or (None, None)
        state = {
            "__dict__": self.node(fields),
            "__pydantic_fields_set__": fields_set,
            "__pydantic_extra__": self.node(extra),
            "__pydantic_private__": self.node(private),
        }
        return instances.make(kind, state)

    def made(self, content: Any) -> Any:
        kind, fields = _with_state(content[0]), self.node(content[1])
        with _others_code(type_name(kind)):
            return instances.from_fields(kind, fields)

    def serialized(self, content: Any) -> Any:
        name, version, data = content
        kind, value = find_class(name), self.node(data)
        with _others_code(type_name(kind)):
            return kind.deserialize(value, version)

    def serde(self, form: Any) -> Any:
        with _others_code("of Airflow's serialiser"):
            return serde().deserialize(form)


def _dumps(node: Any) -> bytes:
    import orjson

    try:
        return orjson.dumps(node)
    except orjson.JSONEncodeError:
        # A lone surrogate, or nesting beyond 254.
        return json.dumps(node, allow_nan=False, separators=(",", ":")).encode()


def _loads(text: Buffer) -> Any:
    import orjson

    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(bytes(text))


def _is_named(kind: type) -> bool:
    return hasattr(kind, "_fields") and hasattr(kind, "_asdict")


def _same_state(state: dict[str, Any], again: dict[str, Any]) -> bool:
    """Compare shallowly: the parts of a state are compared by their own rules."""
    return state.keys() == again.keys() and all(
        item is again[name] or item == again[name] for name, item in state.items()
    )


def _subclass(name: str, base: type) -> Any:
    kind = find_class(name)
    if not issubclass(kind, base):
        raise PayloadCorruptError(f"class {name:.200} is not a {base.__name__}")
    return kind


def _with_state(name: Any) -> Any:
    kind = find_class(name)
    if not instances.has_state(kind):
        raise PayloadCorruptError(f"class {type_name(kind):.200} has no fields")
    return kind


def _shown(key: Any) -> str:
    text = repr(key)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _as_attribute(path: str) -> str:
    """Turn ``['lines'][3]`` into ``.lines[3]``."""
    head, _, rest = path[2:].partition("']")
    return f".{head}{rest}" if path.startswith("['") else path


@contextmanager
def _others_code(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Constructors and serialisers of others raise anything.
        raise PayloadCorruptError(
            f"class {name:.200} does not make it again: {error!r:.200}; it may have changed since"
        ) from error


_AS_IS = frozenset({str, bool, type(None)})
_NODES = frozenset({list, dict})
_SEQUENCES: dict[type, str] = {list: "", tuple: "$tuple", set: "$set", frozenset: "$frozenset"}
_ORDERED = frozenset({list, tuple})
# As which Airflow's default stores their subclasses, in its order.
_BASES: tuple[Any, ...] = (list, dict, int, float, str)

_CONTAINERS: dict[type, Callable[[_Writer, Any], Any]] = {
    defaultdict: _Writer.defaultdict,
    OrderedDict: _Writer.ordered_dict,
    Counter: _Writer.counter,
    deque: _Writer.deque,
}
_COLLECTIONS: dict[str, Callable[[Any], Any]] = {
    "$tuple": tuple,
    "$set": set,
    "$frozenset": frozenset,
    "$dict": dict,
    "$list": list,
    "$OrderedDict": OrderedDict,
    "$Counter": lambda pairs: Counter(dict(pairs)),
}
_READERS: dict[str, Callable[[_Reader, Any], Any]] = {
    "$bytes": lambda _, content: base64.b64decode(content, validate=True),
    "$bytearray": lambda _, content: bytearray(base64.b64decode(content, validate=True)),
    "$rows": _Reader.rows,
    "$defaultdict": _Reader.defaultdict,
    "$deque": _Reader.deque,
    "$array": _Reader.array,
    "$enum": _Reader.enum,
    "$flag": _Reader.flag,
    "$namedtuple": _Reader.namedtuple,
    "$object": _Reader.object,
    "$model": _Reader.model,
    "$made": _Reader.made,
    "$serialized": _Reader.serialized,
    "$serde": _Reader.serde,
}
