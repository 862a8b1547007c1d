"""Everything that plain JSON is not: tuples, dates, sets, classes, and containers of large parts.

The value becomes a JSON document (the skeleton) in which a dict of one key that starts with ``$``
stands for what JSON lacks: ``{"$tuple": [1, 2]}``, ``{"$date": "2013-01-01"}``. Frames, arrays and
large bytes inside it become files of their own format beside it, ``{"$part": ["0.parquet", ...]}``,
and the whole is one zip file: one object, one request, readable with any zip tool. Without such
parts the skeleton alone is stored, compressed.
"""

from __future__ import annotations

import base64
import enum
import json
import math
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Sized
from typing import Any, ClassVar

from ..errors import PayloadCorruptError, PayloadTooLargeError, UnsupportedTypeError
from . import scalars
from .base import Buffer, Change, Codec, Encoded
from .classes import build, class_name, fields_of, find_class, serde
from .compression import compress, decompress
from .equality import canonical_text, difference
from .plain_json import gc_paused
from .zip_bundle import is_bundle, pack, unpack

__all__ = ["TreeCodec", "dump", "load"]

_SKELETON = "value.json"
# Bytes up to here stand in the skeleton as base64: a member of their own costs about 200 bytes.
_MEMBER_BYTES = 1024
_LARGEST_PLAIN_INT = 2**63

_FACTORIES = {kind.__name__: kind for kind in (list, dict, set, int, float, str, tuple)}


def dump(value: Any, changes: list[Change] | None = None) -> Any:
    """Turn a value into plain JSON: dicts, lists, str, int of 64 bits, finite float, bool and None.

    For values that stand within another format, such as labels of a frame; frames and arrays inside
    the value are refused.

    Args:
        value: Any value.
        changes: Receives the parts that have no exact form and come back as Airflow's default would
            return them. Without it they are refused.

    Raises:
        UnsupportedTypeError: Its attribute ``path`` is the place within the value.
    """
    writer = _Writer(None)
    try:
        node = writer.node(value)
        changed = difference(value, load(_loads(_dumps(node)))) if writer.must_verify else None
    except RecursionError:
        raise UnsupportedTypeError("the value contains itself, or is nested too deep") from None
    if changed is not None:
        raise UnsupportedTypeError("the value would not come back unchanged", path=changed)
    return node


def load(node: Any) -> Any:
    """Turn what ``dump`` returned back into the value; lists and dicts of ``node`` are changed in place.

    Raises:
        PayloadCorruptError: ``dump`` does not write this.
    """

    def no_part(*_: Any) -> Any:
        raise PayloadCorruptError("the payload names a part, and has none")

    try:
        return _Reader(no_part, {}).node(node)
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise PayloadCorruptError(f"the payload's JSON is not what was written: {error!r:.200}") from error


class TreeCodec:
    """Tuples, sets, dates, numbers of every kind, enums, named tuples, dataclasses, attrs and pydantic
    models, nested in anything, as JSON with tags; frames, arrays and large bytes inside become files of
    their own format beside it in a zip file.

    Args:
        part_codec: Gives the codec of a value that is stored in its own format, or None.
        part_decoder: Decodes such a part: ``(payload, codec, version, type, max_bytes) -> value``.
    """

    name: ClassVar[str] = "tagged-json"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...]] = ()  # Whatever no other codec takes: see ``codecs.encode``.

    def __init__(
        self,
        part_codec: Callable[[type], Codec | None],
        part_decoder: Callable[[memoryview, str, int, str, int], Any],
    ) -> None:
        self._part_codec = part_codec
        self._part_decoder = part_decoder

    def encode(self, value: Any) -> Encoded:
        """Encode; a value with instances of classes is decoded again and compared.

        Raises:
            UnsupportedTypeError: With the attribute ``path``, the place within the value.
        """
        writer = _Writer(self._part_codec)
        try:
            with gc_paused():
                skeleton = writer.node(value)
            text = _dumps(skeleton)
            if writer.must_verify:
                changed = difference(value, _Reader(self._part_decoder, writer.members()).node(skeleton))
        except RecursionError:
            raise UnsupportedTypeError(
                "the value contains itself, or is nested too deep (about 900 levels can be stored)"
            ) from None
        if writer.must_verify and changed is not None:
            raise UnsupportedTypeError(
                "the value would not come back unchanged: its class, or one inside it, loses or alters "
                "something when it is made again from its fields; return a dict of plain values",
                path=changed,
            )
        size = len(text) + sum(part.raw_bytes for _, part in writer.parts)
        kind = type(value)
        summary: dict[str, int | str] = {"items": len(value)} if isinstance(value, Sized) else {}
        if not writer.parts:
            return Encoded(
                self.name, self.version, "json.zst", kind.__name__, compress([text]), size, summary
            )
        members: list[tuple[str, list[Buffer]]] = [(_SKELETON, [text])]
        members += [(name, part.parts) for name, part in writer.parts]
        summary["parts"] = len(writer.parts)
        return Encoded(self.name, self.version, "zip", kind.__name__, pack(members), size, summary)

    def decode(self, payload: memoryview, type: str, version: int, max_bytes: int) -> Any:
        """Decode a skeleton, alone or in a zip file with its parts."""
        members = {}
        if is_bundle(payload):
            members = dict(unpack(payload))
            text: Buffer = members.pop(_SKELETON, memoryview(b""))
        else:
            text = decompress(payload, max_bytes)
        if len(text) > max_bytes:
            raise PayloadTooLargeError(f"expands to {len(text)} bytes; the limit is {max_bytes}")
        reader = _Reader(self._part_decoder, members, max_bytes)
        try:
            with gc_paused():
                return reader.node(_loads(text))
        except (KeyError, ValueError, TypeError, AttributeError, IndexError, RecursionError) as error:
            raise PayloadCorruptError(f"the payload's skeleton is not what was written: {error!r}") from error


class _Writer:
    """Turns a value into a skeleton and collects its parts."""

    def __init__(self, part_codec: Callable[[type], Codec | None] | None) -> None:
        self.parts: list[tuple[str, Encoded]] = []
        self.must_verify = False
        self._part_codec = part_codec

    def members(self) -> dict[str, memoryview]:
        """Return copies of the parts, as a reader would find them."""
        return {name: memoryview(bytearray(b"".join(part.parts))) for name, part in self.parts}

    def node(self, value: Any) -> Any:
        # One Python frame per level of nesting and no comprehension (a frame of its own before
        # Python 3.12): 500 levels must fit below the interpreter's limit of 1000. Scalars are told
        # apart within the loops: a call for each would take three times as long.
        kind = type(value)
        at: Any = ""
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
                return plain
            tag = _SEQUENCES.get(kind)
            if tag is not None:
                items: list[Any] = []
                for item in _in_order(value):
                    inner = type(item)
                    if inner in _AS_IS or (inner is float and item - item == 0.0):
                        items.append(item)
                    elif inner is int and -_LARGEST_PLAIN_INT <= item < _LARGEST_PLAIN_INT:
                        items.append(item)
                    else:
                        at = len(items)
                        items.append(self.node(item))
                return items if kind is list else {tag: items}
        except UnsupportedTypeError as error:
            inside = f"[{_shown(at)}]" if kind not in (set, frozenset) else "{...}"
            error.path = f"{inside}{error.path}"
            raise
        if kind is int:
            return value if -_LARGEST_PLAIN_INT <= value < _LARGEST_PLAIN_INT else {"$int": hex(value)}
        if kind is float:
            return value if math.isfinite(value) else {"$float": repr(value)}
        return value if kind in _AS_IS else self._leaf(value, kind)

    def _pairs(self, value: dict[Any, Any]) -> list[list[Any]]:
        pairs = []
        for at, item in value.items():
            try:
                pairs.append([self.node(at), self.node(item)])
            except UnsupportedTypeError as error:
                error.path = f"[{_shown(at)}]{error.path}"
                raise
        return pairs

    def _leaf(self, value: Any, kind: type) -> Any:
        if kind in (bytes, bytearray) and (self._part_codec is None or len(value) <= _MEMBER_BYTES):
            return {f"${kind.__name__}": base64.b64encode(value).decode()}
        codec = self._part_codec(kind) if self._part_codec is not None else None
        if codec is not None:
            part = codec.encode(value)
            name = f"{len(self.parts)}.{part.extension}"
            self.parts.append((name, part))
            return {"$part": [name, part.codec, part.version, part.type]}
        node = scalars.to_node(value)
        if node is not None:
            return node
        if kind is OrderedDict:
            return {"$OrderedDict": self.node(list(value.items()))}
        if kind is Counter:
            return {"$Counter": self.node(list(value.items()))}
        if kind is defaultdict:
            factory = value.default_factory
            name = getattr(factory, "__name__", "")
            if factory is not None and _FACTORIES.get(name) is not factory:
                raise UnsupportedTypeError(
                    f"a defaultdict's factory {factory!r} cannot be stored; return dict(value)"
                )
            return {"$defaultdict": [name or None, self.node(list(value.items()))]}
        if kind is deque:
            return {"$deque": [value.maxlen, self.node(list(value))]}
        self.must_verify = True
        if isinstance(value, enum.Enum):
            return {"$enum": [class_name(kind), self.node(value.value)]}
        if isinstance(value, tuple) and hasattr(kind, "_fields"):
            return {"$namedtuple": [class_name(kind), self.node(list(value))]}
        fields = fields_of(value)
        if fields is not None:
            try:
                return {"$object": [class_name(kind), self.node(fields)]}
            except UnsupportedTypeError as error:
                if error.path:
                    error.path = _as_attribute(error.path)
                raise
        return {"$serde": self._airflow_form(value, kind)}

    def _airflow_form(self, value: Any, kind: type) -> Any:
        name = f"{kind.__module__}.{kind.__qualname__}"
        try:
            form = serde().serialize(value)
            text = json.dumps(form, allow_nan=False)
            back = serde().deserialize(json.loads(text))
        except Exception as error:  # noqa: BLE001 - serialisers of others raise anything
            hint = _HINTS.get(name) or "return a dict, list, DataFrame, array or bytes instead"
            raise UnsupportedTypeError(f"no codec for {name}; {hint}", type=name) from error
        if difference(value, back) is not None:
            raise UnsupportedTypeError(
                f"Airflow's serialiser brings {name} back as {type(back).__name__} or changed; "
                "return a dict of plain values instead",
                type=name,
            )
        return form


class _Reader:
    """Turns a skeleton back into the value."""

    def __init__(
        self,
        part_decoder: Callable[[memoryview, str, int, str, int], Any],
        members: dict[str, memoryview],
        max_bytes: int = 2**62,
    ) -> None:
        self._part_decoder = part_decoder
        self._members = members
        self._max_bytes = max_bytes

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
                made = _CONTAINERS.get(tag)
                return made(self.node(content)) if made is not None else self._leaf(tag, content)
        for key, item in node.items():
            if type(item) in _NODES:
                node[key] = self.node(item)
        return node

    def _leaf(self, tag: str, content: Any) -> Any:
        if tag == "$part":
            name, codec, version, kind = content
            return self._part_decoder(self._members[name], codec, version, kind, self._max_bytes)
        if tag == "$int":
            return int(content, 16)
        if tag == "$float":
            return float(content)
        if tag == "$bytes":
            return base64.b64decode(content, validate=True)
        if tag == "$bytearray":
            return bytearray(base64.b64decode(content, validate=True))
        if tag == "$OrderedDict":
            return OrderedDict(self.node(content))
        if tag == "$Counter":
            return Counter(dict(self.node(content)))
        if tag == "$defaultdict":
            return defaultdict(_FACTORIES[content[0]] if content[0] else None, self.node(content[1]))
        if tag == "$deque":
            return deque(self.node(content[1]), content[0])
        if tag == "$enum":
            return _subclass(content[0], enum.Enum)(self.node(content[1]))
        if tag == "$namedtuple":
            return _subclass(content[0], tuple)._make(self.node(content[1]))
        if tag == "$object":
            return _built(content[0], self.node(content[1]))
        if tag == "$serde":
            return _deserialized(content)
        return scalars.from_node(tag, content)


def _dumps(skeleton: Any) -> bytes:
    import orjson

    try:
        return orjson.dumps(skeleton)
    except orjson.JSONEncodeError:
        # A lone surrogate, or nesting beyond 254.
        return json.dumps(skeleton, allow_nan=False, separators=(",", ":")).encode()


def _loads(text: Buffer) -> Any:
    import orjson

    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(bytes(text))


def _in_order(value: Any) -> Any:
    """Iterate; sets in an order that does not depend on the process's hash seed."""
    if type(value) not in (set, frozenset):
        return value
    return sorted(value, key=canonical_text)


def _built(name: str, fields: dict[str, Any]) -> Any:
    kind = find_class(name)
    try:
        return build(kind, fields)
    except Exception as error:  # noqa: BLE001 - constructors of others raise anything
        raise PayloadCorruptError(
            f"class {name} could not be made again from fields {', '.join(fields)}: {error!r}; it may have "
            "changed since the payload was written"
        ) from error


def _deserialized(form: Any) -> Any:
    try:
        return serde().deserialize(form)
    except Exception as error:  # noqa: BLE001 - serialisers of others raise anything
        raise PayloadCorruptError(f"Airflow's serialiser refuses what it once wrote: {error!r}") from error


def _subclass(name: str, base: type) -> Any:
    kind = find_class(name)
    if not issubclass(kind, base):
        raise PayloadCorruptError(f"class {name} is not a {base.__name__} any more")
    return kind


def _shown(key: Any) -> str:
    text = repr(key)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _as_attribute(path: str) -> str:
    """Turn ``['lines'][3]`` into ``.lines[3]``."""
    head, _, rest = path[2:].partition("']")
    return f".{head}{rest}" if path.startswith("['") else path


_AS_IS = frozenset({str, bool, type(None)})
_NODES = frozenset({list, dict})
_SEQUENCES: dict[type, str] = {list: "", tuple: "$tuple", set: "$set", frozenset: "$frozenset"}
_CONTAINERS: dict[str, Callable[[Any], Any]] = {
    "$tuple": tuple,
    "$set": set,
    "$frozenset": frozenset,
    "$dict": dict,
}
_HINTS = {
    "builtins.generator": "return list(...) of it",
    "builtins.memoryview": "return bytes(...) of it",
    "builtins.function": "return the function's result",
    "pathlib.PosixPath": "return str(path); the file itself stays on the worker that wrote it",
    "pathlib._local.PosixPath": "return str(path); the file itself stays on the worker that wrote it",  # 3.13
    "pandas.core.groupby.generic.DataFrameGroupBy": "return the aggregated DataFrame",
    "polars.lazyframe.frame.LazyFrame": "return .collect() of it",
}
