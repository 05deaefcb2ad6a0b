"""The desk: events taken out of the stream for a sink. Parked ones wait for their task's turn, dead ones for a person.

Every function is a work of the writer or a question; the counters in ``sinks`` change in the same transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping

from attrs import frozen

from orchclient.outbox.journal import Entry


@frozen
class Lane:
    """A task of which events are parked for a sink: when it is tried again, after how many failures."""

    task: str
    parked: int
    failures: int
    due_us: int

    def is_due(self, now_us: int) -> bool:
        """Whether it is to be tried now."""
        return not now_us < self.due_us <= now_us + FARTHEST_US


FARTHEST_US = 90 * 1_000_000
"""No lane waits longer than this (the back-off's cap, and some): one that seems to met a clock that was set back."""


@frozen
class DeadLetter:
    """An event that a sink gave up, with the reason."""

    sink: str
    seq: int
    task: str
    attempts: int
    reason: str
    since_us: int


def lanes(con: sqlite3.Connection, sink: str) -> dict[str, Lane]:
    """The tasks that wait at the desk of a sink."""
    rows = con.execute("SELECT task, parked, failures, due_us FROM lanes WHERE sink = ?", (sink,))
    return {row[0]: Lane(*row) for row in rows}


def park(
    con: sqlite3.Connection,
    sink: str,
    entries: Iterable[Entry],
    reasons: Mapping[str, str],
    now_us: int,
    due_us: int,
) -> None:
    """Park events of the stream behind what is parked of their tasks; a new lane becomes due at ``due_us``.

    ``reasons`` by event id; an event without one waits for an earlier event of its task.
    """
    behind = "waits for an earlier event of its task"
    rows = [(sink, entry.seq, entry.task, reasons.get(entry.id, behind), now_us) for entry in entries]
    con.executemany(
        "INSERT INTO work (sink, state, seq, task, attempts, reason, since_us) VALUES (?, 'parked', ?, ?, 0, ?, ?)",
        rows,
    )
    con.executemany(
        "INSERT INTO lanes (sink, task, parked, failures, due_us) VALUES (?, ?, 1, 1, ?) "
        "ON CONFLICT (sink, task) DO UPDATE SET parked = parked + 1",
        [(sink, task, due_us) for _, _, task, _, _ in rows],
    )
    _count(con, sink, "parked", len(rows))


def bury(con: sqlite3.Connection, sink: str, entry: Entry, attempts: int, reason: str, now_us: int) -> None:
    """Make an event a dead letter: kept, itemised, and out of the way."""
    con.execute(
        "INSERT OR REPLACE INTO work (sink, state, seq, task, attempts, reason, since_us) "
        "VALUES (?, 'dead', ?, ?, ?, ?, ?)",
        (sink, entry.seq, entry.task, attempts, reason, now_us),
    )
    _count(con, sink, "dead", 1)


def release(con: sqlite3.Connection, sink: str, entries: Iterable[Entry]) -> None:
    """Take settled events off their lanes; a lane without events ends."""
    for entry in entries:
        gone = con.execute(
            "DELETE FROM work WHERE sink = ? AND state = 'parked' AND seq = ?", (sink, entry.seq)
        ).rowcount
        con.execute("UPDATE lanes SET parked = parked - ? WHERE sink = ? AND task = ?", (gone, sink, entry.task))
        _count(con, sink, "parked", -gone)
    con.execute("DELETE FROM lanes WHERE sink = ? AND parked <= 0", (sink,))


def postpone(con: sqlite3.Connection, sink: str, task: str, failures: int, due_us: int) -> None:
    """Try a lane again at ``due_us``."""
    con.execute(
        "UPDATE lanes SET failures = ?, due_us = ? WHERE sink = ? AND task = ?",
        (failures, due_us, sink, task),
    )


def hurry(con: sqlite3.Connection, sink: str) -> None:
    """Make every lane of a sink due now."""
    con.execute("UPDATE lanes SET due_us = 0 WHERE sink = ?", (sink,))


def dead_letters(con: sqlite3.Connection, sink: str | None = None) -> Iterator[DeadLetter]:
    """Dead letters, newest first, of one sink or of all."""
    rows = con.execute(
        "SELECT sink, seq, task, attempts, reason, since_us FROM work "
        "WHERE state = 'dead' AND (:sink IS NULL OR sink = :sink) ORDER BY seq DESC",
        {"sink": sink},
    )
    return (DeadLetter(*row) for row in rows)


def fate(con: sqlite3.Connection, sink: str, seq: int) -> tuple[str, str] | None:
    """State and reason of an event at the desk of a sink; None when it is not there."""
    row = con.execute("SELECT state, reason FROM work WHERE sink = ? AND seq = ?", (sink, seq)).fetchone()
    return (row[0], row[1]) if row else None


def _count(con: sqlite3.Connection, sink: str, column: str, change: int) -> None:
    con.execute(f"UPDATE sinks SET {column} = {column} + ? WHERE name = ?", (change, sink))


def oldest_parked(con: sqlite3.Connection, sink: str) -> int | None:
    """The ``seq`` of the oldest parked event of a sink."""
    row = con.execute(
        "SELECT seq FROM work WHERE sink = ? AND state = 'parked' ORDER BY seq LIMIT 1", (sink,)
    ).fetchone()
    return row[0] if row else None


def parked_up_to(con: sqlite3.Connection, sink: str, seq: int) -> int:
    """How many events up to ``seq`` are parked for a sink."""
    count: int = con.execute(
        "SELECT count(*) FROM work WHERE sink = ? AND state = 'parked' AND seq <= ?", (sink, seq)
    ).fetchone()[0]
    return count
