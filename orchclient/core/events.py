"""The words of the field as values: states, priorities, event types, and what a verb hands to the outbox.

Knows nothing of files, clocks or wires. The states and their order come from the product's first users; the
priorities from their escalation matrix.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

from orchclient.core.timestamps import instant


class TaskStatus(StrEnum):
    """Where a task stands. The value is the text on the wire, in the outbox and on the command line."""

    PENDING = "pending"
    CLARIFICATION_NEEDED = "clarification_needed"
    ASSIGNED = "assigned"
    IN_PROGRESS = "in_progress"
    TESTING = "testing"
    REVIEW_READY = "review_ready"
    APPROVED = "approved"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class NotificationPriority(StrEnum):
    """How soon a person should look."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class EventType:
    """Types of outbound events, without the prefix ``dev.orchclient.`` that they carry on the wire.

    Plain texts: the value of an enum member costs a tenth of a record call.
    """

    TASK_STATUS: Final = "task.status.v1"
    CLARIFICATION_REQUESTED: Final = "clarification.requested.v1"
    CLARIFICATION_WITHDRAWN: Final = "clarification.withdrawn.v1"
    CLARIFICATION_CONSUMED: Final = "clarification.consumed.v1"
    TASK_COMPLETED: Final = "task.completed.v1"
    ERROR_ESCALATED: Final = "error.escalated.v1"
    ERROR_RESOLVED: Final = "error.resolved.v1"
    AGENT_HEARTBEAT: Final = "agent.heartbeat.v1"
    REMINDER: Final = "reminder.v1"
    GAP: Final = "gap.v1"


NOTICES = frozenset({EventType.GAP, EventType.AGENT_HEARTBEAT, EventType.REMINDER})
"""Types that tell nothing of a task, whatever their subject is."""

STEP_STARTED = "Started"
STEP_WAITING = "Waiting for clarification"
STEP_COMPLETED = "Completed - awaiting review"


class Event(NamedTuple):
    """One thing that the agent said, as the journal keeps it: the fields stand in the order of its columns.

    ``body`` is the final CloudEvents JSON text without its opening (see ``core.envelope``), ``crc`` the CRC-32 of its
    UTF-8 bytes.
    """

    id: str
    task: str
    agent: str
    type: str
    priority: str
    recorded_us: int
    crc: int
    body: str


class Receipt(NamedTuple):
    """Proof that an event is durable. Always true in a boolean context.

    ``seq`` is the event's place in this outbox's journal; ``recorded_us`` is in UTC microseconds. A named tuple, since
    a frozen class costs twice as much to make and every record call makes one.
    """

    event_id: str
    seq: int
    recorded_us: int

    @property
    def recorded_at(self) -> datetime:
        """The instant of the call, as an aware ``datetime`` in UTC."""
        return instant(self.recorded_us)

    def __bool__(self) -> bool:
        return True
