"""The bounded log of deliveries tried, for ``orchclient show`` and ``status``."""

from __future__ import annotations

import sqlite3

from attrs import frozen

KEPT = 2000

_COLUMNS = "sink, at_us, first_seq, last_seq, events, took_ms, action, status, reason"


@frozen
class Attempt:
    """One batch that was sent to a sink, and what was decided. ``status`` is None when no answer came."""

    sink: str
    at_us: int
    first_seq: int
    last_seq: int
    events: int
    took_ms: float
    action: str
    status: int | None
    reason: str


def add(con: sqlite3.Connection, attempt: Attempt) -> None:
    """Note an attempt and forget the oldest one beyond ``KEPT``."""
    n = con.execute(
        f"INSERT INTO attempts ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            attempt.sink,
            attempt.at_us,
            attempt.first_seq,
            attempt.last_seq,
            attempt.events,
            attempt.took_ms,
            attempt.action,
            attempt.status,
            attempt.reason,
        ),
    ).lastrowid
    con.execute("DELETE FROM attempts WHERE n <= ?", ((n or 0) - KEPT,))


def of_event(con: sqlite3.Connection, seq: int) -> list[Attempt]:
    """The attempts whose batch may have carried an event, oldest first."""
    rows = con.execute(f"SELECT {_COLUMNS} FROM attempts WHERE first_seq <= ? AND last_seq >= ? ORDER BY n", (seq, seq))
    return [Attempt(*row) for row in rows]


def newest(con: sqlite3.Connection, limit: int) -> list[Attempt]:
    """The last attempts, newest first."""
    return [Attempt(*row) for row in con.execute(f"SELECT {_COLUMNS} FROM attempts ORDER BY n DESC LIMIT ?", (limit,))]


def last_n(con: sqlite3.Connection) -> int:
    """The number of the last attempt, 0 before the first."""
    row = con.execute("SELECT n FROM attempts ORDER BY n DESC LIMIT 1").fetchone()
    return row[0] if row else 0


def failed_since(con: sqlite3.Connection, n: int, began_us: int) -> set[str]:
    """Sinks that had an attempt after the ``n``-th that left them waiting or paused, and began at an instant or later.

    A second one counts in any case: an attempt waits for the one before, so only the first can have begun earlier, and
    a clock may have been set back.
    """
    rows = con.execute(
        "SELECT DISTINCT sink FROM attempts AS tried WHERE n > :n AND action IN ('back_off', 'pause', 'disable') "
        "AND (at_us >= :began_us "
        "OR n > (SELECT min(n) FROM attempts AS first WHERE first.sink = tried.sink AND first.n > :n))",
        {"n": n, "began_us": began_us},
    )
    return {row[0] for row in rows}
