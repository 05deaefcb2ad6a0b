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
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TypeVar

from attrs import frozen

from orchclient.core.errors import OutboxError
from orchclient.core.ids import uuid7
from orchclient.outbox import checkup, files, identity, journal, owed
from orchclient.outbox.connection import (
    DISK_CODES,
    connect,
    is_damage,
    is_failed_sync,
    is_no_text,
    primary_code,
    retry_busy,
    text_as_far_as_it_goes,
    translated,
)
from orchclient.outbox.gate import Gate, alone, is_locked_alone, lock_file
from orchclient.outbox.identity import lost_tail
from orchclient.outbox.migrations import is_current, migrate
from orchclient.outbox.past import Past
from orchclient.outbox.stillness import STILLNESS
from orchclient.outbox.wal import Wal, wal_bytes

T = TypeVar("T")
Copy = Callable[[sqlite3.Connection, sqlite3.Connection, str, int], int]
"""Copies what the second connection lacks from the first, under a new source, at an instant; how many events."""

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
    except sqlite3.OperationalError as error:
        if not is_no_text(error):
            raise
        con.text_factory = text_as_far_as_it_goes
        return question(con)
    finally:
        con.text_factory = str
        if con.in_transaction:  # an I/O error has ended it
            con.execute("ROLLBACK")


def _close_all(idle: list[sqlite3.Connection]) -> None:
    with suppress(IndexError):  # other threads take from it too
        while True:
            idle.pop().close()


def _is_empty(path: str) -> bool:
    try:
        return os.stat(path).st_size == 0
    except FileNotFoundError:
        return True


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
        self._checkpointing = threading.Lock()
        self._con: sqlite3.Connection | None = None
        self._checkpointer: sqlite3.Connection | None = None
        self._idle: list[sqlite3.Connection] = []
        self._ghosts: list[sqlite3.Connection] = []  # of lost files, until their events are in the file at the path
        self._lost: set[files.FileIdentity] = set()  # which files the ghosts hold open
        self._past: Past | None = None
        self._pid = 0  # the process that opened it

    def open(self) -> sqlite3.Connection:
        """Open the files unless another thread just did. No fork happens meanwhile: SQLite's mutexes may be held."""
        with self._opening:
            if self._con is None:
                with STILLNESS:
                    self._con = self._open_adopted() if self._ghosts else self._open()
            return self._con

    @property
    def is_open(self) -> bool:
        """Whether there is a connection to write with; if not, the next write opens one."""
        return self._con is not None

    def _open(self) -> sqlite3.Connection:
        """Open the files; damaged ones are set aside and what can be read of them is taken over."""
        self.path = str(files.prepare(self._origin.path, allow_network=self._origin.allow_network))
        was_an_outbox = os.path.lexists(self.path + ".gate")
        if owed.is_noted(self.path):
            return self._open_owing()
        try:
            con = self._open_unharmed()
        except OutboxError as error:
            if not (was_an_outbox and is_damage(error.__cause__)):
                raise
            con = self._open_damaged(error)
        return con

    def _open_owing(self) -> sqlite3.Connection:
        """Somebody sets files aside, or ended in the middle: what they hold is taken over before anything else."""
        with self._salvaging():
            owed.end_moves(self.path)
            found = files.identity(self.path)
            try:
                self._refuse_lone_wal()
                con = self._open_files(is_replacement=True)
            except OutboxError as error:
                if not is_damage(error.__cause__):
                    raise
                con = self._open_another(error.__cause__, found)
            self._take_over(con)
            return con

    def _open_unharmed(self) -> sqlite3.Connection:
        self._refuse_lone_wal()
        con = self._open_files()
        with self._closed_on_failure(con):
            self._note_past(con)
        return con

    def _refuse_lone_wal(self) -> None:
        """A database that is gone or empty, while its -wal is not: SQLite would delete the -wal."""
        with files.translated(self._origin.path):
            is_lone = _is_empty(self.path) and wal_bytes(self.path)
        if is_lone:
            error = checkup.damage("the database file is gone or empty, and its -wal is not")
            raise OutboxError(f"outbox {self.path}: {error}") from error

    def _open_damaged(self, error: OutboxError) -> sqlite3.Connection:
        """Open files that seem to be damaged: once more as they are, since a read error of the disk looks the same."""
        found = files.identity(self.path)
        try:
            return self._open_unharmed()
        except OutboxError as again:
            if not is_damage(again.__cause__):
                raise
        return self._replace_damaged(error.__cause__ or error, found)

    def _open_files(self, *, is_replacement: bool = False) -> sqlite3.Connection:
        with files.translated(self._origin.path):
            return self._open_prepared(is_replacement)

    def _open_prepared(self, is_replacement: bool) -> sqlite3.Connection:
        files.prepare(self._origin.path, allow_network=self._origin.allow_network)  # never made by SQLite: its mode
        self._wal_path = self.path + "-wal"
        self.wal = Wal(self.path)
        self._directory = os.path.dirname(self.path)
        self._unchanged = NEVER
        self.gate = Gate(self.path + ".gate")
        self._look_back()
        self._pid = os.getpid()
        self.generation += 1
        self._idle, self._checkpointer = [], None
        try:
            with alone(self.gate.path) if _is_empty(self.path) else nullcontext():  # the first opening writes
                con = connect(self.path)
        except BaseException:
            self._close_side_files()
            raise
        try:
            with translated(self.path):
                con.text_factory = text_as_far_as_it_goes
                self._make_ready(con)
                self._files = self._named_files()
                con.execute("PRAGMA busy_timeout=0")  # a commit that met a lock lets go of the gate, then waits
                if not is_replacement:
                    self._face_past(con)
        except BaseException:
            con.close()
            self._close_side_files()
            raise
        return con

    def _look_back(self) -> None:
        if self._past is not None:
            self._past.close()
        try:
            self._past = Past(self.path)
        except BaseException:
            self.gate.close()
            raise

    def _face_past(self, con: sqlite3.Connection) -> None:
        """When nobody else has the outbox open: see whether its end is missing; check it if it was not closed."""
        past = self._past
        if past is None or not past.is_first:
            return
        missing = past.missing(con)
        if missing is None and past.ended_well:
            return
        checkup.refuse_damaged(con)
        if missing is not None:
            source, now_us = self.new_identity()
            with self.gate.shared():
                retry_busy(lambda: identity.renew(con, source, journal.last_seq(con) + 1, now_us, lost_tail(missing)))
        checkup.announce(self.path, missing, checkup.spoiled(con))

    def note_past(self) -> None:
        """Write down beside the file what it holds, if it is still the one at the path. A question and one write."""
        past = self._past
        if past is not None and self.is_intact():
            self.query(past.note)

    def _close_side_files(self) -> None:
        self.gate.close()
        if self._past is not None:
            self._past.close()

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
        """Ask a question of one consistent state, on a reading connection; BUSY is waited out, errors are ours.

        After an I/O error it is asked once more, on a fresh connection: a disk may have had one bad moment.
        """
        if self._pid != os.getpid():
            self.connection()
        with STILLNESS, translated(self.path):
            try:
                return self._ask(question)
            except sqlite3.Error as error:
                if primary_code(error) not in DISK_CODES and not is_damage(error):
                    raise
            return self._ask(question)

    def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        idle, is_fit = self._idle, True
        con = idle.pop() if idle else connect(self.path, read_only=True)
        try:
            return retry_busy(lambda: _in_one_state(con, question))
        except sqlite3.Error as error:
            is_fit = primary_code(error) not in DISK_CODES and not is_damage(error)
            raise
        finally:
            if is_fit:
                idle.append(con)
            else:  # nor are the others: what they believe of the file may be wrong
                con.close()
                _close_all(idle)

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
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:  # a disk with a bad moment tells nothing about names: the next commit looks again
            self._unchanged = NEVER
            return True
        # Older kernels set times in steps of up to 10 ms: two changes in one step look like one. A time to come is as
        # good as one long past: the clock was set back, and what happens now gets another time.
        self._unchanged = seen if is_intact and abs(time.time_ns() - seen[0]) > TIME_STEP_NS else NEVER
        return is_intact

    def checkpoint(self, *, wait: bool = False) -> bool:
        """Move the -wal's content into the database file, alone at the gate; whether it was done.

        Not when somebody commits right now, with ``wait`` for half a second: a process that was stopped in the middle
        of a commit must not stop everybody else.
        """
        with STILLNESS, translated(self.path), lock_file(self.gate.path) as gate:
            if not is_locked_alone(gate, CHECKPOINT_TOTAL_S if wait else 0.0):
                return False
            with self._checkpointing:
                if self._is_closed:
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

    def recover(self, error: sqlite3.Error, *, is_certain: bool = False) -> None:
        """After an error of SQLite: open the files anew after an I/O error, take over from a damaged file.

        A disk that could not be read for a moment looks like a damaged file, so damage counts only when fresh
        connections met it too: ``is_certain``.
        """
        if is_damage(error) and is_certain:
            self._inherited += self._idle  # they may be in use
            self._close_connections()
            _, ino, _, dev = self._files
            self._con = self._replace_damaged(error, files.FileIdentity(dev, ino))
        elif is_damage(error) or primary_code(error) in DISK_CODES:
            # Nothing that the connection believes of the file can be trusted, and one that was opened while the file
            # could not be written stays read-only.
            if is_failed_sync(error) and self._con is not None:
                self._doubtful, self._con = self._con, None
            elif self._doubtful is None:
                self._close_connections()

    def _close_connections(self) -> None:
        con, self._con = self._con, None
        if con is not None:
            with suppress(sqlite3.Error):
                con.close()
        self._close_side_files()

    def _replace_damaged(self, error: BaseException, found: files.FileIdentity | None) -> sqlite3.Connection:
        """Set damaged files aside, open new ones, and take over what can be read of the old ones."""
        with self._salvaging():
            owed.end_moves(self.path)
            con = self._open_another(error, found)
            self._take_over(con)
            return con

    def _open_another(self, error: BaseException, found: files.FileIdentity | None) -> sqlite3.Connection:
        """Set aside what is damaged, and open a new one. The caller holds the salvage lock."""
        from orchclient.outbox import salvage  # rare: only when a file is damaged

        if files.identity(self.path) == found:  # else another process met the same damage, and replaced them
            salvage.refuse_unreadable(self.path)
            salvage.set_aside(self.path, self._origin.now_us(), error)
        return self._open_files(is_replacement=True)

    @contextmanager
    def _salvaging(self) -> Iterator[None]:
        """Alone among the processes that find the same damage or loss at the same time."""
        with files.translated(self._origin.path), alone(self.path + ".salvage", SALVAGE_TOTAL_S):
            yield

    def _take_over(self, con: sqlite3.Connection) -> None:
        """Bring what lost and damaged files held into the file that is open. What fails is tried again at the next.

        The caller holds the salvage lock.
        """
        from orchclient.outbox import salvage

        with self._closed_on_failure(con):
            ours, others = self._owed()
            for entry in others:
                self._take_over_aside(con, entry)
            while self._ghosts:
                copied = self._copied(con, self._ghosts[-1], salvage.copy_lost)
                self._ghosts.pop().close()
                salvage.announce_lost(self.path, copied)
            self._lost.clear()
            self._note_past(con)  # before the note goes: a crash between them would be told as a loss
            for entry in ours:
                owed.settle(self.path, entry)

    def _owed(self) -> tuple[list[owed.Owed], list[owed.Owed]]:
        """What was set aside and is not taken over: parts of what our ghosts hold whole, and all else."""
        ours: list[owed.Owed] = []
        others: list[owed.Owed] = []
        for entry in owed.owed(self.path):
            named = {files.identity(entry.path(self.path) + ending) for ending in owed.ENDINGS}
            (ours if named & self._lost else others).append(entry)
        return ours, others

    def _take_over_aside(self, con: sqlite3.Connection, entry: owed.Owed) -> None:
        from orchclient.outbox import salvage

        aside = entry.path(self.path)
        try:
            damaged = salvage.opened_aside(aside)
        except sqlite3.Error as error:
            salvage.announce_unreadable(self.path, aside, entry.why, error)
        else:
            with closing(damaged):
                copied = self._copied(con, damaged, salvage.copy_readable)
            salvage.announce_damaged(self.path, aside, entry.why, copied)
        self._note_past(con)
        owed.settle(self.path, entry)

    def _note_past(self, con: sqlite3.Connection) -> None:
        if self._past is not None:
            self._past.note(con)

    @contextmanager
    def _closed_on_failure(self, con: sqlite3.Connection) -> Iterator[None]:
        try:
            yield
        except BaseException:
            con.close()
            self._close_side_files()
            raise

    def _copied(self, con: sqlite3.Connection, old: sqlite3.Connection, copy: Copy) -> int:
        source, now_us = self.new_identity()
        with self.gate.shared(), translated(self.path), con:
            retry_busy(lambda: con.execute("BEGIN IMMEDIATE"))
            return copy(old, con, source, now_us)

    def salvage(self) -> None:
        """Bring what the lost files held into the file that the path names now, a new one if need be."""
        ghost, self._con = self._con, None
        if ghost is None:
            raise OutboxError(f"outbox {self.path}: its files were taken away while it was being opened; try again")
        self._ghosts.append(ghost)
        self._lost |= self._own_files()
        self.gate.close()
        self._inherited += self._idle  # they may be in use, and read the ghost
        self.connection()

    def _open_adopted(self) -> sqlite3.Connection:
        with self._salvaging():
            owed.end_moves(self.path)
            con = self._adopt()
            self._take_over(con)
        return con

    def _adopt(self) -> sqlite3.Connection:
        """Open what the path names now. A set that is not whole, or no outbox, is set aside first.

        Not by ``_open``, which takes damaged files over itself: it would wait for the lock that is held here.
        """
        from orchclient.outbox import salvage

        if self._holds_part_of_ours():
            salvage.set_aside(self.path, self._origin.now_us(), "the other files of its set were taken away")
        try:
            return self._open_files(is_replacement=True)
        except OutboxError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) or (isinstance(cause, sqlite3.Error) and not is_damage(cause)):
                raise
            salvage.set_aside(self.path, self._origin.now_us(), cause or error)
            return self._open_files(is_replacement=True)

    def _holds_part_of_ours(self) -> bool:
        """Whether the path names some of our files: a database without its -wal, or a -wal without its database."""
        return any(files.identity(path) in self._lost for path in (self._wal_path, self.path))

    def _own_files(self) -> set[files.FileIdentity]:
        wal_ino, database_ino, wal_dev, database_dev = self._files
        return {files.FileIdentity(wal_dev, wal_ino), files.FileIdentity(database_dev, database_ino)}

    def forget_inherited(self) -> None:
        """In a forked child: keep the parent's connections untouched, close its lock files without unlocking.

        Using, closing or collecting an inherited connection would drop the parent's locks on the files.
        """
        self._inherited += [self._con, self._doubtful, self._checkpointer, *self._idle, *self._ghosts]
        self._con = self._doubtful = self._checkpointer = None
        self._idle, self._ghosts, self._lost = [], [], set()  # what is owed, the parent pays
        self._opening = threading.Lock()
        self._checkpointing = threading.Lock()
        if self._pid:
            self._close_side_files()

    def close(self) -> None:
        """Close every connection and lock file."""
        with suppress(OutboxError):  # told to whoever recorded
            self._end_doubt()
        if self._ghosts:
            with suppress(OutboxError):  # the last moment for events that have no other place
                self.connection()
        with suppress(OutboxError):
            self.note_past()
        self._is_closed = True
        self._end_checkpoints()
        for con in (*self._idle, self._doubtful, self._con, *self._ghosts):
            if con is not None:
                with suppress(sqlite3.Error):
                    con.close()
        self._idle, self._con = [], None
        self.gate.close()
        if self._past is not None:
            self._past.leave()

    def _end_checkpoints(self) -> None:
        if not self._checkpointing.acquire(timeout=CHECKPOINT_TOTAL_S):
            # A thread is in the middle of one, on a busy machine: to close the connection under it would be a crash.
            self._inherited.append(self._checkpointer)
            self._checkpointer = None
            return
        con, self._checkpointer = self._checkpointer, None
        if con is not None:
            with suppress(sqlite3.Error):
                con.close()
        self._checkpointing.release()
