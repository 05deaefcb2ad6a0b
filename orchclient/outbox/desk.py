"""The desk: events taken out of the stream for a sink. Parked ones wait for their task's turn, dead ones for a person.

Every function is a work of the writer or a question; the counters in ``sinks`` change in the same transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from heapq import merge

from attrs import frozen


@frozen
class Lane:
    """A task of which events are parked for a sink: when it is tried again, after how many failures."""

    task: str
    parked: int
    failures: int
    due_us: int


FARTHEST_US = 90 * 1_000_000
"""No lane waits longer than this (the back-off's cap, and some): one that seems to met a clock that was set back."""


@frozen
class Parking:
    """A place that is to wait at the desk: after how many attempts that ended in a dead letter, and why."""

    seq: int
    task: str
    attempts: int
    reason: str


@frozen
class DeadLetter:
    """An event that a sink gave up, with the reason."""

    sink: str
    seq: int
    task: str
    attempts: int
    reason: str
    since_us: int


def due_lane(con: sqlite3.Connection, sink: str, now_us: int) -> Lane | None:
    """The task that is to be tried now, the one first that has been due for longest. Costs the same with any number."""
    query = "SELECT task, parked, failures, due_us FROM lanes WHERE sink = ? AND due_us {} ? ORDER BY due_us LIMIT 1"
    row = con.execute(query.format("<="), (sink, now_us)).fetchone()
    row = row or con.execute(query.format(">"), (sink, now_us + FARTHEST_US)).fetchone()
    return Lane(*row) if row else None


def is_due(con: sqlite3.Connection, sink: str, task: str, now_us: int) -> bool:
    """Whether a task waits at the desk and is to be tried now."""
    row = con.execute("SELECT due_us FROM lanes WHERE sink = ? AND task = ?", (sink, task)).fetchone()
    return row is not None and not now_us < row[0] <= now_us + FARTHEST_US


def next_due_us(con: sqlite3.Connection, sink: str) -> int | None:
    """When the first lane of a sink becomes due; None when no task waits."""
    due_us: int | None = con.execute("SELECT min(due_us) FROM lanes WHERE sink = ?", (sink,)).fetchone()[0]
    return due_us


def waiting(con: sqlite3.Connection, sink: str, tasks: Iterable[str]) -> frozenset[str]:
    """Which of these tasks wait at the desk of a sink."""
    query = "SELECT 1 FROM lanes WHERE sink = ? AND task = ?"
    return frozenset(task for task in tasks if con.execute(query, (sink, task)).fetchone())


def park(con: sqlite3.Connection, sink: str, places: Sequence[Parking], now_us: int, due_us: int) -> None:
    """Park places that are at no desk yet; a new lane becomes due at ``due_us``, one that is there keeps its time."""
    con.executemany(
        "INSERT INTO work (sink, state, seq, task, attempts, reason, since_us) VALUES (?, 'parked', ?, ?, ?, ?, ?)",
        [(sink, place.seq, place.task, place.attempts, place.reason, now_us) for place in places],
    )
    con.executemany(
        "INSERT INTO lanes (sink, task, parked, failures, due_us) VALUES (?, ?, 1, 1, ?) "
        "ON CONFLICT (sink, task) DO UPDATE SET parked = parked + 1",
        [(sink, place.task, due_us) for place in places],
    )
    _count(con, sink, "parked", len(places))


def bury(con: sqlite3.Connection, sink: str, seq: int, task: str, attempts: int, reason: str, now_us: int) -> None:
    """Make an event a dead letter: kept, itemised, and out of the way. Done twice, it is one all the same."""
    buried = con.execute(
        "INSERT OR IGNORE INTO work (sink, state, seq, task, attempts, reason, since_us) "
        "VALUES (?, 'dead', ?, ?, ?, ?, ?)",
        (sink, seq, task, attempts, reason, now_us),
    ).rowcount
    _count(con, sink, "dead", buried)


def exhume(con: sqlite3.Connection, sink: str, seqs: Iterable[int]) -> None:
    """Take dead letters off the desk: whoever does so counts them as something else in the same transaction."""
    for seq in seqs:
        gone = con.execute("DELETE FROM work WHERE sink = ? AND state = 'dead' AND seq = ?", (sink, seq)).rowcount
        _count(con, sink, "dead", -gone)


def attempts_before(con: sqlite3.Connection, sink: str, seq: int) -> int:
    """How many attempts a parked event had before it was retried; 0 for one that never was dead."""
    row = con.execute(
        "SELECT attempts FROM work WHERE sink = ? AND state = 'parked' AND seq = ?", (sink, seq)
    ).fetchone()
    return row[0] if row else 0


def release(con: sqlite3.Connection, sink: str, task: str, seqs: Iterable[int]) -> None:
    """Take settled events off their lane; a lane without events ends."""
    gone = 0
    for seq in seqs:
        gone += con.execute("DELETE FROM work WHERE sink = ? AND state = 'parked' AND seq = ?", (sink, seq)).rowcount
    con.execute("UPDATE lanes SET parked = parked - ? WHERE sink = ? AND task = ?", (gone, sink, task))
    con.execute("DELETE FROM lanes WHERE sink = ? AND task = ? AND parked <= 0", (sink, task))
    _count(con, sink, "parked", -gone)


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
    """Dead letters, newest first, of one sink or of all; one by one, so that the first of a million come at once."""
    query = (
        "SELECT sink, seq, task, attempts, reason, since_us FROM work "
        "WHERE sink = ? AND state = 'dead' ORDER BY seq DESC"
    )
    each = [con.execute(query, (name,)) for name in _names(con, sink)]
    return (DeadLetter(*row) for row in merge(*each, key=lambda row: row[1], reverse=True))


def places(con: sqlite3.Connection, states: Iterable[str], sink: str | None = None) -> Iterator[int]:
    """The ``seq`` of events at the desk in these states (parked, dead), newest first, each once."""
    query = "SELECT seq FROM work WHERE sink = ? AND state = ? ORDER BY seq DESC"
    each = [con.execute(query, (name, state)) for name in _names(con, sink) for state in states]
    last = None
    for (seq,) in merge(*each, reverse=True):
        if seq != last:
            yield seq
        last = seq


def among(con: sqlite3.Connection, first_seq: int, last_seq: int) -> set[int]:
    """Which places of a range are at the desk of any sink; by its key, so that the rest of the desk is not read."""
    query = (
        "SELECT w.seq FROM sinks AS s JOIN work AS w ON w.sink = s.name AND w.state IN ('parked', 'dead') "
        "AND w.seq >= ? AND w.seq <= ?"
    )
    return {seq for (seq,) in con.execute(query, (first_seq, last_seq))}


def _names(con: sqlite3.Connection, sink: str | None) -> list[str]:
    return [sink] if sink is not None else [name for (name,) in con.execute("SELECT name FROM sinks ORDER BY name")]


@frozen
class AtDesk:
    """Where an event at the desk stands: parked or dead, why, after how many attempts, since when."""

    state: str
    reason: str
    attempts: int
    since_us: int


def fate(con: sqlite3.Connection, sink: str, seq: int) -> AtDesk | None:
    """What the desk of a sink holds of an event; None when it is not there."""
    row = con.execute(
        "SELECT state, reason, attempts, since_us FROM work WHERE sink = ? AND state IN ('parked', 'dead') AND seq = ?",
        (sink, seq),
    ).fetchone()
    return AtDesk(*row) if row else None


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


def parked_of_task(con: sqlite3.Connection, sink: str, task: str) -> int:
    """How many events of a task are parked for a sink."""
    count: int = con.execute(
        "SELECT count(*) FROM work WHERE sink = ? AND state = 'parked' AND task = ?", (sink, task)
    ).fetchone()[0]
    return count


def dead_of_task(con: sqlite3.Connection, sink: str, task: str) -> int:
    """How many dead letters of a task a sink has. Reads all of the sink's."""
    count: int = con.execute(
        "SELECT count(*) FROM work WHERE sink = ? AND state = 'dead' AND task = ?", (sink, task)
    ).fetchone()[0]
    return count
