"""Find the codec that takes a value, and the one that reads a payload.

To add a codec: one class in a module of this package (see ``base``), one line in ``_CODECS``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import PayloadCorruptError, UnsupportedTypeError
from .base import Codec, Encoded
from .inline import Inline, from_row, survives_database, to_row
from .plain_json import JsonCodec, json_parts

if TYPE_CHECKING:
    from ..settings import Settings
    from .base import Attachments, Buffer, Change, HandleOf
    from .tagged_json import TaggedJsonCodec

__all__ = ["decode", "decode_row", "encode", "find", "names"]

# name: (package of its types, module, class). Named as text, so that a module is imported only when
# a type of that package turns up; which types exactly, the class says.
_CODECS: dict[str, tuple[str, str, str]] = {
    "bytes": ("builtins", "raw_bytes", "BytesCodec"),
    "npy": ("numpy", "numpy_arrays", "NumpyCodec"),
    "pandas-frame": ("pandas", "frames.pandas_frames", "PandasCodec"),
    "polars-frame": ("polars", "frames.polars_frames", "PolarsCodec"),
    "arrow-table": ("pyarrow", "frames.arrow_tables", "ArrowCodec"),
}
_BY_PACKAGE = {package: name for name, (package, _, _) in _CODECS.items()}

_PLAIN = frozenset({dict, list, str, int, float, bool, type(None)})


def encode(value: Any, settings: Settings, attachments: Attachments | None = None) -> Inline | Encoded:
    """Turn a value into its row, if it may stay in the database, or into a payload.

    Args:
        value: Any value.
        settings: ``threshold_bytes`` and ``frame_format`` are used.
        attachments: Takes the handles in the value; without it they are refused.

    Raises:
        UnsupportedTypeError: It can be stored neither exactly nor as Airflow's default would. The
            attribute ``path`` is the place within the value, ``""`` for the value itself.
    """
    codec = _codec_for(type(value), settings.frame_format)
    if codec is not None:
        return codec.encode(value)
    parts = json_parts(value) if type(value) in _PLAIN else None
    if parts is not None:
        return _plain(value, parts, settings)
    tagged = _tagged(settings.frame_format)
    written = tagged.write(value, attachments)
    if written.changes and b'{"$' not in written.text:
        parts = json_parts(written.node)
        if parts is not None:
            return _plain(written.node, parts, settings, written.changes)
    is_small = len(written.text) <= settings.threshold_bytes and not written.parts
    # A row that names objects must be a reference: whoever deletes the row has to delete these too.
    if is_small and not written.has_handles and survives_database(written.node):
        return Inline(to_row(written.node), written.changes)
    return tagged.pack(value, written)


def _plain(
    value: Any, parts: list[Buffer], settings: Settings, changes: tuple[Change, ...] = ()
) -> Inline | Encoded:
    if sum(len(part) for part in parts) <= settings.threshold_bytes and survives_database(value):
        return Inline(value, changes)
    return JsonCodec().encode(value, parts)._replace(changes=changes)


def decode(
    payload: memoryview,
    codec: str,
    version: int,
    type: str,
    max_bytes: int,
    handle_of: HandleOf | None = None,
) -> Any:
    """Turn a payload back into its value.

    Args:
        payload: See ``Codec.decode``, as the other arguments.
        handle_of: Makes the handles in the value; without it they are refused.

    Raises:
        PayloadCorruptError: It is not what its codec writes, or the codec or version is unknown.
        PayloadTooLargeError: It expands beyond ``max_bytes``.
        UnsupportedTypeError: The package of its type is not installed here.
    """
    found = find(codec, version)
    with _packages(type):
        if found.name == "tagged-json":
            return _tagged("parquet").decode(payload, type, version, max_bytes, handle_of)
        return found.decode(payload, type, version, max_bytes)


@contextmanager
def _packages(type: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise UnsupportedTypeError(
            f"a {type:.100} needs the package {error.name}: add it to requirements.txt of this deployment",
            type=type[:200],
        ) from error


def decode_row(row: object) -> tuple[Any] | None:
    """Return the value of a row that ``encode`` wrote in our own form; None for other rows.

    Returns:
        A tuple of the value alone, since that may be None.

    Raises:
        PayloadCorruptError: It is not what ``encode`` writes.
        UnsupportedTypeError: A class or package that it needs is not here, or not permitted.
    """
    node = from_row(row)
    if node is None:
        return None
    import orjson

    from .tagged_json import load

    try:
        copy = orjson.loads(orjson.dumps(node))
    except orjson.JSONEncodeError as error:
        raise PayloadCorruptError(f"the row is no JSON that a database holds: {error!r:.200}") from error
    with _packages("value"):
        return (load(copy),)


def find(name: str, version: int = 1) -> Codec:
    """Return the codec of a name that reads a version.

    Raises:
        PayloadCorruptError: There is none.
    """
    found = _codec(name)
    if not 1 <= version <= found.version:
        raise PayloadCorruptError(
            f"codec {name!r} here reads versions 1 to {found.version}, the payload has version {version}: "
            "it was written by a newer include/xcom, update this deployment's copy"
        )
    return found


def names() -> list[str]:
    """Return the names of all codecs, for messages and documentation."""
    return ["json", "tagged-json", *_CODECS]


def _codec_for(kind: type, frame_format: str) -> Codec | None:
    name = _BY_PACKAGE.get(kind.__module__.partition(".")[0])
    if name is None:
        return None
    codec = _codec(name, frame_format)
    return codec if f"{kind.__module__}.{kind.__qualname__}" in codec.types else None


@cache
def _codec(name: str, frame_format: str = "parquet") -> Codec:
    if name == "json":
        return JsonCodec()
    if name == "tagged-json":
        return _tagged(frame_format)
    if name not in _CODECS:
        raise PayloadCorruptError(
            f"the payload was written by codec {name!r}; known here are {', '.join(names())}"
        )
    _, module, kind = _CODECS[name]
    made = getattr(import_module(f".{module}", __package__), kind)
    codec: Codec = made(frame_format) if module.startswith("frames.") else made()
    return codec


@cache
def _tagged(frame_format: str) -> TaggedJsonCodec:
    from .tagged_json import TaggedJsonCodec  # Plain JSON, which most values are, needs none of it.

    return TaggedJsonCodec(lambda kind: _codec_for(kind, frame_format), decode)
