"""Stands between a candidate and the bucket's server: counts requests and delays each of them.

A process of its own, so that none of its work is counted as the candidate's. It listens on a free
port of the loopback interface, which it prints, and ends when its standard input does.

    GET /-/count        how many requests came since the last time it was asked
    GET /-/delay/0.02   seconds to wait before each request is passed on, from now on
    GET /-/rate/1e8     bytes a second that each connection carries to the client, from now on; 0: all

Usage: ``python proxy.py PORT_OF_THE_SERVER``
"""

from __future__ import annotations

import asyncio
import sys

_LIMIT_BYTES = 2**20


class Proxy:
    """HTTP/1.1 from one connection of the client to one of the server's, a request at a time."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.delay_seconds = 0.0
        self.rate = 0.0
        self.count = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what one client asks, until it closes its connection."""
        upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self.port, limit=_LIMIT_BYTES)
        try:
            while head := await _head(reader):
                method, path, _ = head.split(b" ", 2)
                if path.startswith(b"/-/"):
                    text = self._control(path.decode())
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text))
                    continue
                self.count += 1
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                upstream.write(head)
                await _body(head, reader, upstream)
                answer = await _head(upstream_reader)
                writer.write(answer)
                status = int(answer.split(b" ", 2)[1])
                if method != b"HEAD" and status >= 200 and status not in (204, 304):
                    await _body(answer, upstream_reader, writer, self.rate)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            upstream.close()

    def _control(self, path: str) -> bytes:
        _, _, verb, *values = path.split("/")
        if verb == "delay":
            self.delay_seconds = float(values[0])
            return b""
        if verb == "rate":
            self.rate = float(values[0])
            return b""
        count, self.count = self.count, 0
        return str(count).encode()


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


async def _body(
    head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: float = 0.0
) -> None:
    fields = {}
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        fields[name.strip().lower()] = value.strip().lower()
    if fields.get(b"transfer-encoding") == b"chunked":
        while True:
            line = await reader.readline()
            writer.write(line)
            size = int(line, 16)
            await _copy(reader, writer, size + 2)
            if not size:
                return
    await _copy(reader, writer, int(fields.get(b"content-length", b"0")), rate)


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int, rate: float = 0.0
) -> None:
    loop = asyncio.get_running_loop()
    began, whole = loop.time(), size
    while size:
        piece = await reader.read(min(size, _LIMIT_BYTES))
        if not piece:
            raise asyncio.IncompleteReadError(b"", size)
        size -= len(piece)
        writer.write(piece)
        await writer.drain()
        if rate:
            await asyncio.sleep(began + (whole - size) / rate - loop.time())


async def main(port: int) -> None:
    """Serve until standard input ends."""
    server = await asyncio.start_server(Proxy(port).serve, "127.0.0.1", 0, limit=_LIMIT_BYTES)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
