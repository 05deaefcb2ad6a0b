"""An orchestrator behind a faulty network: one request meets a fault, every other one an honest answer.

The faults are those of ``network``, answers of a receiver that is wrong or hostile, and replies that are lost after
the request was processed. Knows nothing of the client.
"""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Callable
from functools import partial

from orchclient.core.http import HttpReply, HttpRequest
from orchclient.testing.faultplan import encoded
from orchclient.testing.orchestrator import InMemoryOrchestrator, Terms
from tests.faults.network import DRIP_S, FAULTS, GARBAGE, LIFE_S, PLAIN, FaultyServer, Peer

BATCH = 10
"""How many events a request carries: the orchestrator says so."""
TERMS = Terms(capabilities={"protocol": ["1.0"], "batch": {"max_events": BATCH}})

Answered = Callable[[bytes], bytes]
"""Has a request processed, and gives the honest answer."""
Strike = Callable[[Peer, Answered], None]


def _reply(status: int, body: bytes = b"", **headers: str) -> bytes:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return encoded(HttpReply(status, {**fields, "Connection": "close"}, body))


JSON = "application/json"
YEAR = "31536000"
WRONG_REPLIES: dict[str, bytes] = {
    "429_for_a_year": _reply(429, Retry_After=YEAR),
    "429_until_9999": _reply(429, Retry_After="Fri, 31 Dec 9999 23:59:59 GMT"),
    "503_for_ever": _reply(503, Retry_After="9" * 20),
    "503_garbage": _reply(503, Retry_After="soon\x1b[31m"),
    "503_negative": _reply(503, Retry_After="-5"),
    "500_page": _reply(500, b"<html>\x1b[31mOops", Content_Type="text/html"),
    "deep_json": _reply(200, b"[" * 60_000, Content_Type=JSON),
    "wrong_ids": _reply(200, b'{"results": [{"id": "someone-else", "status": "accepted"}]}', Content_Type=JSON),
    "not_json": _reply(200, b"\xff\xfe\x00\x1b[31moops", Content_Type=JSON),
    "forged": _reply(200, b'{"results": "*", "inbox": {"pending": 1e999}}', Content_Type=JSON),
    "login_page": _reply(200, b"<html>log in, please</html>", Content_Type="text/html"),
    "redirect_loop": _reply(307, Location="/v1/events"),
    "redirect_to_get": _reply(302, Location="/v1/capabilities"),
    "redirect_off": _reply(301, Location="http://169.254.169.254/latest/meta-data/"),
}
# They end the connection, not the conversation: a fault for every later request would never heal.
_ONCE: dict[str, bytes] = {
    "keep_alive": PLAIN,
    "early_hints": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + PLAIN,
}
ACCEPTS = frozenset({"set_cookie"})
"""An empty 2xx takes everything, by the contract: then the receiver has it."""
_BEFORE_THE_REQUEST = frozenset({"reset_at_connect", "hang_after_accept"})


def _answer(data: bytes, peer: Peer) -> None:
    peer.read_request()
    peer.sock.sendall(data)


def _lose_by_reset(peer: Peer, answer: bytes) -> None:
    peer.reset()


def _lose_by_close(peer: Peer, answer: bytes) -> None:
    pass


def _lose_by_hanging(peer: Peer, answer: bytes) -> None:
    peer.pause(LIFE_S)


def _lose_the_end(peer: Peer, answer: bytes) -> None:
    peer.sock.sendall(answer[:-3])


def _lose_all_but_the_head(peer: Peer, answer: bytes) -> None:
    peer.sock.sendall(answer.partition(b"\r\n\r\n")[0])
    peer.pause(LIFE_S)


def _lose_by_dripping(peer: Peer, answer: bytes) -> None:
    for byte in answer:
        peer.sock.sendall(bytes([byte]))
        peer.pause(DRIP_S)


def _lose_in_garbage(peer: Peer, answer: bytes) -> None:
    peer.sock.sendall(GARBAGE)


LOSSES: dict[str, Callable[[Peer, bytes], None]] = {
    "processed_then_reset": _lose_by_reset,
    "processed_then_closed": _lose_by_close,
    "processed_then_hangs": _lose_by_hanging,
    "processed_then_cut": _lose_the_end,
    "processed_then_head_only": _lose_all_but_the_head,
    "processed_then_drips": _lose_by_dripping,
    "processed_then_garbage": _lose_in_garbage,
}


def _plain(fault: Callable[[Peer], None]) -> Strike:
    return lambda peer, answered: fault(peer)


def _accepting(fault: str, peer: Peer, answered: Answered) -> None:
    head_and_body = peer.read_request()
    answered(head_and_body)
    peer.sock.sendall(b"HTTP/1.1 200 OK\r\nSet-Cookie: session=1; Path=/\r\nContent-Length: 0\r\n\r\n")


def _losing(lose: Callable[[Peer, bytes], None], peer: Peer, answered: Answered) -> None:
    lose(peer, answered(peer.read_request()))


STRIKES: dict[str, Strike] = {
    **{name: _plain(fault) for name, fault in FAULTS.items()},
    **{name: _plain(partial(_answer, data)) for name, data in {**_ONCE, **WRONG_REPLIES}.items()},
    **{name: partial(_accepting, name) for name in ACCEPTS},
    **{name: partial(_losing, lose) for name, lose in LOSSES.items()},
}


class FaultyOrchestrator(FaultyServer):
    """The ``position``-th POST of events meets the fault; 0: the question for the capabilities before them all."""

    def __init__(self, fault: str, position: int) -> None:
        super().__init__(raw=b"")
        self._faults = [self._converse]
        self._strike = STRIKES[fault]
        self._strikes_at = position
        self._before_the_hit = Counter({False: 1, True: position - 1} if position else {})
        self._at_connect = fault in _BEFORE_THE_REQUEST
        self.orchestrator = InMemoryOrchestrator(TERMS)
        self.started: Counter[bool] = Counter()  # questions (False) and POSTs (True), answered or not
        self.struck = 0
        self.contents: dict[str, set[str]] = {}  # by id: everything that was ever sent under it

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _converse(self, peer: Peer) -> None:
        if self._at_connect and not self.struck and self.started == self._before_the_hit:
            self._hit(peer)
            return
        while is_post := peer.sock.recv(5, socket.MSG_PEEK | socket.MSG_WAITALL):
            if self._is_next_hit(is_post == b"POST "):
                self._hit(peer)
                return
            peer.sock.sendall(self._answered(peer.read_request()))
            if self._at_connect:
                return  # so that the next request begins with a connection

    def _is_next_hit(self, is_post: bool) -> bool:
        self.started[is_post] += 1
        at = (True, self._strikes_at) if self._strikes_at else (False, 1)
        return (is_post, self.started[is_post]) == at and not self._at_connect

    def _hit(self, peer: Peer) -> None:
        self.struck += 1
        self._strike(peer, self._answered)

    def _answered(self, data: bytes) -> bytes:
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, url, _ = first.split(" ")
        fields = (line.partition(":") for line in lines)
        request = HttpRequest(method, url, {name.lower(): value.strip() for name, _, value in fields}, body)
        if method != "POST":
            return encoded(self.orchestrator.answer(request, lambda until, timeout_s: None))
        batch = self.orchestrator.batch(request)
        for event in batch.events:
            self.contents.setdefault(event["id"], set()).add(json.dumps(event, sort_keys=True))
        return encoded(self.orchestrator.ingest(batch, ()))
