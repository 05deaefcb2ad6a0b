"""The thread of one sink: stand for election, then turn after turn until stopped. Standing by is one try a second."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from orchclient.core.errors import OutboxError
from orchclient.core.pacing import share_of
from orchclient.delivery.clock import Clock
from orchclient.delivery.election import Election, lock_path
from orchclient.delivery.waker import Waker, rest_for_ever
from orchclient.outbox import cursors, leadership
from orchclient.outbox.leadership import Holder
from orchclient.outbox.outbox import Outbox

if TYPE_CHECKING:  # what delivers is imported by the process that is elected to: most only record, or look
    from orchclient.core.secret import Redact
    from orchclient.delivery.courier import Wire
    from orchclient.delivery.poller import Poller
    from orchclient.delivery.transport import Transport
    from orchclient.delivery.worker import Announce, Worker
    from orchclient.sinks.sink import AnySink

log = logging.getLogger("orchclient")

STAND_AGAIN_S = 1.0
AFTER_ERROR_S = 1.0


class Runner:
    """Delivers to one sink in a thread of its own while this process is elected for it."""

    def __init__(
        self,
        outbox: Outbox,
        sink: AnySink,
        make_transport: Callable[[], Transport],
        clock: Clock,
        *,
        agent: str,
        deadline_s: float,
        turned: Callable[[], None],
        awaited: threading.Event,
        redact: Redact,
        announce: Announce | None = None,
    ) -> None:
        self.sink = sink
        self.waker = Waker()
        self._outbox = outbox
        self._make_transport = make_transport
        self._clock = clock
        self._agent = agent
        self._deadline_s = deadline_s
        self._election = Election(lock_path(outbox.path, sink.name))
        self._stopping = threading.Event()
        self._is_forgotten = False
        self._wire: Wire | None = None
        self._worker: Worker | None = None
        self._poller: Poller | None = None
        self._hurried = False
        self._has_lost_epoch = False
        self._is_brief = False
        self._has_stood = threading.Event()
        self._stands_by = False
        self._has_turned = False
        self._thread: threading.Thread | None = None
        self._behind = 0
        self._awaited = awaited  # set while somebody waits for a flush: then there is no rest
        self._turned = turned  # told after the first turn, and when there is nothing more to do for now
        self._redact = redact
        self._announce = announce

    @property
    def is_leading(self) -> bool:
        """Whether this process delivers to the sink."""
        return self._worker is not None

    @property
    def is_worth_waiting_for(self) -> bool:
        """Whether this process may deliver soon: neither does another one, nor is the receiver in trouble."""
        worker = self._worker
        return not worker.breaker_is_open if worker else not self._stands_by

    def add_sink(self, first_seq: int | None = None) -> None:
        """Give the sink its cursor, unless it has one; one that begins now gets ``first_seq`` too.

        Raises ``OutboxError``.
        """
        self._outbox.write(
            lambda con: cursors.add_sink(
                con,
                self.sink.name,
                self.sink.kind,
                self.sink.target,
                self._clock.now_us(),
                from_beginning=self.sink.from_beginning,
                first_seq=first_seq,
            )
        )

    def start(self, *, is_brief: bool = False) -> None:
        """Start the thread; at interpreter exit, when no thread can start, the outbox simply keeps everything.

        ``is_brief``: for one flush, so that no poll is held until something comes.
        """
        self._is_brief = is_brief
        self._thread = threading.Thread(target=self._run, name=f"orchclient-{self.sink.name}", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None
            self._has_stood.set()

    def hurry(self) -> None:
        """Try now what waits for its back-off."""
        self._hurried = True
        self.waker.call()
        poller = self._poller
        if poller is not None:
            poller.hurry()

    def wait_for_inbox(self, until: float) -> None:
        """Wait until what waits in the inbox is here, or is known not to come now; if this process asks for it."""
        self._has_stood.wait(max(until - self._clock.monotonic(), 0.0))
        poller = self._poller
        if poller is not None:
            poller.wait_for_look(until - self._clock.monotonic())

    def ask_to_stop(self) -> None:
        """Finish the turn under way, and no other; a poll of the inbox is cut."""
        self._stopping.set()
        self.waker.call()
        poller = self._poller
        if poller is not None:
            poller.ask_to_stop()

    def stop(self, until: float) -> None:
        """End the thread: let the exchange under way finish until the monotonic time ``until``, then cut it."""
        self.ask_to_stop()
        thread, self._thread = self._thread, None
        if thread is None or thread is threading.current_thread():
            return
        thread.join(max(until - self._clock.monotonic(), 0.0))
        if thread.is_alive() and self._wire is not None:
            self._wire.close()
            thread.join(CUT_S)

    def forget_inherited(self) -> None:
        """In a forked child: close the parent's lock file, which frees nothing, and leave its connection alone.

        The thread is gone; but a greenlet (gevent) lives on in the child, and would send on the parent's socket.
        """
        stopping = threading.Event()  # a new one: a thread that is gone may hold the lock of the old one
        stopping.set()
        self._stopping, self._is_forgotten = stopping, True
        poller, self._poller = self._poller, None
        if poller is not None:
            poller.forget_inherited()
        wire, self._worker, self._wire = self._wire, None, None
        forget = getattr(wire, "forget_inherited", None)  # of ours; another one has what its maker gave it
        if forget is not None:
            forget()
        self._election.resign()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                began_s = time.thread_time()
                wait_s = self._step_safely()
                if wait_s == 0.0 and self.waker.is_woken:  # more to deliver, and the agent recorded meanwhile
                    self._rest(time.thread_time() - began_s)
                self.waker.sleep(wait_s)
        finally:
            self._step_down()
        if self._is_forgotten:
            rest_for_ever()

    def _rest(self, computed_s: float) -> None:
        worker = self._worker
        if worker is None:
            return
        before, self._behind = self._behind, max(self._outbox.newest_seq - worker.reached_seq, 0)
        share = share_of(is_full=worker.is_full, behind=self._behind, behind_before=before)
        self._awaited.wait(share.rest_s(computed_s))

    def _step_safely(self) -> float | None:
        try:
            wait_s = self._step()
            self._has_stood.set()
            return wait_s
        except OutboxError as error:
            if not self._stopping.is_set():  # else the outbox was closed before this exchange was over
                log.warning("sink %s: %s", self.sink.name, error)
        except Exception:  # noqa: BLE001  a sink or transport may be other people's code
            # As text: a handler that shows the locals of a traceback would print the headers among them.
            text = self._redact(traceback.format_exc())
            log.error("sink %s: unexpected error, next try in %s s\n%s", self.sink.name, AFTER_ERROR_S, text)
        self._step_down()
        self._has_stood.set()
        return AFTER_ERROR_S

    def _lose_epoch(self) -> None:
        """The poller found that the epoch is over: stand again, and begin another one if elected."""
        self._has_lost_epoch = True
        self.waker.call()

    def _step(self) -> float | None:
        """One turn if elected; seconds to sleep until the next step."""
        if self._has_lost_epoch:
            self._has_lost_epoch = False
            self._step_down()
        worker = self._worker or self._stand()
        if worker is None or self._stopping.is_set():
            return STAND_AGAIN_S
        if self._hurried:
            self._hurried = False
            worker.hurry()
        wait_s = worker.turn()
        if wait_s != 0.0 or not self._has_turned:  # who waits for the end need not look after every batch
            self._has_turned = True
            self._turned()
        if worker.is_stale:
            self._step_down()
            return STAND_AGAIN_S
        return wait_s

    def _stand(self) -> Worker | None:
        self._stands_by = not self._election.stand()
        if self._stands_by:
            return None
        self.add_sink()  # files that were replaced meanwhile may know nothing of it
        holder = Holder(os.getpid(), socket.gethostname(), self._agent, self._clock.now_us())
        epoch = self._outbox.write(lambda con: leadership.begin_epoch(con, self.sink.name, holder))
        row = self._outbox.query(lambda con: cursors.sink(con, self.sink.name))
        with self._outbox.stillness:  # a fork in the middle of an import leaves a lock behind
            self._poller = self._made_poller(epoch)
            self._worker = self._made_worker(epoch)
        if row is not None:
            self._worker.resume(row)
        if self._poller is not None:
            self._poller.start()
        return self._worker

    def _made_poller(self, epoch: int) -> Poller | None:
        from orchclient.sinks.sink import inbox_of

        inbox = inbox_of(self.sink)
        if inbox is None:
            return None
        from orchclient.delivery.inbox_wire import wire_of
        from orchclient.delivery.poller import Poller

        return Poller(
            self._outbox,
            self.sink.name,
            partial(wire_of, inbox, self._make_transport, self._clock, self._deadline_s),
            self._clock,
            epoch,
            redact=self._redact,
            overtaken=self._lose_epoch,
            holds=not self._is_brief,
        )

    def _made_worker(self, epoch: int) -> Worker:
        from orchclient.sinks.sink import is_direct

        make_worker = self._worker_class()
        load = getattr(self.sink, "load", None)
        if load is not None:
            load()
        self._wire = self.sink if is_direct(self.sink) else self._make_transport()
        return make_worker(
            self._outbox,
            self.sink,
            self._wire,
            self._clock,
            epoch,
            self._deadline_s,
            self._redact,
            self._announce,
            self._poller.look if self._poller else None,
        )

    def _worker_class(self) -> type[Worker]:
        """People are told messages, everybody else gets events."""
        from orchclient.sinks.sink import is_chat

        if is_chat(self.sink):
            from orchclient.delivery.teller import Teller

            return Teller
        from orchclient.delivery.worker import Worker

        return Worker

    def _step_down(self) -> None:
        poller, self._poller = self._poller, None
        if poller is not None:
            poller.stop()
        if self._wire is not None:
            self._wire.close()
        self._worker = self._wire = None
        self._election.resign()


CUT_S = 0.5
