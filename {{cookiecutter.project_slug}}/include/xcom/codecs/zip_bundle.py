"""Several parts in one object: a zip file whose members are not compressed.

Parts are compressed by their own formats already, so the zip only frames them. Writing passes every
part through without a copy, and reading slices the downloaded buffer. Times are fixed: the same
parts give the same bytes.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping

from ..errors import PayloadCorruptError
from .base import Buffer
from .parts import PartsFile

__all__ = ["is_bundle", "pack", "unpack"]

_LOCAL_HEAD_BYTES = 30
_NAME_LENGTH_AT = 26
# The alignment of NumPy's widest type, and what `.npy` pads its own head to.
_ALIGNMENT = 64


def is_bundle(payload: memoryview) -> bool:
    """Tell whether a payload is a zip file."""
    return bytes(payload[:4]) == b"PK\x03\x04"


def pack(members: Iterable[tuple[str, list[Buffer]]]) -> list[Buffer]:
    """Return the bytes of a zip file, as parts that share the members' memory."""
    sink = PartsFile()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for name, parts in members:
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o644 << 16
            info.file_size = sum(len(part) for part in parts)
            # An extra field of a private id moves the data to an aligned offset, as zipalign does.
            head = sink.size + _LOCAL_HEAD_BYTES + len(name.encode()) + 4
            if info.file_size >= zipfile.ZIP64_LIMIT / 1.05:
                head += 20  # zipfile adds a zip64 field of its own.
            padding = -head % _ALIGNMENT
            info.extra = b"\xfa\xfe" + padding.to_bytes(2, "little") + bytes(padding)
            with archive.open(info, "w") as member:
                for part in parts:
                    member.write(part)
    return sink.parts()


def unpack(payload: memoryview) -> Mapping[str, memoryview]:
    """Return the members by name, as slices of ``payload``.

    Raises:
        PayloadCorruptError: Not a zip file of uncompressed members, or two of one name.
    """
    members: dict[str, memoryview] = {}
    try:
        with zipfile.ZipFile(_View(payload)) as archive:
            for info in archive.infolist():
                start = info.header_offset + _LOCAL_HEAD_BYTES
                lengths = payload[info.header_offset + _NAME_LENGTH_AT : start]
                start += int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
                data = payload[start : start + info.file_size]
                if info.compress_type != zipfile.ZIP_STORED or len(data) != info.file_size:
                    raise PayloadCorruptError(f"the bundle's member {info.filename!r} is cut or compressed")
                if info.filename in members:
                    raise PayloadCorruptError(f"the bundle has two members {info.filename!r}")
                members[info.filename] = data
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise PayloadCorruptError(f"the payload is not a zip file: {error}") from error
    return members


class _View(io.RawIOBase):
    """A readable, seekable stream over a memoryview, without a copy of it."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._view)}[whence]
        if base + offset < 0:
            raise OSError("seek before the start of the payload")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._view[self._at : self._at + len(buffer)]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
