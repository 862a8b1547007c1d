"""Payloads as objects of Google Cloud Storage, over its JSON API.

Five calls over ``urllib3``, which Airflow's tasks have loaded already: every task is a process of
its own, so what a client library costs to import is paid by every task (0.6 s for
google-cloud-storage, 1.9 s for GCSHook, 0.1 s here; docs/decisions.md).
"""

from __future__ import annotations

import base64
import json
import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from include.xcom.codecs.base import Buffer
from include.xcom.errors import (
    PayloadCorruptError,
    PayloadExistsError,
    PayloadMissingError,
    StoreUnavailableError,
)
from include.xcom.stores import Checksum, Stored, checksum

if TYPE_CHECKING:
    from include.xcom.reference import PayloadReference
    from include.xcom.settings import Settings

__all__ = ["GCSStore"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_SEND_BYTES = 1024 * 1024
_RECEIVE_BYTES = 256 * 1024
# https://cloud.google.com/storage/docs/retry-strategy: what a client should try again.
_TRANSIENT_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
_FIRST_WAIT_SECONDS = 0.25
_LONGEST_WAIT_SECONDS = 20.0
_CONNECT_SECONDS = 10.0
# Deleting is housekeeping: it must not hold a task for as long as a payload may.
_DELETE_SECONDS = 15.0


class GCSStore:
    """One bucket.

    Thread-safe; not to be used after a fork (``stores`` keeps one for each process).

    Args:
        bucket: Its name.
        settings: ``conn_id``, ``concurrency`` and ``timeout_seconds`` are used.
    """

    def __init__(self, bucket: str, settings: Settings) -> None:
        import urllib3

        self._bucket = bucket
        self._timeout_seconds = settings.timeout_seconds
        emulator = os.environ.get("STORAGE_EMULATOR_HOST", "").rstrip("/")
        pool = urllib3.PoolManager(maxsize=settings.concurrency, retries=False)
        if emulator:
            # The same variable as Google's client libraries read, and like them: no credentials.
            self._endpoint = emulator if "://" in emulator else f"http://{emulator}"
            self._http: Any = pool
        else:
            from include.xcom.credentials import authorized

            self._endpoint = "https://storage.googleapis.com"
            self._http = authorized(pool, settings.conn_id)

    def put(self, name: str, parts: list[Buffer]) -> Stored:
        """Write one object that must not exist yet, in a single request.

        ``ifGenerationMatch=0`` makes the server refuse to overwrite. When a try that was repeated is
        refused so, the first one may have arrived after all: its object is compared, and is ours if
        size and CRC32C are.
        """
        uri = f"gs://{self._bucket}/{name}"
        size = sum(len(part) for part in parts)
        crc32c = checksum(parts)
        query = f"uploadType=media&name={quote(name, safe='')}&ifGenerationMatch=0"
        url = f"{self._endpoint}/upload/storage/v1/b/{self._bucket}/o?{query}"
        headers = {
            "content-type": "application/octet-stream",
            "content-length": str(size),
            "x-goog-hash": f"crc32c={_as_base64(crc32c)}",
        }
        tries = 0

        def once(deadline: float) -> Stored:
            nonlocal tries
            tries += 1
            response = self._request("POST", url, deadline, headers, _Body(parts, deadline))
            if response.status == 412:
                found = self._describe(name, deadline) if tries > 1 else None
                if not found or (int(found["size"]), found["crc32c"]) != (size, _as_base64(crc32c)):
                    raise PayloadExistsError(
                        f"{uri} exists already and was not overwritten. Names are unique for each try: "
                        "this is a replayed request or a defect.",
                        uri=uri,
                    )
            else:
                self._check(response, uri, "create")
                found = _parse(response.data)
            if (int(found["size"]), found["crc32c"]) != (size, _as_base64(crc32c)):
                # Damaged on its way: nobody has a reference to it, so it can go.
                self._delete(name, str(found["generation"]), deadline)
                raise _Transient("the server received other bytes than were sent")
            return Stored(uri, str(found["generation"]), size, crc32c)

        return self._retrying(once, uri, "store", self._timeout_seconds)

    def get(self, reference: PayloadReference) -> memoryview:
        """Read one generation of an object into one buffer, in a single request."""
        uri = reference.uri
        url = self._object_url(self._name(uri), "/download")
        url += f"?alt=media&generation={reference.generation}"

        def once(deadline: float) -> memoryview:
            response = self._request("GET", url, deadline, {}, preload_content=False)
            try:
                if response.status != 200:
                    response.read()
                    self._check(response, uri, "get")
                length = response.headers.get("content-length")
                if length is not None and int(length) != reference.bytes:
                    raise PayloadCorruptError(
                        f"is {length} bytes long, and {reference.bytes} were written", uri=uri
                    )
                buffer, crc32c = _receive(response, reference.bytes, deadline)
            finally:
                # A connection whose body was not read to its end cannot serve another request.
                response.close() if response.length_remaining else response.release_conn()
            if crc32c != reference.crc32c:
                if _server_crc32c(response.headers) == _as_base64(reference.crc32c):
                    raise _Transient("other bytes arrived than the server sent")
                raise PayloadCorruptError("has another CRC32C than what was written", uri=uri)
            return buffer

        return self._retrying(once, uri, "read", self._timeout_seconds)

    def describe(self, uri: str) -> Stored:
        """Ask for an object's metadata, in a single request."""
        name = self._name(uri)

        def once(deadline: float) -> Stored:
            found = self._describe(name, deadline)
            if found is None:
                raise PayloadMissingError("the server has no such object", uri=uri)
            crc32c = base64.b64decode(found["crc32c"]).hex()
            return Stored(uri, str(found["generation"]), int(found["size"]), crc32c)

        return self._retrying(once, uri, "describe", self._timeout_seconds)

    def delete(self, uri: str, generation: str) -> bool:
        """Delete exactly one generation; another one under the same name stays."""
        seconds = min(self._timeout_seconds, _DELETE_SECONDS)
        name = self._name(uri)
        return self._retrying(
            lambda deadline: self._delete(name, generation, deadline), uri, "delete", seconds
        )

    def _delete(self, name: str, generation: str, deadline: float) -> bool:
        # fake-gcs-server ignores ifGenerationMatch here, and so would delete a newer object;
        # `generation` both honour.
        url = f"{self._object_url(name)}?generation={generation}"
        response = self._request("DELETE", url, deadline, {})
        if response.status == 404:
            return False
        self._check(response, f"gs://{self._bucket}/{name}", "delete")
        return True

    def _describe(self, name: str, deadline: float) -> dict[str, Any] | None:
        response = self._request("GET", self._object_url(name), deadline, {})
        if response.status == 404:
            return None
        self._check(response, f"gs://{self._bucket}/{name}", "get")
        return _parse(response.data)

    def _object_url(self, name: str, path: str = "") -> str:
        return f"{self._endpoint}{path}/storage/v1/b/{self._bucket}/o/{quote(name, safe='')}"

    def _name(self, uri: str) -> str:
        return uri.removeprefix(f"gs://{self._bucket}/")

    def _request(
        self,
        method: str,
        url: str,
        deadline: float,
        headers: dict[str, str],
        body: _Body | None = None,
        *,
        preload_content: bool = True,
    ) -> Any:
        """Send one request; raise ``_Transient`` for what a later try may mend."""
        import urllib3

        remaining = _remaining(deadline)
        timeout = urllib3.Timeout(connect=min(_CONNECT_SECONDS, remaining), read=remaining)
        try:
            response = self._http.urlopen(
                method,
                url,
                body=body,
                headers=headers,
                timeout=timeout,
                retries=False,
                redirect=False,
                preload_content=preload_content,
                decode_content=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise _Transient(f"{type(error).__name__}: {error}") from error
        except Exception as error:
            _raise_if_credentials(error, self._bucket)
            raise
        if response.status in _TRANSIENT_STATUSES:
            if not preload_content:
                response.read()
            raise _Transient(f"HTTP {response.status} {_reason(response)}", _retry_after(response))
        return response

    def _check(self, response: Any, uri: str, permission: str) -> None:
        """Raise what a final answer other than success means."""
        status = response.status
        if status < 300:
            return
        said = f"HTTP {status} {_reason(response)}"
        bucket = self._bucket
        if status == 404 and permission != "create" and "bucket" not in said.lower():
            raise PayloadMissingError(f"the server has no such object or generation ({said})", uri=uri)
        advice = {
            401: "The credentials are not accepted: check the connection of [gcs_xcom] conn_id",
            403: f"Grant storage.objects.{permission} on the bucket, for example: gcloud storage buckets "
            f"add-iam-policy-binding gs://{bucket} --role=roles/storage.objectUser --member=serviceAccount:…",
            404: f"The bucket does not exist, make it with: gcloud storage buckets create gs://{bucket}",
            413: "The server takes no object of this size: lower [gcs_xcom] max_payload_bytes",
        }.get(status, "The server will answer the same again")
        raise StoreUnavailableError(
            f"{uri} could not be reached for {permission}: {said}. {advice}.", uri=uri, status=status
        )

    def _retrying(
        self, once: Callable[[float], _T], uri: str, verb: str, timeout_seconds: float
    ) -> _T:
        """Try until it works, fails for good, or the time is up; the time holds for all together."""
        started = time.monotonic()
        deadline = started + timeout_seconds
        tries = 0
        while True:
            tries += 1
            try:
                return once(deadline)
            except _Transient as problem:
                # Full jitter, so that many tasks that were refused at once do not return at once.
                longest = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2**tries)
                wait = max(problem.retry_after, random.uniform(longest / 2, longest))
                if time.monotonic() + wait >= deadline:
                    raise StoreUnavailableError(
                        f"Could not {verb} {uri}: {tries} tries in {time.monotonic() - started:.0f} s all "
                        f"failed, the last with: {problem}. The limit is {timeout_seconds:g} s ([gcs_xcom] "
                        "timeout_seconds). Check that the store can be reached from here, then clear the "
                        "task; at most an object that nothing refers to is left.",
                        uri=uri,
                        tries=tries,
                    ) from problem
                log.warning(
                    "Could not %s %s at try %d (%s); trying again in %.1f s", verb, uri, tries, problem, wait
                )
                time.sleep(wait)


class _Transient(Exception):
    """Something that a later try may mend.

    Args:
        retry_after: Seconds that the server asks to wait at least.
    """

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class _Body:
    """The payload as urllib3 sends it: from the start at each try, and not beyond the deadline."""

    def __init__(self, parts: list[Buffer], deadline: float) -> None:
        self._parts = parts
        self._deadline = deadline

    def __iter__(self) -> Iterator[memoryview]:
        for part in self._parts:
            view = memoryview(part)
            for start in range(0, len(view), _SEND_BYTES):
                _remaining(self._deadline)
                yield view[start : start + _SEND_BYTES]


def _receive(response: Any, size: int, deadline: float) -> tuple[memoryview, str]:
    """Read a body into one buffer.

    ``read1`` returns after each piece that arrives, so a server that sends a byte now and then
    cannot outlast the deadline.
    """
    import urllib3

    total = Checksum()
    buffer = memoryview(bytearray(size))
    filled = 0
    try:
        while filled < size:
            _remaining(deadline)
            piece = response.read1(min(_RECEIVE_BYTES, size - filled))
            if not piece:
                raise _Transient(f"the answer ended after {filled} of {size} bytes")
            buffer[filled : filled + len(piece)] = piece
            filled += len(piece)
            total.update(piece)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise _Transient(f"the answer broke off after {filled} of {size} bytes ({error})") from error
    return buffer, str(total)


def _remaining(deadline: float) -> float:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise _Transient("the time is up")
    return remaining


def _retry_after(response: Any) -> float:
    import urllib3

    try:
        return float(urllib3.Retry().parse_retry_after(response.headers.get("retry-after", "0")))
    except urllib3.exceptions.InvalidHeader:
        return 0.0


def _reason(response: Any) -> str:
    """Return the server's own words, at most a line of them."""
    try:
        message = json.loads(response.data)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = response.reason or ""
    return str(message).strip().replace("\n", " ")[:200]


def _parse(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
        if {"generation", "size", "crc32c"} <= found.keys():
            return dict(found)
    except (ValueError, AttributeError):
        pass
    raise _Transient("the server's answer is not an object resource")


def _as_base64(crc32c: str) -> str:
    return base64.b64encode(bytes.fromhex(crc32c)).decode()


def _server_crc32c(headers: Any) -> str:
    for item in headers.get("x-goog-hash", "").split(","):
        kind, _, value = item.strip().partition("=")
        if kind == "crc32c":
            return str(value)
    return ""


def _raise_if_credentials(error: Exception, bucket: str) -> None:
    """Turn what google-auth raises while it gets a token into one of our errors."""
    try:
        from google.auth.exceptions import GoogleAuthError, TransportError
    except ImportError:
        return
    if isinstance(error, TransportError):
        raise _Transient(f"no token: {error}") from error
    if isinstance(error, GoogleAuthError):
        raise StoreUnavailableError(
            f"No token for gs://{bucket}: {error}. Check the connection of [gcs_xcom] conn_id, or the "
            "Application Default Credentials.",
            uri=f"gs://{bucket}",
        ) from error
