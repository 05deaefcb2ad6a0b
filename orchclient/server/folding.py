"""What events make of a task, and the line that each leaves in the audit trail. Pure: rows in, rows out.

Events may come late or again. So each member of a task carries a mark, the sequence of the event that set it, and an
older event changes only what no newer one has set. Sequences of two sources cannot be compared: there what arrives
later wins, and whatever the other source had sent by then counts as older (docs/wire.md, "Order per task").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from attrs import define, field

from orchclient.core.events import NOTICES, EventType, TaskStatus
from orchclient.server.bulk import json_column
from orchclient.server.reading import Arrival

_NEWEST: Final = ""  # the mark of the newest event of a source
_CARRIED: Final = (
    ("status", "status"),
    ("progress_percentage", "progress_percentage"),
    ("current_step", "current_step"),
    ("attempt", "attempt"),
    ("pr_url", "pr_url"),
    ("quality_score", "quality_score"),
)
_SILENT: Final = frozenset({"", EventType.GAP, EventType.AGENT_HEARTBEAT})
"""Types that tell nothing of a task, and those that are not known here."""


_IN_ROW: Final = (
    "task_id",
    "source_id",
    "agent_id",
    "status",
    "progress_percentage",
    "current_step",
    "task_metadata",
    "attempt",
    "pr_url",
    "quality_score",
    "result",
    "marks",
    "created_us",
    "updated_us",
    "received_us",
    "completed_us",
)


@define
class TaskFold:
    """A task's row while events go into it."""

    task_id: str
    source_id: int
    agent_id: str
    created_us: int
    updated_us: int
    received_us: int
    status: str = TaskStatus.PENDING.value
    progress_percentage: float | None = None
    current_step: str | None = None
    task_metadata: dict[str, Any] = field(factory=dict)
    attempt: int | None = None
    pr_url: str | None = None
    quality_score: float | None = None
    result: dict[str, Any] | None = None
    completed_us: int | None = None
    marks: dict[str, dict[str, int]] = field(factory=dict)

    @classmethod
    def begun(cls, event: Arrival, source_id: int, received_us: int) -> TaskFold:
        """The task of its first event, before that."""
        return cls(event.task, source_id, event.agent, event.time_us, event.time_us, received_us)

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> TaskFold:
        """The task of its row, in the order of the table's columns."""
        return cls(**dict(zip(_IN_ROW, row, strict=True)))

    def add(self, event: Arrival, source_id: int, received_us: int) -> None:
        """Apply one event in its place."""
        name = str(source_id)
        marks = self.marks.setdefault(name, {})
        sequence, data = event.sequence, event.data
        given = [member for member, key in _CARRIED if key in data and sequence > marks.get(member, 0)]
        for member in given:
            setattr(self, member, data[member])
            marks[member] = sequence
        if event.kind == EventType.TASK_STATUS:
            given += self._merged(data.get("metadata"), marks, sequence)
        elif event.kind == EventType.TASK_COMPLETED and sequence > marks.get("result", 0):
            self.result = {"test_results": data["test_results"], "artifacts": data["artifacts"]}
            self.completed_us = event.time_us
            marks["result"] = sequence
            given.append("result")
        if sequence > marks.get(_NEWEST, 0):
            marks[_NEWEST] = sequence
            self.source_id, self.agent_id, self.updated_us = source_id, event.agent, event.time_us
        if len(self.marks) > 1:
            self._overrule(name, given)
        self.received_us = received_us

    def _merged(self, metadata: Mapping[str, Any] | None, marks: dict[str, int], sequence: int) -> list[str]:
        newer = [key for key in metadata or () if sequence > marks.get(f".{key}", 0)]
        for key in newer:
            self.task_metadata[key] = (metadata or {})[key]
            marks[f".{key}"] = sequence
        return [f".{key}" for key in newer]

    def _overrule(self, name: str, given: list[str]) -> None:
        """Make what other sources have sent so far older than the members that this event gave."""
        for other, marks in self.marks.items():
            if other != name:
                newest = marks.get(_NEWEST, 0)
                marks.update((member, max(newest, marks.get(member, 0))) for member in given)

    def row(self) -> tuple[Any, ...]:
        """In the order of the table's columns."""
        return (
            self.task_id,
            self.source_id,
            self.agent_id,
            self.status,
            self.progress_percentage,
            self.current_step,
            json_column(self.task_metadata),
            self.attempt,
            self.pr_url,
            self.quality_score,
            json_column(self.result),
            json_column(self.marks),
            self.created_us,
            self.updated_us,
            self.received_us,
            self.completed_us,
        )


def tells_of_a_task(event: Arrival) -> bool:
    """Whether an event belongs to a task's history."""
    return event.kind not in _SILENT


def changes_a_task(event: Arrival) -> bool:
    """Whether an event goes into the state of its task."""
    return event.kind not in NOTICES and event.kind != ""


# --- The audit trail ----------------------------------------------------------------------------------------------


class Line(NamedTuple):
    """What the trail says of an event."""

    level: str
    message: str
    metadata: Any


def log_row(event: Arrival, source_id: int, received_us: int) -> tuple[Any, ...]:
    """In the order of the table's columns."""
    words = _LINES.get(event.kind)
    level, message, metadata = words(event.data) if words else Line("info", event.kind, event.data)
    return (
        source_id,
        event.sequence,
        event.task,
        event.agent,
        level,
        message,
        json_column(metadata) if metadata else "{}",
        event.time_us,
        received_us,
    )


def _status_line(data: Mapping[str, Any]) -> Line:
    progress, step = data.get("progress_percentage"), data.get("current_step")
    percent = "" if progress is None else f", {progress:g} %"
    return Line("info", f"{data['status']}{percent}{f': {step}' if step else ''}", data.get("metadata"))


def _question_line(data: Mapping[str, Any]) -> Line:
    texts = "; ".join(question["text"] for question in data["questions"])
    return Line("warning", f"Asks: {texts}", _some(data, "clarification_id", "priority", "deadline", "key"))


def _withdrawn_line(data: Mapping[str, Any]) -> Line:
    reason = f": {data['reason']}" if data["reason"] else ""
    return Line("info", f"Withdrew a question{reason}", _some(data, "clarification_id"))


def _consumed_line(data: Mapping[str, Any]) -> Line:
    return Line("info", "Took the answer", _some(data, "clarification_id", "answer_id"))


def _completed_line(data: Mapping[str, Any]) -> Line:
    words = f"Completed with quality {data['quality_score']:.0f}{', waits for review' if data['review'] else ''}"
    return Line("info", words, _some(data, "pr_url", "test_results", "artifacts", "review_id"))


def _error_line(data: Mapping[str, Any]) -> Line:
    level = "critical" if data["priority"] == "critical" else "error"
    message = f"{data['error_type']}: {data['error_message']}"
    return Line(
        level,
        message,
        _some(data, "recovery_attempts", "context", "fatal", "dedup_key", "count", "first_id", "recovery_history"),
    )


def _resolved_line(data: Mapping[str, Any]) -> Line:
    note = f": {data['note']}" if data.get("note") else ""
    return Line("info", f"Resolved an error{note}", _some(data, "error_id", "count", "dedup_key"))


def _reminder_line(data: Mapping[str, Any]) -> Line:
    hours, minutes = divmod(data["waited_s"] // 60, 60)
    waited = f"{hours} h {minutes} min" if hours else f"{minutes} min"
    level = "critical" if data["escalated"] else "warning"
    return Line(level, f"Still open after {waited}", _some(data, "about", "number", "escalated"))


def _some(data: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: data[name] for name in names if name in data}


_LINES: Final[Mapping[str, Callable[[Mapping[str, Any]], Line]]] = {
    EventType.TASK_STATUS: _status_line,
    EventType.CLARIFICATION_REQUESTED: _question_line,
    EventType.CLARIFICATION_WITHDRAWN: _withdrawn_line,
    EventType.CLARIFICATION_CONSUMED: _consumed_line,
    EventType.TASK_COMPLETED: _completed_line,
    EventType.ERROR_ESCALATED: _error_line,
    EventType.ERROR_RESOLVED: _resolved_line,
    EventType.REMINDER: _reminder_line,
}
