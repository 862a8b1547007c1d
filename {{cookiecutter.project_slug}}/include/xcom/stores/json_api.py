"""The JSON API of Cloud Storage for one bucket: each method is one request, tried again where that helps.

Over ``urllib3``, which a task has loaded already: every task is a new process, so the time that a
client library takes to import is paid by every task (docs/decisions.md).
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import urllib3

from ..errors import (
    PayloadCorruptError,
    PayloadExistsError,
    PayloadMissingError,
    StoreUnavailableError,
)
from . import refusals
from .checksums import Checksum, checksum, joined_checksum
from .contract import PAGE_OBJECTS, Stored
from .credentials import Tokens
from .refusals import Request
from .retries import retrying
from .transport import Answer, Body, Client, Damaged, Transient, Unreachable, chunks, open_pool, reason

__all__ = ["Bucket", "RangeIgnoredError"]

_T = TypeVar("_T")

# Deleting is housekeeping: it must not hold a task for as long as a payload may.
_DELETE_SECONDS = 15.0
_EMPTY_CRC32C = "00000000"

Sink = Callable[[int, bytes], object]
"""Takes the offset of some bytes within the object, and the bytes. Called again after a retry."""


class RangeIgnoredError(Exception):
    """The server, or a proxy before it, answered a request for a range with the whole object."""


class Bucket:
    """One bucket and its objects. Thread-safe; not to be used after a fork. Making one sends nothing.

    Args:
        name: Without ``gs://``.
        endpoint: URL of Cloud Storage, for when ``STORAGE_EMULATOR_HOST`` is not set.
        conn_id: Airflow connection with the credentials.
        connections: Most at once that are kept open.
        seconds: Limit for one request with its retries.
        scope: OAuth scope of tokens; "" for reading and writing objects.

    Attributes:
        uri: ``gs://{name}``.
        account: E-mail of the service account, once a request was sent; "" if there is none.

    Raises:
        StoreUnavailableError: The endpoint is no URL, or the connection cannot be read.
    """

    def __init__(
        self, name: str, *, endpoint: str, conn_id: str, connections: int, seconds: float, scope: str = ""
    ) -> None:
        self.name = name
        self.uri = f"gs://{name}"
        self._conn_id = conn_id
        self._seconds = seconds
        # The same variable as Google's client libraries read, and as with them: no credentials.
        emulator = os.environ.get("STORAGE_EMULATOR_HOST", "").rstrip("/")
        if emulator:
            endpoint = emulator if "://" in emulator else f"http://{emulator}"
        try:
            pool = open_pool(endpoint, connections)
        except ValueError as error:
            raise self._unreachable(endpoint, error) from error
        self._path = f"/storage/v1/b/{name}"
        self._tokens = None if emulator else Tokens(pool, conn_id, scope)
        self._client = Client(endpoint, pool, self._tokens)

    @property
    def account(self) -> str:
        return self._tokens.account if self._tokens else ""

    # ------------------------------------------------------------------------------ creating objects

    def insert(self, name: str, body: Body) -> Stored:
        """Create an object from bytes in memory."""
        crc32c = checksum(body.parts)
        path = f"/upload{self._path}/o?uploadType=media&name={quote(name, safe='')}&ifGenerationMatch=0"
        headers = {
            "content-type": "application/octet-stream",
            "content-length": str(body.size),
            "x-goog-hash": f"crc32c={_as_base64(crc32c)}",
        }
        return self._create(
            Stored(self._uri(name), "", body.size, crc32c),
            lambda: self._client.send("POST", path, headers, body),
        )

    def compose(self, name: str, sources: Sequence[Stored]) -> Stored:
        """Create an object from at most 32 others, one after the other.

        Raises:
            StoreUnavailableError: Also where a source is gone.
        """
        parts = [{"name": self.name_of(one.uri), "generation": one.generation} for one in sources]
        body = Body([json.dumps({"sourceObjects": parts}).encode()])
        headers = {"content-type": "application/json", "content-length": str(body.size)}

        def send() -> Answer:
            try:
                answer = self._client.send(
                    "POST", f"{self._object(name)}/compose?ifGenerationMatch=0", headers, body
                )
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
        """Create an object from another one. A large one takes several requests."""
        path = (
            f"{self._object(self.name_of(source.uri))}/rewriteTo/b/{self.name}/o/{quote(name, safe='')}"
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
        name = self.name_of(wanted.uri)
        tries = 0
        damaged: set[str] = set()

        def attempt() -> Stored:
            nonlocal tries
            tries += 1
            answer = send()
            if answer.status != 412 or refusals.is_policy(answer):
                self._check(answer, verb, source or wanted.uri, "storage.objects.create")
                found = _stored(_document(answer), wanted.uri)
                if found._replace(generation="") == wanted._replace(generation=""):
                    return found
                damaged.add(found.generation)
            else:
                # Nothing of ours can be there at the first try.
                there = self._find(name) if tries > 1 else None
                if there is None and tries > 1:
                    raise Transient("an object of that name was there and is gone")
                if there and there._replace(generation="") == wanted._replace(generation=""):
                    return there
                if there is None or there.generation not in damaged:
                    raise PayloadExistsError(
                        f"{wanted.uri} exists already and was not overwritten. Names are unique for each "
                        "try: this is a replayed request or a bug.",
                        uri=wanted.uri,
                    )
                found = there
            # Nobody has a reference to it.
            self._delete(name, found.generation)
            raise Damaged(
                f"the server received CRC32C {found.crc32c} ({found.size} bytes), and {wanted.crc32c} "
                f"({wanted.size} bytes) was sent"
            )

        return self._retry(attempt, verb, wanted.uri)

    def _check_sources(self, sources: Sequence[Stored]) -> None:
        wanted = {(self.name_of(one.uri), one.generation) for one in sources}
        prefix = os.path.commonprefix([name for name, _ in wanted])
        found = {
            (one["name"], str(one["generation"]))
            for page in self.pages(prefix)
            for one in page.get("items", [])
        }
        if gone := wanted - found:
            uri = self._uri(min(gone)[0])
            raise StoreUnavailableError(
                f"A part of the upload was deleted before it was used, by a lifecycle rule, a sweep, or a "
                f"person: {uri}. Nothing was stored. Raise the age at which they delete above the time an "
                "upload takes, then clear the task.",
                uri=uri,
            )

    # ------------------------------------------------------------------------------- reading objects

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

        Args:
            stored: The object; its size and checksum are compared with what the server states.
            start: Offset of the first byte.
            stop: Offset behind the last byte, at most the size.
            sink: See ``Sink``.
            seconds: Less than the limit for other requests.
            is_whole_accepted: Whether to read, and mostly drop, the whole object where the server
                ignores the range (RFC 9110 allows it).

        Raises:
            RangeIgnoredError: The server ignored the range.
            PayloadMissingError: That generation is gone.
            PayloadCorruptError: Its size or checksum is another.
            StoreUnavailableError: It could not be read in time.
        """
        uri = stored.uri
        is_range = (start, stop) != (0, stored.size)
        headers = {"range": f"bytes={start}-{stop - 1}"} if is_range else {}
        path = f"/download{self._object(self.name_of(uri))}?alt=media&generation={stored.generation}"

        def attempt() -> str:
            with self._client.stream("GET", path, headers) as response:
                if response.status not in (200, 206) or (response.status == 206 and not is_range):
                    answer = Answer(response.status, response.headers, b"".join(chunks(response)))
                    if response.status == 416:
                        raise PayloadCorruptError("is shorter than what was written", uri=uri)
                    self._check(answer, "read", uri, "storage.objects.get")
                    raise Transient(f"HTTP {response.status} was not asked for")
                stated = _check_head(response, stored)
                if response.status == 200 and is_range and not is_whole_accepted:
                    raise RangeIgnoredError
                offset = start if response.status == 206 else 0
                total = Checksum()
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
                if stated:
                    raise Damaged(f"CRC32C {total} arrived, and the server sent {stored.crc32c}")
                raise PayloadCorruptError("has another CRC32C than what was written", uri=uri)
            return str(total)

        return self._retry(attempt, "read", uri, seconds)

    def describe(self, uri: str) -> Stored:
        """Ask for the newest generation of an object."""

        def attempt() -> Stored:
            found = self._find(self.name_of(uri))
            if found is None:
                raise PayloadMissingError("the server has no such object", uri=uri)
            return found

        return self._retry(attempt, "describe", uri)

    def pages(self, prefix: str, start: str = "", delimiter: str = "") -> Iterator[dict[str, Any]]:
        """Yield pages of a listing, in the order of names."""
        query = {
            "prefix": prefix,
            "maxResults": str(PAGE_OBJECTS),
            "fields": "nextPageToken,prefixes,items(name,size,generation,timeCreated)",
            **({"startOffset": start} if start else {}),
            **({"delimiter": delimiter} if delimiter else {}),
        }
        while True:
            page = self._ask(
                "GET", f"/o?{urlencode(query)}", "list", self._uri(prefix), "storage.objects.list"
            )
            yield page
            if not page.get("nextPageToken"):
                return
            query["pageToken"] = page["nextPageToken"]

    # ------------------------------------------------------------------------------------- the rest

    def delete(self, uri: str, generation: str) -> bool:
        """Delete exactly one generation; tell whether it was there."""
        return self._retry(
            lambda: self._delete(self.name_of(uri), generation), "delete", uri, _DELETE_SECONDS
        )

    def metadata(self) -> dict[str, Any]:
        """Return the bucket resource."""
        return self._ask("GET", "", "read the settings of", self.uri, "storage.buckets.get")

    def update(self, changes: Mapping[str, Any], metageneration: str) -> dict[str, Any]:
        """Change the bucket unless it was changed since; return the bucket resource."""
        query = f"?ifMetagenerationMatch={metageneration}"
        return self._ask(
            "PATCH", query, "change", self.uri, "storage.buckets.update", json.dumps(changes).encode()
        )

    def _ask(
        self, method: str, path: str, verb: str, uri: str, permission: str, document: bytes = b""
    ) -> dict[str, Any]:
        body = Body([document]) if document else None
        headers = {"content-type": "application/json", "content-length": str(len(document))}

        def attempt() -> dict[str, Any]:
            answer = self._client.send(method, f"{self._path}{path}", headers if body else None, body)
            if answer.status == 412:
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
        if answer.status == 404 and "bucket" not in reason(answer):
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
            refusals.refuse(answer, Request(verb, uri, permission, self.name, self._conn_id))

    def _retry(self, attempt: Callable[[], _T], verb: str, uri: str, seconds: float | None = None) -> _T:
        limit = self._seconds if seconds is None else min(seconds, self._seconds)
        try:
            return retrying(attempt, verb, uri, limit, self._client.endpoint)
        except Unreachable as error:
            raise self._unreachable(self._client.endpoint, error) from error

    def _unreachable(self, endpoint: str, error: Exception) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"No connection to {endpoint}: {error}. Check STORAGE_EMULATOR_HOST and the proxy variables; "
            "the certificate of a proxy that inspects TLS goes into REQUESTS_CA_BUNDLE. Nothing was stored "
            f"in or read from {self.uri}.",
            uri=self.uri,
        )

    def _object(self, name: str) -> str:
        return f"{self._path}/o/{quote(name, safe='')}"

    def _uri(self, name: str) -> str:
        return f"{self.uri}/{name}"

    def name_of(self, uri: str) -> str:
        """Return the name of an object of this bucket."""
        return uri.removeprefix(f"{self.uri}/")


class _UnfinishedCopy(Exception):
    """Holds the token with which to go on."""


def _check_head(response: urllib3.BaseHTTPResponse, stored: Stored) -> bool:
    """Compare what the server states of a whole object; tell whether it states the CRC32C."""
    headers = response.headers
    size = headers.get("content-length", "")
    if response.status == 206:
        size = headers.get("content-range", "").rpartition("/")[2]
    if size.isdecimal() and int(size) != stored.size:
        raise PayloadCorruptError(f"is {size} bytes long, and {stored.size} were written", uri=stored.uri)
    hashes = dict(item.strip().partition("=")[::2] for item in headers.get("x-goog-hash", "").split(","))
    if "crc32c" in hashes and hashes["crc32c"] != _as_base64(stored.crc32c):
        raise PayloadCorruptError("has another CRC32C than what was written", uri=stored.uri)
    return "crc32c" in hashes


def _document(answer: Answer) -> dict[str, Any]:
    try:
        found = json.loads(answer.data)
        if isinstance(found, dict):
            return found
    except ValueError:
        pass
    # A proxy's page says nothing about what the server did.
    raise Transient("the response is not a resource of the API")


def _stored(document: dict[str, Any], uri: str) -> Stored:
    """Read an object resource. Servers leave out zeros, so an empty object may have no size."""
    found = document.get("resource", document)
    size = int(found.get("size", 0))
    if "generation" not in found or (size and "crc32c" not in found):
        raise Transient("the response is not an object resource")
    crc32c = base64.b64decode(found["crc32c"]).hex() if "crc32c" in found else _EMPTY_CRC32C
    return Stored(uri, str(found["generation"]), size, crc32c)


def _as_base64(crc32c: str) -> str:
    return base64.b64encode(bytes.fromhex(crc32c)).decode()
