"""``orchclient demo``: an agent is killed while its orchestrator is down, and nothing it said gets lost.

Stages it and tells it: a real agent process (``demo_process``), a real outbox in a private directory, a real kill; the
orchestrator is a stand-in, or with ``--serve`` the one that comes along (``demo_serve``). It must not know what counts
as success (``demo_verdict``) nor what the agent does (``demo_agent``), and reads nothing of the user's: no setting, no
outbox.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click

from orchclient.cli import demo_agent
from orchclient.cli.demo_agent import PRIMES_BELOW_LIMIT
from orchclient.cli.demo_process import OUTBOX, Agent, Deadline
from orchclient.cli.demo_stage import (
    LOOK_EVERY_S,
    Stage,
    agent_on,
    private_directory,
    rows,
    starts_again,
    told,
    unheard,
    waits_in_vain,
    works_until_killed,
)
from orchclient.cli.demo_verdict import Evidence, Verdict, document, judged, summary
from orchclient.cli.opening import json_option
from orchclient.cli.output import ExitCode, emit, number, plural
from orchclient.testing.orchestrator import EVENTS_PATH
from orchclient.testing.receiver import Fault, Receiver, SeenRequest

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


@click.command("demo")
@click.option("--serve", "serves", is_flag=True, help="With the real orchestrator: you answer the agent on its page.")
@click.option("--open", "opens", is_flag=True, help="With --serve: open a browser at the question.")
@click.option("--keep", is_flag=True, help="Keep the outbox and the agent's log, and say where they are.")
@json_option
def demo_command(serves: bool, opens: bool, keep: bool, as_json: bool) -> int:
    """Show the whole thing at work on this machine, in a few seconds.

    An agent works while its orchestrator is down, is killed, starts again and goes on; then the orchestrator comes back
    and everything is delivered. With --serve the agent then waits until you answer its question in a browser; Ctrl-C
    leaves it without an answer, and in a terminal the page stays for a look around until Ctrl-C. Uses an outbox of its
    own and none of your settings. Exit code 1: a promise was broken.

    \b
    Example: orchclient demo --serve --open
    """
    if opens and not serves:
        raise click.UsageError("--open needs --serve: without it there is no page to open")
    return _with_orchestrator(opens, keep, as_json) if serves else _with_stand_in(keep, as_json)


def _with_stand_in(keep: bool, as_json: bool) -> int:
    began = time.monotonic()
    say = unheard if as_json else told
    with private_directory(keep) as directory, Receiver(capabilities=CAPABILITIES) as receiver:
        verdict = judged(_play(Stage(directory, receiver.url, Deadline.of(began), say), receiver))
    _tell(verdict, 5, began, directory if keep else None, as_json)
    return ExitCode.DONE if verdict.ok else ExitCode.ERROR


def _with_orchestrator(opens: bool, keep: bool, as_json: bool) -> int:
    from orchclient.cli import demo_serve

    began = time.monotonic()
    say = unheard if as_json else told
    with private_directory(keep) as directory, demo_serve.Page(directory) as page:
        verdict = judged(demo_serve.play(Stage(directory, page.url, Deadline.of(began), say), page, opens))
        _tell(verdict, 6, began, directory if keep else None, as_json)
        if not as_json:
            page.stay()
    return ExitCode.DONE if verdict.ok else ExitCode.ERROR


def _tell(verdict: Verdict, act: int, began: float, kept: Path | None, as_json: bool) -> None:
    seconds = time.monotonic() - began
    where = {"outbox": str(kept / OUTBOX)} if kept else {}
    facts = {**document(verdict), "seconds": round(seconds, 2), **where}
    emit(facts, _ending(verdict, act, seconds, kept), as_json=as_json)


def _ending(verdict: Verdict, act: int, seconds: float, kept: Path | None) -> str:
    parts = [f"\n{act}  The agent ends. What it recorded, against what the orchestrator got:", summary(verdict)]
    parts.append(f"This took {seconds:.1f} s. The agent's code: {demo_agent.__file__}")
    if kept:
        parts.append(f"Look into the outbox with: orchclient --db {kept / OUTBOX} list")
    return "\n\n".join(parts)


# --- the play -----------------------------------------------------------------------------------------------------


def _play(stage: Stage, receiver: Receiver) -> Evidence:
    receiver.stop()
    stage.say("An agent at work is killed while its orchestrator is down. Does anything it said get lost?")
    with agent_on(stage) as first:
        works_until_killed(stage, first)
    with agent_on(stage) as second:
        primes = _goes_on(stage, second)
        _is_delivered(stage, receiver)
        second.end()
    receipts = first.receipts + second.receipts
    return Evidence(
        acknowledged=[receipt.id for receipt in receipts],
        recorded=rows(stage),
        arrived=[event["id"] for event in receiver.events],
        repeats=receiver.repeats,
        record_ms=[receipt.took_ms for receipt in receipts],
        result_is_right=primes == PRIMES_BELOW_LIMIT,
    )


def _goes_on(stage: Stage, agent: Agent) -> int:
    starts_again(stage, agent)
    worked = agent.listen(lambda said: said["say"] == "worked", "the agent to finish its work")
    stage.say(f"   It asks a person a question, and hands in its result: {number(worked['primes'])} primes.")
    stage.say(f"   Its second task fails: the {worked['failure']} that escapes becomes a call for help.")
    waits_in_vain(stage)
    return int(worked["primes"])


def _is_delivered(stage: Stage, receiver: Receiver) -> None:
    stage.say("\n4  The orchestrator comes back, in poor health. The agent delivers in the background:")
    receiver.plan(*TROUBLE)
    receiver.start()
    began, known = time.monotonic(), set[str]()
    for post in _posts(stage, receiver):
        events = plural(post.event_count, "event")
        stage.say(f"   {post.arrived_s - began:5.2f} s  {events:>9}  {_answer(post, known)}")
        known |= _taken_in(post)


def _posts(stage: Stage, receiver: Receiver) -> Iterator[SeenRequest]:
    """Each request with events as it comes, until nothing waits in the outbox."""
    told, is_done = 0, False
    while not is_done:
        is_done = not any(row.waits for row in rows(stage))
        posts = _event_requests(receiver)
        yield from posts[told:]
        told = len(posts)
        if not is_done:
            # Only the outbox tells what is settled, and that wakes nobody: a look now and then, as well as at news.
            left_s = stage.deadline.left_s("the agent to deliver")
            receiver.wait_for(partial(_has_more_than, told), min(left_s, LOOK_EVERY_S))


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
