"""A link to a bucket: counts requests, waits before each of them, and limits the rate of each connection.

A process of its own, so that none of its work counts as the candidate's. It listens on a free port of
the loopback interface, which it prints, and ends when its standard input does.

    GET /-/count            how many requests came since the last time it was asked
    GET /-/sent             how many bytes of bodies went to the client since the last time it was asked
    GET /-/uploaded         seconds from the first of these to the answer to the last upload
    GET /-/link/0.02/0/1e8  from now on: seconds before each request is passed on, and the bytes a second
                            that each connection carries to the server and to the client; 0: no limit

Usage: ``python proxy.py PORT_OF_THE_SERVER``
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from contextlib import suppress

_PIECE_BYTES = 256 * 1024


class Proxy:
    """HTTP/1.1 from one connection of the client to one of the server's, a request at a time."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.delay_seconds = self.rate_up = self.rate_down = 0.0
        self.count = self.sent = 0
        self.began = self.uploaded = 0.0
        self.lock = threading.Lock()

    def serve(self, client: socket.socket) -> None:
        """Pass on what one client asks, until it closes its connection."""
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self.port)) as server:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while head := _head(client):
                method, path, _ = head.split(b" ", 2)
                if path.startswith(b"/-/"):
                    text = self._control(path.decode())
                    client.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text))
                    continue
                with self.lock:
                    self.began = self.began if self.count else time.monotonic()
                    self.count += 1
                time.sleep(self.delay_seconds)
                server.sendall(head)
                _pass_body(head, client, server, self.rate_up)
                answer = _head(server)
                client.sendall(answer)
                status = int(answer.split(b" ", 2)[1])
                if method != b"HEAD" and status not in (204, 304):
                    sent = _pass_body(answer, server, client, self.rate_down)
                    with self.lock:
                        self.sent += sent
                if path.startswith(b"/upload/"):
                    self.uploaded = time.monotonic()

    def _control(self, path: str) -> bytes:
        _, _, verb, *values = path.split("/")
        if verb == "link":
            self.delay_seconds, self.rate_up, self.rate_down = map(float, values)
            return b""
        if verb == "uploaded":
            return str(self.uploaded - self.began).encode()
        with self.lock:
            if verb == "sent":
                found, self.sent = self.sent, 0
            else:
                found, self.count = self.count, 0
        return str(found).encode()


def _head(end: socket.socket) -> bytes:
    """Read to the end of the head and not a byte further."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        seen = end.recv(65536, socket.MSG_PEEK)
        if not seen:
            return b""
        both = head[-3:] + seen
        place = both.find(b"\r\n\r\n")
        take = len(seen) if place < 0 else place + 4 - len(head[-3:])
        head += end.recv(take)
    return head


def _pass_body(head: bytes, source: socket.socket, target: socket.socket, rate: float) -> int:
    fields = {}
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        fields[name.strip().lower()] = value.strip().lower()
    if fields.get(b"transfer-encoding") != b"chunked":
        size = int(fields.get(b"content-length", b"0"))
        _pass(source, target, size, rate)
        return size
    passed = 0
    while True:
        line = b""
        while not line.endswith(b"\r\n"):
            line += source.recv(1)
        target.sendall(line)
        size = int(line, 16)
        _pass(source, target, size + 2, rate)
        passed += size
        if not size:
            return passed


def _pass(source: socket.socket, target: socket.socket, size: int, rate: float) -> None:
    buffer = memoryview(bytearray(min(size, _PIECE_BYTES)))
    began, passed = time.monotonic(), 0
    while passed < size:
        count = source.recv_into(buffer[: size - passed])
        if not count:
            raise ConnectionError
        target.sendall(buffer[:count])
        passed += count
        if rate:
            time.sleep(max(0.0, began + passed / rate - time.monotonic()))


def main(port: int) -> None:
    """Serve until standard input ends."""
    proxy = Proxy(port)
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    print(listener.getsockname()[1], flush=True)

    def accept() -> None:
        while True:
            threading.Thread(target=proxy.serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]))
