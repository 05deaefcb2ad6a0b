"""The way back of one sink, a turn at a time: poll, store, acknowledge. Knows no thread and no sleep.

Items and the cursor behind them are committed, synced, in one transaction before the receiver is told: a crash anywhere
brings the items again, never past them. That transaction holds the epoch of this process and the cursor it asked from,
so a process that was stalled while another took over stores nothing. Trouble here never touches the delivery of events.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from math import inf

from attrs import define, evolve, field

from orchclient.core.inbox_page import Page
from orchclient.core.polling import FLOOR_S, Heard, InboxState, NextPoll, Pace, next_poll
from orchclient.core.secret import Redact, as_it_is
from orchclient.delivery.clock import Clock
from orchclient.delivery.inbox_wire import InboxWire
from orchclient.delivery.settlement import StaleEpoch
from orchclient.outbox import identity, inbox, leadership, requests
from orchclient.outbox.outbox import Outbox

log = logging.getLogger("orchclient")

OVERDUE_S = requests.GRACE_US / 1e6
"""How long after a deadline it is looked at again, whatever the receiver does."""


@define
class InboxWorker:
    """Brings the inbox of one sink into the outbox during one ``epoch``."""

    outbox: Outbox
    sink: str
    wire: InboxWire
    clock: Clock
    epoch: int
    redact: Redact = as_it_is
    holds: bool = True  # whether the receiver may keep a poll until something comes
    pace: Pace = field(init=False)
    has_asked: bool = False
    _source: str = ""  # of the last poll
    _greeted: bool = False

    def __attrs_post_init__(self) -> None:
        # As if it had just polled: at once when something is open, else a minute from now.
        since_s = FLOOR_S if self.holds else self._since_last_poll_s()
        self.pace = Pace(started_s=self.clock.monotonic() - since_s)

    def _since_last_poll_s(self) -> float:
        """How long ago somebody polled, at most what must lie between two polls: flushes may come in a row."""
        polled_us = self.outbox.query(lambda con: inbox.last_polled_us(con, self.sink))
        age_s = FLOOR_S if polled_us is None else (self.clock.now_us() - polled_us) / 1e6
        return age_s if 0 <= age_s < FLOOR_S else FLOOR_S

    def turn(self) -> float:
        """Do one step; seconds until the next one is due. Raises ``StaleEpoch``, ``Cut`` and ``OutboxError``."""
        deadline_s = self._settle_overdue()
        open_sources = self.outbox.query(requests.sources_to_poll)
        plan = self._plan(open_sources)
        if plan.in_s > 0:
            return min(plan.in_s, max(deadline_s + OVERDUE_S, 0.01))
        if not self._greeted:
            self._greeted = self.wire.greet()
            plan = self._plan(open_sources)  # the receiver may hold a poll for less
        self._source = self._next_source(open_sources)
        # A poll that ends with a deadline is followed by one that begins after it, and shows what came in time.
        self._step(min(plan.wait_s, max(deadline_s, 0.0)) if self.holds else 0.0)
        return 0.0

    def _plan(self, open_sources: Sequence[str]) -> NextPoll:
        return next_poll(self.pace, self.clock.monotonic(), len(open_sources), self.wire.longest_wait_s)

    def _next_source(self, open_sources: Sequence[str]) -> str:
        """The newest identity while nothing is open; by turns when several have something open."""
        if self.pace.has_more and self._source:
            return self._source
        if not open_sources:
            return self.outbox.query(identity.identities).newest
        is_known = self._source in open_sources
        return open_sources[(open_sources.index(self._source) + 1) % len(open_sources) if is_known else 0]

    # --- the network ----------------------------------------------------------------------------------------------

    def _step(self, wait_s: float) -> None:
        cursor, acknowledged = self.outbox.query(lambda con: inbox.cursor(con, self.sink, self._source))
        if cursor != acknowledged and not self._acknowledge(cursor):
            return
        asked_us = self.clock.now_us()
        self.has_asked = True
        self.pace = self.pace.starting(self.clock.monotonic())
        heard = self.wire.poll(self._source, cursor, wait_s)
        page = heard.page
        if page is None or not (page.items or (page.has_more and page.cursor != cursor)):
            still = None if page is None else evolve(page, has_more=False)  # more of nothing: not again at once
            self._heed(evolve(heard, page=still), asked_us)
            return
        self._store(page, cursor, asked_us)
        self._heed(heard, asked_us)
        self._acknowledge(page.cursor)

    def _acknowledge(self, cursor: str) -> bool:
        """Tell the receiver what is stored; whether it heard."""
        at_us = self.clock.now_us()
        heard = self.wire.acknowledge(self._source, cursor)
        if heard.state is not InboxState.POLLING:
            self._heed(heard, at_us)
            return False
        self.outbox.write(
            lambda con: self._fenced(con, lambda: inbox.acknowledged(con, self.sink, self._source, cursor))
        )
        return True

    # --- the outbox -----------------------------------------------------------------------------------------------

    def _settle_overdue(self) -> float:
        """Settle what nobody answered in time; seconds until the next deadline, negative when one waits for a poll."""
        deadline_us = self.outbox.query(requests.next_deadline_us)
        if deadline_us is None:
            return inf
        now_us = self.clock.now_us()
        if deadline_us <= now_us and self.outbox.write(lambda con: requests.settle_overdue(con, now_us), synced=True):
            return self._settle_overdue()
        return (deadline_us - now_us) / 1e6

    def _store(self, page: Page, asked_from: str, now_us: int) -> None:
        """Keep the items, judged, and the cursor behind them: durable against power loss, or nothing of it."""

        def write(con: sqlite3.Connection) -> None:
            self._check_epoch(con)
            if inbox.cursor(con, self.sink, self._source)[0] != asked_from:
                raise StaleEpoch  # somebody else went on from there
            inbox.store_page(con, self.sink, self._source, list(page.items), page.cursor, now_us)

        self.outbox.write(write, synced=True)

    def _heed(self, heard: Heard, asked_us: int) -> None:
        """Change the pace, and tell how the way back fares: once in the log when it is another way."""
        heard = evolve(heard, reason=self.redact(heard.reason))
        before = self.pace.state
        self.pace = self.pace.after(heard, self.clock.monotonic(), self.clock.jitter())
        self.outbox.write(
            lambda con: self._fenced(
                con,
                lambda: inbox.note_poll(
                    con,
                    self.sink,
                    self._source,
                    asked_us,
                    heard.state.value,
                    heard.reason,
                    is_last=heard.page is not None and not heard.page.has_more,
                ),
            )
        )
        if heard.state is not before:
            level = logging.INFO if heard.state in (InboxState.POLLING, InboxState.ABSENT) else logging.WARNING
            told = f" ({heard.reason})" if heard.reason else ""
            log.log(level, "sink %s: inbox %s%s", self.sink, heard.state.value, told)

    def _fenced(self, con: sqlite3.Connection, write: Callable[[], object]) -> None:
        self._check_epoch(con)
        write()

    def _check_epoch(self, con: sqlite3.Connection) -> None:
        if leadership.epoch(con, self.sink) != self.epoch:
            raise StaleEpoch
