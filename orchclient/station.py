"""The outbox of this process with its delivery: opened once, started by the first record, closed in bounded time.

Below the public client, which it knows nothing of, and above the floors that do the work.
"""

from __future__ import annotations

import atexit
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from orchclient import __version__, config, destinations
from orchclient.core.errors import ConfigError, OutboxError
from orchclient.core.events import Event
from orchclient.core.incidents import Incident
from orchclient.core.secret import KnownSecrets
from orchclient.core.task_state import TaskState
from orchclient.delivery.callbacks import NONE, Callbacks
from orchclient.delivery.clock import Clock
from orchclient.delivery.flusher import Flusher, FlusherSettings, load
from orchclient.opened import open_outbox
from orchclient.outbox import cursors, folding, incidents, journal, standing
from orchclient.outbox.cursors import SinkRow
from orchclient.outbox.journal import Recording
from orchclient.outbox.outbox import Outbox
from orchclient.reporting import FlushReport, OutboxReport, SinkReport, communication_stats, flush_report, whole_report

if TYPE_CHECKING:
    from orchclient.delivery.flush import Mark, Progress
    from orchclient.delivery.transport import HttpTransport, Transport
    from orchclient.sinks.sink import AnySink

log = logging.getLogger("orchclient")

T = TypeVar("T")

TransportFactory = Callable[[], "Transport"]
Watch = Callable[["Progress"], None]


class Station:
    """One outbox, open, with the threads that deliver it once something is recorded."""

    def __init__(
        self,
        outbox: Outbox,
        flusher: Flusher,
        clock: Clock,
        *,
        background: bool,
        delivers: bool,
        shutdown_s: float,
        open_again: Callable[[], Outbox],
    ) -> None:
        self._outbox = outbox
        self._open_again = open_again
        self._has_exited = False
        self._flusher = flusher
        self._clock = clock
        self._background = background
        self._delivers = delivers
        self._shutdown_s = shutdown_s
        self._has_introduced = False
        self._first_seq: int | None = None  # the event that was recorded before delivery began
        outbox.on_commit = flusher.notice
        outbox.on_fork = flusher.forget_inherited

    @property
    def path(self) -> str:
        """The outbox file."""
        return self._outbox.path

    @property
    def sink_names(self) -> tuple[str, ...]:
        """The destinations that this process is configured for."""
        return self._flusher.sink_names

    def record(self, event: Event, status: str | None, synced: bool) -> int:
        """Store an event durably and see that somebody delivers it."""
        if self._has_exited:
            return self._record_late(event, status)
        seq = self._outbox.record(event, status, synced)
        if not self._flusher.is_running:
            self._first_seq = self._first_seq or seq
            self._see_to_delivery()
        return seq

    def compose(self, work: Callable[[sqlite3.Connection, Recording], T], event_id: str) -> T:
        """Record an event that is made in its transaction, and see that somebody delivers it."""
        if self._has_exited:
            outbox = self._open_again()
            try:
                return outbox.compose(work, event_id)
            finally:
                outbox.close()
        result = self._outbox.compose(work, event_id)
        if not self._flusher.is_running:
            self._first_seq = self._first_seq or self._outbox.query(journal.last_seq)
            self._see_to_delivery()
        return result

    def _see_to_delivery(self) -> None:
        """By threads of this process, or by giving new destinations their place for whoever delivers later."""
        if self._background:
            self._try_to_start()
        elif not self._has_introduced:
            self._introduce()

    def _introduce(self) -> None:
        """A destination that begins with what is new begins with what this process recorded, not with a later flush."""
        try:
            known = {row.name for row in self._rows()}
            if not known.issuperset(self._flusher.sink_names):
                self._flusher.introduce(self._first_seq)
            self._has_introduced = True
        except OutboxError as error:  # the event is stored all the same; the next record tries again
            log.warning("a new destination could not be introduced yet: %s", error)

    def _try_to_start(self) -> None:
        try:
            self._start()
            self._flusher.notice()
        except OutboxError as error:  # the event is stored all the same; the next record tries again
            log.warning("delivery cannot start yet: %s", error)

    def _record_late(self, event: Event, status: str | None) -> int:
        """After our exit handler: those that were registered before it still run. Whoever comes next delivers."""
        outbox = self._open_again()
        try:
            return outbox.record(event, status, True)
        finally:
            outbox.close()

    def _start(self, *, is_brief: bool = False) -> None:
        self._outbox.on_commit = self._flusher.notice  # a forked child was left without
        self._flusher.start(self._first_seq, is_brief=is_brief)
        self._outbox.on_burden = self._flusher.wake_housekeeper
        # Not by the client: an agent may have dropped it, and what it recorded is to be delivered all the same.
        atexit.register(self._close_at_exit)

    def open_incident(self, task_id: str, key: str) -> Incident | None:
        """The open incident of a task with a key."""
        return self._outbox.query(lambda con: incidents.open_one(con, task_id, key))

    def task_state(self, task_id: str) -> TaskState | None:
        """Where a task stands."""
        return self._outbox.query(lambda con: folding.task_state(con, task_id))

    def communication_stats(self, agent_id: str) -> dict[str, Any]:
        """What an agent recorded, and how delivery fares."""
        return self._outbox.query(lambda con: communication_stats(con, self.path, agent_id, self._clock.now_us()))

    def report(self) -> OutboxReport:
        """The outbox and each destination now."""
        return whole_report(self._outbox.query, self.path, self._clock.now_us())

    @property
    def may_hear(self) -> bool:
        """Whether an answer can be on its way: somebody polls an inbox, here or in another process."""
        from orchclient.sinks.sink import inbox_of

        is_here = any(inbox_of(sink) is not None for sink in self._flusher.sinks)
        return is_here or bool(self._outbox.query(standing.inboxes))

    @contextmanager
    def attended(self) -> Iterator[None]:
        """Deliver and poll in the block, also when nothing was recorded or there are no threads otherwise."""
        was_running = self._flusher.is_running
        if not was_running:
            self._try_to_start()
        self._flusher.look()
        try:
            yield
        finally:
            if not was_running and not self._background:
                self._outbox.on_burden = None
                self._flusher.stop(CUT_S)

    def query(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Ask a question of the outbox."""
        return self._outbox.query(question)

    def write(self, work: Callable[[sqlite3.Connection], T], *, synced: bool = False) -> T:
        """Change the outbox in one committed transaction, as an operator's command does."""
        return self._outbox.write(work, synced=synced)

    def take_in(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Store events that were recorded elsewhere, in one synced transaction, and keep house.

        Raises ``OutboxFull`` when a limit is reached.
        """
        self._outbox.refuse_if_full()
        result = self._outbox.write(work, synced=True)
        self._outbox.keep_house()
        return result

    @property
    def new_source(self) -> Callable[[], str]:
        """Makes a random source."""
        return self._outbox.new_source

    def prune(self, recorded_before_us: int) -> None:
        """Forget delivered events recorded before an instant; what the tasks add up to is folded first."""
        self._outbox.fold_rest()
        self._outbox.prune(recorded_before_us=recorded_before_us)

    def flush(
        self,
        timeout_s: float,
        only: Sequence[str] = (),
        watch: Watch = lambda progress: None,
        task: str | None = None,
    ) -> FlushReport:
        """Deliver what is due now, by this process or by the one that does so already; of all tasks or of one.

        A process that delivers for this flush only brings the answers back that wait for something open.
        ``watch`` sees the progress and may end the waiting by raising ``Enough``.
        """
        from orchclient.delivery import flush as flushing
        from orchclient.outbox import inbox

        began, was_running = self._clock.monotonic(), self._flusher.is_running
        before = {row.name: row for row in self._rows()}  # what a starting flusher delivers counts too
        heard_before = self._outbox.query(inbox.last_n)
        mark = flushing.begin(self._outbox, self._clock, task)
        is_brief = not was_running and not self._background
        if not was_running:
            self._start(is_brief=is_brief)
        self._flusher.look()
        progress = self._wait(mark, timeout_s, only, watch)
        if is_brief:
            if not progress.is_cut:
                self._flusher.wait_for_inboxes(min(timeout_s - (self._clock.monotonic() - began), ANSWERS_S))
            self._outbox.on_burden = None
            self._flusher.stop(CUT_S if progress.is_cut else STOP_S)
        seconds, now_us = self._clock.monotonic() - began, self._clock.now_us()
        heard = self._outbox.query(inbox.last_n) - heard_before
        return self._outbox.query(lambda con: flush_report(con, before, mark, tuple(only), seconds, now_us, heard))

    def _wait(self, since: Mark, timeout_s: float, only: Sequence[str], watch: Watch) -> Progress:
        from orchclient.delivery import flush as flushing

        return flushing.wait(
            self._outbox,
            self._clock,
            since,
            timeout_s,
            own=self.sink_names,
            only=only,
            pause=self._flusher.wait_for_turn,
            watch=watch,
        )

    def _rows(self) -> list[SinkRow]:
        return self._outbox.query(cursors.sinks)

    def add_sink(self, sink: AnySink) -> None:
        """Deliver to one more destination from now on, by this process."""
        destinations.checked([*self._flusher.sinks, sink])
        if not self._delivers:
            return
        self._flusher.add(sink)
        self._flusher.notice()

    def remove_sink(self, name: str, *, forget: bool) -> SinkReport | None:
        """Deliver to a destination no more; with ``forget`` its cursor goes too. How it stood, None if nowhere."""
        known = {*self._flusher.sink_names, *(row.name for row in self._rows())}
        if name not in known:
            raise ConfigError(f"no destination {name!r:.80}; known: {', '.join(sorted(known)) or 'none'}")
        if name in self._flusher.sink_names:
            self._flusher.remove(name, STOP_S)
        report = next((sink for sink in self.report().sinks if sink.name == name), None)
        if forget:
            self._outbox.write(lambda con: cursors.forget_sink(con, name), synced=True)
            left = report.pending if report else 0
            log.warning("sink %s is forgotten: %d events that were pending will not be delivered to it", name, left)
        return report

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """The caller's own statements and the events recorded inside, durable together or not at all."""
        return self._outbox.transaction()

    def close(self, timeout_s: float | None = None) -> None:
        """Deliver for at most so long if that has a chance, then end the threads and close the file."""
        atexit.unregister(self._close_at_exit)
        timeout_s = self._shutdown_s if timeout_s is None else timeout_s
        until = self._clock.monotonic() + timeout_s
        promising = self._flusher.promising_names
        try:
            if promising and timeout_s > 0:
                from orchclient.delivery import flush as flushing

                self._wait(self._outbox.query(flushing.mark), timeout_s, promising, lambda progress: None)
        except OutboxError as error:  # what is left stays in the outbox
            log.warning("delivery at the end was given up: %s", error)
        except KeyboardInterrupt:  # whoever waits for this has waited enough
            until = self._clock.monotonic()
            raise
        finally:
            self._flusher.stop(max(until - self._clock.monotonic(), 0.0))
            self._outbox.close()

    def _close_at_exit(self) -> None:
        """An end prints nothing on the agent's terminal, whatever the disk says."""
        try:
            self.close()
        except OutboxError as error:
            log.error("at the end: %s", error)
        except KeyboardInterrupt:  # the interpreter would print it, and go on with the exit all the same
            log.info("at the end: interrupted; what is not delivered stays in the outbox")
        finally:
            self._has_exited = True


STOP_S = 2.0
CUT_S = 0.2
"""An exchange under way when somebody has enough of waiting may go on for so long."""

ANSWERS_S = 2.0
"""How long a flush waits for a receiver that is slow to say what is in its inbox."""


class SwitchedOff:
    """In place of a station with ``ORCHCLIENT_MODE=disabled``: arguments are checked, nothing is stored or sent."""

    path = "(disabled)"
    sink_names: tuple[str, ...] = ()

    def record(self, event: Event, status: str | None, synced: bool) -> int:
        """Store nothing."""
        return 0

    def compose(self, work: Callable[[sqlite3.Connection, Recording], T], event_id: str) -> T | None:
        """Store nothing."""
        return None

    def open_incident(self, task_id: str, key: str) -> Incident | None:
        """None is open."""
        return None

    may_hear = False

    @contextmanager
    def attended(self) -> Iterator[None]:
        """Nobody will answer."""
        yield

    def query(self, question: Callable[[sqlite3.Connection], T]) -> T | None:
        """Nothing is known."""
        return None

    def write(self, work: Callable[[sqlite3.Connection], T], *, synced: bool = False) -> T | None:
        """Nothing is changed."""
        return None

    def task_state(self, task_id: str) -> TaskState | None:
        """Nothing is known."""
        return None

    def communication_stats(self, agent_id: str) -> dict[str, Any]:
        """Nothing was recorded."""
        return {
            "agent_id": agent_id,
            "updates_sent": 0,
            "clarifications_requested": 0,
            "completions_reported": 0,
            "errors_escalated": 0,
            "last_communication": None,
            "health_status": "inactive",
            "delivery": {},
        }

    def report(self) -> OutboxReport:
        """Empty."""
        return OutboxReport(self.path, "", 0, 0, ())

    def flush(
        self,
        timeout_s: float,
        only: Sequence[str] = (),
        watch: Watch = lambda progress: None,
        task: str | None = None,
    ) -> FlushReport:
        """Nothing to do."""
        return FlushReport({}, 0.0)

    def add_sink(self, sink: AnySink) -> None:
        """Nothing is delivered."""

    def remove_sink(self, name: str, *, forget: bool) -> SinkReport | None:
        """Nothing is delivered."""
        return None

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """There is no file to write to."""
        raise OutboxError("orchclient is disabled (ORCHCLIENT_MODE): there is no outbox for transaction()")

    def close(self, timeout_s: float | None = None) -> None:
        """Nothing to end."""


def open_station(
    settings: config.Settings,
    clock: Clock,
    secrets: KnownSecrets,
    *,
    sinks: Sequence[AnySink] | None,
    transport: TransportFactory | None,
    background: bool,
    callbacks: Callbacks = NONE,
) -> Station | SwitchedOff:
    """The station that the settings describe."""
    if settings.mode == "disabled":
        return SwitchedOff()
    given = destinations.configured(settings, secrets) if sinks is None else destinations.checked(sinks)
    given = destinations.named_for_escalation(given, settings.escalation)
    if background:
        load()
    outbox = open_outbox(settings, clock)
    flusher = Flusher(
        outbox,
        [] if settings.mode == "offline" else given,
        transport or (lambda: http_transport(settings)),
        clock,
        FlusherSettings(
            settings.agent or default_agent(),
            settings.request_timeout,
            settings.retention,
            secrets.redact_text,
            callbacks,
            settings.reminders,
            settings.heartbeat if background else 0.0,  # a command that delivers is no agent that lives
        ),
    )
    return Station(
        outbox,
        flusher,
        clock,
        background=background,
        delivers=settings.mode != "offline",
        shutdown_s=settings.shutdown_timeout,
        open_again=lambda: open_outbox(settings, clock),
    )


def default_agent() -> str:
    """Who speaks when nobody said: the host and the process."""
    return f"{os.uname().nodename}:{os.getpid()}"


def http_transport(settings: config.Settings) -> HttpTransport:
    """What requests are sent with, as the settings say. Called by the thread that delivers, which pays for requests."""
    import orchclient.delivery.http.adapter  # noqa: F401
    from orchclient.delivery.transport import HttpTransport

    proxy = settings.proxy.reveal() if settings.proxy else None
    proxies = {"http": proxy, "https": proxy} if proxy else None
    return HttpTransport(proxies=proxies, ca_file=settings.ca_file, user_agent=f"orchclient/{__version__}")
