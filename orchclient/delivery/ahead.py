"""The batch behind the one that is on its way, read and checked while the receiver works: neither waits for the other.

A read-ahead is only a copy of committed rows. It counts when it is still what would be read now; what is settled is
settled against the cursor all the same.
"""

from __future__ import annotations

import sqlite3

from attrs import frozen

from orchclient.core.batching import BatchLimit
from orchclient.core.errors import OutboxError
from orchclient.delivery.settlement import Checked, checked
from orchclient.outbox import bulk, gaps, journal
from orchclient.outbox.outbox import Outbox


@frozen
class ReadAhead:
    """Rows behind the place ``after_seq``, as many as ``limit`` lets into a batch, of the files of a ``generation``."""

    generation: int
    after_seq: int
    limit: BatchLimit
    rows: Checked

    def holds(self, con: sqlite3.Connection, generation: int, after_seq: int, limit: BatchLimit) -> bool:
        """Whether it is what would be read now.

        A batch that is not full is read anew: there may be more by now. So is one of which something was folded at a
        limit meanwhile: only what is in a sink's next batch is left alone.
        """
        whole = self.rows.whole
        if (generation, after_seq, limit) != (self.generation, self.after_seq, self.limit):
            return False
        if len(whole) != limit.events:
            return False
        last_seq = whole[-1][0]
        if not gaps.begins_between(con, gaps.JOURNAL, after_seq, last_seq):  # quickly answered, and mostly so
            return True
        return journal.count_between(con, after_seq, last_seq) == len(whole)


def read_ahead(outbox: Outbox, after_seq: int, limit: BatchLimit, *, one_by_one: bool = False) -> ReadAhead | None:
    """Read behind a place; None when that is not possible, for the next turn will say so."""
    generation = outbox.generation
    try:
        rows = outbox.query(lambda con: bulk.read_next(con, after_seq, limit, one_by_one=one_by_one))
    except OutboxError:
        return None
    return ReadAhead(generation, after_seq, limit, checked(rows))
