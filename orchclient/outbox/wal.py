"""How large the -wal of an outbox is, and who keeps it from shrinking.

What is in the -wal can be moved into the database only up to the oldest state that somebody still reads, and the -wal
begins anew only when nobody reads from it (sqlite.org/wal.html, "Avoiding Excessively Large WAL Files"). So a reader
that never ends makes it grow with every commit. It is then told, counted towards ``max_outbox_bytes``, and cut when the
reader is gone.
"""

from __future__ import annotations

import logging
import os
import time

from attrs import frozen

from orchclient.outbox.holders import Holder, holders, lasting_holders

log = logging.getLogger("orchclient")

MIB = 1_048_576
WAL_LIMIT = 64 * MIB
"""Beyond it a -wal is moved at once, cut when it is moved, and counted towards the limit of the outbox."""

TRY_AGAIN_S = 1.0


@frozen
class WalReport:
    """The -wal now. ``held_by``: who keeps it beyond its limit, and who is stopped with a lock in hand."""

    bytes: int = 0
    limit: int = WAL_LIMIT
    held_by: tuple[Holder, ...] = ()


def wal_report(path: str) -> WalReport:
    """A look at the -wal of the outbox ``path``, by another process than those that are looked for."""
    size = wal_bytes(path)
    if not os.path.lexists(path + "-shm"):  # nobody has it open; and to read all locks of a host takes 10 ms
        return WalReport(size)
    held_by = tuple(holder for holder in lasting_holders(path) if size > WAL_LIMIT or holder.is_stopped)
    return WalReport(size, WAL_LIMIT, held_by)


def wal_bytes(path: str) -> int:
    """The size of the file."""
    try:
        return os.stat(path + "-wal").st_size
    except OSError:
        return 0


def excess_bytes(path: str) -> int:
    """What the -wal has beyond its limit."""
    return max(wal_bytes(path) - WAL_LIMIT, 0)


def readers(path: str) -> str:
    """Which other processes read right now, for people."""
    found = [str(each) for each in holders(path) if "reads" in each.acts and each.pid != os.getpid()]
    return "; ".join(found) or "a reader that cannot be seen from here"


class Wal:
    """What one process knows of the -wal: when to try to move it again, and whether a reader was told of."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._again_at = 0.0
        self._is_told = False

    @property
    def is_over(self) -> bool:
        """Whether it is larger than its limit."""
        return wal_bytes(self.path) > WAL_LIMIT

    @property
    def is_due(self) -> bool:
        """Whether it should be moved for its size; not at once again after it was held back."""
        return self.is_over and time.monotonic() >= self._again_at

    def note_moved(self) -> None:
        """All of it is in the database."""
        self._again_at, self._is_told = 0.0, False

    def note_held_back(self) -> None:
        """A reader kept some of it from being moved. Told once, when it is too large for it."""
        self._again_at = time.monotonic() + TRY_AGAIN_S
        if self.is_over and not self._is_told:
            self._is_told = True
            log.error(
                "outbox %s: its -wal has grown to %d MiB, because somebody does not end a read: %s. Until that ends it "
                "grows with every event, up to max_outbox_bytes. Nothing is lost.",
                self.path,
                wal_bytes(self.path) // MIB,
                readers(self.path),
            )
