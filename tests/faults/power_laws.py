"""The laws: what must be in an outbox after the power went, by what its users had been promised until then.

What the disk held is opened with the project's own code and compared with the ledger. Nothing that the code under
test says about itself counts without a second source: ids and contents come from the notes, numbers from the rows. A
violation is a text that begins with its kind and a colon.
"""

from __future__ import annotations

import json
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

from attrs import define

from orchclient.core.errors import OutboxError
from orchclient.core.events import Event, EventType
from orchclient.core.ids import uuid7
from orchclient.outbox import cursors, folding, gaps, journal
from orchclient.outbox.limits import Limits
from orchclient.outbox.outbox import Outbox
from orchclient.outbox.store import Origin
from tests.faults.power_ledger import Ledger, Told

JUDGED_S = 5.0


def violations(ledger: Ledger, truth: Mapping[str, Told]) -> list[str]:
    """What is wrong with the outbox that was left, against what was promised. ``truth`` is all that ever returned."""
    path = Path(ledger.outbox)
    aside = _set_aside(path)
    try:
        with (
            deadline(JUDGED_S),
            closing(Outbox(Origin(path, _new_source, lambda: 0), Limits(min_free_bytes=1))) as outbox,
        ):
            broken = outbox.query(lambda con: list(_broken_laws(con, ledger, truth)))
            broken += _life_goes_on(outbox)
    except OutboxError as error:
        broken = [f"unusable: {error!r}"]
    except Exception as error:
        return [f"unusable: {error!r}"]
    if not ledger.is_damaged:
        broken += [f"corrupt: it was set aside as {name}" for name in _set_aside(path) - aside]
    # What somebody put in the place of the files that he took may be no outbox: then it is enough to say so.
    return broken if not ledger.is_adrift else [text for text in broken if not text.startswith(("unusable", "corrupt"))]


def _set_aside(path: Path) -> set[str]:
    found = (each.name for each in path.parent.glob(f"{path.name}.damaged-*"))
    return {name.removesuffix("-wal").removesuffix("-shm") for name in found}  # a look at one makes these anew


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise ``TimeoutError`` in the middle of what takes longer. For the main thread."""

    def ring(signal_number: int, frame: object) -> None:
        raise TimeoutError(f"still at it after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _new_source() -> str:
    return "00000000-0000-4000-8000-000000000000"


@define
class _Found:
    """What is in the file, and what it is held against."""

    con: sqlite3.Connection
    ledger: Ledger
    truth: Mapping[str, Told]
    rows: list[journal.Entry]
    last_seq: int

    @property
    def ids(self) -> set[str]:
        return {row.id for row in self.rows}

    @property
    def stored(self) -> list[Told]:
        """The events that are in the file, or were pruned out of it, in order."""
        rows = [self.truth[row.id] for row in self.rows if row.id in self.truth]
        taken = {row.seq for row in self.rows}
        agents = {told.agent for told in self.ledger.returned}  # others recorded into other outboxes
        ours = [told for told in self.truth.values() if told.agent in agents]
        is_pruned = [told for told in ours if told.seq <= self.last_seq and told.seq not in taken]
        return sorted(rows + is_pruned, key=lambda told: told.seq) if self.ledger.prunes else rows


def _broken_laws(con: sqlite3.Connection, ledger: Ledger, truth: Mapping[str, Told]) -> Iterator[str]:
    sound = con.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if sound != "ok" and not ledger.is_damaged:  # without the mark, which is not synced, damage waits for its reader
        yield f"corrupt: {sound}"
        return
    found = _Found(con, ledger, truth, list(journal.read_range(con, 0, journal.MAX_SEQ)), journal.last_seq(con))
    for law in _LAWS:
        yield from law(found)


def _nothing_promised_is_lost(found: _Found) -> Iterator[str]:
    ledger = found.ledger
    lost = [told for told in ledger.returned if told.id in ledger.protected and not _is_kept(found, told)]
    if lost:
        yield f"lost: {len(lost)} of {len(ledger.protected)} protected events, the first had place {lost[0].seq}"
    forgotten = ledger.seen - found.ids
    if forgotten and not ledger.prunes:
        yield f"lost: {len(forgotten)} events that had survived an earlier cut"


def _is_kept(found: _Found, told: Told) -> bool:
    if told.id in found.ids:
        return True
    if _is_folded(found, told):
        return True
    is_settled = bool(found.ledger.answered.get(told.id, set()) & {"accepted", "duplicate"})
    return found.ledger.prunes and is_settled and told.seq <= _lowest_cursor(found.con) and told.seq < found.last_seq


def _is_folded(found: _Found, told: Told) -> bool:
    """Only progress may be folded, and only with a row of the ledger."""
    ledger = "SELECT 1 FROM gaps WHERE sink = ? AND first_seq <= ? AND last_seq >= ?"
    row = found.con.execute(ledger, (gaps.JOURNAL, told.seq, told.seq)).fetchone()
    return row is not None and "metadata" in told.told


def _lowest_cursor(con: sqlite3.Connection) -> int:
    return con.execute("SELECT min(cursor) FROM sinks").fetchone()[0] or 0


def _rows_are_what_was_recorded(found: _Found) -> Iterator[str]:
    if len(found.ids) < len(found.rows):
        yield "twice: an event is there more than once"
    for row in found.rows:
        told = found.truth.get(row.id)
        if row.type == EventType.GAP and row.is_whole:
            continue  # the outbox itself says so of events that will not come
        if not row.is_whole or json.loads("{" + row.body)["id"] != row.id:
            yield f"damaged: event {row.seq}"
        elif told is None:
            yield f"foreign: event {row.seq} was recorded by nobody"
        elif told.task != row.task or (told.seq != row.seq and not found.ledger.is_renumbered):
            yield f"misplaced: event {row.seq} has a receipt for place {told.seq}"


def _places_have_no_gaps(found: _Found) -> Iterator[str]:
    places = [row.seq for row in found.rows]
    if not found.ledger.prunes and places != list(range(1, len(places) + 1)):
        yield f"gaps: the sequence is {places[:3]}..{places[-3:]}"


def _counters_conserve(found: _Found) -> Iterator[str]:
    con = found.con
    for row in cursors.sinks(con):
        desk = dict(con.execute("SELECT state, count(*) FROM work WHERE sink = ? GROUP BY state", (row.name,)))
        in_lanes = con.execute("SELECT coalesce(sum(parked), 0) FROM lanes WHERE sink = ?", (row.name,)).fetchone()[0]
        counted = (row.parked, in_lanes, row.dead, row.expired)
        gone = gaps.count(con, row.name, row.start_seq, journal.MAX_SEQ)
        there = (desk.get("parked", 0), desk.get("parked", 0), desk.get("dead", 0), gone)
        if counted != there:
            yield f"miscounted: {row.name} counts parked, in lanes, dead, expired {counted}, the desk has {there}"
        if not (row.start_seq <= row.cursor <= found.last_seq) or row.delivered < 0:
            yield f"miscounted: {row.name} stands at {row.cursor} of {found.last_seq}, {row.delivered} delivered"
        missing = con.execute(
            "SELECT count(*) FROM work WHERE sink = ? AND seq NOT IN (SELECT seq FROM events)", (row.name,)
        ).fetchone()[0]
        if missing:
            yield f"miscounted: {missing} events at the desk of {row.name} are not in the journal"


_ANSWERS_FOR = {"delivered": {"accepted", "duplicate"}, "dead": {"rejected"}}


def _nothing_is_settled_without_an_answer(found: _Found) -> Iterator[str]:
    for sink in cursors.sinks(found.con):
        desk = dict(found.con.execute("SELECT seq, state FROM work WHERE sink = ?", (sink.name,)))
        for row in found.rows:
            if sink.start_seq < row.seq <= sink.cursor:
                state = desk.get(row.seq, "delivered")
                if not found.ledger.answered.get(row.id, set()) & _ANSWERS_FOR.get(state, {"retry"}):
                    if state == "parked" and _waits_behind(found, desk, row):
                        continue
                    yield f"settled: event {row.seq} is {state} for {sink.name}, and the receiver never said so"


def _waits_behind(found: _Found, desk: Mapping[int, str], row: journal.Entry) -> bool:
    return any(each.task == row.task and desk.get(each.seq) == "parked" for each in found.rows if each.seq < row.seq)


def _tasks_are_the_fold_of_their_events(found: _Found) -> Iterator[str]:
    for task, last in {told.task: told for told in found.stored}.items():
        state = folding.task_state(found.con, task)
        told = _added_up([each for each in found.truth.values() if each.task == task], last.id)
        got = state and {
            "status": state.status,
            "progress": state.progress_percentage,
            "step": state.current_step,
            "metadata": dict(state.metadata),
        }
        if got != told:
            yield f"misfolded: task {task} is {got!s:.200}, its events add up to {told!s:.200}"


def _added_up(events: Iterable[Told], up_to: str) -> dict[str, Any]:
    state: dict[str, Any] = {"status": "pending", "progress": None, "step": None, "metadata": {}}
    for each in events:
        state |= {**each.told, "metadata": state["metadata"] | each.told.get("metadata", {})}
        if each.id == up_to:
            break
    return state


def _tallies_count_every_event(found: _Found) -> Iterator[str]:
    if found.ledger.is_renumbered:
        return
    for agent, recorded in Counter(told.agent for told in found.stored).items():
        counted = sum(tally.count for tally in folding.tallies(found.con, agent).values())
        if counted != recorded:
            yield f"misfolded: {counted} events of agent {agent} are counted, {recorded} were recorded"


def _own_rows_are_there_with_their_events(found: _Found) -> Iterator[str]:
    if found.con.execute("SELECT 1 FROM sqlite_schema WHERE name = 'own_rows'").fetchone():
        rows = {event_id for (event_id,) in found.con.execute("SELECT event FROM own_rows")}
        events = {row.id for row in found.rows if row.task == "own rows"}
        if rows != events:
            yield f"torn: {len(rows - events)} rows without their event, {len(events - rows)} events without their row"


_LAWS: tuple[Callable[[_Found], Iterator[str]], ...] = (
    _nothing_promised_is_lost,
    _rows_are_what_was_recorded,
    _places_have_no_gaps,
    _counters_conserve,
    _nothing_is_settled_without_an_answer,
    _tasks_are_the_fold_of_their_events,
    _tallies_count_every_event,
    _own_rows_are_there_with_their_events,
)


def _life_goes_on(outbox: Outbox) -> Iterator[str]:
    """The next event is stored, behind the last one."""
    before = outbox.query(journal.last_seq)
    body = '"id":"x"}'
    event = Event(uuid7(1, bytes(10)), "next", "judge", "task.status.v1", "low", 1, crc32(body.encode()), body)
    seq = outbox.record(event, "testing", True)
    if seq != before + 1:
        yield f"stuck: the next event got place {seq} behind {before}"
