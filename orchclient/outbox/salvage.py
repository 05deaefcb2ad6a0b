"""Events out of files that were removed or replaced under a live process, or damaged, into the file the path names now.

The old connection still reads every committed event although its files have no name any more. Nothing is deleted:
what stands at the path and is no outbox is set aside under a dated name.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any
from urllib.parse import quote
from zlib import crc32

from orchclient.core.events import EventType
from orchclient.core.timestamps import rfc3339
from orchclient.outbox import folding, identity, inbox, incidents, journal, owed, posts, reminders, requests
from orchclient.outbox.connection import text_as_far_as_it_goes
from orchclient.outbox.owed import ENDINGS, Owed

log = logging.getLogger("orchclient")

_EVENT = "id, task, agent, type, priority, recorded_us, crc, body"
_PEOPLE = (incidents, reminders, requests, inbox, posts)
_TYPES = (str, str, str, str, str, int, int, str)


def set_aside(path: str, now_us: int, why: BaseException | str) -> None:
    """Rename a file and its companions together, to a name that nothing had before; noted until it is taken over."""
    aside = _free_name(f"{path}.damaged-{rfc3339(now_us).replace(':', '')}")
    owed.move_aside(path, Owed(os.path.basename(aside), str(why)))


def readable_events(aside: str, within_s: float) -> int:
    """How many whole events can be read from a set-aside file; as many as were counted when the time was over."""
    until = time.monotonic() + within_s
    count_ = 0
    with suppress(sqlite3.Error), closing(opened_aside(aside)) as con:
        for row in _readable(con, 0):
            count_ += crc32(row[-1].encode()) == row[-2]
            if time.monotonic() > until:
                break
    return count_


def _free_name(name: str) -> str:
    candidates = (f"{name}-{n}" if n > 1 else name for n in count(1))
    return next(free for free in candidates if not any(os.path.lexists(free + suffix) for suffix in ENDINGS))


def refuse_unreadable(path: str) -> None:
    """Raise ``OSError`` when the disk cannot read the file's beginning: then the disk is in trouble, not the file.

    SQLite says of both that the file is malformed. May be called only when this process has closed its connections,
    or will not use them any more: closing the descriptor drops their locks.
    """
    with suppress(FileNotFoundError), open(path, "rb", buffering=0) as file:
        file.read(4096)


def announce_damaged(path: str, aside: str, why: str, copied: int) -> None:
    """Say loudly what happened to damaged files."""
    log.error(
        "outbox %s was damaged (%s): set aside as %s; %d events could be read from it and go on under a new "
        "source. Recording goes on. Run orchclient doctor, and check the disk.",
        path,
        why,
        aside,
        copied,
    )


def announce_unreadable(path: str, aside: str, why: str, error: sqlite3.Error) -> None:
    """Say loudly that what was set aside is gone, or cannot be opened."""
    log.error(
        "outbox %s was damaged (%s): it was set aside as %s, which cannot be read now (%s), so what it held is not "
        "taken over. Recording goes on. Run orchclient doctor.",
        path,
        why,
        aside,
        error,
    )


def announce_lost(path: str, copied: int) -> None:
    """Say loudly what happened to files that were taken away."""
    log.error(
        "outbox %s: its files were removed or replaced while in use; %d undelivered events were copied into the file "
        "that is there now, under a new source. Find out what removes it.",
        path,
        copied,
    )


def copy_lost(ghost: sqlite3.Connection, con: sqlite3.Connection, source: str, now_us: int) -> int:
    """Copy what ``con`` lacks out of files that have no name any more."""
    con.execute("SAVEPOINT lost")
    try:
        return copy_undelivered(ghost, con, source, now_us)
    except sqlite3.Error:
        if not con.in_transaction:  # it is the disk of the new file that failed
            raise
        con.execute("ROLLBACK TO lost")
        return copy_readable(ghost, con, source, now_us)  # another process found them damaged, and set them aside


def copy_undelivered(ghost: sqlite3.Connection, con: sqlite3.Connection, source: str, now_us: int) -> int:
    """Copy what ``con`` lacks and a sink still needs, with tasks and tallies; the number of events copied.

    The events get new places, so they are sent under a new source: a receiver knows other events under the old
    numbers. Runs in the caller's transaction on ``con``. However many there are, one is in memory at a time.
    """
    while (fold := folding.fold(ghost)).to_seq > fold.from_seq:
        fold.write(ghost)
    before_seq = journal.last_seq(con)
    identity.renew(con, source, before_seq + 1, now_us, "salvaged")
    with _in_one_state(ghost):
        copied = _copy_events(_needed(ghost), con)
        _write_sinks(_sinks(ghost), con, before_seq)
        if before_seq == 0:
            _copy_fold(ghost, con)
        for people in _PEOPLE:
            people.take_over(ghost, con)
    return copied


@contextmanager
def _in_one_state(lost: sqlite3.Connection) -> Iterator[None]:
    """All questions are of one moment: who has not noticed the loss still commits to the old files.

    A question that was taken over without its event would be told as recorded to whoever asks it again.
    """
    if not lost.in_transaction:
        lost.execute("BEGIN")
    try:
        yield
    finally:
        if lost.in_transaction:
            lost.execute("ROLLBACK")


def _needed(ghost: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    """In two questions: an OR of the two would be sorted, in memory."""
    settled = ghost.execute("SELECT min(cursor) FROM sinks").fetchone()[0] or 0
    at_desk = f"SELECT {_EVENT} FROM events WHERE seq <= ? AND seq IN (SELECT seq FROM work) ORDER BY seq"
    yield from ghost.execute(at_desk, (settled,))
    yield from ghost.execute(f"SELECT {_EVENT} FROM events WHERE seq > ? ORDER BY seq", (settled,))


def _copy_events(rows: Iterable[tuple[Any, ...]], con: sqlite3.Connection) -> int:
    """Append those that ``con`` lacks; how many."""
    before_seq = journal.last_seq(con)
    with closing(_ids(con)) as present:
        wanted = (row for row in rows if _is_wanted(row, present))
        con.executemany(f"INSERT INTO events ({_EVENT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", wanted)
    return journal.last_seq(con) - before_seq


def _ids(con: sqlite3.Connection) -> sqlite3.Connection:
    """The ids of all events, to be looked up: the journal has no index on them. Some 50 bytes each."""
    ids = sqlite3.connect(":memory:", isolation_level=None)
    ids.execute("CREATE TABLE ids (id TEXT PRIMARY KEY) WITHOUT ROWID")
    ids.execute("BEGIN")
    ids.executemany("INSERT OR IGNORE INTO ids VALUES (?)", con.execute("SELECT id FROM events"))
    return ids


def _is_wanted(row: tuple[Any, ...], present: sqlite3.Connection) -> bool:
    """Whether an event is to be copied. A notice of a gap speaks of the old numbers, which nothing has any more."""
    is_present = present.execute("SELECT 1 FROM ids WHERE id = ?", (row[0],)).fetchone()
    return not is_present and row[3] != EventType.GAP


def _sinks(ghost: sqlite3.Connection) -> list[tuple[Any, ...]]:
    return ghost.execute("SELECT name, kind, created_us, from_beginning FROM sinks").fetchall()


def _write_sinks(sinks: Iterable[tuple[Any, ...]], con: sqlite3.Connection, before_seq: int) -> None:
    """A sink that the file there now does not know gets what was copied, and all else if it began at the beginning."""
    for name, kind, created_us, from_beginning in sinks:
        start_seq = max(journal.first_seq(con) - 1, 0) if from_beginning else before_seq
        con.execute(
            "INSERT OR IGNORE INTO sinks (name, kind, start_seq, cursor, created_us, from_beginning) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (name, kind, start_seq, start_seq, created_us, from_beginning),
        )


def _copy_fold(ghost: sqlite3.Connection, con: sqlite3.Connection) -> None:
    # The fold goes on behind the copied events, which are in it already; their old places mean nothing here.
    tasks = ghost.execute("SELECT task, agent, status, progress, step, metadata, attempt, 0, updated_us FROM tasks")
    con.executemany("INSERT OR REPLACE INTO tasks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", tasks)
    tallies = ghost.execute("SELECT agent, type, count, last_us FROM tallies")
    con.executemany("INSERT OR REPLACE INTO tallies VALUES (?, ?, ?, ?)", tallies)
    con.execute("UPDATE meta SET value = ? WHERE key = 'folded_seq'", (journal.last_seq(con),))


def opened_aside(aside: str) -> sqlite3.Connection:
    """A set-aside file, to be read; a -wal whose database is gone is read over the tables of an empty outbox."""
    con = _opened_to_read(aside)
    if _has_events(con) or not _is_lone_wal(aside):
        return con
    con.close()
    return _opened_over_empty_tables(aside)


def _opened_to_read(path: str) -> sqlite3.Connection:
    con = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, isolation_level=None)
    con.text_factory = text_as_far_as_it_goes
    return con


def _is_lone_wal(aside: str) -> bool:
    return os.path.exists(aside + "-wal") and os.stat(aside).st_size <= owed.PAGE


def _opened_over_empty_tables(aside: str) -> sqlite3.Connection:
    """A lone -wal over the pages of a new outbox.

    What is in the -wal covers them. The names of the tables do not fit on the first page, and their other pages do not
    change, so they were in the database only; a new outbox has them at the same places.
    """
    from orchclient.outbox.connection import connect
    from orchclient.outbox.migrations import migrate

    with TemporaryDirectory(dir=os.path.dirname(aside), prefix="salvage-") as directory:  # mode 0700
        base = os.path.join(directory, "base.db")
        os.close(_new_private(base))
        with closing(connect(base)) as con:
            migrate(con, base)
            con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        with open(aside + "-wal", "rb") as wal, os.fdopen(_new_private(base + "-wal"), "wb") as copy:
            shutil.copyfileobj(wal, copy)
        con = _opened_to_read(base)
        _has_events(con)  # reads the -wal, so that it is open before its name goes
        return con


def _new_private(path: str) -> int:
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)


def copy_readable(damaged: sqlite3.Connection, con: sqlite3.Connection, source: str, now_us: int) -> int:
    """Copy every whole event that can be read, that ``con`` lacks and a sink may still need; their number.

    For files of which SQLite says that they are damaged. Runs in the caller's transaction on ``con``.
    """
    before_seq = journal.last_seq(con)
    identity.renew(con, source, before_seq + 1, now_us, "damaged")
    with _in_one_state(damaged):
        readable = _readable(damaged, _settled(damaged))
        copied = _copy_events((row for row in readable if crc32(row[-1].encode()) == row[-2]), con)
        _write_sinks(_readable_sinks(damaged), con, before_seq)
        _take_over_people(damaged, con)
    return copied


def _take_over_people(damaged: sqlite3.Connection, con: sqlite3.Connection) -> None:
    """Take over what can be read of questions and incidents; what cannot is asked, reported and answered anew."""
    lost = []
    for people in _PEOPLE:
        try:
            people.take_over(damaged, con)
        except sqlite3.OperationalError as error:  # not for damage: the statement does not fit the file
            log.warning("%s of damaged files cannot be taken over: %s", _name(people), error)
        except sqlite3.Error:
            lost.append(_name(people))
    if 0 < len(lost) < len(_PEOPLE):  # when nothing at all can be read, the loud record that follows says it
        log.warning("of damaged files could not be read: %s", ", ".join(lost))


def _name(people: ModuleType) -> str:
    return people.__name__.rpartition(".")[2]


def _readable_sinks(damaged: sqlite3.Connection) -> list[tuple[Any, ...]]:
    try:
        return [each for each in _sinks(damaged) if None not in each]
    except sqlite3.Error:
        return []  # they come when they stand for election


def _settled(damaged: sqlite3.Connection) -> int:
    """Up to where every sink is settled, as far as that can be read."""
    try:
        return damaged.execute("SELECT min(cursor) FROM sinks").fetchone()[0] or 0
    except sqlite3.Error:
        return 0


UNREADABLE_AT_MOST = 20_000
"""Places in a row that cannot be read after which nothing more is expected."""

PROBE_S = 1.0
"""How long places that cannot be read are probed in all: recording waits meanwhile."""


def _readable(damaged: sqlite3.Connection, after_seq: int) -> Iterator[tuple[Any, ...]]:
    """Rows in order; one by one over places that cannot be read."""
    if not _has_events(damaged):
        return
    place, unreadable, probed_s = after_seq, 0, 0.0
    while unreadable < UNREADABLE_AT_MOST and probed_s < PROBE_S:
        began = time.monotonic()
        try:
            row = damaged.execute(f"SELECT seq, {_EVENT} FROM events WHERE seq > ? LIMIT 1", (place,)).fetchone()
            if row is not None and row[0] <= place:
                raise sqlite3.DatabaseError("a damaged tree leads back to what was read before")
        except sqlite3.Error:
            row = _at(damaged, place + 1)
            place, unreadable, probed_s = place + 1, unreadable + 1, probed_s + time.monotonic() - began
            if row is None:
                continue
        if row is None:
            return
        place, unreadable = row[0], 0
        if tuple(map(type, row[1:])) == _TYPES:
            yield row[1:]


def _has_events(damaged: sqlite3.Connection) -> bool:
    try:
        damaged.execute(f"SELECT {_EVENT} FROM events LIMIT 0")
    except sqlite3.Error:
        return False
    return True


def _at(damaged: sqlite3.Connection, seq: int) -> tuple[Any, ...] | None:
    try:
        row: tuple[Any, ...] | None = damaged.execute(
            f"SELECT seq, {_EVENT} FROM events WHERE seq = ?", (seq,)
        ).fetchone()
    except sqlite3.Error:
        return None
    return row if row is not None and row[0] == seq else None
