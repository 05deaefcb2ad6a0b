"""What is critical and open, and the reminders of it: a fold of the journal, looked after by whoever keeps house.

Nothing is written on the record path: a look reads what was recorded since the last one. A reminder is counted and
recorded in one transaction, only if its number is still the next one, so that several processes give one of each.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any

from attrs import astuple, field, frozen

from orchclient.core.envelope import TYPE_PREFIX
from orchclient.core.events import EventType, NotificationPriority
from orchclient.core.reminders import BELIEVED_US, Passing, Waiting, said_of
from orchclient.core.schedule import Schedule
from orchclient.core.timestamps import microseconds_of
from orchclient.outbox import journal, requests
from orchclient.outbox.bulk import Row
from orchclient.outbox.journal import Entry
from orchclient.outbox.retention import MyLook

_COLUMNS = "about, type, task, agent, priority, since_us, number, last_us, deadline_us, said"

STEP = 5000
"""Events looked at in one question."""

FAR = 50_000
"""So many events further, the place is noted although nothing was found, so that others need not read them again."""

_HEARD = (
    EventType.CLARIFICATION_REQUESTED,
    EventType.CLARIFICATION_WITHDRAWN,
    EventType.CLARIFICATION_CONSUMED,
    EventType.ERROR_ESCALATED,
    EventType.ERROR_RESOLVED,
    EventType.TASK_COMPLETED,
)


@frozen
class Note:
    """Up to which event the journal was read, and how much time had passed at that look."""

    seq: int = 0
    passing: Passing = field(factory=Passing)


@frozen
class News:
    """What a look found: events up to ``to_seq`` that begin or end a wait, and whether there is more to write."""

    to_seq: int
    is_last: bool
    entries: Sequence[Entry] = field(default=(), repr=False)
    is_due: bool = False


def note(con: sqlite3.Connection) -> Note:
    """What the last look that changed something noted."""
    row = con.execute("SELECT value FROM meta WHERE key = 'reminded'").fetchone()
    if row is None:
        return Note()
    seq, passed_us, looked_us = json.loads(row[0])
    return Note(seq, Passing(passed_us, looked_us))


def pass_over(con: sqlite3.Connection, seq: int) -> None:
    """Look at what stands up to a place no more: events of another host, who reminds of them itself."""
    known = note(con)
    value = json.dumps((max(known.seq, seq), *astuple(known.passing)))
    con.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('reminded', ?)", (value,))


def news(con: sqlite3.Connection, after_seq: int, schedule: Schedule, now_us: int, last: MyLook | None) -> News:
    """What is new behind a place, and whether a reminder is due. A question."""
    known = note(con)
    last_seq = journal.last_seq(con)
    start = max(known.seq, after_seq) if after_seq <= last_seq else known.seq  # the file was replaced
    to_seq = min(start + STEP, last_seq)
    entries = tuple(journal.of_types(con, _HEARD, start, to_seq))
    passed_us = _passing(known, now_us, last).passed_us
    is_due = any(each.is_due(passed_us, schedule) or _is_over(con, each, now_us) for each in waiting(con))
    return News(to_seq, to_seq >= last_seq, entries, is_due or to_seq - known.seq > FAR)


def _passing(known: Note, now_us: int, last: MyLook | None) -> Passing:
    mine_us = last.ago_us if last is not None and last.date_us == known.passing.looked_us else None
    return known.passing.looked(now_us, mine_us)


def waiting(con: sqlite3.Connection) -> list[Waiting]:
    """Everything critical that is open, oldest first."""
    return [Waiting(*row) for row in con.execute(f"SELECT {_COLUMNS} FROM reminders ORDER BY since_us, about")]


def look(
    con: sqlite3.Connection,
    found: News,
    schedule: Schedule,
    now_us: int,
    last: MyLook | None,
    new_id: Callable[[], str],
) -> int:
    """Write what a look found, and record the reminders that are due; how many. The writer's work."""
    known = note(con)
    passing = _passing(known, now_us, last)
    since_look_us = BELIEVED_US  # there was none: the journal is older than this table, or nobody kept house yet
    if known.passing.looked_us is not None:
        since_look_us = passing.passed_us - known.passing.passed_us
    for entry in found.entries:
        if entry.seq > known.seq:  # another process may have been quicker
            age_us = min(max(now_us - entry.recorded_us, 0), since_look_us)
            _hear(con, entry, passing.passed_us - age_us)
    end(con, [each.about for each in waiting(con) if _is_over(con, each, now_us)])
    due = [each for each in waiting(con) if each.is_due(passing.passed_us, schedule)]
    recorded = sum(_remind(con, each, passing.passed_us, now_us, new_id()) for each in due)
    value = json.dumps((max(known.seq, found.to_seq), *astuple(passing)))
    con.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('reminded', ?)", (value,))
    return recorded


def _remind(con: sqlite3.Connection, before: Waiting, passed_us: int, now_us: int, event_id: str) -> bool:
    after = before.reminded(passed_us)
    counted = con.execute(
        "UPDATE reminders SET number = ?, last_us = ? WHERE about = ? AND number = ?",
        (after.number, after.last_us, before.about, before.number),
    ).rowcount
    if counted:
        journal.append(con, after.reminder(event_id, now_us))
    return bool(counted)


def _is_over(con: sqlite3.Connection, each: Waiting, now_us: int) -> bool:
    """Whether its time is over, or people settled it; an answer is in no event until the agent takes it."""
    if each.deadline_us is not None and now_us >= each.deadline_us:
        return True
    request = requests.by_id(con, each.about)
    return request is not None and request.settled_us is not None


# --- what begins a wait, and what ends it -------------------------------------------------------------------------


def _hear(con: sqlite3.Connection, entry: Entry, since_us: int) -> None:
    data = _data(entry)
    is_critical = entry.priority == NotificationPriority.CRITICAL.value
    match entry.type:
        case EventType.CLARIFICATION_REQUESTED if is_critical:
            _begin(con, entry, entry.id, data, since_us)
        case EventType.ERROR_ESCALATED if is_critical:
            _begin(con, entry, str(data.get("first_id") or entry.id), data, since_us)
        case EventType.CLARIFICATION_WITHDRAWN | EventType.CLARIFICATION_CONSUMED:
            end(con, [str(data.get("clarification_id"))])
        case EventType.ERROR_RESOLVED:
            end(con, [str(data.get("error_id"))])
        case EventType.TASK_COMPLETED:  # whatever was wrong with it
            con.execute("DELETE FROM reminders WHERE task = ? AND type = ?", (entry.task, EventType.ERROR_ESCALATED))


def _begin(con: sqlite3.Connection, entry: Entry, about: str, data: dict[str, Any], since_us: int) -> None:
    deadline = data.get("deadline")
    deadline_us = microseconds_of(deadline) if isinstance(deadline, str) else None
    row = (
        about,
        entry.type,
        entry.task,
        entry.agent,
        entry.priority,
        since_us,
        0,
        since_us,
        deadline_us,
        said_of(data),
    )
    con.execute(f"INSERT OR IGNORE INTO reminders ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)


def end(con: sqlite3.Connection, abouts: Iterable[str]) -> None:
    """These are answered, withdrawn, expired or resolved: nobody is reminded of them any more."""
    con.executemany("DELETE FROM reminders WHERE about = ?", [(about,) for about in abouts])


def _data(entry: Entry) -> dict[str, Any]:
    """What an event tells; nothing when bits flipped."""
    try:
        data = json.loads("{" + entry.body)["data"]
    except (ValueError, KeyError):
        return {}
    return data if isinstance(data, dict) else {}


# --- what need not be sent any more -------------------------------------------------------------------------------

_MARK = f'","type":"{TYPE_PREFIX}{EventType.REMINDER}"'.encode()
_MARK_AT = 42  # behind the id


def over_among(con: sqlite3.Connection, rows: Sequence[Row]) -> set[int]:
    """The places of reminders, among events to be sent, of what is not open any more."""
    bodies = map(itemgetter(3), rows)
    if not any(map(bytes.startswith, bodies, repeat(_MARK), repeat(_MARK_AT))):  # half the time of a loop
        return set()
    found = [(seq, body) for seq, _, _, body in rows if body.startswith(_MARK, _MARK_AT)]
    return {seq for seq, body in found if not _is_open(con, _about(body))}


def _about(body: bytes) -> str:
    try:
        return str(json.loads(b"{" + body)["data"]["about"]["id"])
    except (ValueError, KeyError, TypeError):
        return ""


def _is_open(con: sqlite3.Connection, about: str) -> bool:
    return con.execute("SELECT 1 FROM reminders WHERE about = ?", (about,)).fetchone() is not None


def take_over(lost: sqlite3.Connection, con: sqlite3.Connection) -> None:
    """Copy what is open in lost or damaged files, in the time of the file there now."""
    shift_us = note(con).passing.passed_us - note(lost).passing.passed_us
    for each in waiting(lost):
        row = astuple(each)
        values = (*row[:5], each.since_us + shift_us, each.number, each.last_us + shift_us, *row[8:])
        con.execute(f"INSERT OR IGNORE INTO reminders ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
