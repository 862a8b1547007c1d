"""Find the members of a zip file without reading them."""

from __future__ import annotations

import zipfile

from ..errors import PayloadCorruptError
from .pipe import PipedFile

__all__ = ["members"]

_HEAD_BYTES = 30
_MEMBERS = 1000


def members(file: PipedFile) -> dict[str, tuple[int, int]]:
    """Return start and size of the first members, by name.

    Raises:
        PayloadCorruptError: Not a zip file of uncompressed members.
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
                raise PayloadCorruptError("a member of the zip file is cut or compressed")
            found[info.filename] = (start, info.file_size)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise PayloadCorruptError(f"not a zip file: {error}") from error
    return found
