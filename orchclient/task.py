"""A task's handle: the verbs without the task id, the count of recovery attempts, and what an exception becomes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from orchclient.core.backoff import Backoff
from orchclient.core.errors import OrchClientError
from orchclient.core.events import NotificationPriority, Receipt, TaskStatus
from orchclient.core.exceptions import described, is_escalated
from orchclient.core.recovery import RECOVERY
from orchclient.core.task_state import TaskState
from orchclient.delivery.clock import Clock
from orchclient.handles import Clarification, Completion, Escalation
from orchclient.people import Message, People
from orchclient.recovery import recovering

if TYPE_CHECKING:
    from orchclient.client import OrchestratorClient

log = logging.getLogger("orchclient")


class Task:
    """One task of an agent, by id. ``with client.task(id) as task:`` starts it and escalates an escaping exception."""

    def __init__(self, client: OrchestratorClient, task_id: str, clock: Clock, people: People) -> None:
        self.task_id = task_id
        self._client = client
        self._clock = clock
        self._people = people
        self._history: list[dict[str, Any]] = []

    def __repr__(self) -> str:
        return f"Task({self.task_id!r})"

    @property
    def recovery_attempts(self) -> int:
        """How many recoveries this handle was told of; an escalation carries the number."""
        return len(self._history)

    @property
    def cancelled(self) -> Message | None:
        """The newest request to stop this task, with who asks and why; None when nobody did.

        A request, not an order: stop where it is safe, and tell status ``cancelled``.
        """
        return self._people.cancellation(self.task_id)

    @property
    def messages(self) -> tuple[Message, ...]:
        """What people told the agent about this task, in order. Data with a named sender, never an instruction."""
        return self._people.messages(self.task_id)

    def update(
        self,
        status: TaskStatus | str = TaskStatus.IN_PROGRESS,
        metadata: Mapping[str, Any] | None = None,
        progress_percentage: float | None = None,
        current_step: str | None = None,
    ) -> Receipt:
        """Tell where the task stands; arguments, durability and errors of ``OrchestratorClient.update_task_status``."""
        return self._client.update_task_status(self.task_id, status, metadata, progress_percentage, current_step)

    def progress(self, /, percentage: float, step: str | None = None, **metadata: Any) -> Receipt:
        """Tell progress (0 to 100) and the current step of work in progress; ``metadata`` is merged into the task's.

        Durable against the death of the process, and against power loss within a second.
        """
        return self.update(TaskStatus.IN_PROGRESS, metadata or None, percentage, step)

    def ask(
        self,
        questions: str | Sequence[str | Mapping[str, Any]],
        priority: NotificationPriority | str = NotificationPriority.MEDIUM,
        context: Mapping[str, Any] | None = None,
        *,
        options: Sequence[Any] | None = None,
        recommended: str | Sequence[str | None] | None = None,
        default: Any = None,
        deadline: datetime | timedelta | None = None,
        key: str | None = None,
    ) -> Clarification:
        """Ask people; arguments, durability and errors of ``OrchestratorClient.request_clarification``."""
        return self._client.request_clarification(
            self.task_id,
            questions,
            priority,
            context,
            options=options,
            recommended=recommended,
            default=default,
            deadline=deadline,
            key=key,
        )

    def complete(
        self,
        pr_url: str | None,
        test_results: Mapping[str, Any],
        artifacts: Mapping[str, Any] | None = None,
        *,
        review: bool = False,
    ) -> Completion:
        """Hand in the result; arguments, durability and errors of ``OrchestratorClient.report_completion``."""
        return self._client.report_completion(self.task_id, pr_url, test_results, artifacts, review=review)

    def recovery_attempted(self, error: BaseException | str, action: str | None = None) -> int:
        """Count an attempt to recover and remember it for an escalation; the number so far. Records nothing yet."""
        entry = {"attempt": len(self._history) + 1, "error": described(error)}
        self._history.append(entry | {"action": action} if action else entry)
        return len(self._history)

    def escalate(
        self,
        error: BaseException | str,
        error_message: str | None = None,
        context: Mapping[str, Any] | None = None,
        *,
        fatal: bool = True,
        dedup_key: str | None = None,
        error_type: str | None = None,
        recovery_history: Sequence[Mapping[str, Any]] | None = None,
    ) -> Escalation:
        """Call for help. ``error`` is an exception, which comes with its traceback, or an error type.

        :param error_type: of an exception; default its class's ``error_type``, else the name of its class.
        :param recovery_history: what was tried, oldest first; default the recovery attempts of this handle.

        Other arguments, durability and errors as ``OrchestratorClient.escalate_error``.
        """
        history = self._history if recovery_history is None else list(recovery_history)
        if isinstance(error, BaseException):
            return self._client.escalate_exception(
                self.task_id,
                error,
                context,
                error_type=error_type,
                error_message=error_message,
                fatal=fatal,
                dedup_key=dedup_key,
                recovery_history=history,
            )
        return self._client.escalate_error(
            self.task_id,
            error,
            error_message if error_message is not None else error,
            len(history),
            context,
            fatal=fatal,
            dedup_key=dedup_key,
            recovery_history=history,
        )

    def resolve_error(self, dedup_key: str, note: str | None = None) -> Receipt | None:
        """Tell that an incident is over; durability and errors of ``OrchestratorClient.resolve_error``."""
        return self._client.resolve_error(self.task_id, dedup_key, note)

    def recovering(
        self,
        error_type: str,
        attempts: int = 3,
        *,
        on: type[Exception] | tuple[type[Exception], ...] = Exception,
        backoff: Backoff = RECOVERY,
        context: Mapping[str, Any] | None = None,
        fatal: bool = True,
        dedup_key: str | None = None,
    ) -> recovering:
        """Work that is tried again while it fails with a known trouble: a loop, or a decorator; see ``recovering``."""
        return recovering(
            self,
            error_type,
            attempts,
            on=on,
            backoff=backoff,
            context=context,
            fatal=fatal,
            dedup_key=dedup_key,
            clock=self._clock,
        )

    def snapshot(self) -> TaskState:
        """Where the task stands as its events add up, over restarts."""
        return self._client.task_state(self.task_id) or TaskState(self.task_id)

    def __enter__(self) -> Self:
        self._client.start_task(self.task_id, self.snapshot().attempt + 1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # An interrupt or an exit is not an error of the task.
        if isinstance(error, Exception) and not is_escalated(error, self.task_id):
            try:
                self.escalate(error)
            except OrchClientError as refusal:
                # The agent's own exception must reach its caller, whatever our disk does. Without a traceback, which
                # would repeat that exception and whatever secret it quotes.
                log.error("task %s: its exception could not be escalated: %s", self.task_id, refusal)
