"""What may be forgotten: delivered history, in slices. Dead letters, pending events and the newest row stay."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from attrs import astuple, frozen

from orchclient.core.ages import Ages
from orchclient.outbox import desk, folding, journal

SLICE = 500
EVERYTHING = 2**62
"""An instant after every recording."""

VACUUM_PAGES = 256
VACUUM_ABOVE = 0.25


def prunable_seq(con: sqlite3.Connection) -> int:
    """Up to which event every sink is settled and every task is folded; 0 without any sink.

    The newest event always stays: the next sequence is one more than the highest that is there.
    """
    return min(_settled_seq(con), folding.folded_seq(con))


def _settled_seq(con: sqlite3.Connection) -> int:
    lowest: int | None = con.execute("SELECT min(cursor) FROM sinks").fetchone()[0]
    return 0 if lowest is None else max(min(lowest, journal.last_seq(con) - 1), 0)


def prunable_count(con: sqlite3.Connection, recorded_before_us: int, giving_up: Sequence[str] = ()) -> int:
    """How many events may be forgotten once the tasks are folded. Reads them all: for a person who asks.

    Dead letters of the sinks ``giving_up`` that are as old count as if they were given up already.
    """
    count: int = con.execute(
        "SELECT count(*) FROM events WHERE seq <= :settled AND recorded_us < :before AND seq NOT IN (SELECT seq FROM "
        "work WHERE NOT (state = 'dead' AND since_us < :before AND sink IN (SELECT value FROM json_each(:sinks))))",
        {"settled": _settled_seq(con), "before": recorded_before_us, "sinks": json.dumps(list(giving_up))},
    ).fetchone()[0]
    return count


@frozen
class MyLook:
    """The last look that this process made: its date, and how long ago it was by a clock that never jumps."""

    date_us: int
    ago_us: int


def look(con: sqlite3.Connection, now_us: int, last: MyLook | None, retention_us: int) -> int:
    """Look how much time has passed; up to which event all are old, 0 when none is. A work of the writer."""
    known = _ages(con)
    ago_us = last.ago_us if last is not None and last.date_us == known.looked_us else None
    ages = known.looked(now_us, ago_us, journal.last_seq(con), retention_us)
    old_seq = ages.old_seq(retention_us)
    note = json.dumps(astuple(ages.without(old_seq)))
    con.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('ages', ?)", (note,))
    return old_seq


def _ages(con: sqlite3.Connection) -> Ages:
    row = con.execute("SELECT value FROM meta WHERE key = 'ages'").fetchone()
    if row is None:
        return Ages()
    passed_us, looked_us, marks = json.loads(row[0])
    return Ages(passed_us, looked_us, tuple((at_us, seq) for at_us, seq in marks))


def prune(
    con: sqlite3.Connection, after_seq: int, recorded_before_us: int, up_to_seq: int = journal.MAX_SEQ
) -> int | None:
    """Delete one slice of settled events that are old enough; where to go on, None when there is nothing more.

    Looks at ``SLICE`` rows behind ``after_seq`` whatever they are, so a transaction stays short.
    """
    rows = con.execute(
        "SELECT seq, recorded_us FROM events WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
        (after_seq, min(prunable_seq(con), up_to_seq), SLICE),
    ).fetchall()
    old = [seq for seq, recorded_us in rows if recorded_us < recorded_before_us]
    if not old:
        return None
    kept = desk.among(con, old[0], old[-1])
    con.executemany("DELETE FROM events WHERE seq = ?", [(seq,) for seq in old if seq not in kept])
    return int(old[-1]) if len(rows) == SLICE else None


def shrink(con: sqlite3.Connection) -> int:
    """Give free pages back to the file system when they are more than a quarter; the pages given back."""
    free: int = con.execute("PRAGMA freelist_count").fetchone()[0]
    if free <= VACUUM_ABOVE * con.execute("PRAGMA page_count").fetchone()[0]:
        return 0
    con.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
    return min(free, VACUUM_PAGES)
