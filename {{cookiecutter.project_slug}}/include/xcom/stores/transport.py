"""HTTP to Cloud Storage, with one time limit over connecting, sending, waiting, receiving, and tokens."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from ..errors import StoreUnavailableError
from .contract import Buffer

__all__ = [
    "TRANSIENT_STATUSES",
    "Answer",
    "Body",
    "Client",
    "Damaged",
    "Transient",
    "chunks",
    "open_pool",
    "reason",
    "remaining",
    "retry_after",
    "time_limit",
]

_T = TypeVar("_T")

# What a client should try again: https://cloud.google.com/storage/docs/retry-strategy
TRANSIENT_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
_CONNECT_SECONDS = 10.0
_LONGEST_SECONDS = 86_400.0  # Sockets refuse an infinite timeout.
# A connection that is silent for this part of the limit is given up: a dead one (a NAT that forgot it,
# a host that vanished) must leave time for another try.
_SILENT_PART = 1 / 3
_SEND_BYTES = 256 * 1024
_RECEIVE_BYTES = 1024 * 1024


class Transient(Exception):
    """A later try may work.

    Args:
        message: What happened.
        wait_seconds: How long the server asks to wait at least.
    """

    def __init__(self, message: str, wait_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


class Damaged(Transient):
    """Bytes were altered in transit."""


class _Limit(NamedTuple):
    deadline: float
    silent_seconds: float


# A single request still ends.
_UNLIMITED = _Limit(float("inf"), 30.0)
_limit: ContextVar[_Limit] = ContextVar("limit", default=_UNLIMITED)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Let no request that this thread makes within the block last longer than ``seconds`` from now."""
    deadline = min(_limit.get().deadline, time.monotonic() + seconds)
    token = _limit.set(_Limit(deadline, seconds * _SILENT_PART))
    try:
        yield
    finally:
        _limit.reset(token)


def remaining() -> float:
    """Return the seconds left.

    Raises:
        Transient: None are.
    """
    seconds = _limit.get().deadline - time.monotonic()
    if seconds <= 0:
        raise Transient("the time is up")
    return min(seconds, _LONGEST_SECONDS)


class Body:
    """The bytes of a request: sent from the start at each try, and never copied.

    Attributes:
        parts: One after the other.
        size: Bytes in all.
    """

    def __init__(self, parts: Sequence[Buffer]) -> None:
        self.parts = [memoryview(part).cast("B") for part in parts]
        self.size = sum(len(part) for part in self.parts)

    def __iter__(self) -> Iterator[memoryview]:
        for part in self.parts:
            for start in range(0, len(part), _SEND_BYTES):
                remaining()
                yield part[start : start + _SEND_BYTES]

    def split(self, size: int) -> Iterator[Body]:
        """Yield bodies of ``size`` bytes, the last one shorter, that share this one's memory."""
        taken: list[Buffer] = []
        room = size
        for part in self.parts:
            while part:
                taken.append(part[:room])
                part = part[len(taken[-1]) :]
                room -= len(taken[-1])
                if not room:
                    yield Body(taken)
                    taken, room = [], size
        if taken:
            yield Body(taken)


class Answer(NamedTuple):
    """A response that was read whole."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class Client:
    """Sends requests to one endpoint. Thread-safe; not to be used after a fork.

    Args:
        endpoint: URL without a path.
        pool: Connections.
        authorize: See ``credentials.Tokens``; None for requests without a token.
    """

    def __init__(
        self, endpoint: str, pool: urllib3.PoolManager, authorize: Callable[..., str] | None
    ) -> None:
        self.endpoint = endpoint
        self._pool = pool
        self._authorize = authorize

    def send(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: Body | None = None
    ) -> Answer:
        """Send one request and read the response.

        Raises:
            Transient: No connection, or a response of ``TRANSIENT_STATUSES``.
            StoreUnavailableError: No try will work: the address or the certificate is wrong.
        """
        with self.stream(method, path, headers, body) as response:
            return _read(response)

    @contextmanager
    def stream(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: Body | None = None
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """Send one request; yield the response, whose body ``chunks`` reads. Raises as ``send``."""
        response, token = self._exchange(method, path, headers or {}, body)
        if response.status == 401 and token:
            # It may have been revoked before its time.
            response.close()
            response, _ = self._exchange(method, path, headers or {}, body, refused=token)
        try:
            if response.status in TRANSIENT_STATUSES:
                said = f"HTTP {response.status} {reason(_read(response))}".rstrip()
                raise Transient(said, retry_after(response.headers))
            yield response
        finally:
            # A connection whose response was read to its end is back in the pool already.
            response.close()

    def _exchange(
        self, method: str, path: str, headers: Mapping[str, str], body: Body | None, refused: str = ""
    ) -> tuple[urllib3.BaseHTTPResponse, str]:
        url = f"{self.endpoint}{path}"
        sent = dict(headers)
        token = self._authorize(method, url, sent, refused=refused) if self._authorize else ""
        silent = min(remaining(), _limit.get().silent_seconds)
        try:
            response = self._pool.urlopen(
                method,
                url,
                body=body,
                headers=sent,
                # The first is also the limit of each send.
                timeout=urllib3.Timeout(connect=min(_CONNECT_SECONDS, silent), read=silent),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except urllib3.exceptions.HTTPError as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
                cause = cause.__cause__ or cause.__context__
            if cause is not None or isinstance(error, urllib3.exceptions.LocationValueError):
                raise _unreachable(self.endpoint, cause or error) from error
            raise Transient(f"{type(error).__name__}: {error}") from error
        return response, token


def chunks(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """Yield a response's body as it arrives.

    Raises:
        Transient: It ended early, or the time is up.
    """
    count = 0
    try:
        while data := response.read1(_RECEIVE_BYTES):
            yield data
            count += len(data)
            remaining()
    except urllib3.exceptions.HTTPError as error:
        raise Transient(f"the response broke off after {count} bytes: {error}") from error


def _read(response: urllib3.BaseHTTPResponse) -> Answer:
    return Answer(response.status, response.headers, b"".join(chunks(response)))


def open_pool(url: str, connections: int) -> urllib3.PoolManager:
    """Return a pool of connections, through the proxy that the environment names for ``url``.

    ``HTTPS_PROXY``, ``HTTP_PROXY``, ``NO_PROXY`` and ``REQUESTS_CA_BUNDLE`` are honoured, as by
    Google's client libraries.

    Raises:
        StoreUnavailableError: One of these is no URL.
    """
    options: dict[str, Any] = {"maxsize": connections, "retries": False}
    if bundle := os.environ.get("REQUESTS_CA_BUNDLE"):
        options["ca_certs"] = bundle
    try:
        target = urlsplit(url)
        proxy = getproxies_environment().get(target.scheme)
        if proxy and not proxy_bypass(target.hostname or ""):
            parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
            if parts.username:
                login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
                options["proxy_headers"] = urllib3.make_headers(proxy_basic_auth=login)
            pool: urllib3.PoolManager = urllib3.ProxyManager(parts.geturl(), **options)
        else:
            pool = urllib3.PoolManager(**options)
    except ValueError as error:
        raise _unreachable(url, error) from error
    pool.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
    return pool


def _unreachable(endpoint: str, error: BaseException) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"No connection to {endpoint}: {error}. Check STORAGE_EMULATOR_HOST and the proxy variables; the "
        "certificate of a proxy that inspects TLS goes into REQUESTS_CA_BUNDLE. Nothing was stored or read."
    )


def reason(answer: Answer | urllib3.BaseHTTPResponse) -> str:
    """Return the server's own words, at most a line of them."""
    try:
        message = json.loads(answer.data)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        is_text = answer.headers.get("content-type", "").startswith("text/plain")
        message = answer.data.decode(errors="replace") if is_text else ""
    return " ".join(str(message or http.client.responses.get(answer.status, "")).split())[:300]


def retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds that the server asks to wait; 0 if it does not, or not legibly."""
    try:
        return urllib3.Retry().parse_retry_after(headers.get("retry-after", "0"))
    except urllib3.exceptions.InvalidHeader:
        return 0.0


def _within_limit(connection: http.client.HTTPConnection, wait: Callable[[], _T]) -> _T:
    # A read timeout starts anew with each byte, so a head that trickles in could take for ever. Where
    # the read timeout works it comes first: its error says more.
    timer = threading.Timer(remaining() + 0.1, _shut_down, [connection.sock])
    timer.daemon = True
    timer.start()
    try:
        return wait()
    finally:
        timer.cancel()


def _shut_down(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


class _HTTPConnection(HTTPConnection):
    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
        return _within_limit(self, super().getresponse)


class _HTTPSConnection(HTTPSConnection):
    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
        return _within_limit(self, super().getresponse)


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection
