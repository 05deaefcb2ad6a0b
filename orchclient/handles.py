"""What the verbs return: receipts with what the caller wants to do next. All are true in a boolean context."""

from __future__ import annotations

import json

from attrs import field, frozen

from orchclient.core.answers import Answer
from orchclient.core.events import NotificationPriority, Receipt
from orchclient.core.incidents import Incident
from orchclient.core.judging import RequestState
from orchclient.outbox.journal import Entry
from orchclient.people import People
from orchclient.recorder import Recorder


@frozen
class Clarification:
    """A question that was asked. ``id`` is its event's id; an answer names it."""

    receipt: Receipt
    task_id: str
    _people: People = field(repr=False, eq=False)

    @property
    def id(self) -> str:
        """The question's id, on the wire ``clarification_id``."""
        return self.receipt.event_id

    @property
    def state(self) -> RequestState:
        """Where it stands: open, seen, answered, declined, expired or withdrawn."""
        return self._people.state(self.id)

    @property
    def answer(self) -> Answer | None:
        """What was decided, None while nothing is. That the agent has it is recorded the first time, durably."""
        return self._people.take(self.id)

    @property
    def late_answers(self) -> tuple[Answer, ...]:
        """Valid answers that came when it was settled already: kept and marked, they change nothing."""
        return self._people.late_answers(self.id)

    def wait(self, timeout: float | None = None) -> Answer | None:
        """The answer as soon as it is there; None when ``timeout`` seconds passed, or when it was withdrawn.

        None settles nothing: the question stays open, and can be waited for again, by a later process too. A deadline
        that passes is an answer of its own: ``outcome`` is ``expired``, never a person's no. Without ``timeout`` it
        waits until it is settled. Delivers and polls meanwhile, with ``background=False`` too. Raises ``OutboxError``.
        """
        return self._people.wait(self.id, timeout)

    def withdraw(self, reason: str = "no longer needed") -> Receipt | None:
        """Tell people that the question needs no answer any more; None when it was settled before.

        :param reason: for people, at most 4,096 characters.

        Durable afterwards against power loss. Raises ``InvalidEvent`` and ``OutboxError``.
        """
        return self._people.withdraw(self.task_id, self.id, reason)

    def __bool__(self) -> bool:
        return True


@frozen
class Review:
    """A result on which a person must decide. ``id`` is that of the completion's event."""

    id: str
    task_id: str
    _people: People = field(repr=False, eq=False)

    @property
    def state(self) -> RequestState:
        """Where it stands: open, answered (see ``decision``), declined or expired."""
        return self._people.state(self.id)

    @property
    def decision(self) -> Answer | None:
        """What was decided, None while nothing is: ``outcome``, ``comment``, ``responder``.

        The first time, the task's state follows, durably: approved gives ``approved``, changes_requested
        ``in_progress``, rejected ``failed``.
        """
        return self._people.take(self.id)

    def wait(self, timeout: float | None = None) -> Answer | None:
        """The decision as soon as it is there; None when ``timeout`` seconds passed, which settles nothing.

        Waits, delivers and raises as ``Clarification.wait``.
        """
        return self._people.wait(self.id, timeout)

    def __bool__(self) -> bool:
        return True


@frozen
class Completion:
    """A result that was handed in, with its quality score (0.0 to 100.0)."""

    receipt: Receipt
    quality_score: float
    review: Review | None = None
    """What a person decides, when ``review=True`` was asked for."""

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


def escalation_of(entry: Entry, recorder: Recorder) -> Escalation:
    """The call for help that an event of the journal is."""
    data = json.loads("{" + entry.body)["data"] if entry.is_whole else {}
    first_id, count = data.get("first_id", entry.id), data.get("count", 1)
    incident = Incident(entry.task, data.get("dedup_key"), first_id, entry.id, count)
    receipt = Receipt(entry.id, entry.seq, entry.recorded_us)
    return Escalation(receipt, NotificationPriority(entry.priority), count, incident, recorder)
