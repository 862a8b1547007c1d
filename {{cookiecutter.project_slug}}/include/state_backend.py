"""The state store backend: what tasks and assets keep between tries and runs goes to the bucket.

Airflow 3.3 and later load the class below by ``AIRFLOW__WORKERS__STATE_STORE_BACKEND``. Tasks use
``task_state_store`` and ``asset_state_store`` as ever. Settings, stores and credentials are those of
the XCom backend::

    state.set(key, value)                         state.get(key)
      serialize_..._to_ref                          deserialize_..._from_ref
        small JSON      the row holds it, done        no reference    the row holds the value, done
        stores.put      one new object                stores.get      size and CRC32C checked
        StateReference  the row                       codecs.decode

Airflow sends the row only after the object is written, and that can fail. So a write deletes nothing and
overwrites nothing: the row that is there keeps its object. What rows no longer refer to is deleted by
``delete`` and ``clear``, and by the sweep.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

try:
    from airflow.sdk.state import AssetScope, BaseStoreBackend, TaskScope
except ImportError as error:
    raise ImportError(
        "include.state_backend needs Airflow 3.3 or newer, which introduced the state store. Update Airflow, "
        "or unset [workers] state_store_backend (AIRFLOW__WORKERS__STATE_STORE_BACKEND) here."
    ) from error

from .xcom import codecs
from .xcom.codecs.inline import Inline
from .xcom.errors import (
    PayloadCorruptError,
    PayloadError,
    PayloadTooLargeError,
    ReferenceNotAllowedError,
    SettingsError,
    StoreUnavailableError,
    UnsupportedTypeError,
)
from .xcom.reference import PayloadReference
from .xcom.settings import SECTION, load_settings
from .xcom.state import (
    StateKey,
    StateReference,
    as_json,
    belongs_to_folder,
    folder_of,
    looks_like_reference,
    object_name,
)
from .xcom.stores import own_store, store_of
from .xcom.threads import run_in_thread

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["GCSStateBackend"]

log = logging.getLogger(__name__)

# The codecs of JSON. A reference can be written over REST, so nothing else is decoded.
_CODECS = frozenset({"json", "tagged-json"})


class GCSStateBackend(BaseStoreBackend):
    """Stores the state of tasks and assets in a bucket; see the module's docstring.

    Values are JSON, as Airflow documents: anything else is an ``UnsupportedTypeError`` that names the
    place in the value. Errors are those of ``include.xcom.errors``, and name Dag, task and key, or asset and key.

    In an async task, Airflow 3.3 and 3.4 call the synchronous methods below from ``aget`` and ``aset``
    of an asset's state too, on the event loop: one request to the store then blocks it.
    """

    def serialize_task_state_store_to_ref(self, *, value: JsonValue, key: str, scope: TaskScope) -> str:
        """Return the row's text: the value if it is small, else a reference to a new object.

        Raises:
            PayloadError: The value is not JSON or too large, or the store did not take it.
        """
        return _store(value, StateKey(_parts_of(scope), key))

    def deserialize_task_state_store_from_ref(self, stored: str) -> JsonValue:
        """Return the value of a row.

        Raises:
            PayloadError: The object is gone, altered or out of reach, or the row is not one of this
                deployment. Never None, which would look like a key without a value.
        """
        return _load(stored)

    def serialize_asset_state_store_to_ref(self, *, value: JsonValue, key: str, scope: AssetScope) -> str:
        """Return the row's text; as ``serialize_task_state_store_to_ref``."""
        return _store(value, StateKey(_parts_of(scope), key))

    def deserialize_asset_state_store_from_ref(self, stored: str) -> JsonValue:
        """Return the value of a row; as ``deserialize_task_state_store_from_ref``."""
        return _load(stored)

    def delete(self, scope: TaskScope | AssetScope, key: str, *, session: Any = None) -> None:
        """Delete all objects of a key, whose row is gone already; never fail the task."""
        _delete(_parts_of(scope), key)

    def clear(
        self, scope: TaskScope | AssetScope, *, all_map_indices: bool = False, session: Any = None
    ) -> None:
        """Delete all objects of a task instance, of all its map indexes, or of an asset; as ``delete``."""
        parts = _parts_of(scope)
        _delete(parts[:-1] if parts[0] == "task" and all_map_indices else parts)

    async def adelete(self, scope: TaskScope | AssetScope, key: str, *, session: Any = None) -> None:
        """Delete all objects of a key, in a thread."""
        await run_in_thread(self.delete, scope, key)

    async def aclear(
        self, scope: TaskScope | AssetScope, *, all_map_indices: bool = False, session: Any = None
    ) -> None:
        """Delete all objects of a task instance or an asset, in a thread."""
        await run_in_thread(self.clear, scope, all_map_indices=all_map_indices)

    # A backend that takes the place of Airflow's tables needs the rest. Airflow calls none of it in a worker.

    def get(self, *args: Any, **options: Any) -> NoReturn:
        """Refuse: only ``deserialize_...`` is given the row, without which there is no value."""
        raise SettingsError(
            "GCSStateBackend adds to the state store in Airflow's database and does not replace it. Name it in "
            "[workers] state_store_backend (AIRFLOW__WORKERS__STATE_STORE_BACKEND), and unset [state_store] "
            "backend. Nothing was read or written."
        )

    set = get

    async def aget(self, *args: Any, **options: Any) -> NoReturn:
        """Refuse, as ``get``."""
        self.get()

    aset = aget


def _parts_of(scope: TaskScope | AssetScope) -> tuple[str, ...]:
    if isinstance(scope, TaskScope):
        # Airflow 3.4: each run of a loop has a region, in which indexes count from 0 again.
        region = getattr(scope, "region_id", None)
        name = str(region) if region is not None and region.int else "-"
        return ("task", scope.dag_id, scope.run_id, scope.task_id, name, str(scope.map_index))
    if scope.name is not None:
        return ("asset", "name", scope.name)
    return ("asset", "uri", scope.uri) if scope.uri is not None else ("asset", "id", str(scope.asset_id))


def _store(value: Any, state: StateKey) -> str:
    settings = load_settings()
    try:
        value = as_json(value)
        encoded = codecs.encode(value, replace(settings, threshold_bytes=0))
    except UnsupportedTypeError as error:
        raise error.reworded(
            f"Cannot store {state}: at value{error.path}: {error}. Nothing was uploaded. Values are JSON: str, int, "
            "float, bool, None, and lists and dicts with text as keys; write a datetime as value.isoformat()."
        ) from error
    assert not isinstance(encoded, Inline)  # No value fits into 0 bytes.
    if encoded.raw_bytes <= settings.threshold_bytes and not looks_like_reference(value):
        with suppress(ValueError):  # An int of more than 4,300 digits.
            text = json.dumps(value)
            # Airflow puts the text into JSON once more, where quotes and backslashes are escaped.
            if len(json.dumps(text)) <= settings.threshold_bytes:
                return text
    if (largest := max(encoded.size, encoded.raw_bytes)) > settings.max_payload_bytes:
        raise PayloadTooLargeError(
            f"{state} is {encoded.raw_bytes} bytes, {encoded.size} encoded; the limit is "
            f"{settings.max_payload_bytes} ([{SECTION}] max_payload_bytes). Nothing was uploaded. Write the data "
            "to a table or file and keep its name, or raise the setting.",
            size=largest,
            limit=settings.max_payload_bytes,
        )
    stored = own_store().put(object_name(settings.prefix, state, encoded.extension), encoded.parts)
    payload = PayloadReference(
        uri=stored.uri,
        type=encoded.type,
        bytes=stored.size,
        raw_bytes=encoded.raw_bytes,
        codec=encoded.codec,
        codec_version=encoded.version,
        crc32c=stored.crc32c,
        generation=stored.generation,
    )
    log.info("Stored %s: %d bytes in %s", state, stored.size, stored.uri)
    return StateReference(state, payload).to_text()


def _load(stored: str) -> JsonValue:
    try:
        value: JsonValue = json.loads(stored)
    except (ValueError, TypeError, RecursionError) as error:
        raise ReferenceNotAllowedError(
            f"A value of the state store is not JSON ({error}). It was not written by this backend, or was "
            "changed by hand. Delete the key, or set it again."
        ) from error
    reference = StateReference.from_value(value)
    if reference is None:
        return value
    state, payload = reference
    settings = load_settings()
    try:
        folder = folder_of("", *state)
        if f"/{folder}" not in payload.uri or "/" in payload.uri.rpartition(f"/{folder}")[2]:
            raise ReferenceNotAllowedError("the object is not one that this backend wrote for this key")
        if payload.codec not in _CODECS:
            raise PayloadCorruptError(f"it was written by codec {payload.codec!r:.40}, and state is JSON")
        if payload.bytes > settings.max_payload_bytes:
            raise PayloadTooLargeError(
                f"it is over the limit of {settings.max_payload_bytes} ([{SECTION}] max_payload_bytes)"
            )
        body = store_of(payload.uri).get(payload)
        limit = settings.max_payload_bytes
        found: JsonValue = codecs.decode(body, payload.codec, payload.codec_version, payload.type, limit)
    except PayloadError as error:
        raise error.reworded(
            f"Cannot read {state}: {payload.uri} (generation {payload.generation}, {payload.bytes} bytes): "
            f"{error}. Set the key again, or delete it."
        ) from error
    return found


def _delete(scope: tuple[str, ...], key: str | None = None) -> None:
    try:
        prefix = load_settings().prefix
        store = own_store()
        for page in store.list(folder_of(prefix, scope, key)):
            for one in page:
                if not belongs_to_folder(one.name, prefix):
                    continue
                try:
                    store.delete(one.uri, one.generation)
                except StoreUnavailableError as error:
                    log.warning("An object of deleted state remains until the sweep: %s", error)
    except PayloadError as error:
        log.warning("Objects of deleted state remain until the sweep: %s", error)
