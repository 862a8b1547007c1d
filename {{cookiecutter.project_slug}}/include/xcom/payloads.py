"""The way of a value to its payload and back, told once for every version of Airflow."""

from __future__ import annotations

import logging
import re
import time
from collections import namedtuple
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import replace
from typing import Any, NoReturn
from urllib.parse import quote
from uuid import uuid4

from airflow.sdk.bases.xcom import BaseXCom

from . import codecs, metrics
from .codecs.inline import Inline
from .errors import (
    PayloadCorruptError,
    PayloadError,
    PayloadMissingError,
    PayloadTooLargeError,
    UnsupportedTypeError,
)
from .reference import Coordinates, PayloadReference, coordinates_of, object_name
from .settings import SECTION, load_settings
from .stores import Store, own_store, store_of

__all__ = ["load", "load_many", "purge", "rows_only", "store"]

log = logging.getLogger(__name__)

_Result = namedtuple("_Result", "value")

# `gcs://{run_id}/{task_id}/{uuid}.json`, as the blog post's GCPBucketXComBackend wrote it.
_LEGACY_PREFIX = "gcs://"
_LEGACY = re.compile(r"gcs://(?!.*(^|/)\.{0,2}/)[^\0]+/[^/\0]+/[0-9a-f-]{32,36}\.json")

# What SkipMixin pushes, and the scheduler reads in the database without a backend.
_SCHEDULER_KEYS = frozenset({"skipmixin_key"})

_rows_only: ContextVar[bool] = ContextVar("rows_only", default=False)


@contextmanager
def rows_only() -> Iterator[None]:
    """Let ``store`` and ``load`` pass rows through, in this context only.

    Airflow's own methods then fetch rows without decoding them one after the other, and no private
    message of Airflow has to be spoken here to do so.
    """
    token = _rows_only.set(True)
    try:
        yield
    finally:
        _rows_only.reset(token)


def store(value: Any, coordinates: Coordinates) -> Any:
    """Store a value and return its row: the value itself if it may stay inline, else a reference.

    One request to the store, or none. Holds the value and its encoded bytes in memory, once each.

    Raises:
        UnsupportedTypeError: The value would not come back unchanged; says where within it.
        PayloadTooLargeError: It encodes to more than ``max_payload_bytes``.
        StoreUnavailableError: The store did not take it.
        SettingsError: The deployment's settings cannot work.
    """
    if _rows_only.get():
        return value
    if coordinates.key in _SCHEDULER_KEYS:
        return BaseXCom.serialize_value(value)
    settings = load_settings()
    started = time.monotonic()
    try:
        encoded = codecs.encode(value, settings)
    except UnsupportedTypeError as error:
        _refuse(error, value, coordinates)
    if isinstance(encoded, Inline):
        return encoded.row
    largest = max(encoded.size, encoded.raw_bytes)
    if largest > settings.max_payload_bytes:
        raise PayloadTooLargeError(
            f"{coordinates} is {encoded.raw_bytes} bytes, {encoded.size} encoded ({encoded.codec}); the "
            f"limit is {settings.max_payload_bytes} ([{SECTION}] max_payload_bytes). Nothing was uploaded. "
            "Write the data to a table or file and return its name, split the task with .expand(), or raise "
            "the setting.",
            size=largest,
            limit=settings.max_payload_bytes,
        )
    name = object_name(settings.prefix, coordinates, uuid4().hex, encoded.extension)
    stored = own_store().put(name, encoded.parts)
    reference = PayloadReference(
        uri=stored.uri,
        type=encoded.type,
        bytes=stored.size,
        raw_bytes=encoded.raw_bytes,
        codec=encoded.codec,
        codec_version=encoded.version,
        crc32c=stored.crc32c,
        generation=stored.generation,
        summary=encoded.summary,
    )
    seconds = time.monotonic() - started
    metrics.record("store", stored.size, seconds)
    # Of the form that log searches take apart: no word of it has a space, and none is of the value.
    log.info(
        "Stored XCom payload dag_id=%s run_id=%s task_id=%s map_index=%d key=%s type=%s codec=%s bytes=%d "
        "raw_bytes=%d seconds=%.3f uri=%s",
        *(coordinates.dag_id, coordinates.run_id, coordinates.task_id, coordinates.map_index),
        *(quote(coordinates.key, safe="/:@+", errors="replace"), encoded.type, encoded.codec, stored.size),
        *(encoded.raw_bytes, seconds, stored.uri),
    )
    return reference.to_row()


def load(row: Any) -> Any:
    """Return the value that a row holds or refers to.

    One request to the store for a reference, none for a value.

    Raises:
        ReferenceNotAllowedError: The row is a malformed reference, or points outside of what this
            deployment may read. Nothing was read.
        PayloadMissingError: The object is gone.
        PayloadCorruptError: It is not what was written.
        PayloadTooLargeError: It is over ``max_payload_bytes``, stored or expanded.
        UnsupportedTypeError: The package of the value's type is not installed here.
        StoreUnavailableError: The store did not answer in time.
    """
    if _rows_only.get():
        return row
    reference = PayloadReference.from_row(row)
    if reference is None:
        if type(row) is str and _LEGACY.fullmatch(row) and load_settings().legacy_references:
            return _load_legacy(row)
        return BaseXCom.deserialize_value(_Result(row))
    return _follow(reference, store_of(reference.uri))


def _follow(reference: PayloadReference, payload_store: Store) -> Any:
    limit = load_settings().max_payload_bytes
    started = time.monotonic()
    try:
        if reference.bytes > limit:
            raise PayloadTooLargeError(f"is {reference.bytes} bytes; the limit is {limit}")
        payload = payload_store.get(reference)
        value = codecs.decode(payload, reference.codec, reference.codec_version, reference.type, limit)
    except (
        PayloadMissingError,
        PayloadCorruptError,
        PayloadTooLargeError,
        UnsupportedTypeError,
    ) as error:
        raise _explained(error, reference) from error
    metrics.record("load", reference.bytes, time.monotonic() - started)
    return value


def _load_legacy(row: str) -> Any:
    """Return the value of a row that the backend of 2023 wrote: a JSON object at the bucket's root."""
    root = replace(load_settings(), prefix="").root
    uri = root + row.removeprefix(_LEGACY_PREFIX)
    payload_store = own_store()
    try:
        found = payload_store.describe(uri)
    except PayloadMissingError as error:
        raise PayloadMissingError(
            f"XCom payload is gone: {uri}, which the row {row!r} of an older backend names: {error}. Clear "
            f"the task that wrote it, or switch [{SECTION}] legacy_references off if this string is data.",
            uri=uri,
        ) from error
    reference = PayloadReference(
        uri, "any", found.size, found.size, "legacy-json", 1, found.crc32c, found.generation
    )
    return _follow(reference, payload_store)


def load_many(rows: Iterable[Any]) -> list[Any]:
    """Return the values of rows in their order, reading ``concurrency`` payloads at a time.

    Raises:
        PayloadError: The first error in the order of the rows; what had not started is cancelled.
            Its attribute ``index`` is the row's place.
    """
    rows = list(rows)
    references = sum(PayloadReference.from_row(row) is not None for row in rows)
    if references < 2:
        return [load(row) for row in rows]
    # A pool for each call: none outlives it, so none can be shared across a fork.
    with ThreadPoolExecutor(min(load_settings().concurrency, references), "xcom") as pool:
        # Airflow 3.4 tells by the context whose trigger asks for a connection.
        futures = [pool.submit(copy_context().run, load, row) for row in rows]
        values = []
        try:
            for future in futures:
                values.append(future.result())
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            if isinstance(error, PayloadError):
                error.index = len(values)
            raise
    return values


def purge(row: Any) -> None:
    """Delete the payload that a row refers to, exactly that generation of it.

    An object that is gone is fine. Errors are logged and never raised: they must not fail a task
    that is about to start again, and what stays behind is removed by the bucket's lifecycle rule.
    """
    try:
        reference = PayloadReference.from_row(row)
        if reference is not None:
            store_of(reference.uri).delete(reference.uri, reference.generation)
    except PayloadError as error:
        log.warning("The payload of an XCom that Airflow deletes stays behind: %s", error)


def _refuse(error: UnsupportedTypeError, value: Any, coordinates: Coordinates) -> NoReturn:
    path = f"value{error.path}"
    kind = error.type or f"{type(value).__module__}.{type(value).__qualname__}"
    raise UnsupportedTypeError(
        f"Cannot store {coordinates}: at {path}: {error}. Nothing was uploaded. Codecs here: "
        f"{', '.join(codecs.names())}. Pickle is off on purpose.",
        path=path,
        type=kind,
    ) from error


def _explained(error: PayloadError, reference: PayloadReference) -> PayloadError:
    """Return the error of a store or codec with the words that a person needs."""
    where = coordinates_of(reference.uri)
    written = f", written as {where}" if where else ""
    explained = error.reworded(
        f"{error.title}: {reference.uri} (generation {reference.generation}, {reference.bytes} "
        f"bytes{written}): {error}. {error.advice}."
    )
    explained.uri, explained.generation = reference.uri, reference.generation
    return explained
