"""Events with what became of them, for people: newest first, by state, task or sink."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice, takewhile

from attrs import field, frozen

from orchclient.core.errors import UnknownEvent
from orchclient.core.events import EventType
from orchclient.outbox import cursors, desk, folding, gaps, journal
from orchclient.outbox.cursors import SinkRow
from orchclient.outbox.journal import Entry

EXPIRED = "expired"
STATES = ("pending", "parked", "delivered", "dead", EXPIRED)


@frozen
class Fate:
    """What became of an event at one sink, with the reason at the desk or in the ledger.

    ``attempts`` are those that ended in a dead letter; ``since_us`` is when it came there (None: in the stream).
    """

    state: str
    reason: str = ""
    attempts: int = 0
    since_us: int | None = None


@frozen
class Listed:
    """An event and its fate at every sink that gets it."""

    entry: Entry
    fates: Mapping[str, Fate] = field(factory=dict)

    @property
    def state(self) -> str:
        """The most urgent of the fates; an event that no sink gets yet is pending."""
        states = {fate.state for fate in self.fates.values()}
        return next((state for state in _BY_URGENCY if state in states), "pending")


_BY_URGENCY = ("dead", "parked", "pending", EXPIRED, "delivered")


def events(
    con: sqlite3.Connection,
    *,
    limit: int,
    task: str | None = None,
    agent: str | None = None,
    states: Sequence[str] = (),
    sink: str | None = None,
    types: Sequence[str] = (),
    since_us: int | None = None,
) -> list[Listed]:
    """The newest events that fit, newest first. ``types`` as they are called on the wire, with or without ``.v1``.

    Heartbeats, which no agent recorded, only when a type or a state is named.
    """
    rows = [row for row in cursors.sinks(con) if sink in (None, row.name)]
    first_seq = 0 if since_us is None else journal.first_since(con, since_us)
    found = takewhile(lambda entry: entry.seq >= first_seq, _candidates(con, task, frozenset(states), sink, rows))
    wanted = {*types, *(f"{name}.v1" for name in types)}
    fitting = (entry for entry in found if agent in (None, entry.agent) and _is_wanted(entry, wanted, states))
    listed = (_listed(con, entry, rows) for entry in fitting)
    return list(islice((each for each in listed if not states or _is_in(each, states)), limit))


def _is_wanted(entry: Entry, types: Collection[str], states: Sequence[str]) -> bool:
    return entry.type in types if types else bool(states) or entry.type != EventType.AGENT_HEARTBEAT


def _is_in(each: Listed, states: Sequence[str]) -> bool:
    return each.state in states or any(fate.state in states for fate in each.fates.values())


def is_in_states(con: sqlite3.Connection, entry: Entry, rows: Sequence[SinkRow], states: Sequence[str]) -> bool:
    """Whether an event is in one of these states, over all these sinks or at one of them."""
    return _is_in(_listed(con, entry, rows), states)


def _candidates(
    con: sqlite3.Connection, task: str | None, states: frozenset[str], sink: str | None, rows: Sequence[SinkRow]
) -> Iterator[Entry]:
    """Events that may be in one of the states, newest first; read from where such events can be, not from everywhere.

    Of a task that is known all the journal is read until there are enough: an index would cost every record call.
    """
    if task is not None and folding.task_state(con, task) is None:
        return
    if states and states <= {"dead", "parked"}:
        for seq in desk.places(con, states, sink):
            entry = journal.read_one(con, seq)
            if entry is not None and task in (None, entry.task):
                yield entry
        return
    below = journal.MAX_SEQ
    for after_seq, up_to_seq in sorted(_ranges(states, rows), key=lambda each: -each[1]):
        yield from journal.newest(con, task, after_seq, min(up_to_seq, below))
        below = min(below, after_seq)


def _ranges(states: frozenset[str], rows: Sequence[SinkRow]) -> list[tuple[int, int]]:
    """Where events of these states can be: behind a place, up to another."""
    if not states or not rows:
        return [(0, journal.MAX_SEQ)]
    found = []
    if "pending" in states:  # behind a cursor; or too old for every sink
        found += [(min(row.cursor for row in rows), journal.MAX_SEQ), (0, min(row.start_seq for row in rows))]
    if states - {"pending"}:
        found.append((0, max(row.cursor for row in rows)))
    return found


def _listed(con: sqlite3.Connection, entry: Entry, rows: Sequence[SinkRow]) -> Listed:
    return Listed(entry, {row.name: _fate(con, entry.seq, row) for row in rows if entry.seq > row.start_seq})


def _fate(con: sqlite3.Connection, seq: int, row: SinkRow) -> Fate:
    if seq > row.cursor:
        return Fate("pending")
    at_desk = desk.fate(con, row.name, seq) if row.parked or row.dead else None
    if at_desk is not None:
        return Fate(at_desk.state, at_desk.reason, at_desk.attempts, at_desk.since_us)
    noted = gaps.at(con, row.name, seq) if row.expired else None
    if noted is not None:
        return Fate(EXPIRED, "given up", since_us=noted.since_us)
    return Fate("delivered")


def event(con: sqlite3.Connection, prefix: str) -> Listed:
    """The one event whose id begins with ``prefix``. Raises ``UnknownEvent`` for none, or for more than one."""
    found = journal.find(con, prefix.lower())
    if not found:
        raise UnknownEvent(f"no event with an id that begins with {prefix!r}; see orchclient list")
    if len(found) > 1:
        raise UnknownEvent(
            f"more than one id begins with {prefix!r}, such as {found[0].id} and {found[1].id}: give more of it"
        )
    return _listed(con, found[0], cursors.sinks(con))
