"""Bundles: the parts of a zip file, and what the codec of one part says of it."""

from __future__ import annotations

import zipfile
from typing import Any

from include.xcom import codecs
from include.xcom.errors import PayloadCorruptError
from include.xcom.viewer.pipe import PipedFile, Window

__all__ = ["describe", "members"]

_HEAD_BYTES = 30  # of a zip file's member
_MEMBERS = 1000
# What the files of the codecs are called; all codecs of frames describe them the same way.
_CODECS = {"parquet": "pyarrow", "arrow": "pyarrow", "npy": "numpy", "json": "json"}


def describe(file: PipedFile, asked: dict[str, Any]) -> dict[str, Any]:
    """Describe one part, the skeleton if none is named, and list all; ``span`` is the part's start and size.

    Raises:
        PayloadCorruptError: It is no bundle, or there is no such part.
    """
    parts = members(file)
    chosen = asked.get("part") or "value.json"
    if chosen not in parts:
        raise PayloadCorruptError(f"it has no part of that name; there are {', '.join(list(parts)[:20])}")
    codec = codecs.find(_CODECS.get(chosen.partition(".")[2], "bytes"))
    return {
        **codec.summarize(Window(file, *parts[chosen]), asked),
        "part": chosen,
        "span": list(parts[chosen]),
        "parts": [{"name": name, "bytes": size} for name, (_, size) in parts.items()],
    }


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
