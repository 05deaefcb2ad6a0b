"""What an outbox needs now and then: the late sync, the fold, the checkpoint, pruning, and news of other processes."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Collection
from typing import Protocol

from orchclient.core.errors import OutboxError
from orchclient.core.schedule import NEVER, Schedule
from orchclient.delivery.beating import Beating
from orchclient.delivery.clock import Clock
from orchclient.delivery.reminding import Reminding
from orchclient.delivery.waker import Waker, rest_for_ever
from orchclient.outbox import inbox, incidents, journal, leadership, requests, retention
from orchclient.outbox.outbox import Outbox
from orchclient.outbox.retention import MyLook

log = logging.getLogger("orchclient")

SYNC_AFTER_S = 0.6
"""A progress update survives power loss a second after it was recorded at the latest: this and one pause."""

LOOK_EVERY_S = 0.1
PRUNE_EVERY_S = 600.0
REMIND_EVERY_S = 5.0


class Delivery(Protocol):
    """What the housekeeper needs to know of, and to tell, whoever delivers in this process."""

    @property
    def is_leading(self) -> bool:
        """Whether this process delivers to any sink, and so must look for other processes' events."""

    @property
    def beats_for(self) -> Collection[str]:
        """The destinations that heartbeats are for, if this process delivers to one of them; else none."""

    def wake(self) -> None:
        """There may be something to deliver."""

    def hurry(self) -> None:
        """Somebody asks to try now."""


class Housekeeper:
    """One thread per process that records or delivers. With nothing to do it sleeps until something is recorded."""

    def __init__(
        self,
        outbox: Outbox,
        clock: Clock,
        delivery: Delivery,
        *,
        retention_s: float,
        schedule: Schedule = NEVER,
        beating: Beating | None = None,
    ) -> None:
        self._outbox = outbox
        self._clock = clock
        self._delivery = delivery
        self._retention_us = int(retention_s * 1e6)
        self._reminding = Reminding(outbox, clock, schedule)
        self._beating = beating
        self._waker = Waker()
        self._is_alert = False
        self._leads = False
        self._has_put_off = False  # what can wait is left until the agent's burst is over
        self._stopping = False
        self._is_forgotten = False
        self._thread: threading.Thread | None = None
        self._unsynced_since: float | None = None
        self._news = (-1, -1)
        self._prune_at = self._remind_at = clock.monotonic()
        self._beat_at = clock.monotonic() + (beating.every_s if beating else 0.0)
        self._last_look: tuple[float, int] | None = None  # its monotonic time, its date

    def start(self) -> None:
        """Start the thread; without one (interpreter exit) the writer does what must be done.

        To be called before anything is delivered, so that no nudge is missed. Raises ``OutboxError``.
        """
        self._news = self._outbox.query(_newest)
        self._thread = threading.Thread(target=self._run, name="orchclient-housekeeper", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None

    def notice(self) -> None:
        """An event was recorded in this process."""
        if not self._is_alert and self._outbox.has_unsynced:
            self._is_alert = True
            self._waker.wake()

    def wake(self) -> None:
        """Look around now."""
        self._waker.wake()

    def notice_lead(self) -> None:
        """This process delivers, so it must look for what other processes record."""
        if not self._leads:
            self._leads = True
            self._waker.wake()

    def ask_to_stop(self) -> None:
        """Finish the round under way, and no other."""
        self._stopping = True
        self._waker.wake()

    def forget_inherited(self) -> None:
        """In a forked child: the thread is gone, and a greenlet (gevent) that lives on does nothing more."""
        self._stopping = self._is_forgotten = True

    def stop(self, until: float) -> None:
        """End the thread by the monotonic time ``until``."""
        self.ask_to_stop()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(max(until - self._clock.monotonic(), 0.05))

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._round()
            except OutboxError as error:
                if not self._stopping:  # else it was closed: whoever closes it is told what he must know
                    log.warning("outbox housekeeping: %s", error)
            except Exception:
                log.exception("outbox housekeeping: unexpected error")
            if not self._stopping:
                self._waker.sleep(self._pause_s())
        if self._is_forgotten:
            rest_for_ever()

    def _pause_s(self) -> float | None:
        if self._leads or self._has_put_off:
            return LOOK_EVERY_S
        return SYNC_AFTER_S / 2 if self._is_alert else None

    def _round(self) -> None:
        self._sync_late()
        self._leads = self._delivery.is_leading
        if self._leads:
            self._look_for_news()
            self._prune_at_times()
            self._remind_at_times()
            self._beat_at_times()
        self._has_put_off = self._outbox.keep_house()

    def _sync_late(self) -> None:
        now = self._clock.monotonic()
        if not self._outbox.has_unsynced:
            self._unsynced_since = None
            self._is_alert = False
        elif self._unsynced_since is None:
            self._unsynced_since = now
        elif now - self._unsynced_since >= SYNC_AFTER_S:
            self._outbox.sync()
            self._unsynced_since = None

    def _look_for_news(self) -> None:
        """Events and nudges of other processes: nobody wakes this one for them."""
        news = self._outbox.query(_newest)
        (last_seq, nudges), self._news = self._news, news
        if nudges != news[1]:
            self._delivery.hurry()
        elif news[0] != last_seq:
            self._delivery.wake()

    def _prune_at_times(self) -> None:
        now = self._clock.monotonic()
        if now >= self._prune_at:
            self._prune_at = now + PRUNE_EVERY_S
            self._outbox.prune(up_to_seq=self._old_seq(now))
            before_us = self._clock.now_us() - self._retention_us
            self._outbox.write(lambda con: _forget_settled(con, before_us))

    def _remind_at_times(self) -> None:
        now = self._clock.monotonic()
        if now >= self._remind_at:
            self._remind_at = now + REMIND_EVERY_S
            if self._reminding.look():
                self._delivery.wake()

    def _beat_at_times(self) -> None:
        now = self._clock.monotonic()
        if self._beating is not None and now >= self._beat_at:
            self._beat_at = now + self._beating.every_s
            if self._beating.beat(self._delivery.beats_for):
                self._delivery.wake()

    def _old_seq(self, now: float) -> int:
        last, now_us = self._last_look, self._clock.now_us()
        mine = MyLook(last[1], int((now - last[0]) * 1e6)) if last else None
        old_seq = self._outbox.write(lambda con: retention.look(con, now_us, mine, self._retention_us))
        self._last_look = now, now_us
        return old_seq


def _newest(con: sqlite3.Connection) -> tuple[int, int]:
    return journal.last_seq(con), leadership.nudges(con)


def _forget_settled(con: sqlite3.Connection, before_us: int) -> None:
    """What was settled before an instant: nobody waits for it, and the journal has told it."""
    incidents.forget_resolved(con, before_us)
    incidents.forget_oldest_open(con)
    requests.forget_settled(con, before_us)
    inbox.forget(con, before_us)
