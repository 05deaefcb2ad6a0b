"""Delivery in this process: a runner per sink and a housekeeper, started by the first record, stopped in bounded time.

Never started at import, nor by a forked child before it records. Installs no signal handler.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from orchclient.core.schedule import NEVER, Schedule
from orchclient.core.secret import Redact, as_it_is
from orchclient.delivery.announcer import Announcer
from orchclient.delivery.callbacks import NONE, Callbacks
from orchclient.delivery.clock import Clock
from orchclient.delivery.listener import Listener
from orchclient.outbox.outbox import Outbox

if TYPE_CHECKING:
    from orchclient.delivery.housekeeper import Housekeeper
    from orchclient.delivery.runner import Runner
    from orchclient.delivery.transport import Transport
    from orchclient.sinks.sink import AnySink


@frozen
class FlusherSettings:
    """How to deliver: who we are, how long an attempt may take, how long delivered events are kept (seconds).

    ``redact`` takes secrets out of what a receiver says. The callbacks are told of events that this process settled,
    and of what people said to the agent. ``heartbeat_s``: how often this process tells orchestrators that its agent
    lives; 0 for never.
    """

    agent: str
    deadline_s: float = 10.0
    retention_s: float = 7 * 86_400.0
    redact: Redact = as_it_is
    callbacks: Callbacks = NONE
    schedule: Schedule = NEVER
    heartbeat_s: float = 0.0


def load() -> None:
    """Import what delivering takes, now and not in the first record call; who only records never pays for it."""
    import orchclient.delivery.beating
    import orchclient.delivery.housekeeper
    import orchclient.delivery.runner  # noqa: F401


class Flusher:
    """Delivers ``outbox`` to ``sinks``. Threads exist between ``start`` and ``stop`` only."""

    def __init__(
        self,
        outbox: Outbox,
        sinks: Sequence[AnySink],
        make_transport: Callable[[], Transport],
        clock: Clock,
        settings: FlusherSettings,
    ) -> None:
        self._outbox = outbox
        self._sinks = {sink.name: sink for sink in sinks}
        self._make_transport = make_transport
        self._clock = clock
        self._settings = settings
        self._runners: tuple[Runner, ...] = ()
        self._announcer = Announcer(settings.callbacks.on_delivered, settings.callbacks.on_dead)
        self._listener = Listener(outbox, settings.agent, clock, settings.callbacks)
        self._housekeeper: Housekeeper | None = None
        self.is_running = False  # whether the threads of this process exist; they do not survive a fork
        self._starting = threading.Lock()
        self._turn = threading.Condition()
        self._has_turned = False
        self._awaited = threading.Event()  # somebody waits for a turn

    @property
    def is_leading(self) -> bool:
        """Whether this process delivers to any sink."""
        return any(runner.is_leading for runner in self._runners)

    @property
    def beats_for(self) -> Collection[str]:
        """The destinations that heartbeats are for, if this process delivers to one of them; else none.

        Those whose receivers look for missing sequences, and so must get every event; nobody else is told.
        """
        heard = [runner for runner in self._runners if runner.sink.checks_sequence]
        return [runner.sink.name for runner in heard] if any(runner.is_leading for runner in heard) else []

    @property
    def sink_names(self) -> tuple[str, ...]:
        """The sinks that this process is configured for."""
        return tuple(self._sinks)

    @property
    def sinks(self) -> tuple[AnySink, ...]:
        """The destinations themselves."""
        return tuple(self._sinks.values())

    @property
    def promising_names(self) -> tuple[str, ...]:
        """The sinks that this process may deliver to soon, so that waiting for them makes sense."""
        return tuple(each.sink.name for each in self._runners if each.is_worth_waiting_for)

    def start(self, first_seq: int | None = None, *, is_brief: bool = False) -> None:
        """Start the threads of this process, once; after a fork, those of the child.

        A sink that begins now begins with the event ``first_seq``, whose recording started delivery. ``is_brief``: they
        are stopped again when one flush has ended.
        """
        with self._starting:
            if self.is_running:
                return
            from orchclient.delivery.beating import Beating
            from orchclient.delivery.housekeeper import Housekeeper

            settings = self._settings
            every_s = settings.heartbeat_s
            self._awaited = threading.Event()  # it was set for good when the threads before were stopped
            self._runners = tuple(self._runner(sink) for sink in self._sinks.values())
            self._housekeeper = Housekeeper(
                self._outbox,
                self._clock,
                self,
                retention_s=settings.retention_s,
                schedule=settings.schedule,
                beating=Beating(self._outbox, self._clock, settings.agent, every_s) if every_s else None,
            )
            try:
                for runner in self._runners:
                    runner.add_sink(first_seq)
                self._housekeeper.start()
                self._listener.start()
                for runner in self._runners:
                    runner.start(is_brief=is_brief)
                self.is_running = True
            except BaseException:  # an interrupt, or a busy outbox: the next record starts them all
                self._ask_to_stop()
                raise

    def introduce(self, first_seq: int | None) -> None:
        """Give each new sink its cursor, without delivering. Raises ``OutboxError``."""
        for sink in self._sinks.values():
            self._runner(sink).add_sink(first_seq)

    def add(self, sink: AnySink) -> None:
        """Deliver to one more sink from now on. Raises ``OutboxError``; then it is as before."""
        with self._starting:
            runner = self._runner(sink)
            runner.add_sink()
            self._sinks[sink.name] = sink
            if self.is_running:
                runner.start()
                self._runners = (*self._runners, runner)

    def remove(self, name: str, timeout_s: float) -> None:
        """Deliver to a sink no more; an attempt that takes longer than ``timeout_s`` is cut. Its cursor stays."""
        with self._starting:
            self._sinks.pop(name)
            gone = [runner for runner in self._runners if runner.sink.name == name]
            self._runners = tuple(runner for runner in self._runners if runner.sink.name != name)
        for runner in gone:
            runner.stop(self._clock.monotonic() + timeout_s)

    def _runner(self, sink: AnySink) -> Runner:
        from orchclient.delivery.runner import Runner

        return Runner(
            self._outbox,
            sink,
            self._make_transport,
            self._clock,
            agent=self._settings.agent,
            deadline_s=self._settings.deadline_s,
            turned=self._announce_turn,
            awaited=self._awaited,
            redact=self._settings.redact,
            announce=self._announcer.announce if self._announcer.is_needed else None,
        )

    def forget_inherited(self) -> None:
        """In a forked child: the threads are gone, and the parent's lock files must not be held from here."""
        for runner in self._runners:
            runner.forget_inherited()
        if self._housekeeper is not None:
            self._housekeeper.forget_inherited()
        self._runners, self._housekeeper, self.is_running = (), None, False
        self._starting, self._turn, self._awaited = threading.Lock(), threading.Condition(), threading.Event()
        self._announcer.forget_inherited()
        self._listener.forget_inherited()

    def notice(self) -> None:
        """An event was recorded in this process: called on the record path, so it costs next to nothing."""
        for runner in self._runners:
            runner.waker.wake()
        if self._housekeeper is not None:
            self._housekeeper.notice()

    def wake(self) -> None:
        """There may be something to deliver."""
        for runner in self._runners:
            runner.waker.call()

    def look(self) -> None:
        """See at once what is new, a nudge included."""
        self.wake()
        self.wake_housekeeper()

    def wake_housekeeper(self) -> None:
        """There may be something to fold or to move: called by a recording thread."""
        if self._housekeeper is not None:
            self._housekeeper.wake()

    def hurry(self) -> None:
        """Try now what waits for a back-off or a probe."""
        for runner in self._runners:
            runner.hurry()

    def wait_for_turn(self, seconds: float) -> None:
        """Wait until a runner of this process finished a turn since the last call, at most so long."""
        self._awaited.set()
        try:
            with self._turn:
                self._turn.wait_for(lambda: self._has_turned, seconds)
                self._has_turned = False
        finally:
            self._awaited.clear()  # another thread that waits sets it again at its next look

    def wait_for_inboxes(self, seconds: float) -> None:
        """Wait until the answers that wait at the receivers are here, or are known not to come now; at most so long."""
        until = self._clock.monotonic() + seconds
        for runner in self._runners:
            runner.wait_for_inbox(until)

    def _announce_turn(self) -> None:
        with self._turn:
            self._has_turned = True
            self._turn.notify_all()
        # A sink that was just won makes this process responsible for the news of the others.
        if self._housekeeper is not None:
            self._housekeeper.notice_lead()

    def stop(self, timeout_s: float) -> None:
        """End the threads within ``timeout_s``, an attempt that takes longer is cut; everything stays in the outbox."""
        if not self.is_running:
            return
        until = self._clock.monotonic() + timeout_s
        self._ask_to_stop()
        for runner in self._runners:
            runner.stop(until)
        if self._housekeeper is not None:
            self._housekeeper.stop(until)
        for telling in (self._announcer, self._listener):
            telling.stop(max(until - self._clock.monotonic(), 0.0))
        self._runners, self._housekeeper, self.is_running = (), None, False

    def _ask_to_stop(self) -> None:
        self._awaited.set()
        for runner in self._runners:
            runner.ask_to_stop()
        if self._housekeeper is not None:
            self._housekeeper.ask_to_stop()
        self._listener.ask_to_stop()
