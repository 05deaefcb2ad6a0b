"""Waiting for other processes: short jittered pauses, to a stated total.

Neither ``flock`` nor SQLite has a wait that ends at a given time and lets go of everything else meanwhile, so what is
taken is tried without waiting, again and again.
"""

from __future__ import annotations

import random
import time

BUSY_TOTAL_S = 5.0
"""How long a call waits for other threads and processes before it raises ``OutboxBusy``."""

_PAUSES_S = ((0.001, 0.0005), (1.0, 0.003))
"""Until it has waited for so long, it pauses for so long: a look or two soon, since most waits are for a single commit;
then seldom, since each look takes time from those who work."""

_LONG_S = 0.005
"""Somebody is stopped, or moves a large -wal."""


class Patience:
    """Pauses until the monotonic time ``until``."""

    def __init__(self, until: float) -> None:
        self._until = until
        self._since = time.monotonic()

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
        waited_s = now - self._since
        pause_s = next((pause_s for until_s, pause_s in _PAUSES_S if waited_s < until_s), _LONG_S)
        jitter = random.uniform(0.5, 1.0)  # noqa: S311  not a secret
        time.sleep(min(jitter * pause_s, left_s))
        return True
