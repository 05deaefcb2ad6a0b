"""What a test expects to arrive, and the words when it did not. Pure: it sees events as values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from orchclient.core.envelope import TYPE_PREFIX
from orchclient.core.events import EventType

Event = Mapping[str, Any]

SHOWN = 10


@frozen
class Expectation:
    """Events of a type or a task, or with certain members of their data, and how many of them; made by ``expect``."""

    type: str | None = None
    task: str | None = None
    data: Mapping[str, Any] = field(factory=dict)
    times: int | None = None  # None: at least once
    within_s: float = 0.0

    def matches(self, event: Event) -> bool:
        """Whether an event is one of these. The type may be given without its prefix, and without its version."""
        return (
            (self.type is None or is_of_type(event, self.type))
            and self.task in (None, event.get("subject"))
            and all(event.get("data", {}).get(name, _NOTHING) == value for name, value in self.data.items())
        )

    def count(self, events: Iterable[Event]) -> int:
        """How many of the events are of these."""
        return sum(map(self.matches, events))

    def is_met(self, events: Iterable[Event]) -> bool:
        """Whether so many came."""
        count = self.count(events)
        return count >= 1 if self.times is None else count == self.times

    def __str__(self) -> str:
        words = [f"type={self.type!r}"] if self.type is not None else []
        words += [f"task={self.task!r}"] if self.task is not None else []
        words += [f"{name}={value!r}" for name, value in self.data.items()]
        often = "" if self.times is None else f", {self.times} times"
        return f"{', '.join(words) or 'any event'}{often}"


_NOTHING = object()


def is_of_type(event: Event, wanted: str) -> bool:
    """Whether an event is of a type: ``dev.orchclient.task.status.v1``, or ``task.status.v1``, or ``task.status``."""
    type_ = str(event.get("type", ""))
    short = type_.removeprefix(TYPE_PREFIX)
    return wanted in (type_, short, short.rpartition(".v")[0])


def is_heartbeat(event: Event) -> bool:
    """Whether an event tells of the agent's process and of nothing that the agent said."""
    return is_of_type(event, EventType.AGENT_HEARTBEAT)


def told_of_unmet(unmet: Sequence[Expectation], events: Sequence[Event]) -> str:
    """What did not come, and what came instead; empty when nothing is missing."""
    if not unmet:
        return ""
    lines = [f"{len(unmet)} expectation{'' if len(unmet) == 1 else 's'} of the receiver not met:"]
    for each in unmet:
        waited = f" (waited {each.within_s:g} s)" if each.within_s else ""
        lines.append(f"  expected {each}: {_times(each.count(events))} arrived{waited}")
    lines.append(f"What arrived ({len(events)} events):" if events else "Nothing arrived. Was it flushed?")
    lines += [f"  {summary(event)}" for event in events[:SHOWN]]
    lines += [f"  ... and {len(events) - SHOWN} more"] if len(events) > SHOWN else []
    return "\n".join(lines)


def _times(count: int) -> str:
    return "none" if count == 0 else str(count)


def summary(event: Event) -> str:
    """An event in one line: its type, its task, and the beginning of what it tells."""
    data = {name: value for name, value in event.get("data", {}).items() if name != "task_id"}
    text = ", ".join(f"{name}={value!r}" for name, value in data.items())
    type_ = str(event.get("type", "")).removeprefix(TYPE_PREFIX)
    return f"{type_} of {event.get('subject')!r}: {text}"[:160]
