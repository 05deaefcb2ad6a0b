"""What the machine found once, each as one short history. None of them may come back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchclient.core.http import HttpReply, HttpRequest
from orchclient.delivery import flush

from .host import outbox_of
from .machine import DAY_S, OutboxMachine
from .orchestrator import BUSY, DEFERRALS, FENCED, STATUSES, WELL, Answer, Orchestrator, Outcome, Terms
from .sayings import SAYINGS, TASKS
from .world import SINKS, World

FIRST, OTHER = SINKS
RETRY = DEFERRALS[0]
FENCED_BEFORE_THE_REPLY = FENCED[1]
KEPT_IN_SILENCE = next(answer for answer in DEFERRALS if answer.name == "kept without a result, event 1 of task 0")
THROTTLED = next(answer for answer in STATUSES if "Retry-After '7'" in answer.name)


@pytest.fixture
def world(machine: type[OutboxMachine], tmp_path: Path) -> Iterator[World]:
    """A world in which nothing has happened."""
    world = World(machine.base, machine.image)
    yield world
    world.host.close()


def record(world: World, events: int) -> None:
    world.record(0, [(TASKS[0], SAYINGS[0])] * events)


def deliver(world: World, *script: Answer, greeting: Answer = WELL) -> None:
    world.deliver(world.leader(FIRST), greeting, script, patient=False)


def restore(world: World) -> None:
    """One event is pending in a copy of the file; it and a newer one are delivered; the copy is put back."""
    record(world, 1)
    world.back_up()
    record(world, 1)
    world.heal()
    world.restore()


def spying(answer: Answer, seen: list[bytes]) -> Answer:
    """The same answer, which notes the bodies of the requests."""

    def play(orchestrator: Orchestrator, request: HttpRequest) -> Outcome:
        seen.append(request.body)
        return answer.play(orchestrator, request)

    return Answer(answer.name, play)


def test_a_flusher_that_is_fenced_while_it_asks_for_the_capabilities_settles_nothing(world: World) -> None:
    """The second ``_select`` may be empty, and ``Selection.last_seq`` is the ``max`` of nothing: ``ValueError``."""

    def fenced(orchestrator: Orchestrator, request: HttpRequest) -> HttpReply:
        orchestrator.hand_over()
        return orchestrator.process(request)

    record(world, 1)
    deliver(world, WELL, WELL, greeting=Answer("fenced", fenced))


def test_a_batch_has_at_most_the_bytes_a_receiver_takes(world: World) -> None:
    """``bulk.OPENING_BYTES`` is 110, the opening of an event and its comma are 113."""
    record(world, 40)
    world.orchestrators[FIRST].terms = Terms(max_bytes=9_000)
    bodies: list[bytes] = []
    deliver(world, spying(WELL, bodies))
    assert [len(body) for body in bodies if len(body) > 9_000] == []


def test_a_parked_event_is_sent_again_although_the_clock_was_set_back(world: World) -> None:
    """``lanes.due_us`` is an instant of the wall clock, so the lane waits for as long as the clock was set back."""
    record(world, 1)
    deliver(world, RETRY)
    world.clock.jump(-3_652 * DAY_S)
    world.clock.wait(3_600)
    deliver(world, WELL)
    assert world.orchestrators[FIRST].kept


def test_a_throttled_destination_is_due_again_when_its_time_has_come(world: World) -> None:
    """``flush`` asks for the stored state alone: it returns at once, with whatever a thread got done meanwhile."""
    record(world, 1)
    deliver(world, THROTTLED)
    world.clock.wait(60)
    outbox = outbox_of(world.host.client(0))
    assert FIRST in flush.look(outbox, world.clock, outbox.query(flush.mark), own=[FIRST]).working


def test_a_destination_that_comes_late_counts_what_it_gets(world: World) -> None:
    """A new cursor starts before the oldest row, and what was pruned behind that row counts as delivered to it."""
    with world.host.client(0).transaction() as con:
        con.execute("DELETE FROM sinks WHERE name = ?", (OTHER,))
    record(world, 1)
    deliver(world, RETRY)
    world.record(0, [(TASKS[1], SAYINGS[0])] * 5)
    deliver(world, WELL, WELL)
    world.keep_house(0, "fold", 9)
    world.keep_house(0, "prune", 0)
    world.elect(0, OTHER)
    world.heal()
    delivered = {sink.name: sink.delivered for sink in world.host.client(0).health().sinks}
    assert delivered[OTHER] == len(world.orchestrators[OTHER].kept)


def test_a_request_holds_events_of_one_source(world: World) -> None:
    """docs/wire.md: "all of one source". A batch goes over the place from which a new source holds."""
    restore(world)
    record(world, 1)
    bodies: list[bytes] = []
    deliver(world, *[spying(WELL, bodies)] * 3)
    assert [body for body in bodies if len({event["source"] for event in json.loads(body)}) > 1] == []


def test_what_was_accepted_beside_a_conflict_is_not_sent_under_the_new_source(world: World) -> None:
    """The whole batch comes again under the new source: for a receiver, which knows (source, id), as other events."""
    restore(world)
    record(world, 2)
    deliver(world, WELL, WELL, WELL)
    assert len(world.orchestrators[FIRST].keys) == len(world.orchestrators[FIRST].kept)


def test_two_destinations_may_report_the_same_conflict_at_once(world: World) -> None:
    """The second one finds the source renewed already at this place, and gives its events up as dead letters."""
    restore(world)
    record(world, 1)
    deliver(world, BUSY)
    assert [sink.dead for sink in world.host.client(0).health().sinks] == [0, 0]


def test_a_crash_behind_a_conflict_sends_nothing_twice(world: World) -> None:
    """The source is renewed in one transaction and the answer settled in the next one.

    A process that dies between them sends what was accepted beside the conflict again, under the new source.
    """
    for statement in range(10):
        restore(world)
        record(world, 2)
        world.crash_during_delivery(world.leader(FIRST), statement, WELL)
        world.heal()
        assert len(world.orchestrators[FIRST].keys) == len(world.orchestrators[FIRST].kept), f"at {statement}"


def test_a_fenced_flusher_does_not_renew_the_source(world: World) -> None:
    """The renewal is not guarded by the epoch, the settlement behind it is."""
    restore(world)
    record(world, 2)
    deliver(world, FENCED_BEFORE_THE_REPLY)
    world.heal()
    assert len(world.orchestrators[FIRST].keys) == len(world.orchestrators[FIRST].kept)


def test_what_a_receiver_keeps_in_silence_behind_a_conflict_comes_again_under_the_new_source(world: World) -> None:
    """No defect of ours: it was to give a result for each event, and to keep nothing behind a conflict of the task."""
    restore(world)
    record(world, 2)
    deliver(world, KEPT_IN_SILENCE)
    world.heal()
    receiver = world.orchestrators[FIRST]
    assert sorted(Counter(event_id for _, event_id in receiver.keys).values()) == [1, 1, 1, 2]
    assert not receiver.breaches
