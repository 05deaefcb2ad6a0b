"""Time that has passed, without the time in which the machine let nobody in this process work.

A test that says "ends within its deadline and half a second" measures the code and the machine. On a busy host a
process is at times not scheduled for longer than that half second; then nothing the code could do would hold the
bound. So a thread beside it wakes every few milliseconds and adds up how late it was: so much was the machine's.
It only ever sleeps: it is late when the process is kept from running, and not when the code under test waits.
"""

from __future__ import annotations

import threading
import time
from typing import Self

TICK_S = 0.01
LATE_S = 0.006
"""Later than this is the machine; Python hands its lock over after 5 ms, so less is the process itself."""


class Stopwatch:
    """Runs inside a ``with`` block; what it read is kept afterwards."""

    def __init__(self) -> None:
        self.wall_s = 0.0
        """What a clock on the wall says."""
        self.late_s = 0.0
        """How much of that the machine let nobody work."""
        self._over = threading.Event()
        self._lateness = threading.Thread(target=self._watch, name="tests-lateness", daemon=True)

    @property
    def s(self) -> float:
        """What the code is answerable for."""
        return max(0.0, self.wall_s - self.late_s)

    @property
    def so_far_s(self) -> float:
        """What the wall's clock says inside the block."""
        return time.monotonic() - self._began

    def __enter__(self) -> Self:
        self._lateness.start()
        self._began = time.monotonic()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.wall_s = time.monotonic() - self._began
        self._over.set()
        self._lateness.join()

    def _watch(self) -> None:
        due = time.monotonic() + TICK_S
        while not self._over.wait(TICK_S):
            self._count(due)
            due = time.monotonic() + TICK_S
        self._count(due)

    def _count(self, due: float) -> None:
        late_s = time.monotonic() - due
        if late_s > LATE_S:
            self.late_s += late_s
