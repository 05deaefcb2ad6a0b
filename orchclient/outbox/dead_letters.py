"""Dead letters in the hands of a person: retried, or given up for good.

Both move in the transaction that takes them from where they were counted, so that recorded = delivered + pending + dead
+ expired holds at every moment.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from attrs import frozen

from orchclient.core.ranges import ranges_of
from orchclient.outbox import desk, gaps, journal, steps
from orchclient.outbox.desk import Parking
from orchclient.outbox.steps import Store


@frozen
class Chosen:
    """Dead letters by task (None: any), by place and by when they became dead; what becomes dead later is not meant."""

    task: str | None = None
    first_seq: int = 1
    last_seq: int = journal.MAX_SEQ
    dead_before_us: int = journal.MAX_SEQ
    dead_since_us: int = 0


@frozen
class Retried:
    """What a retry did for a sink: events that wait at the desk again, and dead letters whose event is gone."""

    events: int = 0
    gone: int = 0

    def __add__(self, other: Retried) -> Retried:
        return Retried(self.events + other.events, self.gone + other.gone)


def retry(store: Store, sink: str, chosen: Chosen, now_us: int) -> Retried:
    """Put dead letters back into their tasks' lanes, in steps: durable when it returns.

    A lane is served before the stream and keeps the order of the journal, and later events of the task wait for it.
    """
    total = Retried()
    for letters in _steps(store, sink, chosen):
        total += store.write(lambda con: _retried(con, sink, letters, now_us), synced=True)  # noqa: B023
    return total


def count(store: Store, sink: str, chosen: Chosen) -> Retried:
    """What a retry would do. Changes nothing."""
    total = Retried()
    for letters in _steps(store, sink, chosen):
        kept = store.query(lambda con: sum(_task_at(con, each.seq) is not None for each in letters))  # noqa: B023
        total += Retried(kept, len(letters) - kept)
    return total


def dead_letters(con: sqlite3.Connection, sink: str, chosen: Chosen, after_seq: int, at_most: int) -> list[Parking]:
    """The next chosen dead letters behind a place, as they are to be parked."""
    rows = con.execute(
        "SELECT seq, task, attempts, reason FROM work WHERE sink = :sink AND state = 'dead' AND seq > :after "
        "AND seq >= :first AND seq <= :last AND since_us < :before AND since_us >= :since AND ("
        ":task IS NULL OR task = :task) "
        "ORDER BY seq LIMIT :at_most",
        {
            "sink": sink,
            "after": after_seq,
            "first": chosen.first_seq,
            "last": chosen.last_seq,
            "before": chosen.dead_before_us,
            "since": chosen.dead_since_us,
            "task": chosen.task,
            "at_most": at_most,
        },
    )
    return [Parking(*row) for row in rows]


def _steps(store: Store, sink: str, chosen: Chosen) -> Iterable[list[Parking]]:
    after_seq = 0
    while True:
        letters = store.query(lambda con: dead_letters(con, sink, chosen, after_seq, steps.STEP))  # noqa: B023
        if not letters:
            return
        yield letters
        after_seq = letters[-1].seq


def _retried(con: sqlite3.Connection, sink: str, letters: Sequence[Parking], now_us: int) -> Retried:
    still = [letter for letter in letters if _is_dead(con, sink, letter.seq)]  # another retry may have been quicker
    kept = [letter for letter in still if _task_at(con, letter.seq) is not None]
    desk.exhume(con, sink, [letter.seq for letter in kept])
    again = [Parking(each.seq, each.task, each.attempts, f"retried, was refused: {each.reason}") for each in kept]
    desk.park(con, sink, again, now_us, 0)
    return Retried(len(kept), len(still) - len(kept))


def _is_dead(con: sqlite3.Connection, sink: str, seq: int) -> bool:
    at_desk = desk.fate(con, sink, seq)
    return at_desk is not None and at_desk.state == "dead"


def _task_at(con: sqlite3.Connection, seq: int) -> str | None:
    row = con.execute("SELECT task FROM events WHERE seq = ?", (seq,)).fetchone()
    return row[0] if row else None


def give_up(store: Store, sink: str, chosen: Chosen, now_us: int) -> int:
    """Give dead letters up for good: they count as expired, itemised in the ledger. How many; durable when it returns.

    Their events go with the delivered history.
    """
    total = 0
    for letters in _steps(store, sink, chosen):
        total += store.write(lambda con: _given_up(con, sink, letters, now_us), synced=True)  # noqa: B023
    return total


def _given_up(con: sqlite3.Connection, sink: str, letters: Sequence[Parking], now_us: int) -> int:
    seqs = [letter.seq for letter in letters if _is_dead(con, sink, letter.seq)]
    desk.exhume(con, sink, seqs)
    gaps.write_off(con, sink, ranges_of(seqs), now_us)
    return len(seqs)
