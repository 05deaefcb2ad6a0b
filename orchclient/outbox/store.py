"""The files under an outbox: how they are opened, the connections to them, and what a fork must not carry over.

Knows paths and descriptors, and of the tables only the identity. Rules 4, 5 and 11 of "What SQLite needs from us" in
docs/architecture.md. What is done about lost and damaged files, a ``Rescue`` knows.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TypeVar

from attrs import frozen

from orchclient.core.errors import OutboxError
from orchclient.core.ids import uuid7
from orchclient.outbox import asides, checkup, files, identity, journal
from orchclient.outbox.checkpoints import Checkpoints
from orchclient.outbox.connection import (
    DISK_CODES,
    connect,
    is_damage,
    is_failed_sync,
    is_foreign,
    primary_code,
    retry_busy,
    text_as_far_as_it_goes,
    translated,
)
from orchclient.outbox.gate import Gate, alone
from orchclient.outbox.identity import lost_tail
from orchclient.outbox.migrations import is_current, migrate
from orchclient.outbox.past import Past
from orchclient.outbox.readers import Readers, may_pass
from orchclient.outbox.rescue import Ghosts, Rescue
from orchclient.outbox.stillness import STILLNESS
from orchclient.outbox.wal import Wal, wal_bytes
from orchclient.outbox.wal_sync import WalSync
from orchclient.outbox.whereabouts import Whereabouts

T = TypeVar("T")


def _was_only_tried(path: str) -> bool:
    """Whether the files beside it were made by somebody who found no outbox: the first who finds one fills the mark."""
    return os.path.lexists(path + ".mark") and _is_empty(path + ".mark")


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
        self._con: sqlite3.Connection | None = None
        self._checkpoints = Checkpoints()
        self._ghosts = Ghosts()
        self._acquitted: set[files.FileIdentity] = set()
        self._readers = Readers(str(origin.path))
        self._past: Past | None = None
        self._wal_sync: WalSync | None = None
        self._pid = 0  # the process that opened it

    def open(self) -> sqlite3.Connection:
        """Open the files unless another thread just did. No fork happens meanwhile: SQLite's mutexes may be held."""
        with self._opening:
            if self._con is None:
                with STILLNESS:
                    self._con = self._rescue().open_adopted() if self._ghosts.connections else self._open()
            return self._con

    @property
    def is_open(self) -> bool:
        """Whether there is a connection to write with; if not, the next write opens one."""
        return self._con is not None

    def _open(self) -> sqlite3.Connection:
        """Open the files; damaged ones are set aside and what can be read of them is taken over."""
        self.path = str(files.prepare(self._origin.path, allow_network=self._origin.allow_network))
        was_an_outbox, was_only_tried = os.path.lexists(self.path + ".gate"), _was_only_tried(self.path)
        if asides.is_noted(self.path):
            return self._rescue().open_owing()
        try:
            con = self._open_unharmed()
        except OutboxError as error:
            if not (was_an_outbox and is_damage(error.__cause__)) or (was_only_tried and is_foreign(error.__cause__)):
                raise
            con = self._open_damaged(error)
        return con

    def _rescue(self) -> Rescue:
        return Rescue(self, self._ghosts, self._acquitted, self._origin.now_us)

    def _open_unharmed(self) -> sqlite3.Connection:
        self.refuse_lone_wal()
        con = self._open_files()
        with self.closed_on_failure(con):
            self.note_held(con)
        return con

    def refuse_lone_wal(self) -> None:
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
        return self._rescue().replace_damaged(error.__cause__ or error, found)

    def open_replacement(self) -> sqlite3.Connection:
        """Open what the path names now, a new file if need be, whatever it is known to have held: for a rescue."""
        return self._open_files(is_replacement=True)

    def _open_files(self, *, is_replacement: bool = False) -> sqlite3.Connection:
        with files.translated(self._origin.path):
            return self._open_prepared(is_replacement)

    def _open_prepared(self, is_replacement: bool) -> sqlite3.Connection:
        files.prepare(self._origin.path, allow_network=self._origin.allow_network)  # never made by SQLite: its mode
        self.wal = Wal(self.path)
        self.gate = Gate(self.path + ".gate")
        self._look_back()
        self._pid = os.getpid()
        self.generation += 1
        self._readers = Readers(self.path)
        self._checkpoints.let_go()
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
                self._files = Whereabouts(self.path)
                self.is_intact = self._files.is_intact  # no call in between: it is asked after every commit
                self._sync_by(WalSync.of(self.path))
                con.execute("PRAGMA busy_timeout=0")  # a commit that met a lock lets go of the gate, then waits
                if not is_replacement:
                    self._face_past(con)
        except BaseException:
            con.close()
            self._close_side_files()
            raise
        return con

    def _sync_by(self, wal_sync: WalSync) -> None:
        if self._wal_sync is not None:
            self._wal_sync.close()
        self._wal_sync, self.sync = wal_sync, wal_sync.sync

    def another_sync(self) -> WalSync:
        """For a thread that syncs while others commit: its own, to be closed by it."""
        self.connection()
        assert self._wal_sync is not None  # opened with the connection
        return self._wal_sync.another()

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

    def note_past(self, seq: int | None = None) -> None:
        """Write down beside the file what it holds, if it is still the one at the path: up to ``seq`` where known.

        One write; without ``seq``, a question.
        """
        past = self._past
        if past is not None and self.is_intact() and not (seq and past.note_place(seq)):
            self.query(past.note)

    def _close_side_files(self) -> None:
        self.gate.close()
        for each in (self._past, self._wal_sync):
            if each is not None:
                each.close()

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
                files.write_again(self.path + "-wal")
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
                return self._readers.ask(question)
            except (sqlite3.Error, OutboxError) as error:  # ours: a fresh connection could not be opened
                if not may_pass(error.__cause__ if isinstance(error, OutboxError) else error):
                    raise
            return self._readers.ask(question)

    def checkpoint(self, *, wait: bool = False) -> bool:
        """Move the -wal's content into the database file, unless somebody commits right now; whether it was done."""
        return self._checkpoints.checkpoint(self.wal, self.gate.path, wait=wait)

    def recover(self, error: sqlite3.Error, *, is_certain: bool = False) -> None:
        """After an error of SQLite: open the files anew after an I/O error, take over from a damaged file.

        A disk that could not be read for a moment looks like a damaged file, so damage counts only when fresh
        connections met it too: ``is_certain``.
        """
        if is_damage(error) and is_certain:
            self._inherited += self._readers.taken_out()  # not closed: the last to close would change the file
            self._close_connections()
            self._con = self._rescue().replace_damaged(error, self._files.database)
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

    def note_held(self, con: sqlite3.Connection) -> None:
        """Write down beside the file what it holds, as ``con`` sees it."""
        if self._past is not None:
            with translated(self.path):  # the end of the journal may be where it is damaged
                self._past.note(con)

    @contextmanager
    def closed_on_failure(self, con: sqlite3.Connection) -> Iterator[None]:
        """A block after whose failure the connection and the files beside it are closed."""
        try:
            yield
        except BaseException:
            con.close()
            self._close_side_files()
            raise

    def salvage(self) -> None:
        """Bring what the lost files held into the file that the path names now, a new one if need be."""
        ghost, self._con = self._con, None
        if ghost is None:
            raise OutboxError(f"outbox {self.path}: its files were taken away while it was being opened; try again")
        self._ghosts.add(ghost, self._files.database, self._files.wal)
        self.gate.close()
        self._inherited += self._readers.taken_out()  # they read the ghost
        self.connection()

    def forget_inherited(self) -> None:
        """In a forked child: keep the parent's connections untouched, close its lock files without unlocking.

        Using, closing or collecting an inherited connection would drop the parent's locks on the files.
        """
        self._inherited += [self._con, self._doubtful, self._checkpoints.start_anew(), self._readers, self._ghosts]
        self._con = self._doubtful = None
        self._readers, self._ghosts = Readers(str(self._origin.path)), Ghosts()  # what is owed, the parent pays
        self._opening = threading.Lock()
        if self._past is not None:
            self._past.start_anew()
        if self._pid:
            self._close_side_files()

    def close(self) -> None:
        """Close every connection and lock file, once. No other thread commits meanwhile; those that ask may go on."""
        if self._is_closed:
            return
        with suppress(OutboxError):  # told to whoever recorded
            self._end_doubt()
        if self._ghosts.connections:
            with suppress(OutboxError):  # the last moment for events that have no other place
                self.connection()
        with suppress(OutboxError):
            self.note_past()
        self._is_closed = True
        self._checkpoints.end()
        self._readers.close()
        for con in (self._doubtful, self._con, *self._ghosts.connections):
            if con is not None:
                with suppress(sqlite3.Error):
                    con.close()
        self._con = None
        self.gate.close()
        if self._wal_sync is not None:
            self._wal_sync.close()
        if self._past is not None:
            self._past.leave()
