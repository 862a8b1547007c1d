"""Bundles: the parts of a zip file, and what the codec of one part says of it."""

from __future__ import annotations

import zipfile
from typing import Any, NamedTuple

from ..errors import PayloadCorruptError
from .pipe import PipedFile, Window

__all__ = ["Part", "codec_of", "members", "open_part"]

_HEAD_BYTES = 30  # of a zip file's member
_MEMBERS = 1000
# Codec that describes a part, by the extension of its name.
_CODECS = {"parquet": "arrow-table", "arrow": "arrow-table", "npy": "npy", "json": "json"}


class Part(NamedTuple):
    """One part of a bundle, to be described on its own.

    Attributes:
        name: Of the part.
        window: Its bytes.
        facts: ``part``, ``span`` (its start and size), and ``parts``, all of them by name and size.
    """

    name: str
    window: Window
    facts: dict[str, Any]


def open_part(file: PipedFile, name: str | None) -> Part:
    """Find one part, the skeleton if none is named.

    Raises:
        PayloadCorruptError: It is no bundle, or there is no such part.
    """
    parts = members(file)
    name = name or "value.json"
    if name not in parts:
        raise PayloadCorruptError(f"it has no part of that name; there are {', '.join(list(parts)[:20])}")
    facts = {
        "part": name,
        "span": list(parts[name]),
        "parts": [{"name": part, "bytes": size} for part, (_, size) in parts.items()],
    }
    return Part(name, Window(file, *parts[name]), facts)


def codec_of(name: str) -> str:
    """Return the codec of a part, by its extension."""
    return _CODECS.get(name.partition(".")[2], "bytes")


def members(file: PipedFile) -> dict[str, tuple[int, int]]:
    """Return where the members of a bundle lie: start and size, by name.

    Raises:
        PayloadCorruptError: It is no zip file of uncompressed members.
    """
    found: dict[str, tuple[int, int]] = {}
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()[:_MEMBERS]
        file.fetch([(info.header_offset, info.header_offset + _HEAD_BYTES) for info in infos])
        for info in infos:
            lengths = file.range(info.header_offset + 26, info.header_offset + _HEAD_BYTES)
            start = info.header_offset + _HEAD_BYTES
            start += int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
            is_inside = start >= 0 and start + info.file_size <= file.size
            if info.compress_type != zipfile.ZIP_STORED or not is_inside:
                raise PayloadCorruptError("a member of the bundle is cut or compressed")
            found[info.filename] = (start, info.file_size)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise PayloadCorruptError(f"it is not a zip file: {error}") from error
    return found
