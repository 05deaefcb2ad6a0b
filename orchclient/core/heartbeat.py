"""When an agent tells that it lives, and what a heartbeat says of its outbox. Pure.

A heartbeat is for the page where people see agents: it comes when there is something to say, and only then. An agent
with nothing under way, whose outbox stands as it was told, is silent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from zlib import crc32

from attrs import frozen

from orchclient.core.envelope import Lane, body_text, lane_of
from orchclient.core.events import Event, EventType, TaskStatus
from orchclient.core.jsontext import members_text, quote

WORKING: Final = frozenset({TaskStatus.IN_PROGRESS, TaskStatus.TESTING, TaskStatus.CLARIFICATION_NEEDED})
"""States in which somebody may ask whether the agent still lives."""

LONGEST_AGE_S: Final = 3_153_600_000.0
"""A century: more was read off a clock that is wrong, and the wire contract forbids it."""


@frozen
class Standing:
    """What an outbox has still to deliver: events, dead letters, and how old the oldest pending event is (seconds)."""

    pending: int
    dead: int
    oldest_age_s: float


def worst(standings: Sequence[Standing]) -> Standing:
    """Of several receivers the most that one of them lacks: a heartbeat is one event for all of them."""
    return Standing(
        max(each.pending for each in standings),
        max(each.dead for each in standings),
        max(each.oldest_age_s for each in standings),
    )


@frozen
class Beat:
    """The last heartbeat of an outbox: its place, its instant, the counts that it told, and the how many-th it is."""

    seq: int
    recorded_us: int
    pending: int
    dead: int
    number: int = 0

    def is_recent(self, now_us: int, every_us: int) -> bool:
        """Whether another process has just given it. An instant to come met a clock that was set back."""
        return 0 <= now_us - self.recorded_us < every_us // 2


def is_working(statuses: Iterable[str]) -> bool:
    """Whether a process that left its tasks in these states has something under way."""
    return not WORKING.isdisjoint(statuses)


def says_something(last: Beat | None, standing: Standing, last_seq: int, *, works: bool) -> bool:
    """Whether a heartbeat would tell what the last one did not: somebody works or recorded, or the counts are others.

    So the last one of an agent that falls silent says what was left of its outbox, and nothing follows it.
    """
    if last is None or works or last_seq != last.seq:
        return True
    return (standing.pending, standing.dead) != (last.pending, last.dead)


def heartbeat_event(agent: str, standing: Standing, event_id: str, now_us: int) -> Event:
    """The event: of the agent and of no task."""
    outbox = {
        "pending": standing.pending,
        "dead": standing.dead,
        "oldest_age_s": round(min(max(standing.oldest_age_s, 0.0), LONGEST_AGE_S), 3),
    }
    lane = Lane(lane_of(agent, agent).attributes, f'"agent_id":{quote(agent)}')
    body = body_text(event_id, EventType.AGENT_HEARTBEAT, lane, "low", now_us, members_text({"outbox": outbox}))
    return Event(event_id, agent, agent, EventType.AGENT_HEARTBEAT, "low", now_us, crc32(body.encode()), body)
