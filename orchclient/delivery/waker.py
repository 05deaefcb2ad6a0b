"""Waking a thread that has nothing to do, at next to no cost for the one who wakes."""

from __future__ import annotations

from contextlib import suppress
from queue import Empty, SimpleQueue


class Waker:
    """One sleeper, many wakers. A wake-up before the sleep is not lost.

    The bell is a queue in C, not an Event: a waker that is interrupted (KeyboardInterrupt) leaves no lock behind.
    """

    def __init__(self) -> None:
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._is_awaited = False
        self._woken = self._called = False

    def wake(self) -> None:
        """Something was recorded here: end the current sleep, or the next one before it begins."""
        self._woken = True
        if self._is_awaited:
            self._is_awaited = False
            self._bell.put(None)

    def call(self) -> None:
        """The same for any other reason."""
        self._called = True
        if self._is_awaited:
            self._is_awaited = False
            self._bell.put(None)

    @property
    def is_woken(self) -> bool:
        """Whether something was recorded here since the last sleep ended."""
        return self._woken

    def sleep(self, seconds: float | None) -> None:
        """Sleep until woken, at most so long; None means until woken."""
        while not self._bell.empty():  # rung while the last sleep ended
            self._bell.get()
        self._is_awaited = True
        # Looked at after the flag is up: a waker either sees the flag or is seen here.
        if not (self._woken or self._called):
            with suppress(Empty):
                self._bell.get(timeout=seconds)
        self._is_awaited = False
        self._woken = self._called = False


def rest_for_ever() -> None:
    """The end of a greenlet that was copied into a forked child: for threading it is no thread of this process.

    Returning would raise there (Python forgets the parent's threads in a child). Nothing waits for it.
    """
    Waker().sleep(None)
