"""The JSON API of Cloud Storage, for one bucket: a request for each method, tried again where that helps.

Over ``urllib3``, which a task has loaded already: every task is a new process, and pays for what a
client library takes to import (docs/decisions.md).
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import urllib3

from ..errors import PayloadCorruptError, PayloadExistsError, PayloadMissingError, StoreUnavailableError
from ..settings import Settings
from .checksums import Checksum, checksum, joined_checksum
from .contract import PAGE_OBJECTS, Stored
from .credentials import Tokens
from .refusals import Request, is_policy, refuse
from .retries import retrying
from .transport import Answer, Body, Client, Damaged, Transient, chunks, open_pool

__all__ = ["Bucket", "RangeIgnoredError", "Sink"]

_T = TypeVar("_T")

# Deleting is housekeeping: it must not hold a task for as long as a payload may.
_DELETE_SECONDS = 15.0
_EMPTY_CRC32C = "00000000"

Sink = Callable[[int, bytes], object]
"""Takes the offset of some bytes within the object, and the bytes; repeatedly, if a request is repeated."""


class RangeIgnoredError(Exception):
    """The server, or a proxy before it, answered a request for a range with the whole object."""


class Bucket:
    """One bucket. Thread-safe; not to be used after a fork. Making one sends no request.

    Args:
        name: Without ``gs://``.
        settings: ``conn_id``, ``timeout_seconds`` (for one request with its retries) and
            ``concurrency`` are used.
        endpoint: URL of Cloud Storage; ``STORAGE_EMULATOR_HOST`` goes first.
        connections: Most that are kept open.
        scope: OAuth scope of tokens; "" for reading and writing objects.

    Raises:
        StoreUnavailableError: The endpoint is no URL, or the connection cannot be read.
    """

    def __init__(
        self, name: str, settings: Settings, *, endpoint: str, connections: int, scope: str = ""
    ) -> None:
        self._name = name
        self._root = f"gs://{name}"
        self._path = f"/storage/v1/b/{name}"
        self._conn_id = settings.conn_id
        self._seconds = settings.timeout_seconds
        # The same variable as Google's client libraries read, and as with them: no credentials.
        emulator = os.environ.get("STORAGE_EMULATOR_HOST", "").rstrip("/")
        if emulator:
            endpoint = emulator if "://" in emulator else f"http://{emulator}"
        pool = open_pool(endpoint, connections)
        self._tokens = None if emulator else Tokens(pool, settings.conn_id, scope)
        self._client = Client(endpoint, pool, self._tokens.authorize if self._tokens else None)

    @property
    def account(self) -> str:
        """E-mail of the service account, once a request was sent; "" if there is none."""
        return self._tokens.account if self._tokens else ""

    def insert(self, name: str, body: Body) -> Stored:
        """Create an object from bytes in memory."""
        crc32c = checksum(body.parts)
        path = f"/upload{self._path}/o?uploadType=media&name={quote(name, safe='')}&ifGenerationMatch=0"
        headers = {
            "content-type": "application/octet-stream",
            "content-length": str(body.size),
            "x-goog-hash": f"crc32c={_as_base64(crc32c)}",
        }
        wanted = Stored(self._uri(name), "", body.size, crc32c)
        return self._create(wanted, lambda: self._client.send("POST", path, headers, body))

    def compose(self, name: str, sources: Sequence[Stored]) -> Stored:
        """Create an object from at most 32 others, one after the other.

        Raises:
            StoreUnavailableError: Also if a source is gone.
        """
        parts = [{"name": self._name_of(one.uri), "generation": one.generation} for one in sources]
        body = Body([json.dumps({"sourceObjects": parts}).encode()])
        headers = {"content-type": "application/json", "content-length": str(body.size)}
        path = f"{self._object(name)}/compose?ifGenerationMatch=0"

        def send() -> Answer:
            try:
                answer = self._client.send("POST", path, headers, body)
            except Transient:
                # fake-gcs-server answers 500 when a source is missing.
                self._check_sources(sources)
                raise
            if answer.status == 404:
                self._check_sources(sources)
            return answer

        crc32c = joined_checksum((one.crc32c, one.size) for one in sources)
        return self._create(Stored(self._uri(name), "", sum(one.size for one in sources), crc32c), send)

    def copy(self, source: Stored, name: str) -> Stored:
        """Let the server copy an object. Across storage classes a large one takes several requests."""
        path = (
            f"{self._object(self._name_of(source.uri))}/rewriteTo/b/{self._name}/o/{quote(name, safe='')}"
            f"?sourceGeneration={source.generation}&ifGenerationMatch=0"
        )
        token = ""

        def send() -> Answer:
            query = f"&rewriteToken={quote(token, safe='')}" if token else ""
            answer = self._client.send("POST", f"{path}{query}", {"content-length": "0"})
            if answer.status == 200 and (more := _document(answer).get("rewriteToken")):
                raise _UnfinishedCopy(more)
            return answer

        while True:
            try:
                return self._create(source._replace(uri=self._uri(name)), send, "copy", source.uri)
            except _UnfinishedCopy as copied:
                token = str(copied)

    def _create(
        self, wanted: Stored, send: Callable[[], Answer], verb: str = "store", source: str = ""
    ) -> Stored:
        """Run a request that creates an object and must not replace one.

        A 412 that answers a *repeated* request may be our own success, whose response was lost. So the
        object there is compared, and is ours if size and CRC32C are.
        """
        name = self._name_of(wanted.uri)
        tries = 0
        damaged: set[str] = set()

        def attempt() -> Stored:
            nonlocal tries
            tries += 1
            answer = send()
            is_taken = answer.status == 412 and not is_policy(answer)
            if not is_taken:
                self._check(answer, verb, source or wanted.uri, "storage.objects.create")
                found = _stored(_document(answer), wanted.uri)
            elif tries > 1:
                there = self._find(name)
                if there is None:
                    raise Transient("an object of that name was there and is gone")
                found = there
            else:
                raise _exists(wanted.uri)
            if found._replace(generation="") == wanted._replace(generation=""):
                return found
            if not is_taken:
                damaged.add(found.generation)
            elif found.generation not in damaged:
                raise _exists(wanted.uri)
            # Nobody has a reference to it.
            self._delete(name, found.generation)
            raise Damaged(
                f"the server received CRC32C {found.crc32c} ({found.size} bytes), and {wanted.crc32c} "
                f"({wanted.size} bytes) was sent"
            )

        wanted = wanted._replace(generation="")
        return self._retry(attempt, verb, wanted.uri)

    def _check_sources(self, sources: Sequence[Stored]) -> None:
        for one in sources:
            found = self._find(self._name_of(one.uri))
            if found is None or found.generation != one.generation:
                raise StoreUnavailableError(
                    "A part of the upload was deleted before it was used, by a lifecycle rule, a sweep, or a "
                    f"person: {one.uri}. Nothing was stored. Raise the age at which they delete above the time "
                    "that an upload takes, then clear the task.",
                    uri=one.uri,
                )

    def receive(
        self,
        stored: Stored,
        start: int,
        stop: int,
        sink: Sink,
        *,
        seconds: float | None = None,
        is_whole_accepted: bool = True,
    ) -> str:
        """Read a range of one generation of an object into ``sink``; return the range's CRC32C.

        Compares size and CRC32C of the whole with what the server states.

        Args:
            stored: The object.
            start: Offset of the first byte.
            stop: Offset behind the last byte, at most the size.
            sink: Where the bytes go.
            seconds: Limit, if less than for other requests.
            is_whole_accepted: Read the whole object, and drop what was not wanted, if the server
                ignores the range, as RFC 9110 allows.

        Raises:
            RangeIgnoredError: The server ignored the range.
            PayloadError: As ``Store.read``.
        """
        uri = stored.uri
        is_range = (start, stop) != (0, stored.size)
        headers = {"range": f"bytes={start}-{stop - 1}"} if is_range else {}
        path = f"/download{self._object(self._name_of(uri))}?alt=media&generation={stored.generation}"

        def attempt() -> str:
            total = Checksum()
            with self._client.stream("GET", path, headers) as response:
                if response.status not in (200, 206 if is_range else 200):
                    self._refuse_read(response, uri)
                # Google's own testbench answers 200 to some ranges.
                has_range = "content-range" in response.headers or response.status == 206
                is_stated = _check_head(response, stored, has_range)
                if is_range and not has_range and not is_whole_accepted:
                    raise RangeIgnoredError
                offset = start if has_range else 0
                for data in chunks(response):
                    part = data[max(0, start - offset) : max(0, stop - offset)]
                    if part:
                        sink(max(start, offset), part)
                        total.update(part)
                    offset += len(data)
                    if offset >= stop:
                        break
            if offset < stop:
                raise Transient(f"the response ended after {offset - start} of {stop - start} bytes")
            if not is_range and str(total) != stored.crc32c:
                if is_stated:
                    raise Damaged(f"CRC32C {total} arrived, and the server sent {stored.crc32c}")
                stored.check(crc32c=str(total))
            return str(total)

        return self._retry(attempt, "read", uri, seconds)

    def _refuse_read(self, response: urllib3.BaseHTTPResponse, uri: str) -> None:
        if response.status == 416:
            raise PayloadCorruptError("is shorter than what was written", uri=uri)
        answer = Answer(response.status, response.headers, b"".join(chunks(response)))
        self._check(answer, "read", uri, "storage.objects.get")
        raise Transient(f"HTTP {response.status} was not asked for")

    def describe(self, uri: str) -> Stored:
        """Ask for the newest generation of an object."""

        def attempt() -> Stored:
            found = self._find(self._name_of(uri))
            if found is None:
                raise PayloadMissingError("the server has no such object", uri=uri)
            return found

        return self._retry(attempt, "describe", uri)

    def delete(self, uri: str, generation: str) -> bool:
        """Delete exactly one generation; another one under the same name stays."""
        name = self._name_of(uri)
        return self._retry(lambda: self._delete(name, generation), "delete", uri, _DELETE_SECONDS)

    def pages(self, prefix: str, start: str = "", delimiter: str = "") -> Iterator[dict[str, Any]]:
        """Yield the pages of a listing as the API gives them."""
        query = {
            "prefix": prefix,
            "maxResults": str(PAGE_OBJECTS),
            "fields": "nextPageToken,prefixes,items(name,size,generation,timeCreated)",
            **({"startOffset": start} if start else {}),
            **({"delimiter": delimiter} if delimiter else {}),
        }
        while True:
            path = f"/o?{urlencode(query)}"
            page = self._ask("GET", path, "list", self._uri(prefix), "storage.objects.list")
            yield page
            if not page.get("nextPageToken"):
                return
            query["pageToken"] = page["nextPageToken"]

    def bucket_metadata(self) -> dict[str, Any]:
        """Return the bucket resource: https://cloud.google.com/storage/docs/json_api/v1/buckets.

        Raises:
            StoreUnavailableError: The bucket does not exist, may not be read, or did not answer.
        """
        return self._ask("GET", "", "read the settings of", self._root, "storage.buckets.get")

    def update_bucket(self, changes: Mapping[str, Any], metageneration: str) -> dict[str, Any]:
        """Change fields of the bucket resource; return it as it is then.

        Args:
            changes: Fields and their new values.
            metageneration: As it was read: a change by someone else since is not overwritten.

        Raises:
            StoreUnavailableError: The bucket was changed since, or may not be changed.
        """
        path = f"?ifMetagenerationMatch={metageneration}"
        return self._ask("PATCH", path, "change", self._root, "storage.buckets.update", changes)

    def _ask(
        self,
        method: str,
        path: str,
        verb: str,
        uri: str,
        permission: str,
        document: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        body = Body([json.dumps(document).encode()]) if document is not None else None
        headers = {"content-type": "application/json", "content-length": str(body.size)} if body else {}

        def attempt() -> dict[str, Any]:
            answer = self._client.send(method, f"{self._path}{path}", headers, body)
            if answer.status == 412 and not is_policy(answer):
                raise StoreUnavailableError(
                    f"{uri} was changed by someone else since it was read. Nothing was changed: try again.",
                    uri=uri,
                    status=412,
                )
            self._check(answer, verb, uri, permission)
            return _document(answer)

        return self._retry(attempt, verb, uri)

    def _find(self, name: str) -> Stored | None:
        answer = self._client.send("GET", self._object(name))
        if answer.status == 404:
            return None
        self._check(answer, "describe", self._uri(name), "storage.objects.get")
        return _stored(_document(answer), self._uri(name))

    def _delete(self, name: str, generation: str) -> bool:
        # fake-gcs-server ignores ifGenerationMatch here, and would delete a newer object; both honour
        # `generation`.
        answer = self._client.send("DELETE", f"{self._object(name)}?generation={generation}")
        if answer.status == 404:
            return False
        self._check(answer, "delete", self._uri(name), "storage.objects.delete")
        return True

    def _check(self, answer: Answer, verb: str, uri: str, permission: str) -> None:
        if answer.status >= 300:
            refuse(answer, Request(verb, uri, permission, self._name, self._conn_id))

    def _retry(self, attempt: Callable[[], _T], verb: str, uri: str, seconds: float | None = None) -> _T:
        limit = self._seconds if seconds is None else min(seconds, self._seconds)
        return retrying(attempt, verb, uri, limit, self._client.endpoint)

    def _object(self, name: str) -> str:
        return f"{self._path}/o/{quote(name, safe='')}"

    def _uri(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _name_of(self, uri: str) -> str:
        return uri.removeprefix(f"{self._root}/")


class _UnfinishedCopy(Exception):
    """Holds the token to go on with."""


def _exists(uri: str) -> PayloadExistsError:
    return PayloadExistsError(
        f"{uri} exists already and was not overwritten. {PayloadExistsError.advice}.", uri=uri
    )


def _check_head(response: urllib3.BaseHTTPResponse, stored: Stored, has_range: bool) -> bool:
    """Compare what the server states of the whole object; tell whether it states the CRC32C."""
    headers = response.headers
    size = headers.get("content-length", "")
    if has_range:
        size = headers.get("content-range", "").rpartition("/")[2]
    if size.isdecimal():
        stored.check(size=int(size))
    hashes = dict(item.strip().partition("=")[::2] for item in headers.get("x-goog-hash", "").split(","))
    if hashes.get("crc32c", _as_base64(stored.crc32c)) != _as_base64(stored.crc32c):
        raise PayloadCorruptError("has another CRC32C than what was written", uri=stored.uri)
    return "crc32c" in hashes


def _document(answer: Answer) -> dict[str, Any]:
    try:
        found = json.loads(answer.data)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        # A proxy's page says nothing about what the server did.
        raise Transient("the response is not a resource of the API")
    return found


def _stored(document: dict[str, Any], uri: str) -> Stored:
    """Read an object resource. Servers leave out zeros, so an empty object may have no size."""
    found = document.get("resource", document)
    size = int(found.get("size", 0))
    if "generation" not in found or (size and "crc32c" not in found):
        raise Transient("the response is not a resource of the API")
    crc32c = base64.b64decode(found["crc32c"]).hex() if "crc32c" in found else _EMPTY_CRC32C
    return Stored(uri, str(found["generation"]), size, crc32c)


def _as_base64(crc32c: str) -> str:
    return base64.b64encode(bytes.fromhex(crc32c)).decode()
