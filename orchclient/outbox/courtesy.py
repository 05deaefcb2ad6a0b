"""Letting those go first who have waited for longer: a courtesy between processes that record at the same time.

SQLite's write lock has no queue: a process that records as fast as it can has it again before one that pauses between
its tries looks. So who has waited for a while says so, by a shared lock of one byte, and who begins to wait, or comes
again after it met others, leaves the file to those who said so, until it has waited for as long itself. Only a
courtesy: the lock is lost when the process closes another descriptor of the file, and stays with a process that was
stopped; then somebody waits for a little longer. POSIX locks, since who waits is a process; they do not mix with the
``flock`` on the same file, which is the gate.
"""

from __future__ import annotations

import time
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, lockf

OLD_S = 0.02
"""Who has waited for so long asks to go first."""

MET_FOR_S = 1.0
"""For so long after it met others a process looks who has waited for longer before it begins."""

_BYTE = 1


class Courtesy:
    """Of one process towards the others, on the descriptor of a lock file. Used by one thread at a time."""

    def __init__(self, descriptor: int) -> None:
        self._fd = descriptor
        self._met_at = 0.0
        self.is_alone = True  # no other process was met lately; looked at by every commit

    def meet(self) -> None:
        """Another process has what this one wants."""
        self.is_alone = False
        self._met_at = time.monotonic()

    def others_are_older(self) -> bool:
        """Whether another process asks to go first."""
        if time.monotonic() - self._met_at > MET_FOR_S:
            self.is_alone = True
            return False
        try:
            lockf(self._fd, LOCK_EX | LOCK_NB, 1, _BYTE)
        except OSError:
            return True
        self.thank()
        return False

    def ask(self) -> None:
        """This process has waited for long: it asks the others to let it go first."""
        with suppress(OSError):  # somebody looks at this moment; it is asked again at the next try
            lockf(self._fd, LOCK_SH | LOCK_NB, 1, _BYTE)

    def thank(self) -> None:
        """It has waited enough."""
        with suppress(OSError):  # a file system without such locks
            lockf(self._fd, LOCK_UN, 1, _BYTE)
