"""The one writing connection of a process, shared by its threads: whoever leads commits for all who wait.

Leader and followers, no extra thread: a lone caller pays nothing for the others, and many callers share one fsync.
Knows who commits when; how is in commits.py.

A KeyboardInterrupt can come at the beginning of any function, at a jump backwards and after the call of a function in
C (CPython's eval breaker), in a ``finally`` as well. So nothing that others depend on is left to a call: the leader is
a thread's number in an attribute, and an assignment in a ``finally`` takes it away. A call leaves the queue when it is
settled, not when somebody takes it up, so whoever leads next finishes what an interrupted leader began. The bells only
save time: who waits looks for itself now and then.

Who is woken waits for Python's interpreter lock next, so a leader that rang for all of a group would make all of them
wait twice. It rings for one, and each who leaves rings for the one behind it: docs/decisions/0025-who-wakes-whom.md.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from threading import Lock, get_ident
from typing import Any, TypeVar

from orchclient.core.errors import OutboxBusy, OutboxError
from orchclient.outbox.commits import Commits, Store, Together, Work
from orchclient.outbox.connection import failed_sync, translated
from orchclient.outbox.patience import BUSY_TOTAL_S

T = TypeVar("T")

MAX_GROUP = 100  # SQLite before 3.32 takes 999 values in one statement, and an event has 8
LOOK_AGAIN_S = 0.1
NOBODY = 0


class Ticket:
    """One caller's work in the queue. Without work: waiting to lead alone. Gives up at the monotonic time ``until``."""

    is_taken = False  # somebody is committing it, or was interrupted doing so
    is_settled = False  # result or error is there
    is_gone = False  # nobody waits for it any more
    result: Any = None
    error: BaseException | None = None
    behind: Ticket | None = None  # of the same group: whose bell is rung when this one leaves

    def __init__(self, work: Work | None, synced: bool, together: Together | None, until: float) -> None:
        self.work = work
        self.synced = synced
        self.together = together
        self.until = until
        self.bell: SimpleQueue[None] = SimpleQueue()  # rung when there is something to see

    @property
    def is_over(self) -> bool:
        """Whether it need not be in the queue any more; it may be there when somebody was interrupted."""
        return self.is_gone or self.is_settled


class Writer:
    """Group commit over the one writing connection of ``store``."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._mutex = Lock()  # held for a few statements only
        self._leader = NOBODY  # the thread that commits, or keeps others from it
        self._waiting: deque[Ticket] = deque()
        self._is_in_transaction = False  # the leader is inside ``transaction``
        self.commits = Commits(store)

    def run(self, work: Work, synced: bool, together: Together | None = None) -> Any:
        """Run ``work`` in a committed transaction and return its result; with ``together`` it is a single statement.

        Durable afterwards: always against the death of the process, against power loss when ``synced``. Raises what
        ``work`` raises, or ``OutboxError``; then nothing of this work is stored and others' work is not affected.
        ``OutboxBusy`` comes after ``BUSY_TOTAL_S`` of waiting for other threads and processes.
        """
        me = get_ident()
        if self._leader == me:
            return self._run_inside(work)
        try:
            with self._mutex:
                if not self._leader and not self._waiting:
                    self._leader = me
            if self._leader == me:  # nobody to share a commit with
                return self.commits.commit(work, synced, together is not None)
            return self._follow(me, Ticket(work, synced, together, time.monotonic() + BUSY_TOTAL_S))
        finally:
            if self._leader == me:
                self._leader = NOBODY
                if self._waiting:
                    self._ring_the_first()

    def _run_inside(self, work: Work) -> Any:
        """The calling thread leads already: inside ``transaction``, or in the middle of a commit."""
        if not self._is_in_transaction:
            raise OutboxBusy(
                f"outbox {self._store.path}: a signal handler cannot record while the thread that it interrupted "
                "records: set a flag in the handler, and record when it has returned"
            )
        return work(self._store.connection())

    # --- waiting together -----------------------------------------------------------------------------------------

    def _follow(self, me: int, ticket: Ticket) -> Any:
        """Wait until somebody committed the ticket, or lead, and commit it with those of all others."""
        try:
            self._waiting.append(ticket)
            while not ticket.is_settled:
                if self._leads_for(me, ticket):
                    self._commit_for_all()
                    self._leader = NOBODY
                    self._ring_the_first()
                elif not self._has_patience(ticket):
                    raise self._waited_in_vain()
        finally:
            ticket.is_gone = True
            if ticket.behind is not None:
                ticket.behind.bell.put(None)
        if ticket.error is not None:
            raise ticket.error
        return ticket.result

    def _leads_for(self, me: int, ticket: Ticket) -> bool:
        """Whether this thread leads from now on: it is the first in the queue, and nobody else leads."""
        if self._leader:  # who rings the first in the queue when it is done
            return False
        with self._mutex:
            if not self._leader and self._first() is ticket:
                self._leader = me
        return self._leader == me

    def _first(self) -> Ticket | None:
        """The first in the queue; those who need not be there any more are taken out. With the mutex."""
        waiting = self._waiting
        while waiting:
            if not waiting[0].is_over:
                return waiting[0]
            waiting.popleft()
        return None

    def _has_patience(self, ticket: Ticket) -> bool:
        """Wait for a ring, a while at most; False when the ticket's time is over, and nobody is at work on it."""
        left_s = ticket.until - time.monotonic()
        if left_s <= 0:
            with self._mutex:
                ticket.is_gone = not ticket.is_taken
            if ticket.is_gone:
                return False
            left_s = LOOK_AGAIN_S
        try:  # noqa: SIM105  a call less for everybody who waits
            ticket.bell.get(True, min(left_s, LOOK_AGAIN_S))
        except Empty:
            pass  # to be looked for all the same: who was to ring may have been interrupted
        return True

    def _waited_in_vain(self) -> OutboxBusy:
        return OutboxBusy(
            f"outbox {self._store.path}: another thread of this process has been at it for too long: another process "
            "does not let go (see orchclient status for who), or a transaction() takes long; nothing was stored"
        )

    def _ring_the_first(self) -> None:
        """Wake the next one who may lead."""
        with self._mutex:
            first = self._first()
        if first is not None:
            first.bell.put(None)

    # --- leading --------------------------------------------------------------------------------------------------

    def _commit_for_all(self) -> None:
        """Commit for everyone who waits right now, up to one who waits to be alone."""
        group = self._group()
        if group:
            self._commit_group(group)

    def _group(self) -> list[Ticket]:
        group: list[Ticket] = []
        with self._mutex:
            for ticket in tuple(self._waiting):
                if ticket.is_over:
                    continue
                if ticket.work is None or len(group) == MAX_GROUP:
                    break
                ticket.is_taken = True
                if group:
                    group[-1].behind = ticket
                group.append(ticket)
        return group

    def _commit_group(self, tickets: list[Ticket]) -> None:
        """All in one transaction, or even one statement; when that fails, each alone, so that only the one to blame
        gets the error.

        When others do not let go of the file, those give up whose time is over.
        """
        works: list[Any] = [ticket.work for ticket in tickets]
        synced = True in [ticket.synced for ticket in tickets]
        together, until = _together(tickets), tickets[0].until  # who has waited for longest
        try:
            if together is None:
                results = self.commits.try_commit(lambda con: [work(con) for work in works], synced, False, until)
            else:
                results = self.commits.try_commit(lambda con: together(con, works), synced, True, until)
            if self._store.is_intact():
                for ticket, result in zip(tickets, results, strict=True):
                    ticket.result, ticket.is_settled = result, True
                return
            self._store.salvage()
        except OutboxBusy as error:
            _give_up(tickets, error)
            return
        except Exception as error:  # noqa: BLE001  whoever is to blame fails again below
            self.commits.recover_from(error)
        for ticket in tickets:
            self._settle_alone(ticket)

    def _settle_alone(self, ticket: Ticket) -> None:
        try:
            ticket.result = self.commits.commit(
                _work_of(ticket), ticket.synced, ticket.together is not None, ticket.until
            )
        except Exception as error:  # noqa: BLE001  handed to the caller that waits for this ticket
            ticket.error = error
        ticket.is_settled = True

    def sync(self) -> None:
        """Make everything committed so far survive power loss. Other threads and processes commit meanwhile.

        Inside ``transaction`` nothing is done: its commit syncs. Raises ``OutboxError``.
        """
        if self.is_in_transaction:
            return
        total, wal = self.alone(lambda: (self.commits.total, self._store.another_sync()))
        try:
            wal.sync()
        except OSError as error:
            failed = failed_sync(error)
            self.alone(lambda: self._make_good(failed))
        finally:
            wal.close()
        self.commits.note_synced(total)

    def _make_good(self, error: sqlite3.Error) -> None:
        with translated(self._store.path):
            self.commits.recover_from(error)
            self._store.connection()  # writes all in doubt again, and syncs it

    def alone(self, act: Callable[[], T]) -> T:
        """Do something while no other thread commits. Raises ``OutboxBusy`` when others take too long."""
        me = get_ident()
        if self._leader == me:  # a signal handler in the middle of a commit, or a transaction: the end is not ours
            raise self._waited_in_vain()
        try:
            if not self.acquire():
                raise self._waited_in_vain()
            return act()
        finally:
            if self._leader == me:
                self._leader = NOBODY
                if self._waiting:
                    self._ring_the_first()

    def acquire(self, timeout_s: float = BUSY_TOTAL_S) -> bool:
        """Be the only one who commits in this process, until ``release``; False when the time is over before."""
        me = get_ident()
        if self._leader == me:
            return False
        ticket = Ticket(None, False, None, time.monotonic() + timeout_s)
        try:
            self._waiting.append(ticket)
            while not self._leads_for(me, ticket):
                if not self._has_patience(ticket):
                    return False
        except BaseException:
            if self._leader == me:
                self._leader = NOBODY
            raise
        finally:
            ticket.is_gone = True
        return True

    def release(self) -> None:
        """Let the next one lead."""
        self._leader = NOBODY
        if self._waiting:
            self._ring_the_first()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The connection inside an open transaction; this thread's own calls of ``run`` join it.

        Raises ``OutboxBusy`` when other threads or processes do not let go of the file.
        """
        path = self._store.path
        if self.is_in_transaction:
            raise OutboxError(f"outbox {path}: transaction() inside transaction(): use one at a time")
        if not self.acquire():
            raise self._waited_in_vain()
        try:
            with translated(path):
                self._find_our_files()  # else the caller's own statements would go to files that are gone
                con = self.commits.begin()
                try:
                    self._is_in_transaction = True
                    yield con
                    self._is_in_transaction = False
                    self.commits.commit_begun(con)
                finally:
                    self._is_in_transaction = False
                    self.commits.end(con)
                self._find_our_files()
        except OutboxError as error:
            self.commits.recover_from(error.__cause__)
            raise
        finally:
            self._leader = NOBODY
            if self._waiting:
                self._ring_the_first()

    def _find_our_files(self) -> None:
        """See whether the path still names the files that are written to; bring what they hold to where it does."""
        self._store.connection()
        if not self._store.is_intact():
            self._store.salvage()

    @property
    def is_in_transaction(self) -> bool:
        """Whether the calling thread is inside ``transaction``."""
        return self._is_in_transaction and self.is_led_by_me

    @property
    def is_led_by_me(self) -> bool:
        """Whether the calling thread keeps all others from committing."""
        return self._leader == get_ident()


def _work_of(ticket: Ticket) -> Work:
    assert ticket.work is not None  # those who only wait to lead are never put into a group
    return ticket.work


def _together(tickets: list[Ticket]) -> Together | None:
    """How all of them are done in one statement, if they can be."""
    ways = {ticket.together for ticket in tickets}
    return ways.pop() if len(ways) == 1 else None


def _give_up(tickets: list[Ticket], error: OutboxBusy) -> None:
    """Those whose time is over get an error each of their own; the others stay in the queue."""
    now = time.monotonic()
    for ticket in tickets:
        if ticket.until <= now:
            ticket.error, ticket.is_settled = type(error)(str(error)), True
        else:
            ticket.is_taken = False
