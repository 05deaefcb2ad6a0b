"""One trial of the network: a client that flushes several batches, one request of which meets a fault.

``broken_laws`` is the judge. Plants are transports with a defect that it has to find.
"""

from __future__ import annotations

import json
import logging
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from attrs import define, evolve, field, frozen

from orchclient import OrchestratorClient
from orchclient.core.http import HttpReply, HttpRequest, NoReply
from orchclient.core.policy import TEXT_CAP
from orchclient.delivery.clock import SystemClock
from orchclient.delivery.transport import HttpTransport, Transport
from orchclient.outbox import attempts
from orchclient.reporting import OutboxReport
from tests.faults.faulty_orchestrator import BATCH, FaultyOrchestrator
from tests.stopwatch import Stopwatch

DEADLINE_S = 1.0
GRACE_S = 1.5
MEMORY_BYTES = 30_000_000
TASKS = 4
REQUESTS = 4
EVENTS = BATCH * REQUESTS
POSITIONS = {"greeting": 0, "first": 1, "middle": 2, "last": REQUESTS}
HEALED_S = 30.0
LONGEST_REASON = 2 * TEXT_CAP + 50

Plant = Callable[[], Transport]


class HurriedClock(SystemClock):
    """The machine's clock, that can be put forward; no back-off takes longer than the receiver asks for."""

    def __init__(self) -> None:
        self._ahead_s = 0.0

    def pass_s(self, seconds: float) -> None:
        self._ahead_s += seconds

    def now_us(self) -> int:  # type: ignore[override]
        return time.time_ns() // 1000 + int(self._ahead_s * 1e6)

    def monotonic(self) -> float:
        return time.monotonic() + self._ahead_s

    def jitter(self) -> float:
        return 0.0


@define
class Watched:
    """A transport, with the time of each exchange taken; what one raises ends the trial."""

    inner: Transport
    took_s: list[float]

    def send(self, request: HttpRequest, *, deadline_s: float) -> HttpReply | NoReply:
        with Stopwatch() as took:
            outcome = self.inner.send(request, deadline_s=deadline_s)
        self.took_s.append(took.s)
        return outcome

    def close(self) -> None:
        self.inner.close()


@frozen
class Trial:
    """What was seen of one fault at one request."""

    struck: int
    took_s: Sequence[float]
    receipts: Sequence[tuple[str, str]]  # task and id, in the order of recording
    kept: Sequence[tuple[str, str]]  # task and id, in the order of arrival
    contents: dict[str, set[str]]
    repeats: int
    conflicts: int
    reports: Sequence[OutboxReport]
    texts: Sequence[str]
    memory_bytes: int = 0

    def broken_laws(self) -> list[str]:
        """The names of the laws that this trial broke; empty when all is well."""
        laws = {
            "the fault struck": self.struck == 1,
            "bounded in time": max(self.took_s) < DEADLINE_S + GRACE_S,
            "bounded in memory": self.memory_bytes < MEMORY_BYTES,
            "nothing lost": sorted(self.receipts) == sorted(self.kept),
            "order of each task": all(_of(task, self.kept) == _of(task, self.receipts) for task, _ in self.receipts),
            "repeats are the same": all(len(texts) == 1 for texts in self.contents.values()) and not self.conflicts,
            "conservation": all(_is_conserved(report) for report in self.reports),
            "nothing left, nothing dead": (self.reports[-1].sinks[0].pending, self.reports[-1].sinks[0].dead) == (0, 0),
            "no raw text": all(_is_harmless(text) for text in self.texts),
        }
        return [name for name, holds in laws.items() if not holds]


def _of(task: str, arrivals: Sequence[tuple[str, str]]) -> list[str]:
    return [id_ for each, id_ in arrivals if each == task]


def _is_conserved(report: OutboxReport) -> bool:
    sink = report.sinks[0]
    return report.recorded == sink.delivered + sink.pending + sink.dead + sink.expired


def _is_harmless(text: str) -> bool:
    return text.isascii() and text.isprintable() and len(text) <= LONGEST_REASON


class _Logged(logging.Handler):
    """What the threads of this trial's outbox said; other trials run beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def _listening() -> Iterator[list[str]]:
    handler, log = _Logged(), logging.getLogger("orchclient")
    log.addHandler(handler)
    try:
        yield handler.lines
    finally:
        log.removeHandler(handler)


def tried(fault: str, position: int, path: Path, make: Plant = HttpTransport) -> Trial:
    """Record, let the fault strike, and see what has become of everything once it is over."""
    clock, took_s, reports = HurriedClock(), list[float](), list[OutboxReport]()
    with _listening() as said, FaultyOrchestrator(fault, position) as server:
        with OrchestratorClient("agent", outbox=path, mode="offline") as recorder:
            receipts = [
                (task, recorder.update_task_status(task, "testing", progress_percentage=n).event_id)
                for n in range(EVENTS)
                for task in [f"task-{n % TASKS}"]
            ]
        with OrchestratorClient(
            "agent",
            outbox=path,
            url=server.url,
            request_timeout=DEADLINE_S,
            clock=clock,
            transport=lambda: Watched(make(), took_s),
        ) as client:
            _flush_until_it_heals(client, clock, reports)
            station: Any = client._station
            texts = [each.reason for each in station.query(lambda con: attempts.newest(con, 1000))]
            texts += [client.health().sinks[0].last_error, client.health().sinks[0].reason]
            client.close(0)
    return Trial(
        server.struck,
        took_s,
        receipts,
        # The hurried clock brings heartbeats, too.
        [(each["subject"], each["id"]) for each in server.orchestrator.events if each["subject"].startswith("task-")],
        server.contents,
        sum(server.orchestrator.repeats.values()),
        len(server.orchestrator.conflicts),
        reports,
        [*texts, *said],
    )


def _flush_until_it_heals(client: OrchestratorClient, clock: HurriedClock, reports: list[OutboxReport]) -> None:
    until = time.monotonic() + HEALED_S
    while True:
        client.flush(10.0)
        reports.append(client.health())
        [sink] = reports[-1].sinks
        if not sink.pending or time.monotonic() > until:
            return
        if sink.state == "throttled":
            clock.pass_s(3700)  # more than any receiver may ask for


def tried_everywhere(fault: str, folder: Path, positions: Sequence[int]) -> dict[int, Trial]:
    """The trials of one fault, side by side: most of each is waiting. Each is charged with the memory of all."""
    with _memory_counted() as grown, ThreadPoolExecutor(len(positions)) as pool:
        trials = list(pool.map(lambda position: tried(fault, position, folder / f"{position}.db"), positions))
        return {at: evolve(trial, memory_bytes=grown()) for at, trial in zip(positions, trials, strict=True)}


@contextmanager
def _memory_counted() -> Iterator[Callable[[], int]]:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield lambda: tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


# --- plants ---------------------------------------------------------------------------------------------------------


@define
class Naive:
    """What one writes first: requests with a timeout, that holds for each read alone, and a body without a limit."""

    session: requests.Session = field(factory=requests.Session)

    def send(self, request: HttpRequest, *, deadline_s: float) -> HttpReply | NoReply:
        try:
            reply = self.session.request(
                request.method, request.url, headers=dict(request.headers), data=request.body, timeout=deadline_s
            )
        except requests.RequestException as error:
            return NoReply("broken", type(error).__name__)
        return HttpReply(reply.status_code, {name.lower(): text for name, text in reply.headers.items()}, reply.content)

    def close(self) -> None:
        self.session.close()


@define
class Optimist:
    """Takes a lost answer for a good one."""

    inner: HttpTransport = field(factory=HttpTransport)

    def send(self, request: HttpRequest, *, deadline_s: float) -> HttpReply | NoReply:
        outcome = self.inner.send(request, deadline_s=deadline_s)
        return HttpReply(200) if isinstance(outcome, NoReply) and outcome.reason == "broken" else outcome

    def close(self) -> None:
        self.inner.close()


@define
class Renamer:
    """Sends again under ids of its own, as a client does that mints them when it sends."""

    inner: HttpTransport = field(factory=HttpTransport)
    sent: int = 0

    def send(self, request: HttpRequest, *, deadline_s: float) -> HttpReply | NoReply:
        self.sent += 1
        if request.method == "POST":
            events = [event | {"time": f"2026-01-01T00:00:{self.sent:02}Z"} for event in json.loads(request.body)]
            request = evolve(request, body=json.dumps(events).encode())
        return self.inner.send(request, deadline_s=deadline_s)

    def close(self) -> None:
        self.inner.close()


@define
class Shuffler:
    """Sends a batch backwards when the one before was lost."""

    inner: HttpTransport = field(factory=HttpTransport)
    has_failed: bool = False

    def send(self, request: HttpRequest, *, deadline_s: float) -> HttpReply | NoReply:
        if self.has_failed and request.method == "POST":
            request = evolve(request, body=json.dumps(json.loads(request.body)[::-1]).encode())
        outcome = self.inner.send(request, deadline_s=deadline_s)
        self.has_failed = self.has_failed or isinstance(outcome, NoReply)
        return outcome

    def close(self) -> None:
        self.inner.close()
