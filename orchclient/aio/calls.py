"""The worker thread of an asynchronous client: one call after another, in the order in which they were begun.

No event loop ever waits for a disk or a lock: a call is handed to the thread, and its result comes back to the loop
that asked. Knows loops and threads, and of the client nothing. Waits for people and receivers get threads of their
own, so that calls get through meanwhile.

Loops come and go (``asyncio.run`` makes one each time), several may be in use at once, and a process may be forked or
end at any moment: the thread serves all of them, is a daemon, and ends when it has been idle for a while.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from threading import Condition, Event, Thread
from typing import Any, TypeVar, cast

from orchclient.core.errors import OutboxBusy, OutboxError
from orchclient.delivery.interruption import cut_by

log = logging.getLogger("orchclient")

T = TypeVar("T")

IDLE_S = 10.0
"""How long the thread stays when nothing is to be done: starting one costs as much as a call."""

HELD_TOTAL_S = 5.0
"""How long a call waits for another task's ``transaction()``; as long as threads wait for each other."""

LOOK_S = 0.5
"""How often the thread looks, inside a transaction, for calls that waited too long and for a loop that is gone."""

_INSIDE: contextvars.ContextVar[object] = contextvars.ContextVar("orchclient_transaction", default=None)


class _Job:
    """One call, the loop that awaits it, and the context in which it was made: a span, an open transaction."""

    def __init__(self, call: Callable[[], Any], inside: object = None) -> None:
        self.call = call
        self.inside = inside or _INSIDE.get()
        self.context = contextvars.copy_context()
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.since = time.monotonic()

    def perform(self) -> None:
        """Make the call and hand its result to the loop."""
        try:
            result = self.context.run(self.call)
        except StopIteration as error:  # a future would not take it, and its task would wait for ever
            self.fail(RuntimeError(f"the call raised StopIteration({error.value!r:.80})"))
        except BaseException as error:  # noqa: BLE001  whatever it is belongs to who awaits
            self.fail(error)
        else:
            self._tell(result, None)

    def fail(self, error: BaseException) -> None:
        """Hand an error to the loop."""
        self._tell(None, error)

    def _tell(self, result: object, error: BaseException | None) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody awaits it any more
            self.loop.call_soon_threadsafe(self._settle, result, error)

    def _settle(self, result: object, error: BaseException | None) -> None:
        if self.future.done():  # cancelled
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


class Calls:
    """Runs calls in one thread of its own, in order."""

    def __init__(self) -> None:
        self._start_anew()

    def __reduce__(self) -> Any:
        raise TypeError("an asynchronous client is not pickled: make another one")

    def _start_anew(self) -> None:
        """Also in a forked child, where no thread of the parent's lives and a lock of its may be held for ever."""
        self._pid = os.getpid()
        self._news = Condition()
        self._jobs: deque[_Job] = deque()
        self._is_running = False
        self._is_retired = False
        self._holder: Hold | None = None

    async def run(self, call: Callable[[], T]) -> T:
        """The result of a call that is made behind those that were begun before it.

        A cancelled call is dropped when its turn had not come yet; else it goes on to its end.
        """
        job = _Job(call)
        self._submit(job)
        try:
            return cast(T, await job.future)
        except asyncio.CancelledError:
            self._drop(job)
            raise

    async def wait(self, call: Callable[[], T]) -> T:
        """The result of a call that waits: in a thread of its own. Cancelled, it ends soon and settles nothing."""
        if self.is_held_by(_INSIDE.get()):
            raise OutboxError("a wait inside transaction() would last for ever: nothing is sent before the block ends")
        job, is_cut = _Job(call), Event()
        job.context.run(cut_by, is_cut)
        _thread("orchclient-wait", job.perform).start()
        try:
            return cast(T, await job.future)
        except asyncio.CancelledError:
            is_cut.set()
            raise

    def retire(self) -> None:
        """The thread ends as soon as nothing is left to do. Later calls are made all the same."""
        with self._news:
            self._is_retired = True
            self._news.notify()

    # --- the queue ------------------------------------------------------------------------------------------------

    def _submit(self, job: _Job) -> None:
        if self._pid != os.getpid():
            self._start_anew()
        with self._news:
            self._jobs.append(job)
            if self._is_running:
                self._news.notify()
                return
            self._is_running = True
        try:
            _thread("orchclient-calls", self._serve).start()
        except RuntimeError:  # the interpreter ends and starts no thread any more: right here, then
            self._serve(patience_s=0.0)

    def _drop(self, job: _Job) -> None:
        with self._news, suppress(ValueError):  # it has begun
            self._jobs.remove(job)

    # --- in the thread --------------------------------------------------------------------------------------------

    def _serve(self, patience_s: float = IDLE_S) -> None:
        while (work := self._next(patience_s)) is not None:
            work()
            del work  # what it holds may be waiting to be collected

    def _next(self, patience_s: float) -> Callable[[], None] | None:
        """What is to be done next, waited for; None when the thread is to end."""
        with self._news:
            while True:
                holder = self._holder
                job = next((job for job in self._jobs if holder is None or job.inside is holder), None)
                if job is not None:
                    self._jobs.remove(job)
                    return job.perform
                if holder is not None and holder.is_abandoned:
                    return holder.give_up
                if not self._is_awaited(patience_s):
                    self._is_running = False
                    return None

    def _is_awaited(self, patience_s: float) -> bool:
        """Wait for news; False when there is no reason to stay."""
        if not patience_s:
            return False
        if self._holder is None:
            return not self._is_retired and (self._news.wait(patience_s) or bool(self._jobs))
        self._news.wait(LOOK_S)
        self._refuse_late(time.monotonic() - HELD_TOTAL_S)
        return True

    def _refuse_late(self, since: float) -> None:
        """Calls of others wait for the end of a transaction, and not for ever."""
        for job in [job for job in self._jobs if job.since < since and job.inside is not self._holder]:
            self._jobs.remove(job)
            job.fail(OutboxBusy(f"another task was inside transaction() for {HELD_TOTAL_S:g} s: nothing was recorded"))

    # --- a transaction --------------------------------------------------------------------------------------------

    async def finish(self, hold: Hold, call: Callable[[], None]) -> None:
        """Make the last call of a transaction, also when its task is cancelled meanwhile."""
        await asyncio.shield(self._last(hold, call))

    def finish_unseen(self, hold: Hold, call: Callable[[], None]) -> None:
        """The same without waiting for it."""
        self._last(hold, call)

    def _last(self, hold: Hold, call: Callable[[], None]) -> asyncio.Future[Any]:
        job = _Job(call, inside=hold)
        job.future.add_done_callback(_seen)
        self._submit(job)
        return job.future

    def is_held_by(self, hold: object) -> bool:
        """Whether calls are made for one open transaction only, and it is this one."""
        return hold is not None and self._holder is hold

    def hold_for(self, hold: Hold | None) -> None:
        """From now on only calls of its tasks are made; None for everybody's. For the thread itself."""
        self._holder = hold


class Hold:
    """An open transaction: the thread makes the calls of the tasks inside it only, the others wait.

    A record of another task must not be part of it: its receipt would be false when the transaction is rolled back.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._leave: Callable[[BaseException | None], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def is_abandoned(self) -> bool:
        """Whether its loop was closed without ending it."""
        return self._loop is not None and self._loop.is_closed()

    async def begin(self, enter: Callable[[], tuple[T, Callable[[BaseException | None], None]]]) -> T:
        """Enter, in the thread; ``enter`` returns what is entered and how it is left."""
        self._loop = asyncio.get_running_loop()

        def entered() -> T:
            value, self._leave = enter()
            self._calls.hold_for(self)
            return value

        try:
            value = await self._calls.run(entered)
        except asyncio.CancelledError:  # it may have been entered all the same
            self._calls.finish_unseen(self, lambda: self._end(OutboxError("cancelled")))
            raise
        self._outside = _INSIDE.set(self)
        return value

    async def end(self, error: BaseException | None) -> None:
        """End it: committed without an error, else rolled back."""
        try:
            await self._calls.finish(self, lambda: self._end(error))
        finally:
            with suppress(ValueError):  # ended in another context, as generators are
                _INSIDE.reset(self._outside)

    def give_up(self) -> None:
        """In the thread: roll back what nobody will end."""
        try:
            self._end(OutboxError("the event loop was closed inside transaction()"))
        except Exception as error:  # noqa: BLE001  nobody is there to be told
            log.warning("a transaction whose event loop was closed: %s", error)

    def _end(self, error: BaseException | None) -> None:
        leave, self._leave = self._leave, None
        if leave is None:
            return
        try:
            leave(error)
        finally:
            self._calls.hold_for(None)


def _thread(name: str, work: Callable[[], None]) -> Thread:
    return Thread(target=work, name=name, daemon=True)


def _seen(future: asyncio.Future[Any]) -> None:
    """Nobody may be left to await it, and asyncio would say so."""
    if not future.cancelled():
        future.exception()
