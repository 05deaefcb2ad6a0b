"""One row per sink: how far it is settled, how it fares. Reading and settling a batch cost the same at any backlog."""

from __future__ import annotations

import sqlite3
from enum import StrEnum
from typing import Any

from attrs import field, frozen

from orchclient.outbox import gaps, journal


class SinkState(StrEnum):
    """How a sink fares, the same words from here to the command line."""

    DELIVERING = "delivering"
    WAITING = "waiting"  # backs off after a failure
    THROTTLED = "throttled"  # the receiver said when to come back
    PAUSED = "paused"  # the receiver refuses us: probed seldom
    DISABLED = "disabled"  # gone until it is configured otherwise


_COLUMNS = (
    "name, kind, start_seq, cursor, parked, dead, expired, state, reason, failures, next_try_us, last_success_us, "
    "last_error, last_error_us, target, epoch, ahead"
)


@frozen
class SinkRow:
    """A sink as the outbox knows it. Everything up to ``cursor`` is delivered, parked, dead or expired."""

    name: str
    kind: str
    start_seq: int
    cursor: int
    parked: int = 0
    dead: int = 0
    expired: int = 0
    state: SinkState = field(default=SinkState.DELIVERING, converter=SinkState)
    reason: str = ""
    failures: int = 0
    next_try_us: int | None = None
    last_success_us: int | None = None
    last_error: str = ""
    last_error_us: int | None = None
    target: str = ""
    epoch: int = 0
    ahead: int = 0  # of the expired events, those that the cursor has not passed yet

    @property
    def delivered(self) -> int:
        """Events that the receiver has. Derived: every event is delivered, pending, dead or expired."""
        return self.cursor - self.start_seq - self.parked - self.dead - (self.expired - self.ahead)

    def pending(self, last_seq: int) -> int:
        """Events that the receiver will get: behind the cursor, or parked."""
        return last_seq - self.cursor + self.parked - self.ahead


def sink(con: sqlite3.Connection, name: str) -> SinkRow | None:
    """The row of a sink."""
    row = con.execute(f"SELECT {_COLUMNS} FROM sinks WHERE name = ?", (name,)).fetchone()
    return SinkRow(*row) if row else None


def sinks(con: sqlite3.Connection) -> list[SinkRow]:
    """All sinks that this outbox ever served, by name."""
    return [SinkRow(*row) for row in con.execute(f"SELECT {_COLUMNS} FROM sinks ORDER BY name")]


def oldest_pending_us(con: sqlite3.Connection, row: SinkRow, last_seq: int) -> int | None:
    """When the oldest event was recorded that a sink has still to get; None without one."""
    if not row.pending(last_seq):
        return None
    if not row.parked:
        return journal.recorded_us(con, row.cursor + 1)
    from orchclient.outbox import desk  # who only looks at an outbox does not wait for what is not met

    parked = desk.oldest_parked(con, row.name)
    return journal.recorded_us(con, min(parked or row.cursor + 1, row.cursor + 1))


def add_sink(
    con: sqlite3.Connection,
    name: str,
    kind: str,
    target: str,
    now_us: int,
    *,
    from_beginning: bool,
    first_seq: int | None = None,
) -> None:
    """Give a sink its cursor, at the beginning of the journal or at its end; a known sink keeps its place.

    "Its end" is before the event ``first_seq`` when that is given: the one that a process has just recorded.
    ``target`` tells one configuration from another: when it changes, a sink that was disabled is tried again.
    """
    last_seq = journal.last_seq(con)
    start = max(journal.first_seq(con) - 1, 0) if from_beginning else min((first_seq or last_seq + 1) - 1, last_seq)
    is_new = con.execute("SELECT 1 FROM sinks WHERE name = ?", (name,)).fetchone() is None
    con.execute(
        "INSERT INTO sinks (name, kind, start_seq, cursor, target, created_us, from_beginning) "
        "VALUES (?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET target = excluded.target, state = 'delivering', reason = '', "
        "failures = 0, next_try_us = NULL WHERE target <> excluded.target",
        (name, kind, start, start, target, now_us, from_beginning),
    )
    lost = gaps.take_over(con, name, start) if is_new else 0
    if lost:
        con.execute("UPDATE sinks SET expired = ?, ahead = ? WHERE name = ?", (lost, lost, name))


_PER_SINK = ("work", "lanes", "gaps", "posts", "inbox_cursors")


def forget_sink(con: sqlite3.Connection, name: str) -> None:
    """Take a sink out of the outbox, with all that was kept for it: nothing waits for it any more."""
    for table, column in (("sinks", "name"), *((table, "sink") for table in _PER_SINK)):
        con.execute(f"DELETE FROM {table} WHERE {column} = ?", (name,))


def advance(
    con: sqlite3.Connection, name: str, epoch: int, from_seq: int, to_seq: int, expired: int = 0, passed: int = 0
) -> bool:
    """Move a cursor if it still stands where the batch was read and the flusher's epoch still holds.

    Of the places passed, ``expired`` hold no event any more although nobody counted them yet, and ``passed`` were
    counted as expired before. False means that another flusher took over in between: the result of this attempt is
    stale and must be dropped.
    """
    moved = con.execute(
        "UPDATE sinks SET cursor = ?, expired = expired + ?, ahead = ahead - ? "
        "WHERE name = ? AND cursor = ? AND epoch = ?",
        (to_seq, expired, passed, name, from_seq, epoch),
    ).rowcount
    return moved == 1


def note(con: sqlite3.Connection, name: str, epoch: int, **columns: Any) -> bool:
    """Write how a sink fares, so that every process can tell; False when the epoch is over."""
    assignments = ", ".join(f"{column} = :{column}" for column in columns)
    noted = con.execute(
        f"UPDATE sinks SET {assignments} WHERE name = :name AND epoch = :epoch",
        columns | {"name": name, "epoch": epoch},
    ).rowcount
    return noted == 1
