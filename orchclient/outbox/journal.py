"""The journal: append one event, read the next ones, find one by id. Statements only; transactions are the writer's."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any
from zlib import crc32

from attrs import frozen

from orchclient.core.events import Event, EventType
from orchclient.outbox.connection import is_busy

_VALUES = "(?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT = f"INSERT INTO events (id, task, agent, type, priority, recorded_us, crc, body) VALUES {_VALUES}"
_COLUMNS = "seq, id, task, agent, type, priority, recorded_us, crc, body"


@frozen
class Entry:
    """One event as the journal holds it."""

    seq: int
    id: str
    task: str
    agent: str
    type: str
    priority: str
    recorded_us: int
    crc: int
    body: str

    @property
    def is_whole(self) -> bool:
        """Whether the text is what was recorded: bits that flip on a disk are not noticed by SQLite."""
        return crc32(self.body.encode()) == self.crc


class Known:
    """What this process knows of the journal's end and of each task's last status; changed under the writer's lock.

    It decides only what must be synced: a status that is not known to be the task's last one counts as a change.
    """

    __slots__ = ("foreign_from", "last_seq", "needs_sync", "statuses")

    def __init__(self, last_seq: int) -> None:
        self.last_seq = last_seq
        self.statuses: dict[str, str] = {}
        self.needs_sync = False
        self.foreign_from = 0  # from which place on others recorded what nobody has looked at yet; 0 for nothing

    def forget(self) -> None:
        """Believe nothing: a commit failed, or the files were changed."""
        self.statuses.clear()
        self.foreign_from = 0

    def meet_foreign_events(self, seq: int) -> None:
        """Another process recorded between the last event and the one at ``seq``."""
        if seq <= self.last_seq:  # another file
            self.forget()
        else:
            self.foreign_from = self.foreign_from or self.last_seq + 1

    def learn(self, con: sqlite3.Connection, before_seq: int) -> None:
        """What is believed of tasks may be wrong where others told of them: look, before it decides anything."""
        if before_seq - self.foreign_from > FOREIGN_AT_MOST or len(self.statuses) > KNOWN_TASKS:
            self.statuses.clear()
        for task in tasks_between(con, self.foreign_from - 1, before_seq) if self.statuses else ():
            self.statuses.pop(task, None)
        self.foreign_from = 0


KNOWN_TASKS = 10_000
FOREIGN_AT_MOST = 1000
"""Other processes' events beyond which everything is forgotten: a record call reads no more than so many."""


class Append:
    """The writer's work for one event. Run twice, it stores the event once."""

    __slots__ = ("_status", "event", "has_run", "known", "synced")

    def __init__(self, event: Event, status: str | None, synced: bool, known: Known) -> None:
        self.event = event
        self._status = status
        self.synced = synced
        self.known = known
        self.has_run = False  # it may be stored, though the commit failed

    def __call__(self, con: sqlite3.Connection) -> int:
        """Store the event and return its ``seq``."""
        if self.has_run and (stored := self.stored(con)):
            return stored
        self.has_run = True
        try:
            # A plain tuple: sqlite3 takes any other sequence apart item by item, 0.4 us.
            seq: int = con.execute(_INSERT, tuple(self.event)).lastrowid  # type: ignore[assignment]
        except sqlite3.OperationalError as error:
            self.has_run = not is_busy(error)
            raise
        known = self.known
        if seq != known.last_seq + 1:
            known.meet_foreign_events(seq)
        if known.foreign_from and not self.synced:
            known.learn(con, seq)
        self.is_stored(seq)
        return seq

    def stored(self, con: sqlite3.Connection) -> int | None:
        """Where the event is, if an earlier run stored it."""
        seq = _seq_of(con, self.event.id)
        if seq:
            self.known.needs_sync |= self.synced  # the commit that stored it may have failed at its sync
        return seq

    def is_stored(self, seq: int) -> None:
        """Note that the event is stored: what is the journal's end, and the last status of its task."""
        known, status = self.known, self._status
        known.last_seq = seq
        if status is not None and known.statuses.get(self.event.task) != status:
            known.statuses[self.event.task] = status
            known.needs_sync |= not self.synced


def append_together(con: sqlite3.Connection, appends: list[Append]) -> list[int]:
    """The works of events that were recorded at the same time, as one statement; the ``seq`` of each."""
    if any(each.has_run for each in appends):
        return [each(con) for each in appends]
    for each in appends:
        each.has_run = True
    values = tuple(chain.from_iterable(each.event for each in appends))
    try:
        last_seq: int = con.execute(_insert(len(appends)), values).lastrowid  # type: ignore[assignment]
    except sqlite3.OperationalError as error:
        for each in appends:
            each.has_run = not is_busy(error)
        raise
    seqs = list(range(last_seq - len(appends) + 1, last_seq + 1))
    known = appends[0].known
    if seqs[0] != known.last_seq + 1:
        known.meet_foreign_events(seqs[0])
    if known.foreign_from and not all(each.synced for each in appends):
        known.learn(con, seqs[0])
    for each, seq in zip(appends, seqs, strict=True):
        each.is_stored(seq)
    return seqs


@cache
def _insert(count: int) -> str:
    return _INSERT + f", {_VALUES}" * (count - 1)


Recording = Callable[[Event, str | None], int]
"""Stores an event that leaves its task in a status (None: as it was); returns its ``seq``."""


class Composed:
    """The writer's work for an event that is made in its transaction. Run twice, it stores the event once."""

    def __init__(self, work: Callable[[sqlite3.Connection, Recording], Any], event_id: str, known: Known) -> None:
        self._work = work
        self._event_id = event_id
        self.known = known
        self._result: tuple[Any] | None = None

    def __call__(self, con: sqlite3.Connection) -> Any:
        """What the work returns, of the run that is stored."""
        if self._result is not None and _seq_of(con, self._event_id):
            return self._result[0]
        result = self._work(con, lambda event, status: Append(event, status, True, self.known)(con))
        self._result = (result,)
        return result


def append(con: sqlite3.Connection, event: Event) -> None:
    """Store an event of our own, such as a notice, in a transaction that does more than that."""
    con.execute(_INSERT, event)


RECENT = 10_000


def _seq_of(con: sqlite3.Connection, event_id: str) -> int | None:
    """Where an event that was just tried is, if it was stored: among the newest, or nowhere."""
    row = con.execute("SELECT seq FROM events WHERE seq > ? AND id = ?", (last_seq(con) - RECENT, event_id)).fetchone()
    return row[0] if row else None


def last_seq(con: sqlite3.Connection) -> int:
    """The ``seq`` of the newest event, 0 when there was none. The newest row is never pruned."""
    row = con.execute("SELECT seq FROM events ORDER BY seq DESC LIMIT 1").fetchone()
    return row[0] if row else 0


def first_seq(con: sqlite3.Connection) -> int:
    """The ``seq`` of the oldest event still kept, 0 when there is none."""
    row = con.execute("SELECT seq FROM events ORDER BY seq LIMIT 1").fetchone()
    return row[0] if row else 0


def recorded_us(con: sqlite3.Connection, seq: int) -> int | None:
    """When the first event from ``seq`` on was recorded; None when there is none."""
    row = con.execute("SELECT recorded_us FROM events WHERE seq >= ? ORDER BY seq LIMIT 1", (seq,)).fetchone()
    return row[0] if row else None


def last_said_us(con: sqlite3.Connection) -> int | None:
    """When something was recorded last that is no heartbeat, as far as it is among the newest; None for nothing."""
    row = con.execute(
        "SELECT recorded_us FROM (SELECT recorded_us, type FROM events ORDER BY seq DESC LIMIT 1000) "
        "WHERE type <> ? LIMIT 1",
        (EventType.AGENT_HEARTBEAT,),
    ).fetchone()
    return row[0] if row else None


def last_notice(con: sqlite3.Connection, after_seq: int) -> int | None:
    """The last notice of a gap among the next events behind a place."""
    row = con.execute(
        "SELECT max(seq) FROM (SELECT seq, type FROM events WHERE seq > ? ORDER BY seq LIMIT 1000) WHERE type = ?",
        (after_seq, EventType.GAP),
    ).fetchone()
    return row[0] if row else None


def tasks_between(con: sqlite3.Connection, after_seq: int, before_seq: int) -> set[str]:
    """The tasks with events strictly between two places."""
    rows = con.execute("SELECT DISTINCT task FROM events WHERE seq > ? AND seq < ?", (after_seq, before_seq))
    return {task for (task,) in rows}


NO_LIMIT = -1  # SQLite's word for it


def read_range(con: sqlite3.Connection, after_seq: int, up_to_seq: int, at_most: int = NO_LIMIT) -> Iterator[Entry]:
    """Every event with ``after_seq < seq <= up_to_seq``, in order."""
    rows = con.execute(
        f"SELECT {_COLUMNS} FROM events WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
        (after_seq, up_to_seq, at_most),
    )
    return (Entry(*row) for row in rows)


def of_types(con: sqlite3.Connection, types: Sequence[str], after_seq: int, up_to_seq: int) -> Iterator[Entry]:
    """The events of some types with ``after_seq < seq <= up_to_seq``, in order."""
    rows = con.execute(
        f"SELECT {_COLUMNS} FROM events WHERE seq > ? AND seq <= ? AND type IN ({', '.join('?' * len(types))}) "
        "ORDER BY seq",
        (after_seq, up_to_seq, *types),
    )
    return (Entry(*row) for row in rows)


def of_task(con: sqlite3.Connection, task: str, after_seq: int) -> Iterator[Entry]:
    """Every event of a task behind a place, in order."""
    rows = con.execute(f"SELECT {_COLUMNS} FROM events WHERE seq > ? AND task = ? ORDER BY seq", (after_seq, task))
    return (Entry(*row) for row in rows)


def last_of_task(con: sqlite3.Connection, task: str) -> int:
    """The ``seq`` of a task's newest event, 0 without any; found from the end, so a task of today is found at once."""
    row = con.execute("SELECT seq FROM events WHERE task = ? ORDER BY seq DESC LIMIT 1", (task,)).fetchone()
    return row[0] if row else 0


def count_between(con: sqlite3.Connection, after_seq: int, up_to_seq: int) -> int:
    """How many events there are with ``after_seq < seq <= up_to_seq``. Steps over them all."""
    query = "SELECT count(*) FROM events WHERE seq > ? AND seq <= ?"
    count: int = con.execute(query, (after_seq, up_to_seq)).fetchone()[0]
    return count


def count_of_task(con: sqlite3.Connection, task: str, after_seq: int, up_to_seq: int) -> int:
    """How many events of a task there are with ``after_seq < seq <= up_to_seq``. Reads them all."""
    count: int = con.execute(
        "SELECT count(*) FROM events WHERE seq > ? AND seq <= ? AND task = ?", (after_seq, up_to_seq, task)
    ).fetchone()[0]
    return count


def read_one(con: sqlite3.Connection, seq: int) -> Entry | None:
    """The event at ``seq``, None when it is pruned or not recorded yet."""
    row = con.execute(f"SELECT {_COLUMNS} FROM events WHERE seq = ?", (seq,)).fetchone()
    return Entry(*row) if row else None


def at(con: sqlite3.Connection, seqs: Iterable[int]) -> dict[int, Entry]:
    """The events at these places, without those that are gone."""
    found = (read_one(con, seq) for seq in seqs)
    return {entry.seq: entry for entry in found if entry is not None}


def newest(con: sqlite3.Connection, task: str | None, after_seq: int, up_to_seq: int) -> Iterator[Entry]:
    """Events with ``after_seq < seq <= up_to_seq``, newest first, of one task or of all."""
    rows = con.execute(
        f"SELECT {_COLUMNS} FROM events WHERE seq > :after AND seq <= :up_to AND (:task IS NULL OR task = :task) "
        "ORDER BY seq DESC",
        {"after": after_seq, "up_to": up_to_seq, "task": task},
    )
    return (Entry(*row) for row in rows)


def find(con: sqlite3.Connection, prefix: str, at_most: int = 2) -> list[Entry]:
    """Events whose id begins with ``prefix`` (hexadecimal digits and dashes), at most ``at_most`` of them.

    There is no index on the id: it would write one more page for every event. An id begins with its milliseconds, so
    the place is found by bisecting the journal's times; where a clock that jumped broke their order, by reading all.
    """
    if not prefix or prefix.strip("0123456789abcdef-"):
        return []
    low_us, high_us = _time_window(prefix.replace("-", "")[:12])
    window = _first_at(con, low_us), _first_at(con, high_us)
    return _with_prefix(con, prefix, window, at_most) or _with_prefix(con, prefix, (0, MAX_SEQ), at_most)


MAX_SEQ = 2**63 - 1


def _time_window(digits: str) -> tuple[int, int]:
    """The microseconds between which ids that begin with these hexadecimal digits were made."""
    return int(digits.ljust(12, "0"), 16) * 1000, (int(digits.ljust(12, "f"), 16) + 1) * 1000


def first_since(con: sqlite3.Connection, us: int) -> int:
    """The first ``seq`` recorded at or after an instant; the next one to come when there is none.

    Reads from the beginning, for a person who asks: a clock that jumped breaks the order that bisecting needs.
    """
    row = con.execute("SELECT seq FROM events WHERE recorded_us >= ? ORDER BY seq LIMIT 1", (us,)).fetchone()
    return row[0] if row else last_seq(con) + 1


def _first_at(con: sqlite3.Connection, us: int) -> int:
    """The first ``seq`` recorded at or after an instant, as far as the times rise with the sequence."""
    low, high = first_seq(con), last_seq(con) + 1
    while low < high:
        middle = (low + high) // 2
        at = recorded_us(con, middle)
        if at is not None and at < us:
            low = middle + 1
        else:
            high = middle
    return low


def _with_prefix(con: sqlite3.Connection, prefix: str, window: tuple[int, int], at_most: int) -> list[Entry]:
    rows = con.execute(
        f"SELECT {_COLUMNS} FROM events WHERE seq >= ? AND seq < ? AND id GLOB ? ORDER BY seq LIMIT ?",
        (*window, prefix + "*", at_most),
    )
    return [Entry(*row) for row in rows]
