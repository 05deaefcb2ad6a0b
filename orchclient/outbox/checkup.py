"""Looking whether a file is sound, in bounded time, and whether the linked SQLite is."""

from __future__ import annotations

import logging
import sqlite3
import time
from zlib import crc32

from orchclient.outbox.connection import is_damage

log = logging.getLogger("orchclient")

TOO_LONG = "too long"
_LOOK_EVERY = 10_000  # virtual machine instructions

_FIXED = (3, 51, 3)
_BACKPORTED = {(3, 44): 6, (3, 50): 7}


AT_START_S = 0.25
AT_START_BYTES = 64 * 1_048_576
"""A larger file is not checked at start: SQLite before 3.42 cannot be stopped within one table's check."""

NEWEST = 500


def damage(what: str) -> sqlite3.DatabaseError:
    """An error like the one of SQLite that says that a file is malformed."""
    error = sqlite3.DatabaseError(what)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def refuse_damaged(con: sqlite3.Connection) -> None:
    """Raise ``sqlite3.DatabaseError`` when a short check finds the file damaged."""
    said = _short_check(con)
    if said not in ("ok", TOO_LONG):
        raise damage(said)


def is_known_to_be_sound(con: sqlite3.Connection) -> bool:
    """Whether a short check finds nothing wrong with the file; False also when it would take too long."""
    try:
        return _short_check(con) == "ok"
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        return False


def _short_check(con: sqlite3.Connection) -> str:
    if _pragma(con, "page_count") * _pragma(con, "page_size") > AT_START_BYTES:
        return TOO_LONG
    return quick_check(con, AT_START_S)


def _pragma(con: sqlite3.Connection, name: str) -> int:
    return int(con.execute(f"PRAGMA {name}").fetchone()[0])


def spoiled(con: sqlite3.Connection) -> int:
    """How many of the newest events do not fit their checksum."""
    rows = con.execute("SELECT crc, body FROM events ORDER BY seq DESC LIMIT ?", (NEWEST,))
    return sum(crc32(body.encode()) != crc for crc, body in rows)


def announce(path: str, missing: int | None, spoiled_events: int) -> None:
    """Say loudly, once, what is wrong with an outbox that was just opened; nothing when all is well."""
    found = []
    if missing is not None:
        found.append(
            f"{missing} events that it held are missing from its end: its -wal or the file itself was removed, damaged "
            "or replaced by an older copy while nobody had it open, or the power failed within a second of progress "
            "updates. What is recorded from now on goes under a new source"
        )
    if spoiled_events:
        found.append(f"{spoiled_events} of its newest events are damaged and will become dead letters")
    if found:
        log.error("outbox %s: %s. Recording goes on. Run orchclient doctor.", path, "; ".join(found))


def quick_check(con: sqlite3.Connection, within_s: float) -> str:
    """``ok``, ``too long`` when it could not be told within the time, or what is wrong."""
    until = time.monotonic() + within_s
    con.set_progress_handler(lambda: int(time.monotonic() > until), _LOOK_EVERY)
    try:
        return str(con.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        return TOO_LONG
    finally:
        con.set_progress_handler(None, 0)


def has_wal_reset_bug(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> bool:
    """Whether a checkpoint that meets a commit can corrupt a WAL file (sqlite.org/wal.html, 3.7.0 to 3.51.2)."""
    patched = _BACKPORTED.get((version[0], version[1]))
    return (3, 7, 0) <= version < _FIXED and not (patched is not None and version[2] >= patched)


def sqlite_version() -> str:
    """The version of the linked library."""
    return sqlite3.sqlite_version
