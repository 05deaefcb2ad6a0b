"""A server on loopback with named faults, made of raw sockets: it answers what no HTTP library would let it.

Its waits are bounded: a connection lives for ``LIFE_S`` seconds at most, and leaving the ``with`` block
ends all of them. Knows nothing of the client under test.
"""

from __future__ import annotations

import gzip
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Self

LIFE_S = 8.0
DRIP_S = 0.05
OK = b"HTTP/1.1 200 OK\r\n"
PLAIN = OK + b"Content-Length: 2\r\n\r\nok"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
GARBAGE = b"\x00\xff\x1b[31mgarbage-from-the-server\x07 \r\n\r\n"
_BOMB = gzip.compress(bytes(20_000_000))

# Sent once the request has been read; then the connection ends.
ANSWERS: dict[str, bytes] = {
    "close_after_reading": b"",
    "plain_then_close": PLAIN,
    "unmeasured": OK + b"\r\nok",
    "partial_body": OK + b"Content-Length: 100\r\n\r\n" + b"x" * 50,
    "partial_chunk": CHUNKED + b"64\r\n" + b"x" * 50,
    "missing_last_chunk": CHUNKED + b"2\r\nok\r\n",
    "partial_status": b"HTTP/1.1 20",
    "partial_head": OK,
    "partial_header": OK + b"Content-Ty",
    "garbage_status_line": GARBAGE,
    "garbage_in_headers": OK + b"no header at all\r\nContent-Length: 0\r\n\r\n",
    "garbage_chunk_size": CHUNKED + b"-5\r\nok",
    "garbage_length": OK + b"Content-Length: plenty\r\n\r\nok",
    "two_lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
    "length_and_chunks": OK + b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "gzip_chunks": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "gzip_bomb": OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(_BOMB) + _BOMB,
    "brotli": OK + b"Content-Encoding: br\r\nContent-Length: 2\r\n\r\nok",
    "many_headers": OK + b"".join(b"X-%d: x\r\n" % n for n in range(101)) + b"Content-Length: 0\r\n\r\n",
    "long_header": OK + b"X: " + b"x" * 70_000 + b"\r\n\r\n",
    "largest_body": OK + b"Content-Length: 65536\r\n\r\n" + b"x" * 65536,
    "body_over_limit": OK + b"Content-Length: 65537\r\n\r\n" + b"x" * 65537,
    "chunks_over_limit": CHUNKED + b"10001\r\n" + b"x" * 65537 + b"\r\n0\r\n\r\n",
    "switching_protocols": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    "see_other": b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
    "redirect": b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
    "unavailable": b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nX-A: a\r\nx-a: b\r\nContent-Length: 0\r\n\r\n",
    "set_cookie": OK + b"Set-Cookie: session=1; Path=/\r\nContent-Length: 0\r\n\r\n",
}
# Sent at once, then byte by byte; finished after about five seconds, so that a client that waits shows.
DRIPS: dict[str, tuple[bytes, bytes]] = {
    "drip_headers": (OK, b"X-Slow: " + b"x" * 88 + b"\r\n\r\n"),
    "drip_body": (OK + b"Content-Length: 100\r\n\r\n", b"x" * 100),
    "drip_unmeasured_body": (OK + b"\r\n", b"x" * 100),
    "drip_chunks": (CHUNKED, b"1\r\nx\r\n" * 16 + b"0\r\n\r\n"),
}
# Sent once, then without end.
FLOODS: dict[str, tuple[bytes, bytes]] = {
    "huge_body": (OK + b"Content-Length: 99999999999\r\n\r\n", b"x" * 65536),
    "huge_unmeasured_body": (OK + b"\r\n", b"x" * 65536),
    "header_bomb": (OK, b"X: " + b"x" * 60_000 + b"\r\n"),
    "header_flood": (OK, b"X: x\r\n" * 1000),
    "header_without_end": (OK + b"X: ", b"x" * 65536),
    "status_without_end": (b"HTTP/1.1 200 ", b"x" * 65536),
    "continue_flood": (b"", (b"HTTP/1.1 100 Continue\r\nX: " + b"x" * 500 + b"\r\n\r\n") * 100),
    "endless_chunked": (CHUNKED, b"1000\r\n" + b"x" * 4096 + b"\r\n"),
    "extension_flood": (CHUNKED, b"1;" + b"x" * 60_000 + b"\r\nx\r\n"),
    "trailer_flood": (CHUNKED + b"0\r\n", (b"X: " + b"x" * 500 + b"\r\n") * 100),
}


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket, server: FaultyServer) -> None:
        self.sock = sock
        self.server = server
        self._ends_at = time.monotonic() + LIFE_S
        sock.settimeout(LIFE_S)

    def alive(self) -> bool:
        return not self.server.closing.is_set() and time.monotonic() < self._ends_at

    def pause(self, seconds: float) -> None:
        if self.server.closing.wait(seconds):
            raise ConnectionAbortedError("the server closes")

    def read_request(self) -> bytes:
        """Read one whole request, and note it."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        length = next((int(v) for n, _, v in _fields(head) if n.lower() == b"content-length"), 0)
        while len(body) < length:
            body += self._more()
        request = head + b"\r\n\r\n" + body
        self.server.note(request)
        return request

    def reset(self) -> None:
        """End the connection with RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def secure(self, context: ssl.SSLContext) -> None:
        self.sock = context.wrap_socket(self.sock, server_side=True, do_handshake_on_connect=False)
        self.sock.do_handshake()

    def shut_down(self) -> None:
        """End every wait of this connection; called from any thread."""
        with suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    def close(self) -> None:
        self.sock.close()

    def _more(self) -> bytes:
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionAbortedError("the client is gone")
        return data


def _fields(head: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    return (line.partition(b":") for line in head.split(b"\r\n")[1:])


def _answer(data: bytes, peer: Peer) -> None:
    peer.read_request()
    peer.sock.sendall(data)


def _drip(parts: tuple[bytes, bytes], peer: Peer) -> None:
    _answer(parts[0], peer)
    for byte in parts[1]:
        peer.pause(DRIP_S)
        peer.sock.sendall(bytes([byte]))
        peer.server.note(dripped=1)


def _flood(parts: tuple[bytes, bytes], peer: Peer) -> None:
    _answer(parts[0], peer)
    while peer.alive():
        peer.sock.sendall(parts[1])


def _keep_alive(data: bytes, peer: Peer) -> None:
    while peer.alive():
        _answer(data, peer)


def _keep_alive_once(peer: Peer) -> None:
    _answer(PLAIN, peer)
    peer.read_request()


def _keep_alive_then_hang(peer: Peer) -> None:
    _answer(PLAIN, peer)
    _hang_before_reply(peer)


def _reset_mid_request(peer: Peer) -> None:
    peer.sock.recv(20)
    peer.reset()


def _reset_after_reading(peer: Peer) -> None:
    peer.read_request()
    peer.reset()


def _hang_after_accept(peer: Peer) -> None:
    peer.server.note(peer.sock.recv(65536))  # the beginning of whatever the client says first
    peer.pause(LIFE_S)


def _answer_to_anything(peer: Peer) -> None:
    peer.sock.recv(65536)
    peer.sock.sendall(PLAIN)
    peer.pause(LIFE_S)


def _hang_before_reply(peer: Peer) -> None:
    peer.read_request()
    peer.pause(LIFE_S)


def _slow_upload(size: int, pause_s: float, peer: Peer) -> None:
    while peer.alive() and peer.sock.recv(size):
        peer.pause(pause_s)


FAULTS: dict[str, Callable[[Peer], None]] = {
    "keep_alive": partial(_keep_alive, PLAIN),
    "early_hints": partial(_keep_alive, b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + PLAIN),
    "reset_at_connect": Peer.reset,
    "reset_mid_request": _reset_mid_request,
    "reset_after_reading": _reset_after_reading,
    "keep_alive_once": _keep_alive_once,
    "keep_alive_then_hang": _keep_alive_then_hang,
    "answer_to_anything": _answer_to_anything,
    "hang_after_accept": _hang_after_accept,
    "hang_before_reply": _hang_before_reply,
    "slow_upload": partial(_slow_upload, 16, 0.2),
    "steady_upload": partial(_slow_upload, 65536, 0.03),  # no single write of the client waits long
    **{name: partial(_answer, data) for name, data in ANSWERS.items()},
    **{name: partial(_drip, parts) for name, parts in DRIPS.items()},
    **{name: partial(_flood, parts) for name, parts in FLOODS.items()},
}


class FaultyServer:
    """Connection n meets fault n, and the last one from then on. With ``tls``, after the handshake.

    ``raw``: instead of the faults, answer with these bytes.
    """

    def __init__(self, *faults: str, tls: ssl.SSLContext | None = None, raw: bytes = b"") -> None:
        self.accepted = self.dripped = self.ended = 0
        self.requests: list[bytes] = []
        self._faults = [FAULTS[name] for name in faults] or [partial(_answer, raw)]
        self._tls = tls
        self._news = threading.Condition()
        self.closing = threading.Event()
        self._peers: list[tuple[threading.Thread, Peer]] = []
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)  # inherited: a slow upload is felt soon
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.port = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, name="faulty-server")

    @property
    def url(self) -> str:
        scheme = "https" if self._tls else "http"
        return f"{scheme}://127.0.0.1:{self.port}/hooks/S3CRET?token=S3CRET"

    def note(self, request: bytes | None = None, *, accepted: int = 0, dripped: int = 0, ended: int = 0) -> None:
        """Count what has happened, and tell those who wait for it."""
        with self._news:
            self.accepted += accepted
            self.dripped += dripped
            self.ended += ended
            if request is not None:
                self.requests.append(request)
            self._news.notify_all()

    def wait_until(self, reached: Callable[[FaultyServer], bool]) -> None:
        """Wait for something that is counted."""
        with self._news:
            assert self._news.wait_for(lambda: reached(self), LIFE_S)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.closing.set()
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            pass  # wakes the acceptor
        self._acceptor.join(LIFE_S)
        self._listener.close()
        for thread, peer in self._peers:
            peer.shut_down()
            thread.join(LIFE_S)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            peer = Peer(sock, self)
            if self.closing.is_set():
                peer.close()
                return
            fault = self._faults[min(self.accepted, len(self._faults) - 1)]
            thread = threading.Thread(target=self._serve, args=(peer, fault), name="faulty-peer")
            self._peers.append((thread, peer))
            self.note(accepted=1)
            thread.start()

    def _serve(self, peer: Peer, fault: Callable[[Peer], None]) -> None:
        with suppress(OSError):
            if self._tls is not None:
                peer.secure(self._tls)
            fault(peer)
        peer.close()
        self.note(ended=1)


@contextmanager
def deaf_port() -> Iterator[int]:
    """A port whose queue is full: the kernel drops each further SYN, so that connecting hangs."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
