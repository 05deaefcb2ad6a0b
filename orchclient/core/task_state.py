"""What a task's events add up to. The journal is the truth; a task's row is this fold of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import define, evolve, field, frozen

from orchclient.core.events import TaskStatus


@frozen
class TaskState:
    """A task as its agent last described it. ``seq`` is the last event that went into it."""

    task_id: str
    agent_id: str = ""
    status: str = TaskStatus.PENDING
    progress_percentage: float | None = None
    current_step: str | None = None
    metadata: Mapping[str, Any] = field(factory=dict)
    attempt: int = 0
    seq: int = 0
    updated_us: int = 0


_CARRIED = ("status", "progress_percentage", "current_step", "attempt")


@define
class Gathered:
    """What several events of one task add up to, in order, so that the state has to be made only once."""

    state: TaskState
    _changes: dict[str, Any] = field(factory=dict)
    _metadata: dict[str, Any] = field(factory=dict)

    def add(self, seq: int, agent: str, recorded_us: int, data: Mapping[str, Any]) -> None:
        """One more event: members that it carries replace, metadata is merged, others stay.

        An event that is not newer than the state changes nothing, so a fold may start anywhere and run twice.
        """
        changes = self._changes
        if seq <= changes.get("seq", self.state.seq):
            return
        for name in _CARRIED:
            if name in data:
                changes[name] = data[name]
        changes["seq"], changes["agent_id"], changes["updated_us"] = seq, agent, recorded_us
        metadata = data.get("metadata")
        if metadata and isinstance(metadata, Mapping):
            self._metadata.update(metadata)

    @property
    def sum(self) -> TaskState:
        """The state after them."""
        if not self._changes:
            return self.state
        changes = dict(self._changes)
        if self._metadata:
            changes["metadata"] = {**self.state.metadata, **self._metadata}
        return evolve(self.state, **changes)


def advanced(state: TaskState, seq: int, agent: str, recorded_us: int, data: Mapping[str, Any]) -> TaskState:
    """The state after one more event."""
    gathered = Gathered(state)
    gathered.add(seq, agent, recorded_us, data)
    return gathered.sum
