"""Looking after what is critical and open: reads what is new, and records the reminders that are due."""

from __future__ import annotations

from orchclient.core.ids import uuid7
from orchclient.core.schedule import Schedule
from orchclient.delivery.clock import Clock
from orchclient.outbox import reminders
from orchclient.outbox.outbox import Outbox
from orchclient.outbox.retention import MyLook

LOOKS_AT_MOST = 20
"""Steps of one look, some milliseconds each; the rest is for the next one."""


class Reminding:
    """One process's looks. Several may look after one outbox: whoever is first gives a reminder."""

    def __init__(self, outbox: Outbox, clock: Clock, schedule: Schedule) -> None:
        self._outbox = outbox
        self._clock = clock
        self._schedule = schedule
        self._seen_seq = 0
        self._noted: tuple[float, int] | None = None  # my last look that was noted: its monotonic time, its date

    def look(self) -> int:
        """Read what is new and record what is due; how many reminders. They are durable when it returns."""
        recorded = 0
        for _ in range(LOOKS_AT_MOST):
            now, now_us = self._clock.monotonic(), self._clock.now_us()
            last = MyLook(self._noted[1], int((now - self._noted[0]) * 1e6)) if self._noted else None
            news = self._outbox.query(
                lambda con: reminders.news(con, self._seen_seq, self._schedule, now_us, last)  # noqa: B023
            )
            if news.entries or news.is_due:
                recorded += self._outbox.write(
                    lambda con: reminders.look(con, news, self._schedule, now_us, last, self._new_id),  # noqa: B023
                    synced=True,
                )
                self._noted = now, now_us
            self._seen_seq = news.to_seq
            if news.is_last:
                break
        return recorded

    def _new_id(self) -> str:
        return uuid7(self._clock.now_us() // 1000, self._clock.randomness())
