"""What a turn works on, and what its outcome changes in the outbox: one transaction, guarded by cursor and epoch."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence

from attrs import evolve, frozen

from orchclient.core.backoff import OUTAGE
from orchclient.core.events import EventType
from orchclient.core.gap import Gap, GapReason, Place, gaps_of
from orchclient.core.policy import Fate, Item, Verdict
from orchclient.core.settled import Settled
from orchclient.outbox import cursors, desk, gaps, identity
from orchclient.outbox.cursors import SinkRow
from orchclient.outbox.identity import Identities, Renewal
from orchclient.outbox.journal import Entry

DAMAGED = Item(Fate.DEAD, "damaged on this disk: the checksum does not fit")


@frozen
class Selection:
    """What a turn works on: events to send, and events that must wait because their task waits at the desk."""

    row: SinkRow
    source: str  # under which the events are sent
    lane: desk.Lane | None = None  # None: from the stream
    to_send: Sequence[Entry] = ()
    to_park: Sequence[Entry] = ()
    damaged: Sequence[Entry] = ()

    @property
    def tried(self) -> Sequence[Entry]:
        """The events whose fate this turn decides."""
        return [*self.to_send, *self.damaged] if self.damaged else self.to_send

    @property
    def all_entries(self) -> Sequence[Entry]:
        """Every event of the selection, in no order."""
        return [*self.to_send, *self.to_park, *self.damaged]

    def __len__(self) -> int:
        return len(self.to_send) + len(self.to_park) + len(self.damaged)

    @property
    def last_seq(self) -> int:
        """Where the cursor stands when all of it is settled."""
        return max(entry.seq for group in (self.to_send, self.to_park, self.damaged) for entry in group)


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
    """Raised inside a transaction to roll it back: another flusher was elected, or the file was replaced."""


def sorted_out(
    row: SinkRow,
    sources: Identities,
    lane: desk.Lane | None,
    entries: Sequence[Entry],
    waiting: Collection[str],
) -> Selection:
    """Entries by what happens to them: those of waiting tasks are parked, damaged ones are not sent.

    A request has one source: what belongs to the next one is left for the next turn.
    """
    source = sources.of(entries[0].seq) if entries else sources.newest
    ours = [entry for entry in entries if sources.of(entry.seq) == source]
    whole = [entry for entry in ours if entry.is_whole]
    damaged = [entry for entry in ours if not entry.is_whole] if len(whole) < len(ours) else []
    if not waiting:
        return Selection(row, source, lane, whole, (), damaged)
    return Selection(
        row,
        source,
        lane,
        [entry for entry in whole if entry.task not in waiting],
        [entry for entry in whole if entry.task in waiting],
        damaged,
    )


def first_conflict(exchange: Exchange) -> int | None:
    """The place of the first event of which the receiver says that its number is taken."""
    items = exchange.verdict.items
    conflicts = (entry.seq for entry in exchange.selection.to_send if items[entry.id].fate is Fate.CONFLICT)
    return min(conflicts, default=None)


def conflict_decided(
    con: sqlite3.Connection, exchange: Exchange, conflict_seq: int, new_source: str, now_us: int
) -> tuple[Exchange, Renewal]:
    """Go on under a new source from the event on whose number is taken; given up when that was no help already.

    The receiver knows another event under this number: the file was restored or copied. The ids stay. Runs in the
    settling transaction: neither a crash nor a flusher that took over may find the one without the other.
    """
    renewal = identity.renewed(con, new_source, conflict_seq, exchange.selection.source, now_us, "sequence conflict")
    fate = Fate.DEAD if renewal is Renewal.IN_VAIN else Fate.RETRY
    items = {
        id_: evolve(item, fate=fate) if item.fate is Fate.CONFLICT else item
        for id_, item in exchange.verdict.items.items()
    }
    return evolve(exchange, verdict=evolve(exchange.verdict, items=items)), renewal


def write_fates(con: sqlite3.Connection, exchange: Exchange, epoch: int, now_us: int, jitter: float) -> list[Gap]:
    """Settle every event of an exchange; the gaps that this leaves at the receiver.

    Raises ``StaleEpoch``, to roll back, when another flusher was elected.
    """
    selection = exchange.selection
    fates = {**exchange.verdict.items, **{entry.id: DAMAGED for entry in selection.damaged}}
    dead = [entry for entry in selection.tried if fates[entry.id].fate is Fate.DEAD]
    if selection.lane is None:
        lost = _write_stream(con, selection, fates, epoch, now_us, jitter)
    else:
        lost = _write_lane(con, selection, selection.lane, fates, now_us, jitter)
    places = (Place(entry.seq, entry.task, entry.agent) for entry in dead if entry.type != EventType.GAP)
    return [*lost, *gaps_of(places, GapReason.DEAD)]


def settled(exchange: Exchange, now_us: int) -> Iterator[Settled]:
    """What an agent that asked is told of an exchange, once it is written: what was delivered, and what is dead."""
    selection = exchange.selection
    fates = {**exchange.verdict.items, **{entry.id: DAMAGED for entry in selection.damaged}}
    for entry in selection.tried:
        item, is_dead = fates[entry.id], fates[entry.id].fate is Fate.DEAD
        if is_dead or item.fate is Fate.DELIVERED:
            reason = item.reason if is_dead else ""
            yield Settled(
                selection.row.name, entry.id, entry.seq, entry.task, entry.type, now_us, is_dead=is_dead, reason=reason
            )


def _write_stream(
    con: sqlite3.Connection, selection: Selection, fates: Mapping[str, Item], epoch: int, now_us: int, jitter: float
) -> list[Gap]:
    row = selection.row
    last_seq = selection.last_seq
    missing = last_seq - row.cursor - len(selection)
    noted = gaps.count(con, row.name, row.cursor, last_seq) if missing else 0
    if not cursors.advance(con, row.name, epoch, row.cursor, last_seq, missing - noted, noted):
        raise StaleEpoch
    lost = _forgotten(con, selection, now_us) if missing > noted else []
    undelivered = [entry for entry in selection.tried if fates[entry.id].fate is not Fate.DELIVERED]
    for entry in undelivered:
        if fates[entry.id].fate is Fate.DEAD:
            desk.bury(con, row.name, entry, 1, fates[entry.id].reason, now_us)
    waiting = [entry for entry in undelivered if fates[entry.id].fate is not Fate.DEAD]
    to_park = sorted([*waiting, *selection.to_park], key=lambda entry: entry.seq)
    due_us = now_us + int(OUTAGE.delay_s(1, jitter) * 1e6)
    desk.park(con, row.name, to_park, {id_: item.reason for id_, item in fates.items()}, now_us, due_us)
    return lost


def _forgotten(con: sqlite3.Connection, selection: Selection, now_us: int) -> list[Gap]:
    """Itemise what was pruned before this sink came."""
    row, entries = selection.row, sorted(selection.all_entries, key=lambda entry: entry.seq)
    ranges = list(gaps.without_reason(con, row.name, [entry.seq for entry in entries], row.cursor))
    for first_seq, last_seq in ranges:
        gaps.add(con, row.name, first_seq, last_seq, GapReason.EXPIRED, now_us)
    agent = entries[0].agent
    return [Gap(first_seq, last_seq, GapReason.EXPIRED, agent) for first_seq, last_seq in ranges]


def _write_lane(
    con: sqlite3.Connection,
    selection: Selection,
    lane: desk.Lane,
    fates: Mapping[str, Item],
    now_us: int,
    jitter: float,
) -> list[Gap]:
    sink = selection.row.name
    settled = [entry for entry in selection.tried if fates[entry.id].fate in (Fate.DELIVERED, Fate.DEAD)]
    dead = [entry for entry in settled if fates[entry.id].fate is Fate.DEAD]
    attempts = [desk.attempts_before(con, sink, entry.seq) + lane.failures for entry in dead]
    desk.release(con, sink, settled)
    for entry, count in zip(dead, attempts, strict=True):
        desk.bury(con, sink, entry, count, fates[entry.id].reason, now_us)
    if len(settled) < len(selection.tried):
        failures = lane.failures + 1
        desk.postpone(con, sink, lane.task, failures, now_us + int(OUTAGE.delay_s(failures, jitter) * 1e6))
    return []
