"""Waking a thread that has nothing to do, at next to no cost for the one who wakes."""

from __future__ import annotations

import threading


class Waker:
    """One sleeper, many wakers. A wake-up before the sleep is not lost."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._is_awaited = False
        self._woken = False

    def wake(self) -> None:
        """End the current sleep, or the next one before it begins."""
        self._woken = True
        if self._is_awaited:
            self._event.set()

    def sleep(self, seconds: float | None) -> None:
        """Sleep until woken, at most so long; None means until woken."""
        self._event.clear()
        self._is_awaited = True
        # Looked at after the flag is up: a waker either sees the flag or is seen here.
        if not self._woken:
            self._event.wait(seconds)
        self._is_awaited = False
        self._woken = False
