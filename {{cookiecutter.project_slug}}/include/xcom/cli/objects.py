"""Objects of a store: listed in the order of their names, and streamed to files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode
from uuid import uuid4

from include.xcom.errors import PayloadCorruptError, StoreUnavailableError
from include.xcom.stores import Checksum, DirectoryStore, Store, Stored
from include.xcom.transport import Transient

if TYPE_CHECKING:
    from include.xcom.gcs import GCSStore

__all__ = ["Listed", "fetch", "pages"]

_CHUNK_BYTES = 1024 * 1024
_FETCH_SECONDS = 3600.0
PAGE_OBJECTS = 1000
"""The most that GCS gives at once."""


@dataclass(frozen=True)
class Listed:
    """What a store says of one object when it lists many.

    Attributes:
        name: Within the bucket or directory.
        created: Seconds since 1970; a directory gives the time of the last change.
    """

    uri: str
    name: str
    generation: str
    size: int
    created: float


def pages(store: Store, prefix: str, start: str = "") -> Iterator[list[Listed]]:
    """Yield all objects whose names begin with ``prefix``, in the order of their names, a page at a time.

    Args:
        store: Holds one page in memory; a directory, also the names of the folders on the way.
        prefix: ``""``, or a folder with a slash at its end.
        start: The first name to give, should it exist.

    Raises:
        StoreUnavailableError: The store did not allow it or did not answer.
    """
    if isinstance(store, DirectoryStore):
        yield from _directory_pages(store, prefix, start)
    else:
        yield from _gcs_pages(cast("GCSStore", store), prefix, start)


def _gcs_pages(store: GCSStore, prefix: str, start: str) -> Iterator[list[Listed]]:
    bucket = store._bucket
    query = {"prefix": prefix, "maxResults": str(PAGE_OBJECTS)}
    query["fields"] = "nextPageToken,items(name,size,generation,timeCreated)"
    if start:
        query["startOffset"] = start
    uri = f"gs://{bucket}/{prefix}"

    def once() -> dict[str, Any]:
        response = store._request("GET", f"{store._endpoint}/storage/v1/b/{bucket}/o?{urlencode(query)}", {})
        # A bucket that does not exist is no missing payload: "create" gives the words for it.
        store._check(response, uri, "create" if response.status == 404 else "list")
        try:
            return dict(json.loads(response.data))
        except (ValueError, TypeError):
            raise Transient("the server's answer is no list of objects") from None

    while True:
        answer = store._retrying(once, uri, "list", store._timeout_seconds)
        listed = [
            Listed(
                f"gs://{bucket}/{item['name']}",
                item["name"],
                str(item["generation"]),
                int(item["size"]),
                _seconds(item["timeCreated"]),
            )
            for item in answer.get("items", [])
        ]
        # fake-gcs-server knows no startOffset on some pages; for GCS these conditions change nothing.
        yield [one for one in listed if one.name >= start and one.name.startswith(prefix)]
        if not answer.get("nextPageToken"):
            return
        query["pageToken"] = answer["nextPageToken"]


def _directory_pages(store: DirectoryStore, prefix: str, start: str) -> Iterator[list[Listed]]:
    page = []
    for name, status in _files(store._path, prefix, start):
        page.append(Listed(f"{store._root}/{name}", name, "0", status.st_size, status.st_mtime))
        if len(page) == PAGE_OBJECTS:
            yield page
            page = []
    yield page


def _files(root: Path, folder: str, start: str) -> Iterator[tuple[str, os.stat_result]]:
    """Walk in the order of the whole names, as a bucket lists; links are neither followed nor given."""
    try:
        with os.scandir(root / folder) as entries:
            found = sorted(
                f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name
                for entry in entries
                if not entry.is_symlink()
            )
    except FileNotFoundError:
        return  # Nothing was stored there yet, or its last file was deleted meanwhile.
    except OSError as error:
        raise StoreUnavailableError(f"{root / folder} could not be listed: {error}") from error
    for entry_name in found:
        name = f"{folder}{entry_name}"
        if entry_name.endswith("/"):
            if name >= start or start.startswith(name):
                yield from _files(root, name, start)
        elif name >= start:
            try:
                yield name, (root / name).lstat()
            except FileNotFoundError:
                continue


def _seconds(text: str) -> float:
    # RFC 3339; Python 3.10 reads neither "Z" nor fractions of nanoseconds.
    whole, zone = text[:19], text[-6:]
    has_offset = zone[0] in "+-" and zone[3] == ":"
    return datetime.fromisoformat(whole + (zone if has_offset else "+00:00")).timestamp()


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
