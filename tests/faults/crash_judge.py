"""The judge: what agents were promised, what the file holds and what the orchestrator got must fit together.

Knows the promises P1, P3, P5 and P7 and no process: findings come in as values.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import define, field, frozen

from orchclient.testing.receiver import Receiver

from .crash_roles import PARTS, UNWELCOME, WHOLE, Findings

Event = dict[str, Any]


LOST = "an acknowledged event is in the file or has arrived"
NOT_ARRIVED = "what counts as delivered has arrived"


class Breach(AssertionError):
    """A promise was broken. ``law`` is the one."""

    def __init__(self, law: str, *details: object) -> None:
        super().__init__("\n".join(map(str, (law, *details))))
        self.law = law


def _hold(law: str, breaches: Iterable[object]) -> None:
    """Raises for the first few."""
    found = sorted(map(str, breaches))
    if found:
        raise Breach(law, f"{len(found)} such as {found[:5]}")


class Orchestrator:
    """What one receiver was sent. Refuses unwelcome errors, and compares what comes again with what came first."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._lock = threading.Lock()
        self._sent: dict[tuple[str, str], Event] = {}
        self._refused: set[str] = set()
        self._altered: list[str] = []
        receiver.reject(self._look_at)

    def _look_at(self, event: Event) -> bool:
        is_refused = event["data"].get("error_type") == UNWELCOME
        with self._lock:
            if self._sent.setdefault((event["source"], event["id"]), event) != event:
                self._altered.append(event["id"])
            if is_refused:
                self._refused.add(event["id"])
        return is_refused

    def books(self) -> Books:
        """What it has at this moment."""
        events = self._receiver.events
        with self._lock:
            refused, altered = frozenset(self._refused), tuple(self._altered)
        breaches = [*self._receiver.conflicts, *self._receiver.failures]
        return Books(tuple(events), refused, altered, tuple(map(str, breaches)))


@frozen
class Books:
    """What an orchestrator has: events in the order in which they first came, and what was wrong with them."""

    events: tuple[Event, ...] = field(repr=False)
    refused: frozenset[str]
    altered: tuple[str, ...]
    breaches: tuple[str, ...]

    @property
    def ids(self) -> set[str]:
        return {event["id"] for event in self.events}

    def of_tasks(self) -> list[tuple[str, str]]:
        """Each task's ids."""
        return [(event["subject"], event["id"]) for event in self.events]

    def places(self) -> dict[int, str]:
        """Ids by sequence."""
        return {int(event["sequence"]): event["id"] for event in self.events}


@define
class Judge:
    """Holds one outbox against its promises. ``promised`` has the place of every acknowledged event, 0 if unknown.

    ``is_moved``: the outbox lost its files on the way, so its events have other places than were acknowledged;
    ``elsewhere`` are those in files that somebody moved.
    """

    promised: dict[str, int] = field(factory=dict)
    is_moved: bool = False
    elsewhere: set[str] = field(factory=set)

    def hold(self, found: Findings, before: Books, after: Books) -> None:
        """Raises ``Breach``. ``before`` and ``after`` are the orchestrator's books around the look into the file.

        What was promised must have been heard before the look.
        """
        _hold("the file is sound", [text for text in found.integrity if text != "ok"])
        _hold("what is stored is whole", found.damaged)
        self._nothing_is_lost(found, after)
        if not self.is_moved:
            self._places_are_kept(found, before, after)
        self._counts_add_up(found)
        self._what_counts_as_settled_is(found, after)
        self._orchestrator_saw_no_breach(after)
        self._transactions_are_whole(found, before, after)

    def hold_at_rest(self, found: Findings, books: Books) -> None:
        """As ``hold``, when all is delivered."""
        self.hold(found, books, books)
        _hold("all is delivered", [sink for sink in found.told if sink["pending"]])
        _hold("an event has arrived or is dead", self.promised.keys() - books.ids - books.refused - self.elsewhere)

    def _nothing_is_lost(self, found: Findings, books: Books) -> None:
        stored = {id_ for _, id_, _ in found.events}
        _hold(LOST, self.promised.keys() - stored - books.ids - self.elsewhere)

    def _places_are_kept(self, found: Findings, before: Books, after: Books) -> None:
        stored, arrived = {seq: id_ for seq, id_, _ in found.events}, after.places()
        last = max(stored, default=0)
        held = arrived | stored
        _hold("sequences have no gap", set(range(1, last + 1)) - held.keys())
        _hold("the file has every place that was sent", [seq for seq in before.places() if seq > last])
        acked = ((id_, seq) for id_, seq in self.promised.items() if 0 < seq <= last)
        _hold("an event keeps its place", [(seq, id_) for id_, seq in acked if held[seq] != id_])
        both = stored.keys() & arrived.keys()
        _hold("a place has one event", [seq for seq in both if stored[seq] != arrived[seq]])

    def _counts_add_up(self, found: Findings) -> None:
        last = max((seq for seq, _, _ in found.events), default=0)
        _hold("recorded is what was recorded", [found.recorded] if found.recorded != last else [])
        for sink, told in zip(found.sinks, found.told, strict=True):
            by_counters = {state: told[state] for state in ("pending", "parked", "dead", "expired", "delivered")}
            by_rows = _counted(found, sink, last)
            law = f"{sink['name']}: recorded = delivered + pending + dead + expired"
            _hold(law, [(by_counters, by_rows)] if by_counters != by_rows else [])
            _hold(law, [by_counters] if min(by_counters.values()) < 0 else [])
            total = sum(by_counters[state] for state in ("pending", "dead", "expired", "delivered"))
            _hold(law, [(total, last)] if total != last - sink["start_seq"] else [])
            _hold(f"{sink['name']}: lanes are what is parked", _lanes(found, sink["name"]))

    def _what_counts_as_settled_is(self, found: Findings, books: Books) -> None:
        stored, arrived = {seq: id_ for seq, id_, _ in found.events}, books.ids
        places = books.places().keys()  # an event that was saved may have come under two of them
        for sink in found.sinks:
            at_desk = {seq: (state, reason) for name, state, seq, _, reason in found.desk if name == sink["name"]}
            settled = range(sink["start_seq"] + 1, sink["cursor"] + 1)
            missing = [seq for seq in settled if seq not in at_desk and stored.get(seq) not in arrived]
            _hold(NOT_ARRIVED, [seq for seq in missing if seq in stored or seq not in places])
            law = f"{sink['name']}: what is dead is kept, was refused and has its reason"
            dead = {seq: reason for seq, (state, reason) in at_desk.items() if state == "dead"}
            _hold(law, [seq for seq, why in dead.items() if stored.get(seq) not in books.refused or not why])
            law = f"{sink['name']}: what is parked is kept"
            _hold(law, at_desk.keys() - stored.keys())

    def _orchestrator_saw_no_breach(self, books: Books) -> None:
        _hold("the orchestrator has nothing to complain about", books.breaches)
        _hold("what comes again is what came first", books.altered)
        _hold("the events of a task arrive in order", _disordered(books.events))

    def _transactions_are_whole(self, found: Findings, before: Books, after: Books) -> None:
        """Those that were committed at the look; the orchestrator may have parts of later ones."""
        stored = [(task, id_) for _, id_, task in found.events]
        begun = {task for task, _ in [*stored, *before.of_tasks()] if task.startswith(WHOLE)}
        parts: dict[str, set[str]] = defaultdict(set)
        for task, id_ in [*stored, *after.of_tasks()]:
            parts[task].add(id_)
        _hold("a transaction is whole", [(task, parts[task]) for task in begun if len(parts[task]) != PARTS])


def _counted(found: Findings, sink: Mapping[str, Any], last: int) -> dict[str, int]:
    """The counts of a sink, by looking at each row that stands for an event."""
    at_desk = Counter(state for name, state, *_ in found.desk if name == sink["name"])
    return {
        "pending": last - sink["cursor"] + at_desk["parked"],
        "parked": at_desk["parked"],
        "dead": at_desk["dead"],
        "expired": sink["expired"],
        "delivered": sink["cursor"] - sink["start_seq"] - at_desk["parked"] - at_desk["dead"] - sink["expired"],
    }


def _lanes(found: Findings, sink: str) -> list[object]:
    told = {task: parked for name, task, parked in found.lanes if name == sink}
    counted = Counter(task for name, state, _, task, _ in found.desk if name == sink and state == "parked")
    return [] if told == counted else [(told, dict(counted))]


def _disordered(events: Iterable[Event]) -> list[object]:
    """Events that came after a later one of their task."""
    last: dict[tuple[str, str], int] = defaultdict(int)
    late: list[object] = []
    for event in events:
        lane, sequence = (event["source"], event["subject"]), int(event["sequence"])
        if sequence < last[lane]:
            late.append((event["subject"], sequence, last[lane]))
        last[lane] = max(last[lane], sequence)
    return late
