"""What the asynchronous verbs return. What a handle holds is at hand; what it asks of the outbox is awaited."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from orchclient import handles as sync
from orchclient.aio.verbs import Handle, recorded, waited
from orchclient.core.answers import Answer
from orchclient.core.events import NotificationPriority, Receipt
from orchclient.core.judging import RequestState


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

    @property
    def state(self) -> Coroutine[Any, Any, RequestState]:
        """Where it stands: ``await question.state``."""
        return self._calls.run(lambda: self._sync.state)

    @property
    def answer(self) -> Coroutine[Any, Any, Answer | None]:
        """What was decided, None while nothing is: ``await question.answer``."""
        return self._calls.run(lambda: self._sync.answer)

    @property
    def late_answers(self) -> Coroutine[Any, Any, tuple[Answer, ...]]:
        """Valid answers that came when it was settled already: ``await question.late_answers``."""
        return self._calls.run(lambda: self._sync.late_answers)

    wait = waited(sync.Clarification.wait)
    withdraw = recorded(sync.Clarification.withdraw)


class Review(Handle[sync.Review]):
    """A result on which a person must decide. ``id`` is that of the completion's event."""

    @property
    def id(self) -> str:
        """The id of the completion's event."""
        return self._sync.id

    @property
    def task_id(self) -> str:
        """The task that it belongs to."""
        return self._sync.task_id

    @property
    def state(self) -> Coroutine[Any, Any, RequestState]:
        """Where it stands: ``await review.state``."""
        return self._calls.run(lambda: self._sync.state)

    @property
    def decision(self) -> Coroutine[Any, Any, Answer | None]:
        """What was decided, None while nothing is: ``await review.decision``."""
        return self._calls.run(lambda: self._sync.decision)

    wait = waited(sync.Review.wait)


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
    def review(self) -> Review | None:
        """What a person decides, when ``review=True`` was asked for."""
        return Review(self._calls, self._sync.review) if self._sync.review else None

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
