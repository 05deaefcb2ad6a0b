"""Looking whether a file is sound, in bounded time, and whether the linked SQLite is."""

from __future__ import annotations

import sqlite3
import time

TOO_LONG = "too long"
_LOOK_EVERY = 10_000  # virtual machine instructions

_FIXED = (3, 51, 3)
_BACKPORTED = {(3, 44): 6, (3, 50): 7}


def quick_check(con: sqlite3.Connection, within_s: float) -> str:
    """``ok``, ``too long`` when it could not be told within the time, or what is wrong."""
    until = time.monotonic() + within_s
    con.set_progress_handler(lambda: int(time.monotonic() > until), _LOOK_EVERY)
    try:
        return str(con.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError as error:
        return TOO_LONG if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT else str(error)
    finally:
        con.set_progress_handler(None, 0)


def has_wal_reset_bug(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> bool:
    """Whether a checkpoint that meets a commit can corrupt a WAL file (sqlite.org/wal.html, 3.7.0 to 3.51.2)."""
    patched = _BACKPORTED.get((version[0], version[1]))
    return (3, 7, 0) <= version < _FIXED and not (patched is not None and version[2] >= patched)


def sqlite_version() -> str:
    """The version of the linked library."""
    return sqlite3.sqlite_version
