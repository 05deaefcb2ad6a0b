"""The noise rules: which events share one message, when it may be told, what quiet hours hold. Pure, one table.

A topic is one message: the newest of its events is told, with the count of those that it stands for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, timedelta, tzinfo
from typing import Any, Final

from attrs import frozen

from orchclient.core.events import EventType, NotificationPriority
from orchclient.core.message import PREFIX, PRIORITIES
from orchclient.core.timestamps import instant, microseconds

SECOND_US: Final = 1_000_000
DAY: Final = timedelta(days=1)


@frozen
class Quiet:
    """Minutes of the day, in a zone, between which only urgent messages are told. It may cross midnight."""

    from_minute: int
    to_minute: int
    zone: tzinfo = UTC

    def ends_us(self, now_us: int) -> int | None:
        """When the quiet ends that there is now; None when there is none."""
        now = instant(now_us).astimezone(self.zone)
        minute = now.hour * 60 + now.minute
        if self.from_minute <= self.to_minute:
            is_quiet = self.from_minute <= minute < self.to_minute
        else:
            is_quiet = minute >= self.from_minute or minute < self.to_minute
        if not is_quiet:
            return None
        end = now.replace(hour=self.to_minute // 60, minute=self.to_minute % 60, second=0, microsecond=0)
        return microseconds(end if end > now else end + DAY)


@frozen
class NoiseRules:
    """What a user can set. ``speaks_every_s``: None for what suits the service (an edit in 15 s, a post in 5 min).

    ``least``: below this priority nothing is told. ``quiet`` holds what is below ``wakes``. A post that may have
    arrived is repeated from priority ``repeats`` on.
    """

    speaks_every_s: float | None = None
    least: NotificationPriority = NotificationPriority.LOW
    quiet: Quiet | None = None
    wakes: NotificationPriority = NotificationPriority.HIGH
    repeats: NotificationPriority = NotificationPriority.CRITICAL

    def is_told(self, urgency: int) -> bool:
        """Whether events of this urgency are told at all."""
        return urgency >= PRIORITIES.index(self.least)

    def is_repeated(self, urgency: int) -> bool:
        """Whether a post is repeated of which nobody knows whether it arrived."""
        return urgency >= PRIORITIES.index(self.repeats)

    def held_until_us(self, urgency: int, now_us: int) -> int | None:
        """Until when a message is held back because it is quiet; None for not at all."""
        if self.quiet is None or urgency >= PRIORITIES.index(self.wakes):
            return None
        return self.quiet.ends_us(now_us)


@frozen
class Topic:
    """Where an event is told. ``is_spaced``: not more often than the rules say; else at once."""

    key: str
    urgency: int  # 0 low to 3 critical
    is_spaced: bool = False
    ends_progress: bool = False  # the task's own message is to tell this too
    ends: bool = False  # it is over: told to whoever was told that it began, and to nobody else
    began: str = ""  # the topic of what a reminder reminds of, or of what ends when it has no key in common with that


Data = Mapping[str, Any]
_Placing = Callable[[str, str, Data], Topic | None]


def topic_of(event: Mapping[str, Any]) -> Topic | None:
    """The topic of a CloudEvent; None for what nobody is told."""
    data, id_ = event.get("data"), event.get("id")
    placing = _TOPICS.get(str(event.get("type")).removeprefix(PREFIX))
    if placing is None or not isinstance(data, Mapping) or not isinstance(id_, str):
        return None
    return placing(id_, str(event.get("subject")), {"priority": event.get("priority"), **data})


def task_topic(task: str) -> str:
    """The topic of a task's progress."""
    return f"task:{task}"


def thread_topic(task: str) -> str:
    """Under which the message is kept below which all others of a task stand, where a chat has threads."""
    return f"thread:{task}"


def step_topic(task: str) -> str:
    """The topic of the milestones of a task, each a message of its own in the task's thread."""
    return STEP + task


def status_topic(task: str, status: str) -> str:
    """Under which it is kept that a status of a task was told: each is one milestone."""
    return f"status:{status}:{task}"


STEP: Final = "step:"
THREADLESS: Final = "gap"
"""The only topic that belongs to no task."""


def _status(id_: str, task: str, data: Data) -> Topic:
    return Topic(task_topic(task), _urgency(data), is_spaced=True)


def _question(id_: str, task: str, data: Data) -> Topic:
    return Topic(f"ask:{id_}", _urgency(data))


def _question_over(id_: str, task: str, data: Data) -> Topic:
    return Topic(f"ask:{data.get('clarification_id')}", 0, ends=True)


def _completion(id_: str, task: str, data: Data) -> Topic:
    return Topic(f"done:{id_}", _urgency(data), ends_progress=True)


def _error(id_: str, task: str, data: Data) -> Topic:
    key, urgency = data.get("dedup_key"), _urgency(data)
    is_grouped = isinstance(key, str) and bool(key)
    topic = f"error:{task}:{key}" if is_grouped else f"error:{id_}"
    is_critical = urgency == len(PRIORITIES) - 1
    return Topic(topic, urgency, is_grouped and not is_critical, data.get("fatal") is True)


def _error_over(id_: str, task: str, data: Data) -> Topic:
    key, began = data.get("dedup_key"), f"error:{data.get('error_id')}"
    return Topic(f"error:{task}:{key}" if key else began, 0, ends=True, began=began)


def _reminder(id_: str, task: str, data: Data) -> Topic:
    about = data.get("about")
    about = about if isinstance(about, Mapping) else {}
    is_error = str(about.get("type")).removeprefix(PREFIX) == EventType.ERROR_ESCALATED
    began = f"{'error' if is_error else 'ask'}:{about.get('id')}"
    return Topic(f"reminder:{id_}", _urgency(data), began=began)


def _gap(id_: str, task: str, data: Data) -> Topic:
    return Topic(THREADLESS, 0, is_spaced=True)


_TOPICS: Final[Mapping[str, _Placing]] = {
    EventType.TASK_STATUS: _status,
    EventType.CLARIFICATION_REQUESTED: _question,
    EventType.CLARIFICATION_WITHDRAWN: _question_over,
    EventType.CLARIFICATION_CONSUMED: _question_over,
    EventType.TASK_COMPLETED: _completion,
    EventType.ERROR_ESCALATED: _error,
    EventType.ERROR_RESOLVED: _error_over,
    EventType.REMINDER: _reminder,
    EventType.GAP: _gap,
}


def _urgency(data: Data) -> int:
    priority = data.get("priority")
    return PRIORITIES.index(NotificationPriority(priority)) if priority in PRIORITIES else 0


def due_us(topic: Topic, told_us: int | None, every_s: float, now_us: int) -> int:
    """When a topic may speak that last spoke at ``told_us``. An instant to come met a clock that was set back."""
    if not topic.is_spaced or told_us is None or told_us > now_us:
        return now_us
    return max(now_us, told_us + int(every_s * SECOND_US))
