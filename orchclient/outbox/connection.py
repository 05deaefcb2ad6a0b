"""Opening SQLite connections the one way that keeps events: pragmas set, read back, and busy waits bounded.

Knows the file and the pragmas, not the tables. Sources: sqlite.org/pragma.html and sqlite.org/wal.html; the measured
rules are listed in docs/architecture.md, "What SQLite needs from us".
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeGuard, TypeVar
from urllib.parse import quote

from orchclient.core.errors import OutboxBusy, OutboxError, OutboxFull
from orchclient.outbox.patience import BUSY_TOTAL_S, Patience
from orchclient.outbox.wal import WAL_LIMIT

T = TypeVar("T")


# auto_vacuum must come before journal_mode: after the switch to WAL it stays 0 in silence.
_OF_THE_FILE = {"auto_vacuum": 2, "journal_mode": "wal"}
_EACH = {
    "synchronous": 2,  # FULL: per connection, not stored in the file
    "wal_autocheckpoint": 0,  # a checkpoint that meets a commit can corrupt SQLite 3.7.0 to 3.51.2
    "mmap_size": 0,  # a file cut under a mapping kills the process
    "trusted_schema": 0,
    "recursive_triggers": 0,
    "journal_size_limit": WAL_LIMIT,
    "temp_store": 2,
}
_FULL_CODES = {sqlite3.SQLITE_FULL}
_BUSY_CODES = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def connect(path: str, *, read_only: bool = False) -> sqlite3.Connection:
    """An autocommit connection with every pragma set and read back. Waits at most 5 s for other processes.

    One that only reads waits as long for a file in the making and sets nothing in it: it does not hold the gate.
    Raises ``OutboxError`` when the file cannot be opened or a pragma does not hold.
    """
    with translated(path):
        return retry_busy(lambda: _configured(path, read_only))


def _configured(path: str, read_only: bool) -> sqlite3.Connection:
    # Never made by SQLite, whose new files are open to the umask.
    name = f"file:{quote(path)}?mode=rw"
    con = sqlite3.connect(name, uri=True, timeout=BUSY_TOTAL_S, isolation_level=None, check_same_thread=False)
    try:
        if not _is_in_wal_mode(con):  # asked first: setting auto_vacuum to what it is writes a page, outside the gate
            if read_only:
                raise _in_the_making()  # whoever makes it may have ended since it was asked: nothing is set then
            for name, wanted in _OF_THE_FILE.items():
                con.execute(f"PRAGMA {name}={wanted}")
            if not _is_in_wal_mode(con):
                raise OutboxError(f"{path}: SQLite does not keep journal_mode=wal; use a local file system")
        for name, value in _EACH.items():
            _set(con, path, name, value)
        if read_only:
            _set(con, path, "query_only", 1)
    except BaseException:
        con.close()
        raise
    return con


def _in_the_making() -> sqlite3.OperationalError:
    """An error like the one of SQLite that says that somebody else is at the file."""
    error = sqlite3.OperationalError("the file is empty, or still in the making")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return error


def _is_in_wal_mode(con: sqlite3.Connection) -> bool:
    return bool(con.execute("PRAGMA journal_mode").fetchone()[0] == "wal")


def _set(con: sqlite3.Connection, path: str, name: str, value: int) -> None:
    con.execute(f"PRAGMA {name}={value}").fetchall()
    row = con.execute(f"PRAGMA {name}").fetchone()
    # A build without a feature (mmap) answers with no row, which is as good as off.
    if row is not None and row[0] != value:
        raise OutboxError(f"{path}: SQLite {sqlite3.sqlite_version} keeps {name}={row[0]} instead of {value}")


def retry_busy(attempt: Callable[[], T], total_s: float = BUSY_TOTAL_S) -> T:
    """Run ``attempt`` until it does not meet BUSY, with jittered pauses, for at most ``total_s`` seconds.

    SQLite's own timeout does not apply everywhere: the first switch of a new file to WAL by two processes, and a
    recovery after a crash, fail at once.
    """
    patience = Patience.of(total_s)
    while True:
        try:
            return attempt()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or not patience.pause():
                raise


def is_busy(error: sqlite3.Error) -> bool:
    """Whether SQLite says that another connection has what is wanted."""
    return primary_code(error) in _BUSY_CODES


def primary_code(error: sqlite3.Error) -> int:
    """The primary result code of an SQLite error, 1 (SQLITE_ERROR) when it has none."""
    code: int = getattr(error, "sqlite_errorcode", None) or sqlite3.SQLITE_ERROR
    return code & 0xFF


_DAMAGE_CODES = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def is_damage(error: BaseException | None) -> TypeGuard[sqlite3.Error]:
    """Whether SQLite says that the file is no sound database."""
    return isinstance(error, sqlite3.Error) and primary_code(error) in _DAMAGE_CODES


def is_foreign(error: BaseException | None) -> bool:
    """Whether SQLite says that the file is none of its own: its header is another one."""
    return isinstance(error, sqlite3.Error) and primary_code(error) == sqlite3.SQLITE_NOTADB


def failed_sync(error: OSError) -> sqlite3.OperationalError:
    """The error that SQLite raises when a sync fails, for a sync of our own."""
    same = sqlite3.OperationalError(f"disk I/O error: {error.strerror or error}")
    same.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
    return same


def is_failed_sync(error: BaseException | None) -> bool:
    """Whether SQLite says that a sync failed: then nobody knows what is on the disk."""
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_FSYNC


DISK_CODES = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
"""What SQLite says when the operating system refused something; a fresh connection may fare better."""


def is_no_text(error: sqlite3.Error) -> bool:
    """Whether a text that is not UTF-8 was read: bits flipped on the disk, and SQLite itself does not look."""
    return getattr(error, "sqlite_errorcode", None) is None and str(error).startswith("Could not decode to UTF-8")


def text_as_far_as_it_goes(raw: bytes) -> str:
    """Text with U+FFFD where it is no UTF-8. A row's checksum does not fit such a text."""
    return raw.decode(errors="replace")


_CURES = {
    sqlite3.SQLITE_FULL: "the disk or quota is full: free space; nothing recorded before is lost",
    sqlite3.SQLITE_IOERR: "the disk failed, or a quota is used up: check both, then run orchclient doctor",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened: check that its directory exists and is yours",
    sqlite3.SQLITE_READONLY: "the file or its file system is read-only: make it writable or set ORCHCLIENT_DB",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: run orchclient doctor",
    sqlite3.SQLITE_NOTADB: "the file is not an outbox: set ORCHCLIENT_DB to another path, or move it away",
    sqlite3.SQLITE_BUSY: "another process held the file for too long: see orchclient status for who",
    sqlite3.SQLITE_LOCKED: "another connection held the table for too long",
}


@contextmanager
def translated(path: str) -> Iterator[None]:
    """SQLite's errors as ours, with the path and the cure, and the cause kept."""
    try:
        yield
    except sqlite3.Error as error:
        raise as_outbox_error(path, error) from error


def as_outbox_error(path: str, error: sqlite3.Error) -> OutboxError:
    """The error of ours that says what SQLite said, about which file, and what to do."""
    code = primary_code(error)
    kind = OutboxFull if code in _FULL_CODES else OutboxBusy if code in _BUSY_CODES else OutboxError
    cure = _CURES.get(code, "run orchclient doctor")
    return kind(f"outbox {path}: {error}; {cure}")
