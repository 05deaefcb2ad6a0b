"""The client for asyncio agents: the synchronous one, used by one thread of its own.

A table: each verb is named once and gets signature, types and documentation from its model, so that nothing is told
twice. ``tests/aio`` compares the two surfaces, name by name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, NoReturn, ParamSpec, Self, TypeVar

from orchclient import client as sync
from orchclient.aio.calls import Calls
from orchclient.aio.handles import Clarification, Completion, Escalation, Review
from orchclient.aio.task import Task
from orchclient.aio.transaction import Transaction
from orchclient.aio.verbs import Remote, into, recorded, waited
from orchclient.core.errors import OutboxError
from orchclient.core.ids import checked_id
from orchclient.delivery.clock import SystemClock

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")


class _Settings:
    """How the synchronous client is made. Hidden: there may be secrets among the settings."""

    __slots__ = ("_agent_id", "_given")

    def __init__(self, agent_id: str, given: dict[str, Any]) -> None:
        self._agent_id = agent_id
        self._given = given

    def __repr__(self) -> str:
        return "(settings)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an asynchronous client is not pickled: make another one")

    def client(self) -> sync.OrchestratorClient:
        """The client that they describe; it opens the outbox."""
        return sync.OrchestratorClient(self._agent_id, **self._given)


def _made_like(
    model: Callable[Concatenate[Any, P], None],
) -> Callable[[Callable[..., None]], Callable[Concatenate[OrchestratorClient, P], None]]:
    """Give an ``__init__`` the signature of its model."""
    return wraps(model)


def _maybe(handle: Callable[[Calls, T], U]) -> Callable[[Calls, T | None], U | None]:
    """The handle of what may not be known."""
    return lambda calls, target: None if target is None else handle(calls, target)


def _all(handle: Callable[[Calls, T], U]) -> Callable[[Calls, tuple[T, ...]], tuple[U, ...]]:
    """The handle of each."""
    return lambda calls, targets: tuple(handle(calls, each) for each in targets)


class OrchestratorClient(Remote[sync.OrchestratorClient]):
    """``orchclient.OrchestratorClient`` for asyncio: the same verbs, awaitable, with the same arguments.

    Calls are recorded in the order in which they begin: one awaited after another, or the arguments of one ``gather``
    from left to right. No event loop ever waits for the disk: calls run in a thread of the client, waits (``flush``, an
    answer) in threads of their own. What an awaited call returned is durable, exactly as with the synchronous client. A
    cancelled call was recorded whole or not at all; a cancelled wait settles nothing.

    Making a client touches no file: ``async with``, or the first call, opens the outbox and raises what opening raises
    (``ConfigError``, ``OutboxUnsafe``, ``OutboxError``). It may be used by several event loops, one after another or at
    the same time, and in a forked child.
    """

    @_made_like(sync.OrchestratorClient.__init__)  # type: ignore[arg-type]  # a setting could be named self
    def __init__(self, agent_id: str, **given: Any) -> None:
        try:
            self.agent_id = checked_id("agent_id", agent_id)
            self._clock = given.get("clock") or SystemClock()
            self._settings = _Settings(agent_id, given)
        finally:
            del given  # a traceback that shows locals would print the secrets among them
        self._calls = Calls()
        self._client: sync.OrchestratorClient | None = None
        self._is_closed = False

    def __repr__(self) -> str:
        return f"aio.{self._client!r}" if self._client else f"aio.OrchestratorClient({self.agent_id!r}, not opened)"

    def _target(self) -> sync.OrchestratorClient:
        if self._client is None:
            if self._is_closed:
                raise OutboxError("this client is closed: make a new one to go on recording")
            self._client = self._settings.client()
        return self._client

    # --- tell -----------------------------------------------------------------------------------------------------

    update_task_status = recorded(sync.OrchestratorClient.update_task_status)
    start_task = recorded(sync.OrchestratorClient.start_task)

    def task(self, task_id: str) -> Task:
        """A handle whose verbs need no task id; ``async with`` starts the task and escalates exceptions.

        Nothing is recorded yet, so there is nothing to await; ``await client.task(...)`` gives the handle as well.
        """
        return Task(self._calls, lambda: self._target().task(task_id), task_id, self._clock)

    # --- ask ------------------------------------------------------------------------------------------------------

    request_clarification = into(Clarification, sync.OrchestratorClient.request_clarification)

    clarification = into(_maybe(Clarification), sync.OrchestratorClient.clarification)
    open_clarifications = into(_all(Clarification), sync.OrchestratorClient.open_clarifications)
    inbox = recorded(sync.OrchestratorClient.inbox)

    # --- hand in --------------------------------------------------------------------------------------------------

    report_completion = into(Completion, sync.OrchestratorClient.report_completion)
    review = into(_maybe(Review), sync.OrchestratorClient.review)

    # --- call for help --------------------------------------------------------------------------------------------

    escalate_error = into(Escalation, sync.OrchestratorClient.escalate_error)
    escalation = into(_maybe(Escalation), sync.OrchestratorClient.escalation)
    resolve_error = recorded(sync.OrchestratorClient.resolve_error)
    escalate_exception = into(Escalation, sync.OrchestratorClient.escalate_exception)

    # --- look -----------------------------------------------------------------------------------------------------

    task_state = recorded(sync.OrchestratorClient.task_state)
    get_communication_stats = recorded(sync.OrchestratorClient.get_communication_stats)
    health = recorded(sync.OrchestratorClient.health)

    # --- deliver --------------------------------------------------------------------------------------------------

    flush = waited(sync.OrchestratorClient.flush)
    add_sink = recorded(sync.OrchestratorClient.add_sink)
    remove_sink = recorded(sync.OrchestratorClient.remove_sink)

    def transaction(self) -> Transaction:
        """The caller's own statements and the events recorded inside, durable together or not at all.

        ``async with client.transaction() as own: await own.execute("INSERT ...", parameters)``. Calls of other tasks
        wait for the end of the block, 5 s at most (``OutboxBusy``), and are not part of it.
        """
        return Transaction(self._calls, self._target)

    # --- end ------------------------------------------------------------------------------------------------------

    async def close(self, timeout: float | None = None) -> None:
        """Deliver for at most ``timeout`` seconds (default 2.0; at once when the receivers are down), then end.

        Behind the calls that were begun before. What is not delivered stays in the outbox. Afterwards recording raises
        ``OutboxError``.
        """
        await self._calls.run(lambda: self._close(timeout))
        self._calls.retire()

    def _close(self, timeout: float | None) -> None:
        self._is_closed = True
        if self._client is not None:
            self._client.close(timeout)

    async def __aenter__(self) -> Self:
        await self._calls.run(self._target)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
