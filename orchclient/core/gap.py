"""Places of the journal whose events will not come: which, why, and the event that tells a receiver so.

A receiver that looks for missing sequences hears of them by ``gap.v1`` (docs/wire.md, "Gaps"); the same ranges, with
the same reasons, are what the outbox itemises as expired.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from zlib import crc32

from attrs import frozen

from orchclient.core.envelope import Lane, body_text, lane_of
from orchclient.core.events import Event, EventType
from orchclient.core.jsontext import members_text, quote


class GapReason(StrEnum):
    """Why an event will not come; the words of the wire contract."""

    DEAD = "dead"  # refused and given up
    FOLDED = "folded"  # superseded: progress, dropped for want of space; a reminder of what is not open any more
    EXPIRED = "expired"  # forgotten before this destination came, or by an operator


@frozen
class Place:
    """One event that will not come: where it stood, and whose it was."""

    seq: int
    task: str
    agent: str


@frozen
class Gap:
    """Every place from ``first_seq`` to ``last_seq``. ``task`` is None when they belonged to several tasks.

    ``source``: of the outbox's sources the one whose places they are; None for the one that the notice is sent under.
    """

    first_seq: int
    last_seq: int
    reason: GapReason
    agent: str
    task: str | None = None
    source: str | None = None

    @property
    def count(self) -> int:
        """How many places."""
        return self.last_seq - self.first_seq + 1


def gaps_of(places: Iterable[Place], reason: GapReason) -> Iterator[Gap]:
    """Places in rising order as runs without a hole. A run of several agents carries the first one's name."""
    run: list[Place] = []
    for place in places:
        if run and place.seq != run[-1].seq + 1:
            yield _gap(run, reason)
            run = []
        run.append(place)
    if run:
        yield _gap(run, reason)


def _gap(run: list[Place], reason: GapReason) -> Gap:
    tasks = {place.task for place in run}
    return Gap(run[0].seq, run[-1].seq, reason, run[0].agent, tasks.pop() if len(tasks) == 1 else None)


def gap_event(gap: Gap, event_id: str, now_us: int) -> Event:
    """The event that explains a gap: of the task when all of it belonged to one, else of the agent."""
    data = {"from": gap.first_seq, "to": gap.last_seq, "reason": gap.reason.value, "count": gap.count}
    members = members_text(data | ({} if gap.source is None else {"source": f"urn:uuid:{gap.source}"}))
    if gap.task is not None:
        lane = lane_of(gap.task, gap.agent)
    else:
        agent = quote(gap.agent)
        lane, members = Lane(f'"subject":{agent},"partitionkey":{agent},"agentid":{agent}', ""), members[1:]
    body = body_text(event_id, EventType.GAP, lane, "low", now_us, members)
    subject = gap.agent if gap.task is None else gap.task
    return Event(event_id, subject, gap.agent, EventType.GAP, "low", now_us, crc32(body.encode()), body)
