"""A task's handle for asyncio agents."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Mapping
from types import TracebackType
from typing import Any, Self

from orchclient import task as sync
from orchclient.aio.calls import Calls
from orchclient.aio.handles import Clarification, Completion, Escalation
from orchclient.aio.verbs import Remote, into, recorded
from orchclient.core.backoff import Backoff
from orchclient.core.recovery import RECOVERY
from orchclient.delivery.clock import Clock
from orchclient.people import Message
from orchclient.recovery import recovering


class Task(Remote[sync.Task]):
    """One task of an agent, by id.

    ``async with client.task(id) as task:`` starts it and escalates an escaping exception. A cancelled agent is no error
    of its task.
    """

    def __init__(self, calls: Calls, make: Callable[[], sync.Task], task_id: str, clock: Clock) -> None:
        self._calls = calls
        self._clock = clock
        self.task_id = task_id
        self._make = make
        self._sync: sync.Task | None = None

    def __repr__(self) -> str:
        return f"aio.Task({self.task_id!r})"

    def __await__(self) -> Generator[None, None, Self]:
        return self
        yield  # a generator that never waits

    def _target(self) -> sync.Task:
        if self._sync is None:
            self._sync = self._make()
        return self._sync

    @property
    def recovery_attempts(self) -> int:
        """How many recoveries this handle was told of; an escalation carries the number."""
        return self._sync.recovery_attempts if self._sync else 0

    @property
    def cancelled(self) -> Coroutine[Any, Any, Message | None]:
        """The newest request to stop this task: ``await task.cancelled``."""
        return self._calls.run(lambda: self._target().cancelled)

    @property
    def messages(self) -> Coroutine[Any, Any, tuple[Message, ...]]:
        """What people told the agent about this task: ``await task.messages``."""
        return self._calls.run(lambda: self._target().messages)

    update = recorded(sync.Task.update)
    progress = recorded(sync.Task.progress)
    ask = into(Clarification, sync.Task.ask)
    complete = into(Completion, sync.Task.complete)
    recovery_attempted = recorded(sync.Task.recovery_attempted)
    resolve_error = recorded(sync.Task.resolve_error)
    escalate = into(Escalation, sync.Task.escalate)

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
        """Work that is tried again while it fails: a loop, or a decorator of async functions; see ``recovering``."""
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

    snapshot = recorded(sync.Task.snapshot)

    async def __aenter__(self) -> Self:
        await self._calls.run(lambda: self._target().__enter__())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            await self._calls.run(lambda: self._target().__exit__(kind, error, traceback))
