"""Who delivers to a sink: the epoch that fences a stalled flusher, its name for people, and the nudge of ``flush``."""

from __future__ import annotations

import json
import sqlite3

from attrs import asdict, frozen


@frozen
class Holder:
    """The process that was elected for a sink, since when (UTC microseconds). The kernel lock tells if it lives."""

    pid: int
    host: str
    agent: str
    since_us: int


def begin_epoch(con: sqlite3.Connection, sink: str, holder: Holder) -> int:
    """Start a new epoch of a sink for a freshly elected flusher; results of older ones are void from now on."""
    con.execute("UPDATE sinks SET epoch = epoch + 1, holder = ? WHERE name = ?", (json.dumps(asdict(holder)), sink))
    return epoch(con, sink)


def epoch(con: sqlite3.Connection, sink: str) -> int:
    """The current epoch of a sink, 0 for an unknown one."""
    row = con.execute("SELECT epoch FROM sinks WHERE name = ?", (sink,)).fetchone()
    return row[0] if row else 0


def last_holder(con: sqlite3.Connection, sink: str) -> Holder | None:
    """The process that was elected last for a sink."""
    row = con.execute("SELECT holder FROM sinks WHERE name = ?", (sink,)).fetchone()
    return Holder(**json.loads(row[0])) if row and row[0] else None


def nudge(con: sqlite3.Connection) -> None:
    """Ask whoever delivers, in any process, to try now what waits for its back-off."""
    con.execute("UPDATE meta SET value = value + 1 WHERE key = 'nudges'")


def nudges(con: sqlite3.Connection) -> int:
    """How often somebody asked."""
    return int(con.execute("SELECT value FROM meta WHERE key = 'nudges'").fetchone()[0])
