"""Syncing the -wal after a commit, without SQLite.

With synchronous=FULL, SQLite syncs before a commit is over, and holds its write lock meanwhile: processes then queue
for one sync each. What is committed with NORMAL is in the file, and visible to others, at once; a sync of the file
makes it as durable as FULL does, and the next process commits while it is under way. See
docs/decisions/0026-sync-behind-the-lock.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

_sync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)  # as SQLite does, where there is no fdatasync


class WalSync:
    """A descriptor of the -wal of an outbox that is open.

    The one file of SQLite's of which there may be another descriptor: its locks are on the database and the -shm, never
    on the -wal (sqlite.org/walformat.html, section 2.3). Opened before anything is committed that it is to sync: an
    error is reported to descriptors that were open when it happened (fsync(2), "Errors").
    """

    def __init__(self, descriptor: int) -> None:
        self._fd = descriptor
        self.sync: Callable[[], None] = partial(_sync, self._fd)
        """Everything committed survives power loss. Raises ``OSError``: then nobody knows what is on the disk."""

    @classmethod
    def of(cls, path: str) -> WalSync:
        """Of the outbox at ``path``. Raises ``OSError``."""
        return cls(os.open(path + "-wal", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))

    def another(self) -> WalSync:
        """One more descriptor of the same file, for a thread that syncs while others commit, or open the files anew."""
        return WalSync(os.dup(self._fd))

    def close(self) -> None:
        """Close the descriptor."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
