"""Payloads streamed to files, without ever being whole in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast
from uuid import uuid4

from include.xcom.errors import PayloadCorruptError
from include.xcom.stores import Checksum, DirectoryStore, Store, Stored
from include.xcom.transport import Transient

if TYPE_CHECKING:
    from include.xcom.gcs import GCSStore

__all__ = ["fetch"]

_CHUNK_BYTES = 1024 * 1024
_FETCH_SECONDS = 3600.0


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
        count, crc32c = _download(store, stored, temporary)
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


def _download(store: Store, stored: Stored, target: Path) -> tuple[int, str]:
    if isinstance(store, DirectoryStore):
        with store._open(stored.uri) as source:
            return _copy(iter(lambda: source.read(_CHUNK_BYTES), b""), target)
    bucket = cast("GCSStore", store)
    url = f"{bucket._object_url(bucket._name(stored.uri), '/download')}?alt=media&generation={stored.generation}"

    def once() -> tuple[int, str]:
        import urllib3

        response = bucket._request("GET", url, {}, is_streamed=True)
        try:
            if response.status != 200:
                bucket._check(response, stored.uri, "get")
            found = _copy(response.stream(_CHUNK_BYTES), target)
        except urllib3.exceptions.HTTPError as error:
            raise Transient(f"the answer broke off ({error})") from error
        finally:
            response.close()
        if found[0] < stored.size:
            raise Transient(f"the answer ended after {found[0]} of {stored.size} bytes")
        return found

    return bucket._retrying(once, stored.uri, "fetch", _FETCH_SECONDS)


def _copy(pieces: Iterator[bytes], target: Path) -> tuple[int, str]:
    total, count = Checksum(), 0
    with target.open("wb") as file:
        for piece in pieces:
            file.write(piece)
            total.update(piece)
            count += len(piece)
        file.flush()
        os.fsync(file.fileno())
    return count, str(total)
