"""Waiting for other processes: short jittered pauses, to a stated total.

Neither ``flock`` nor SQLite has a wait that ends at a given time and lets go of everything else meanwhile, so what is
taken is tried without waiting, again and again.
"""

from __future__ import annotations

import random
import time

BUSY_TOTAL_S = 5.0
"""How long a call waits for other threads and processes before it raises ``OutboxBusy``."""

_SHORTEST_S, _LONGEST_S = 0.001, 0.02
_PATIENT_S = 0.2
"""Who has waited longer tries as often as it can: nothing else puts those who wait for long before the others."""


class Patience:
    """Pauses until the monotonic time ``until``. The first are short: most waits are for a single commit."""

    def __init__(self, until: float) -> None:
        self._until = until
        self._since = time.monotonic()
        self._pause_s = _SHORTEST_S

    @classmethod
    def of(cls, total_s: float = BUSY_TOTAL_S) -> Patience:
        """Patience for so many seconds from now."""
        return cls(time.monotonic() + total_s)

    def pause(self) -> bool:
        """Pause before the next try; False, at once, when the time is over."""
        now = time.monotonic()
        left_s = self._until - now
        if left_s <= 0:
            return False
        jitter = random.uniform(0.5, 1.0)  # noqa: S311  not a secret
        time.sleep(min(jitter * self._pause_s, left_s))
        self._pause_s = min(1.5 * self._pause_s, _LONGEST_S) if now - self._since < _PATIENT_S else _SHORTEST_S
        return True
