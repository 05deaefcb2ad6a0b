"""What children of the zygote do: agents that record and deliver, ``orchclient flush`` by hand, and an inspector.

Each runs the real client on a real file in a process of its own. An event is acknowledged, through the pipe, at the
moment its record call returned. Knows nothing of who kills or judges.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from attrs import asdict, field, frozen

from orchclient import OrchestratorClient
from orchclient.core import batching
from orchclient.core.events import Receipt
from orchclient.delivery import housekeeper, runner
from orchclient.delivery.clock import SystemClock
from orchclient.outbox import attempts, bursts, carrying, folding, journal, limits, outbox, retention, writer
from orchclient.reporting import outbox_report

from .crash_points import BUILDS, Tripwire
from .crash_zygote import TOO_LONG_S, Voice

PRELOAD = ("orchclient.delivery.http.adapter", "orchclient.cli.flush", "sqlite_utils.migrations", __name__)

SMALL: tuple[tuple[Any, str, float], ...] = (
    (batching, "AFTER_OUTAGE_EVENTS", 2),
    (folding, "STEP", 10),
    (folding, "SMALL_STEP", 5),
    (folding, "BEHIND_AT_MOST", 15),
    (outbox, "LOOK_AFTER", 4),
    (outbox, "CHECKPOINT_AFTER", 8),
    (outbox, "CHECKPOINT_MYSELF_AFTER", 30),
    (outbox, "BEHIND_IN_A_BURST", 25),
    (outbox, "CHECKPOINT_IN_A_BURST", 16),
    (bursts, "FEWEST", 5),
    (limits, "SOME_EVENTS", 6),
    (retention, "SLICE", 4),
    (retention, "VACUUM_PAGES", 2),
    (retention, "VACUUM_ABOVE", 0.01),
    (attempts, "KEPT", 9),
    (journal, "KNOWN_TASKS", 3),
    (writer, "MAX_GROUP", 3),
    (housekeeper, "LOOK_EVERY_S", 0.01),
    (housekeeper, "SYNC_AFTER_S", 0.03),
    (housekeeper, "PRUNE_EVERY_S", 0.02),
    (runner, "STAND_AGAIN_S", 0.02),
    (runner, "AFTER_ERROR_S", 0.05),
)
"""The same code with smaller numbers: what happens every thousand events or every minute happens all the time."""

TASKS = tuple(f"task-{number}" for number in range(6))
UNWELCOME = "unwelcome"
"""The type of the errors that orchestrators here refuse for good."""

WHOLE = "whole-"
PARTS = 3
"""So many events are recorded about a task that begins so, in one transaction."""


class HastyClock(SystemClock):
    """Backs off for a hundredth of the time."""

    @staticmethod
    def jitter() -> float:
        return random.random() / 100


@frozen
class Post:
    """Where an agent works and how. After so many ``sayings`` it only delivers, until it is killed.

    ``pace_s``: how long it is busy with something else between two sayings.
    """

    name: str
    path: str
    url: str | None
    seed: int
    threads: int = 1
    durability: str = "auto"
    background: bool = True
    sayings: int = 400
    pace_s: float = 0.0
    small: bool = True
    build: str = "as shipped"
    tripwire: Tripwire | None = None


def agent(voice: Voice, post: Post) -> None:
    """Record and deliver until killed."""
    _settle_in(voice, post.tripwire, small=post.small, build=post.build)
    client = _client(post.name, post.path, post.url, durability=post.durability, background=post.background)
    voice.say("born")
    first = client.start_task(TASKS[0])
    voice.say("ack", f"{first.event_id} {first.seq} {TASKS[0]}")
    speakers = [Speaker(voice, client, post, number) for number in range(post.threads)]
    threads = [threading.Thread(target=speaker.speak) for speaker in speakers[1:]]
    for thread in threads:
        thread.start()
    speakers[0].speak()
    voice.stay()


def _settle_in(voice: Voice, tripwire: Tripwire | None, *, small: bool, build: str = "as shipped") -> None:
    for module, name, value in SMALL if small else ():
        assert hasattr(module, name), f"{module.__name__}.{name} is gone"
        setattr(module, name, value)
    BUILDS[build](voice)
    if tripwire is not None:
        tripwire.lay(voice)


def _client(name: str, path: str, url: str | None, **settings: Any) -> OrchestratorClient:
    settings = {"retention": 0.0, "request_timeout": 5.0, **settings}
    return OrchestratorClient(name, outbox=path, url=url, clock=HastyClock(), **settings)


class Speaker:
    """One thread of an agent: says this and that, and acknowledges what the client took."""

    def __init__(self, voice: Voice, client: OrchestratorClient, post: Post, number: int) -> None:
        self._voice = voice
        self._client = client
        self._post = post
        self._number = number
        self._random = random.Random(post.seed * 31 + number)
        self._step = 0

    def speak(self) -> None:
        """Everything there is to say."""
        sayings, weights = zip(*SAYINGS.items(), strict=True)
        for say in self._random.choices(sayings, weights, k=self._post.sayings // self._post.threads):
            self._step += 1
            say(self)
            time.sleep(self._post.pace_s)

    def _hear_of(self, task: str, receipt: Receipt) -> None:
        self._voice.say("ack", f"{receipt.event_id} {receipt.seq} {task}")

    def progress(self) -> None:
        task, note = self._random.choice(TASKS), "x" * self._random.choice((0, 10, 100, 3000))
        percent = self._random.randrange(101)
        self._hear_of(task, self._client.update_task_status(task, "in_progress", {"note": note}, percent))

    def status(self) -> None:
        task, status = self._random.choice(TASKS), self._random.choice(("assigned", "testing", "review_ready"))
        self._hear_of(task, self._client.update_task_status(task, status))

    def question(self) -> None:
        task = self._random.choice(TASKS)
        self._hear_of(task, self._client.request_clarification(task, "Which one?", options=["this", "that"]).receipt)

    def completion(self) -> None:
        task = self._random.choice(TASKS)
        self._hear_of(task, self._client.report_completion(task, None, {"tests_passed": 3}).receipt)

    def error(self) -> None:
        task, kind = self._random.choice(TASKS), self._random.choice((UNWELCOME, "timeout", "database_connection"))
        self._hear_of(task, self._client.escalate_error(task, kind, "it broke").receipt)

    def together(self) -> None:
        """Several events in one transaction: they are acknowledged when it is over."""
        task = f"{WHOLE}{self._post.name}-{self._number}-{self._step}"
        with self._client.transaction():
            receipts = [self._client.update_task_status(task, "testing", None, part) for part in range(PARTS)]
        for receipt in receipts:
            self._hear_of(task, receipt)

    def flush(self) -> None:
        """By hand, where nobody else in this process delivers."""
        if not self._post.background:
            self._client.flush(timeout=0.2)


SAYINGS: Mapping[Callable[[Speaker], None], int] = {
    Speaker.progress: 24,
    Speaker.status: 8,
    Speaker.question: 3,
    Speaker.completion: 3,
    Speaker.error: 3,
    Speaker.together: 3,
    Speaker.flush: 1,
}
"""How often each is said, compared with the others."""


PENDING, DEAD = 3, 4
"""Exit codes of a flush that may not have sent everything."""


def flush_command(voice: Voice, path: str, url: str, tripwire: Tripwire | None) -> None:
    """``orchclient flush``, again and again until one finds all delivered."""
    from orchclient.cli import main

    _settle_in(voice, tripwire, small=True)
    os.environ |= {"ORCHCLIENT_DB": path, "ORCHCLIENT_URL": url}
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.argv = ["orchclient", "flush", "--timeout", "5s"]
    due = time.monotonic() + TOO_LONG_S
    code = PENDING
    while code in (PENDING, DEAD) and time.monotonic() < due:
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    voice.say("exit", str(code))


def import_command(voice: Voice, path: str, recording: str, tripwire: Tripwire, build: str) -> None:
    """``orchclient import``, five events at a time."""
    from orchclient.cli import main

    carrying.SLICE = 5
    tripwire.lay(voice)  # before the bug is planted: what it does comes before the moment of death
    _settle_in(voice, None, small=True, build=build)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.argv = ["orchclient", "--db", path, "import", recording]
    main()


# --- the inspector ----------------------------------------------------------------------------------------------------


@frozen
class Findings:
    """An outbox as a fresh process finds it, all of one moment."""

    integrity: list[str]
    events: list[tuple[int, str, str]] = field(repr=False)  # seq, id, task
    damaged: list[int]
    sinks: list[dict[str, Any]]
    desk: list[tuple[str, str, int, str, str]]  # sink, state, seq, task, reason
    lanes: list[tuple[str, str, int]]  # sink, task, parked
    recorded: int
    told: list[dict[str, Any]]  # what is reported to people, by sink


def inspect(voice: Voice, path: str, url: str | None, *, deliver: bool = False) -> None:
    """Open the file, say what is in it; then deliver all of it if asked, and look again."""
    client = _client("inspector", path, url, background=deliver)
    _tell(voice, client)
    if deliver:
        due = time.monotonic() + TOO_LONG_S
        while client.flush(timeout=1.0).pending and time.monotonic() < due:
            pass
        _tell(voice, client)
    client.close()


def _tell(voice: Voice, client: OrchestratorClient) -> None:
    path = client._station.path
    findings = client._station.query(lambda con: _look(con, path))  # type: ignore[union-attr]
    voice.say("found", json.dumps(asdict(findings)))


def _look(con: sqlite3.Connection, path: str) -> Findings:
    def rows(statement: str) -> list[Any]:
        return con.execute(statement).fetchall()

    report = outbox_report(con, path, SystemClock.now_us())
    entries = list(journal.read_range(con, 0, journal.MAX_SEQ))
    names = ("name", "start_seq", "cursor", "parked", "dead", "expired")
    return Findings(
        integrity=[text for (text,) in rows("PRAGMA integrity_check")],
        events=[(entry.seq, entry.id, entry.task) for entry in entries],
        damaged=[entry.seq for entry in entries if not entry.is_whole],
        sinks=[dict(zip(names, row, strict=True)) for row in rows(f"SELECT {', '.join(names)} FROM sinks")],
        desk=rows("SELECT sink, state, seq, task, reason FROM work"),
        lanes=rows("SELECT sink, task, parked FROM lanes"),
        recorded=report.recorded,
        told=[asdict(sink) for sink in report.sinks],
    )


def findings_in(text: str) -> Findings:
    """What an inspector said."""
    said = json.loads(text)
    rows = {name: [tuple(row) for row in said[name]] for name in ("events", "desk", "lanes")}
    return Findings(**said | rows)
