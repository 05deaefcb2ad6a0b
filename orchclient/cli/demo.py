"""``orchclient demo``: an agent is killed while its orchestrator is down, and nothing it said gets lost.

Stages it and tells it: a real agent process (``demo_process``), a real outbox in a private directory, a real kill; only
the orchestrator is a stand-in. It must not know what counts as success (``demo_verdict``) nor what the agent does
(``demo_agent``), and it reads nothing of the user's: no setting, no outbox.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click
from attrs import field, frozen

from orchclient.cli import demo_agent
from orchclient.cli.demo_agent import LIMIT, PRIMES_BELOW_LIMIT, SLICE
from orchclient.cli.demo_process import LOG, OUTBOX, Agent, Deadline
from orchclient.cli.demo_verdict import Evidence, Recorded, Verdict, document, judged, summary
from orchclient.cli.opening import json_option
from orchclient.cli.output import ExitCode, emit, number, plural
from orchclient.config import Settings
from orchclient.delivery.clock import SystemClock
from orchclient.outbox import attempts, listing
from orchclient.station import Station, open_station
from orchclient.testing.orchestrator import EVENTS_PATH
from orchclient.testing.receiver import Fault, Receiver, SeenRequest

KILL_AFTER = 1 + LIMIT // SLICE // 2
"""Receipts after which the agent is killed: its start, and half of its progress."""

BATCH = 10
CAPABILITIES = {"protocol": ["1.0"], "batch": {"max_events": BATCH, "max_bytes": 1_048_576}}
# An answer that arrives ends the back-off, so with one between the faults the demo takes about as long every time.
TROUBLE = (
    Fault.ok(),
    Fault.status(503, retry_after="1"),
    Fault.ok(),
    Fault.lose_reply(),
    Fault.ok(),
    Fault.lose_reply(),
)

Say = Callable[[str], None]


@click.command("demo")
@click.option("--keep", is_flag=True, help="Keep the outbox and the agent's log, and say where they are.")
@json_option
def demo_command(keep: bool, as_json: bool) -> int:
    """Show the whole thing at work on this machine, in a few seconds.

    An agent works while its orchestrator is down, is killed, starts again and goes on; then the orchestrator comes back
    and everything is delivered. Uses an outbox of its own and none of your settings. Exit code 1: a promise was broken.

    \b
    Example: orchclient demo --keep
    """
    began = time.monotonic()
    say = _unheard if as_json else _told
    with _private_directory(keep) as directory, Receiver(capabilities=CAPABILITIES) as receiver:
        verdict = judged(_play(Stage(directory, receiver, Deadline.of(began), say)))
    seconds = time.monotonic() - began
    kept = {"outbox": str(directory / OUTBOX)} if keep else {}
    facts = {**document(verdict), "seconds": round(seconds, 2), **kept}
    emit(facts, _ending(verdict, seconds, directory if keep else None), as_json=as_json)
    return ExitCode.DONE if verdict.ok else ExitCode.ERROR


def _ending(verdict: Verdict, seconds: float, kept: Path | None) -> str:
    parts = ["\n5  The agent ends. What it recorded, against what the orchestrator got:", summary(verdict)]
    parts.append(f"This took {seconds:.1f} s. The agent's code: {demo_agent.__file__}")
    if kept:
        parts.append(f"Look into the outbox with: orchclient --db {kept / OUTBOX} list")
    return "\n\n".join(parts)


@contextmanager
def _private_directory(keep: bool) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="orchclient-demo-"))
    try:
        yield directory
    finally:
        if keep:
            click.echo(f"Kept: {directory} with {OUTBOX} and {LOG}", err=True)
        else:
            shutil.rmtree(directory, ignore_errors=True)


def _told(text: str) -> None:
    click.echo(text)


def _unheard(text: str) -> None:
    pass


@frozen
class Stage:
    """What the demo plays with."""

    directory: Path
    receiver: Receiver = field(repr=False)
    deadline: Deadline
    say: Say = field(repr=False)


LOOK_EVERY_S = 0.1


# --- the play -----------------------------------------------------------------------------------------------------


def _play(stage: Stage) -> Evidence:
    stage.receiver.stop()
    stage.say("An agent at work is killed while its orchestrator is down. Does anything it said get lost?")
    with _agent(stage) as first:
        _works_until_killed(stage, first)
    with _agent(stage) as second:
        primes = _goes_on(stage, second)
        _is_delivered(stage)
        second.end()
    receipts = first.receipts + second.receipts
    return Evidence(
        acknowledged=[receipt.id for receipt in receipts],
        recorded=_rows(stage),
        arrived=[event["id"] for event in stage.receiver.events],
        repeats=stage.receiver.repeats,
        record_ms=[receipt.took_ms for receipt in receipts],
        result_is_right=primes == PRIMES_BELOW_LIMIT,
    )


def _agent(stage: Stage) -> Agent:
    return Agent(stage.directory, stage.receiver.url, stage.deadline)


def _works_until_killed(stage: Stage, agent: Agent) -> None:
    stage.say(f"\n1  The orchestrator is down. An agent starts to count the primes below {number(LIMIT)}.")
    stage.say("   Each step is recorded in its outbox, a local file. No call waits for the network:")
    agent.listen(lambda said: len(agent.receipts) >= KILL_AFTER, "the agent's first receipts")
    agent.kill()
    calls = agent.receipts
    stage.say(f"   {len(calls)} calls returned a receipt, the slowest after {max(c.took_ms for c in calls):.1f} ms.")
    stage.say("\n2  The agent is killed half way: kill -9, no time to say goodbye.")
    held = {row.id for row in _rows(stage)}
    covered = sum(call.id in held for call in calls)
    stage.say(f"   Its outbox holds {len(held)} events; {covered} of the {len(calls)} receipts are among them.")


def _goes_on(stage: Stage, agent: Agent) -> int:
    stage.say("\n3  The agent starts again, and asks its outbox where its task stands.")
    stands = agent.listen(lambda said: said["say"] == "stands", "the agent to start again")
    checked, found = number(stands["checked"]), number(stands["primes"])
    stage.say(f"   {checked} numbers checked, {found} primes found: it goes on from there.")
    worked = agent.listen(lambda said: said["say"] == "worked", "the agent to finish its work")
    stage.say(f"   It asks a person a question, and hands in its result: {number(worked['primes'])} primes.")
    stage.say(f"   Its second task fails: the {worked['failure']} that escapes becomes a call for help.")
    in_vain = plural(_attempts(stage), "call")
    stage.say(f"   {len(_rows(stage))} events wait, after {in_vain} to the orchestrator in vain.")
    return int(worked["primes"])


def _is_delivered(stage: Stage) -> None:
    stage.say("\n4  The orchestrator comes back, in poor health. The agent delivers in the background:")
    stage.receiver.plan(*TROUBLE)
    stage.receiver.start()
    began, known = time.monotonic(), set[str]()
    for post in _posts(stage):
        events = plural(post.event_count, "event")
        stage.say(f"   {post.arrived_s - began:5.2f} s  {events:>9}  {_answer(post, known)}")
        known |= _taken_in(post)


def _posts(stage: Stage) -> Iterator[SeenRequest]:
    """Each request with events as it comes, until nothing waits in the outbox."""
    told, is_done = 0, False
    while not is_done:
        is_done = not any(row.waits for row in _rows(stage))
        posts = _event_requests(stage.receiver)
        yield from posts[told:]
        told = len(posts)
        if not is_done:
            # Only the outbox tells what is settled, and that wakes nobody: a look now and then, as well as at news.
            left_s = stage.deadline.left_s("the agent to deliver")
            stage.receiver.wait_for(partial(_has_more_than, told), min(left_s, LOOK_EVERY_S))


def _has_more_than(told: int, receiver: Receiver) -> bool:
    return len(_event_requests(receiver)) > told


def _event_requests(receiver: Receiver) -> list[SeenRequest]:
    return [request for request in receiver.requests if request.path == EVENTS_PATH]


_ANSWERS = {
    "ok": "accepted",
    "status 503": "turned away: 503, come back in 1 s",
    "lose_reply": "taken in, but the reply is lost",
}


def _answer(post: SeenRequest, known: set[str]) -> str:
    repeats = len(known & _taken_in(post))
    return _ANSWERS[post.fault.name] + (f", {repeats} of them repeats: filtered out" if repeats else "")


def _taken_in(post: SeenRequest) -> set[str]:
    return set(post.ids) if post.fault.instead is None else set()


# --- the outbox -----------------------------------------------------------------------------------------------------


def _rows(stage: Stage) -> list[Recorded]:
    """Everything that the outbox holds, oldest first."""
    with _outbox(stage) as station:
        newest_first = station.query(lambda con: listing.events(con, limit=10_000))
    return [Recorded(each.entry.id, each.entry.task, each.entry.type, each.state) for each in reversed(newest_first)]


def _attempts(stage: Stage) -> int:
    with _outbox(stage) as station:
        return int(station.query(attempts.last_n))


@contextmanager
def _outbox(stage: Stage) -> Iterator[Station]:
    # Settings made by hand: config.load would read the user's.
    settings = Settings(agent="demo", db=stage.directory / OUTBOX, mode="offline")
    station = open_station(
        settings, SystemClock(), settings.known_secrets(), sinks=(), transport=None, background=False
    )
    assert isinstance(station, Station)
    try:
        yield station
    finally:
        station.close(0)
