"""A receiver of any of the protocols, in a process of its own, that counts which events came: each carries a mark.

It answers 200 with an empty JSON object, which everybody here takes for "all accepted". Bodies may be gzip.
"""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

import requests
from attrs import frozen

MARK = re.compile(rb"m4rk-(\d+)-")


def mark(number: int) -> str:
    """What an event carries so that the receiver knows it, whatever is around it."""
    return f"m4rk-{number}-"


@frozen
class Came:
    """What a receiver got: how many events, how many of these twice, in how many requests."""

    events: int
    repeated: int
    requests: int


class Receiver:
    """What came so far. Bodies are looked at when somebody asks, so that the sender does not wait for it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._bodies: list[tuple[bytes, bool]] = []

    def take(self, body: bytes, *, packed: bool) -> None:
        """Keep a body."""
        with self._lock:
            self._bodies.append((body, packed))

    def count(self) -> dict[str, int]:
        """Count what came, and begin anew."""
        with self._lock:
            bodies, self._bodies = self._bodies, []
        seen: set[bytes] = set()
        repeated = 0
        for body, packed in bodies:
            for found in MARK.findall(gzip.decompress(body) if packed else body):
                repeated += found in seen
                seen.add(found)
        return {"events": len(seen), "repeated": repeated, "requests": len(bodies)}


class Handler(BaseHTTPRequestHandler):
    """One connection, kept open."""

    protocol_version = "HTTP/1.1"
    receiver = Receiver()

    def do_POST(self) -> None:
        """Take a body."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.receiver.take(body, packed=self.headers.get("Content-Encoding") == "gzip")
        self._answer(200, {})

    def do_GET(self) -> None:
        """Tell what came; whatever else is asked, there is none."""
        is_count = self.path == "/count"
        self._answer(200 if is_count else 404, self.receiver.count() if is_count else {})

    def _answer(self, status: int, value: object) -> None:
        text = json.dumps(value).encode()
        head = f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
        self.wfile.write(head.encode() + text)

    def log_message(self, *said: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """As many connections as somebody wants to open at one moment."""

    request_queue_size = 128
    daemon_threads = True


@contextmanager
def counting_sink() -> Iterator[str]:
    """The URL of a receiver that lives as long as the block."""
    with subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as it:
        assert it.stdout is not None
        yield f"http://127.0.0.1:{int(it.stdout.readline())}"
        # Leaving closes stdin, which ends it.


def came(url: str) -> Came:
    """What a receiver got since it was last asked."""
    return Came(**requests.get(f"{url}/count", timeout=60).json())


if __name__ == "__main__":
    server = Server(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()
