"""A bucket that counts its requests, in a process of its own so that none of its memory is counted.

It knows no more of GCS than one upload and one download, answers at once, and ends when its standard
input does. It prints its port; ``GET /-/count`` tells how many requests came since the last time.
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
        """Take an object."""
        global count
        count += 1
        body = self.rfile.read(int(self.headers["content-length"]))
        name = parse_qs(urlsplit(self.path).query)["name"][0]
        objects[name] = body
        crc32c = base64.b64encode(google_crc32c.value(body).to_bytes(4, "big")).decode()
        self.answer(json.dumps({"generation": "1", "size": str(len(body)), "crc32c": crc32c}).encode())

    def do_GET(self) -> None:
        """Give an object, or the count."""
        global count
        if self.path == "/-/count":
            text, count = str(count), 0
            return self.answer(text.encode())
        count += 1
        return self.answer(objects[unquote(urlsplit(self.path).path.rpartition("/")[2])])

    def answer(self, body: bytes) -> None:
        """Send an answer."""
        self.send_response(200)
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
