"""One sink's delivery, a turn at a time: read a batch, send it, decide, settle. Knows no thread and no sleep.

A turn returns when the next one is due, so a loop around it only has to wait. The network is used with no
transaction open; everything a turn changes is settled in one transaction, guarded by cursor and epoch.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Collection, Iterable
from typing import Any, Protocol

from attrs import define, evolve, field

from orchclient.core.backoff import OUTAGE, probe_delay_s
from orchclient.core.batch import Batch
from orchclient.core.batching import BatchLimit
from orchclient.core.envelope import encoded_events, may_ask
from orchclient.core.gap import Gap
from orchclient.core.ids import uuid7
from orchclient.core.limits import BATCH_EVENTS
from orchclient.core.policy import (
    RETRY_AFTER_CAP_S,
    Action,
    Fate,
    Item,
    Verdict,
    bounded_wait_s,
    printable,
)
from orchclient.core.secret import Redact, as_it_is
from orchclient.core.settled import Settled
from orchclient.delivery.ahead import ReadAhead, read_ahead
from orchclient.delivery.clock import Clock
from orchclient.delivery.courier import Carried, Courier, Cut, Wire, courier
from orchclient.delivery.settlement import (
    Checked,
    Exchange,
    Selection,
    StaleEpoch,
    checked,
    conflict_decided,
    first_conflict,
    settled,
    sorted_out,
    write_fates,
)
from orchclient.outbox import (
    attempts,
    bulk,
    cursors,
    desk,
    heartbeats,
    identity,
    journal,
    notices,
    reminders,
    standing,
)
from orchclient.outbox.attempts import Attempt
from orchclient.outbox.cursors import SinkRow, SinkState
from orchclient.outbox.identity import Renewal
from orchclient.outbox.outbox import Outbox
from orchclient.sinks.sink import AnySink, Selective

log = logging.getLogger("orchclient")

Announce = Callable[[Iterable[Settled]], None]


class Look(Protocol):
    """Who brings back what the receiver has for us: ``Poller.look``."""

    def __call__(self, *, items_wait: bool) -> None:
        """Something was asked; with ``items_wait`` there is something to fetch."""


IDLE = None
"""Nothing to do until something is recorded."""

FEW = 32
"""Events that are looked through for a question, rather than the outbox asked for open ones."""


@define
class Worker:
    """Delivers the outbox to one sink during one ``epoch``."""

    outbox: Outbox
    sink: AnySink
    transport: Wire
    clock: Clock
    epoch: int
    deadline_s: float = 10.0
    redact: Redact = as_it_is  # what a receiver or a foreign sink says is stored and shown
    announce: Announce | None = None
    look_for_answers: Look | None = None  # told when something was asked, and when the receiver has something for us
    limit: BatchLimit = field(factory=BatchLimit)
    failures: int = 0
    state: SinkState = SinkState.DELIVERING
    is_stale: bool = False
    reached_seq: int = 0  # the last place of the last turn
    is_full: bool = False  # its batch had as many events as one may have
    _not_before: float = 0.0  # monotonic seconds
    _greeted: bool = False
    _ahead: ReadAhead | None = None
    _newest_seq: int = -1
    _served_lane: bool = False  # the last turn's events came from the desk: the stream has its turn
    courier: Courier = field(init=False)
    _is_selective: bool = field(init=False)
    _passes_heartbeats: bool = field(init=False, default=False)  # who plans messages looks for itself what is told

    def __attrs_post_init__(self) -> None:
        self._is_selective = isinstance(self.sink, Selective)
        self._passes_heartbeats = not self.sink.checks_sequence
        self.courier = courier(self.sink, self.transport, self.clock, self.deadline_s, self.redact)

    @property
    def breaker_is_open(self) -> bool:
        """From a failure to the next success: only small probes are sent, and nobody waits for this sink at exit."""
        return self.state is not SinkState.DELIVERING

    def resume(self, row: SinkRow) -> None:
        """Go on where an earlier flusher stood: what the receiver asked for still holds, the rest is tried afresh.

        Gently after any trouble: a fleet may be starting anew because of it.
        """
        if row.state is not SinkState.DELIVERING:
            self.limit = self.limit.after_outage()
        if row.state is SinkState.DISABLED:
            self.state = row.state
        elif row.state is SinkState.THROTTLED and row.next_try_us is not None:
            left_s = (row.next_try_us - self.clock.now_us()) / 1e6
            self.state = row.state
            if left_s <= RETRY_AFTER_CAP_S + OUTAGE.cap_s:  # an instant beyond any wait met a clock that was set back
                self._not_before = self.clock.monotonic() + max(left_s, 0.0)

    def hurry(self) -> None:
        """Try at the next turn what waits for a back-off or a probe; what the receiver throttled stays so."""
        if self.state not in (SinkState.THROTTLED, SinkState.DISABLED):
            self._not_before = 0.0
            self.outbox.write(lambda con: desk.hurry(con, self.sink.name))

    def turn(self) -> float | None:
        """Do one step; seconds until the next one is due, 0 for at once, ``IDLE`` for when something is recorded."""
        try:
            return self._turn()
        except StaleEpoch:
            self.is_stale = True
            return IDLE
        except Cut:
            return 0.0

    def _turn(self) -> float | None:
        if self.is_stale or self.state is SinkState.DISABLED:
            return IDLE
        wait_s = self._not_before - self.clock.monotonic()
        if wait_s > 0:
            return wait_s
        selection = self._chosen()
        if selection and selection.to_send and not self._greeted:
            self._greet(selection)
            selection = self._chosen()  # what the receiver takes at once may be less
        if selection is not None and not selection:
            return self._next_lane_s()
        if selection and (self._greeted or not selection.to_send):
            self._served_lane = selection.lane is not None
            self.reached_seq, self.is_full = selection.last_seq, len(selection.to_send) == self.limit.events
            self._settle(self._attempt(selection))
        return max(self._not_before - self.clock.monotonic(), 0.0)

    # --- reading -------------------------------------------------------------------------------------------------

    def _chosen(self) -> Selection | None:
        """What is next, without what the destination does not take; None, and backing off, when it cannot say."""
        selection = self._select()
        if not self._is_selective or not selection:
            return selection
        rows, at_us = (*selection.to_send, *selection.to_park), self.clock.now_us()
        chosen = self.courier.chosen([body for _, _, _, body in rows])
        if isinstance(chosen, Carried):
            self._settle(_exchange(_nothing_of(selection), chosen, at_us))
            return None
        return selection.without({seq for (seq, *_), is_taken in zip(rows, chosen, strict=True) if not is_taken})

    def _select(self) -> Selection:
        """The oldest lane that is due and the next of the stream, by turns when there is both.

        A person may have thousands of tasks sent again: what is recorded meanwhile must not wait for all of them.
        """

        def read(con: sqlite3.Connection) -> Selection:
            row = cursors.sink(con, self.sink.name)
            if row is None:
                raise StaleEpoch  # the file was replaced, and does not know this sink yet
            sources, now_us = identity.identities(con), self.clock.now_us()
            is_turn = not self._served_lane or journal.last_seq(con) <= row.cursor
            waiting: Collection[str] = ()
            lane = desk.due_lane(con, row.name, now_us) if row.parked and is_turn else None
            if lane is not None:
                rows = checked(bulk.read_lane(con, row.name, lane.task, self.limit))
            else:
                rows = self._next_rows(con, row.cursor)
                waiting = desk.waiting(con, row.name, {task for _, task, _, _ in rows.whole}) if row.parked else ()
            found = sorted_out(row, sources, lane, rows, waiting)
            found = found.without_superseded(reminders.over_among(con, (*found.to_send, *found.to_park)))
            if not self._passes_heartbeats:
                return found
            return found.without(heartbeats.among((*found.to_send, *found.to_park)))

        return self.outbox.query(read)

    def _next_rows(self, con: sqlite3.Connection, after_seq: int) -> Checked:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.holds(con, self.outbox.generation, after_seq, self.limit):
            return ahead.rows
        return checked(bulk.read_next(con, after_seq, self.limit, one_by_one=self._is_quiet()))

    def _is_quiet(self) -> bool:
        """Whether this process recorded nothing since this was asked last."""
        before, self._newest_seq = self._newest_seq, self.outbox.newest_seq
        return self._newest_seq == before

    def _next_lane_s(self) -> float | None:
        due_us = self.outbox.query(lambda con: desk.next_due_us(con, self.sink.name))
        if due_us is None:
            return IDLE
        left_us = due_us - self.clock.now_us()
        return max(left_us / 1e6, 0.001) if left_us <= desk.FARTHEST_US else 0.001

    # --- sending -------------------------------------------------------------------------------------------------

    def _greet(self, selection: Selection) -> None:
        """Ask the receiver what it takes."""
        at_us = self.clock.now_us()
        trouble = self.courier.greet()
        if trouble is not None:
            self._settle(_exchange(_nothing_of(selection), trouble, at_us))
            return
        known = self.sink.limit()
        most = min(known.max_events, BATCH_EVENTS)  # folding leaves so many alone, since they may be on their way
        self.limit = evolve(known, events=min(self.limit.events, known.events, most), max_events=most)
        self._greeted = True

    def _attempt(self, selection: Selection) -> Exchange:
        """Send what is to be sent. Raises ``Cut``."""
        at_us = self.clock.now_us()
        if not selection.to_send:
            return Exchange(selection, Verdict(Action.SETTLE), at_us)
        batch = Batch(bulk.Ids(selection.to_send), encoded_events(selection.source, selection.to_send))
        carried = self.courier.carry(batch, lambda: self._read_ahead(selection))
        if self.look_for_answers is not None and (carried.verdict.inbox_pending or self._may_ask(batch)):
            self.look_for_answers(items_wait=carried.verdict.inbox_pending > 0)
        return _exchange(selection, carried, at_us)

    def _may_ask(self, batch: Batch) -> bool:
        """Whether a person may have to answer one of the events; of many: whether anything is open at all."""
        if len(batch) <= FEW:
            return may_ask(batch.encoded)
        return self.outbox.query(standing.count_open) > 0

    def _read_ahead(self, selection: Selection) -> None:
        """While the receiver works: most often all arrives, and then this is what comes next."""
        if selection.lane is None and not selection.row.parked:
            self._ahead = read_ahead(self.outbox, selection.last_seq, self.limit, one_by_one=self._is_quiet())

    # --- deciding ------------------------------------------------------------------------------------------------

    def _settle(self, exchange: Exchange) -> None:
        act: dict[Action, Callable[[Exchange], None]] = {
            Action.SETTLE: self._settle_events,
            Action.BACK_OFF: self._back_off,
            Action.PAUSE: self._pause,
            Action.DISABLE: self._disable,
            Action.BISECT: self._bisect,
            Action.HALVE: self._halve,
        }
        act[exchange.verdict.action](exchange)

    def _settle_events(self, exchange: Exchange) -> None:
        conflict_seq = first_conflict(exchange)
        now_us, jitter = self.clock.now_us(), self.clock.jitter()
        new_source = "" if conflict_seq is None else self.outbox.new_source()

        def write(con: sqlite3.Connection) -> tuple[Exchange, Renewal | None]:
            decided, renewal = exchange, None
            if conflict_seq is not None:
                decided, renewal = conflict_decided(con, exchange, conflict_seq, new_source, now_us)
            for gap in write_fates(con, decided, self.epoch, now_us, jitter):
                self._explain(con, gap, now_us)
            if not exchange.selection.to_send:  # nothing was said to the receiver, so nothing is known of it
                self._note(con, state=self.state)
                return decided, renewal
            self._note(
                con,
                state=SinkState.DELIVERING,
                reason="",
                failures=0,
                next_try_us=None,
                last_success_us=now_us,
            )
            attempts.add(con, self._logged(exchange))
            return decided, renewal

        decided, renewal = self.outbox.write(write, synced=conflict_seq is not None)
        if renewal is Renewal.DONE:
            log.error(
                "sink %s: the receiver holds other events under the numbers from %d on: this outbox was restored or "
                "copied. Its events from there on are sent under a new source.",
                self.sink.name,
                conflict_seq,
            )
        if self.announce is not None:
            seqs = [seq for seq, *_ in (*decided.selection.to_send, *decided.selection.damaged)]
            entries = self.outbox.query(lambda con: journal.at(con, seqs))
            self.announce(settled(decided, entries, now_us))
        self.limit = self.limit.after_success()
        if exchange.selection.to_send:
            self._not_before = 0.0
            self._change(SinkState.DELIVERING, 0, "")

    def _back_off(self, exchange: Exchange) -> None:
        self.limit = self.limit.after_outage()
        failures = self.failures + 1
        floor_s = bounded_wait_s(exchange.verdict.retry_after_s)
        delay_s = OUTAGE.delay_s(failures, self.clock.jitter(), floor_s)
        self._wait(exchange, SinkState.THROTTLED if floor_s else SinkState.WAITING, failures, delay_s)

    def _pause(self, exchange: Exchange) -> None:
        failures = self.failures + 1 if self.state is SinkState.PAUSED else 1
        self._wait(exchange, SinkState.PAUSED, failures, probe_delay_s(failures, self.clock.jitter()))

    def _disable(self, exchange: Exchange) -> None:
        self._wait(exchange, SinkState.DISABLED, self.failures + 1, None)

    def _wait(self, exchange: Exchange, state: SinkState, failures: int, delay_s: float | None) -> None:
        now_us, reason = self.clock.now_us(), exchange.verdict.reason
        next_try_us = None if delay_s is None else now_us + int(delay_s * 1e6)

        def write(con: sqlite3.Connection) -> None:
            self._note(
                con,
                state=state,
                reason=reason,
                failures=failures,
                next_try_us=next_try_us,
                last_error=reason,
                last_error_us=now_us,
            )
            attempts.add(con, self._logged(exchange))

        self.outbox.write(write)
        self._not_before = self.clock.monotonic() + (delay_s or 0.0)
        self._change(state, failures, reason)

    def _bisect(self, exchange: Exchange) -> None:
        sent = exchange.selection.to_send
        if len(sent) == 1:
            self._bury_the_only(exchange)
        else:
            self.limit = self.limit.after_poison(len(sent))
            self._log_attempt(exchange)

    def _halve(self, exchange: Exchange) -> None:
        sent = exchange.selection.to_send
        if len(sent) == 1:
            self._bury_the_only(exchange)
        else:
            self.limit = self.limit.after_too_large(len(sent), exchange.sent_bytes)
            self._log_attempt(exchange)

    def _bury_the_only(self, exchange: Exchange) -> None:
        (only,) = bulk.ids_in(exchange.selection.to_send)
        refused = {only: Item(Fate.DEAD, exchange.verdict.reason)}
        self._settle_events(evolve(exchange, verdict=evolve(exchange.verdict, items=refused)))

    # --- writing --------------------------------------------------------------------------------------------------

    def _explain(self, con: sqlite3.Connection, gap: Gap, now_us: int) -> None:
        """Tell a receiver that looks for missing sequences, by an event of its own, behind everything else."""
        if self.sink.checks_sequence:
            notices.append(con, gap, lambda: uuid7(now_us // 1000, self.clock.randomness()), now_us)

    def _note(self, con: sqlite3.Connection, **columns: Any) -> None:
        if not cursors.note(con, self.sink.name, self.epoch, **columns):
            raise StaleEpoch

    def _log_attempt(self, exchange: Exchange) -> None:
        self.outbox.write(lambda con: attempts.add(con, self._logged(exchange)))

    def _logged(self, exchange: Exchange) -> Attempt:
        sent = exchange.selection.to_send
        return Attempt(
            self.sink.name,
            exchange.at_us,
            sent[0][0] if sent else 0,
            sent[-1][0] if sent else 0,
            len(sent),
            exchange.took_ms,
            exchange.verdict.action.value,
            exchange.status,
            exchange.verdict.reason,
        )

    def _change(self, state: SinkState, failures: int, reason: str) -> None:
        """Remember the state, and say it once when it is another one."""
        before, self.state, self.failures = self.state, state, failures
        if state is before:
            return
        level = logging.INFO if state is SinkState.DELIVERING else logging.WARNING
        log.log(level, "sink %s: %s%s", self.sink.name, state.value, f" ({printable(reason)})" if reason else "")


def _nothing_of(selection: Selection) -> Selection:
    """For an exchange that never got to the events."""
    return evolve(selection, to_send=(), to_park=(), damaged=(), passed=(), folded=())


def _exchange(selection: Selection, carried: Carried, at_us: int) -> Exchange:
    return Exchange(selection, carried.verdict, at_us, carried.status, carried.took_ms, carried.sent_bytes)
