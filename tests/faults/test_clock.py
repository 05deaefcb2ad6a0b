"""The wall clock jumps, a day and ten years, ahead and back: only the times that are printed change.

A real jump (NTP, an operator, a virtual machine that slept) leaves the monotonic clock alone, and so does the shim that
makes these. The programs are in agents.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchclient import OrchestratorClient
from orchclient.outbox import journal
from orchclient.testing import Fault, Receiver
from tests.faults import preload
from tests.faults.program import Program

pytestmark = preload.needs_shims

DAY_S = 86_400
JUMPS = {"a day ahead": DAY_S, "a day back": -DAY_S, "ten years ahead": 3653 * DAY_S, "ten years back": -3653 * DAY_S}
IDS = [name.replace(" ", "-") for name in JUMPS]
AT_EVERY_PUSH = ("a-day-back", "ten-years-ahead")
jumping = pytest.mark.parametrize("jump_s", JUMPS.values(), ids=IDS)
jumping_now_and_then = pytest.mark.parametrize(
    "jump_s",
    [
        pytest.param(jump_s, id=name, marks=() if name in AT_EVERY_PUSH else pytest.mark.release)
        for name, jump_s in zip(IDS, JUMPS.values(), strict=True)
    ],
)

SOON_S = 20.0
"""Waits of these tests last a second or two; one that follows the wall clock would last an hour or years."""

STUCK_S = 4.0
WEEK_S = 7.0 * DAY_S


def agent(
    path: Path, receiver: Receiver, *, retention_s: float = WEEK_S, ahead_s: int = 0, planted: str = ""
) -> Program:
    """An agent that does what it is told, its wall clock so far ahead."""
    environment = preload.environment("wallclock", {"WALLCLOCK_AHEAD_S": ahead_s})
    program = Program("record_beside_jumps", str(path), receiver.url, retention_s, planted, environment=environment)
    assert program.line() == "ready"
    return program


def told(program: Program, verb: str, argument: object) -> str:
    """What the program answers to a line."""
    program.hear(f"{verb} {argument}")
    return program.line()


def jump(program: Program, ahead_s: int) -> None:
    """Its wall clock jumps to so far ahead. That it did is looked at: a shim without effect would prove nothing."""
    assert abs(int(told(program, "ahead", ahead_s)) - time.time() - ahead_s) < DAY_S / 2


def posts(receiver: Receiver) -> int:
    return sum(request.path == "/v1/events" for request in receiver.requests)


TROUBLES: dict[str, Callable[[Receiver], None]] = {
    "back-off": lambda receiver: receiver.plan(Fault.status(503), Fault.status(502)),
    "retry-after": lambda receiver: receiver.plan(Fault.status(429, retry_after="1")),
    "lanes": lambda receiver: receiver.plan(Fault.retry("left"), Fault.retry("left")),
    "nothing": lambda receiver: None,
}


@jumping
def test_a_jump_while_an_agent_records_and_delivers_loses_nothing_delays_nothing_and_keeps_order(
    jump_s: int, outbox_path: Path, receiver: Receiver
) -> None:
    ids: dict[str, list[str]] = {"left": [], "right": []}
    with agent(outbox_path, receiver) as program:
        for number, make_trouble in enumerate(TROUBLES.values()):
            make_trouble(receiver)
            before = posts(receiver)
            for task in ("left", "right"):
                ids[task].append(told(program, "record", task))
            assert receiver.wait_for_requests(before + 1, SOON_S, path="/v1/events")
            assert told(program, "looks", 2) == "looked"  # the answer is settled by now
            jump(program, 0 if number % 2 else jump_s)  # it goes wrong, and is set right
            for task in ("right", "left"):
                ids[task].append(told(program, "record", task))
            assert receiver.wait_for(sum(map(len, ids.values())), SOON_S)
        assert program.ended() == []
    assert {task: [event["id"] for event in events] for task, events in receiver.by_task().items()} == ids
    assert len({id_ for each in ids.values() for id_ in each}) == 2 * 2 * len(TROUBLES)


def test_the_jumps_find_a_build_that_backs_off_by_the_wall_clock(outbox_path: Path, receiver: Receiver) -> None:
    receiver.plan(Fault.status(429, retry_after="2"))
    with agent(outbox_path, receiver, planted="durations") as program:
        told(program, "record", "task")
        assert wait_for_state(outbox_path, "throttled")
        assert told(program, "looks", 2) == "looked"  # and the thread that delivers has gone to sleep
        jump(program, -DAY_S)
        assert not receiver.wait_for(1, STUCK_S)


@jumping_now_and_then
def test_what_a_receiver_asked_of_a_flusher_before_the_jump_does_not_hold_up_the_next_one(
    jump_s: int, outbox_path: Path, receiver: Receiver
) -> None:
    receiver.plan(Fault.status(429, retry_after="2"))
    with agent(outbox_path, receiver) as program:
        told(program, "record", "task")
        assert receiver.wait_for_requests(1, SOON_S, path="/v1/events")
        assert wait_for_state(outbox_path, "throttled")
    with agent(outbox_path, receiver, ahead_s=jump_s) as program:
        told(program, "record", "task")
        assert receiver.wait_for(2, SOON_S)
        assert program.ended() == []


def wait_for_state(path: Path, state: str) -> bool:
    """Whether the answer of the receiver is settled, soon: nobody tells, another process writes it."""
    with OrchestratorClient("judge", outbox=path, background=False) as judge:
        until = time.monotonic() + SOON_S
        while time.monotonic() < until:
            if any(sink.state == state for sink in judge.health().sinks):
                return True
            time.sleep(0.01)
    return False


@jumping_now_and_then
def test_a_jump_ages_no_delivered_event_in_this_process_and_the_next_one(
    jump_s: int, outbox_path: Path, receiver: Receiver
) -> None:
    with agent(outbox_path, receiver) as program:
        ids = [told(program, "record", "task") for _ in range(10)]
        assert receiver.wait_for(10, SOON_S)
        jump(program, jump_s)
        ids += [told(program, "record", "task") for _ in range(10)]
        assert receiver.wait_for(20, SOON_S)
        assert told(program, "looks", 5) == "looked"
        assert program.ended() == []
    for ahead_s in (jump_s, 0):
        with agent(outbox_path, receiver, ahead_s=ahead_s) as program:
            ids.append(told(program, "record", "task"))
            assert told(program, "looks", 3) == "looked"
            assert program.ended() == []
    assert stored(outbox_path) == ids


def test_the_jumps_find_a_build_that_reads_ages_off_dates(outbox_path: Path, receiver: Receiver) -> None:
    with agent(outbox_path, receiver, planted="ages") as program:
        for _ in range(3):
            told(program, "record", "task")
        assert receiver.wait_for(3, SOON_S)
        assert told(program, "looks", 5) == "looked"
        assert len(stored(outbox_path)) == 3
        jump(program, 3653 * DAY_S)
        newest = told(program, "record", "task")
        assert receiver.wait_for(4, SOON_S)
        assert told(program, "looks", 5) == "looked"
        assert stored(outbox_path) == [newest]


@jumping_now_and_then
def test_after_a_jump_history_that_is_old_is_forgotten_all_the_same(
    jump_s: int, outbox_path: Path, receiver: Receiver
) -> None:
    with agent(outbox_path, receiver, retention_s=0.5) as program:
        told(program, "record", "task")
        assert receiver.wait_for(1, SOON_S)
        jump(program, jump_s)
        newest = told(program, "record", "task")
        assert receiver.wait_for(2, SOON_S)
        until = time.monotonic() + SOON_S
        while stored(outbox_path) != [newest] and time.monotonic() < until:
            assert told(program, "looks", 1) == "looked"
        assert program.ended() == []
    assert stored(outbox_path) == [newest]


def stored(path: Path) -> list[str]:
    """The ids that an outbox still holds, by place."""
    with OrchestratorClient("judge", outbox=path, background=False) as judge:
        entries = judge._station.query(lambda con: list(journal.read_range(con, 0, journal.MAX_SEQ)))
    return [entry.id for entry in entries]


@jumping_now_and_then
def test_status_and_list_tell_the_same_but_for_the_times(jump_s: int, outbox_path: Path, receiver: Receiver) -> None:
    receiver.always(Fault.status(503))
    with agent(outbox_path, receiver) as program:
        ids = [told(program, "record", "task") for _ in range(3)]
        assert receiver.wait_for_requests(1, SOON_S, path="/v1/events")
        assert wait_for_state(outbox_path, "waiting")
        [sink] = command("status", outbox_path, jump_s)["sinks"]
        assert (sink["pending"], sink["dead"]) == (3, 0)
        listed = command("list", outbox_path, jump_s)["events"]
    assert sorted(event["id"] for event in listed) == sorted(ids)


def command(verb: str, path: Path, ahead_s: int) -> Any:
    """The document of a command, which runs with its wall clock so far ahead; in words it works as well."""
    settings = {"WALLCLOCK_AHEAD_S": ahead_s, "ORCHCLIENT_DB": path}
    environment = preload.environment("wallclock", settings)
    words, document = (
        subprocess.run(
            [sys.executable, "-m", "orchclient", verb, *flags],
            env=environment,
            capture_output=True,
            text=True,
            timeout=SOON_S,
            check=True,
        )
        for flags in ([], ["--json"])
    )
    assert (words.stderr, document.stderr) == ("", "")
    return json.loads(document.stdout)
