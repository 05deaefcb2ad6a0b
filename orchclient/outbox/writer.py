"""The one writing connection of a process, shared by its threads: whoever holds the lock commits for all who wait.

Leader and followers, no extra thread: a lone caller pays nothing for the others, and many callers share one fsync.
Every commit holds the gate shared. Knows transactions and locks, not tables.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from orchclient.core.errors import OutboxError
from orchclient.outbox.connection import translated
from orchclient.outbox.gate import Gate

Work = Callable[[sqlite3.Connection], Any]
"""Statements that run inside a transaction; run again from the start when a commit failed."""

MAX_GROUP = 256


class Store(Protocol):
    """The files below the writer."""

    path: str
    gate: Gate

    def connection(self) -> sqlite3.Connection:
        """The connection to write with."""

    def is_intact(self) -> bool:
        """Whether the path still names the files that the connection writes to."""

    def salvage(self) -> None:
        """Bring what the lost files held into the files that the path names now."""


class Ticket:
    """One caller's work, waiting for the commit that carries it."""

    __slots__ = ("done", "error", "is_single_statement", "result", "synced", "work")

    def __init__(self, work: Work, synced: bool, is_single_statement: bool) -> None:
        self.work = work
        self.synced = synced
        self.is_single_statement = is_single_statement
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None


class Writer:
    """Group commit over the one writing connection of ``store``."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: deque[Ticket] = deque()
        self._owner = 0  # thread inside ``transaction``
        self._full: sqlite3.Connection | None = None  # connection on which synchronous is FULL
        self.lock = threading.Lock()  # held during every commit; a fork waits for it
        self.commits = 0  # since the last checkpoint; whoever checkpoints sets it back
        self.unsynced = False  # whether a commit has happened that a power cut could take back

    def run(self, work: Work, synced: bool, is_single_statement: bool = False) -> Any:
        """Run ``work`` in a committed transaction and return its result.

        Durable afterwards: always against the death of the process, against power loss when ``synced``. Raises what
        ``work`` raises, or ``OutboxError``; then nothing of this work is stored and others' work is not affected.
        """
        if self._owner and self._owner == threading.get_ident():
            return work(self._store.connection())
        if not self._waiting and self.lock.acquire(blocking=False):
            try:
                return self._commit_alone(work, synced, is_single_statement)
            finally:
                self.lock.release()
        return self._commit_with_others(Ticket(work, synced, is_single_statement))

    def _commit_with_others(self, ticket: Ticket) -> Any:
        """Wait until somebody commits the ticket, or lead the next group."""
        self._waiting.append(ticket)
        with self.lock:
            while not ticket.done:
                self._lead()
        if ticket.error is not None:
            raise ticket.error
        return ticket.result

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The connection inside an open transaction; this thread's own calls of ``run`` join it."""
        path = self._store.path
        if self._owner == threading.get_ident():
            raise OutboxError(f"outbox {path}: transaction() inside transaction(): use one at a time")
        with self.lock, translated(path), self._begun(self._prepared(synced=True), synced=True) as con:
            self._owner = threading.get_ident()
            try:
                yield con
            finally:
                self._owner = 0
            if not con.in_transaction:
                raise OutboxError(f"outbox {path}: the transaction was ended inside transaction(); leave COMMIT to it")

    @property
    def is_in_transaction(self) -> bool:
        """Whether the calling thread is inside ``transaction``."""
        return self._owner == threading.get_ident()

    def _lead(self) -> None:
        """Commit for everyone who waits right now."""
        tickets = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_GROUP))]
        try:
            self._commit_group(tickets)
        finally:
            for ticket in tickets:
                ticket.done = True

    def _commit_group(self, tickets: list[Ticket]) -> None:
        """All in one transaction; when that fails, each alone, so that only the one to blame gets the error."""
        try:
            synced = any(ticket.synced for ticket in tickets)
            with self._begun(self._prepared(synced), synced) as con:
                for ticket in tickets:
                    ticket.result = ticket.work(con)
            if self._store.is_intact():
                return
            self._store.salvage()
        except Exception:  # noqa: BLE001, S110  whoever is to blame fails again below
            pass
        for ticket in tickets:
            try:
                ticket.result = self._commit_alone(ticket.work, ticket.synced, ticket.is_single_statement)
            except BaseException as error:  # noqa: BLE001  handed to the caller that waits for this ticket
                ticket.error = error

    def _commit_alone(self, work: Work, synced: bool, is_single_statement: bool) -> Any:
        """One work in a transaction of its own. After an SQLite error, or when the files are lost, once more.

        A failed commit may be in the file all the same, so a work that must not happen twice looks before it writes.
        """
        try:
            result = self._commit(work, synced, is_single_statement)
            if self._store.is_intact():
                return result
            self._store.salvage()
        except sqlite3.Error:
            pass
        with translated(self._store.path):
            return self._commit(work, synced, is_single_statement)

    def _commit(self, work: Work, synced: bool, is_single_statement: bool) -> Any:
        con = self._prepared(synced)
        if not is_single_statement:
            with self._begun(con, synced):
                return work(con)
        # One writing statement is a transaction of its own and takes the write lock like BEGIN IMMEDIATE.
        gate = self._store.gate
        gate.enter()
        try:
            result = work(con)
        finally:
            gate.leave()
        # A synced commit syncs the whole -wal, and with it every commit before.
        self.unsynced = not synced
        self.commits += 1
        return result

    @contextmanager
    def _begun(self, con: sqlite3.Connection, synced: bool) -> Iterator[sqlite3.Connection]:
        with self._store.gate.shared():
            try:
                con.execute("BEGIN IMMEDIATE")
                yield con
                con.execute("COMMIT")
            except BaseException:
                if con.in_transaction:
                    with suppress(sqlite3.Error):
                        con.execute("ROLLBACK")
                raise
        self.unsynced = not synced
        self.commits += 1

    def _prepared(self, synced: bool) -> sqlite3.Connection:
        con = self._store.connection()
        if synced is not (con is self._full):
            con.execute("PRAGMA synchronous=FULL" if synced else "PRAGMA synchronous=NORMAL")
            self._full = con if synced else None
        return con
