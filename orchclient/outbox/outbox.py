"""One outbox, open in one process: record, ask, settle, keep house. Every statement is in the modules beside it.

Threads may share an outbox; processes each open their own on the same file. A fork is survived: the child opens
the file anew at its next call.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from orchclient.core.errors import OutboxBusy, OutboxError
from orchclient.core.events import Event, EventType
from orchclient.outbox import folding, forks, journal, limits, retention
from orchclient.outbox.bursts import Pace
from orchclient.outbox.compaction import Folded, Passage, fold_superseded
from orchclient.outbox.connection import is_damage, is_failed_sync
from orchclient.outbox.journal import Recording
from orchclient.outbox.limits import Fullness, Limits, fullness
from orchclient.outbox.stillness import STILLNESS, Stillness
from orchclient.outbox.store import Origin, Store
from orchclient.outbox.writer import Writer

T = TypeVar("T")

log = logging.getLogger("orchclient")

CHECKPOINT_AFTER = 1000
"""Commits after which the housekeeper checkpoints: about the 1,000 pages after which SQLite does so on its own."""

LOOK_AFTER = 50
"""Events after which a recording thread looks whether it must keep house itself."""

CHECKPOINT_MYSELF_AFTER = 4000
"""Commits after which a recording thread checkpoints although there is a housekeeper: it does not keep up."""

FAR_BEHIND = 20_000
"""Unfolded events beyond which a recording thread folds although there is a housekeeper."""

BEHIND_IN_A_BURST = 10_000
CHECKPOINT_IN_A_BURST = 3000
"""So much the housekeeper leaves for later while the agent is in a burst."""

FOLD_STEPS = 4
"""Steps of pruning, and of folding superseded progress, that one record call may take at a limit: some 10 ms each."""


class Outbox:
    """The outbox at ``origin.path``, created when it does not exist.

    Raises ``OutboxUnsafe`` when the path is not safe, ``OutboxError`` when it cannot be opened.
    """

    def __init__(self, origin: Origin, most: Limits | None = None) -> None:
        self._store = Store(origin)
        self._limits = most or Limits()
        self._folding = Passage()
        self._pace = Pace()
        self._measure_at = 0  # the next place at which to measure how full it is
        self._burden_at = 0  # the next place at which to tell the housekeeper that there is work
        self._pruned_seq = 0  # up to where pruning at a limit has come; then it begins again
        self._writer = Writer(self._store)
        self._closed = False
        self._known = journal.Known(0)
        self._moved_seq = 0  # up to where this process knows the journal to be in the database file
        self._is_held = False
        self.on_commit: Callable[[], None] | None = None  # called after each commit of an event
        self.on_burden: Callable[[], None] | None = None  # called when folding or a checkpoint would be good
        self.on_fork: Callable[[], None] | None = None  # called in a forked child
        forks.watch(self)  # before it is open, so that no fork overlooks it
        self._store.open()
        try:
            self._fullness = self._measured()
            self._known.last_seq = self._moved_seq = self.query(journal.last_seq)
            self._folded_seq = self.query(folding.folded_seq)
        except BaseException:
            self._store.close()
            raise

    @property
    def path(self) -> str:
        """The canonical path of the database file."""
        return self._store.path

    @property
    def newest_seq(self) -> int:
        """The place of the newest event that this process knows of; no question to the file."""
        return self._known.last_seq

    @property
    def generation(self) -> int:
        """Rises whenever the files are opened anew: they may be others, with other places."""
        return self._store.generation

    @property
    def has_unsynced(self) -> bool:
        """Whether the newest commit could be taken back by a power cut."""
        return self._writer.commits.unsynced

    @property
    def last_statuses(self) -> list[str]:
        """In which state this process left each of its tasks, as far as it knows."""
        return list(self._known.statuses.values())  # at once: other threads record

    def record(self, event: Event, status: str | None, synced: bool) -> int:
        """Store an event durably and return its ``seq``; ``status`` is the task's state after it, None for no change.

        Survives the death of the process at once, and power loss at once when ``synced`` or when the status differs
        from the task's last one. Raises ``OutboxError``, ``OutboxFull`` when a
        limit is reached; then the event is not stored.
        """
        if self._fullness.share >= 1.0:
            self._refuse_if_full(event.type != EventType.TASK_STATUS)
        known, writer = self._known, self._writer
        synced = synced or (status is not None and known.statuses.get(event.task) != status)
        append = journal.Append(event, status, synced, known)
        try:
            seq: int = writer.run(append, synced, journal.append_together)
        except BaseException:
            known.forget()
            raise
        if known.needs_sync:
            self.sync()
        if self.on_commit is not None:
            self.on_commit()
        if seq % LOOK_AFTER == 0:
            self._look_after_house_safely(seq)
        return seq

    def compose(self, work: Callable[[sqlite3.Connection, Recording], T], event_id: str) -> T:
        """Record an event whose text depends on what is stored, with what goes with it: one synced transaction.

        ``work`` may call ``record`` of what it is given once, with an event of this id. It is run again from its start
        when a commit failed. Raises as ``record`` does.
        """
        if self._fullness.share >= 1.0:
            self._refuse_if_full(True)
        composed = journal.Composed(work, event_id, self._known)
        try:
            result: T = self._writer.run(composed, True)
        except BaseException:
            self._known.forget()
            raise
        if self.on_commit is not None:
            self.on_commit()
        if self._known.last_seq % LOOK_AFTER == 0:
            self._look_after_house_safely(self._known.last_seq)
        return result

    def _measured(self) -> Fullness:
        return self.query(lambda con: fullness(con, self.path, self._limits))

    def _refuse_if_full(self, is_important: bool) -> None:
        """Delivered history goes first, superseded progress next; then ordinary events are refused, then everything."""
        if not self._writer.is_in_transaction:
            if self._store.wal.is_over:  # it counts, and the reader that kept it may be gone
                self._checkpoint(wait=False)
            self._make_room()
        self._fullness = self._measured()
        if self._fullness.refuses(is_important):
            raise self._fullness.error(self.path)

    def refuse_if_full(self) -> None:
        """Raise ``OutboxFull`` when a limit is reached, before more is taken in."""
        self._fullness = self._measured()
        if self._fullness.share >= 1.0:
            self._refuse_if_full(False)

    def _make_room(self) -> None:
        """A few steps of what may go at a limit, so that no caller waits long."""
        for _ in range(FOLD_STEPS):
            # From where the last call stopped: the first slices may hold nothing but dead letters, which stay.
            place = self._pruned_seq
            self._pruned_seq = self.write(lambda con: retention.prune(con, place, retention.EVERYTHING)) or 0  # noqa: B023
            self._fullness = self._measured()
            if self._fullness.share < 1.0 or not self._pruned_seq:
                break
        for _ in range(FOLD_STEPS):
            if self._fullness.share < 1.0 or not self._folding.is_worthwhile(self._known.last_seq):
                break
            self._fold(min(folding.STEP, self.query(folding.behind)))  # only what is in the tasks' fold may go
            self._folding.went_on(self.write(self._fold_superseded), self._known.last_seq)
            self._fullness = self._measured()
        self.write(retention.shrink)

    def _fold_superseded(self, con: sqlite3.Connection) -> Folded:
        now_us = self._store.new_identity()[1]
        return fold_superseded(con, self._folding.next_seq, now_us, self._store.new_event_id)

    def _look_after_house_safely(self, seq: int) -> None:
        try:
            self._look_after_house(seq)
        except OutboxError as error:  # the event is stored all the same
            log.warning("outbox housekeeping: %s", error)

    def _look_after_house(self, seq: int) -> None:
        """Tell whoever keeps house that there is work; do it in small steps when nobody does."""
        is_wal_due = self._measure_at_times(seq)
        if self._writer.is_in_transaction:
            return  # a checkpoint would wait for the gate that this thread holds
        self._store.note_past(seq)
        behind, commits = seq - self._folded_seq, self._commits_to_move
        is_alone = self.on_burden is None
        if behind > folding.BEHIND_AT_MOST or commits > CHECKPOINT_AFTER:
            self._tell_of_burden(seq)
        if behind > (folding.BEHIND_AT_MOST if is_alone else FAR_BEHIND):
            self._fold(folding.SMALL_STEP)
        if commits > (CHECKPOINT_AFTER if is_alone else CHECKPOINT_MYSELF_AFTER) or is_wal_due:
            self._checkpoint(wait=True)

    def _measure_at_times(self, seq: int) -> bool:
        """How full the outbox is: seldom while there is room. Whether the -wal is too large."""
        if self._measure_at - limits.SOME_EVENTS <= seq < self._measure_at:
            return False
        self._fullness = self._measured()
        self._measure_at = seq + limits.SOME_EVENTS if self._fullness.is_roomy else seq
        return self._store.wal.is_due

    def _tell_of_burden(self, seq: int) -> None:
        """Wake the housekeeper, but not again and again: what it leaves for later in a burst it does by itself."""
        if self.on_burden is not None and not self._burden_at - folding.BEHIND_AT_MOST <= seq < self._burden_at:
            self._burden_at = seq + folding.BEHIND_AT_MOST
            self.on_burden()

    def write(self, work: Callable[[sqlite3.Connection], T], *, synced: bool = False) -> T:
        """Run ``work`` in a committed transaction, together with what other threads write at the moment."""
        result: T = self._writer.run(work, synced)
        return result

    def query(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Ask a question of the committed state. The statement must be finished before it returns."""
        if self._closed:
            raise OutboxError(f"outbox {self.path} is closed")
        generation = self._store.generation
        try:
            return self._store.query(question)
        except OutboxError as error:
            if self._writer.is_led_by_me or (self._store.is_open and not is_damage(error.__cause__)):
                raise
            self._mend(error, generation)
            return self._store.query(question)

    def _mend(self, error: OutboxError, generation: int) -> None:
        """Take over from a file that a question found damaged, unless another thread did so; open what is closed."""

        def mend() -> None:
            if self._store.generation == generation and is_damage(error.__cause__):
                self._store.recover(error.__cause__, is_certain=True)
                self._known.forget()
            self._store.connection()

        self._writer.alone(mend)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The writing connection in an open transaction, synced when the block ends without an exception.

        Events that this thread records inside the block are part of it: they and the caller's own statements are
        durable together or not at all. Other threads wait meanwhile.
        """
        try:
            with self._writer.transaction() as con:
                yield con
        except BaseException:
            self._known.forget()
            raise
        finally:
            if self._closed:
                self._close_store()
        if self.on_commit is not None:
            self.on_commit()

    def sync(self) -> None:
        """Make everything committed so far survive power loss; other threads record meanwhile."""
        self._known.needs_sync = False
        self._writer.sync()

    def keep_house(self) -> bool:
        """What somebody must do now and then: fold the journal, keep the -wal small.

        Whether something may have been left for later, because events come in a burst.
        """
        last_seq, commits = self._known.last_seq, self._commits_to_move
        is_burst = self._pace.is_burst(last_seq, time.monotonic())
        if not is_burst or last_seq - self._folded_seq > BEHIND_IN_A_BURST:
            while self._fold(folding.STEP):
                pass
        # Events that are synced at once keep the gate busy, and each sync of a -wal that grows is dearer than a
        # checkpoint. So there it is not put off, and waits for its moment: no late sync waits for it.
        is_late = is_burst and self.has_unsynced
        if commits > (CHECKPOINT_IN_A_BURST if is_late else CHECKPOINT_AFTER) or self._store.wal.is_due:
            self._checkpoint(wait=commits > CHECKPOINT_MYSELF_AFTER or not self.has_unsynced)
        self._store.note_past()
        return is_burst

    def fold_rest(self) -> None:
        """Fold everything recorded so far, so that nothing of it is kept for the fold alone."""
        while self._fold(folding.STEP):
            pass
        self._fold(self.query(folding.behind))

    def _fold(self, step: int) -> bool:
        """Fold one step if there is a whole one; whether there is another."""
        behind = self.query(folding.behind)
        if behind < max(step, 1):
            return False
        fold = self.query(lambda con: folding.fold(con, step))
        self.write(fold.write)
        self._folded_seq = fold.to_seq
        return behind - step >= step

    @property
    def _commits_to_move(self) -> int:
        """How many commits the -wal may hold: of this process, or events of all of them.

        A -wal that many processes let grow is a slow one: until it has its size, every sync writes metadata, too.
        """
        return max(self._writer.commits.count, self._known.last_seq - self._moved_seq)

    def _checkpoint(self, *, wait: bool) -> None:
        try:
            # Else the checkpoint does, and everybody who records waits for it: most of it, and what came meanwhile.
            for _ in range(2):
                if self.has_unsynced:
                    self.sync()
            if self._store.checkpoint(wait=wait):
                self._writer.commits.count, self._moved_seq = 0, self._known.last_seq
                self._store.note_past()
            elif wait:  # it was waited for in vain: not again at once
                self._writer.commits.count -= CHECKPOINT_AFTER
                self._moved_seq += CHECKPOINT_AFTER
        except OutboxError as error:
            if is_failed_sync(error.__cause__):
                self._distrust(error)
            raise

    def _distrust(self, error: OutboxError) -> None:
        """A checkpoint could not sync: commits before it are in doubt, so the writer opens the files anew."""
        self._writer.alone(lambda: self._writer.commits.recover_from(error.__cause__))

    def prune(self, *, recorded_before_us: int = retention.EVERYTHING, up_to_seq: int = journal.MAX_SEQ) -> None:
        """Forget delivered events before an instant and up to a place, slice by slice, and give the pages back."""
        after_seq: int | None = 0
        while after_seq is not None:
            start = after_seq
            after_seq = self.write(lambda con: retention.prune(con, start, recorded_before_us, up_to_seq))  # noqa: B023
        while self.write(retention.shrink):
            pass

    def close(self) -> None:
        """Sync and close. Later calls raise ``OutboxError``. Raises it when the last commits could not be synced."""
        if self._closed:
            return
        try:
            if self.has_unsynced:
                self.sync()
        finally:
            self._closed = True
            self._close_store()

    def _close_store(self) -> None:
        with suppress(OutboxBusy):  # a thread keeps the file in transaction(): its end closes it
            self._writer.alone(self._store.close)

    def new_source(self) -> str:
        """A random source, for an outbox that must take another one."""
        return self._store.new_identity()[0]

    @property
    def stillness(self) -> Stillness:
        """What a fork waits for: ``with outbox.stillness:`` around what it must not interrupt."""
        return STILLNESS

    def hold_still(self, until: float) -> None:
        """Before a fork: wait until no thread commits, at most until the monotonic time ``until``."""
        if not self.is_still:
            self._is_held = True  # also when an interrupt comes before the next line is over
            self._is_held = self._writer.acquire(until - time.monotonic())

    @property
    def is_still(self) -> bool:
        """Whether no other thread can commit."""
        return self._writer.is_led_by_me

    def go_on(self) -> None:
        """After a fork, in the parent."""
        if self._is_held and self._writer.is_led_by_me:
            self._writer.release()
        self._is_held = False

    def start_anew(self) -> None:
        """After a fork, in the child: nothing of the parent's is used, the next call opens the file again."""
        self._store.forget_inherited()
        self._writer = Writer(self._store)
        self._known.forget()
        self._is_held = False
        self.on_commit = self.on_burden = None
        if self.on_fork is not None:
            self.on_fork()
