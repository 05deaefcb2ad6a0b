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
from orchclient.outbox import cursors, desk, gaps, identity, journal
from orchclient.outbox.bulk import Row, damaged_among, ids_in
from orchclient.outbox.cursors import SinkRow
from orchclient.outbox.desk import Parking
from orchclient.outbox.identity import Identities, Renewal
from orchclient.outbox.journal import Entry

DAMAGED = Item(Fate.DEAD, "damaged on this disk: the checksum does not fit")
BEHIND = Item(Fate.RETRY, "waits for an earlier event of its task")


@frozen
class Selection:
    """What a turn works on: events to send, and events that must wait because their task waits at the desk."""

    row: SinkRow
    source: str  # under which the events are sent
    lane: desk.Lane | None = None  # None: from the stream
    to_send: Sequence[Row] = ()
    to_park: Sequence[Row] = ()
    damaged: Sequence[Row] = ()
    passed: Sequence[Row] = ()  # the destination does not take them
    folded: Sequence[Row] = ()  # superseded: nobody needs them any more

    def __len__(self) -> int:
        return len(self.to_send) + len(self.to_park) + len(self.damaged) + len(self.passed) + len(self.folded)

    @property
    def last_seq(self) -> int:
        """Where the cursor stands when all of it is settled."""
        return max(rows[-1][0] for rows in self._all if rows)

    @property
    def seqs(self) -> list[int]:
        """Every place of the selection, rising."""
        return sorted(seq for rows in self._all for seq, *_ in rows)

    @property
    def _all(self) -> Sequence[Sequence[Row]]:
        return self.to_send, self.to_park, self.damaged, self.passed, self.folded

    def without(self, passed: Collection[int]) -> Selection:
        """The same when the events at some places are not for the destination: there is nothing to wait for either."""
        if not passed:
            return self
        gone = [each for each in (*self.to_send, *self.to_park) if each[0] in passed]
        return evolve(
            self,
            to_send=[each for each in self.to_send if each[0] not in passed],
            to_park=[each for each in self.to_park if each[0] not in passed],
            passed=sorted((*self.passed, *gone), key=lambda each: each[0]),
        )

    def without_superseded(self, seqs: Collection[int]) -> Selection:
        """The same when the events at some places need not be told any more."""
        if not seqs:
            return self
        return evolve(
            self.without(seqs), passed=(), folded=[each for each in (*self.to_send, *self.to_park) if each[0] in seqs]
        )


@frozen
class Exchange:
    """One attempt: what was sent, what came back, what it means."""

    selection: Selection
    verdict: Verdict
    at_us: int
    status: int | None = None
    took_ms: float = 0.0
    sent_bytes: int = 0


@frozen
class Kept:
    """An event that was not delivered, and why."""

    seq: int
    task: str
    item: Item

    @property
    def is_dead(self) -> bool:
        """Whether it is given up."""
        return self.item.fate is Fate.DEAD


class StaleEpoch(Exception):
    """Raised inside a transaction to roll it back: another flusher was elected, or the file was replaced."""


@frozen
class Checked:
    """Events as they were read, by whether their text is what was recorded."""

    whole: Sequence[Row]
    damaged: Sequence[Row] = ()

    @property
    def seqs(self) -> tuple[int, int]:
        """The first and the last place."""
        places = [rows[at][0] for rows in (self.whole, self.damaged) if rows for at in (0, -1)]
        return min(places), max(places)


def checked(rows: Sequence[Row]) -> Checked:
    """Look at every event's checksum."""
    damaged = damaged_among(rows)
    return Checked([each for each in rows if each not in damaged], damaged) if damaged else Checked(rows)


def sorted_out(
    row: SinkRow, sources: Identities, lane: desk.Lane | None, rows: Checked, waiting: Collection[str]
) -> Selection:
    """Events by what happens to them: those of waiting tasks are parked, damaged ones are not sent.

    A request has one source: what belongs to the next one is left for the next turn.
    """
    whole, damaged = rows.whole, rows.damaged
    if not whole and not damaged:
        return Selection(row, sources.newest, lane)
    first_seq, last_seq = rows.seqs
    source = sources.of(first_seq)
    if sources.of(last_seq) != source:
        whole = [each for each in whole if sources.of(each[0]) == source]
        damaged = [each for each in damaged if sources.of(each[0]) == source]
    if not waiting:
        return Selection(row, source, lane, whole, (), damaged)
    to_send = [each for each in whole if each[1] not in waiting]
    return Selection(row, source, lane, to_send, [each for each in whole if each[1] in waiting], damaged)


def first_conflict(exchange: Exchange) -> int | None:
    """The place of the first event of which the receiver says that its number is taken."""
    conflicts = (kept.seq for kept in undelivered(exchange) if kept.item.fate is Fate.CONFLICT)
    return min(conflicts, default=None)


def undelivered(exchange: Exchange) -> list[Kept]:
    """What was tried and has not arrived, in order: refused, deferred, not mentioned, or damaged on this disk."""
    selection, verdict = exchange.selection, exchange.verdict
    kept = [Kept(seq, task, DAMAGED) for seq, task, _, _ in selection.damaged]
    if not verdict.takes_all:
        for id_, (seq, task, _, _) in zip(ids_in(selection.to_send), selection.to_send, strict=True):
            if (item := verdict.items[id_]).fate is not Fate.DELIVERED:
                kept.append(Kept(seq, task, item))
    return sorted(kept, key=lambda each: each.seq) if selection.damaged else kept


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
    kept, lane = undelivered(exchange), exchange.selection.lane
    if lane is None:
        lost = _write_stream(con, exchange.selection, kept, epoch, now_us, jitter)
    else:
        lost = _write_lane(con, exchange.selection, lane, kept, now_us, jitter)
    superseded = _folded(con, exchange.selection, now_us)
    return [*lost, *superseded, *gaps_of(_places_of_dead(con, kept), GapReason.DEAD)]


def _folded(con: sqlite3.Connection, selection: Selection, now_us: int) -> list[Gap]:
    """Count what is superseded as expired, itemised; the caller moved the cursor, or released it from its lane."""
    places = [Place(entry.seq, entry.task, entry.agent) for entry in journal.at(con, _seqs(selection.folded)).values()]
    found = list(gaps_of(places, GapReason.FOLDED))
    runs = [(gap.first_seq, gap.last_seq) for gap in found]
    gaps.write_off(con, selection.row.name, runs, now_us, GapReason.FOLDED)
    return found


def _seqs(rows: Sequence[Row]) -> list[int]:
    return [seq for seq, *_ in rows]


def _places_of_dead(con: sqlite3.Connection, kept: Sequence[Kept]) -> Iterator[Place]:
    """Dead letters that leave a gap: the notice of one does not, else there would be no end of notices."""
    for each in kept:
        entry = journal.read_one(con, each.seq) if each.is_dead else None
        if entry is not None and entry.type != EventType.GAP:
            yield Place(entry.seq, entry.task, entry.agent)


def settled(exchange: Exchange, entries: Mapping[int, Entry], now_us: int) -> Iterator[Settled]:
    """What an agent that asked is told of an exchange, once it is written: what was delivered, and what is dead.

    ``entries`` by place, as the journal holds them.
    """
    kept = {each.seq: each for each in undelivered(exchange)}
    sink = exchange.selection.row.name
    for seq, entry in sorted(entries.items()):
        each = kept.get(seq)
        if each is None and entry.type == EventType.AGENT_HEARTBEAT:
            continue  # nothing that the agent recorded
        if each is None or each.is_dead:
            reason = each.item.reason if each else ""
            yield Settled(sink, entry.id, seq, entry.task, entry.type, now_us, is_dead=each is not None, reason=reason)


def _write_stream(
    con: sqlite3.Connection, selection: Selection, kept: Sequence[Kept], epoch: int, now_us: int, jitter: float
) -> list[Gap]:
    row, last_seq = selection.row, selection.last_seq
    missing = last_seq - row.cursor - len(selection)
    noted = gaps.count(con, row.name, row.cursor, last_seq) if missing else 0
    if not cursors.advance(con, row.name, epoch, row.cursor, last_seq, missing - noted, noted):
        raise StaleEpoch
    lost = _forgotten(con, selection, now_us) if missing > noted else []
    for each in kept:
        if each.is_dead:
            desk.bury(con, row.name, each.seq, each.task, 1, each.item.reason, now_us)
    behind = [Kept(seq, task, BEHIND) for seq, task, _, _ in selection.to_park]
    waiting = sorted([*(each for each in kept if not each.is_dead), *behind], key=lambda each: each.seq)
    if waiting:
        due_us = now_us + int(OUTAGE.delay_s(1, jitter) * 1e6)
        places = [Parking(each.seq, each.task, 0, each.item.reason) for each in waiting]
        desk.park(con, row.name, places, now_us, due_us)
    return lost


def _forgotten(con: sqlite3.Connection, selection: Selection, now_us: int) -> list[Gap]:
    """Itemise what was pruned before this sink came."""
    row, seqs = selection.row, selection.seqs
    ranges = list(gaps.without_reason(con, row.name, seqs, row.cursor))
    for first_seq, last_seq in ranges:
        gaps.add(con, row.name, first_seq, last_seq, GapReason.EXPIRED, now_us)
    entry = journal.read_one(con, seqs[0])
    agent = entry.agent if entry else "orchclient"
    return [Gap(first_seq, last_seq, GapReason.EXPIRED, agent) for first_seq, last_seq in ranges]


def _write_lane(
    con: sqlite3.Connection, selection: Selection, lane: desk.Lane, kept: Sequence[Kept], now_us: int, jitter: float
) -> list[Gap]:
    sink, dead = selection.row.name, [each for each in kept if each.is_dead]
    attempts = [desk.attempts_before(con, sink, each.seq) + lane.failures for each in dead]
    still_waiting = {each.seq for each in kept if not each.is_dead}
    desk.release(con, sink, lane.task, [seq for seq in selection.seqs if seq not in still_waiting])
    for each, count in zip(dead, attempts, strict=True):
        desk.bury(con, sink, each.seq, each.task, count, each.item.reason, now_us)
    if still_waiting:
        failures = lane.failures + 1
        desk.postpone(con, sink, lane.task, failures, now_us + int(OUTAGE.delay_s(failures, jitter) * 1e6))
    return []
