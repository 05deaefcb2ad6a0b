"""How the human side of an outbox stands, and how often it was told of, in a few numbers.

Apart from what acts on it: looking loads no more.
"""

from __future__ import annotations

import sqlite3

from attrs import frozen


@frozen
class InboxRow:
    """How the way back from one sink fares, for one identity of this outbox."""

    sink: str
    source: str
    cursor: str
    acknowledged: str
    state: str
    reason: str
    polled_us: int | None
    since_us: int


def inboxes(con: sqlite3.Connection, sink: str | None = None) -> list[InboxRow]:
    """How the ways back fare: of one sink or of all."""
    found = con.execute(
        "SELECT sink, source, cursor, acknowledged, state, reason, polled_us, since_us FROM inbox_cursors "
        "WHERE ?1 IS NULL OR sink = ?1 ORDER BY sink, since_us",
        (sink,),
    )
    return [InboxRow(*row) for row in found.fetchall()]


def count_unreadable(con: sqlite3.Connection) -> int:
    """How many items break their schema: somebody should tell the orchestrator's people."""
    return int(con.execute("SELECT count(*) FROM inbox WHERE verdict = 'unreadable'").fetchone()[0])


def count_open(con: sqlite3.Connection) -> int:
    """How many requests wait for a person."""
    return int(con.execute("SELECT count(*) FROM requests WHERE settled_us IS NULL").fetchone()[0])


def count_heartbeats(con: sqlite3.Connection) -> int:
    """How many heartbeats were recorded in these files; ``core.heartbeat.Beat`` has the number last."""
    row = con.execute("SELECT json_extract(value, '$[4]') FROM meta WHERE key = 'heartbeat'").fetchone()
    return int(row[0] or 0) if row else 0
