"""Read rows of earlier backends, so that running Dag runs survive the switch to this one.

With ``[gcs_xcom] legacy_references`` a string is followed if it is

- ``gcs://{run_id}/{task_id}/{uuid}.json``, as the backend of the 2023 blog post wrote it: an object at the
  root of this deployment's bucket; or
- a path of Airflow's object storage backend (``airflow.providers.common.io``) below a place that is listed
  in ``read_uris``, such as ``gs://connection@bucket/xcom/{dag_id}/{run_id}/{task_id}/{uuid}``. It may be
  compressed, which its name tells.

Any other string is data. A string of a task that looks like one of these is stored as a payload while the
setting is on, so no data is ever followed.
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from typing import Any

from .errors import (
    PayloadCorruptError,
    PayloadError,
    PayloadMissingError,
    PayloadTooLargeError,
    UnsupportedTypeError,
    shortened,
)
from .reference import explained
from .settings import SECTION, Settings, load_settings
from .stores import own_store, store_of

__all__ = ["is_legacy", "load_legacy", "place_of"]

_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_BLOG = re.compile(r"gcs://(?!.*(^|/)\.{0,2}/)[^\0]+/[^/\0]+/[0-9a-f-]{32,36}\.json")
# 3.4 writes names of its own, which end in .json; earlier versions a UUID alone.
_OBJECT_STORAGE = re.compile(rf"(?:gs|gcs|file)://[^\0]*/(?:{_UUID}|[^/\0]+\.json)(\.[a-z0-9]+)?")


def is_legacy(row: object) -> bool:
    """Tell whether a row is a string that an earlier backend wrote, and that the settings let tasks follow."""
    if type(row) is not str or "://" not in row[:8]:
        return False
    settings = load_settings()
    return settings.legacy_references and (_BLOG.fullmatch(row) is not None or _uri_of(row, settings) != "")


def load_legacy(row: str) -> Any:
    """Return the value of a row for which ``is_legacy`` is true, in two requests to the store.

    Raises:
        PayloadMissingError: The object is gone.
        PayloadCorruptError: It is not what the earlier backend wrote.
        PayloadTooLargeError: It is over ``max_payload_bytes``, stored or expanded.
        UnsupportedTypeError: It is compressed in a way, or has a class, that cannot be read here.
        StoreUnavailableError: The store did not answer in time.
    """
    settings = load_settings()
    uri = _uri_of(row, settings)
    is_blog = not uri
    if is_blog:
        uri = replace(settings, prefix="").root + row.removeprefix("gcs://")
    store = own_store() if is_blog else store_of(uri)
    try:
        stored = store.describe(uri)
    except PayloadMissingError as error:
        raise PayloadMissingError(
            f"{error.title}: clear the task that wrote it, or switch [{SECTION}] legacy_references off if this "
            f"string is data. {shortened(uri)}, which a row of an earlier backend names: {error}",
            uri=uri,
        ) from error.__cause__
    limit = settings.max_payload_bytes
    try:
        if stored.size > limit:
            raise PayloadTooLargeError(f"it is {stored.size} bytes and the limit is {limit}")
        data = bytes(store.get(stored))
        if is_blog:
            return _parsed(data)
        from airflow.utils.json import XComDecoder

        return _parsed(_expanded(data, row, limit), XComDecoder)
    except PayloadError as error:
        raise explained(error, uri, stored.generation, stored.size) from error.__cause__


def place_of(path: str) -> str:
    """Return a path of Airflow's object storage as it is written in ``read_uris``: without a connection.

    >>> place_of("gcs://google_cloud_default@acme/xcom")
    'gs://acme/xcom/'
    """
    scheme, _, rest = path.partition("://")
    head, slash, tail = rest.partition("/")
    return f"{'gs' if scheme == 'gcs' else scheme}://{head.rpartition('@')[2]}{slash}{tail.rstrip('/')}/"


def _uri_of(row: str, settings: Settings) -> str:
    """Return the URI of a path that may be followed, else nothing."""
    if not _OBJECT_STORAGE.fullmatch(row):
        return ""
    uri = place_of(row).rstrip("/")
    return uri if settings.allows(uri) else ""


def _parsed(data: bytes, decoder: type[json.JSONDecoder] | None = None) -> Any:
    try:
        return json.loads(data, cls=decoder)
    except ImportError as error:  # A class that is not permitted or not there.
        raise UnsupportedTypeError(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise PayloadCorruptError(f"it is not JSON: {error}") from error


def _expanded(data: bytes, row: str, limit: int) -> bytes:
    """Return the bytes of a file, which is compressed if its name in a row says so."""
    name = _OBJECT_STORAGE.fullmatch(row)
    suffix = (name[1] if name else None) or ".json"
    if suffix == ".json":
        return data
    # Imported here, because hardly any task comes this way.
    from fsspec.compression import compr  # type: ignore[import-untyped]
    from fsspec.utils import compressions  # type: ignore[import-untyped]

    kind = compressions.get(suffix[1:])
    if kind is None or kind not in compr:
        known = ", ".join(f".{ending}" for ending, one in compressions.items() if one in compr)
        raise UnsupportedTypeError(f"it is compressed as {suffix}, and only {known} can be read")
    try:
        with compr[kind](io.BytesIO(data), mode="rb") as file:
            expanded: bytes = file.read(limit + 1)
    except Exception as error:  # Each library has errors of its own.
        raise PayloadCorruptError(f"it cannot be expanded: {error}") from error
    if len(expanded) > limit:
        raise PayloadTooLargeError(f"it expands to more than {limit} bytes")
    return expanded
