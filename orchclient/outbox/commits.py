"""Commits on the one writing connection of a process: the gate, the transaction, and what is done about errors.

Used by one thread at a time; which one is the writer's business. A commit waits for other processes to a stated total,
and holds nothing while it waits. An interrupt (KeyboardInterrupt) at any place leaves no transaction open and the gate
free: see writer.py.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from orchclient.core.errors import OutboxError
from orchclient.outbox.connection import as_outbox_error, failed_sync, is_busy, is_damage, translated
from orchclient.outbox.gate import Gate, busy, refused
from orchclient.outbox.patience import Patience
from orchclient.outbox.wal_sync import WalSync

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]
"""Statements that run inside a transaction; run again from the start when a commit failed."""

Together = Callable[[sqlite3.Connection, list[Any]], list[Any]]
"""Runs works that are one writing statement each as one such statement for all, and returns the result of each."""


MET_FOR_S = 1.0
"""For so long after it met another process it lets go of the file before it syncs."""

LOCK_ERRORS = (OSError, sqlite3.OperationalError)
"""What may be raised when somebody else holds the gate or the file."""


class Store(Protocol):
    """The files below."""

    path: str
    gate: Gate
    sync: Callable[[], None]  # everything committed to the -wal so far; raises OSError

    def another_sync(self) -> WalSync:
        """The same for a thread that does not keep others from committing."""

    def connection(self) -> sqlite3.Connection:
        """The connection to write with."""

    def is_intact(self) -> bool:
        """Whether the path still names the files that the connection writes to."""

    def salvage(self) -> None:
        """Bring what the lost files held into the files that the path names now."""

    def recover(self, error: sqlite3.Error, *, is_certain: bool = False) -> None:
        """Make the connection fit for use again after an error of SQLite, if it can be."""


class Commits:
    """The commits of one process to ``store``."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._full: sqlite3.Connection | None = None  # connection on which synchronous is FULL
        self._normal: sqlite3.Connection | None = None  # connection on which it is NORMAL
        self.count = 0  # since the last checkpoint; whoever checkpoints sets it back
        self.total = 0
        self._synced = 0  # of the total; a sync syncs every commit before it
        self._met_until = 0.0  # the monotonic time up to which another process is taken to be at work; 0 for none

    @property
    def unsynced(self) -> bool:
        """Whether a commit has happened that a power cut could take back."""
        return self.total != self._synced

    def note_synced(self, total: int) -> None:
        """So many commits survive power loss."""
        self._synced = max(self._synced, total)

    def commit(self, work: Work, synced: bool, is_single_statement: bool, until: float | None = None) -> Any:
        """One work in a transaction of its own. After an SQLite error, or when the files are lost, once more.

        A failed commit may be in the file all the same, so a work that must not happen twice looks before it writes.
        Raises ``OutboxBusy`` at the monotonic time ``until``, by default ``BUSY_TOTAL_S`` after the first try.
        """
        try:
            result = self.try_commit(work, synced, is_single_statement, until)
            if self._store.is_intact():
                return result
            self._store.salvage()
        except sqlite3.Error as error:
            self._store.recover(error)
        with translated(self._store.path):
            try:
                return self.try_commit(work, synced, is_single_statement, until)
            except sqlite3.Error as error:
                self._store.recover(error, is_certain=True)
                if not is_damage(error):
                    raise
            return self.try_commit(work, synced, is_single_statement, until)

    def recover_from(self, error: BaseException | None) -> None:
        """After a failure that is told to somebody else, or told already: the next commit needs a sound connection."""
        if isinstance(error, sqlite3.Error) and not is_damage(error):
            self._store.recover(error)

    def try_commit(self, work: Work, synced: bool, is_single_statement: bool, until: float | None) -> Any:
        """The same, with SQLite's errors as they are, and without a look whose file it is."""
        syncs_inside = synced and not (self._met_until and self._has_company())
        con = self._prepared(syncs_inside)
        try:
            result = self._committed(con, work, is_single_statement)
        except LOCK_ERRORS as error:
            result = self._try_again(error, lambda: self._committed(con, work, is_single_statement), until)
        self.count += 1
        self.total += 1
        if syncs_inside:
            self._synced = self.total
        elif synced:
            self._sync()
        return result

    def _has_company(self) -> bool:
        """Whether another process was met lately: then SQLite would keep it waiting while it syncs.

        Without company SQLite syncs inside the commit. That is one change of threads less, and a commit whose sync
        failed was never seen by anybody.
        """
        if time.monotonic() >= self._met_until:
            self._met_until = 0.0
        return self._met_until > 0

    def _sync(self) -> None:
        """Make this commit, and with it every one before, survive power loss. Holds up no other process meanwhile."""
        try:
            self._store.sync()
        except OSError as error:
            raise failed_sync(error) from error
        self._synced = self.total

    def _committed(self, con: sqlite3.Connection, work: Work, is_single_statement: bool) -> Any:
        """One try, which waits for nobody: the gate is not held while another process has the file."""
        gate = self._store.gate
        try:
            gate.enter()
            # One writing statement is a transaction of its own and takes the write lock like BEGIN IMMEDIATE.
            return work(con) if is_single_statement else _in_transaction(con, work)
        finally:
            gate.leave()

    def begin(self) -> sqlite3.Connection:
        """The connection in an open, synced transaction, the gate held; to be ended by ``end``."""
        con = self._prepared(synced=True)
        try:
            self._begun(con)
        except LOCK_ERRORS as error:
            self._try_again(error, lambda: self._begun(con), None)
        return con

    def _begun(self, con: sqlite3.Connection) -> None:
        try:
            self._store.gate.enter()
            con.execute("BEGIN IMMEDIATE")
        except BaseException:
            self.end(con)
            raise

    def commit_begun(self, con: sqlite3.Connection) -> None:
        """Commit what ``begin`` began."""
        if not con.in_transaction:
            raise OutboxError(
                f"outbox {self._store.path}: the transaction was ended inside transaction(); leave COMMIT to it"
            )
        con.execute("COMMIT")
        self.count += 1
        self.total += 1
        self._synced = self.total

    def end(self, con: sqlite3.Connection) -> None:
        """Leave the gate; what is not committed is taken back."""
        try:
            _roll_back(con)
        finally:
            self._store.gate.leave()

    def _try_again(self, error: Exception, attempt: Callable[[], T], until: float | None) -> T:
        """After a try that met a lock: again and again, until the time is over."""
        patience = Patience.of() if until is None else Patience(until)
        while _is_lock(error):
            if isinstance(error, sqlite3.Error):  # at the gate a checkpoint of this process is met, too
                self._met_until = time.monotonic() + MET_FOR_S
            if not patience.pause():
                raise self._busy(error) from error
            try:
                return attempt()
            except LOCK_ERRORS as again:
                error = again
        if isinstance(error, OSError) and error.errno is not None:
            raise refused(self._store.gate.path, error) from error
        raise error

    def _busy(self, error: Exception) -> OutboxError:
        if isinstance(error, sqlite3.Error):
            return as_outbox_error(self._store.path, error)
        return busy(self._store.gate.path)

    def _prepared(self, synced: bool) -> sqlite3.Connection:
        con = self._store.connection()
        if con is not (self._full if synced else self._normal):
            self._full = self._normal = None  # an interrupt may come between the statement and the note of it
            con.execute("PRAGMA synchronous=FULL" if synced else "PRAGMA synchronous=NORMAL")
            if synced:
                self._full = con
            else:
                self._normal = con
        if con.in_transaction:  # an interrupt cut a rollback short
            con.rollback()
        return con


def _is_lock(error: Exception) -> bool:
    return is_busy(error) if isinstance(error, sqlite3.Error) else isinstance(error, BlockingIOError)


def _in_transaction(con: sqlite3.Connection, work: Work) -> Any:
    try:
        con.execute("BEGIN IMMEDIATE")
        result = work(con)
        con.execute("COMMIT")
    except BaseException:
        _roll_back(con)
        raise
    return result


def _roll_back(con: sqlite3.Connection) -> None:
    try:  # noqa: SIM105  suppress() is a function of Python: an interrupt could come before the rollback
        con.rollback()
    except sqlite3.Error:
        pass  # the error before tells more
