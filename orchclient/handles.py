"""What the verbs return: receipts with what the caller wants to do next. All are true in a boolean context."""

from __future__ import annotations

from attrs import field, frozen

from orchclient.core import verbs
from orchclient.core.events import NotificationPriority, Receipt
from orchclient.core.incidents import Incident
from orchclient.recorder import Recorder


@frozen
class Clarification:
    """A question that was asked. ``id`` is its event's id; an answer names it."""

    receipt: Receipt
    task_id: str
    _recorder: Recorder = field(repr=False, eq=False)

    @property
    def id(self) -> str:
        """The question's id, on the wire ``clarification_id``."""
        return self.receipt.event_id

    def withdraw(self, reason: str = "no longer needed") -> Receipt | None:
        """Tell people that the question needs no answer any more; None when it was settled before."""
        return self._recorder.record_withdrawal(verbs.clarification_withdrawal(self.task_id, self.id, reason), self.id)

    def __bool__(self) -> bool:
        return True


@frozen
class Completion:
    """A result that was handed in, with its quality score (0.0 to 100.0)."""

    receipt: Receipt
    quality_score: float

    @property
    def event_id(self) -> str:
        """The id of the completion's event; a review names it."""
        return self.receipt.event_id

    def __bool__(self) -> bool:
        return True


@frozen
class Escalation:
    """A call for help, with the priority that the matrix gave it."""

    receipt: Receipt
    priority: NotificationPriority
    count: int = 1
    """How many errors with this ``dedup_key`` the task had since the last one was resolved."""
    _incident: Incident | None = field(default=None, repr=False, eq=False)
    _recorder: Recorder | None = field(default=None, repr=False, eq=False)

    @property
    def event_id(self) -> str:
        """The id of the escalation's event."""
        return self.receipt.event_id

    def resolve(self, note: str | None = None) -> Receipt | None:
        """Tell people that the trouble is over: ``error.resolved.v1``, recorded once; None when it was told before.

        Durable afterwards against power loss. The next error with the same ``dedup_key`` is a new incident.
        """
        assert self._recorder is not None
        assert self._incident is not None
        return self._recorder.record_resolution(self._incident, note)

    def __bool__(self) -> bool:
        return True
