"""What an outbox keeps of a task, as values for a page: its moments in order, what was asked, what was delivered."""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from attrs import evolve, field, frozen

from orchclient.core.events import EventType
from orchclient.core.task_state import TaskState
from orchclient.outbox import attempts, folding, inbox, listing, requests
from orchclient.outbox.attempts import Attempt
from orchclient.outbox.inbox import Received
from orchclient.outbox.listing import Listed
from orchclient.outbox.requests import Request

MOST_EVENTS = 2_000
MOST_ATTEMPTS = 40


@frozen
class Moment:
    """Something that happened: an event, or an item that came back. ``data`` is as it was recorded.

    ``more`` are updates right behind it that told nothing but more progress.
    """

    at_us: int
    type: str
    id: str
    data: Mapping[str, Any]
    seq: int = 0
    priority: str = "low"
    agent: str = ""
    fates: Mapping[str, str] = field(factory=dict)
    more: int = 0
    until_us: int = 0

    @property
    def progress(self) -> float | None:
        """What it says of progress."""
        value = self.data.get("progress_percentage")
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


@frozen
class Story:
    """A task as this outbox tells it, at one instant. ``points`` is its progress: instants and percentages."""

    task: str
    now_us: int
    state: TaskState
    moments: tuple[Moment, ...]
    points: tuple[tuple[int, float], ...]
    asked: tuple[tuple[Request, Mapping[str, Any]], ...]
    deliveries: Mapping[str, Mapping[str, int]]
    attempts: tuple[Attempt, ...]
    is_cut: bool


def story_of(con: sqlite3.Connection, task: str, now_us: int) -> Story | None:
    """The story of a task; None when nothing is known of it."""
    state = folding.task_state(con, task)
    if state is None:
        return None
    found = listing.events(con, limit=MOST_EVENTS + 1, task=task)
    is_cut = len(found) > MOST_EVENTS
    events = found[:MOST_EVENTS][::-1]
    told = [_of_event(each) for each in events]
    said = [_of_item(each) for each in inbox.received(con, task=task)]
    return Story(
        task,
        now_us,
        state,
        tuple(sorted([*_gathered(told), *said], key=lambda each: each.at_us)),
        tuple((each.at_us, each.progress) for each in told if each.progress is not None),
        tuple(_asked(con, told)),
        _deliveries(events),
        tuple(_attempts(con, [each.entry.seq for each in events])),
        is_cut,
    )


def _of_event(each: Listed) -> Moment:
    entry = each.entry
    try:
        data = json.loads("{" + entry.body)["data"]
    except (ValueError, KeyError):
        data = {"damaged": entry.body}
    fates = {name: fate.state + (f": {fate.reason}" if fate.reason else "") for name, fate in each.fates.items()}
    return Moment(entry.recorded_us, entry.type, entry.id, data, entry.seq, entry.priority, entry.agent, fates)


def _of_item(item: Received) -> Moment:
    try:
        data = json.loads(item.body).get("data", {})
    except ValueError:
        data = {"unreadable": item.body}
    data = data if isinstance(data, dict) else {"data": data}
    return Moment(item.received_us, item.type, item.id, {**data, "verdict": item.verdict.value})


def _gathered(moments: Iterable[Moment]) -> Iterator[Moment]:
    """Updates that tell nothing but more progress than the one before go with it."""
    last: Moment | None = None
    for each in moments:
        if last is not None and _is_more_of(last, each):
            last = evolve(
                last, more=last.more + 1, until_us=each.at_us, data={**last.data, **each.data}, fates=each.fates
            )
            continue
        if last is not None:
            yield last
        last = each
    if last is not None:
        yield last


def _is_more_of(last: Moment, each: Moment) -> bool:
    if not last.type == each.type == EventType.TASK_STATUS or {"metadata", "attempt"} & each.data.keys():
        return False
    same_step = each.data.get("current_step", last.data.get("current_step")) == last.data.get("current_step")
    return same_step and each.data.get("status") == last.data.get("status")


def _asked(con: sqlite3.Connection, moments: Sequence[Moment]) -> Iterator[tuple[Request, Mapping[str, Any]]]:
    """Questions and reviews, with what people were shown."""
    for each in moments:
        if each.type in (EventType.CLARIFICATION_REQUESTED, EventType.TASK_COMPLETED):
            request = requests.by_id(con, each.id)
            if request is not None:
                yield request, each.data


def _deliveries(events: Iterable[Listed]) -> dict[str, dict[str, int]]:
    """How many of the events are in which state, by destination."""
    counts: dict[str, dict[str, int]] = {}
    for each in events:
        for name, fate in each.fates.items():
            of_sink = counts.setdefault(name, dict.fromkeys(listing.STATES, 0))
            of_sink[fate.state] += 1
    return counts


def _attempts(con: sqlite3.Connection, seqs: Sequence[int]) -> Iterator[Attempt]:
    """The newest attempts to deliver one of the events, newest first."""

    def carried_one(attempt: Attempt) -> bool:
        place = bisect_left(seqs, attempt.first_seq)
        return place < len(seqs) and seqs[place] <= attempt.last_seq

    return islice(filter(carried_one, attempts.newest(con, attempts.KEPT)), MOST_ATTEMPTS)
