"""Tasks and tallies: a fold of the journal, written behind it in larger steps.

A record call writes the journal only. What the events add up to is folded in steps of hundreds, by whoever has time;
a reader adds the few events behind the fold itself. So a progress update costs one page, and the state is exact all
the same, since the fold and its place are one transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from attrs import define, field, frozen

from orchclient.core.events import NOTICES
from orchclient.core.task_state import Gathered, TaskState, advanced
from orchclient.outbox import bulk, journal
from orchclient.outbox.bulk import Told

STEP = 500
SMALL_STEP = 100
BEHIND_AT_MOST = 1000
"""How far the fold may stay behind before somebody is asked to fold: readers add what is behind."""


@frozen
class Tally:
    """How many events of a type an agent recorded, and when the last one."""

    count: int
    last_us: int


def folded_seq(con: sqlite3.Connection) -> int:
    """Up to which event tasks and tallies are folded."""
    seq: int = con.execute("SELECT value FROM meta WHERE key = 'folded_seq'").fetchone()[0]
    return seq


def behind(con: sqlite3.Connection) -> int:
    """How many events are not folded yet."""
    return journal.last_seq(con) - folded_seq(con)


def fold(con: sqlite3.Connection, step: int = STEP) -> Fold:
    """What at most ``step`` more events change. A question: the parsing happens without the writer's lock."""
    start = folded_seq(con)
    result = Fold(start, start)
    for told in bulk.told_between(con, start, start + step):
        result.add(con, told)
    return result


def task_state(con: sqlite3.Connection, task: str) -> TaskState | None:
    """The state of a task right now; None when no event names it."""
    state = _stored(con, task)
    known = state is not None
    state = state or TaskState(task)
    for entry in journal.of_task(con, task, folded_seq(con)):
        if entry.type not in NOTICES:
            state, known = _advanced(state, entry), True
    return state if known else None


def tallies(con: sqlite3.Connection, agent: str) -> dict[str, Tally]:
    """What an agent recorded so far, by event type."""
    rows = con.execute(
        """SELECT type, sum(count), max(last_us) FROM (
               SELECT type, count, last_us FROM tallies WHERE agent = :agent
               UNION ALL SELECT type, 1, recorded_us FROM events
               WHERE seq > :folded AND agent = :agent AND type NOT IN (SELECT value FROM json_each(:notices))
           ) GROUP BY type""",
        {"agent": agent, "folded": folded_seq(con), "notices": json.dumps(sorted(NOTICES))},
    )
    return {type_: Tally(count, last_us) for type_, count, last_us in rows}


@define
class Fold:
    """What one step of the fold changes: the new states of tasks, and what is added to tallies."""

    from_seq: int
    to_seq: int
    _tasks: dict[str, Gathered] = field(factory=dict)
    _tallies: dict[tuple[str, str], list[int]] = field(factory=lambda: defaultdict(lambda: [0, 0]))

    def add(self, con: sqlite3.Connection, told: Told) -> None:
        """Take one more event in, in order."""
        seq, task, agent, type_, us, data = told
        self.to_seq = seq
        if type_ in NOTICES:
            return
        gathered = self._tasks.get(task)
        if gathered is None:
            gathered = self._tasks[task] = Gathered(_stored(con, task) or TaskState(task))
        gathered.add(seq, agent, us, data)
        tally = self._tallies[agent, type_]
        tally[0] += 1
        tally[1] = max(tally[1], us)

    def write(self, con: sqlite3.Connection) -> bool:
        """The writer's work: store it if nobody else folded meanwhile."""
        if folded_seq(con) != self.from_seq:
            return False
        con.executemany(
            "INSERT OR REPLACE INTO tasks (task, agent, status, progress, step, metadata, attempt, seq, updated_us) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            _task_rows(gathered.sum for gathered in self._tasks.values()),
        )
        con.executemany(
            "INSERT INTO tallies (agent, type, count, last_us) VALUES (?, ?, ?, ?) ON CONFLICT (agent, type) "
            "DO UPDATE SET count = count + excluded.count, last_us = max(last_us, excluded.last_us)",
            [(*key, *tally) for key, tally in self._tallies.items()],
        )
        con.execute("UPDATE meta SET value = ? WHERE key = 'folded_seq'", (self.to_seq,))
        return True


def _task_rows(states: Iterable[TaskState]) -> list[tuple[Any, ...]]:
    return [
        (
            state.task_id,
            state.agent_id,
            state.status,
            state.progress_percentage,
            state.current_step,
            json.dumps(dict(state.metadata), ensure_ascii=False),
            state.attempt,
            state.seq,
            state.updated_us,
        )
        for state in states
    ]


def _stored(con: sqlite3.Connection, task: str) -> TaskState | None:
    row = con.execute(
        "SELECT task, agent, status, progress, step, metadata, attempt, seq, updated_us FROM tasks WHERE task = ?",
        (task,),
    ).fetchone()
    if row is None:
        return None
    task_id, agent, status, progress, step, metadata, attempt, seq, updated_us = row
    return TaskState(task_id, agent, status, progress, step, json.loads(metadata), attempt, seq, updated_us)


def _advanced(state: TaskState, entry: journal.Entry) -> TaskState:
    return advanced(state, entry.seq, entry.agent, entry.recorded_us, bulk.data_of(entry.body))
