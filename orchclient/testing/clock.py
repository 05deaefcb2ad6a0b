"""A clock that a test moves: ids, times and back-offs are the same in every run, and nothing waits for hours."""

from __future__ import annotations

import threading
import time
from random import Random

from orchclient import config

START_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
TICK_US = 1_000
LOOK_S = 0.25


class ManualClock:
    """The date stands still but for a millisecond at each look; chance comes from a fixed seed.

        client = OrchestratorClient("agent", clock=ManualClock())

    Elapsed time goes on as it does, so that no deadline is missed in a wait; ``advance`` moves both. Threads may share
    it.
    """

    def __init__(self, start_us: int = START_US, seed: int = 7) -> None:
        self._lock = threading.Lock()
        self._now_us = start_us
        self._ahead_s = 0.0
        self._random = Random(seed)  # noqa: S311  not for secrets: the same in every run

    def now_us(self) -> int:
        """UTC microseconds since 1970."""
        with self._lock:
            self._now_us += TICK_US
            return self._now_us

    def monotonic(self) -> float:
        """Seconds that never jump back."""
        return time.monotonic() + self._ahead_s

    def jitter(self) -> float:
        """A number in [0, 1)."""
        with self._lock:
            return self._random.random()

    def randomness(self) -> bytes:
        """Ten bytes that never come again."""
        with self._lock:
            return self._random.randbytes(10)

    def sleep(self, seconds: float) -> None:
        """Time passes, and nobody waits: but for the short looks while an answer is awaited, which others need."""
        if seconds <= LOOK_S:
            time.sleep(seconds)
        else:
            self.advance(seconds)

    def advance(self, by: float | str) -> None:
        """Let time pass at once: seconds, or a text such as ``5m`` or ``2h``."""
        seconds = _seconds(by)
        with self._lock:
            self._now_us += int(seconds * 1e6)
            self._ahead_s += seconds

    def jump(self, by: float | str) -> None:
        """Set the date forwards or, with a negative number, back, as an operator may; no time passes."""
        seconds = _seconds(by)
        with self._lock:
            self._now_us += int(seconds * 1e6)


def _seconds(by: float | str) -> float:
    if not isinstance(by, str):
        return by
    try:
        return config.seconds(by)
    except ValueError:
        raise ValueError(f"{by!r} is no duration: seconds as a number, or a text such as 90s, 15m, 2h or 30d") from None
