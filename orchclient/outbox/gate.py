"""The side lock that keeps checkpoints and commits apart.

SQLite 3.7.0 to 3.51.2 can corrupt a WAL file when a checkpoint meets a commit of another connection
(sqlite.org/wal.html, "The WAL-reset bug"). So every commit holds this file shared and every checkpoint holds it
exclusively, on every version. The locks are ``flock``: they belong to a descriptor, die with its process and do not
mix with the POSIX locks that SQLite puts on its own files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, flock
from pathlib import Path

from orchclient.outbox.files import create_lock_file


class Gate:
    """One descriptor of the side lock. Not reentrant; used by one thread at a time."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = create_lock_file(Path(path))

    def enter(self) -> None:
        """Hold the gate shared, for a commit."""
        flock(self._fd, LOCK_SH)

    def leave(self) -> None:
        """Let go of the gate."""
        flock(self._fd, LOCK_UN)

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the gate shared for a block."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Hold the gate exclusively for a block, waiting for commits in progress."""
        flock(self._fd, LOCK_EX)
        try:
            yield True
        finally:
            self.leave()

    @contextmanager
    def try_alone(self) -> Iterator[bool]:
        """Hold the gate exclusively for a block if nobody commits right now; the value tells whether it is held."""
        try:
            flock(self._fd, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            self.leave()

    def close(self) -> None:
        """Close the descriptor without unlocking: in a forked child an unlock would free the parent's lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
