"""A bucket that counts its requests, in a process of its own so that none of its memory is counted.

It knows no more of GCS than upload, compose, download and deletion, answers at once, and ends when its
standard input does. It prints its port; ``GET /-/count`` tells how many requests came since the last time.
"""

from __future__ import annotations

import base64
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c

objects: dict[str, bytes] = {}
count = 0


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Take an object, or compose one."""
        global count
        count += 1
        body = self.rfile.read(int(self.headers["content-length"]))
        path = urlsplit(self.path)
        if path.path.endswith("/compose"):
            name = unquote(path.path.split("/")[-2])
            body = b"".join(objects[source["name"]] for source in json.loads(body)["sourceObjects"])
        else:
            name = parse_qs(path.query)["name"][0]
        objects[name] = body
        crc32c = base64.b64encode(google_crc32c.value(body).to_bytes(4, "big")).decode()
        self.answer(200, json.dumps({"generation": "1", "size": str(len(body)), "crc32c": crc32c}).encode())

    def do_GET(self) -> None:
        """Give an object, a range of it, or the count."""
        global count
        if self.path == "/-/count":
            text, count = str(count), 0
            return self.answer(200, text.encode())
        count += 1
        body = objects[self.name()]
        if asked := self.headers.get("range"):
            first, last = map(int, asked.removeprefix("bytes=").split("-"))
            whole = f"bytes {first}-{last}/{len(body)}"
            return self.answer(206, memoryview(body)[first : last + 1], content_range=whole)
        return self.answer(200, body)

    def do_DELETE(self) -> None:
        """Delete an object."""
        global count
        count += 1
        del objects[self.name()]
        self.answer(204, b"")

    def name(self) -> str:
        """Return the name of the object that the request is about."""
        return unquote(urlsplit(self.path).path.rpartition("/")[2])

    def answer(self, status: int, body: bytes | memoryview, **headers: str) -> None:
        """Send an answer."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
