"""Events that leave in a recording, and events that come in one: read in slices, taken in at their own places.

What comes in keeps its ids, its source and its places, so that a receiver knows each event again, whoever delivers it
first. What is recorded here afterwards stands behind it under another source: the outbox that was exported goes on
with its own numbers. Statements and their rules only; files and lines are the caller's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence

from attrs import frozen

from orchclient.core.envelope import event_text, opening
from orchclient.core.errors import InvalidRecording
from orchclient.core.events import Event
from orchclient.core.gap import GapReason
from orchclient.core.recording import Hole
from orchclient.outbox import cursors, gaps, identity, journal, listing, reminders

SLICE = 500
"""Events read, or taken in, in one transaction."""


@frozen
class Wanted:
    """Which events an export is about; everything by default."""

    task: str | None = None
    agent: str | None = None
    states: tuple[str, ...] = ()


Line = Hole | tuple[int, str]
"""A hole, or a place and the CloudEvent that stands there."""


def read_slice(con: sqlite3.Connection, after_seq: int, up_to_seq: int, wanted: Wanted) -> tuple[list[Line], int]:
    """The next lines behind a place, and how far they reach. A selection has no holes: it is one itself."""
    rows, known = cursors.sinks(con), identity.identities(con)
    entries = list(journal.read_range(con, after_seq, up_to_seq, SLICE))
    to_seq = entries[-1].seq if len(entries) == SLICE else up_to_seq
    lines: list[Line] = []
    for entry in entries:
        if wanted == Wanted():
            lines += _holes(con, after_seq, entry.seq)
        after_seq = entry.seq
        if wanted.task not in (None, entry.task) or wanted.agent not in (None, entry.agent):
            continue
        if wanted.states and not listing.is_in_states(con, entry, rows, wanted.states):
            continue
        if entry.is_whole:
            lines.append((entry.seq, event_text(opening(known.of(entry.seq)), entry.seq, entry.body)))
        elif wanted == Wanted():
            lines.append(Hole(entry.seq, entry.seq, "damaged"))
    if wanted == Wanted():
        lines += _holes(con, after_seq, to_seq + 1)
    return lines, to_seq


def _holes(con: sqlite3.Connection, after_seq: int, before_seq: int) -> Iterable[Hole]:
    """The places strictly between two, by what the journal's ledger says of them."""
    first_seq = after_seq + 1
    while first_seq < before_seq:
        noted = gaps.at(con, gaps.JOURNAL, first_seq)
        if noted is not None:
            last_seq, reason = noted.last_seq, noted.reason.value
        else:
            later = gaps.ranges(con, gaps.JOURNAL, first_seq, before_seq - 1)
            last_seq, reason = (later[0][0] - 1 if later else before_seq - 1), "delivered"
        last_seq = min(last_seq, before_seq - 1)
        yield Hole(first_seq, last_seq, reason)
        first_seq = last_seq + 1


# --- taking in ----------------------------------------------------------------------------------------------------


@frozen
class Arriving:
    """One event of a recording: its source (a UUID), its place, and what the journal keeps of it."""

    line: int
    source: str
    seq: int
    event: Event


@frozen
class Slice:
    """Lines of a recording that are taken in together, the last of them an event. ``first_seq``: where they begin."""

    first_seq: int
    events: Sequence[Arriving]
    holes: Sequence[Hole] = ()

    @property
    def last_seq(self) -> int:
        """The place at which they end."""
        return self.events[-1].seq


def missing_of(con: sqlite3.Connection, part: Slice) -> list[Arriving]:
    """The events of a slice that the outbox has not taken in yet.

    Raises ``InvalidRecording`` when its places belong to other events here, or do not follow what is here.
    """
    last_seq, known = journal.last_seq(con), identity.identities(con)
    for each in part.events:
        if each.seq > last_seq:
            continue
        entry = journal.read_one(con, each.seq)
        if (entry is not None and entry.id != each.event.id) or (entry is None and each.source not in known.sources):
            raise _occupied(each, known.of(each.seq))
    new = [each for each in part.events if each.seq > last_seq]
    if new and last_seq:
        if new[0].source not in known.sources:
            raise _occupied(new[0], known.newest)
        if part.first_seq > last_seq + 1:
            raise InvalidRecording(
                new[0].line,
                f"the outbox ends at place {last_seq}, the recording goes on at {part.first_seq}: export what is "
                "between, too (without --since, or from further back)",
            )
    return new


def _occupied(each: Arriving, source: str) -> InvalidRecording:
    return InvalidRecording(
        each.line,
        f"place {each.seq} of this outbox belongs to other events, of {source}. Each host's events keep their places, "
        "by which a receiver knows them again: give them an outbox of their own, such as orchclient --db "
        f"carried/{each.source[:8]}.db import FILE, and deliver that one, too",
    )


def take_in(con: sqlite3.Connection, part: Slice, new_source: Callable[[], str], now_us: int) -> int:
    """The writer's work: take a slice in; how many events are new. Run twice, it does no more.

    A crash between two slices leaves whole ones, and the rest is taken in by the same command again.
    """
    new, last_seq = missing_of(con, part), journal.last_seq(con)
    if part.last_seq <= last_seq:
        return 0
    mine = identity.identities(con).newest
    if mine in {each.source for each in part.events}:
        mine = new_source()  # whoever was exported goes on under its own
    if not last_seq and part.first_seq > 1:
        _note_hole(con, Hole(1, part.first_seq - 1, "delivered"), now_us)  # carried before, or not to be carried
    for hole in part.holes:
        if hole.last > last_seq:
            _note_hole(con, Hole(max(hole.first, last_seq + 1), hole.last, hole.reason), now_us)
    con.executemany(
        "INSERT INTO events (seq, id, task, agent, type, priority, recorded_us, crc, body) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(each.seq, *each.event) for each in new],
    )
    _note_sources(con, new, mine, part.last_seq, now_us)
    reminders.pass_over(con, part.last_seq)
    return len(new)


def _note_sources(con: sqlite3.Connection, new: Sequence[Arriving], mine: str, last_seq: int, now_us: int) -> None:
    """Each event under the source that it came with, and what follows under one that nobody else has."""
    known = identity.identities(con)
    before = known.of(new[0].seq - 1) if new[0].seq > known.firsts[0] else ""
    identity.forget_unused(con, new[0].seq)
    for each in new:
        if each.source != before:
            identity.renew(con, each.source, each.seq, now_us, identity.IMPORTED)
        before = each.source
    identity.renew(con, mine, last_seq + 1, now_us, identity.IMPORTED)


def _note_hole(con: sqlite3.Connection, hole: Hole, now_us: int) -> None:
    """No sink will get these: counted as expired. No receiver is told: the outbox that was exported may send them."""
    reason = GapReason(hole.reason) if hole.reason in set(GapReason) else GapReason.EXPIRED
    gaps.add(con, gaps.JOURNAL, hole.first, hole.last, reason, now_us)
    count = hole.last - hole.first + 1
    for row in cursors.sinks(con):
        gaps.add(con, row.name, hole.first, hole.last, reason, now_us)
        con.execute(
            "UPDATE sinks SET expired = expired + ?, ahead = ahead + ? WHERE name = ?", (count, count, row.name)
        )
