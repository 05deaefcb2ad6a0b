"""What a fork waits for, and what its child begins anew: for every outbox that is open in this process.

The hooks of a fork cannot be taken back, so they are registered once and look for outboxes that are still alive. Rule 5
of "What SQLite needs from us" in docs/architecture.md.
"""

from __future__ import annotations

import os
import time
import weakref
from typing import Protocol

from orchclient.outbox.stillness import STILLNESS

FORK_TOTAL_S = 10.0


class Forkable(Protocol):
    """An outbox, as a fork sees it."""

    @property
    def is_still(self) -> bool:
        """Whether no other thread can commit."""

    def hold_still(self, until: float) -> None:
        """Before a fork: wait until no thread commits, at most until the monotonic time ``until``."""

    def go_on(self) -> None:
        """After a fork, in the parent."""

    def start_anew(self) -> None:
        """After a fork, in the child."""


_watched: dict[int, weakref.ref[Forkable]] = {}


def watch(outbox: Forkable) -> None:
    """From now on forks heed this outbox, as long as it lives."""
    key = id(outbox)
    _watched[key] = weakref.ref(outbox, lambda _: _watched.pop(key, None))


def _live() -> list[Forkable]:
    """Those that are alive now. Other threads may open and drop outboxes meanwhile; a WeakSet must not change then."""
    return [outbox for known in list(_watched.values()) if (outbox := known()) is not None]


def _hold_still() -> None:
    """So that a child inherits no lock that is held: first no commits, then nobody else inside SQLite.

    In this order: who commits may come to stillness, and who is there never waits for one who commits.
    """
    until = time.monotonic() + FORK_TOTAL_S
    while not _is_still(until) and time.monotonic() < until:
        STILLNESS.release()


def _is_still(until: float) -> bool:
    for outbox in _live():
        outbox.hold_still(until)
    STILLNESS.hold(until)
    return all(outbox.is_still for outbox in _live())  # another one may have been opened meanwhile


def _go_on() -> None:
    STILLNESS.release()
    for outbox in _live():
        outbox.go_on()


def _start_anew() -> None:
    STILLNESS.start_anew()
    for outbox in _live():
        outbox.start_anew()


os.register_at_fork(before=_hold_still, after_in_parent=_go_on, after_in_child=_start_anew)
