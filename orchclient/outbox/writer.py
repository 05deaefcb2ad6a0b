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

    def recover(self, error: sqlite3.Error) -> None:
        """Make the connection fit for use again after an error of SQLite, if it can be."""


class Ticket:
    """One caller's work, waiting for the commit that carries it. Without work: waiting to lead alone."""

    __slots__ = ("bell", "error", "is_single_statement", "leads", "result", "synced", "work")

    def __init__(self, work: Work | None, synced: bool, is_single_statement: bool) -> None:
        self.work = work
        self.synced = synced
        self.is_single_statement = is_single_statement
        self.leads = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.bell = threading.Lock()  # released when the work is committed, or when it is this caller's turn to lead
        self.bell.acquire()


class Writer:
    """Group commit over the one writing connection of ``store``."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._mutex = threading.Lock()  # held for a few statements only, guards the next two
        self._is_led = False
        self._waiting: deque[Ticket] = deque()
        self._owner = 0  # thread inside ``transaction``
        self._full: sqlite3.Connection | None = None  # connection on which synchronous is FULL
        self.commits = 0  # since the last checkpoint; whoever checkpoints sets it back
        self.unsynced = False  # whether a commit has happened that a power cut could take back

    def run(self, work: Work, synced: bool, is_single_statement: bool = False) -> Any:
        """Run ``work`` in a committed transaction and return its result.

        Durable afterwards: always against the death of the process, against power loss when ``synced``. Raises what
        ``work`` raises, or ``OutboxError``; then nothing of this work is stored and others' work is not affected.
        """
        if self._owner and self._owner == threading.get_ident():
            return work(self._store.connection())
        with self._mutex:
            if ticket := Ticket(work, synced, is_single_statement) if self._is_led else None:
                self._waiting.append(ticket)
            else:
                self._is_led = True
        if ticket:
            return self._follow(ticket)
        try:  # nobody to share a commit with
            return self._commit_alone(work, synced, is_single_statement)
        finally:
            self.release()

    def _follow(self, ticket: Ticket) -> Any:
        """Wait until somebody committed the ticket, or lead the next group."""
        self._await(ticket)
        if ticket.leads:
            self._lead_group(ticket)
        if ticket.error is not None:
            raise ticket.error
        return ticket.result

    def _await(self, ticket: Ticket, timeout_s: float = -1) -> bool:
        """Wait for the bell. An interrupt, or the time, takes the ticket back: nobody may wait for one who left."""
        try:
            if ticket.bell.acquire(timeout=timeout_s):
                return True
        except BaseException:
            self._take_back(ticket)
            raise
        return not self._take_back(ticket)

    def _take_back(self, ticket: Ticket) -> bool:
        """Leave the queue; False when it was this caller's turn already, which is then passed on if it was to lead."""
        with self._mutex:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                return True
        if ticket.leads:
            self.release()
        return False

    def _lead_group(self, leader: Ticket) -> None:
        """Commit for the leader and for everyone who waits right now."""
        group = [leader]
        with self._mutex:
            while self._waiting and self._waiting[0].work is not None and len(group) < MAX_GROUP:
                group.append(self._waiting.popleft())
        try:
            self._commit_group(group)
        except BaseException as error:
            for ticket in group:
                ticket.error = error
            raise
        finally:
            for ticket in group[1:]:
                ticket.bell.release()
            self.release()

    def acquire(self, timeout_s: float = -1) -> bool:
        """Be the only one who commits in this process, until ``release``; False when the time is over before."""
        with self._mutex:
            if not self._is_led:
                self._is_led = True
                return True
            ticket = Ticket(None, False, False)
            self._waiting.append(ticket)
        return self._await(ticket, timeout_s) and ticket.leads

    def release(self) -> None:
        """Let the next one lead."""
        with self._mutex:
            if self._waiting:
                heir = self._waiting.popleft()
                heir.leads = True
                heir.bell.release()
            else:
                self._is_led = False

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The connection inside an open transaction; this thread's own calls of ``run`` join it."""
        path = self._store.path
        if self.is_in_transaction:
            raise OutboxError(f"outbox {path}: transaction() inside transaction(): use one at a time")
        self.acquire()
        try:
            with translated(path), self._begun(self._prepared(synced=True), synced=True) as con:
                self._owner = threading.get_ident()
                try:
                    yield con
                finally:
                    self._owner = 0
                if not con.in_transaction:
                    raise OutboxError(
                        f"outbox {path}: the transaction was ended inside transaction(); leave COMMIT to it"
                    )
        finally:
            self.release()

    @property
    def is_in_transaction(self) -> bool:
        """Whether the calling thread is inside ``transaction``."""
        return self._owner == threading.get_ident()

    def _commit_group(self, tickets: list[Ticket]) -> None:
        """All in one transaction; when that fails, each alone, so that only the one to blame gets the error."""
        try:
            synced = any(ticket.synced for ticket in tickets)
            with self._begun(self._prepared(synced), synced) as con:
                for ticket in tickets:
                    ticket.result = _work_of(ticket)(con)
            if self._store.is_intact():
                return
            self._store.salvage()
        except Exception:  # noqa: BLE001, S110  whoever is to blame fails again below
            pass
        for ticket in tickets:
            try:
                ticket.result = self._commit_alone(_work_of(ticket), ticket.synced, ticket.is_single_statement)
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
        except sqlite3.Error as error:
            self._store.recover(error)
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


def _work_of(ticket: Ticket) -> Work:
    assert ticket.work is not None  # those who only wait to lead are never put into a group
    return ticket.work
