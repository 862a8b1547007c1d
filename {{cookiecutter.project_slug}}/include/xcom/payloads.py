"""Store and load XCom values. Shared by the hooks of every Airflow version."""

from __future__ import annotations

import logging
import time
from collections import namedtuple
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk.bases.xcom import BaseXCom

from . import codecs, metrics
from .codecs.base import HANDLE_KINDS, Change, Encoded, type_name
from .codecs.inline import Inline
from .errors import (
    PayloadCorruptError,
    PayloadError,
    PayloadMissingError,
    PayloadTooLargeError,
    UnsupportedTypeError,
    shortened,
)
from .handles.uploads import Uploads, is_handle
from .legacy import is_legacy, load_legacy
from .reference import Coordinates, PayloadReference, cause_and_remedy, explained
from .settings import SECTION, Settings, load_settings
from .stores import Store, Stored, store_of

if TYPE_CHECKING:
    from .handles.base import Handle

__all__ = ["load", "load_many", "purge", "rows_only", "store"]

log = logging.getLogger(__name__)

_Result = namedtuple("_Result", "value")

# What SkipMixin pushes, and the scheduler reads in the database without a backend.
_SCHEDULER_KEYS = frozenset({"skipmixin_key"})

_rows_only: ContextVar[bool] = ContextVar("rows_only", default=False)


@contextmanager
def rows_only() -> Iterator[None]:
    """Let ``store`` and ``load`` pass rows through, in this context only.

    Airflow's own methods then fetch rows without decoding them one after the other, so that nothing
    here depends on Airflow's private messages.
    """
    token = _rows_only.set(True)
    try:
        yield
    finally:
        _rows_only.reset(token)


def store(value: Any, coordinates: Coordinates) -> Any:
    """Store a value and return its row: the value itself if it may stay inline, else a reference.

    One request to the store, or none. Holds the value and its encoded bytes in memory, once each; those
    of handles in it are streamed.

    Raises:
        UnsupportedTypeError: The value can be stored neither exactly nor as Airflow's default would;
            says where within it. Or it cannot be stored exactly and ``inexact`` is ``refuse``.
        PayloadTooLargeError: It encodes to more than ``max_payload_bytes``.
        StoreUnavailableError: The store did not take it.
        SettingsError: The deployment's settings cannot work.
    """
    if _rows_only.get():
        return value
    if coordinates.key in _SCHEDULER_KEYS:
        return BaseXCom.serialize_value(value)
    with _errors_unfolded():
        started = time.monotonic()
        settings = load_settings()
        if is_legacy(value):
            settings = replace(settings, threshold_bytes=0)  # Inline, it would be followed.
        uploads = Uploads(coordinates, settings)
        try:
            stored = _store_handle(value, uploads) if is_handle(value) else _store_value(value, uploads)
        except BaseException:
            uploads.discard()
            raise
        if isinstance(stored, Inline):
            return stored.row
        seconds = time.monotonic() - started
        metrics.record("store", stored.bytes, seconds)
        # Of the form that log searches take apart: no word of it has a space, and none is of the value.
        log.info(
            "Stored XCom payload dag_id=%s run_id=%s task_id=%s map_index=%d key=%s type=%s codec=%s "
            "bytes=%d raw_bytes=%d seconds=%.3f uri=%s",
            *coordinates[:4],
            quote(coordinates.key, safe="/:@+", errors="replace"),
            *(stored.type, stored.codec, stored.bytes, stored.raw_bytes, seconds, stored.uri),
        )
        return stored._replace(summary={**stored.summary, "seconds": round(seconds, 3)}).to_row()


def _store_value(value: Any, uploads: Uploads) -> Inline | PayloadReference:
    settings, coordinates = uploads.settings, uploads.coordinates
    try:
        encoded = codecs.encode(value, settings, uploads)
        changes = (*encoded.changes, *uploads.changes)
        _refuse_changes(changes, settings)
    except UnsupportedTypeError as error:
        raise _refused(error, value, coordinates) from error.__cause__
    except Exception as error:  # Values run code of others: properties, serialisers, comparisons.
        if error is uploads.error:
            raise  # Of the store, or of an iterator that a handle was made of.
        text = f"{type(error).__name__} while it was encoded: {error!s:.200}"
        raise _refused(UnsupportedTypeError(text), value, coordinates) from error
    _warn_of_changes(changes, coordinates)
    if isinstance(encoded, Inline):
        return encoded
    largest = max(encoded.size, encoded.raw_bytes)
    if largest > settings.max_payload_bytes:
        raise PayloadTooLargeError(
            f"{largest} bytes are more than [{SECTION}] max_payload_bytes, {settings.max_payload_bytes}: "
            "return it as a Table, File, or Items of include.xcom, split the task with .expand(), or "
            f"raise the setting. Nothing was uploaded. {coordinates}, {encoded.raw_bytes} bytes, "
            f"{encoded.size} encoded ({encoded.codec}).",
            size=largest,
            limit=settings.max_payload_bytes,
        )
    try:
        stored = uploads.put(encoded.parts, encoded.extension)
    except PayloadError as error:
        raise error.reworded(f"{error} {coordinates}.") from error.__cause__
    return _reference(stored, encoded, changes, uploads.attachments)


def _store_handle(handle: Handle, uploads: Uploads) -> PayloadReference:
    try:
        stored, summary = uploads.store(handle)
        _refuse_changes(uploads.changes, uploads.settings)
    except UnsupportedTypeError as error:
        raise _refused(error, handle, uploads.coordinates) from error.__cause__
    except PayloadError as error:
        raise error.reworded(f"{error} {uploads.coordinates}.") from error.__cause__
    _warn_of_changes(uploads.changes, uploads.coordinates)
    kind = type(handle)
    encoded = Encoded(kind.kind, kind.version, "", kind.__name__, [], stored.size, summary)
    return _reference(stored, encoded, uploads.changes, uploads.attachments)


def _reference(
    stored: Stored, encoded: Encoded, changes: Sequence[Change], attachments: int
) -> PayloadReference:
    facts = {"inexact": sum(change.places for change in changes), "attachments": attachments}
    return PayloadReference(
        uri=stored.uri,
        type=encoded.type,
        bytes=stored.size,
        raw_bytes=encoded.raw_bytes,
        codec=encoded.codec,
        codec_version=encoded.version,
        crc32c=stored.crc32c,
        generation=stored.generation,
        summary={**encoded.summary, **{name: number for name, number in facts.items() if number}},
    )


def _refuse_changes(changes: Sequence[Change], settings: Settings) -> None:
    if changes and settings.inexact == "refuse":
        first = changes[0]
        raise UnsupportedTypeError(
            f"it would come back as {first.after}; return that, or set [{SECTION}] inexact = warn",
            path=first.path,
            type=first.before,
        )


def _warn_of_changes(changes: Sequence[Change], coordinates: Coordinates) -> None:
    if changes:
        log.warning(
            "%s comes back inexact: %s. Airflow's default backend changes these parts too. Return plain "
            "types to avoid this; [%s] inexact = refuse makes it an error.",
            coordinates,
            "; ".join(map(_described, changes)),
            SECTION,
        )


def load(row: Any) -> Any:
    """Return the value that a row holds or refers to.

    One request to the store for a reference, none for a value.

    Raises:
        ReferenceNotAllowedError: The row is a malformed reference, or points outside of what this
            deployment may read. Nothing was read.
        PayloadMissingError: The object is gone.
        PayloadCorruptError: It is not what was written.
        PayloadTooLargeError: It is over ``max_payload_bytes``, stored or expanded.
        UnsupportedTypeError: A package or class that the value needs is not here, or not permitted.
        StoreUnavailableError: The store did not answer in time.
    """
    if _rows_only.get():
        return row
    with _errors_unfolded():
        reference = PayloadReference.from_row(row)
        if reference is not None and reference.codec in HANDLE_KINDS:
            return _handle(reference)
        if reference is not None:
            return _follow(reference, store_of(reference.uri))
        if is_legacy(row):
            return load_legacy(row)
        try:
            value = codecs.decode_row(row)
        except PayloadError as error:
            raise error.reworded(f"{cause_and_remedy(error)}. It is in the row itself.") from error.__cause__
        return BaseXCom.deserialize_value(_Result(row)) if value is None else value[0]


def _handle(reference: PayloadReference) -> Handle:
    from .handles.base import Content, handle_of

    content = Content(Stored.of(reference), reference.facts)
    try:
        return handle_of(reference.codec, reference.codec_version, content)
    except PayloadCorruptError as error:
        raise _explained(error, reference) from error.__cause__


def _follow(reference: PayloadReference, payload_store: Store) -> Any:
    limit = load_settings().max_payload_bytes
    started = time.monotonic()
    try:
        # Also what it expands to, which polars does not tell of compressed text before it is decoded.
        largest = max(reference.bytes, reference.raw_bytes)
        if largest > limit:
            raise PayloadTooLargeError(
                f"it is {reference.bytes} bytes, expands to {reference.raw_bytes}, and the limit is {limit}",
                size=largest,
                limit=limit,
            )
        payload = payload_store.get(reference)
        value = codecs.decode(
            payload, reference.codec, reference.codec_version, reference.type, limit, _handle_of_node
        )
    except (
        PayloadMissingError,
        PayloadCorruptError,
        PayloadTooLargeError,
        UnsupportedTypeError,
    ) as error:
        raise _explained(error, reference) from error.__cause__
    metrics.record("load", reference.bytes, time.monotonic() - started)
    return value


def _handle_of_node(tag: str, node: object) -> Handle:
    from .handles.base import handle_of_node

    return handle_of_node(tag, node)


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
                values.append(future.result())  # noqa: PERF401 - an error asks how many there are
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            if isinstance(error, PayloadError):
                error.index = len(values)
            raise
    return values


def purge(row: Any) -> None:
    """Delete the payload that a row refers to, exactly that generation of it.

    An object that is gone is fine. Errors are logged and never raised: they must not fail a task
    that is about to start again, and the bucket's lifecycle rule removes what is left.
    """
    try:
        reference = PayloadReference.from_row(row)
        if reference is not None:
            store = store_of(reference.uri)
            store.delete(reference.uri, reference.generation)
            if "attachments" in reference.summary:
                _delete_attachments(reference.uri, store)
    except PayloadError as error:
        log.warning("Could not delete the payload of an XCom that Airflow deletes: %s", error)


def _delete_attachments(uri: str, store: Store) -> None:
    """Delete what is named as the payload is, with a number before the extension."""
    settings = load_settings()
    if not uri.startswith(settings.root):
        return  # Of another deployment, which deletes its own.
    folder, _, name = uri.removeprefix(settings.root).rpartition("/")
    unique = name.partition(".")[0]
    folder = f"{settings.prefix}/{folder}/" if settings.prefix else f"{folder}/"
    for page in store.list(folder, start=f"{folder}{unique}."):
        for listed in page:
            if not listed.name.startswith(f"{folder}{unique}."):
                return
            store.delete(listed.uri, listed.generation)


@contextmanager
def _errors_unfolded() -> Iterator[None]:
    """Show errors outside of the folded group of the task log that Airflow has open at this point."""
    try:
        yield
    except PayloadError:
        log.info("::endgroup::")
        raise


def _refused(error: UnsupportedTypeError, value: Any, coordinates: Coordinates) -> UnsupportedTypeError:
    path, kind = f"value{error.path}", error.type or type_name(type(value))
    place = f" at {shortened(path)}" if error.path else ""
    return UnsupportedTypeError(
        f"Cannot store {shortened(kind.removeprefix('builtins.'))}{place}: {error}. Nothing was uploaded. "
        f"{coordinates}.",
        path=path,
        type=kind,
    )


def _described(change: Change) -> str:
    more = f" and {change.places - 1} more" if change.places > 1 else ""
    return f"value{shortened(change.path)}{more}: {change.before} as {change.after}"


def _explained(error: PayloadError, reference: PayloadReference) -> PayloadError:
    return explained(error, reference.uri, reference.generation, reference.bytes)
