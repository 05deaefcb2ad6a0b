"""Wakes those who wait for an inbox: at once for what this process put there, soon for what another one did.

While anybody waits, one thread asks the database how far the inboxes reach, four times a second, whatever the number of
those who wait; while nobody does, nothing runs.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

LOOK_S: Final = 0.25
MOST_WAITING: Final = 32

Look = Callable[[Sequence[str]], Mapping[str, int]]
"""How far the inboxes of these sources reach."""


class Bell:
    """Threads wait at it for their source; ``close`` lets all go and nobody wait any more."""

    def __init__(self, look: Look, *, most: int = MOST_WAITING) -> None:
        self._look = look
        self._most = most
        self._changed = threading.Condition()
        self._waiting: Counter[str] = Counter()
        self._rings: Counter[str] = Counter()
        self._watcher: threading.Thread | None = None
        self._is_closed = False

    @property
    def waiting(self) -> int:
        """How many wait now."""
        with self._changed:
            return self._waiting.total()

    def wait(self, source: str, is_there: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until something is there; false after the timeout, when closed, and at once when too many wait."""
        until = time.monotonic() + timeout_s
        with self._changed:
            if self._is_closed or self._waiting.total() >= self._most:
                return False
            self._waiting[source] += 1
            rings = self._rings[source]
            self._watch()
        try:
            while not is_there():
                rings = self._next_ring(source, rings, until)
                if rings < 0:
                    return False
            return True
        finally:
            with self._changed:
                self._waiting[source] -= 1
                if not self._waiting[source]:
                    del self._waiting[source]
                    self._rings.pop(source, None)
                self._changed.notify_all()

    def _next_ring(self, source: str, after: int, until: float) -> int:
        with self._changed:
            is_rung = self._changed.wait_for(
                lambda: self._is_closed or self._rings[source] != after, max(0.0, until - time.monotonic())
            )
            return self._rings[source] if is_rung and not self._is_closed else -1

    def ring(self, sources: Sequence[str]) -> None:
        """Something was put into these inboxes, and is committed."""
        with self._changed:
            for source in sources:
                if source in self._waiting:
                    self._rings[source] += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let everybody go, now and from now on."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            watcher = self._watcher
        if watcher is not None:
            watcher.join(LOOK_S * 4)

    def _watch(self) -> None:
        if self._watcher is None or not self._watcher.is_alive():
            self._watcher = threading.Thread(target=self._run, name="orchclient-bell", daemon=True)
            self._watcher.start()

    def _run(self) -> None:
        known: dict[str, int] = {}
        while True:
            with self._changed:
                if self._is_closed or not self._waiting:
                    self._watcher = None
                    return
                sources = list(self._waiting)
            found = self._reach(sources)
            self.ring([source for source in sources if found.get(source, 0) != known.get(source, -1)])
            known = {source: found.get(source, 0) for source in sources}
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or not self._waiting, LOOK_S)

    def _reach(self, sources: Sequence[str]) -> Mapping[str, int]:
        try:
            return self._look(sources)
        except Exception:  # noqa: BLE001  a database that is away: who waits asks again, and tells it then
            return {}
