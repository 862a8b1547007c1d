"""Find the members of a zip file without reading them."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable

from ..errors import PayloadCorruptError
from .pipe import PipedFile

__all__ = ["entries", "locate", "members"]

_HEAD_BYTES = 30
_MEMBERS = 1000


def members(file: PipedFile) -> dict[str, tuple[int, int]]:
    """Return start and size of the first members, by name.

    Raises:
        PayloadCorruptError: Not a zip file of uncompressed members.
    """
    found = entries(file)
    return dict(zip(found, locate(file, found.values()), strict=True))


def entries(file: PipedFile) -> dict[str, zipfile.ZipInfo]:
    """Return the first members by name; reads the directory at the end of the file alone.

    Raises:
        PayloadCorruptError: Not a zip file.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return {info.filename: info for info in archive.infolist()[:_MEMBERS]}
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise PayloadCorruptError(f"not a zip file: {error}") from error


def locate(file: PipedFile, infos: Iterable[zipfile.ZipInfo]) -> list[tuple[int, int]]:
    """Return start and size of members.

    Raises:
        PayloadCorruptError: A member is compressed, or not where the directory says.
    """
    infos = list(infos)
    file.fetch([(info.header_offset, info.header_offset + _HEAD_BYTES) for info in infos])
    found = []
    for info in infos:
        lengths = file.range(info.header_offset + 26, info.header_offset + _HEAD_BYTES)
        start = info.header_offset + _HEAD_BYTES
        start += int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
        is_inside = start >= 0 and start + info.file_size <= file.size
        if info.compress_type != zipfile.ZIP_STORED or not is_inside:
            raise PayloadCorruptError("a member of the zip file is cut or compressed")
        found.append((start, info.file_size))
    return found
