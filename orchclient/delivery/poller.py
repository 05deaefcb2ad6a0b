"""The thread that brings back the inbox of one sink, in the process elected for it. Asleep while nothing is open.

It has a connection of its own, since a poll may be held for half a minute; ending it cuts that at once, because
whatever a poll would have brought is still at the receiver.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable

from orchclient.core.errors import OutboxError
from orchclient.core.polling import FLOOR_S
from orchclient.core.secret import Redact
from orchclient.delivery.clock import Clock
from orchclient.delivery.courier import Cut
from orchclient.delivery.inbox_wire import InboxWire
from orchclient.delivery.inbox_worker import InboxWorker
from orchclient.delivery.settlement import StaleEpoch
from orchclient.delivery.waker import Waker, rest_for_ever
from orchclient.outbox.outbox import Outbox

log = logging.getLogger("orchclient")

AFTER_ERROR_S = 5.0
CUT_S = 0.5


class Poller:
    """Polls for one sink between ``start`` and ``stop``, during one epoch."""

    def __init__(
        self,
        outbox: Outbox,
        sink: str,
        make_wire: Callable[[], InboxWire],
        clock: Clock,
        epoch: int,
        *,
        redact: Redact,
        overtaken: Callable[[], None],
        holds: bool = True,
    ) -> None:
        self._outbox = outbox
        self._sink = sink
        self._make_wire = make_wire
        self._clock = clock
        self._epoch = epoch
        self._redact = redact
        self._overtaken = overtaken  # told when the epoch is over: another process polls, or the files were replaced
        self._holds = holds
        self._has_looked = threading.Event()  # everything that was known to wait has come, or does not come now
        self._waker = Waker()
        self._is_hinted = self._is_hurried = False
        self._stopping = threading.Event()
        self._is_forgotten = False
        self._wire: InboxWire | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; at interpreter exit, when no thread can start, the receiver simply keeps everything."""
        self._thread = threading.Thread(target=self._run, name=f"orchclient-{self._sink}-inbox", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None

    def look(self, *, items_wait: bool = False) -> None:
        """Something was asked, or, with ``items_wait``, a reply to a batch said that there is something to fetch."""
        if items_wait:
            self._is_hinted = True
            self._has_looked.clear()
        self._waker.call()

    def wait_for_look(self, seconds: float) -> None:
        """Wait until what is asked for has come, or is known not to come now: at most so long."""
        self._has_looked.wait(max(seconds, 0.0))

    def hurry(self) -> None:
        """Try now what waits for a back-off or a probe."""
        self._is_hurried = True
        self._waker.call()

    def ask_to_stop(self) -> None:
        """Cut the poll under way, and begin no other. Waits for nobody."""
        self._stopping.set()
        wire = self._wire
        if wire is not None:
            wire.close()
        self._waker.call()

    def stop(self) -> None:
        """End the thread."""
        self.ask_to_stop()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(CUT_S)

    def forget_inherited(self) -> None:
        """In a forked child: the thread is gone; a greenlet (gevent) that lives on leaves the parent's socket alone."""
        stopping = threading.Event()  # a new one: a thread that is gone may hold the lock of the old one
        stopping.set()
        self._stopping, self._is_forgotten = stopping, True
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.forget_inherited()

    def _run(self) -> None:
        try:
            with self._outbox.stillness:  # a fork in the middle of an import leaves a lock behind
                self._wire = self._make_wire()
            worker = InboxWorker(
                self._outbox, self._sink, self._wire, self._clock, self._epoch, self._redact, self._holds
            )
            while not self._stopping.is_set():
                wait_s = self._step_safely(worker)
                if wait_s >= FLOOR_S or (wait_s > 0 and worker.has_asked):
                    self._has_looked.set()
                    if self._is_hinted:  # meanwhile
                        self._has_looked.clear()
                self._waker.sleep(wait_s)
        except StaleEpoch:
            log.info("sink %s: its inbox is polled under another epoch", self._sink)
            self._overtaken()
        except Exception:  # noqa: BLE001  a transport may be other people's code; nothing may be printed
            log.error("sink %s: its inbox is not polled\n%s", self._sink, self._redact(traceback.format_exc()))
        finally:
            self._has_looked.set()
            wire = self._wire
            if wire is not None and not self._is_forgotten:
                wire.close()
        if self._is_forgotten:
            rest_for_ever()

    def _step_safely(self, worker: InboxWorker) -> float:
        if self._is_hinted:
            self._is_hinted = False
            worker.pace = worker.pace.hinted()
        if self._is_hurried:
            self._is_hurried = False
            worker.pace = worker.pace.hurried()
        try:
            return worker.turn()
        except StaleEpoch:
            raise
        except Cut:
            return 0.0
        except OutboxError as error:
            log.warning("sink %s: inbox: %s", self._sink, error)
        except Exception:  # noqa: BLE001  a dialect or transport may be other people's code
            # As text: a handler that shows the locals of a traceback would print the headers among them.
            text = self._redact(traceback.format_exc())
            log.error("sink %s: inbox: unexpected error, next try in %s s\n%s", self._sink, AFTER_ERROR_S, text)
        return AFTER_ERROR_S
