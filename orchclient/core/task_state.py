"""What a task's events add up to. The journal is the truth; a task's row is this fold of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve, field, frozen

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


def advanced(state: TaskState, seq: int, agent: str, recorded_us: int, data: Mapping[str, Any]) -> TaskState:
    """The state after one more event: members that the event carries replace, metadata is merged, others stay.

    An event that is not newer than the state changes nothing, so a fold may start anywhere and run twice.
    """
    if seq <= state.seq:
        return state
    changes: dict[str, Any] = {name: data[name] for name in _CARRIED if name in data}
    metadata = data.get("metadata")
    if isinstance(metadata, Mapping) and metadata:
        changes["metadata"] = {**state.metadata, **metadata}
    return evolve(state, seq=seq, agent_id=agent, updated_us=recorded_us, **changes)
