"""What the asynchronous verbs return. What a handle holds is at hand; what it asks of the outbox is awaited."""

from __future__ import annotations

from orchclient import handles as sync
from orchclient.aio.verbs import Handle, recorded
from orchclient.core.events import NotificationPriority, Receipt


class Clarification(Handle[sync.Clarification]):
    """A question that was asked. ``id`` is its event's id; an answer names it."""

    @property
    def id(self) -> str:
        """The question's id, on the wire ``clarification_id``."""
        return self._sync.id

    @property
    def receipt(self) -> Receipt:
        """The receipt of the question's event."""
        return self._sync.receipt

    @property
    def task_id(self) -> str:
        """The task that it belongs to."""
        return self._sync.task_id

    withdraw = recorded(sync.Clarification.withdraw)


class Completion(Handle[sync.Completion]):
    """A result that was handed in, with its quality score (0.0 to 100.0)."""

    @property
    def receipt(self) -> Receipt:
        """The receipt of the completion's event."""
        return self._sync.receipt

    @property
    def event_id(self) -> str:
        """The id of the completion's event; a review names it."""
        return self._sync.event_id

    @property
    def quality_score(self) -> float:
        """0.0 to 100.0."""
        return self._sync.quality_score


class Escalation(Handle[sync.Escalation]):
    """A call for help, with the priority that the matrix gave it."""

    @property
    def receipt(self) -> Receipt:
        """The receipt of the escalation's event."""
        return self._sync.receipt

    @property
    def event_id(self) -> str:
        """The id of the escalation's event."""
        return self._sync.event_id

    @property
    def priority(self) -> NotificationPriority:
        """As the matrix says."""
        return self._sync.priority

    @property
    def count(self) -> int:
        """How many errors of this incident there were so far."""
        return self._sync.count

    resolve = recorded(sync.Escalation.resolve)
