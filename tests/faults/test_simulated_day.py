"""A day of outages, partitions, restarts and poison: three agents' processes, four destinations, one outbox.

Real processes, threads, kernel locks, files and loopback sockets; the clock is the day's own (``day_world``), so that
back-offs, probes, ``Retry-After`` and retention really elapse. What goes wrong stands in the tables of ``day_plan``;
after each of the 1,440 minutes every law of ``day_laws`` is held.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise, takewhile
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, Self

import pytest

from orchclient import OrchestratorClient
from orchclient.reporting import SinkReport

from .crash_zygote import Child, Zygote, hear
from .day_agents import STILL_S, Places, live
from .day_laws import Judge
from .day_plan import (
    AGENTS,
    FIRST_SINKS,
    HAPPENINGS,
    RESTART_AFTER_MIN,
    Happening,
    Weather,
    minute_of,
    text_of,
)
from .day_world import MINUTE_US, DayClock, World

DAY_MIN = 24 * 60
REST_MIN = 65
"""How long after midnight the longest wait of all may last: an hour between probes."""

SECOND_US = 1_000_000
MAX_PENDING = 700
FIRST_BATCH = 16


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    made = Zygote("tests.faults.day_agents", "orchclient.delivery.http.adapter", "orchclient.delivery.worker")
    yield made
    made.close()


@pytest.fixture
def memory() -> Iterator[Path]:
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with TemporaryDirectory(prefix="orchclient-day-", dir=base) as directory:
        yield Path(directory)


class Process:
    """One agent's process as the day sees it."""

    def __init__(self, zygote: Zygote, name: str, places: Places, seed: str, sinks: list[str], planted: str) -> None:
        self.name = name
        pipe = places.orders_for(name)
        if not pipe.exists():
            os.mkfifo(pipe)
        self._orders = os.open(pipe, os.O_RDWR)  # both ways, so that nobody waits for the other to open it
        self.child: Child = zygote.fork(live, name, places, seed, sinks, planted)
        self._answers = 0

    def order(self, do: str, **arguments: Any) -> None:
        """Have something done; ``answer`` waits for it."""
        os.write(self._orders, f"{json.dumps({'do': do, **arguments})}\n".encode())

    def answer(self) -> str:
        """What came of the oldest order that was not answered yet."""
        self._answers += 1
        hear([self.child], lambda: len(self.child.texts("done")) >= self._answers)
        done = self.child.texts("done")
        assert len(done) >= self._answers, f"{self.name} says nothing more: {self.child.said[-3:]}"
        assert not self.child.texts("error"), self.child.texts("error")[0]
        return done[self._answers - 1]

    def kill(self) -> None:
        """SIGKILL, and let go of the pipe with whatever is still in it."""
        self.child.kill()
        hear([self.child], lambda: self.child.is_gone)
        os.close(self._orders)


class Day:
    """Everything that belongs to one day, and how a minute passes."""

    def __init__(
        self,
        zygote: Zygote,
        directory: Path,
        seed: int,
        *,
        planted: str = "",
        first: str = "00:00",
        still_s: float = STILL_S,
    ) -> None:
        self._zygote = zygote
        self._random = Random(seed)
        self._seed = seed
        self._planted = planted
        self._still_s = still_s
        self._open = ExitStack()
        self.world = World(directory / "world")
        self.weather = self._open.enter_context(Weather(self.world))
        self.places = Places(directory, self.weather.urls, MAX_PENDING)
        self.minute = minute_of(first)
        self.world.put(0, self.minute * MINUTE_US)
        observer = OrchestratorClient(
            "observer", outbox=self.places.outbox, background=False, mode="offline", clock=DayClock(self.world, "o")
        )
        self._open.callback(observer.close)
        self.observer = observer
        self.judge = Judge(self.places, self.weather, observer)
        self._open.callback(self.judge.close)
        self._sinks = list(FIRST_SINKS)
        self._restarts: dict[int, str] = {}
        self._percent = 0
        self.kills = 0
        self.processes: dict[str, Process] = {}

    @property
    def sinks(self) -> dict[str, SinkReport]:
        """What ``health()`` says of each destination."""
        return {sink.name: sink for sink in self.observer.health().sinks}

    def __enter__(self) -> Self:
        for name in AGENTS:
            self._start(name)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.kill()
        self._open.close()

    def pass_until(self, end: str | int) -> None:
        """Minute after minute."""
        last = end if isinstance(end, int) else minute_of(end)
        while self.minute < last:
            self.pass_minute()

    def pass_minute(self, *, in_silence: bool = False) -> None:
        """Trouble comes and goes, agents speak, everything that is due is done, and the laws are held."""
        self.minute += 1
        self.world.put(0, self.minute * MINUTE_US - SECOND_US)
        if self.minute < DAY_MIN:
            self.weather.change(self.minute)
        if self.minute in self._restarts:
            self._start(self._restarts.pop(self.minute))
        victims = [name for each in HAPPENINGS if minute_of(each.at) == self.minute for name in self._happens(each)]
        if not in_silence:
            self._speak()
        mark = self.judge.last_seq
        self.world.put(0, self.minute * MINUTE_US)  # a second later, so that everybody looks for what others said
        for process in self.processes.values():
            process.order("settle", still_s=self._still_s)
        leaderless = self._strike(victims) if victims else []
        for process in self.processes.values():
            assert process.answer() == "still", f"{text_of(self.minute)}: {process.name} is still busy"
        self.judge.hold(self.minute, mark, self._sinks, leaderless)

    def rest(self) -> int:
        """After midnight: nobody speaks, until all is delivered; how many minutes that took."""
        for count in range(REST_MIN):
            if self.judge.is_at_rest(self._sinks):
                self.judge.hold_at_rest(self._sinks)
                return count
            self.pass_minute(in_silence=True)
        self.judge.hold_at_rest(self._sinks)
        return REST_MIN

    def _speak(self) -> None:
        speakers = [process for process in self.processes.values() if self._random.random() < 0.3]
        for process in speakers:
            process.order("say", speech=[self._said_by(process.name) for _ in range(self._random.randint(1, 7))])
        for process in speakers:
            self.judge.hear(*json.loads(process.answer()))

    def _said_by(self, name: str) -> dict[str, Any]:
        (verb,) = self._random.choices(["update", "complete", "escalate", "poison"], [92, 3, 3, 2])
        self._percent += 1
        return {"verb": verb, "task": f"{name}-{self._random.randint(1, 3)}", "percent": self._percent % 101}

    def _happens(self, each: Happening) -> list[str]:
        """Do what happens; the names of those who will be killed while they deliver."""
        if each.what == "kill leader":
            return [name for name in [self._leader_of(each.whom)] if name in self.processes]
        if each.what == "kill":
            return [each.whom] if each.whom in self.processes else []
        acts = {
            "start": self._start,
            "end": self._end,
            "add": self._add,
            "remove": self._remove,
            "forget": self._forget,
        }
        acts[each.what](each.whom)
        return []

    def _leader_of(self, sink: str) -> str:
        holder = self.sinks[sink].holder if sink in self.sinks else None
        return str(holder["agent"]) if holder else ""

    def _strike(self, victims: list[str]) -> list[str]:
        """Kill while they deliver; the destinations that had one of them as their leader."""
        mine = [sink for sink in self._sinks if self._leader_of(sink) in victims]
        for name in victims:
            self.processes.pop(name).kill()
            self.kills += 1
            self._restarts.setdefault(self.minute + RESTART_AFTER_MIN + self.kills % 3, name)
        # Who was elected in this minute may have found the events of others only after it.
        return mine

    def _start(self, name: str) -> None:
        if name in self.processes:
            return
        seed = f"{self._seed} {name} {self.minute}"
        process = Process(self._zygote, name, self.places, seed, list(self._sinks), self._planted)
        hear([process.child], lambda: bool(process.child.texts("ready")))
        assert process.child.texts("ready"), process.child.said
        self.processes[name] = process

    def _end(self, name: str) -> None:
        process = self.processes.pop(name)
        process.order("end")
        assert process.answer() == "ended"
        process.kill()

    def _add(self, sink: str) -> None:
        self._sinks.append(sink)
        self._have_all("add", sink=sink)

    def _remove(self, sink: str) -> None:
        self._sinks.remove(sink)
        self._have_all("remove", sink=sink, forget=False)

    def _forget(self, sink: str) -> None:
        self._sinks.remove(sink)
        first, *others = self.processes.values()
        for process in others:
            process.order("remove", sink=sink, forget=False)
            process.answer()
        first.order("remove", sink=sink, forget=True)
        first.answer()
        self.judge.forget(sink)

    def _have_all(self, do: str, **arguments: Any) -> None:
        for process in self.processes.values():
            process.order(do, **arguments)
        for process in self.processes.values():
            process.answer()


def live_through(zygote: Zygote, memory: Path, seed: int) -> None:
    """The whole of a day, and whatever minutes it takes until all is well again."""
    print(f"seed {seed}")
    with Day(zygote, memory, seed) as day:
        day.pass_until(DAY_MIN - 1)
        rest_min = day.rest()
        judge = day.judge
        print(f"{len(judge.told)} events, {judge.refused} refused, {day.kills} kills, at rest {rest_min} min after")
        for sink in day.sinks.values():
            print(f"  {sink.name}: {sink.delivered} delivered, {sink.dead} dead, {sink.expired} expired")
        assert judge.minutes == DAY_MIN - 1 + rest_min
        they_come_back_gently([len(request.ids) for request in day.weather.north.requests if request.ids])
        assert judge.states >= SEEN
        assert judge.heartbeats > 100, judge.heartbeats
        assert judge.kept < len(judge.told) / 2, "nothing became old"
        assert day.sinks["north"].expired or judge.refused, "the limit was never reached"
        assert all(day.sinks[name].dead for name in ("north", "south", "pager")), "nobody was poisoned"


SEEN = {
    *((sink, "delivering") for sink in (*FIRST_SINKS, "archive")),
    ("north", "waiting"),
    ("south", "waiting"),
    ("south", "throttled"),
    ("south", "paused"),
    ("pager", "waiting"),
    ("pager", "throttled"),
    ("ledger", "waiting"),
}
"""If one of these is missing, the day was no day of trouble."""


def they_come_back_gently(sizes: list[int]) -> None:
    """After six hours without an orchestrator batches begin small, and at most double each time."""
    largest = sizes.index(max(sizes))
    climb = list(takewhile(lambda size: size > FIRST_BATCH, reversed(sizes[:largest])))[::-1]
    begin = sizes[largest - len(climb) - 1]
    assert begin <= FIRST_BATCH, sizes[largest - 9 : largest + 1]
    for size, following in pairwise([begin, *climb, sizes[largest]]):
        assert following <= 2 * size, (begin, climb, sizes[largest])


@pytest.mark.timeout(300)
def test_a_day_of_trouble_loses_nothing_and_every_count_adds_up_at_every_minute(zygote: Zygote, memory: Path) -> None:
    live_through(zygote, memory, 20261123)


@pytest.mark.release
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(int(os.environ.get("ORCHCLIENT_TEST_DAYS", "20"))))
def test_days_of_other_chances(seed: int, zygote: Zygote, memory: Path) -> None:
    live_through(zygote, memory, seed)


@pytest.mark.parametrize(
    ("planted", "first", "last", "found"),
    [
        ("settles_before_the_answer", "00:30", "01:00", "count as delivered and never arrived"),
        ("an_outage_uses_up_attempts", "02:50", "03:30", "is dead: tried too often"),
        ("one_worker_thread_for_all_destinations", "16:50", "17:10", "is still busy"),
        ("an_outage_of_one_is_an_outage_of_all", "02:50", "03:30", "nothing is wrong with it"),
    ],
)
def test_the_day_finds_a_planted_bug(
    planted: str, first: str, last: str, found: str, zygote: Zygote, memory: Path
) -> None:
    with Day(zygote, memory, 7, planted=planted, first=first, still_s=3.0) as day:
        with pytest.raises(AssertionError) as breach:
            day.pass_until(last)
        assert found in str(breach.value)


@pytest.mark.parametrize(("first", "last"), [("00:30", "01:00"), ("02:50", "03:30"), ("16:50", "17:10")])
def test_without_a_planted_bug_the_same_minutes_pass(first: str, last: str, zygote: Zygote, memory: Path) -> None:
    with Day(zygote, memory, 7, first=first) as day:
        day.pass_until(last)
