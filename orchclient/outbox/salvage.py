"""Events out of files that were removed or replaced under a live process, into the file the path names now.

The old connection still reads every committed event although its files have no name any more. Nothing is deleted:
what stands at the path and is no outbox is set aside under a dated name.
"""

from __future__ import annotations

import logging
import os
import sqlite3

from orchclient.core.timestamps import rfc3339
from orchclient.outbox import folding, identity, journal

log = logging.getLogger("orchclient")

_EVENT = "id, task, agent, type, priority, recorded_us, crc, body"


def set_aside(path: str, now_us: int) -> str:
    """Rename a file and its companions together; the new name."""
    aside = f"{path}.damaged-{rfc3339(now_us).replace(':', '')}"
    for suffix in ("-wal", "-shm", ""):
        if os.path.lexists(path + suffix):
            os.rename(path + suffix, aside + suffix)
    return aside


def copy_undelivered(ghost: sqlite3.Connection, con: sqlite3.Connection, source: str, now_us: int) -> int:
    """Copy what ``con`` lacks and a sink still needs, with tasks and tallies; the number of events copied.

    The events get new places, so they are sent under a new source: a receiver knows other events under the old
    numbers. Runs in the caller's transaction on ``con``.
    """
    while (fold := folding.fold(ghost)).to_seq > fold.from_seq:
        fold.write(ghost)
    rows = _missing(ghost, con)
    was_empty = journal.last_seq(con) == 0
    identity.renew(con, source, journal.last_seq(con) + 1, now_us, "salvaged")
    con.executemany(f"INSERT INTO events ({_EVENT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
    if was_empty:
        _copy_tables(ghost, con)
    return len(rows)


def _missing(ghost: sqlite3.Connection, con: sqlite3.Connection) -> list[tuple[object, ...]]:
    present = {id_ for (id_,) in con.execute("SELECT id FROM events")}
    settled = ghost.execute("SELECT min(cursor) FROM sinks").fetchone()[0] or 0
    needed = ghost.execute(
        f"SELECT {_EVENT} FROM events WHERE seq > ? OR seq IN (SELECT seq FROM work) ORDER BY seq", (settled,)
    )
    return [row for row in needed if row[0] not in present]


def _copy_tables(ghost: sqlite3.Connection, con: sqlite3.Connection) -> None:
    # The fold goes on behind the copied events, which are in it already; their old places mean nothing here.
    tasks = ghost.execute("SELECT task, agent, status, progress, step, metadata, attempt, 0, updated_us FROM tasks")
    con.executemany("INSERT OR REPLACE INTO tasks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", tasks.fetchall())
    tallies = ghost.execute("SELECT agent, type, count, last_us FROM tallies")
    con.executemany("INSERT OR REPLACE INTO tallies VALUES (?, ?, ?, ?)", tallies.fetchall())
    sinks = ghost.execute("SELECT name, kind, 0, 0, created_us FROM sinks")
    con.executemany(
        "INSERT OR IGNORE INTO sinks (name, kind, start_seq, cursor, created_us) VALUES (?, ?, ?, ?, ?)",
        sinks.fetchall(),
    )
    con.execute("UPDATE meta SET value = ? WHERE key = 'folded_seq'", (journal.last_seq(con),))
