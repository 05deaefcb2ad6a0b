"""An orchestrator that looks at nothing, in a process of its own: what is left of the time is the sending side's.

It counts requests and bytes and answers 202 with nothing in it. With ``--stamp`` it also notes, for each event that
says when it was recorded (``"sent_ns":...``), how long it took to arrive; with ``--hang`` it never answers.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import requests
from attrs import frozen


@frozen
class Arrived:
    """What the sink counted."""

    requests: int
    bytes: int

    def since(self, before: Arrived) -> Arrived:
        """What came after an earlier count."""
        return Arrived(self.requests - before.requests, self.bytes - before.bytes)


class BlindSink(asyncio.Protocol):
    """Reads requests as fast as they come and looks at nothing but their length."""

    received = {"requests": 0, "bytes": 0}  # noqa: RUF012  of the whole process, over all connections
    delays_ns: list[int] = []  # noqa: RUF012
    stamps = False
    hangs = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._head = b""
        self._left = 0

    def data_received(self, data: bytes) -> None:
        """More of a head, or of a body."""
        if self.stamps:
            now_ns = time.time_ns()
            self.delays_ns += [now_ns - int(sent) for sent in re.findall(rb'"sent_ns":(\d+)', data)]
        while data:
            data = self._body(data) if self._left else self._beginning(data)

    def _beginning(self, data: bytes) -> bytes:
        head, end, rest = (self._head + data).partition(b"\r\n\r\n")
        if not end:
            self._head = head
            return b""
        self._head = b""
        if head.startswith(b"GET"):
            self._answer_question(head)
            return rest
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        self._left = int(length[1]) if length else 0
        return rest

    def _body(self, data: bytes) -> bytes:
        taken = min(self._left, len(data))
        self._left -= taken
        self.received["bytes"] += taken
        if not self._left:
            self.received["requests"] += 1
            if not self.hangs:
                self._transport.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        return data[taken:]

    def _answer_question(self, head: bytes) -> None:
        answers = {b"GET /count ": self.received, b"GET /delays ": self.delays_ns}
        found = next((answer for start, answer in answers.items() if head.startswith(start)), None)
        if found is None:  # capabilities: there are none, the defaults apply
            self._transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        body = json.dumps(found).encode()
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


async def _serve() -> None:
    """Serve until stdin ends, which it does when the benchmark dies, however it dies."""
    server = await asyncio.get_running_loop().create_server(BlindSink, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


@contextmanager
def blind_sink(*flags: str) -> Iterator[str]:
    """The URL of a sink that lives as long as the block."""
    command = [sys.executable, __file__, *flags]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        # Leaving closes stdin, which ends the sink.


def counted(url: str) -> Arrived:
    """What a sink got so far."""
    return Arrived(**requests.get(f"{url}/count", timeout=10).json())


def delays_ms(url: str) -> list[float]:
    """How long each stamped event took, ascending."""
    return sorted(delay / 1e6 for delay in requests.get(f"{url}/delays", timeout=10).json())


if __name__ == "__main__":
    BlindSink.stamps = "--stamp" in sys.argv
    BlindSink.hangs = "--hang" in sys.argv
    asyncio.run(_serve())
