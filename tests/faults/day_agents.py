"""An agent's process in a simulated day: it says what it is told to say, and delivers with threads of its own.

Beside the real client, a destination with a wire of its own (a file) and one with another dialect of HTTP. Bugs can be
planted into the delivery of a process, as negative controls.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from orchclient import OrchestratorClient
from orchclient.core.batch import Batch
from orchclient.core.batching import BatchLimit
from orchclient.core.errors import OutboxFull
from orchclient.core.events import Receipt
from orchclient.core.http import HttpOutcome, HttpReply, HttpRequest
from orchclient.core.policy import Action, Fate, Item, Verdict, action_for, all_delivered, retry_after_s
from orchclient.delivery import courier, housekeeper, runner
from orchclient.delivery.worker import Worker
from orchclient.outbox import bulk
from orchclient.sinks.orchestrator import OrchestratorSink
from orchclient.sinks.sink import AnySink

from .crash_zygote import Voice
from .day_world import LEDGER_FAILS, LEDGER_HANGS, TOKEN_IS_WORN, DayClock, Watch, World

TOKEN, WORN_TOKEN = "south-token-of-the-day", "south-token-of-yesterday"
STILL_S = 30.0
"""Of real time: a minute takes some milliseconds, and longer on a busy machine."""

REQUEST_S = 1.5
"""Of real time: what a receiver that says nothing costs. On a busy machine an honest answer may take half a second."""


@frozen
class Places:
    """Where everything of a day is: the outbox, the shared page, the files of direct sinks, the receivers."""

    directory: Path
    urls: Mapping[str, str]
    max_pending: int

    @property
    def outbox(self) -> Path:
        return self.directory / "outbox.db"

    @property
    def world(self) -> Path:
        return self.directory / "world"

    def file_of(self, sink: str) -> Path:
        """What a direct sink has got: an id a line."""
        return self.directory / f"{sink}.ids"

    def orders_for(self, agent: str) -> Path:
        """A pipe."""
        return self.directory / f"{agent}.orders"


class FileSink:
    """A wire of its own. The ledger's disk fails, or hangs, when the world says so."""

    kind = "file"
    target = "file"
    from_beginning = True
    checks_sequence = False

    def __init__(self, name: str, path: Path, watch: Watch) -> None:
        self.name = name
        self._path = path
        self._watch = watch

    def limit(self) -> BatchLimit:
        return BatchLimit()

    def deliver(self, batch: Batch, *, deadline_s: float) -> Verdict:
        world = self._watch.world
        if self.name == "ledger" and world.at(LEDGER_HANGS):
            self._watch.hang_while(lambda: bool(world.at(LEDGER_HANGS)))
        if self.name == "ledger" and world.at(LEDGER_FAILS):
            raise OSError("the ledger's disk is full")
        with open(os.open(self._path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), "w") as file:
            file.write("".join(f"{id_}\n" for id_ in batch.ids))
        return all_delivered(batch.ids)

    def close(self) -> None:
        """Nothing is kept open."""


class PagerSink:
    """Another dialect: pages, some at once, from now on; it knows nothing of sequences."""

    name = "pager"
    kind = "pager"
    target = "pager"
    from_beginning = False
    checks_sequence = False

    def __init__(self, url: str) -> None:
        self._url = url

    def limit(self) -> BatchLimit:
        return BatchLimit(events=50, max_events=50)

    def greeting(self) -> None:
        return None

    def greeted(self, outcome: HttpOutcome, now_us: int) -> None:
        raise AssertionError("there was no greeting")

    def render(self, batch: Batch) -> HttpRequest:
        body = "\n".join(batch.texts).encode()
        return HttpRequest("POST", f"{self._url}/pages", {"Content-Type": "application/x-ndjson"}, body)

    def decide(self, batch: Batch, outcome: HttpOutcome, now_us: int) -> Verdict:
        if not isinstance(outcome, HttpReply):
            return Verdict(Action.BACK_OFF, f"the pager said nothing: {outcome.reason}")
        action = action_for(outcome.status)
        if action is Action.SETTLE:
            return all_delivered(batch.ids)
        return Verdict(
            action, f"the pager said {outcome.status}", retry_after_s(outcome.headers.get("retry-after"), now_us)
        )


class Agent:
    """One process: a client on the shared outbox, and orders to follow."""

    def __init__(self, voice: Voice, name: str, places: Places, seed: str, sinks: list[str]) -> None:
        self._voice = voice
        self._places = places
        world = World(places.world)
        clock = DayClock(world, seed)
        self._watch = Watch(world, clock)
        runner.Waker = housekeeper.Waker = self._watch.waker  # type: ignore[assignment,misc]
        self._client = OrchestratorClient(
            name,
            outbox=places.outbox,
            sinks=[self._made(sink) for sink in sinks],
            clock=clock,
            retention="2h",
            request_timeout=REQUEST_S,
            max_pending=places.max_pending,
        )

    def follow(self, order: dict[str, Any]) -> None:
        """Do what is ordered, and say that it is done."""
        act: Callable[..., str] = getattr(self, order.pop("do"))
        self._voice.say("done", act(**order))

    def say(self, speech: list[dict[str, Any]]) -> str:
        """Record; what was acknowledged, and how much was refused."""
        told, refused = [], 0
        for each in speech:
            try:
                receipt = self._speak(each)
            except OutboxFull:
                refused += 1
            else:
                told.append((receipt.seq, receipt.event_id))
        self._watch.until_still(STILL_S)  # whoever looks for news now must not do so when the next minute has begun
        return json.dumps([told, refused])

    def _speak(self, each: dict[str, Any]) -> Receipt:
        client, task = self._client, each["task"]
        if each["verb"] == "complete":
            return client.report_completion(task, None, {"tests_passed": 3}).receipt
        if each["verb"] == "escalate":
            return client.escalate_error(task, "build_failure", "it does not build", fatal=False).receipt
        metadata = {"poison": 1} if each["verb"] == "poison" else None
        return client.update_task_status(task, "in_progress", metadata, each["percent"], "a step")

    def settle(self, still_s: float) -> str:
        """Let this minute be over, within seconds of real time."""
        return "still" if self._watch.until_still(still_s) else "restless"

    def add(self, sink: str) -> str:
        self._client.add_sink(self._made(sink))
        self._watch.until_still(STILL_S)
        return sink

    def remove(self, sink: str, forget: bool) -> str:
        self._client.remove_sink(sink, forget=forget)
        self._watch.until_still(STILL_S)
        return sink

    def end(self) -> str:
        self._client.close(0)
        return "ended"

    def _made(self, sink: str) -> AnySink:
        url, world = self._places.urls.get(sink, ""), self._watch.world
        if sink == "north":
            return OrchestratorSink(url, lambda: None, name=sink)
        if sink == "south":
            return OrchestratorSink(url, lambda: WORN_TOKEN if world.at(TOKEN_IS_WORN) else TOKEN, name=sink)
        return PagerSink(url) if sink == "pager" else FileSink(sink, self._places.file_of(sink), self._watch)


def live(voice: Voice, name: str, places: Places, seed: str, sinks: list[str], planted: str) -> None:
    """The life of an agent's process: orders come a line each, until it is told to end or is killed."""
    if planted:
        PLANTS[planted]()
    agent = Agent(voice, name, places, seed, sinks)
    voice.say("ready")
    with places.orders_for(name).open() as orders:
        for line in orders:
            agent.follow(json.loads(line))


# --- planted bugs -----------------------------------------------------------------------------------------------------


def settles_before_the_answer() -> None:
    carry = courier._OverHttp.carry

    def planted(self: Any, batch: Batch, meanwhile: Callable[[], None]) -> Any:
        return evolve(carry(self, batch, meanwhile), verdict=all_delivered(batch.ids))

    courier._OverHttp.carry = planted  # type: ignore[method-assign]


def an_outage_uses_up_attempts() -> None:
    back_off = Worker._back_off

    def planted(self: Worker, exchange: Any) -> None:
        if self.failures < 5:
            return back_off(self, exchange)
        given_up = dict.fromkeys(bulk.ids_in(exchange.selection.to_send), Item(Fate.DEAD, "tried too often"))
        return self._settle_events(evolve(exchange, verdict=Verdict(Action.SETTLE, items=given_up)))

    Worker._back_off = planted  # type: ignore[method-assign]


def one_worker_thread_for_all_destinations() -> None:
    turn, only_one = Worker.turn, threading.Lock()

    def planted(self: Worker) -> float | None:
        with only_one:
            return turn(self)

    Worker.turn = planted  # type: ignore[method-assign]


def an_outage_of_one_is_an_outage_of_all() -> None:
    back_off, workers = Worker._back_off, []
    made = Worker.__attrs_post_init__

    def planted_init(self: Worker) -> None:
        made(self)
        workers.append(self)

    def planted(self: Worker, exchange: Any) -> None:
        back_off(self, exchange)
        for each in workers:
            each._not_before = max(each._not_before, self._not_before)

    Worker._back_off, Worker.__attrs_post_init__ = planted, planted_init  # type: ignore[method-assign]


PLANTS: Mapping[str, Callable[[], None]] = {
    plant.__name__: plant
    for plant in (
        settles_before_the_answer,
        an_outage_uses_up_attempts,
        one_worker_thread_for_all_destinations,
        an_outage_of_one_is_an_outage_of_all,
    )
}
