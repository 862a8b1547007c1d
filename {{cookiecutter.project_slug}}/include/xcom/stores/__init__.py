"""Where payloads are: a bucket of Google Cloud Storage, or a directory.

A store knows objects and bytes, not values::

    contract     what a store is                         directory    files below a directory
    bucket       small objects, and large ones by        transfers    parts and ranges over several connections
    json_api     one request of the JSON API             retries      what is tried again, and for how long
    transport    HTTP within a time limit                refusals     what the server's refusals mean
    credentials  tokens of the Airflow connection        checksums    CRC32C
"""

from __future__ import annotations

import os
from functools import cache
from threading import RLock
from urllib.parse import urlsplit

from ..errors import ReferenceNotAllowedError, shortened
from ..settings import Settings, load_settings
from .checksums import Checksum, checksum
from .contract import PAGE_OBJECTS, Buffer, Listed, Progress, Store, Stored, is_part, is_utf8, pieces
from .directory import DirectoryStore, runs_here

__all__ = [
    "PAGE_OBJECTS",
    "Buffer",
    "Checksum",
    "DirectoryStore",
    "Listed",
    "Progress",
    "Store",
    "Stored",
    "checksum",
    "forget_stores",
    "is_part",
    "open_store",
    "own_store",
    "pieces",
    "runs_here",
    "store_of",
]


def own_store() -> Store:
    """Return the store that this deployment writes to, one per process.

    Raises:
        SettingsError: The settings are incomplete or wrong.
    """
    settings = load_settings()
    return open_store(settings, settings.bucket)


def store_of(uri: str) -> Store:
    """Return the store that has a reference's object.

    Raises:
        ReferenceNotAllowedError: The URI is outside this deployment's bucket and prefix, and outside
            ``read_uris``. Nothing was asked of any store.
    """
    settings = load_settings()
    if not settings.allows(uri) or not is_utf8(uri):
        allowed = ", ".join((settings.root, *settings.read_uris))
        raise ReferenceNotAllowedError(
            f"{shortened(uri)} is outside of what this deployment may read ({allowed}). If that place is right, add "
            "it to [gcs_xcom] read_uris; otherwise find out who wrote this XCom, and clear its task. Nothing was "
            "read or deleted.",
            uri=uri,
        )
    if uri.startswith(settings.root):
        return open_store(settings, settings.bucket)
    if uri.startswith("gs://"):
        return open_store(settings, urlsplit(uri).netloc)
    root = next(root for root in settings.read_uris if uri.startswith(root.rstrip("/") + "/"))
    return open_store(settings, root.rstrip("/"))


# One thread at a time: opening a store may ask Airflow for a connection, and before 3.2 Airflow mixes up
# the answers to threads that ask at once. All of them then share the store, and so its token.
_opening = RLock()


def open_store(settings: Settings, bucket: str) -> Store:
    """Return the store of a bucket, or of a directory as ``file:///path``; one for each process."""
    with _opening:
        return _opened(settings, bucket, os.getpid())


def forget_stores() -> None:
    """Let the next call open stores anew, as tests need it."""
    _opened.cache_clear()


def _renew_lock() -> None:
    global _opening
    _opening = RLock()


if hasattr(os, "register_at_fork"):
    # A thread of the parent may hold the lock, and does not exist in the child.
    os.register_at_fork(after_in_child=_renew_lock)


# By process: sockets and pools must not be shared across a fork.
@cache
def _opened(settings: Settings, bucket: str, process: int) -> Store:
    if bucket.startswith("file://"):
        return DirectoryStore(bucket)
    from .bucket import GCSStore

    return GCSStore(bucket, settings)
