"""Which process delivers to a sink: whoever holds the kernel lock on its side file.

A kernel lock is freed the moment its process dies, and needs no clock. The epoch in the outbox fences a flusher that
was stopped, lost the lock with its file and woke up again.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from orchclient.core.errors import OutboxError
from orchclient.outbox.files import create_lock_file


def lock_path(outbox_path: str, sink: str) -> str:
    """The side file whose lock elects the flusher of a sink."""
    return f"{outbox_path}.flusher-{sink}"


class Election:
    """The lock of one sink. ``path`` is the lock file."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._pid = 0

    @property
    def is_won(self) -> bool:
        """Whether this process, not a parent it was forked from, holds the lock."""
        return self._fd >= 0 and self._pid == os.getpid()

    def stand(self) -> bool:
        """Try to win without waiting; whether this process delivers now."""
        if self.is_won:
            return True
        fd = create_lock_file(Path(self._path))
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        self._fd, self._pid = fd, os.getpid()
        return True

    def resign(self) -> None:
        """Let another process deliver. In a forked child the descriptor is closed, which frees nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def is_held(path: str) -> bool:
    """Whether some process delivers now. Asking makes no file, and takes the lock for a moment if nobody has it."""
    if not os.path.lexists(path):
        return False
    election = Election(path)
    try:
        if not election.stand():
            return True
    except OutboxError:  # a file that nobody can lock: who tries to deliver is told why
        return False
    election.resign()
    return False
