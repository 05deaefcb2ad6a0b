"""When people are reminded of what is critical and still open, and what a reminder says. Pure.

Time that passed is counted, not read off dates, so that a clock that is set back stops nothing: between two looks of
one process it is that of a clock that never jumps, or the difference of the dates when that is more (a laptop that
slept); between two processes it is the difference of the dates. A clock that jumps ahead leads to one early reminder at
most, and a sleep to one late one: each waits anew from the one before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from zlib import crc32

from attrs import evolve, frozen

from orchclient.core.envelope import TYPE_PREFIX, Lane, body_text, lane_of
from orchclient.core.events import Event, EventType
from orchclient.core.jsontext import members_text
from orchclient.core.limits import shortened
from orchclient.core.schedule import SECOND_US, Schedule

BELIEVED_US = 7 * 86_400 * SECOND_US
"""The longest time between two looks that is believed when only dates tell it."""

ESCALATED_FROM = 3
"""After two reminders that led to nothing the destinations named for escalation are told, too."""


@frozen
class Passing:
    """How much time has passed in all (microseconds), and the date of the last look that noted it."""

    passed_us: int = 0
    looked_us: int | None = None

    def looked(self, now_us: int, since_my_look_us: int | None) -> Passing:
        """After one more look; ``since_my_look_us`` is None when another process made the last one."""
        by_date_us = 0 if self.looked_us is None else min(max(now_us - self.looked_us, 0), BELIEVED_US)
        return Passing(self.passed_us + max(by_date_us, since_my_look_us or 0), now_us)


@frozen
class Waiting:
    """Something critical that is open: the event that it is about, since when, and the reminders so far.

    ``since_us`` and ``last_us`` (the last reminder, or the beginning) count as ``Passing`` does. ``said`` is what the
    event told, as far as people need it to act.
    """

    about: str
    type: str
    task: str
    agent: str
    priority: str
    since_us: int
    number: int
    last_us: int
    deadline_us: int | None
    said: str

    def is_due(self, passed_us: int, schedule: Schedule) -> bool:
        """Whether the next reminder is due."""
        wait_us = schedule.wait_us(self.number + 1)
        return wait_us is not None and passed_us - self.last_us >= wait_us

    def reminded(self, passed_us: int) -> Waiting:
        """After one more reminder."""
        return evolve(self, number=self.number + 1, last_us=passed_us)

    @property
    def is_escalated(self) -> bool:
        """Whether the last reminder is for the destinations named for escalation, too."""
        return self.number >= ESCALATED_FROM

    def reminder(self, event_id: str, now_us: int) -> Event:
        """The event that reminds of it, of the agent and task that it belongs to."""
        data = {
            "about": {"id": self.about, "type": TYPE_PREFIX + self.type, "data": json.loads(self.said)},
            "number": self.number,
            "waited_s": max(self.last_us - self.since_us, 0) // SECOND_US,
            "priority": self.priority,
            "escalated": self.is_escalated,
        }
        lane = lane_of(self.task, self.agent)
        if self.is_escalated:  # an attribute, so that a destination chooses without reading what is told
            lane = Lane(lane.attributes + ',"escalated":true', lane.task_member)
        body = body_text(event_id, EventType.REMINDER, lane, self.priority, now_us, members_text(data))
        return Event(
            event_id, self.task, self.agent, EventType.REMINDER, self.priority, now_us, crc32(body.encode()), body
        )


_NEEDED = ("questions", "context", "deadline", "default", "error_type", "error_message", "recovery_attempts", "fatal")
SAID_BYTES = 16_384
SAID_CHARS = 1_000


def said_of(data: Mapping[str, Any]) -> str:
    """What people need of a question or an error to act, as JSON text; less of it when that is long."""
    needed = {name: data[name] for name in _NEEDED if name in data}
    text = json.dumps(needed, ensure_ascii=False)
    if len(text.encode()) <= SAID_BYTES:
        return text
    brief: dict[str, Any] = {
        name: shortened(each, SAID_CHARS) for name, each in needed.items() if isinstance(each, str)
    }
    questions = needed.get("questions")
    if isinstance(questions, list):
        texts = [each.get("text") for each in questions[:10] if isinstance(each, Mapping)]
        brief["questions"] = [{"text": shortened(each, SAID_CHARS)} for each in texts if isinstance(each, str)]
    return json.dumps(brief, ensure_ascii=False)
