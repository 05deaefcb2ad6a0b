"""How a wait that nobody waits for any more is ended: whoever started it says so, and the wait looks.

A thread cannot be interrupted from outside, so every wait for other processes or people looks at short intervals; what
it looks at comes in by the context it runs in, since a wait is begun several calls above the place where it looks.
"""

from __future__ import annotations

from contextvars import ContextVar
from threading import Event

_CUT: ContextVar[Event | None] = ContextVar("orchclient_wait_is_cut", default=None)


def cut_by(event: Event) -> None:
    """Waits in this context end soon after the event is set, as if their time were over."""
    _CUT.set(event)


def is_cut() -> bool:
    """Whether nobody waits for what this context waits for."""
    event = _CUT.get()
    return event is not None and event.is_set()
