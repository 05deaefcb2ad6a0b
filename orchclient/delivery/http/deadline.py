"""The deadline: one thread that strikes when an armed instant passes.

A timeout on each read does not stop a server that drips, so something outside the exchange has to end it.
Waking a thread for each exchange costs latency, so arming and disarming wake nobody in the normal case: the
thread sleeps until the earliest instant at which a deadline of the usual length could strike, and looks then.
Knows nothing of sockets.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_NEVER = float("inf")
_NEVER_ENOUGH = -(10**9)
_NAPS = 2  # unused naps after which the thread ends itself
_NAP_LENGTH = 0.9  # of the last deadline: a little less than the next one, which began before it was armed


class Watchdog:
    """Calls ``strike`` when the armed instant passes, and never after :meth:`disarm` has returned."""

    def __init__(self, strike: Callable[[], None]) -> None:
        self._strike = strike
        self._state = threading.Condition(threading.Lock())
        self._due = _NEVER
        self._wakes_at = _NEVER
        self._usual_s = 0.0
        self._unused_naps = 0
        self._closed = False
        self._thread: threading.Thread | None = None

    def arm(self, due: float, length_s: float) -> None:
        """Strike at the monotonic instant ``due``, ``length_s`` seconds from now, unless disarmed before."""
        with self._state:
            self._due, self._usual_s, self._unused_naps = due, length_s, 0
            if due < self._wakes_at and self._rouse():
                self._wakes_at = due

    def disarm(self) -> None:
        """Do not strike."""
        with self._state:
            self._due = _NEVER

    def close(self) -> None:
        """End the thread; arming does nothing from here on."""
        with self._state:
            self._closed = True
            thread = self._thread
            self._state.notify()
        if thread is not None:
            thread.join(1.0)

    def forget_inherited(self) -> None:
        """In a forked child: the thread is gone, and a greenlet (gevent) that lives on strikes no more.

        It does not end either: for threading it is no thread of this process, and ending it would raise.
        """
        self._due, self._unused_naps = _NEVER, _NEVER_ENOUGH

    def _rouse(self) -> bool:
        if self._thread is None and not self._closed:
            self._thread = self._started()
        self._state.notify()
        return self._thread is not None

    def _started(self) -> threading.Thread | None:
        thread = threading.Thread(target=self._run, name="orchclient-deadline", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # Python 3.12 starts no thread once the interpreter is exiting, and a system can be out of them.
            # The timeout on each step and the look at the clock before each read then have to do.
            return None
        return thread

    def _run(self) -> None:
        with self._state:
            while not self._closed and self._unused_naps < _NAPS:
                self._nap(time.monotonic())
            self._thread, self._wakes_at = None, _NEVER

    def _nap(self, now: float) -> None:
        if self._due <= now:
            self._due = _NEVER
            self._strike()
        if self._due < _NEVER:
            self._wakes_at = self._due
        else:
            self._unused_naps += 1
            self._wakes_at = now + _NAP_LENGTH * self._usual_s
        self._state.wait(self._wakes_at - now)
