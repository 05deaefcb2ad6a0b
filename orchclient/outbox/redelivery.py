"""Sending again what counts as delivered although the receiver lost it.

It becomes pending in the transaction that takes it from where it was counted, so that recorded = delivered + pending +
dead + expired holds at every moment. How ``resend`` chooses between the desk and the cursor:
docs/decisions/0014-sending-again.md.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from attrs import evolve, frozen

from orchclient.core.gap import Gap, GapReason
from orchclient.core.ranges import Range, difference, intersection, ranges_of, size
from orchclient.outbox import cursors, desk, gaps, journal, notices, posts, steps
from orchclient.outbox.cursors import SinkRow
from orchclient.outbox.desk import Parking
from orchclient.outbox.steps import Store

DESK_AT_MOST = 100_000
"""Events parked for a sink beyond which nothing more is sent again by way of the desk."""

SET_BACK_FROM = 1000
"""Fewer events than this are not worth taking the cursor from the flusher that is just using it."""

PENDING_AT_MOST = 500_000
"""Pending events of a sink to which sending again may bring it, half of the default limit of an outbox: at the limit
agents would be refused what they record."""


@frozen
class Resent:
    """What a resend did: events pending again, how many more there is no room for now, and the first of those."""

    events: int = 0
    left: int = 0
    first_left_seq: int | None = None


def delivered_within(con: sqlite3.Connection, row: SinkRow, ranges: Sequence[Range]) -> list[Range]:
    """The places among ``ranges`` that count as delivered to a sink, whether their events are still kept or not."""
    passed = intersection(ranges, [(row.start_seq + 1, row.cursor)])
    if not passed:
        return []
    first, last = passed[0][0], passed[-1][1]
    at_desk = con.execute(
        "SELECT seq FROM work WHERE sink = ? AND state IN ('parked', 'dead') AND seq >= ? AND seq <= ? ORDER BY seq",
        (row.name, first, last),
    )
    passed = difference(passed, list(ranges_of(seq for (seq,) in at_desk)))
    return difference(passed, gaps.ranges(con, row.name, first, last))


def kept_within(con: sqlite3.Connection, ranges: Sequence[Range]) -> list[Range]:
    """The places among ``ranges`` whose events the journal still keeps."""
    query = "SELECT seq FROM events WHERE seq >= ? AND seq <= ? ORDER BY seq"
    return [kept for each in ranges for kept in ranges_of(seq for (seq,) in con.execute(query, each))]


def resend(
    store: Store,
    sink: str,
    ranges: Sequence[Range],
    now_us: int,
    task: str | None = None,
    pending_at_most: int = PENDING_AT_MOST,
) -> Resent:
    """Make delivered events of ``ranges`` (of one task or of all) pending again, in steps: durable when it returns.

    Everything since a place, as far as nothing else is known of what lies behind it, by setting the cursor back; the
    rest by way of the desk, the oldest first. Places that are not delivered, or whose events are pruned, are passed
    over. Stops where the desk is full, or the sink has ``pending_at_most`` pending events.
    """
    room = store.query(lambda con: _room(con, sink, pending_at_most))
    clean_seq = store.query(lambda con: _clean_after(con, sink, ranges, room)) if task is None else None
    if clean_seq is None:
        return _park_delivered(store, sink, ranges, now_us, task, room)
    resent = _park_delivered(store, sink, intersection(ranges, [(1, clean_seq)]), now_us, task, room)
    back = store.write(lambda con: _set_back(con, sink, clean_seq), synced=True)
    if back:
        return evolve(resent, events=resent.events + back)
    # Somebody parked or buried something behind that place meanwhile.
    more = _park_delivered(store, sink, intersection(ranges, [(clean_seq + 1, _END)]), now_us, task, room)
    first_left = resent.first_left_seq or more.first_left_seq
    return Resent(resent.events + more.events, resent.left + more.left, first_left)


def count(store: Store, sink: str, ranges: Sequence[Range], task: str | None = None) -> int:
    """How many events a resend would make pending again, now and in its further steps. Changes nothing."""
    return _park_delivered(store, sink, ranges, 0, task, room=0).left


_END = journal.MAX_SEQ


def _room(con: sqlite3.Connection, sink: str, pending_at_most: int) -> int:
    row = cursors.sink(con, sink)
    return max(pending_at_most - row.pending(journal.last_seq(con)), 0) if row else 0


def _park_delivered(
    store: Store, sink: str, ranges: Sequence[Range], now_us: int, task: str | None, room: int
) -> Resent:
    row = store.query(lambda con: cursors.sink(con, sink))
    room = min(room, max(DESK_AT_MOST - row.parked, 0)) if row else 0
    parked = left = 0
    first_left = None
    for seqs in _slices(store, sink, ranges, task):
        fitting = max(room - parked, 0)
        if fitting:
            parked += store.write(partial(_parked, sink=sink, seqs=seqs[:fitting], now_us=now_us), synced=True)
        rest = store.query(partial(_still_delivered, sink=sink, seqs=seqs[fitting:]))
        left += size(rest)
        first_left = first_left or (rest[0][0] if rest else None)
    return Resent(parked, left, first_left)


def _slices(store: Store, sink: str, ranges: Sequence[Range], task: str | None) -> Iterator[list[int]]:
    """The places of kept events before the cursor, some hundreds at a time."""
    for first, last in ranges:
        after_seq = first - 1
        while seqs := store.query(partial(_events, sink=sink, after_seq=after_seq, last_seq=last, task=task)):
            yield seqs
            after_seq = seqs[-1]


def _still_delivered(con: sqlite3.Connection, sink: str, seqs: Sequence[int]) -> list[Range]:
    row = cursors.sink(con, sink)
    return delivered_within(con, row, list(ranges_of(seqs))) if row else []


def _events(con: sqlite3.Connection, sink: str, after_seq: int, last_seq: int, task: str | None) -> list[int]:
    row = cursors.sink(con, sink)
    rows = con.execute(
        "SELECT seq FROM events WHERE seq > ? AND seq <= ? AND (? IS NULL OR task = ?) ORDER BY seq LIMIT ?",
        (after_seq, min(last_seq, row.cursor if row else 0), task, task, steps.STEP),
    )
    return [seq for (seq,) in rows]


def _parked(con: sqlite3.Connection, sink: str, seqs: Sequence[int], now_us: int) -> int:
    places = [
        Parking(seq, task, 0, "sent again on request")
        for first, last in _still_delivered(con, sink, seqs)
        for seq, task in con.execute("SELECT seq, task FROM events WHERE seq >= ? AND seq <= ?", (first, last))
    ]
    desk.park(con, sink, places, now_us, 0)
    return len(places)


def _clean_after(con: sqlite3.Connection, sink: str, ranges: Sequence[Range], room: int) -> int | None:
    """The place to which the cursor may be set back; None when it is not worth it, or too much for the room.

    Behind it every event is delivered and kept, so that nothing would be counted twice when it is passed again.
    """
    row = cursors.sink(con, sink)
    if row is None or not ranges or ranges[-1][1] < row.cursor:
        return None
    lowest = max(ranges[-1][0] - 1, row.start_seq, _last_known(con, row))
    clean_seq = row.cursor
    for (seq,) in con.execute(
        "SELECT seq FROM events WHERE seq > ? AND seq <= ? ORDER BY seq DESC", (lowest, row.cursor)
    ):
        if seq != clean_seq:
            break
        clean_seq -= 1
    return clean_seq if SET_BACK_FROM <= row.cursor - clean_seq <= room else None


def _last_known(con: sqlite3.Connection, row: SinkRow) -> int:
    """The last place before the cursor that is at the desk or in the ledger."""
    query = "SELECT max(seq) FROM work WHERE sink = ? AND state = ?"
    at_desk = [con.execute(query, (row.name, state)).fetchone()[0] or 0 for state in ("parked", "dead")]
    noted = con.execute(
        "SELECT last_seq FROM gaps WHERE sink = ? AND first_seq <= ? ORDER BY first_seq DESC LIMIT 1",
        (row.name, row.cursor),
    ).fetchone()
    return max(*at_desk, noted[0] if noted else 0)


def _set_back(con: sqlite3.Connection, sink: str, seq: int) -> int:
    """How many events are pending again. A batch under way is not settled then: it was read from another place."""
    row = cursors.sink(con, sink)
    if row is None or row.cursor <= seq or _last_known(con, row) > seq:
        return 0
    con.execute("UPDATE sinks SET cursor = ? WHERE name = ?", (seq, sink))
    posts.tell_again(con, sink)
    return row.cursor - seq


# --- what cannot be sent again ------------------------------------------------------------------------------------


def pruned_within(con: sqlite3.Connection, row: SinkRow, ranges: Sequence[Range]) -> list[Range]:
    """Delivered places of ``ranges`` whose events are gone, so that they cannot be sent again."""
    delivered = delivered_within(con, row, ranges)
    return difference(delivered, kept_within(con, delivered))


def pruned_count(con: sqlite3.Connection, row: SinkRow, first_seq: int, last_seq: int) -> int:
    """How many of them there are between two places."""
    return size(pruned_within(con, row, [(first_seq, last_seq)]))


def write_off_lost(store: Store, sink: str, ranges: Sequence[Range], now_us: int, new_id: Callable[[], str]) -> int:
    """Count delivered places as expired that the receiver lost and whose events are pruned here, too; how many.

    Durable when it returns, with a notice for the receiver that they will not come.
    """
    if not ranges:
        return 0
    return store.write(lambda con: _written_off(con, sink, ranges, now_us, new_id), synced=True)


def _written_off(
    con: sqlite3.Connection, sink: str, ranges: Sequence[Range], now_us: int, new_id: Callable[[], str]
) -> int:
    row, newest = cursors.sink(con, sink), journal.read_one(con, journal.last_seq(con))
    if row is None or newest is None:
        return 0
    lost = pruned_within(con, row, ranges)
    gaps.write_off(con, sink, lost, now_us)
    for first, last in lost:
        notices.append(con, Gap(first, last, GapReason.EXPIRED, newest.agent), new_id, now_us)
    return size(lost)
