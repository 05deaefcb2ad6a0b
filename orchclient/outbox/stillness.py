"""Letting a fork wait until no thread is inside SQLite or an import.

A child that is forked while another thread holds one of SQLite's own mutexes, or an import lock, meets that lock held
for ever. What may be interrupted by a fork runs inside ``with stillness:``; the hook before a fork waits for its end.
"""

from __future__ import annotations

import threading
from types import TracebackType


class Stillness:
    """Any number of threads inside, or one fork. Not reentrant for the thread that forks."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._is_held = False

    def __enter__(self) -> None:
        with self._changed:
            while self._is_held:
                self._changed.wait()
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._inside -= 1
            if not self._inside:
                self._changed.notify_all()

    def hold(self, timeout_s: float) -> None:
        """Let nobody in, and wait until everybody is out, at most so long."""
        with self._changed:
            self._is_held = True
            self._changed.wait_for(lambda: not self._inside, timeout_s)

    def release(self) -> None:
        """Let everybody in again."""
        with self._changed:
            self._is_held = False
            self._changed.notify_all()
