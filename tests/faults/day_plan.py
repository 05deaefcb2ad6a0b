"""What goes wrong in the simulated day, as two tables, and the receivers that it goes wrong with."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from attrs import define, field, frozen

from orchclient.core.http import HttpReply
from orchclient.testing import Fault, Receiver
from orchclient.testing.faultplan import problem

from .day_agents import TOKEN
from .day_world import LEDGER_FAILS, LEDGER_HANGS, TOKEN_IS_WORN, World

BACK_OFF_MIN, THROTTLED_10_MIN, PROBE_MIN = 2, 13, 61
"""How long after the trouble the client may still wait by its own schedule, in minutes."""


@frozen
class Spell:
    """Trouble of one destination, from a minute to another, and how long its schedule may make it wait afterwards."""

    sink: str
    begin: str
    end: str
    what: str
    grace_min: int = BACK_OFF_MIN

    def troubles(self, minute: int) -> bool:
        """Whether the destination need not be served in this minute."""
        return minute_of(self.begin) <= minute <= minute_of(self.end) + self.grace_min


@frozen
class Happening:
    """Something that is done to the agents' processes: (what, to which of them or to which destination)."""

    at: str
    what: str
    whom: str


SPELLS = (
    Spell("south", "00:40", "02:30", "unavailable", THROTTLED_10_MIN),  # 503, Retry-After: 600
    Spell("north", "03:00", "09:00", "down"),
    Spell("pager", "04:00", "05:00", "bad gateway"),
    Spell("south", "06:00", "09:00", "token refused", PROBE_MIN),
    Spell("ledger", "10:20", "11:00", "disk full"),
    Spell("south", "11:00", "11:50", "retry for one task"),
    Spell("north", "13:00", "14:00", "replies are lost"),
    Spell("pager", "15:00", "16:00", "throttled", THROTTLED_10_MIN),  # 429, Retry-After: 600
    Spell("ledger", "17:00", "17:30", "hangs", 0),
    Spell("north", "18:00", "18:05", "silent"),
    Spell("south", "18:02", "18:30", "down"),
)
HAPPENINGS = (
    Happening("01:10", "kill", "amy"),
    Happening("01:14", "start", "amy"),
    Happening("04:30", "kill leader", "south"),
    Happening("07:20", "kill leader", "ledger"),
    Happening("08:58", "kill leader", "north"),  # whoever follows never saw the outage
    Happening("10:30", "end", "ben"),
    Happening("10:35", "start", "ben"),
    Happening("11:30", "kill leader", "south"),
    Happening("12:00", "add", "archive"),
    Happening("13:30", "kill leader", "north"),
    Happening("15:30", "kill leader", "pager"),
    Happening("17:10", "kill leader", "north"),
    Happening("19:00", "remove", "pager"),
    Happening("20:00", "forget", "archive"),
    Happening("21:00", "add", "pager"),
    Happening("21:30", "kill", "cid"),
    Happening("21:31", "start", "cid"),
)
FIRST_SINKS = ("north", "south", "ledger", "pager")
AGENTS = ("amy", "ben", "cid")
RESTART_AFTER_MIN = 3
"""When a leader that was killed is started again."""


def minute_of(text: str) -> int:
    """Minutes since midnight."""
    hours, minutes = text.split(":")
    return 60 * int(hours) + int(minutes)


def text_of(minute: int) -> str:
    """The time of the day."""
    return f"{minute // 60:02d}:{minute % 60:02d}"


def is_poison(event: dict[str, Any]) -> bool:
    """Whether a receiver refuses an event for what it says."""
    return "poison" in event["data"].get("metadata", {})


class Strict(Receiver):
    """Refuses a batch as a whole for one poisoned event in it."""

    def _reply(self, fault: Fault, batch: Any) -> HttpReply:
        if fault.instead is None and batch.refusal is None and any(map(is_poison, batch.events)):
            return problem(400, "there is poison in this batch")
        return super()._reply(fault, batch)


class Pager:
    """The receiver of the other dialect: keeps ids, refuses poison."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.status = 204
        self.retry_after = ""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, body: bytes) -> tuple[int, str]:
        """The status and the Retry-After of a request."""
        events = [json.loads(line) for line in body.splitlines()]
        if self.status == 204 and any(map(is_poison, events)):
            return 422, ""
        if self.status == 204:
            self.ids += [event["id"] for event in events]
        return self.status, self.retry_after

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        pager = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                status, retry_after = pager.answer(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(status)
                if retry_after:
                    self.send_header("Retry-After", retry_after)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@define
class Weather:
    """The receivers, and how trouble begins and ends with them."""

    world: World
    north: Receiver = field(factory=Receiver)
    south: Strict = field(factory=lambda: Strict(token=TOKEN))
    pager: Pager = field(factory=Pager)
    _open: ExitStack = field(factory=ExitStack)

    def __enter__(self) -> Self:
        for each in (self.north, self.south, self.pager):
            self._open.enter_context(each)
        self.north.reject(is_poison, detail="there is poison in this event")
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def urls(self) -> dict[str, str]:
        return {"north": self.north.url, "south": self.south.url, "pager": self.pager.url}

    def change(self, minute: int, spells: Sequence[Spell] = SPELLS) -> None:
        """What begins and what ends in this minute."""
        for spell in spells:
            if minute_of(spell.end) == minute:
                self._turn(spell, False)
        for spell in spells:
            if minute_of(spell.begin) == minute:
                self._turn(spell, True)

    def _turn(self, spell: Spell, is_bad: bool) -> None:
        receiver = self.north if spell.sink == "north" else self.south
        acts: dict[str, Callable[[], None]] = {
            "down": receiver.stop if is_bad else lambda: receiver.start() and None,
            "unavailable": lambda: receiver.always(Fault.status(503, retry_after="600") if is_bad else Fault.ok()),
            "replies are lost": lambda: receiver.always(Fault.lose_reply() if is_bad else Fault.ok()),
            "silent": lambda: receiver.always(Fault.hang()) if is_bad else receiver.heal(),
            "retry for one task": lambda: receiver.retry("amy-1") if is_bad else receiver.lift_rules(),
            "token refused": lambda: self.world.put(TOKEN_IS_WORN, is_bad),
            "disk full": lambda: self.world.put(LEDGER_FAILS, is_bad),
            "hangs": lambda: self.world.put(LEDGER_HANGS, is_bad),
            "bad gateway": lambda: self._page(502 if is_bad else 204, ""),
            "throttled": lambda: self._page(429 if is_bad else 204, "600" if is_bad else ""),
        }
        acts[spell.what]()

    def _page(self, status: int, retry_after: str) -> None:
        self.pager.status, self.pager.retry_after = status, retry_after
