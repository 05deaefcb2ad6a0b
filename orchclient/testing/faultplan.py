"""Faults as values: what can go wrong with one POST of events, and what that does to its connection.

It must not know what an orchestrator keeps or offers, nor how connections come and go.
"""

from __future__ import annotations

import gzip
import json
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.client import HTTPException, parse_headers, responses
from itertools import repeat
from typing import Any, Protocol

from attrs import field, frozen

from orchclient.core.http import HttpReply, HttpRequest

Event = dict[str, Any]
Result = dict[str, str]
Match = str | Callable[[Event], bool]  # an event id, a task id, or a predicate

_MIB = 2**20
_BOMB_MIB = 50  # packs to some 51 KiB, so a cap on the bytes received alone does not catch it
_LONGEST_LINE = 65536
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds: close() sends a RST


class Manner(Protocol):
    """How an encoded reply reaches the client; true when the connection may carry another request."""

    def send(self, line: Line, reply: bytes) -> bool: ...


@frozen
class Whole:
    """The reply, at once."""

    def send(self, line: Line, reply: bytes) -> bool:
        line.write(reply)
        return True


@frozen
class Drip:
    """The reply byte by byte: no single read of the client times out, only a total deadline ends it."""

    interval_s: float

    def send(self, line: Line, reply: bytes) -> bool:
        for byte in reply:
            line.write(bytes([byte]))
            line.pause(self.interval_s)
        return True


@frozen
class Cut:
    """No reply: the connection ends, with a RST or a FIN."""

    reset: bool

    def send(self, line: Line, reply: bytes) -> bool:
        if self.reset:
            line.reset_at_close()
        return False


@frozen
class Flood:
    """Other bytes than the reply: the head, then the chunk so many times (None: until the client goes)."""

    head: bytes
    chunk: bytes = field(default=b"", repr=False)
    times: int | None = 0

    def send(self, line: Line, reply: bytes) -> bool:
        line.write(self.head)
        for chunk in repeat(self.chunk) if self.times is None else repeat(self.chunk, self.times):
            line.write(chunk)
        return False


@frozen
class Rule:
    """What becomes of the events that ``match``, instead of being kept (if kept before, when sent again).

    ``status`` is the one in their result, None leaves them out of the results; ``prefix`` falsifies the id.
    """

    match: Match
    status: str | None
    code: str | None = None
    detail: str | None = None
    prefix: str = ""

    def concerns(self, event: Event) -> bool:
        if callable(self.match):
            return bool(self.match(event))
        return self.match in (event["id"], event.get("subject"))

    def result(self, event: Event) -> Result | None:
        if self.status is None:
            return None
        return event_result(self.prefix + event["id"], self.status, self.code, self.detail)


@frozen
class Fault:
    """One thing that goes wrong with one POST of events; made by the constructors below.

    ``instead`` is an answer without judging or keeping anything, ``bare`` takes the body off the true answer;
    a fault that does not ``answer`` leaves the client without a status.
    """

    name: str
    instead: HttpReply | None = field(default=None, repr=False, hash=False)
    rules: tuple[Rule, ...] = field(default=(), repr=False)
    bare: bool = field(default=False, repr=False)
    manner: Manner = field(default=Whole(), repr=False)
    answers: bool = field(default=True, repr=False)
    holds: bool = field(default=False, repr=False)
    hold_s: float | None = field(default=None, repr=False)

    @classmethod
    def ok(cls) -> Fault:
        """Nothing goes wrong; a place holder between faults."""
        return cls("ok")

    @classmethod
    def status(cls, status: int, *, retry_after: str | None = None) -> Fault:
        """This status as problem+json; nothing is kept."""
        headers = {} if retry_after is None else {"Retry-After": retry_after}
        return cls(f"status {status}", instead=problem(status, "as the fault plan says", headers))

    @classmethod
    def redirect(cls, location: str, *, status: int = 307) -> Fault:
        """A redirect; nothing is kept."""
        return cls("redirect", instead=HttpReply(status, {"Location": location}))

    @classmethod
    def lose_reply(cls, *, reset: bool = True) -> Fault:
        """The events are kept, then the connection ends without an answer: by RST, or by FIN."""
        return cls("lose_reply", manner=Cut(reset), answers=False)

    @classmethod
    def hang(cls, seconds: float | None = None) -> Fault:
        """Silence after the request until the time is up, ``release()`` or ``heal()``; then all is as usual.

        Nothing is kept if the client has gone by then; ``stop()`` ends it without an answer.
        """
        return cls("hang", holds=True, hold_s=seconds)

    @classmethod
    def drip(cls, interval_s: float) -> Fault:
        """The events are kept; the true answer comes byte by byte, so many seconds apart."""
        return cls("drip", manner=Drip(interval_s))

    @classmethod
    def reject(cls, match: Match, *, code: str = "invalid", detail: str = "rejected by the test") -> Fault:
        """The events that match are answered ``rejected`` and not kept; the others are kept."""
        return cls("reject", rules=(Rule(match, "rejected", code, detail),))

    @classmethod
    def retry(cls, match: Match, *, code: str = "busy", detail: str = "deferred by the test") -> Fault:
        """The events that match, and later ones of their tasks, are answered ``retry`` and not kept."""
        return cls("retry", rules=(Rule(match, "retry", code, detail),))

    @classmethod
    def missing_results(cls, match: Match) -> Fault:
        """The events that match are not kept, and the results do not mention them."""
        return cls("missing_results", rules=(Rule(match, None),))

    @classmethod
    def foreign_ids(cls) -> Fault:
        """Nothing is kept; as many events are accepted as were sent, but under ids that nobody sent."""
        return cls("foreign_ids", rules=(Rule(_any_event, "accepted", prefix="foreign-"),))

    @classmethod
    def empty_ok(cls) -> Fault:
        """The events are kept; the answer is a 200 without a body."""
        return cls("empty_ok", bare=True)

    @classmethod
    def not_json(cls, body: bytes = b"<!doctype html><title>Hotel Wi-Fi</title>") -> Fault:
        """A 200 from something that is no orchestrator, such as a captive portal; nothing is kept."""
        return cls("not_json", instead=HttpReply(200, {"Content-Type": "text/html"}, body))

    @classmethod
    def garbage(cls) -> Fault:
        """Bytes that are not HTTP, then the end of the connection; nothing is kept."""
        manner = Flood(b"\x16\x03\x01\x00\xff no HTTP here\r\n\r\n")
        return cls("garbage", HttpReply(200), manner=manner, answers=False)

    @classmethod
    def gzip_bomb(cls) -> Fault:
        """A small gzip body that unpacks to 50 MiB, although nobody asked for gzip; nothing is kept."""
        # Many small members rather than one large: it is made in a millisecond, and every decoder takes it.
        body = gzip.compress(bytes(_MIB), mtime=0) * _BOMB_MIB
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        return cls("gzip_bomb", instead=HttpReply(200, headers, body))

    @classmethod
    def huge_body(cls, mib: int = 64) -> Fault:
        """A 200 with that many MiB of body, sent as fast as the client reads; nothing is kept."""
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {mib * _MIB}\r\n\r\n"
        return cls("huge_body", instead=HttpReply(200), manner=Flood(head.encode(), b" " * _MIB, mib))

    @classmethod
    def endless_headers(cls) -> Fault:
        """A 200 whose header section never ends; nothing is kept."""
        manner = Flood(b"HTTP/1.1 200 OK\r\n", b"X-Filler: " + b"a" * 1000 + b"\r\n", None)
        return cls("endless_headers", HttpReply(200), manner=manner, answers=False)


def event_result(event_id: str, status: str, code: str | None = None, detail: str | None = None) -> Result:
    members = {"id": event_id, "status": status, "code": code, "detail": detail}
    return {name: value for name, value in members.items() if value is not None}


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> HttpReply:
    """An RFC 9457 problem; without a body where HTTP allows none."""
    if status in (204, 304):
        return HttpReply(status, headers or {})
    body = json.dumps({"status": status, "title": responses.get(status, ""), "detail": detail}).encode()
    return HttpReply(status, {"Content-Type": "application/problem+json", **(headers or {})}, body)


class Refused(Exception):
    """Carries the reply to a request that is not served."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.reply = problem(status, detail, headers)


class Line:
    """One HTTP connection, seen from the server; each call raises OSError once either side has ended it."""

    def __init__(self, sock: socket.socket, down: threading.Event) -> None:
        self.down = down
        self._sock = sock
        self._stream = sock.makefile("rb")
        self._reusable = True

    def read(self) -> HttpRequest | None:
        """The next request, whole; None when there will be none."""
        start = self._stream.readline(_LONGEST_LINE) if self._reusable else b""
        if not start:
            return None
        try:
            method, target, version = start.decode("latin-1").split()
            headers = {name.lower(): value for name, value in parse_headers(self._stream).items()}
        except (ValueError, HTTPException) as error:
            raise Refused(400, f"this is not HTTP: {error}") from error
        self._reusable = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
        return HttpRequest(method, target, headers, self._body(headers))

    def _body(self, headers: Mapping[str, str]) -> bytes:
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers or not length.isdecimal():
            raise Refused(411, "a body needs its Content-Length")
        if headers.get("expect", "").lower() == "100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = self._stream.read(int(length))
        if len(body) < int(length):
            raise ConnectionAbortedError("the request was cut short")
        return body

    def require_client(self) -> None:
        """Raises if the client has closed its side, without touching what it may have sent."""
        with suppress(BlockingIOError):
            if not self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                raise ConnectionAbortedError("the client has gone")

    def write(self, data: bytes) -> None:
        self._sock.sendall(data)

    def pause(self, seconds: float) -> None:
        if self.down.wait(seconds):
            raise ConnectionAbortedError("the receiver is going down")

    def reset_at_close(self) -> None:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def abort(self) -> None:
        """Ends the connection under the thread that uses it; that thread still has to close it."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._stream.close()
        self._sock.close()


def encoded(reply: HttpReply) -> bytes:
    lines = [f"HTTP/1.1 {reply.status} {responses.get(reply.status, '')}"]
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    if reply.status not in (204, 304):
        lines.append(f"Content-Length: {len(reply.body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + reply.body


def _any_event(event: Event) -> bool:
    return True
