"""The ledger of what a sink will never get: ranges of places, with the reason.

A range lies on one side of its sink's cursor. In front of the cursor its places hold no event any more; behind it are
also dead letters that a person gave up, whose events go with the delivered history. The rows of the sink ``JOURNAL``
are what the journal itself lost before any sink could get it; a sink that comes later takes them over.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator

from attrs import frozen

from orchclient.core.gap import GapReason
from orchclient.core.ranges import Range

JOURNAL = ""


@frozen
class Expired:
    """A range of places that a sink will not get, since when (UTC microseconds), and why."""

    sink: str
    first_seq: int
    last_seq: int
    reason: GapReason
    since_us: int

    @property
    def count(self) -> int:
        """How many events."""
        return self.last_seq - self.first_seq + 1


def add(con: sqlite3.Connection, sink: str, first_seq: int, last_seq: int, reason: GapReason, now_us: int) -> None:
    """Note that a sink will not get the events of a range. The counters of ``sinks`` are the caller's."""
    con.execute(
        "INSERT OR REPLACE INTO gaps (sink, first_seq, last_seq, reason, since_us) VALUES (?, ?, ?, ?, ?)",
        (sink, first_seq, last_seq, reason.value, now_us),
    )


def write_off(
    con: sqlite3.Connection,
    sink: str,
    places: Iterable[Range],
    now_us: int,
    reason: GapReason = GapReason.EXPIRED,
) -> None:
    """Count places behind the cursor as expired. What they counted as before is the caller's to take away."""
    for first_seq, last_seq in places:
        add(con, sink, first_seq, last_seq, reason, now_us)
        con.execute("UPDATE sinks SET expired = expired + ? WHERE name = ?", (last_seq - first_seq + 1, sink))


def at(con: sqlite3.Connection, sink: str, seq: int) -> Expired | None:
    """What the ledger says of a place; None when it is not noted."""
    row = con.execute(
        "SELECT sink, first_seq, last_seq, reason, since_us FROM gaps WHERE sink = ? AND first_seq <= ? "
        "ORDER BY first_seq DESC LIMIT 1",
        (sink, seq),
    ).fetchone()
    if row is None or row[2] < seq:
        return None
    return Expired(row[0], row[1], row[2], GapReason(row[3]), row[4])


def ranges(con: sqlite3.Connection, sink: str, first_seq: int, last_seq: int) -> list[Range]:
    """The ranges noted for a sink that touch what lies between two places, in order."""
    return con.execute(
        "SELECT first_seq, last_seq FROM gaps WHERE sink = ? AND first_seq <= ? AND last_seq >= ? ORDER BY first_seq",
        (sink, last_seq, first_seq),
    ).fetchall()


def begins_between(con: sqlite3.Connection, sink: str, after_seq: int, up_to_seq: int) -> bool:
    """Whether a range noted for a sink begins at a place with ``after_seq < seq <= up_to_seq``."""
    query = "SELECT 1 FROM gaps WHERE sink = ? AND first_seq > ? AND first_seq <= ? LIMIT 1"
    return con.execute(query, (sink, after_seq, up_to_seq)).fetchone() is not None


def count(con: sqlite3.Connection, sink: str, after_seq: int, up_to_seq: int) -> int:
    """How many places with ``after_seq < seq <= up_to_seq`` are noted for a sink."""
    total: int = con.execute(
        "SELECT coalesce(sum(last_seq - first_seq + 1), 0) FROM gaps "
        "WHERE sink = ? AND first_seq > ? AND first_seq <= ?",
        (sink, after_seq, up_to_seq),
    ).fetchone()[0]
    return total


def without_reason(
    con: sqlite3.Connection, sink: str, places: Iterable[int], after_seq: int
) -> Iterator[tuple[int, int]]:
    """The ranges between rising ``places`` that hold no event and are not noted for a sink yet."""
    for place in places:
        if place > after_seq + 1:
            yield from _rest(con, sink, after_seq + 1, place - 1)
        after_seq = place


def _rest(con: sqlite3.Connection, sink: str, first_seq: int, last_seq: int) -> Iterator[tuple[int, int]]:
    noted = con.execute(
        "SELECT first_seq, last_seq FROM gaps WHERE sink = ? AND first_seq >= ? AND first_seq <= ? ORDER BY first_seq",
        (sink, first_seq, last_seq),
    ).fetchall()
    for noted_first, noted_last in noted:
        if noted_first > first_seq:
            yield first_seq, noted_first - 1
        first_seq = noted_last + 1
    if first_seq <= last_seq:
        yield first_seq, last_seq


def take_over(con: sqlite3.Connection, sink: str, after_seq: int) -> int:
    """Give a new sink what the journal had lost behind the place where it begins; how many events that are."""
    con.execute(
        "INSERT OR IGNORE INTO gaps (sink, first_seq, last_seq, reason, since_us) "
        "SELECT ?, first_seq, last_seq, reason, since_us FROM gaps WHERE sink = ? AND first_seq > ?",
        (sink, JOURNAL, after_seq),
    )
    return count(con, sink, after_seq, _END)


_END = 2**63 - 1


def expired(con: sqlite3.Connection, sink: str | None = None) -> Iterator[Expired]:
    """What sinks will not get, newest first, of one sink or of all."""
    rows = con.execute(
        "SELECT sink, first_seq, last_seq, reason, since_us FROM gaps "
        "WHERE sink <> :journal AND (:sink IS NULL OR sink = :sink) ORDER BY first_seq DESC",
        {"journal": JOURNAL, "sink": sink},
    )
    return (Expired(name, first, last, GapReason(reason), since) for name, first, last, reason, since in rows)
