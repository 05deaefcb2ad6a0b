"""What a turn works on, and what its outcome changes in the outbox: one transaction, guarded by cursor and epoch."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from attrs import frozen

from orchclient.core.backoff import OUTAGE
from orchclient.core.policy import Fate, Item, Verdict
from orchclient.outbox import cursors, desk
from orchclient.outbox.cursors import SinkRow
from orchclient.outbox.journal import Entry

GIVEN_UP = (Fate.DEAD, Fate.CONFLICT)
DAMAGED = Item(Fate.DEAD, "damaged on this disk: the checksum does not fit")


@frozen
class Selection:
    """What a turn works on: events to send, and events that must wait because their task waits at the desk."""

    row: SinkRow
    lane: desk.Lane | None = None  # None: from the stream
    to_send: Sequence[Entry] = ()
    to_park: Sequence[Entry] = ()
    damaged: Sequence[Entry] = ()

    @property
    def tried(self) -> Sequence[Entry]:
        """The events whose fate this turn decides."""
        return [*self.to_send, *self.damaged] if self.damaged else self.to_send

    @property
    def last_seq(self) -> int:
        """Where the cursor stands when all of it is settled."""
        return max(entry.seq for group in (self.to_send, self.to_park, self.damaged) for entry in group)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.to_send or self.to_park or self.damaged)


@frozen
class Exchange:
    """One attempt: what was sent, what came back, what it means."""

    selection: Selection
    verdict: Verdict
    at_us: int
    status: int | None = None
    took_ms: float = 0.0
    sent_bytes: int = 0


class StaleEpoch(Exception):
    """Raised inside a settling transaction to roll it back: another flusher was elected."""


def sorted_out(
    row: SinkRow, lane: desk.Lane | None, entries: Sequence[Entry], waiting: dict[str, desk.Lane]
) -> Selection:
    """Entries by what happens to them: those of waiting tasks are parked, damaged ones are not sent."""
    whole = [entry for entry in entries if entry.is_whole]
    damaged = [entry for entry in entries if not entry.is_whole] if len(whole) < len(entries) else []
    if not waiting:
        return Selection(row, lane, whole, (), damaged)
    return Selection(
        row,
        lane,
        [entry for entry in whole if entry.task not in waiting],
        [entry for entry in whole if entry.task in waiting],
        damaged,
    )


def first_conflict(exchange: Exchange) -> int | None:
    """The place of the first event of which the receiver says that its number is taken."""
    items = exchange.verdict.items
    return min(
        (entry.seq for entry in exchange.selection.to_send if items[entry.id].fate is Fate.CONFLICT), default=None
    )


def write_fates(con: sqlite3.Connection, exchange: Exchange, epoch: int, now_us: int, jitter: float) -> None:
    """Settle every event of an exchange. Raises ``StaleEpoch``, to roll back, when another flusher was elected."""
    selection = exchange.selection
    fates = {**exchange.verdict.items, **{entry.id: DAMAGED for entry in selection.damaged}}
    if selection.lane is None:
        _write_stream(con, selection, fates, epoch, now_us, jitter)
    else:
        _write_lane(con, selection, selection.lane, fates, now_us, jitter)


def _write_stream(
    con: sqlite3.Connection, selection: Selection, fates: Mapping[str, Item], epoch: int, now_us: int, jitter: float
) -> None:
    row = selection.row
    if not cursors.advance(con, row.name, epoch, row.cursor, selection.last_seq):
        raise StaleEpoch
    undelivered = [entry for entry in selection.tried if fates[entry.id].fate is not Fate.DELIVERED]
    _bury_dead(con, row.name, undelivered, fates, 1, now_us)
    waiting = [entry for entry in undelivered if fates[entry.id].fate not in GIVEN_UP]
    to_park = sorted([*waiting, *selection.to_park], key=lambda entry: entry.seq)
    due_us = now_us + int(OUTAGE.delay_s(1, jitter) * 1e6)
    desk.park(con, row.name, to_park, {id_: item.reason for id_, item in fates.items()}, now_us, due_us)


def _write_lane(
    con: sqlite3.Connection,
    selection: Selection,
    lane: desk.Lane,
    fates: Mapping[str, Item],
    now_us: int,
    jitter: float,
) -> None:
    sink = selection.row.name
    settled = [entry for entry in selection.tried if fates[entry.id].fate in (Fate.DELIVERED, *GIVEN_UP)]
    desk.release(con, sink, settled)
    _bury_dead(con, sink, settled, fates, lane.failures, now_us)
    if len(settled) < len(selection.tried):
        failures = lane.failures + 1
        desk.postpone(con, sink, lane.task, failures, now_us + int(OUTAGE.delay_s(failures, jitter) * 1e6))


def _bury_dead(
    con: sqlite3.Connection, sink: str, entries: Sequence[Entry], fates: Mapping[str, Item], attempts: int, now_us: int
) -> None:
    for entry in entries:
        if fates[entry.id].fate in GIVEN_UP:
            desk.bury(con, sink, entry, attempts, fates[entry.id].reason, now_us)
