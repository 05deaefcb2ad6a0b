"""The side lock that keeps checkpoints and commits apart.

SQLite 3.7.0 to 3.51.2 can corrupt a WAL file when a checkpoint meets a commit of another connection
(sqlite.org/wal.html, "The WAL-reset bug"). So every commit holds this file shared and every checkpoint holds it
exclusively, on every version. The locks are ``flock``: they belong to a descriptor, die with its process and do not
mix with the POSIX locks that SQLite puts on its own files. A process that is stopped keeps its locks, so nobody waits
for one without a deadline.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, flock
from functools import partial
from io import FileIO
from pathlib import Path

from orchclient.core.errors import OutboxBusy, OutboxError
from orchclient.outbox.files import create_lock_file
from orchclient.outbox.patience import BUSY_TOTAL_S, Patience


class Gate:
    """One descriptor of the side lock, for the commits of this process. Not reentrant; used by one thread at a time.

    ``enter`` holds the gate shared, or raises ``BlockingIOError`` at once while somebody is alone at it; ``leave`` lets
    go. Both are the system call and no function of Python: in one, a KeyboardInterrupt can come before the call.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = create_lock_file(Path(path))
        self.enter: Callable[[], None] = partial(flock, self._fd, LOCK_SH | LOCK_NB)
        self.leave: Callable[[], None] = partial(flock, self._fd, LOCK_UN)

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the gate shared for a block. Raises ``OutboxBusy`` when others are alone at it for too long."""
        patience = Patience.of()
        while not _is_done(self.enter, self.path):
            if not patience.pause():
                raise busy(self.path)
        try:
            yield
        finally:
            self.leave()

    def close(self) -> None:
        """Close the descriptor without unlocking: in a forked child an unlock would free the parent's lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


@contextmanager
def alone(path: str, total_s: float = BUSY_TOTAL_S) -> Iterator[None]:
    """Hold the lock file exclusively for a block. Raises ``OutboxBusy`` when others hold it for so long."""
    with lock_file(path) as file:
        if not is_locked_alone(file, total_s):
            raise busy(path)
        yield


def lock_file(path: str) -> FileIO:
    """A lock file with a descriptor of its own: to close it unlocks it, and the end of ``with`` closes it.

    The end of its ``with`` is not a function of Python, so no KeyboardInterrupt can come before it.
    """
    return FileIO(path, "r+", opener=lambda name, _: create_lock_file(Path(name)))


def is_locked_alone(file: FileIO, total_s: float) -> bool:
    """Lock a lock file exclusively; False when others hold it for so long."""
    patience = Patience.of(total_s)
    lock = partial(flock, file.fileno(), LOCK_EX | LOCK_NB)
    while not _is_done(lock, str(file.name)):
        if not patience.pause():
            return False
    return True


def _is_done(lock: Callable[[], None], path: str) -> bool:
    try:
        lock()
    except BlockingIOError:
        return False
    except OSError as error:
        raise refused(path, error) from error
    return True


def busy(path: str) -> OutboxBusy:
    """Others do not let go of a lock file."""
    return OutboxBusy(
        f"outbox: another process holds {path} for too long, perhaps it is stopped: see orchclient status for who, "
        "then let it go on or end it; nothing recorded before is lost"
    )


def refused(path: str, error: OSError) -> OutboxError:
    """The system does not give the lock."""
    return OutboxError(
        f"outbox: the lock {path} cannot be taken: {error.strerror or error}; check the disk and the limits of the "
        "system, then try again"
    )
