"""Which codec takes a value, and which one reads a payload.

To add a codec: one class in a module of this package (see ``base``), one line in ``_CODECS``.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import PayloadCorruptError, UnsupportedTypeError
from .base import Codec, Encoded
from .inline import Inline, airflow_row, survives_database
from .plain_json import JsonCodec, LegacyJsonCodec, json_parts

if TYPE_CHECKING:
    from ..settings import Settings
    from .tagged_json import TreeCodec

__all__ = ["decode", "encode", "find", "names"]

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

_PLAIN_CODECS: dict[str, Codec] = {"json": JsonCodec(), "legacy-json": LegacyJsonCodec()}
_PLAIN = frozenset({dict, list, str, int, float, bool, type(None)})


def encode(value: Any, settings: Settings) -> Inline | Encoded:
    """Turn a value into its row, if it may stay in the database, or into a payload.

    Raises:
        UnsupportedTypeError: It would not come back unchanged. The attribute ``path`` is the place
            within the value, ``""`` for the value itself.
    """
    codec = _codec_for(type(value), settings.frame_format)
    if codec is not None:
        return codec.encode(value)
    parts = json_parts(value) if type(value) in _PLAIN else None
    if parts is not None:
        if sum(len(part) for part in parts) <= settings.threshold_bytes and survives_database(value):
            return Inline(value)
        return JsonCodec().encode_parts(value, parts)
    encoded = _tree(settings.frame_format).encode(value)
    if encoded.extension == "json.zst" and encoded.raw_bytes <= settings.threshold_bytes:
        row = airflow_row(value, settings.threshold_bytes)
        if row is not None:
            return row
    return encoded


def decode(payload: memoryview, codec: str, version: int, type: str, max_bytes: int) -> Any:
    """Turn a payload back into its value.

    Raises:
        PayloadCorruptError: It is not what its codec writes, or the codec or version is unknown.
        PayloadTooLargeError: It expands beyond ``max_bytes``.
        UnsupportedTypeError: The package of its type is not installed here.
    """
    found = find(codec, version)
    try:
        return found.decode(payload, type, version, max_bytes)
    except ModuleNotFoundError as error:
        raise UnsupportedTypeError(
            f"a {type} needs the package {error.name}, which is not installed here", type=type
        ) from error


def find(name: str, version: int = 1) -> Codec:
    """Return the codec of a name that reads a version.

    Raises:
        PayloadCorruptError: There is none.
    """
    found = _tree("parquet") if name == "tagged-json" else _PLAIN_CODECS.get(name) or _codec(name)
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
    if name not in _CODECS:
        raise PayloadCorruptError(
            f"the payload was written by codec {name!r}; known here are {', '.join(names())}"
        )
    _, module, kind = _CODECS[name]
    made = getattr(import_module(f".{module}", __package__), kind)
    codec: Codec = made(frame_format) if module.startswith("frames.") else made()
    return codec


@cache
def _tree(frame_format: str) -> TreeCodec:
    from .tagged_json import TreeCodec  # Plain JSON, which most values are, needs none of it.

    return TreeCodec(lambda kind: _codec_for(kind, frame_format), decode)
