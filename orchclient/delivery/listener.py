"""Telling an agent what people said, by its own callbacks, in a thread of its own.

It looks at the file, since any process of the host may have stored an item: the one that polls, or ``orchclient
answer``. What is told is what came since the client was made; the inbox itself is the record.
"""

from __future__ import annotations

import logging
import threading
from collections import deque

from orchclient.core.errors import OutboxError
from orchclient.core.inbox_items import ANSWERED, CANCEL_REQUESTED, DECIDED, MESSAGE
from orchclient.core.judging import ItemVerdict
from orchclient.delivery.callbacks import Callbacks, Hearer
from orchclient.delivery.clock import Clock
from orchclient.outbox import inbox
from orchclient.outbox.inbox import Addressed, Received
from orchclient.outbox.outbox import Outbox

log = logging.getLogger("orchclient")

LOOK_S = 0.1
PAGE = 200
TOLD = frozenset({ItemVerdict.ACCEPTED, ItemVerdict.LATE, ItemVerdict.STALE, ItemVerdict.TOLD})
REMEMBERED = 10_000
"""Items that are recognised when the files were replaced and everything has another place."""


class Listener:
    """Calls back for the items that are for one agent, each once, in the order in which they were stored."""

    def __init__(self, outbox: Outbox, agent: str, clock: Clock, callbacks: Callbacks) -> None:
        self._outbox = outbox
        self._agent = agent
        self._callbacks: dict[str, Hearer | None] = {
            ANSWERED: callbacks.on_answer,
            DECIDED: callbacks.on_answer,
            CANCEL_REQUESTED: callbacks.on_cancel,
            MESSAGE: callbacks.on_message,
        }
        self._made_us = clock.now_us()
        self._place = outbox.query(inbox.last_n) if self.is_needed else 0
        self._generation = outbox.generation
        self._told: deque[tuple[str, str]] = deque(maxlen=REMEMBERED)
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    @property
    def is_needed(self) -> bool:
        """Whether anybody wants to know."""
        return any(self._callbacks.values())

    def start(self) -> None:
        """Start the thread if anybody wants to know; at interpreter exit, when no thread can start, nobody is told."""
        if not self.is_needed:
            return
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="orchclient-listener", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None

    def ask_to_stop(self) -> None:
        """Tell the item under way, and no other."""
        self._stopping.set()

    def stop(self, timeout_s: float) -> None:
        """End the thread; a callback that takes longer is left alone."""
        self.ask_to_stop()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    def forget_inherited(self) -> None:
        """In a forked child: the thread is gone; what the parent was told, the child is not told again."""
        self._thread, self._stopping = None, threading.Event()

    def _run(self) -> None:
        stopping = self._stopping
        while not stopping.wait(LOOK_S):
            try:
                self.look()
            except OutboxError as error:
                log.warning("the inbox cannot be looked at for the callbacks: %s", error)

    def look(self) -> None:
        """Tell what is new. Raises ``OutboxError``."""
        since_us = 0
        if self._outbox.generation != self._generation:  # other files, perhaps, in which everything has another place
            self._generation, self._place, since_us = self._outbox.generation, 0, self._made_us
        while not self._stopping.is_set():
            page = self._outbox.query(lambda con: inbox.addressed(con, self._place, PAGE))
            for each in page:
                if self._stopping.is_set():
                    return
                self._place = each.item.n
                if each.item.received_us >= since_us and self._is_for_us(each):
                    self._tell(each.item)
            if len(page) < PAGE:
                return

    def _is_for_us(self, each: Addressed) -> bool:
        is_told = (each.item.source, each.item.id) in self._told
        return not is_told and each.item.verdict in TOLD and each.agent in (self._agent, None)

    def _tell(self, item: Received) -> None:
        self._told.append((item.source, item.id))
        callback = self._callbacks.get(item.type)
        if callback is None:
            return
        try:
            callback(item)
        except Exception:
            log.exception("the callback for %s raised for item %s", item.type, item.id)
