"""What is told about the outbox: statistics, health, and the report of a flush. Questions in, values out."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import asdict, evolve, field, frozen

from orchclient.core.events import EventType
from orchclient.core.health import overall
from orchclient.core.timestamps import rfc3339
from orchclient.delivery.election import is_held, lock_path
from orchclient.outbox import cursors, gaps, identity, journal, leadership, standing
from orchclient.outbox.asides import set_asides
from orchclient.outbox.cursors import SinkRow
from orchclient.outbox.wal import WalReport, wal_report

if TYPE_CHECKING:
    from orchclient.delivery.flush import Mark

Query = Callable[[Callable[[sqlite3.Connection], "OutboxReport"]], "OutboxReport"]

_COUNTED = {
    "updates_sent": EventType.TASK_STATUS,
    "clarifications_requested": EventType.CLARIFICATION_REQUESTED,
    "completions_reported": EventType.TASK_COMPLETED,
    "errors_escalated": EventType.ERROR_ESCALATED,
}


@frozen
class InboxReport:
    """The way back from one destination: ``polling``, ``waiting`` (backs off), ``absent`` (it has none) or ``paused``.

    ``polled_at`` is the last poll that went well; ``is_acknowledged``: whether the receiver knows all that is stored.
    """

    state: str
    reason: str
    polled_at: str | None
    is_acknowledged: bool


@frozen
class SinkReport:
    """One destination now: counts of events, age of the oldest pending one in seconds, state and last error.

    ``is_served``: whether a process, alive, delivers to it at this moment. ``holder`` is the one that was elected last:
    its ``pid``, ``host``, ``agent``, and since when (``since_us``).
    """

    name: str
    kind: str
    pending: int
    parked: int
    delivered: int
    dead: int
    expired: int
    oldest_age_s: float | None
    state: str
    reason: str
    next_try_at: str | None
    last_success_at: str | None
    last_error: str
    last_error_at: str | None
    holder: Mapping[str, Any] | None
    is_served: bool = False
    inbox: InboxReport | None = None
    held: int = 0
    """Of the pending events, those that noise rules hold back: people are told of the first one at ``turn_at``."""
    turn_at: str | None = None


@frozen
class OutboxReport:
    """The outbox now. ``recorded`` counts every event that it ever held."""

    path: str
    source: str
    recorded: int
    kept: int
    sinks: tuple[SinkReport, ...]
    wal: WalReport = field(factory=WalReport)
    open_requests: int = 0
    """Questions and reviews that wait for a person."""
    unreadable_items: int = 0
    """What came back and breaks its schema, so that it counts for nothing."""
    last_recorded_at: str | None = None
    """When the newest event was recorded, heartbeats apart; None when none is kept."""
    heartbeats: int = 0
    """Of the recorded events, those that no agent said: that it lives, and how its outbox stands."""
    set_aside: tuple[str, ...] = ()
    """Damaged files that stand beside it under names of their own, oldest first, until somebody deletes them."""


@frozen
class Delivered:
    """What a flush did for one destination, and what is left.

    Of the ``pending``, ``held`` are held back by the noise rules: people are told of them when their turn comes.
    """

    delivered: int
    pending: int
    dead: int
    state: str
    reason: str = ""
    next_try_at: str | None = None
    held: int = 0


@frozen
class FlushReport:
    """What a flush did. True when nothing that was due is left: all delivered, none dead.

    What only waits for its turn (a newer state of a message that changed just now, what quiet hours hold) is not due.
    """

    destinations: Mapping[str, Delivered]
    seconds: float
    heard: int = 0
    """Items of the inbox that came meanwhile: what people answered, decided, wrote, and that they looked."""

    @property
    def delivered(self) -> int:
        """Events delivered during the flush, all destinations together."""
        return sum(each.delivered for each in self.destinations.values())

    @property
    def pending(self) -> int:
        """Events that are still to be delivered."""
        return sum(each.pending for each in self.destinations.values())

    @property
    def held(self) -> int:
        """Of the pending events, those that noise rules hold back until their turn."""
        return sum(each.held for each in self.destinations.values())

    @property
    def due(self) -> int:
        """Of the pending events, those that should have been delivered by now."""
        return self.pending - self.held

    @property
    def dead(self) -> int:
        """Events that became dead letters during the flush."""
        return sum(each.dead for each in self.destinations.values())

    def __bool__(self) -> bool:
        return not (self.due or self.dead)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "delivered": self.delivered,
            "pending": self.pending,
            "held": self.held,
            "dead": self.dead,
            "heard": self.heard,
            "seconds": round(self.seconds, 3),
            "destinations": {name: asdict(each) for name, each in self.destinations.items()},
        }


def whole_report(query: Query, path: str, now_us: int) -> OutboxReport:
    """The outbox and each destination now, with what the kernel tells: who is served, and what the -wal holds."""
    report = query(lambda con: outbox_report(con, path, now_us))
    sinks = tuple(evolve(sink, is_served=is_held(lock_path(path, sink.name))) for sink in report.sinks)
    return evolve(report, sinks=sinks, wal=wal_report(path), set_aside=tuple(set_asides(path)))


def outbox_report(con: sqlite3.Connection, path: str, now_us: int) -> OutboxReport:
    """Everything ``orchclient status`` shows, from one consistent look; no count reads the events."""
    last = journal.last_seq(con)
    reports = tuple(_sink_report(con, row, last, now_us) for row in cursors.sinks(con))
    return OutboxReport(
        path,
        identity.identities(con).newest,
        last,
        _kept(con, last),
        reports,
        open_requests=standing.count_open(con),
        unreadable_items=standing.count_unreadable(con),
        heartbeats=standing.count_heartbeats(con),
        last_recorded_at=_text(journal.last_said_us(con)),
    )


def _kept(con: sqlite3.Connection, last_seq: int) -> int:
    first_seq = journal.first_seq(con)
    return last_seq - first_seq + 1 - gaps.count(con, gaps.JOURNAL, first_seq, last_seq) if last_seq else 0


def _sink_report(con: sqlite3.Connection, row: SinkRow, last_seq: int, now_us: int) -> SinkReport:
    holder = leadership.last_holder(con, row.name)
    held, turn_us = _held_back(con, row, now_us, last_seq)
    return SinkReport(
        name=row.name,
        kind=row.kind,
        pending=row.pending(last_seq),
        parked=row.parked,
        delivered=row.delivered,
        dead=row.dead,
        expired=row.expired,
        oldest_age_s=_oldest_age_s(con, row, last_seq, now_us),
        state=row.state.value,
        reason=row.reason,
        next_try_at=_text(row.next_try_us),
        last_success_at=_text(row.last_success_us),
        last_error=row.last_error,
        last_error_at=_text(row.last_error_us),
        holder=asdict(holder) if holder else None,
        inbox=_inbox_report(con, row.name),
        held=held,
        turn_at=_text(turn_us),
    )


def _held_back(con: sqlite3.Connection, row: SinkRow, now_us: int, up_to_seq: int) -> tuple[int, int | None]:
    """How many events noise rules hold back, and when people are told of the first."""
    if not row.parked:
        return 0, None
    from orchclient.outbox import posts  # as below: who only looks at an outbox does not wait for what is not met

    return posts.held_back(con, row.name, now_us, up_to_seq), posts.next_due_us(con, row.name)


def _inbox_report(con: sqlite3.Connection, sink: str) -> InboxReport | None:
    """How the newest identity's inbox fares, None when nothing was ever asked of it."""
    rows = standing.inboxes(con, sink)
    if not rows:
        return None
    newest = rows[-1]
    return InboxReport(
        newest.state, newest.reason, _text(newest.polled_us), all(row.cursor == row.acknowledged for row in rows)
    )


def _oldest_age_s(con: sqlite3.Connection, row: SinkRow, last_seq: int, now_us: int) -> float | None:
    recorded_us = cursors.oldest_pending_us(con, row, last_seq)
    return None if recorded_us is None else max((now_us - recorded_us) / 1e6, 0.0)


def _text(us: int | None) -> str | None:
    return None if us is None else rfc3339(us)


def communication_stats(con: sqlite3.Connection, path: str, agent: str, now_us: int) -> dict[str, Any]:
    """What ``get_communication_stats`` returns."""
    from orchclient.outbox import folding

    tallies = folding.tallies(con, agent)
    report = outbox_report(con, path, now_us)
    last_us = max((tally.last_us for tally in tallies.values()), default=None)
    recorded = sum(tally.count for tally in tallies.values())
    rows = [(row.state.value, row.failures, row.dead) for row in cursors.sinks(con)]
    counts = {name: tallies[type_].count if type_ in tallies else 0 for name, type_ in _COUNTED.items()}
    return {
        "agent_id": agent,
        **counts,
        "last_communication": _text(last_us),
        "health_status": overall(recorded, rows).value,
        "delivery": {
            sink.name: {
                "pending": sink.pending,
                "delivered": sink.delivered,
                "dead": sink.dead,
                "oldest_age_s": sink.oldest_age_s,
                "state": sink.state,
                "last_error": sink.last_error,
            }
            for sink in report.sinks
        },
    }


def flush_report(
    con: sqlite3.Connection,
    before: Mapping[str, SinkRow],
    mark: Mark,
    only: tuple[str, ...],
    seconds: float,
    now_us: int,
    heard: int,
) -> FlushReport:
    """What changed since ``before``, and what of the events up to the mark is left."""
    return FlushReport(
        {
            row.name: _delivered(con, row, before.get(row.name), mark, now_us)
            for row in cursors.sinks(con)
            if not only or row.name in only
        },
        seconds,
        heard,
    )


def _delivered(con: sqlite3.Connection, row: SinkRow, before: SinkRow | None, mark: Mark, now_us: int) -> Delivered:
    from orchclient.outbox import posts

    return Delivered(
        delivered=max(row.delivered - (before.delivered if before else 0), 0),
        pending=_left(con, row, mark),
        dead=max(_dead_since(con, row, before, mark), 0),
        state=row.state.value,
        reason=row.reason,
        next_try_at=_text(row.next_try_us),
        held=posts.held_back(con, row.name, now_us, mark.last_seq, mark.task) if row.parked else 0,
    )


def _left(con: sqlite3.Connection, row: SinkRow, mark: Mark) -> int:
    from orchclient.outbox import desk

    if mark.task is not None:
        in_stream = journal.count_of_task(con, mark.task, max(row.cursor, row.start_seq), mark.last_seq)
        return in_stream + desk.parked_of_task(con, row.name, mark.task)
    left = max(mark.last_seq - row.cursor, 0) + desk.parked_up_to(con, row.name, mark.last_seq)
    return left - (gaps.count(con, row.name, row.cursor, mark.last_seq) if row.ahead else 0)


def _dead_since(con: sqlite3.Connection, row: SinkRow, before: SinkRow | None, mark: Mark) -> int:
    from orchclient.outbox import desk

    if mark.task is not None:
        return desk.dead_of_task(con, row.name, mark.task) - mark.dead.get(row.name, 0)
    return row.dead - (before.dead if before else 0)
