"""A clock that stands still until a test moves it, and that can be set like a host's clock."""

from __future__ import annotations

from random import Random

START_US = 1_795_392_000_000_000  # 2026-11-23
EARLIEST_US = 631_152_000_000_000  # 1990: a clock set back again and again stays within the calendar
LATEST_US = 3_786_912_000_000_000  # 2090
TICK_US = 1


class FakeClock:
    """Time moves by a tick at each look, so that no two instants are equal; chance comes from a fixed seed."""

    def __init__(self) -> None:
        self._wall_us = START_US
        self._elapsed_us = 1_000_000_000
        self._random = Random(7)

    def now_us(self) -> int:
        """UTC microseconds since 1970; may jump."""
        self._wall_us += TICK_US
        return self._wall_us

    def monotonic(self) -> float:
        """Seconds that never jump."""
        self._elapsed_us += TICK_US
        return self._elapsed_us / 1e6

    def jitter(self) -> float:
        """A number in [0, 1)."""
        return self._random.random()

    def randomness(self) -> bytes:
        """Ten bytes that never come again."""
        return self._random.randbytes(10)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self._wall_us += int(seconds * 1e6)
        self._elapsed_us += int(seconds * 1e6)

    def jump(self, seconds: float) -> None:
        """Set the host's clock to another time; what is elapsed stays what it is."""
        self._wall_us = min(max(self._wall_us + int(seconds * 1e6), EARLIEST_US), LATEST_US)
