"""What receivers are told of places whose events will not come: a notice for each run of one source.

An outbox that was restored, salvaged or filled by an import has had other sources. The places of those are their
sequences, so a notice names the source when it is not the one under which the notice itself is sent.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator

from attrs import evolve

from orchclient.core.gap import Gap, gap_event
from orchclient.outbox import identity, journal
from orchclient.outbox.identity import Identities


def append(con: sqlite3.Connection, gap: Gap, new_id: Callable[[], str], now_us: int) -> None:
    """Record that the events of a gap will not come, in the caller's transaction."""
    for part in by_source(gap, identity.identities(con)):
        journal.append(con, gap_event(part, new_id(), now_us))


def by_source(gap: Gap, known: Identities) -> Iterator[Gap]:
    """The gap in parts of one source each, in order."""
    begins = [gap.first_seq, *(first for first in known.firsts if gap.first_seq < first <= gap.last_seq)]
    ends = [*(first - 1 for first in begins[1:]), gap.last_seq]
    for first_seq, last_seq in zip(begins, ends, strict=True):
        source = known.of(first_seq)
        yield evolve(gap, first_seq=first_seq, last_seq=last_seq, source=None if source == known.newest else source)
