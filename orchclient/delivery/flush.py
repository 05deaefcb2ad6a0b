"""Waiting until what was recorded before a moment is delivered, whichever process delivers it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection

from attrs import frozen

from orchclient.core.policy import RETRY_AFTER_CAP_S
from orchclient.delivery.clock import Clock
from orchclient.delivery.election import is_held, lock_path
from orchclient.outbox import attempts, cursors, desk, journal, leadership
from orchclient.outbox.cursors import SinkRow, SinkState
from orchclient.outbox.outbox import Outbox

LOOK_EVERY_S = 0.05


@frozen
class Mark:
    """The moment a flush began: the last event then, and the last attempt."""

    last_seq: int
    last_attempt: int


@frozen
class Progress:
    """Where a flush stands: rows of all sinks, and the names of those that are still at work."""

    mark: Mark
    rows: tuple[SinkRow, ...]
    working: frozenset[str]


def begin(outbox: Outbox) -> Mark:
    """Note the moment, and ask whoever delivers to try now."""
    outbox.write(leadership.nudge)
    return outbox.query(mark)


def mark(con: sqlite3.Connection) -> Mark:
    """This moment."""
    return Mark(journal.last_seq(con), attempts.last_n(con))


def wait(
    outbox: Outbox,
    clock: Clock,
    since: Mark,
    timeout_s: float,
    *,
    own: Collection[str],
    only: Collection[str] = (),
    pause: Callable[[float], None],
    watch: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Wait until every sink delivered what is due, failed, or ``timeout_s`` is over.

    ``own`` are the sinks that this process delivers to; others count when another process does. ``pause`` waits for
    news at most the given seconds; ``watch`` sees every look.
    """
    until = clock.monotonic() + timeout_s
    while True:
        progress = look(outbox, clock, since, own, only)
        watch(progress)
        left_s = until - clock.monotonic()
        if not progress.working or left_s <= 0:
            return progress
        pause(min(left_s, LOOK_EVERY_S))


def look(outbox: Outbox, clock: Clock, since: Mark, own: Collection[str], only: Collection[str] = ()) -> Progress:
    """Where a flush stands now."""

    def ask(con: sqlite3.Connection) -> Progress:
        failed = attempts.failed_since(con, since.last_attempt)
        rows = tuple(row for row in cursors.sinks(con) if not only or row.name in only)
        last_seq = journal.last_notice(con, since.last_seq) or since.last_seq  # what a dead letter has caused, too
        due = [row for row in rows if row.name not in failed and _has_due(con, row, last_seq, clock.now_us())]
        return Progress(since, rows, frozenset(row.name for row in due))

    progress = outbox.query(ask)
    served = {name for name in progress.working if name in own or is_held(lock_path(outbox.path, name))}
    return Progress(since, progress.rows, frozenset(served))


def _has_due(con: sqlite3.Connection, row: SinkRow, last_seq: int, now_us: int) -> bool:
    if row.state is SinkState.DISABLED or (row.state is SinkState.THROTTLED and _is_ahead(row.next_try_us, now_us)):
        return False
    if row.cursor < last_seq:
        return True
    return row.parked > 0 and desk.due_lane(con, row.name, now_us) is not None


def _is_ahead(instant_us: int | None, now_us: int) -> bool:
    """Whether an instant that a receiver named is to come; one beyond any wait met a clock that was set back."""
    return instant_us is not None and now_us < instant_us <= now_us + 2 * int(RETRY_AFTER_CAP_S * 1e6)
