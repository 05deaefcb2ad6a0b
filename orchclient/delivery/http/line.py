"""The line: the exchange under way on a transport and what it runs over, so that another thread can cut it.

Knows nothing of HTTP, of urllib3, or of why somebody cuts.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Protocol

TIMED_OUT = "timeout"
CLOSED = "closed"


class Cut(Exception):
    """The exchange was cut before it had a socket that could be shut down, so it has to stop by itself."""


class Wire(Protocol):
    """One connection, as the line sees it: called under the line's lock only."""

    def watch(self, handle: socket.socket | None) -> None:
        """Be cut by this duplicate of the socket from now on, and close the one before."""

    def shut_down(self) -> None:
        """End reading and writing at once, whatever waits for them."""

    def settle(self) -> None:
        """The exchange is over."""

    def forget_inherited(self) -> None:
        """In a forked child: let go of the parent's connection without ending it."""


class Line:
    """One exchange at a time. Sending belongs to one thread; :meth:`cut` and :meth:`close` to any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wire: Wire | None = None
        self._busy = False
        self._cut_by = ""
        self.due = 0.0  # the monotonic instant at which the exchange has to be over
        self.meanwhile: Callable[[], None] | None = None  # done once the request is on its way
        self.target = ""  # what is asked of the server: kept here because urllib3 would log it
        self.must_be_public = False  # whether the host that is dialled may have no private address

    def begin(self, due: float) -> bool:
        """Start an exchange; False when the line is closed."""
        with self._lock:
            if self._busy:
                raise RuntimeError("a transport serves one thread, and an exchange is under way on it")
            if self._cut_by == CLOSED:
                return False
            self._busy, self._cut_by, self.due = True, "", due
            return True

    def hold(self, wire: Wire, handle: socket.socket | None = None) -> None:
        """The exchange runs over this wire from now on, to be cut by ``handle`` if that is a new one.

        Raises :class:`Cut` when the exchange has been cut before.
        """
        with self._lock:
            self._wire = wire
            if handle is not None:
                wire.watch(handle)
            self._raise_if_cut()

    def check(self) -> None:
        """Raise :class:`Cut` when the exchange has been cut."""
        with self._lock:
            self._raise_if_cut()

    def holds(self, wire: Wire) -> bool:
        """Whether the exchange under way runs over this wire."""
        return self._wire is wire

    def left_s(self) -> float:
        """Seconds until the exchange is due; raises ``TimeoutError`` when there are none."""
        left = self.due - time.monotonic()
        if not left > 0:  # also for NaN
            raise TimeoutError
        return left

    def cut(self, by: str = TIMED_OUT) -> None:
        """End the exchange under way, whatever it waits for (except name resolution)."""
        with self._lock:
            if self._busy and not self._cut_by:
                self._cut_by = by
                self._shut_down()

    def close(self) -> bool:
        """Cut and refuse every later exchange; whether none was under way."""
        with self._lock:
            self._cut_by = CLOSED
            self._shut_down()
            return not self._busy

    def end(self) -> str:
        """The exchange is over: what it was cut by, or nothing."""
        with self._lock:
            self._busy = False
            wire, self._wire = self._wire, None
            if wire is not None:
                wire.settle()
            return self._cut_by

    def forget_inherited(self) -> None:
        """In a forked child: refuse every exchange; one that a greenlet carries on meets a dead socket."""
        self._lock = threading.Lock()  # a thread that is gone may hold the old one
        self._cut_by = CLOSED
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.forget_inherited()

    def _raise_if_cut(self) -> None:
        if self._cut_by:
            raise Cut

    def _shut_down(self) -> None:
        if self._wire is not None:
            self._wire.shut_down()
