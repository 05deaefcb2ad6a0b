"""Telling an agent what became of its events, by its own callbacks, in a thread that is not the flusher's.

A callback that raises, hangs or is slow harms nobody: delivery does not wait for it. What is told is what happened in
this process since it began; the outbox itself is the record.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterable

from orchclient.core.settled import Settled
from orchclient.delivery.callbacks import Callback

log = logging.getLogger("orchclient")

AT_MOST = 10_000
"""What may wait for a slow callback; beyond it nothing more is told until there is room."""


class Announcer:
    """Calls ``on_delivered`` and ``on_dead``, one event at a time, in the order of settlement."""

    def __init__(self, on_delivered: Callback | None, on_dead: Callback | None) -> None:
        self._callbacks = {False: on_delivered, True: on_dead}
        self._forget()

    def _forget(self) -> None:
        self._waiting: queue.Queue[Settled | None] = queue.Queue(AT_MOST)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._untold = 0

    @property
    def is_needed(self) -> bool:
        """Whether anybody wants to know."""
        return any(self._callbacks.values())

    def announce(self, settled: Iterable[Settled]) -> None:
        """Tell soon. Never waits, never raises."""
        for each in settled:
            if self._callbacks[each.is_dead] is not None:
                self._put(each)

    def _put(self, each: Settled) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="orchclient-callbacks", daemon=True)
                self._thread.start()
        try:
            self._waiting.put_nowait(each)
        except queue.Full:
            if not self._untold:
                log.warning("the callbacks are too slow: %d settled events wait, newer ones are not told", AT_MOST)
            self._untold += 1
        else:
            self._untold = 0

    def _run(self) -> None:
        while (each := self._waiting.get()) is not None:
            callback = self._callbacks[each.is_dead]
            try:
                if callback is not None:
                    callback(each)
            except Exception:
                name = "on_dead" if each.is_dead else "on_delivered"
                log.exception("%s raised for event %s at %s", name, each.event_id, each.destination)

    def stop(self, timeout_s: float) -> None:
        """Tell what still waits, for at most so long."""
        thread, self._thread = self._thread, None
        if thread is None or thread is threading.current_thread():
            return
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            return
        thread.join(timeout_s)

    def forget_inherited(self) -> None:
        """In a forked child: the thread is gone, and what it was to tell is the parent's."""
        self._forget()
