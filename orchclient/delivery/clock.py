"""The one place that asks for the time and for randomness."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol


class Clock(Protocol):
    """Time and chance, injectable: tests bring their own."""

    def now_us(self) -> int:
        """UTC microseconds since 1970; may jump."""

    def monotonic(self) -> float:
        """Seconds that never jump, for elapsed time and deadlines."""

    def jitter(self) -> float:
        """A number in [0, 1)."""

    def randomness(self) -> bytes:
        """Ten random bytes, for ids."""

    def sleep(self, seconds: float) -> None:
        """Let time pass, for an agent that asked to wait; the client itself never sleeps."""


def _source_of_randomness() -> Callable[[int], bytes]:
    """getrandom(2) where there is one and nobody forbids it: unlike urandom(), CPython calls it without letting go of
    the interpreter, so no other thread comes in between.
    """
    try:
        os.getrandom(1)
    except (AttributeError, OSError):
        return os.urandom
    return os.getrandom


class SystemClock:
    """The machine's clock and randomness."""

    @staticmethod
    def now_us() -> int:
        """UTC microseconds since 1970."""
        return time.time_ns() // 1000

    monotonic = staticmethod(time.monotonic)
    jitter = staticmethod(random.random)
    sleep = staticmethod(time.sleep)
    randomness = staticmethod(partial(_source_of_randomness(), 10))
    """Ten bytes of the kernel's randomness: not shared with a forked child, nor with a copy of the whole machine."""
