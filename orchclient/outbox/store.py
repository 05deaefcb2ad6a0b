"""The files under an outbox: connections, the gate, whose file it is, and what a fork must not carry over.

Knows paths and descriptors, and of the tables only the identity. Rules 4, 5 and 7 of "What SQLite needs from us" in
docs/architecture.md.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from typing import TypeVar

from attrs import frozen

from orchclient.core.errors import OutboxError
from orchclient.core.ids import uuid7
from orchclient.outbox import files, identity
from orchclient.outbox.connection import (
    connect,
    is_damage,
    is_failed_sync,
    primary_code,
    retry_busy,
    translated,
)
from orchclient.outbox.gate import Gate, alone, is_locked_alone, lock_file
from orchclient.outbox.migrations import is_current, migrate
from orchclient.outbox.stillness import STILLNESS
from orchclient.outbox.wal import Wal

T = TypeVar("T")

TIME_STEP_NS = 100_000_000
CHECKPOINT_TOTAL_S = 0.5
"""How long a checkpoint waits for a moment in which nobody commits, before it is left for later."""

SALVAGE_TOTAL_S = 60.0
"""How long a process waits for another one that copies events out of lost or damaged files."""

NEVER = (-1, -1)


def _in_one_state(con: sqlite3.Connection, question: Callable[[sqlite3.Connection], T]) -> T:
    con.execute("BEGIN")
    try:
        return question(con)
    finally:
        con.execute("COMMIT")


def _is_empty(path: str) -> bool:
    return os.stat(path).st_size == 0


log = logging.getLogger("orchclient")


@frozen
class Origin:
    """Where a store's file is, and how a new one comes by its identity."""

    path: Path
    new_source: Callable[[], str]  # a random UUID
    now_us: Callable[[], int]
    allow_network: bool = False
    randomness: Callable[[], bytes] = lambda: os.urandom(10)  # for the ids of our own notices


class Store:
    """Open files of one outbox in one process; ``open`` opens, and if need be creates, the database."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._inherited: list[object] = []  # of a parent process: never used, closed or collected
        self._is_closed = False
        self.generation = 0  # rises whenever the files are opened anew
        self._doubtful: sqlite3.Connection | None = None  # its sync failed; a close would checkpoint what is in doubt
        self._opening = threading.Lock()
        self._con: sqlite3.Connection | None = None
        self._checkpointer: sqlite3.Connection | None = None
        self._idle: list[sqlite3.Connection] = []
        self._pid = 0  # the process that opened it

    def open(self) -> sqlite3.Connection:
        """Open the files unless another thread just did. No fork happens meanwhile: SQLite's mutexes may be held."""
        with self._opening:
            if self._con is None:
                with STILLNESS:
                    self._con = self._open()
            return self._con

    def _open(self) -> sqlite3.Connection:
        """Open the files; damaged ones are set aside and what can be read of them is taken over."""
        self.path = str(files.prepare(self._origin.path, allow_network=self._origin.allow_network))
        was_an_outbox = os.path.lexists(self.path + ".gate")
        try:
            return self._open_files()
        except OutboxError as error:
            if was_an_outbox and is_damage(error.__cause__):
                return self._replace_damaged(error)
            raise

    def _open_files(self) -> sqlite3.Connection:
        files.prepare(self._origin.path, allow_network=self._origin.allow_network)  # never made by SQLite: its mode
        self._wal_path = self.path + "-wal"
        self.wal = Wal(self.path)
        self._directory = os.path.dirname(self.path)
        self._unchanged = NEVER
        self.gate = Gate(self.path + ".gate")
        self._pid = os.getpid()
        self.generation += 1
        self._idle, self._checkpointer = [], None
        try:
            with alone(self.gate.path) if _is_empty(self.path) else nullcontext():  # the first opening writes
                con = connect(self.path)
        except BaseException:
            self.gate.close()
            raise
        try:
            with translated(self.path):
                self._make_ready(con)
                self._files = self._named_files()
                con.execute("PRAGMA busy_timeout=0")  # a commit that met a lock lets go of the gate, then waits
        except BaseException:
            con.close()
            self.gate.close()
            raise
        return con

    def _make_ready(self, con: sqlite3.Connection) -> None:
        if not retry_busy(lambda: is_current(con, self.path)):
            with alone(self.gate.path):
                retry_busy(lambda: migrate(con, self.path))
        if not identity.identities(con).sources:
            with self.gate.shared():
                retry_busy(lambda: identity.ensure(con, self._origin.new_source(), self._origin.now_us()))

    def new_event_id(self) -> str:
        """A fresh id for an event of our own."""
        return uuid7(self._origin.now_us() // 1000, self._origin.randomness())

    def new_identity(self) -> tuple[str, int]:
        """A fresh source, and now."""
        return self._origin.new_source(), self._origin.now_us()

    def connection(self) -> sqlite3.Connection:
        """The writing connection; opened anew in a forked child."""
        con = self._con
        if con is None or self._pid != os.getpid():
            if self._is_closed:
                raise OutboxError(f"outbox {self.path} is closed: open a new client to go on recording")
            if con is not None:
                self.forget_inherited()
            self._end_doubt()
            con = self.open()
        return con

    def _end_doubt(self) -> None:
        """After a failed sync: write the whole -wal a second time, before anything else is done with the files.

        What the kernel could not write counts as written from then on (fsync(2), "Errors"): no later sync brings it to
        the disk, and since the frames of a -wal are chained, nothing behind it survives power loss either, synced or
        not. But it can still be read; see docs/decisions/0009-after-a-failed-sync.md.
        """
        doubtful = self._doubtful
        if doubtful is None:
            return
        try:
            with alone(self.gate.path):
                files.write_again(self._wal_path)
        except FileNotFoundError:
            pass  # taken away meanwhile: the connection still reads it, and the next commit finds out
        except OSError as error:
            raise OutboxError(
                f"outbox {self.path}: the disk failed to sync it, and fails again ({error.strerror}): nothing can be "
                "recorded that would survive power loss. Nothing recorded before is lost yet. Check the disk"
            ) from error
        self._doubtful = None
        doubtful.close()
        self.gate.close()
        log.error("outbox %s: the disk failed to sync it; all in doubt was written again. Check the disk.", self.path)

    def query(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Ask a question of one consistent state, on a reading connection; BUSY is waited out, errors are ours."""
        if self._pid != os.getpid():
            self.connection()
        idle = self._idle
        with STILLNESS, translated(self.path):
            con = idle.pop() if idle else connect(self.path, read_only=True)
            try:
                return retry_busy(lambda: _in_one_state(con, question))
            finally:
                idle.append(con)

    def _named_files(self) -> tuple[int, int, int, int]:
        wal, database = os.lstat(self._wal_path), os.lstat(self.path)
        return wal.st_ino, database.st_ino, wal.st_dev, database.st_dev

    def is_intact(self) -> bool:
        """Whether the path still names the files that the connection writes to.

        SQLite in WAL mode does not notice when its files are removed or renamed: later commits go to a ghost. Any such
        change sets the directory's time, so one stat of the directory tells that there was none. The files themselves
        are looked at only when it changed: since Linux 6.13 a stat of the -wal makes the next write record a new time,
        and every fdatasync after it 70 microseconds slower. Opening them would drop SQLite's locks.
        """
        try:
            directory = os.stat(self._directory)
            seen = directory.st_mtime_ns, directory.st_ino
            if seen == self._unchanged:
                return True
            is_intact = self._named_files() == self._files
        except OSError:
            return False
        # Older kernels set times in steps of up to 10 ms: two changes in one step look like one.
        self._unchanged = seen if is_intact and time.time_ns() - seen[0] > TIME_STEP_NS else NEVER
        return is_intact

    def checkpoint(self, *, wait: bool = False) -> bool:
        """Move the -wal's content into the database file, alone at the gate; whether it was done.

        Not when somebody commits right now, with ``wait`` for half a second: a process that was stopped in the middle
        of a commit must not stop everybody else.
        """
        with STILLNESS, translated(self.path), lock_file(self.gate.path) as gate:
            if not is_locked_alone(gate, CHECKPOINT_TOTAL_S if wait else 0.0):
                return False
            self._move_wal()
        return True

    def _move_wal(self) -> None:
        # PASSIVE never waits for readers; the next writer restarts the -wal once everything is moved.
        if self._checkpointer is None:
            self._checkpointer = connect(self.path)
            self._checkpointer.execute("PRAGMA busy_timeout=0")
        _, frames, moved = self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if moved < frames:
            self.wal.note_held_back()
            return
        self.wal.note_moved()
        if self.wal.is_over:  # a reader was in the way, or events are large
            self._checkpointer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def recover(self, error: sqlite3.Error) -> None:
        """After an error of SQLite: take over from a damaged file, or open the files anew after an I/O error."""
        if is_damage(error):
            self._inherited += self._idle  # they may be in use
            self._close_connections()
            self._con = self._replace_damaged(error)
        elif primary_code(error) == sqlite3.SQLITE_IOERR:
            # Nothing that the connection believes of the file can be trusted.
            if is_failed_sync(error) and self._con is not None:
                self._doubtful, self._con = self._con, None
            elif self._doubtful is None:
                self._close_connections()

    def _close_connections(self) -> None:
        con, self._con = self._con, None
        if con is not None:
            with suppress(sqlite3.Error):
                con.close()
        self.gate.close()

    def _replace_damaged(self, error: BaseException) -> sqlite3.Connection:
        from orchclient.outbox import salvage  # rare: only when a file is damaged

        with alone(self.path + ".salvage", SALVAGE_TOTAL_S):  # other processes meet the same damage
            aside = salvage.set_aside(self.path, self._origin.now_us())
            con = self._open_files()
            source, now_us = self.new_identity()
            with self.gate.shared(), translated(self.path), con:
                retry_busy(lambda: con.execute("BEGIN IMMEDIATE"))
                with closing(salvage.opened_aside(aside)) as damaged:
                    copied = salvage.copy_readable(damaged, con, source, now_us)
        log.error(
            "outbox %s was damaged (%s): set aside as %s; %d events could be read from it and go on under a new "
            "source. Recording goes on. Run orchclient doctor, and check the disk.",
            self.path,
            error,
            aside,
            copied,
        )
        return con

    def salvage(self) -> None:
        """Bring what the lost files held into the file that the path names now, a new one if need be."""
        from orchclient.outbox import salvage  # rare: only when files were taken away

        ghost, self._con = self._con, None
        if ghost is None:
            raise OutboxError(f"outbox {self.path}: its files were taken away while it was being opened; try again")
        self.gate.close()
        self._inherited += self._idle  # they may be in use, and read the ghost
        with alone(self.path + ".salvage", SALVAGE_TOTAL_S):  # other processes find the same loss at the same time
            aside, con = self._adopt()
            source, now_us = self.new_identity()
            with self.gate.shared(), translated(self.path), con:
                retry_busy(lambda: con.execute("BEGIN IMMEDIATE"))
                try:
                    copied = salvage.copy_undelivered(ghost, con, source, now_us)
                except sqlite3.Error:  # another process found them damaged, and set them aside
                    copied = salvage.copy_readable(ghost, con, source, now_us)
        self._con = con
        ghost.close()
        log.error(
            "outbox %s: its files were removed or replaced while in use; %s%d undelivered events were copied into the "
            "file that is there now, under a new source. Find out what removes it.",
            self.path,
            f"what was left is set aside as {aside}; " if aside else "",
            copied,
        )

    def _adopt(self) -> tuple[str, sqlite3.Connection]:
        """Open what the path names now. A set that is not whole, or no outbox, is set aside first.

        Not by ``_open``, which takes damaged files over itself: it would wait for the lock that is held here.
        """
        from orchclient.outbox import salvage

        aside = salvage.set_aside(self.path, self._origin.now_us()) if self._holds_part_of_ours() else ""
        try:
            return aside, self._open_files()
        except OutboxError:
            aside = salvage.set_aside(self.path, self._origin.now_us())
            return aside, self._open_files()

    def _holds_part_of_ours(self) -> bool:
        """Whether the path names some of our files: a database without its -wal, or a -wal without its database."""
        wal_ino, database_ino, wal_dev, database_dev = self._files
        ours = {(wal_dev, wal_ino), (database_dev, database_ino)}
        for path in (self._wal_path, self.path):
            with suppress(OSError):
                found = os.lstat(path)
                if (found.st_dev, found.st_ino) in ours:
                    return True
        return False

    def forget_inherited(self) -> None:
        """In a forked child: keep the parent's connections untouched, close its lock files without unlocking.

        Using, closing or collecting an inherited connection would drop the parent's locks on the files.
        """
        self._inherited += [self._con, self._doubtful, self._checkpointer, *self._idle]
        self._con = self._doubtful = self._checkpointer = None
        self._idle = []
        self._opening = threading.Lock()
        if self._pid:
            self.gate.close()

    def close(self) -> None:
        """Close every connection and lock file."""
        self._is_closed = True
        with suppress(OutboxError):  # told to whoever recorded
            self._end_doubt()
        for con in (*self._idle, self._checkpointer, self._doubtful, self._con):
            if con is not None:
                con.close()
        self._idle, self._checkpointer, self._con = [], None, None
        self.gate.close()
