"""Waits that a service asked of all who share one of its limits: kept in the file, for every process and the next one.

One row of ``meta`` for each limit that was ever met, so they are few.
"""

from __future__ import annotations

import json
import sqlite3

from attrs import astuple, frozen

_KEY = "wait:"
BELIEVED_US = 2 * 3_600_000_000
"""A wait that ends later than any service may ask for met a clock that was set back."""


@frozen
class SharedWait:
    """Until when (UTC microseconds) everybody waits, the sink that was told so, and in which words."""

    until_us: int
    sink: str
    reason: str


def ask(con: sqlite3.Connection, limit: str, wait: SharedWait, now_us: int) -> None:
    """Let all who share a limit wait; a longer wait that is known already stays."""
    known = of(con, limit, now_us)
    if known is None or known.until_us < wait.until_us:
        con.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (_KEY + limit, json.dumps(astuple(wait))))


def of(con: sqlite3.Connection, limit: str, now_us: int) -> SharedWait | None:
    """The wait for a limit that is not over yet."""
    known = _known(con, limit)
    return known if known and now_us < known.until_us <= now_us + BELIEVED_US else None


def _known(con: sqlite3.Connection, limit: str) -> SharedWait | None:
    row = con.execute("SELECT value FROM meta WHERE key = ?", (_KEY + limit,)).fetchone()
    return SharedWait(*json.loads(row[0])) if row else None
