"""Waiting until what was recorded before a moment is delivered, whichever process delivers it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Mapping

from attrs import evolve, field, frozen

from orchclient.core.policy import RETRY_AFTER_CAP_S
from orchclient.delivery.clock import Clock
from orchclient.delivery.election import is_held, lock_path
from orchclient.delivery.interruption import is_cut
from orchclient.outbox import attempts, cursors, desk, journal, leadership, posts
from orchclient.outbox.cursors import SinkRow, SinkState
from orchclient.outbox.outbox import Outbox

LOOK_EVERY_S = 0.05


@frozen
class Mark:
    """The moment a flush began: the last event then, and the last attempt.

    A failed attempt that began before ``began_us`` says nothing. With a ``task``, its last event counts, and ``dead``
    are its dead letters then, by sink.
    """

    last_seq: int
    last_attempt: int
    task: str | None = None
    dead: Mapping[str, int] = field(factory=dict)
    began_us: int = 0


@frozen
class Progress:
    """Where a flush stands: rows of all sinks, and the names of those that are still at work.

    ``is_cut``: whoever watched had enough.
    """

    mark: Mark
    rows: tuple[SinkRow, ...]
    working: frozenset[str]
    is_cut: bool = False


class Enough(Exception):
    """Raised by who watches a flush, to end the waiting at once."""


def begin(outbox: Outbox, clock: Clock, task: str | None = None) -> Mark:
    """Note the moment, and ask whoever delivers, this process included, to try now what waits for its back-off.

    An attempt that is under way already is not the one that was asked for: what it met may be over by now.
    """
    began_us = clock.now_us()
    outbox.write(_hurry)
    return evolve(outbox.query(lambda con: mark(con, task)), began_us=began_us)


def _hurry(con: sqlite3.Connection) -> None:
    leadership.nudge(con)
    for row in cursors.sinks(con):
        if row.parked and row.state not in (SinkState.THROTTLED, SinkState.DISABLED):
            desk.hurry(con, row.name)


def mark(con: sqlite3.Connection, task: str | None = None) -> Mark:
    """This moment, of all events or of those of one task."""
    if task is None:
        return Mark(journal.last_seq(con), attempts.last_n(con))
    dead = {row.name: desk.dead_of_task(con, row.name, task) for row in cursors.sinks(con)}
    return Mark(journal.last_of_task(con, task), attempts.last_n(con), task, dead)


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
        try:
            watch(progress)
        except Enough:
            return evolve(progress, is_cut=True)
        if is_cut():
            return evolve(progress, is_cut=True)
        left_s = until - clock.monotonic()
        if not progress.working or left_s <= 0:
            return progress
        pause(min(left_s, LOOK_EVERY_S))


def look(outbox: Outbox, clock: Clock, since: Mark, own: Collection[str], only: Collection[str] = ()) -> Progress:
    """Where a flush stands now."""

    def ask(con: sqlite3.Connection) -> Progress:
        failed = attempts.failed_since(con, since.last_attempt, since.began_us)
        rows = tuple(row for row in cursors.sinks(con) if not only or row.name in only)
        until = since
        if since.task is None:  # what a dead letter has caused, too
            until = evolve(since, last_seq=journal.last_notice(con, since.last_seq) or since.last_seq)
        due = [row for row in rows if row.name not in failed and _has_due(con, row, until, clock.now_us())]
        return Progress(since, rows, frozenset(row.name for row in due))

    progress = outbox.query(ask)
    served = {name for name in progress.working if name in own or is_held(lock_path(outbox.path, name))}
    return evolve(progress, working=frozenset(served))


def _has_due(con: sqlite3.Connection, row: SinkRow, until: Mark, now_us: int) -> bool:
    if row.state is SinkState.DISABLED or (row.state is SinkState.THROTTLED and _is_ahead(row.next_try_us, now_us)):
        return False
    if row.cursor < until.last_seq:
        return True
    if until.task is not None:
        return row.parked > 0 and (desk.is_due(con, row.name, until.task, now_us) or _has_message(con, row, now_us))
    return row.parked > 0 and (desk.due_lane(con, row.name, now_us) is not None or _has_message(con, row, now_us))


def _has_message(con: sqlite3.Connection, row: SinkRow, now_us: int) -> bool:
    due_us = posts.next_due_us(con, row.name)
    return due_us is not None and due_us <= now_us


def _is_ahead(instant_us: int | None, now_us: int) -> bool:
    """Whether an instant that a receiver named is to come; one beyond any wait met a clock that was set back."""
    return instant_us is not None and now_us < instant_us <= now_us + 2 * int(RETRY_AFTER_CAP_S * 1e6)
