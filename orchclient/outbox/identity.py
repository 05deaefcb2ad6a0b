"""Who an outbox is: a random ``source`` that scopes the sequence numbers, and from which event on it holds."""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from enum import Enum

from attrs import frozen


@frozen
class Identities:
    """The sources of an outbox by the first event they cover, in order."""

    firsts: tuple[int, ...]
    sources: tuple[str, ...]

    def of(self, seq: int) -> str:
        """The source under which the event at ``seq`` is sent."""
        return self.sources[max(bisect_right(self.firsts, seq) - 1, 0)]

    @property
    def newest(self) -> str:
        """The source of events recorded from now on."""
        return self.sources[-1]


def identities(con: sqlite3.Connection) -> Identities:
    """Every identity this outbox had."""
    rows = con.execute("SELECT first_seq, source FROM identities ORDER BY first_seq").fetchall()
    return Identities(tuple(row[0] for row in rows), tuple(row[1] for row in rows))


def ensure(con: sqlite3.Connection, source: str, now_us: int) -> None:
    """Give a new outbox its identity; one that has an identity keeps it."""
    con.execute(
        "INSERT INTO identities (first_seq, source, since_us, reason) "
        "SELECT 1, ?, ?, 'created' WHERE NOT EXISTS (SELECT 1 FROM identities)",
        (source, now_us),
    )


CREATED = "created"
IMPORTED = "imported"  # its events came in a recording of another outbox, or follow such ones
LOST_TAIL = "lost tail"


def lost_tail(missing: int) -> str:
    """The reason of a new identity: so many events that were known to be there are missing."""
    return f"{LOST_TAIL}: {missing} events are missing"


@frozen
class Change:
    """A change of identity: from which event on, when, and why."""

    first_seq: int
    since_us: int
    reason: str


def changes(con: sqlite3.Connection) -> list[Change]:
    """Every change of identity after the first one that tells of a loss, oldest first."""
    rows = con.execute(
        "SELECT first_seq, since_us, reason FROM identities WHERE reason NOT IN (?, ?) ORDER BY first_seq",
        (CREATED, IMPORTED),
    )
    return [Change(*row) for row in rows]


def forget_unused(con: sqlite3.Connection, from_seq: int) -> None:
    """Forget the sources that begin at a place or behind it: no event is there yet."""
    con.execute("DELETE FROM identities WHERE first_seq >= ?", (from_seq,))


def renew(con: sqlite3.Connection, source: str, first_seq: int, now_us: int, reason: str) -> None:
    """Send the events from ``first_seq`` on under a new source."""
    con.execute(
        "INSERT OR REPLACE INTO identities (first_seq, source, since_us, reason) VALUES (?, ?, ?, ?)",
        (max(first_seq, 1), source, now_us, reason),
    )


class Renewal(Enum):
    """What came of the wish for a new source."""

    DONE = "done"
    DONE_BEFORE = "done before"  # since the events were sent, for another sink
    IN_VAIN = "in vain"  # the source begins exactly there already, and was refused all the same


def renewed(con: sqlite3.Connection, source: str, from_seq: int, sent_under: str, now_us: int, reason: str) -> Renewal:
    """Send the events from a place on under a new source, unless that was done since they were sent."""
    known = identities(con)
    if known.of(from_seq) != sent_under:
        return Renewal.DONE_BEFORE
    begins = con.execute("SELECT reason FROM identities WHERE first_seq = ?", (from_seq,)).fetchone()
    if begins is not None and begins[0] not in (CREATED, IMPORTED):
        return Renewal.IN_VAIN
    renew(con, source, from_seq, now_us, reason)
    return Renewal.DONE
