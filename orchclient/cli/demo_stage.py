"""What both forms of ``orchclient demo`` are played on: a private directory, an agent, its outbox, and who is told.

The first acts are the same: the agent works while its orchestrator is down, is killed, and starts again. Must not know
what the orchestrator is, nor how the play ends.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from attrs import field, frozen

from orchclient.cli.demo_agent import LIMIT, SLICE
from orchclient.cli.demo_process import LOG, OUTBOX, Agent, Deadline
from orchclient.cli.demo_verdict import Recorded
from orchclient.cli.output import number, plural
from orchclient.config import Settings
from orchclient.delivery.clock import SystemClock
from orchclient.outbox import attempts, listing
from orchclient.station import Station, open_station

KILL_AFTER = 1 + LIMIT // SLICE // 2
"""Receipts after which the agent is killed: its start, and half of its progress."""
LOOK_EVERY_S = 0.1

Say = Callable[[str], None]


@frozen
class Stage:
    """What the demo plays with. ``url`` is the orchestrator's, which is down at first."""

    directory: Path
    url: str
    deadline: Deadline
    say: Say = field(repr=False)

    @property
    def is_silent(self) -> bool:
        """Whether standard output is kept for a document."""
        return self.say is unheard


@contextmanager
def private_directory(keep: bool) -> Iterator[Path]:
    """A directory that is gone afterwards, or that the user is told of."""
    directory = Path(tempfile.mkdtemp(prefix="orchclient-demo-"))
    try:
        yield directory
    finally:
        if keep:
            click.echo(f"Kept: {directory} with {OUTBOX} and {LOG}", err=True)
        else:
            shutil.rmtree(directory, ignore_errors=True)


def told(text: str) -> None:
    """To the person who watches."""
    click.echo(text)


def unheard(text: str) -> None:
    """To nobody: a document is wanted."""


# --- the first acts -----------------------------------------------------------------------------------------------


def agent_on(stage: Stage, *flags: str) -> Agent:
    """The agent as a process of its own."""
    return Agent(stage.directory, stage.url, stage.deadline, flags)


def works_until_killed(stage: Stage, agent: Agent) -> None:
    """Acts 1 and 2."""
    stage.say(f"\n1  The orchestrator is down. An agent starts to count the primes below {number(LIMIT)}.")
    stage.say("   Each step is recorded in its outbox, a local file. No call waits for the network:")
    agent.listen(lambda said: len(agent.receipts) >= KILL_AFTER, "the agent's first receipts")
    agent.kill()
    calls = agent.receipts
    stage.say(f"   {len(calls)} calls returned a receipt, the slowest after {max(c.took_ms for c in calls):.1f} ms.")
    stage.say("\n2  The agent is killed half way: kill -9, no time to say goodbye.")
    held = {row.id for row in rows(stage)}
    covered = sum(call.id in held for call in calls)
    stage.say(f"   Its outbox holds {len(held)} events; {covered} of the {len(calls)} receipts are among them.")


def starts_again(stage: Stage, agent: Agent) -> None:
    """Act 3, up to where the agent knows where its task stands."""
    stage.say("\n3  The agent starts again, and asks its outbox where its task stands.")
    stands = agent.listen(lambda said: said["say"] == "stands", "the agent to start again")
    checked, found = number(stands["checked"]), number(stands["primes"])
    stage.say(f"   {checked} numbers checked, {found} primes found: it goes on from there.")


def waits_in_vain(stage: Stage) -> None:
    """What is in the outbox, since nobody answers."""
    in_vain = plural(_attempts(stage), "call")
    stage.say(f"   {len(rows(stage))} events wait, after {in_vain} to the orchestrator in vain.")


# --- the outbox -----------------------------------------------------------------------------------------------------


def rows(stage: Stage) -> list[Recorded]:
    """Everything that the outbox holds, oldest first: heartbeats too, while somebody takes long to answer."""
    with _outbox(stage) as station:
        newest_first = station.query(lambda con: listing.events(con, limit=10_000, states=listing.STATES))
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
