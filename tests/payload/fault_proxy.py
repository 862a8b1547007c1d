"""A proxy between a store and the real server that does to requests what networks do.

Every request that no fault is planned for goes through unchanged. A fault is a function of one
``Exchange``; the functions below make the usual ones::

    proxy.plan(answer(503), reset, lose_response)      # the next three requests, one each
    proxy.plan(answer(403), always=True)               # this one and all that follow
    proxy.plan(flip_upload, method="POST")             # the next POST
    proxy.plan(lose_response, path="/compose?")        # the next request to such a path
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlsplit

Fault = Callable[["Exchange"], None]


@dataclass
class Exchange:
    """One request on its way.

    Attributes:
        target: Path and query.
        headers: Names in lower case.
    """

    proxy: FaultProxy
    client: socket.socket
    reader: Any
    method: str
    target: str
    headers: dict[str, str]
    keep_open: bool = True
    body: bytes | None = None

    def read_body(self) -> bytes:
        """Return the request's body."""
        if self.body is None:
            self.body = bytes(self.reader.read(int(self.headers.get("content-length", "0"))))
        return self.body

    def forward(self, body: bytes) -> tuple[bytes, bytes]:
        """Ask the real server; return the head and the body of its answer."""
        upstream = http.client.HTTPConnection(*self.proxy.upstream, timeout=30)
        try:
            headers = {**self.headers, "content-length": str(len(body))}
            upstream.request(self.method, self.target, body, headers)
            response = upstream.getresponse()
            content = response.read()
            lines = [f"HTTP/1.1 {response.status} {response.reason}"]
            lines += [
                f"{name}: {value}"
                for name, value in response.getheaders()
                if name.lower() not in ("connection", "transfer-encoding", "content-length")
            ]
            lines += [f"content-length: {len(content)}", "", ""]
            return "\r\n".join(lines).encode("latin-1"), content
        finally:
            upstream.close()

    def send(self, data: bytes) -> None:
        """Send bytes to the client."""
        self.client.sendall(data)

    def reset(self) -> None:
        """Break the connection with an RST."""
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.keep_open = False

    def end(self) -> None:
        """End the connection as a server does that is done."""
        self.keep_open = False


class FaultProxy:
    """Listens on a free loopback port; a context manager.

    Args:
        upstream: URL of the real server.
        tls: Speak TLS to clients.

    Attributes:
        requests: ``(method, target, headers)`` of all requests, in the order of their arrival.
        connections: Number of connections accepted.
        in_flight: Number of requests that are unanswered.
        most_in_flight: Most requests that were unanswered at one time.
        latency_seconds: Added to each request.
        default: What happens to requests that no fault is planned for.
    """

    def __init__(self, upstream: str, tls: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(upstream)
        self.upstream = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.connections = 0
        self.most_in_flight = 0
        self.latency_seconds = 0.0
        self.default: Fault = through
        self.closing = threading.Event()
        self.in_flight = 0
        self._planned: list[tuple[str, str, Fault, bool]] = []
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._tls = tls
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.closing.set()
        self._listener.close()
        for client in self._sockets:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def plan(self, *faults: Fault, method: str = "", path: str = "", always: bool = False) -> None:
        """Let the next requests (of ``method``, with ``path`` in their target) meet these faults in order."""
        self._planned += [(method, path, fault, always) for fault in faults]

    def count(self, method: str = "", path: str = "") -> int:
        """Return how many requests (of ``method``, with ``path`` in their target) arrived."""
        return sum(method in ("", verb) and path in target for verb, target, _ in self.requests)

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._sockets.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls:
            try:
                client = self._tls.wrap_socket(client, server_side=True)
            except OSError:
                return
        # Errors here are the client's going away, which faults provoke.
        with client, client.makefile("rb") as reader, contextlib.suppress(OSError, ValueError):
            while (exchange := self._next(client, reader)) and exchange.keep_open:
                pass

    def _next(self, client: socket.socket, reader: Any) -> Exchange | None:
        line = reader.readline()
        if not line:
            return None
        method, target, _ = line.decode("latin-1").split(" ", 2)
        headers = {}
        while (line := reader.readline().strip()) != b"":
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        exchange = Exchange(self, client, reader, method, target, headers)
        with self._lock:
            self.requests.append((method, target, headers))
            fault = self._take(method, target)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            time.sleep(self.latency_seconds)
            fault(exchange)
        finally:
            with self._lock:
                self.in_flight -= 1
        return exchange

    def _take(self, method: str, target: str) -> Fault:
        for place, (wanted, path, fault, always) in enumerate(self._planned):
            if wanted in ("", method) and path in target:
                if not always:
                    del self._planned[place]
                return fault
        return self.default


def through(exchange: Exchange) -> None:
    """Do nothing to a request."""
    head, body = exchange.forward(exchange.read_body())
    exchange.send(head + body)


def answer(status: int, body: bytes = b"", **headers: str) -> Fault:
    """Answer in the server's place, after the request was read; it never reaches the server."""

    def fault(exchange: Exchange) -> None:
        exchange.read_body()
        lines = [f"HTTP/1.1 {status} {http.client.responses[status]}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        lines += [f"content-length: {len(body)}", "", ""]
        exchange.send("\r\n".join(lines).encode() + body)

    return fault


def reset(exchange: Exchange) -> None:
    """Reset the connection instead of an answer; the server never hears of the request."""
    exchange.read_body()
    exchange.reset()


def reset_in_request(exchange: Exchange) -> None:
    """Reset the connection while the request's body is on its way."""
    exchange.reader.read(10_000)
    exchange.reset()


def lose_response(exchange: Exchange) -> None:
    """Let the server do its work and the client never learn of it."""
    exchange.forward(exchange.read_body())
    exchange.reset()


def flip_upload(exchange: Exchange) -> None:
    """Change one bit on the way to the server."""
    exchange.send(b"".join(exchange.forward(_flipped(exchange.read_body()))))


def flip_download(exchange: Exchange) -> None:
    """Change one bit on the way from the server."""
    head, body = exchange.forward(exchange.read_body())
    exchange.send(head + _flipped(body))


def reset_in_answer(exchange: Exchange) -> None:
    """Reset the connection in the middle of the answer's body."""
    head, body = exchange.forward(exchange.read_body())
    exchange.send(head + body[: len(body) // 2])
    time.sleep(0.05)  # An RST overtakes what the client has not read yet.
    exchange.reset()


def cut_answer(exchange: Exchange) -> None:
    """Close the connection cleanly in the middle of the answer's body."""
    head, body = exchange.forward(exchange.read_body())
    exchange.send(head + body[: len(body) // 2])
    exchange.end()


def garble_answer(exchange: Exchange) -> None:
    """Let the server do its work, and answer with a page of somebody else."""
    exchange.forward(exchange.read_body())
    exchange.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 13\r\n\r\n<html></html>")


def black_hole(exchange: Exchange) -> None:
    """Read the request and never answer."""
    exchange.read_body()
    exchange.proxy.closing.wait()
    exchange.end()


def stop_reading(exchange: Exchange) -> None:
    """Stop to read in the middle of the request's body."""
    exchange.reader.read(1000)
    exchange.proxy.closing.wait()
    exchange.end()


def drip(pause_seconds: float, *, size: int = 1, head_too: bool = False) -> Fault:
    """Send the answer's body (and its head) ``size`` bytes at a time."""

    def fault(exchange: Exchange) -> None:
        head, body = exchange.forward(exchange.read_body())
        if not head_too:
            exchange.send(head)
        rest = head + body if head_too else body
        for start in range(0, len(rest), size):
            exchange.send(rest[start : start + size])
            if exchange.proxy.closing.wait(pause_seconds):
                break

    return fault


def not_found(exchange: Exchange) -> None:
    """Answer as Cloud Storage does when it has no such object; fake-gcs-server says less."""
    bucket, _, name = exchange.target.partition("/b/")[2].partition("?")[0].partition("/o/")
    answer(404, f"No such object: {bucket}/{unquote(name)}".encode(), content_type="text/plain")(exchange)


def edit_head(old: bytes, new: bytes) -> Fault:
    """Replace text in the answer's head."""

    def fault(exchange: Exchange) -> None:
        head, body = exchange.forward(exchange.read_body())
        exchange.send(head.replace(old, new) + body)

    return fault


def edit_body(old: bytes, new: bytes) -> Fault:
    """Replace text in the answer's body."""

    def fault(exchange: Exchange) -> None:
        head, body = exchange.forward(exchange.read_body())
        changed = body.replace(old, new)
        length = f"content-length: {len(body)}".encode()
        exchange.send(head.replace(length, f"content-length: {len(changed)}".encode()) + changed)

    return fault


def as_cloud_storage(exchange: Exchange) -> None:
    """Refuse to replace an object by compose and rewrite, and to compose what is gone.

    Cloud Storage does; fake-gcs-server ignores ``ifGenerationMatch`` there, and answers 500 to a
    missing source.
    """
    body = exchange.read_body()
    path = urlsplit(exchange.target).path
    if "/rewriteTo/" in path:
        target, sources = path.partition("/rewriteTo")[2], []
    else:
        target = path.removeprefix("/storage/v1").removesuffix("/compose")
        objects = target.rpartition("/")[0]
        sources = [f"{objects}/{quote(one['name'], safe='')}" for one in json.loads(body)["sourceObjects"]]
    if _exists(exchange, target):
        answer(412, b'{"error": {"message": "At least one of the pre-conditions did not hold."}}')(exchange)
    elif not all(_exists(exchange, source) for source in sources):
        answer(404, b'{"error": {"message": "Object not found."}}')(exchange)
    else:
        exchange.send(b"".join(exchange.forward(body)))


def _exists(exchange: Exchange, path: str) -> bool:
    upstream = http.client.HTTPConnection(*exchange.proxy.upstream, timeout=30)
    try:
        upstream.request("GET", f"/storage/v1{path}")
        return upstream.getresponse().status == 200
    finally:
        upstream.close()


def _flipped(body: bytes) -> bytes:
    place = len(body) // 2
    return body and body[:place] + bytes([body[place] ^ 0x10]) + body[place + 1 :]
