"""Making room at a limit: superseded progress and errors are folded into what later ones tell; all accounted for.

The events go, a range in the ledger stays for every sink that had not got them, and a ``gap.v1`` tells receivers. What
a flusher may be sending at this moment is never touched: the next batch of every sink, by rows, stays as it is.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable
from itertools import groupby

from attrs import frozen

from orchclient.core.events import EventType
from orchclient.core.gap import Gap, GapReason, Place, gaps_of
from orchclient.core.limits import BATCH_EVENTS
from orchclient.core.superseded import Told, superseded, superseded_repeats, told_by_update
from orchclient.outbox import cursors, desk, folding, gaps, journal, notices
from orchclient.outbox.cursors import SinkRow
from orchclient.outbox.journal import Entry

STEP = 1000
"""Events looked at in one transaction: some 10 ms."""

SHORTEST = 8
"""Shorter runs are not worth their notice, which is an event too."""


@frozen
class Folded:
    """What one step did: events folded, the place where to go on, and whether that is the end for now."""

    events: int
    next_seq: int
    is_last: bool


class Passage:
    """How far this process has gone through the journal; at its end it goes on only when there is enough new."""

    def __init__(self) -> None:
        self.next_seq = 0
        self._rests_until = 0

    def is_worthwhile(self, last_seq: int) -> bool:
        """Whether a step may find something that the last one did not."""
        return last_seq >= self._rests_until

    def went_on(self, folded: Folded, last_seq: int) -> None:
        """One step further."""
        self.next_seq = folded.next_seq
        if folded.is_last:
            self._rests_until = last_seq + 2 * SHORTEST


def fold_superseded(con: sqlite3.Connection, after_seq: int, now_us: int, new_id: Callable[[], str]) -> Folded:
    """Fold what is superseded among the next ``STEP`` events. The writer's work; run twice, it does no more.

    Events that are not in the tasks' fold yet, at a desk, or in a sink's next batch are left alone.
    """
    rows = cursors.sinks(con)
    entries = list(journal.read_range(con, after_seq, folding.folded_seq(con), STEP))
    busy = desk.among(con, entries[0].seq, entries[-1].seq) if entries else set()
    busy.update(seq for row in rows for seq in _next_batch(con, row))
    by_seq = {entry.seq: entry for entry in entries}
    places = superseded([_told(entry) for entry in entries])
    places += superseded_repeats([repeat for entry in entries for repeat in _repeats(entry)])
    free = (by_seq[seq] for seq in sorted(places) if seq not in busy)
    found = [gap for gap in _gaps(free, rows) if gap.count >= SHORTEST]
    for gap in found:
        _fold(con, gap, rows, now_us, new_id)
    is_full = len(entries) == STEP
    is_last = bool(entries) and entries[-1].seq == journal.last_seq(con)
    return Folded(sum(gap.count for gap in found), entries[-1].seq if is_full else after_seq, is_last)


def _next_batch(con: sqlite3.Connection, row: SinkRow) -> Iterable[int]:
    query = "SELECT seq FROM events WHERE seq > ? ORDER BY seq LIMIT ?"
    return [seq for (seq,) in con.execute(query, (row.cursor, BATCH_EVENTS))]


def _told(entry: Entry) -> Told:
    if entry.type != EventType.TASK_STATUS or not entry.is_whole:
        return Told(entry.seq, entry.task)
    return told_by_update(entry.seq, entry.task, json.loads("{" + entry.body)["data"])


def _repeats(entry: Entry) -> Iterable[tuple[int, str]]:
    """Where a repeated error stands and of which incident it is; one that fails its task is history."""
    if entry.type == EventType.ERROR_ESCALATED and entry.is_whole:
        data = json.loads("{" + entry.body)["data"]
        if "first_id" in data and not data.get("fatal"):
            yield entry.seq, str(data["first_id"])


def _gaps(entries: Iterable[Entry], rows: list[SinkRow]) -> Iterable[Gap]:
    """Runs without a hole; a run ends where some sink stands, so that a sink either had all of it or nothing."""
    places = (Place(entry.seq, entry.task, entry.agent) for entry in entries)
    for _, run in groupby(places, key=lambda place: sum(row.cursor < place.seq for row in rows)):
        yield from gaps_of(run, GapReason.FOLDED)


def _fold(con: sqlite3.Connection, gap: Gap, rows: list[SinkRow], now_us: int, new_id: Callable[[], str]) -> None:
    con.execute("DELETE FROM events WHERE seq >= ? AND seq <= ?", (gap.first_seq, gap.last_seq))
    gaps.add(con, gaps.JOURNAL, gap.first_seq, gap.last_seq, gap.reason, now_us)
    for row in rows:
        if row.cursor < gap.first_seq:
            gaps.add(con, row.name, gap.first_seq, gap.last_seq, gap.reason, now_us)
            con.execute(
                "UPDATE sinks SET expired = expired + ?, ahead = ahead + ? WHERE name = ?",
                (gap.count, gap.count, row.name),
            )
    notices.append(con, gap, new_id, now_us)
