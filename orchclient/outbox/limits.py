"""How full an outbox may become: events that wait, bytes, and what must stay free on the disk."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from attrs import evolve, frozen

from orchclient.core.errors import OutboxFull
from orchclient.outbox import cursors, files, gaps, journal, wal

MIB = 1_048_576
EVENT_BYTES = MIB
"""The most that an event may have, whatever is set."""

SOME_EVENTS = 250
"""While so many of any size would fit, nobody measures again before so many were recorded."""

RESERVE = 0.05
"""Beyond a limit, so much more is left to completions, questions and errors."""


@frozen
class Limits:
    """At most so many pending events and bytes; at least so many bytes free on the file system."""

    max_pending: int = 1_000_000
    max_bytes: int = 1024 * MIB
    min_free_bytes: int = 64 * MIB


@frozen
class Fullness:
    """How full an outbox is: 1.0 is a limit. ``what`` names the limit that is nearest, for people.

    ``is_roomy``: ``SOME_EVENTS`` more of any size fit.
    """

    share: float
    what: str
    is_roomy: bool = False

    def refuses(self, is_important: bool) -> bool:
        """Whether an event must be refused; the reserve is for the important ones."""
        return self.share >= (1 + RESERVE if is_important else 1.0)

    def error(self, path: str) -> OutboxFull:
        """What happened, and what to do."""
        return OutboxFull(
            f"outbox {path} is full: {self.what}. Nothing recorded before is lost. Let it be delivered (orchclient "
            "status says what is stuck), free disk space, or raise max_pending, max_outbox_bytes, min_free_bytes"
        )


def fullness(con: sqlite3.Connection, path: str, limits: Limits) -> Fullness:
    """How full the outbox is now; costs the same at any number of events."""
    pending, free = _pending(con), files.free_bytes(Path(path))
    used, excess = _used_bytes(con), wal.excess_bytes(path)
    in_wal = f" and {excess:,} too many in its -wal, kept there by {wal.readers(path)}" if excess else ""
    is_roomy = (
        pending + SOME_EVENTS <= limits.max_pending
        and used + excess + SOME_EVENTS * EVENT_BYTES <= limits.max_bytes
        and free - SOME_EVENTS * EVENT_BYTES >= limits.min_free_bytes
    )
    candidates = (
        Fullness(pending / limits.max_pending, f"{pending:,} events wait, the limit is {limits.max_pending:,}"),
        Fullness(
            (used + excess) / limits.max_bytes,
            f"it holds {used:,} bytes{in_wal}, the limit is {limits.max_bytes:,}",
        ),
        Fullness(
            _shortage(free, limits.min_free_bytes),
            f"{free:,} bytes are free on its file system, {limits.min_free_bytes:,} must stay",
        ),
    )
    return evolve(max(candidates, key=lambda candidate: candidate.share), is_roomy=is_roomy)


def _pending(con: sqlite3.Connection) -> int:
    last = journal.last_seq(con)
    rows = cursors.sinks(con)
    if not rows:
        first = journal.first_seq(con)
        return last - first + 1 - gaps.count(con, gaps.JOURNAL, first, last) if last else 0
    return max(row.pending(last) for row in rows)


def _used_bytes(con: sqlite3.Connection) -> int:
    pages, free_pages, size = (
        con.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free_pages) * size)


def _shortage(free: int, floor: int) -> float:
    """1.0 at the floor, and the reserve used up when nothing is free."""
    return 1 + RESERVE * (floor - free) / floor if free < floor else 0.0
