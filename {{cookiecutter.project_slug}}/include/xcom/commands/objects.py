"""Payloads streamed to files, without ever being whole in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from ..errors import PayloadCorruptError
from ..stores import Checksum, Store, Stored, pieces

__all__ = ["fetch"]


def fetch(store: Store, stored: Stored, target: Path, *, is_replacing: bool = False) -> None:
    """Stream one generation of an object to a file, which appears whole or not at all.

    Raises:
        FileExistsError: The file exists, and ``is_replacing`` is off.
        PayloadMissingError: The object is gone.
        PayloadCorruptError: What arrived has another size or CRC32C.
        StoreUnavailableError: It could not be read.
    """
    if not is_replacing and target.exists():
        raise FileExistsError(target)
    temporary = target.with_name(f".{uuid4().hex}.part")
    try:
        temporary.touch(mode=0o600, exist_ok=False)
        count, crc32c = _copy(pieces(store, stored), temporary)
        if (count, crc32c) != (stored.size, stored.crc32c):
            raise PayloadCorruptError(
                f"{stored.uri}: {count} bytes with CRC32C {crc32c} arrived, and {stored.size} with "
                f"{stored.crc32c} were written; nothing was kept",
                uri=stored.uri,
            )
        if is_replacing:
            temporary.replace(target)
        else:
            # Unlike a rename, a link never replaces a file that appeared meanwhile.
            os.link(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _copy(source: Iterator[bytes], target: Path) -> tuple[int, str]:
    total, count = Checksum(), 0
    with target.open("wb") as file:
        for piece in source:
            file.write(piece)
            total.update(piece)
            count += len(piece)
        file.flush()
        os.fsync(file.fileno())
    return count, str(total)
