"""HTTP with one time limit over everything: connecting, sending, waiting, receiving, tokens, retries.

``urllib3`` knows a timeout for connecting and one for each receive. A server that sends a byte now
and then, or stops reading in the middle of an upload, could hold a task for hours with these; here
the socket gets what is left of the limit before each send and receive.
"""

from __future__ import annotations

import http.client
import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

__all__ = [
    "TRANSIENT_STATUSES",
    "Transient",
    "body_of",
    "open_pool",
    "reason",
    "remaining",
    "retry_after",
    "time_limit",
]

# https://cloud.google.com/storage/docs/retry-strategy: what a client should try again.
TRANSIENT_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
_CONNECT_SECONDS = 10.0
_LONGEST_SECONDS = 86_400.0
# A connection that is silent for this part of the limit is given up, so that a dead one (a NAT that
# forgot it, a host that vanished) leaves time for others.
_SILENT_PART = 1 / 3


class Transient(Exception):
    """Something that a later try may mend.

    Args:
        message: What happened, for the log.
        wait_seconds: What the server asks to wait at least.
    """

    def __init__(self, message: str, wait_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


class _Limit(NamedTuple):
    deadline: float
    silent_seconds: float


# Outside of any limit a single request still ends.
_limit: ContextVar[_Limit | None] = ContextVar("limit", default=None)
_UNLIMITED = _Limit(float("inf"), 30.0)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Let no request that this thread makes within the block last beyond ``seconds`` from now."""
    token = _limit.set(_Limit(time.monotonic() + seconds, seconds * _SILENT_PART))
    try:
        yield
    finally:
        _limit.reset(token)


def remaining() -> float:
    """Return the seconds that are left.

    Raises:
        Transient: None are.
    """
    seconds = (_limit.get() or _UNLIMITED).deadline - time.monotonic()
    if seconds <= 0:
        raise Transient("the time is up")
    # Sockets refuse an infinite timeout.
    return min(seconds, _LONGEST_SECONDS)


def open_pool(url: str, connections: int) -> urllib3.PoolManager:
    """Return a pool of connections, through the proxy that the environment names for ``url``.

    ``HTTPS_PROXY``, ``HTTP_PROXY``, ``NO_PROXY`` and ``REQUESTS_CA_BUNDLE`` are honoured, as by
    Google's client libraries.
    """
    options: dict[str, Any] = {"maxsize": connections, "retries": False}
    if bundle := os.environ.get("REQUESTS_CA_BUNDLE"):
        options["ca_certs"] = bundle
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
    pool.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
    return pool


def body_of(response: urllib3.BaseHTTPResponse) -> Any:
    """Return what has ``readinto`` for a body that is not compressed.

    That of urllib3 copies every piece from bytes that it makes first; the answer that it wraps,
    ``http.client``'s and ours, fills the buffer from the socket.
    """
    answer = getattr(response, "_fp", None)
    return answer if isinstance(answer, _Answer) else response


def reason(response: urllib3.BaseHTTPResponse) -> str:
    """Return the server's own words, at most a line of them."""
    try:
        message = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        is_text = response.headers.get("content-type", "").startswith("text/plain")
        message = response.data.decode(errors="replace") if is_text else response.reason
    return " ".join(str(message or "").split())[:200]


def retry_after(response: urllib3.BaseHTTPResponse) -> float:
    """Return the seconds that the server asks to wait; 0 if it does not, or not legibly."""
    try:
        return urllib3.Retry().parse_retry_after(response.headers.get("retry-after", "0"))
    except urllib3.exceptions.InvalidHeader:
        return 0.0


def _patience() -> float:
    """Return the timeout of one send or receive; raise what a socket would when the time is up."""
    limit = _limit.get() or _UNLIMITED
    seconds = min(limit.deadline - time.monotonic(), limit.silent_seconds)
    if seconds <= 0:
        raise TimeoutError("the time is up")
    return seconds


class _LimitedReader(io.RawIOBase):
    """What ``socket.makefile`` gives, with a fresh timeout for each receive."""

    def __init__(self, sock: Any, raw: Any) -> None:
        self._sock = sock
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> Any:
        self._sock.settimeout(_patience())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp: Any = io.BufferedReader(_LimitedReader(sock, self.fp.detach()))


class _Limited:
    """Mixed into urllib3's connections."""

    response_class: Any = _Answer
    timeout: Any
    sock: Any

    def connect(self) -> None:
        self.timeout = min(_CONNECT_SECONDS, _patience())
        super().connect()  # type: ignore[misc]

    def send(self, data: Any) -> None:
        if self.sock is not None:
            self.sock.settimeout(_patience())
        super().send(data)  # type: ignore[misc]


class _HTTPConnection(_Limited, HTTPConnection):
    pass


class _HTTPSConnection(_Limited, HTTPSConnection):
    pass


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection
