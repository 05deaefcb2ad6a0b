"""``recovering``: work that fails is tried again, and escalated with its history when that is no help.

A context manager cannot run its block twice, so the loop is the caller's:

    for attempt in recovering(task, "github_api_auth", attempts=3):
        with attempt:
            push(branch)

or the function is decorated, ``@recovering(task, "github_api_auth")``, plain and ``async`` ones alike. What is decided
is in ``core.recovery``; here it is waited, told and escalated. Knows of a task its verbs only, so that those of the
asynchronous client serve as well.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from concurrent.futures import CancelledError
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from orchclient.core.backoff import Backoff
from orchclient.core.errors import InvalidEvent, OrchClientError
from orchclient.core.events import TaskStatus
from orchclient.core.exceptions import described, is_escalated
from orchclient.core.ids import checked_id
from orchclient.core.recovery import RECOVERY, Recovery
from orchclient.delivery.clock import Clock, SystemClock

log = logging.getLogger("orchclient")

P = ParamSpec("P")
T = TypeVar("T")
Calls = Generator[Callable[[], Any], Any, None]

NEVER = (CancelledError,)
"""Beside everything that is no ``Exception``: KeyboardInterrupt, SystemExit, asyncio's CancelledError."""


class AnyTask(Protocol):
    """A task of the synchronous client or of the asynchronous one."""

    task_id: str

    @property
    def update(self) -> Callable[..., Any]: ...

    @property
    def snapshot(self) -> Callable[[], Any]: ...

    @property
    def recovery_attempted(self) -> Callable[..., Any]: ...

    @property
    def escalate(self) -> Callable[..., Any]: ...


class recovering:  # noqa: N801  used like a function
    """Try a piece of work again while it fails with a known trouble; escalate when that is no help.

    :param task: the task that the work belongs to, of the synchronous or the asynchronous client.
    :param error_type: the trouble's name; with the attempts it gives the priority of the escalation.
    :param attempts: how many recovery attempts: the work is done ``attempts + 1`` times at most.
    :param on: the exceptions, a class or several, that are tried again. Others pass at once and are not escalated here.
        KeyboardInterrupt, SystemExit and cancellations always pass.
    :param backoff: the waits; by default 1 s, 2 s, 4 s ... with full jitter, at most 60 s.
    :param context: of the escalation, as in ``OrchestratorClient.escalate_error``.
    :param fatal: likewise: the task becomes ``failed``.
    :param dedup_key: likewise: errors with the same key are one incident.
    :param clock: time and chance; ``task.recovering(...)`` passes those of its client.

    Before each attempt the task's step tells which one it is. The last exception is escalated with the history of all
    attempts, and raised. What cannot be recorded is logged: it never hides the work's own exception.
    """

    def __init__(
        self,
        task: AnyTask,
        error_type: str,
        attempts: int = 3,
        *,
        on: type[Exception] | tuple[type[Exception], ...] = Exception,
        backoff: Backoff = RECOVERY,
        context: Mapping[str, Any] | None = None,
        fatal: bool = True,
        dedup_key: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 0:
            raise InvalidEvent("attempts", f"must be a whole number from 0 on, not {attempts!r:.60}")
        self._task = task
        self._plan = Recovery(checked_id("error_type", error_type), attempts, backoff)
        self._on = on
        self._escalation = {"context": context, "fatal": fatal, "dedup_key": dedup_key}
        self._clock = clock or SystemClock()

    def __iter__(self) -> Iterator[Attempt]:
        if inspect.iscoroutinefunction(self._task.update):
            raise TypeError("this task's verbs are awaited: async for attempt in recovering(...): async with attempt:")
        run = _Run(self._task, self._plan, self._on, self._escalation, self._clock)
        while not run.is_over:
            yield Attempt(run)
            run.refuse_unused()
            if not run.is_over:
                self._clock.sleep(run.delay_s)

    async def __aiter__(self) -> AsyncIterator[AsyncAttempt]:
        run = _Run(self._task, self._plan, self._on, self._escalation, self._clock)
        while not run.is_over:
            yield AsyncAttempt(run)
            run.refuse_unused()
            if not run.is_over:
                await _sleep(self._clock, run.delay_s)

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Decorate a function: each call of it is tried again on its own."""
        if inspect.iscoroutinefunction(function):
            return cast(Callable[P, T], self._decorated_async(function))
        if inspect.iscoroutinefunction(self._task.update):
            raise TypeError("this task's verbs are awaited: decorate an async function")

        @wraps(function)
        def tried(*args: P.args, **kwargs: P.kwargs) -> T:
            for attempt in self:
                with attempt:
                    return function(*args, **kwargs)
            raise AssertionError("unreachable: the last attempt returns or raises")

        return tried

    def _decorated_async(self, function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        @wraps(function)
        async def tried(*args: P.args, **kwargs: P.kwargs) -> T:
            async for attempt in self:
                async with attempt:
                    return await function(*args, **kwargs)
            raise AssertionError("unreachable: the last attempt returns or raises")

        return tried


async def _sleep(clock: Clock, seconds: float) -> None:
    if not isinstance(clock, SystemClock):
        clock.sleep(seconds)  # a test's: no time passes
        seconds = 0
    import asyncio  # only for agents that use it

    await asyncio.sleep(seconds)


class _Run:
    """One use of ``recovering``: what was tried so far. Yields the calls to make or await, and gets their results."""

    def __init__(
        self,
        task: AnyTask,
        recovery: Recovery,
        on: type[Exception] | tuple[type[Exception], ...],
        escalation: dict[str, Any],
        clock: Clock,
    ) -> None:
        self.is_over = False
        self.delay_s = 0.0
        self._is_used = False
        self.task_id = task.task_id
        self._task = task
        self._recovery = recovery
        self._on = on
        self._escalation = escalation
        self._clock = clock

    def refuse_unused(self) -> None:
        """Raise when the loop goes on although nothing was tried: it would never end."""
        if not self._is_used:
            raise RuntimeError("for attempt in recovering(...): the work belongs into 'with attempt:'")
        self._is_used = False

    @property
    def number(self) -> int:
        """Which attempt is made: 0 is the work itself, 1 the first recovery attempt."""
        return len(self._recovery.history)

    def ended(self, error: BaseException | None) -> Calls:
        """What is to be told after an attempt; ``is_over`` says then whether it was the last one."""
        self._is_used = True
        self.is_over = error is None or self._recovery.is_exhausted or not self._is_recoverable(error)
        if error is None:
            if self._recovery.history:
                yield from self._step_told(self._recovery.step_recovered)
        elif not self.is_over:
            yield from self._postponed(error)
        elif self._is_recoverable(error):
            yield lambda: self._escalated(error)

    def _is_recoverable(self, error: BaseException) -> bool:
        is_expected = isinstance(error, Exception) and isinstance(error, self._on)
        return is_expected and not isinstance(error, NEVER) and not is_escalated(error, self._task.task_id)

    def _postponed(self, error: BaseException) -> Calls:
        self.delay_s = self._recovery.delay_s(self._clock.jitter())
        self._recovery = self._recovery.after(described(error), self.delay_s)
        action = self._recovery.history[-1]["action"]
        yield lambda: self._task.recovery_attempted(error, action)
        yield from self._step_told(self._recovery.step)

    def _step_told(self, step: str) -> Calls:
        state = yield self._task.snapshot
        status = (state and state.status) or TaskStatus.IN_PROGRESS
        yield lambda: self._task.update(status, current_step=step)

    def _escalated(self, error: BaseException) -> Any:
        recovery = self._recovery
        return self._task.escalate(
            error, error_type=recovery.error_type, recovery_history=recovery.history, **self._escalation
        )


class Attempt:
    """One attempt: ``with attempt:`` around the work. ``number`` is 0 for the work itself, 1 for its first repeat."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self.number = run.number

    def __enter__(self) -> Attempt:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        calls = self._run.ended(error)
        try:
            call = next(calls)
            while True:
                call = calls.send(self._made(call))
        except StopIteration:
            return not self._run.is_over

    def _made(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except OrchClientError as refusal:
            _log_refusal(self._run, refusal)


class AsyncAttempt:
    """One attempt: ``async with attempt:`` around the work."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self.number = run.number

    async def __aenter__(self) -> AsyncAttempt:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        calls = self._run.ended(error)
        try:
            call = next(calls)
            while True:
                call = calls.send(await self._made(call))
        except StopIteration:
            return not self._run.is_over

    async def _made(self, call: Callable[[], Any]) -> Any:
        try:
            result = call()
            return await result if inspect.isawaitable(result) else result
        except OrchClientError as refusal:
            _log_refusal(self._run, refusal)


def _log_refusal(run: _Run, refusal: OrchClientError) -> None:
    """The work's own exception must reach its caller, whatever our disk does."""
    log.error("task %s: a recovery attempt could not be told: %s", run.task_id, refusal)
