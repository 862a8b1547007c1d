"""Payloads as objects of Google Cloud Storage, over its JSON API.

A handful of calls over ``urllib3``, which Airflow's tasks have loaded already: every task is a
process of its own, so what a client library costs to import is paid by every task (docs/decisions.md).
"""

from __future__ import annotations

import base64
import http.client
import json
import logging
import os
import random
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode

import urllib3

from ..errors import (
    PayloadCorruptError,
    PayloadExistsError,
    PayloadMissingError,
    StoreUnavailableError,
)
from . import transport
from .checksums import Checksum, checksum
from .contract import PAGE_OBJECTS, Buffer, Listed, Page, Parts, Progress, Stored
from .credentials import Tokens
from .transport import Transient

if TYPE_CHECKING:
    from ..reference import PayloadReference
    from ..settings import Settings

__all__ = ["ENDPOINT", "GCSStore"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")

ENDPOINT = "https://storage.googleapis.com"

_SEND_BYTES = 1024 * 1024
_RECEIVE_BYTES = 1024 * 1024
# Objects of three ranges and more are read over as many connections. At 50 MB/s for each, 256 MiB take
# 0.7 s so, and 5.4 over one (`make bench ARGS='--only ranged'`).
_RANGE_BYTES = 32 * 1024 * 1024
_FEWEST_RANGES = 3
_MOST_RANGES = 8
_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 20.0
# Deleting is housekeeping: it must not hold a task for as long as a payload may.
_DELETE_SECONDS = 15.0


class GCSStore:
    """One bucket.

    Thread-safe; not to be used after a fork (``stores`` keeps one for each process). Making one
    asks nothing of anybody.

    Args:
        bucket: Its name.
        settings: ``conn_id``, ``concurrency`` and ``timeout_seconds`` are used.
    """

    def __init__(self, bucket: str, settings: Settings) -> None:
        self._bucket = bucket
        self._timeout_seconds = settings.timeout_seconds
        # The same variable as Google's client libraries read, and like them: no credentials.
        emulator = os.environ.get("STORAGE_EMULATOR_HOST", "").rstrip("/")
        self._endpoint = ENDPOINT
        if emulator:
            self._endpoint = emulator if "://" in emulator else f"http://{emulator}"
        try:
            self._pool = transport.open_pool(self._endpoint, settings.concurrency * _MOST_RANGES)
        except ValueError as error:
            raise self._unreachable(error) from error
        self._tokens = None if emulator else Tokens(self._pool, settings.conn_id)

    def put(self, name: str, parts: Parts) -> Stored:
        """Write one object that must not exist yet, in a single request.

        ``ifGenerationMatch=0`` makes the server refuse to overwrite. When a try that was repeated is
        refused so, the first one may have arrived after all: its object is compared, and is ours if
        size and CRC32C are.
        """
        uri = f"gs://{self._bucket}/{name}"
        body = _Body(parts)
        crc32c = checksum(parts)
        query = f"uploadType=media&name={quote(name, safe='')}&ifGenerationMatch=0"
        url = f"{self._endpoint}/upload/storage/v1/b/{self._bucket}/o?{query}"
        headers = {
            "content-type": "application/octet-stream",
            "content-length": str(body.size),
            "x-goog-hash": f"crc32c={_as_base64(crc32c)}",
        }
        tries = 0
        damaged: set[str] = set()

        def once() -> Stored:
            nonlocal tries
            tries += 1
            response = self._request("POST", url, headers, body)
            if response.status == 412:
                # On a first try nothing of ours can be there.
                found = self._describe(name) if tries > 1 else {}
                if found is None:
                    raise Transient("an object of that name was there and is gone")
            else:
                self._check(response, uri, "create")
                found = _parse(response.data)
            if _is(found, body.size, crc32c):
                return Stored(uri, str(found["generation"]), body.size, crc32c)
            if response.status != 412:
                damaged.add(str(found["generation"]))
            elif not {str(found.get("generation"))} & damaged:
                raise PayloadExistsError(
                    f"{uri} exists already and was not overwritten. Names are unique for each try: this is "
                    "a replayed request or a defect.",
                    uri=uri,
                )
            # Damaged on its way: nobody has a reference to it, so it can go.
            self._delete(name, str(found["generation"]))
            raise Transient("the server received other bytes than were sent")

        return self._retrying(once, uri, "store", self._timeout_seconds)

    def put_stream(self, name: str, chunks: Iterable[Buffer], *, progress: Progress | None = None) -> Stored:
        """Write one new object of unknown length."""
        parts: Parts = [bytes(chunk) for chunk in chunks]
        stored = self.put(name, parts)
        if progress:
            progress(stored.size)
        return stored

    def copy(self, source: Stored, name: str) -> Stored:
        """Let the server copy one generation of an object; large ones take several requests."""
        uri = f"gs://{self._bucket}/{name}"
        url = (
            f"{self._object_url(self._name(source.uri))}/rewriteTo/b/{self._bucket}/o/{quote(name, safe='')}"
            f"?sourceGeneration={source.generation}&ifGenerationMatch=0"
        )
        token = ""

        def once() -> dict[str, Any]:
            query = f"&rewriteToken={quote(token, safe='')}" if token else ""
            response = self._request("POST", f"{url}{query}", {"content-length": "0"})
            self._check(response, source.uri, "get")
            return dict(json.loads(response.data))

        while True:
            answer = self._retrying(once, uri, "copy", self._timeout_seconds)
            if answer["done"]:
                break
            token = answer["rewriteToken"]
        return source._replace(uri=uri, generation=str(answer["resource"]["generation"]))

    def get(self, reference: PayloadReference) -> memoryview:
        """Read one generation of an object into one buffer.

        In a single request; a large object in several at once, a range each, because a connection to
        GCS carries a part of what a machine can receive (docs/performance.md).
        """
        uri = reference.uri
        ranges = min(_MOST_RANGES, reference.bytes // _RANGE_BYTES)
        if ranges >= _FEWEST_RANGES:
            buffer = self._get_ranges(reference, ranges)
            if checksum([buffer]) == reference.crc32c:
                return buffer
            del buffer  # The single request tells who altered it, the server or the way from there.
        return self._retrying(lambda: self._get_whole(reference), uri, "read", self._timeout_seconds)

    def _get_whole(self, reference: PayloadReference) -> memoryview:
        uri = reference.uri
        response = self._request("GET", self._media_url(uri, reference.generation), {}, is_streamed=True)
        is_whole = False
        try:
            length = response.headers.get("content-length", "")
            if response.status != 200:
                self._check(response, uri, "get")
                raise Transient(f"the answer is HTTP {response.status}, which was not asked for")
            if length.isdecimal() and int(length) != reference.bytes:
                raise PayloadCorruptError(
                    f"is {length} bytes long, and {reference.bytes} were written", uri=uri
                )
            buffer, crc32c = _receive(response, reference)
            is_whole = True
        finally:
            _leave(response, is_whole)
        if crc32c != reference.crc32c:
            if _server_crc32c(response.headers) == _as_base64(reference.crc32c):
                raise Transient("other bytes arrived than the server sent")
            raise PayloadCorruptError("has another CRC32C than what was written", uri=uri)
        return buffer

    def _get_ranges(self, reference: PayloadReference, ranges: int) -> memoryview:
        size = reference.bytes
        stored = Stored(reference.uri, reference.generation, size, reference.crc32c)
        buffer = memoryview(bytearray(size))
        edges = [size * index // ranges for index in range(ranges + 1)]
        # A pool for each call: none outlives it, so none can be shared across a fork.
        with ThreadPoolExecutor(ranges, "range") as pool:
            futures = [
                # Airflow 3.4 tells by the context whose trigger asks for a connection.
                pool.submit(copy_context().run, self._fill, stored, start, buffer[start:stop])
                for start, stop in pairwise(edges)
            ]
        for future in futures:
            future.result()
        return buffer

    def read(self, stored: Stored, start: int, stop: int, *, seconds: float | None = None) -> bytes:
        """Ask for a range of one generation; the answer tells size and CRC32C of the whole."""
        buffer = bytearray(max(0, min(stop, stored.size) - start))
        if buffer:
            self._fill(stored, start, memoryview(buffer), seconds)
        return bytes(buffer)

    def _fill(self, stored: Stored, start: int, buffer: memoryview, seconds: float | None = None) -> None:
        """Read the range of one generation that begins at ``start`` and fills the buffer."""
        uri = stored.uri
        asked = {"range": f"bytes={start}-{start + len(buffer) - 1}"}

        def once() -> None:
            url = self._media_url(uri, stored.generation)
            response = self._request("GET", url, asked, is_streamed=True)
            is_whole = False
            try:
                headers = response.headers
                if response.status == 416:
                    raise PayloadCorruptError("is shorter than what was written", uri=uri)
                if response.status != 206:
                    self._check(response, uri, "get")
                    raise StoreUnavailableError(
                        f"{uri} could not be read: the answer is HTTP {response.status}, and a range of it "
                        "was asked for. Look for a proxy between that leaves the header `range` out.",
                        uri=uri,
                        status=response.status,
                    )
                if _server_crc32c(headers) not in ("", _as_base64(stored.crc32c)):
                    raise PayloadCorruptError("has another CRC32C than what was written", uri=uri)
                total = headers.get("content-range", "").rpartition("/")[2]
                if total.isdecimal() and int(total) != stored.size:
                    raise PayloadCorruptError(
                        f"is {total} bytes long, and {stored.size} were written", uri=uri
                    )
                for _ in _pieces(response, buffer):
                    pass
                is_whole = True
            finally:
                _leave(response, is_whole)

        limit = self._timeout_seconds if seconds is None else min(seconds, self._timeout_seconds)
        self._retrying(once, uri, "read", limit)

    def describe(self, uri: str) -> Stored:
        """Ask for an object's metadata, in a single request."""
        name = self._name(uri)

        def once() -> Stored:
            found = self._describe(name)
            if found is None:
                raise PayloadMissingError("the server has no such object", uri=uri)
            crc32c = base64.b64decode(found["crc32c"]).hex()
            return Stored(uri, str(found["generation"]), int(found["size"]), crc32c)

        return self._retrying(once, uri, "describe", self._timeout_seconds)

    def delete(self, uri: str, generation: str) -> bool:
        """Delete exactly one generation; another one under the same name stays."""
        seconds = min(self._timeout_seconds, _DELETE_SECONDS)
        name = self._name(uri)
        return self._retrying(lambda: self._delete(name, generation), uri, "delete", seconds)

    def list(self, prefix: str, start: str = "") -> Iterator[Page]:
        """Ask for a page of metadata in each request."""
        uri = f"gs://{self._bucket}/{prefix}"
        query = {
            "prefix": prefix,
            "maxResults": str(PAGE_OBJECTS),
            "fields": "nextPageToken,items(name,size,generation,timeCreated)",
            **({"startOffset": start} if start else {}),
        }

        def once() -> dict[str, Any]:
            url = f"{self._endpoint}/storage/v1/b/{self._bucket}/o?{urlencode(query)}"
            response = self._request("GET", url, {})
            # Where nothing is listed the bucket is missing, not an object: the words are those of "create".
            self._check(response, uri, "create" if response.status == 404 else "list")
            try:
                return dict(json.loads(response.data))
            except (ValueError, TypeError) as error:
                raise Transient("the server's answer is no list of objects") from error

        while True:
            answer = self._retrying(once, uri, "list", self._timeout_seconds)
            yield [
                Listed(
                    f"gs://{self._bucket}/{item['name']}",
                    item["name"],
                    str(item["generation"]),
                    int(item["size"]),
                    _seconds(item["timeCreated"]),
                )
                for item in answer.get("items", [])
            ]
            if not answer.get("nextPageToken"):
                return
            query["pageToken"] = answer["nextPageToken"]

    def list_folders(self, prefix: str) -> Iterator[str]:
        """Ask for a page of names in each request."""
        query = {"prefix": prefix, "delimiter": "/", "fields": "nextPageToken,prefixes"}
        uri = f"gs://{self._bucket}/{prefix}"

        def once() -> dict[str, Any]:
            url = f"{self._endpoint}/storage/v1/b/{self._bucket}/o?{urlencode(query)}"
            response = self._request("GET", url, {})
            self._check(response, uri, "create" if response.status == 404 else "list")
            return dict(json.loads(response.data))

        while True:
            answer = self._retrying(once, uri, "list", self._timeout_seconds)
            yield from answer.get("prefixes", [])
            if not answer.get("nextPageToken"):
                return
            query["pageToken"] = answer["nextPageToken"]

    def _delete(self, name: str, generation: str) -> bool:
        # fake-gcs-server ignores ifGenerationMatch here, and so would delete a newer object;
        # `generation` both honour.
        response = self._request("DELETE", f"{self._object_url(name)}?generation={generation}", {})
        if response.status == 404:
            return False
        self._check(response, f"gs://{self._bucket}/{name}", "delete")
        return True

    def _describe(self, name: str) -> dict[str, Any] | None:
        response = self._request("GET", self._object_url(name), {})
        if response.status == 404:
            return None
        self._check(response, f"gs://{self._bucket}/{name}", "get")
        return _parse(response.data)

    def _object_url(self, name: str, path: str = "") -> str:
        return f"{self._endpoint}{path}/storage/v1/b/{self._bucket}/o/{quote(name, safe='')}"

    def _media_url(self, uri: str, generation: str) -> str:
        return f"{self._object_url(self._name(uri), '/download')}?alt=media&generation={generation}"

    def _name(self, uri: str) -> str:
        return uri.removeprefix(f"gs://{self._bucket}/")

    def _request(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: _Body | None = None,
        *,
        is_streamed: bool = False,
    ) -> urllib3.BaseHTTPResponse:
        """Send one request; raise ``Transient`` for what a later try may mend."""
        token = ""
        while True:
            sent = dict(headers)
            refused, token = token, ""
            if self._tokens:
                token = self._tokens.authorize(method, url, sent, refused=refused)
            try:
                response = self._pool.urlopen(
                    method,
                    url,
                    body=body,
                    headers=sent,
                    timeout=transport.remaining(),
                    retries=False,
                    redirect=False,
                    preload_content=False,
                    decode_content=False,
                )
                if not is_streamed or response.status not in (200, 206):
                    response.read(cache_content=True)
            except urllib3.exceptions.HTTPError as error:
                self._raise_if_final(error)
                raise Transient(f"{type(error).__name__}: {error}") from error
            if response.status == 401 and token and not refused:
                continue
            if response.status in transport.TRANSIENT_STATUSES:
                said = f"HTTP {response.status} {transport.reason(response)}"
                raise Transient(said, transport.retry_after(response))
            return response

    def _raise_if_final(self, error: urllib3.exceptions.HTTPError) -> None:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
            cause = cause.__cause__ or cause.__context__
        if cause is not None or isinstance(error, urllib3.exceptions.LocationValueError):
            raise self._unreachable(cause or error) from error

    def _unreachable(self, error: BaseException) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"No connection to {self._endpoint} for gs://{self._bucket}: {error}. Nothing was stored or "
            "read. Check STORAGE_EMULATOR_HOST and the variables of the proxy; a proxy's own certificate "
            "goes into REQUESTS_CA_BUNDLE.",
            uri=f"gs://{self._bucket}",
        )

    def _check(self, response: urllib3.BaseHTTPResponse, uri: str, permission: str) -> None:
        """Raise what a final answer other than success means."""
        status = response.status
        if status < 300:
            return
        words = transport.reason(response)
        said = f"HTTP {status} {words}".rstrip()
        bucket = self._bucket
        # Names of buckets and objects may contain the word.
        is_bucket = "bucket" in words.replace(self._name(uri), "").replace(bucket, "").lower()
        if status == 404 and permission != "create" and not is_bucket:
            raise PayloadMissingError(f"the server has no such object or generation ({said})", uri=uri)
        if status == 400 and "crc32c" in words.lower():
            raise Transient(f"the server received other bytes than were sent ({said})")
        advice = {
            401: "The credentials are not accepted: check the connection of [gcs_xcom] conn_id",
            403: f"Grant storage.objects.{permission} on the bucket, for example: gcloud storage buckets "
            f"add-iam-policy-binding gs://{bucket} --role=roles/storage.objectUser --member=serviceAccount:…",
            404: f"The bucket does not exist, make it with: gcloud storage buckets create gs://{bucket}",
            413: "The server takes no object of this size: lower [gcs_xcom] max_payload_bytes",
        }.get(status, "The server will answer the same again: report it with this message")
        if status < 400:
            target = str(response.headers.get("location", "nowhere")).partition("?")[0]
            advice = f"It redirects to {target}, which the storage API never does: look for a proxy between"
        raise StoreUnavailableError(
            f"{uri} could not be reached for {permission}: {said}. {advice}.", uri=uri, status=status
        )

    def _retrying(self, once: Callable[[], _T], uri: str, verb: str, timeout_seconds: float) -> _T:
        """Try until it works, fails for good, or the time is up; the time holds for all together."""
        started = time.monotonic()
        tries = 0
        before = ""
        with transport.time_limit(timeout_seconds):
            while True:
                tries += 1
                try:
                    return once()
                except Transient as problem:
                    # With jitter, so that many tasks that were refused at once do not return at once.
                    longest = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2 ** (tries - 1))
                    wait = max(problem.wait_seconds, 0) + random.uniform(longest / 2, longest)
                    seconds = time.monotonic() - started
                    if seconds + wait >= timeout_seconds:
                        raise StoreUnavailableError(
                            f"Could not {verb} {uri}: {tries} tries in {seconds:.1f} s all failed, the last "
                            f"with: {problem}{before}. The next would be in {wait:.1f} s, and the limit is "
                            f"{timeout_seconds:g} s ([gcs_xcom] timeout_seconds). Check that "
                            f"{self._endpoint} can be reached from here, then clear the task; at most an "
                            "object that nothing refers to is left.",
                            uri=uri,
                        ) from problem
                    log.warning(
                        "Could not %s %s at try %d (%s); trying again in %.1f s",
                        verb,
                        uri,
                        tries,
                        problem,
                        wait,
                    )
                    # The last try may end with the time alone, which tells nothing about the cause.
                    before = f" (and before that: {problem})"
                    time.sleep(wait)


class _Body:
    """The payload as urllib3 sends it, from its start at each try, without a copy."""

    def __init__(self, parts: list[Buffer]) -> None:
        self._parts = [memoryview(part).cast("B") for part in parts]
        self.size = sum(len(part) for part in self._parts)

    def __iter__(self) -> Iterator[memoryview]:
        for part in self._parts:
            for start in range(0, len(part), _SEND_BYTES):
                yield part[start : start + _SEND_BYTES]


def _receive(response: urllib3.BaseHTTPResponse, reference: PayloadReference) -> tuple[memoryview, str]:
    """Read a body into memory of its own; return that and its checksum.

    From the socket to where it stays, without a copy between: the checksum is taken of each piece
    while it is in the CPU's cache still. ``response.read`` would copy each piece three times, which
    costs more than receiving it.
    """
    total = Checksum()
    buffer = memoryview(bytearray(reference.bytes))
    for piece in _pieces(response, buffer):
        total.update(piece)
    return buffer, str(total)


def _leave(response: urllib3.BaseHTTPResponse, is_whole: bool) -> None:
    """Let the next request have the connection, unless a part of the body is still in it."""
    response.release_conn() if is_whole or not response.length_remaining else response.close()


def _pieces(response: urllib3.BaseHTTPResponse, buffer: memoryview) -> Iterator[memoryview]:
    """Fill a buffer with a body, piece by piece, and yield each."""
    size = len(buffer)
    filled = 0
    body = transport.body_of(response)
    try:
        while filled < size:
            count = body.readinto(buffer[filled : filled + _RECEIVE_BYTES])
            if not count:
                raise Transient(f"the answer ended after {filled} of {size} bytes")
            yield buffer[filled : filled + count]
            filled += count
    except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
        raise Transient(f"the answer broke off after {filled} of {size} bytes ({error})") from error


def _is(found: dict[str, Any], size: int, crc32c: str) -> bool:
    return (str(found.get("size")), found.get("crc32c")) == (str(size), _as_base64(crc32c))


def _parse(data: bytes) -> dict[str, Any]:
    """Read an object resource; another answer says nothing about what the server did."""
    try:
        found = json.loads(data)
        if {"generation", "size", "crc32c"} <= found.keys():
            return dict(found)
    except (ValueError, AttributeError):
        pass
    raise Transient("the server's answer is not an object resource")


def _seconds(text: str) -> float:
    """Read a time as RFC 3339 has it; Python 3.10 takes neither "Z" nor nanoseconds."""
    zone = text[-6:]
    is_offset = zone[0] in "+-" and zone[3] == ":"
    return datetime.fromisoformat(text[:19] + (zone if is_offset else "+00:00")).timestamp()


def _as_base64(crc32c: str) -> str:
    return base64.b64encode(bytes.fromhex(crc32c)).decode()


def _server_crc32c(headers: Any) -> str:
    for item in headers.get("x-goog-hash", "").split(","):
        kind, _, value = item.strip().partition("=")
        if kind == "crc32c":
            return str(value)
    return ""
