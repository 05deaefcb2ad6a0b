"""Incidents: errors of a task with one key, until they are resolved. One row each, changed with the event it is about.

Errors without a key have no row until one of them is resolved: then one says so, that it is resolved once.
"""

from __future__ import annotations

import sqlite3

from orchclient.core.incidents import Incident

_COLUMNS = "task, key, first_id, last_id, count"

OPEN_AT_MOST = 10_000
"""Open incidents that are remembered: an agent that names each error anew would keep every one of them for ever."""


def open_one(con: sqlite3.Connection, task: str, key: str) -> Incident | None:
    """The open incident of a task with a key."""
    row = con.execute(
        f"SELECT {_COLUMNS} FROM incidents WHERE task = ? AND key = ? AND resolved_us IS NULL", (task, key)
    ).fetchone()
    return Incident(*row) if row else None


def note(con: sqlite3.Connection, incident: Incident) -> None:
    """Store an incident after its first or a further error."""
    con.execute(
        f"INSERT INTO incidents ({_COLUMNS}) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (first_id) DO UPDATE SET last_id = excluded.last_id, count = excluded.count",
        (incident.task, incident.key, incident.first_id, incident.last_id, incident.count),
    )


def resolve(con: sqlite3.Connection, incident: Incident, now_us: int) -> bool:
    """Close an incident; False when it was closed before, so that it is told once."""
    if incident.key is None:
        inserted = con.execute(
            f"INSERT OR IGNORE INTO incidents ({_COLUMNS}, resolved_us) VALUES (?, NULL, ?, ?, 1, ?)",
            (incident.task, incident.first_id, incident.last_id, now_us),
        )
        return inserted.rowcount == 1
    closed = con.execute(
        "UPDATE incidents SET resolved_us = ? WHERE first_id = ? AND resolved_us IS NULL", (now_us, incident.first_id)
    )
    return closed.rowcount == 1


def by_first(con: sqlite3.Connection, first_id: str) -> Incident | None:
    """The incident that an error opened, open or not."""
    row = con.execute(f"SELECT {_COLUMNS} FROM incidents WHERE first_id = ?", (first_id,)).fetchone()
    return Incident(*row) if row else None


def forget_resolved(con: sqlite3.Connection, before_us: int) -> None:
    """What was resolved before an instant is told in the journal, and nobody resolves it again."""
    con.execute("DELETE FROM incidents WHERE resolved_us < ?", (before_us,))


def forget_oldest_open(con: sqlite3.Connection, at_most: int = OPEN_AT_MOST) -> int:
    """Forget the open incidents that were silent for longest, beyond a number; how many. The next error of such a one
    counts from 1 again. What is reminded of stays, however old: who resolves it must find it.
    """
    return con.execute(
        "DELETE FROM incidents WHERE first_id IN (SELECT first_id FROM incidents WHERE resolved_us IS NULL "
        "AND first_id NOT IN (SELECT about FROM reminders) ORDER BY last_id DESC LIMIT -1 OFFSET ?)",
        (at_most,),
    ).rowcount


def take_over(lost: sqlite3.Connection, con: sqlite3.Connection) -> None:
    """Copy the incidents of lost or damaged files that ``con`` does not know; what it knows itself stays."""
    rows = lost.execute(f"SELECT {_COLUMNS}, resolved_us FROM incidents").fetchall()
    con.executemany(f"INSERT OR IGNORE INTO incidents ({_COLUMNS}, resolved_us) VALUES (?, ?, ?, ?, ?, ?)", rows)
