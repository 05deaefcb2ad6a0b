"""Failed logins of an address: ten at once, then one more every half minute."""

from __future__ import annotations

import threading
from typing import Final

MOST: Final = 10
EACH_S: Final = 30.0
_MOST_ADDRESSES: Final = 4_096


class Guesses:
    """Kept in memory, by each process for itself. Threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spent_until: dict[str, float] = {}

    def wait_s(self, address: str, now_s: float) -> float:
        """How long this address has to wait before it may try again; 0 when it may now."""
        with self._lock:
            spent_s = self._spent_until.get(address, now_s) - now_s
        return max(0.0, spent_s - (MOST - 1) * EACH_S)

    def failed(self, address: str, now_s: float) -> None:
        """One more attempt failed."""
        with self._lock:
            spent_until = max(self._spent_until.pop(address, now_s), now_s) + EACH_S
            self._spent_until[address] = spent_until  # at the end: who has been quiet for long is forgotten first
            if len(self._spent_until) > _MOST_ADDRESSES:
                del self._spent_until[next(iter(self._spent_until))]
