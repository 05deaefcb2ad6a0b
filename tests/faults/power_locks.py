"""Reads from a journal who held the gate when: the rule that keeps SQLite's WAL-reset bug away (design, section 4)."""

from __future__ import annotations

from collections.abc import Iterable
from fcntl import LOCK_EX, LOCK_SH, LOCK_UN

from tests.faults import power_journal
from tests.faults.power_journal import Record


def writes_outside_the_gate(records: Iterable[Record]) -> list[int]:
    """The places in the journal of writes to a -wal by a process that did not hold the gate beside it."""
    found, wals, held = [], {}, set()
    for place, record in enumerate(records):
        if record.what == power_journal.CREATE and record.path.endswith("-wal"):
            wals[record.inode] = record.path.removesuffix("-wal")
        elif record.what == power_journal.LOCK and record.path.endswith(".gate"):
            holder = record.pid, record.offset >> 8, record.path.removesuffix(".gate")
            if record.offset & LOCK_UN:
                held.discard(holder)
            elif record.offset & (LOCK_SH | LOCK_EX):
                held.add(holder)
        elif record.what == power_journal.WRITE and record.inode in wals:
            is_inside = any((pid, database) == (record.pid, wals[record.inode]) for pid, _, database in held)
            found += [] if is_inside else [place]
    return found
