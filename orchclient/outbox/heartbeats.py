"""The heartbeat of an outbox: whether one is due, how the outbox stands, and recording it. One is pending at most.

The last one is noted in ``meta``, in the transaction that records it, so that several processes give one of each, and
no scan of the journal is needed to find it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable

from attrs import astuple, frozen

from orchclient.core.envelope import TYPE_PREFIX
from orchclient.core.events import EventType
from orchclient.core.heartbeat import Beat, Standing, heartbeat_event, says_something, worst
from orchclient.outbox import cursors, desk, journal
from orchclient.outbox.bulk import Row
from orchclient.outbox.cursors import SinkRow, SinkState
from orchclient.outbox.standing import count_heartbeats


@frozen
class Occasion:
    """Who would give a heartbeat, for which destinations, how often, and whether something is under way there."""

    agent: str
    sinks: Collection[str]
    every_us: int
    works: bool


def last(con: sqlite3.Connection) -> Beat | None:
    """The last heartbeat; None when there was none in these files."""
    row = con.execute("SELECT value FROM meta WHERE key = 'heartbeat'").fetchone()
    return Beat(*json.loads(row[0])) if row else None


def due(con: sqlite3.Connection, occasion: Occasion, now_us: int) -> Standing | None:
    """What a heartbeat would say now; None when none is due. A question.

    It is due while delivery to all of its destinations succeeds, when they have the last one, and it says something.
    """
    rows = [row for row in cursors.sinks(con) if row.name in occasion.sinks]
    if len(rows) < len(occasion.sinks) or not all(map(_succeeds, rows)):
        return None
    before, last_seq = last(con), journal.last_seq(con)
    if before is not None and (
        before.is_recent(now_us, occasion.every_us) or not all(_has(con, row, before.seq) for row in rows)
    ):
        return None
    standing = worst([_standing(con, row, last_seq, now_us) for row in rows])
    return standing if says_something(before, standing, last_seq, works=occasion.works) else None


def _succeeds(row: SinkRow) -> bool:
    return row.state is SinkState.DELIVERING and row.last_success_us is not None


def _has(con: sqlite3.Connection, row: SinkRow, seq: int) -> bool:
    """Whether a destination has the event: it neither waits nor was refused. Who refused one is given no other."""
    return seq <= row.cursor and desk.fate(con, row.name, seq) is None


def _standing(con: sqlite3.Connection, row: SinkRow, last_seq: int, now_us: int) -> Standing:
    oldest_us = cursors.oldest_pending_us(con, row, last_seq)
    age_s = 0.0 if oldest_us is None else max((now_us - oldest_us) / 1e6, 0.0)
    return Standing(row.pending(last_seq), row.dead, age_s)


def record(con: sqlite3.Connection, occasion: Occasion, event_id: str, now_us: int) -> bool:
    """Record a heartbeat if one is due still; whether it was. The writer's work; run twice, it records one."""
    standing = due(con, occasion, now_us)
    if standing is None:
        return False
    journal.append(con, heartbeat_event(occasion.agent, standing, event_id, now_us))
    beat = Beat(journal.last_seq(con), now_us, standing.pending, standing.dead, count_heartbeats(con) + 1)
    con.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('heartbeat', ?)", (json.dumps(astuple(beat)),))
    return True


_MARK = f'","type":"{TYPE_PREFIX}{EventType.AGENT_HEARTBEAT}"'.encode()
_MARK_AT = 42  # behind the id


def among(rows: Iterable[Row]) -> set[int]:
    """The places of heartbeats among events to be sent."""
    return {seq for seq, _, _, body in rows if body.startswith(_MARK, _MARK_AT)}
