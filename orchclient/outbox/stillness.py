"""Letting a fork wait until no thread is inside SQLite or an import.

A child that is forked while another thread holds one of SQLite's own mutexes, or an import lock, meets that lock held
for ever. What may not be interrupted by a fork runs inside ``with STILLNESS:``; the hook before a fork waits for its
end. There is one for the whole process, because SQLite's mutexes and the imports are the process's too.

Commits are not inside: a fork waits for each outbox's writer before it waits here. So whoever leads a writer may come
in, and who is inside must not wait for a writer.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType


class Stillness:
    """Any number of threads inside, or one fork. Not reentrant.

    Who is inside is known by thread: a thread whose way out was cut short by an interrupt is out after its next visit.
    """

    def __init__(self) -> None:
        self._inside: set[int] = set()
        self._closed = threading.Lock()  # held during a fork

    def __enter__(self) -> None:
        me = threading.get_ident()
        self._inside.add(me)  # before the look: either the fork sees this thread, or this thread sees the fork
        while self._closed.locked():
            self._inside.discard(me)
            with self._closed:
                pass
            self._inside.add(me)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._inside.discard(threading.get_ident())

    def hold(self, until: float) -> None:
        """Let nobody in, and wait until everybody else is out, at most until the monotonic time ``until``."""
        self._closed.acquire()
        me = threading.get_ident()
        while set(self._inside) - {me} and time.monotonic() < until:
            time.sleep(LOOK_AGAIN_S)

    def release(self) -> None:
        """Let everybody in again."""
        self._closed.release()

    def start_anew(self) -> None:
        """In a forked child: the other threads are gone."""
        self._inside, self._closed = set(), threading.Lock()


LOOK_AGAIN_S = 0.001

STILLNESS = Stillness()
