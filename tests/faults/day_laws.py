"""The laws of the simulated day, held against the file, the receivers and what ``health()`` says, minute by minute."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable
from itertools import chain
from typing import Any, TypeVar

from attrs import define, field

from orchclient import OrchestratorClient
from orchclient.outbox import cursors
from orchclient.outbox.cursors import SinkRow, SinkState
from orchclient.reporting import OutboxReport
from orchclient.testing import Receiver

from .day_agents import Places
from .day_plan import SPELLS, Weather, text_of
from .day_world import START_US

T = TypeVar("T")

ORCHESTRATORS = ("north", "south")
LONGEST_S = {SinkState.WAITING: 60.0, SinkState.THROTTLED: 600.0 + 60.0, SinkState.PAUSED: 3600.0}
PROGRESS, HEARTBEAT = "task.status.v1", "agent.heartbeat.v1"


@define
class Seen:
    """What became of the places of one destination, as the judge counted them, and what its receiver has."""

    cursor: int
    delivered: set[int] = field(factory=set)
    fresh: set[int] = field(factory=set)  # of these, those of this minute
    parked: set[int] = field(factory=set)
    arrived: set[str] = field(factory=set)


class Judge:
    """Looks at everything after every minute; raises ``AssertionError`` with the first breach."""

    def __init__(self, places: Places, weather: Weather, observer: OrchestratorClient) -> None:
        self._places = places
        self._weather = weather
        self._observer = observer
        self._con = sqlite3.connect(places.outbox, isolation_level=None)
        self._seen: dict[str, Seen] = {}
        self._read: Counter[str] = Counter()  # how much was read of what each receiver got
        self._newest: dict[tuple[str, str], str] = {}  # the last sequence by orchestrator and task
        self._last_known = 0
        self.events: dict[int, tuple[str, str, bool]] = {}  # by place: id, type, whether it is poison
        self.told: dict[int, str] = {}  # by place: the id that an agent was given
        self.refused = 0
        self.minutes = 0
        self.states: set[tuple[str, str]] = set()  # each that a destination was seen in

    def close(self) -> None:
        self._con.close()

    def hear(self, told: Iterable[tuple[int, str]], refused: int) -> None:
        """What an agent was told of its record calls."""
        self.refused += refused
        for seq, id_ in told:
            assert self.told.setdefault(seq, id_) == id_, f"place {seq} was given to two events"

    def forget(self, sink: str) -> None:
        """From now on a destination does not count; when it comes again it is another one."""
        self._seen.pop(sink, None)

    @property
    def last_seq(self) -> int:
        """The newest place."""
        return int(self._con.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0])

    @property
    def heartbeats(self) -> int:
        """How many heartbeats were recorded, in the agents' own time."""
        return sum(type_ == HEARTBEAT for _, type_, _ in self.events.values())

    @property
    def kept(self) -> int:
        """How many events the file still holds."""
        return self._count("events")

    def hold(self, minute: int, mark: int, served: Collection[str], leaderless: Collection[str]) -> None:
        """The laws of one minute; everything up to the place ``mark`` was there before the agents settled."""
        self.minutes += 1
        try:
            self._con.execute("BEGIN")
            report = self._observer.health()
            rows = cursors.sinks(self._con)
            self._learn_events()
            self.states.update((row.name, row.state.value) for row in rows)
            for row in rows:
                self._every_count_adds_up(row, report)
                self._nothing_is_settled_that_did_not_arrive(row)
                self._dead_is_only_what_was_refused(row)
                self._one_heartbeat_waits_at_most(row)
                if row.name in served and row.name not in leaderless:
                    self._nobody_waits_for_another(row, minute, mark)
        except AssertionError as breach:
            breach.add_note(f"at {text_of(minute)}")
            raise
        finally:
            self._con.execute("COMMIT")

    def hold_at_rest(self, served: Collection[str]) -> None:
        """When all is well again, every event is delivered, dead with a reason, or expired and itemised."""
        for row in cursors.sinks(self._con):
            if row.name not in served:
                continue
            expired, dead = self._expired(row.name), self._dead(row.name)
            missing = [
                seq
                for seq in self.told
                if seq > row.start_seq and seq not in self._seen[row.name].delivered | expired.keys() | dead.keys()
            ]
            assert not missing, f"{row.name}: {missing[:5]} of {len(missing)} are nowhere"
            assert not row.pending(self.last_seq), f"{row.name} still has {row.pending(self.last_seq)} to deliver"
            assert all(dead.values()), f"{row.name}: a dead letter without a reason"
            for seq, reason in expired.items():
                assert reason in ("folded", "expired"), f"{row.name}: {seq} expired for {reason!r}"
                known = self.events.get(seq)
                assert known is None or known[1] == PROGRESS, f"{row.name}: {known} was folded"
        for seq, id_ in self.told.items():
            assert self.events.get(seq, (id_,))[0] == id_, f"place {seq} holds another event than was told"

    def is_at_rest(self, served: Collection[str]) -> bool:
        """Whether nothing is pending."""
        last_seq = self.last_seq
        return not any(row.pending(last_seq) for row in cursors.sinks(self._con) if row.name in served)

    # --- the laws -----------------------------------------------------------------------------------------------------

    def _every_count_adds_up(self, row: SinkRow, report: OutboxReport) -> None:
        told = next(sink for sink in report.sinks if sink.name == row.name)
        recorded = report.recorded - row.start_seq
        assert recorded == told.delivered + told.pending + told.dead + told.expired, f"{recorded} recorded, {told}"
        ahead = self._count("events WHERE seq > ?", row.cursor)
        pending = ahead + self._count("work WHERE sink = ? AND state = 'parked'", row.name)
        dead = self._count("work WHERE sink = ? AND state = 'dead'", row.name)
        expired = len(self._expired(row.name))
        delivered = self._pass(row)
        counted = (delivered, pending, dead, expired)
        assert counted == (told.delivered, told.pending, told.dead, told.expired), f"counted {counted}, {told}"

    def _pass(self, row: SinkRow) -> int:
        """Count the places that the cursor passed, and those that left the desk, as what they became."""
        seen = self._seen.get(row.name)
        if seen is None:
            seen = self._seen[row.name] = Seen(row.start_seq)
        parked = self._places_of("SELECT seq FROM work WHERE sink = ? AND state = 'parked'", row.name)
        settled = {*range(seen.cursor + 1, row.cursor + 1), *seen.parked} - parked
        seen.cursor, seen.parked = row.cursor, parked
        seen.fresh = settled - self._dead(row.name).keys() - self._expired(row.name).keys()
        seen.delivered |= seen.fresh
        return len(seen.delivered)

    def _nothing_is_settled_that_did_not_arrive(self, row: SinkRow) -> None:
        seen = self._seen[row.name]
        seen.arrived.update(self._arrived(row.name))
        due = [seq for seq in seen.fresh if seq in self.events and self._is_for(row.name, seq)]
        lost = [seq for seq in due if self.events[seq][0] not in seen.arrived]
        assert not lost, f"{row.name}: {lost[:5]} count as delivered and never arrived"

    def _is_for(self, sink: str, seq: int) -> bool:
        return sink in ORCHESTRATORS or self.events[seq][1] != HEARTBEAT

    def _one_heartbeat_waits_at_most(self, row: SinkRow) -> None:
        waiting = [seq for seq, (_, type_, _) in self.events.items() if type_ == HEARTBEAT and seq > row.cursor]
        assert len(waiting) <= 1 or row.name not in ORCHESTRATORS, f"{row.name} has still to get {waiting}"

    def _dead_is_only_what_was_refused(self, row: SinkRow) -> None:
        for seq, reason in self._dead(row.name).items():
            id_, _, poisoned = self.events[seq]
            assert poisoned, f"{row.name}: {id_} is dead: {reason}"

    def _nobody_waits_for_another(self, row: SinkRow, minute: int, mark: int) -> None:
        if row.name == "ledger" and any(spell.what == "hangs" and spell.troubles(minute) for spell in SPELLS):
            return
        if row.state is not SinkState.DELIVERING:
            assert any(spell.sink == row.name and spell.troubles(minute) for spell in SPELLS), (
                f"{row.name} is {row.state}, and nothing is wrong with it: {row.reason}"
            )
            assert row.next_try_us is not None
            wait_s = (row.next_try_us - self._now_us(minute)) / 1e6
            assert 0 < wait_s <= LONGEST_S[row.state], f"{row.name} is {row.state} for {wait_s} s"
            return
        assert row.cursor >= mark, f"{row.name} stands at {row.cursor} of {mark}, and nothing is wrong with it"
        lanes = self._con.execute("SELECT task, due_us FROM lanes WHERE sink = ?", (row.name,)).fetchall()
        for task, due_us in lanes:
            wait_s = (due_us - self._now_us(minute)) / 1e6
            assert 0 < wait_s <= 60, f"{row.name}: {task} is due in {wait_s} s"

    def _order_is_kept(self, orchestrator: str, event: dict[str, Any]) -> None:
        lane = orchestrator, event.get("subject") or ""
        assert self._newest.get(lane, "") < event["sequence"], f"{orchestrator}: {event} comes too late"
        self._newest[lane] = event["sequence"]

    # --- looking ------------------------------------------------------------------------------------------------------

    def _learn_events(self) -> None:
        query = "SELECT seq, id, type, instr(body, '\"poison\"') > 0 FROM events WHERE seq > ?"
        for seq, id_, type_, poisoned in self._con.execute(query, (self._last_known,)):
            self.events[seq] = id_, type_, bool(poisoned)
            self._last_known = seq
            assert self.told.get(seq, id_) == id_, f"place {seq} holds another event than was told"

    def _arrived(self, sink: str) -> list[str]:
        """What a receiver has got since the last look."""
        if sink in ORCHESTRATORS:
            events = self._unread(sink, self._receiver(sink).events)
            for event in events:
                self._order_is_kept(sink, event)
            return [event["id"] for event in events]
        if sink == "pager":
            return self._unread(sink, self._weather.pager.ids)
        path = self._places.file_of(sink)
        return self._unread(sink, path.read_text().split() if path.exists() else [])

    def _unread(self, sink: str, everything: list[T]) -> list[T]:
        unread = everything[self._read[sink] :]
        self._read[sink] += len(unread)
        return unread

    def _receiver(self, orchestrator: str) -> Receiver:
        receiver = self._weather.north if orchestrator == "north" else self._weather.south
        assert not receiver.failures, receiver.failures[0]
        assert not receiver.conflicts, receiver.conflicts[0]
        return receiver

    def _dead(self, sink: str) -> dict[int, str]:
        query = "SELECT seq, reason FROM work WHERE sink = ? AND state = 'dead'"
        return dict(self._con.execute(query, (sink,)).fetchall())

    def _expired(self, sink: str) -> dict[int, str]:
        ranges = self._con.execute("SELECT first_seq, last_seq, reason FROM gaps WHERE sink = ?", (sink,)).fetchall()
        return dict(chain.from_iterable(((seq, why) for seq in range(first, last + 1)) for first, last, why in ranges))

    def _places_of(self, query: str, sink: str) -> set[int]:
        return {seq for (seq,) in self._con.execute(query, (sink,))}

    def _count(self, what: str, *values: object) -> int:
        return int(self._con.execute(f"SELECT count(*) FROM {what}", values).fetchone()[0])

    def _now_us(self, minute: int) -> int:
        return START_US + minute * 60_000_000
