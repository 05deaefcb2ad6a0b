"""The world of a simulated day, shared by processes: one clock that stands still, and what is wrong at the moment.

A page of shared memory holds both. A process under this clock has real threads, locks and sockets; only its sleeps end
by this clock (``Watch``), so that an hour costs nothing and a minute is over when nobody has anything left to do.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from random import Random

START_US = 1_795_392_000_000_000  # 2026-11-23, midnight
SINCE_BOOT_US = 1_000_000_000
MINUTE_US = 60_000_000

TOKEN_IS_WORN, LEDGER_FAILS, LEDGER_HANGS = range(1, 4)
"""Places in the page of what processes have to know; the first is the time."""


class World:
    """The shared page, mapped by every process of the day."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(mmap.PAGESIZE))
        descriptor = os.open(path, os.O_RDWR)
        self._page = mmap.mmap(descriptor, mmap.PAGESIZE)
        os.close(descriptor)

    def at(self, place: int) -> int:
        """What stands at a place."""
        value: int = struct.unpack_from("q", self._page, 8 * place)[0]
        return value

    def put(self, place: int, value: int) -> None:
        """Let every process know."""
        struct.pack_into("q", self._page, 8 * place, value)


class DayClock:
    """The day's clock; chance is seeded for each process."""

    def __init__(self, world: World, seed: str) -> None:
        self._world = world
        self._random = Random(seed)

    def now_us(self) -> int:
        """UTC microseconds since 1970."""
        return START_US + self._world.at(0)

    def monotonic(self) -> float:
        """Seconds of this day, and some before it."""
        return (SINCE_BOOT_US + self._world.at(0)) / 1e6

    def jitter(self) -> float:
        """A number in [0, 1)."""
        return self._random.random()

    @staticmethod
    def randomness() -> bytes:
        """Ten bytes that never come again, in no process."""
        return os.urandom(10)


class Watch:
    """Knows every thread of this process that delivers or keeps house, and when each wants to be woken."""

    def __init__(self, world: World, clock: DayClock) -> None:
        self.world = world
        self.clock = clock
        self.changed = threading.Condition()
        self.seen_s = -math.inf  # what time it was when this process was last told to look
        self.stuck: dict[
            int, Callable[[], bool]
        ] = {}  # threads that wait for a destination, and whether it still hangs
        self._wakers: weakref.WeakSet[DayWaker] = weakref.WeakSet()

    def waker(self) -> DayWaker:
        """In place of ``delivery.waker.Waker``."""
        made = DayWaker(self)
        with self.changed:
            self._wakers.add(made)
        return made

    def until_still(self, timeout_s: float) -> bool:
        """Let time be what the world says, and wait until nobody in this process has anything to do."""
        with self.changed:
            # Not whenever a thread looks: one would begin the next minute before the agents have spoken, or while
            # they speak, and be asleep again when it should look.
            self.seen_s = self.clock.monotonic()
            self.changed.notify_all()
            return self.changed.wait_for(lambda: all(each.is_still for each in list(self._wakers)), timeout_s)

    def hang_while(self, is_stuck: Callable[[], bool]) -> None:
        """Block this thread, as a destination does that never answers, until the world changes."""
        with self.changed:
            self.stuck[threading.get_ident()] = is_stuck
            self.changed.notify_all()
            self.changed.wait_for(lambda: not is_stuck())
            del self.stuck[threading.get_ident()]

    def is_stuck(self, thread: threading.Thread | None) -> bool:
        """Whether a thread waits for a destination that hangs."""
        stuck = self.stuck.get(thread.ident or 0) if thread else None
        return stuck is not None and stuck()


class DayWaker:
    """As the real one, but sleeps by the day's clock."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._thread: threading.Thread | None = None
        self._woken = self._called = False
        self._due_s = -math.inf
        self._is_asleep = False

    @property
    def is_gone(self) -> bool:
        """Whether its thread has ended."""
        return self._thread is not None and not self._thread.is_alive()

    @property
    def is_still(self) -> bool:
        """Whether its thread has nothing to do now."""
        if self.is_gone or self._watch.is_stuck(self._thread):
            return True
        return self._is_asleep and not self._is_due

    @property
    def _is_due(self) -> bool:
        return self._woken or self._called or self._watch.seen_s >= self._due_s

    @property
    def is_woken(self) -> bool:
        """Whether something was recorded here since the last sleep ended."""
        return self._woken

    def wake(self) -> None:
        """Something was recorded here: end the current sleep, or the next one before it begins."""
        with self._watch.changed:
            self._woken = True
            self._watch.changed.notify_all()

    def call(self) -> None:
        """The same for any other reason."""
        with self._watch.changed:
            self._called = True
            self._watch.changed.notify_all()

    def sleep(self, seconds: float | None) -> None:
        """Sleep until woken, or until the day has gone on so far."""
        with self._watch.changed:
            self._thread = threading.current_thread()
            self._due_s = math.inf if seconds is None else self._watch.clock.monotonic() + seconds
            self._is_asleep = True
            self._watch.changed.notify_all()
            self._watch.changed.wait_for(lambda: self._is_due)
            self._is_asleep = self._woken = self._called = False
