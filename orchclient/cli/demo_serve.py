"""``orchclient demo --serve``: the same story with the orchestrator that comes along, and a person who answers.

Must not know what counts as success (``demo_verdict``), nor what the agent does (``demo_agent``).
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import click

from orchclient.cli.demo_agent import PRIMES_BELOW_LIMIT, WAITS
from orchclient.cli.demo_process import Agent, Deadline
from orchclient.cli.demo_stage import (
    LOOK_EVERY_S,
    Stage,
    agent_on,
    rows,
    starts_again,
    waits_in_vain,
    works_until_killed,
)
from orchclient.cli.demo_verdict import Evidence
from orchclient.cli.output import number, plural, printable
from orchclient.cli.serve import require_extra

if TYPE_CHECKING:
    from orchclient.server.orchestrator import Orchestrator
    from orchclient.server.serving import Server

DATABASE = "orchestrator.db"
SEEN_S = 3.0
"""How long a browser that is open has time to show what became of the answer."""


class Page:
    """The orchestrator, in a thread of this process, on a port that is free; down until ``start``."""

    def __init__(self, directory: Path) -> None:
        require_extra()
        self._db = directory / DATABASE
        self._port = _free_port()
        self._orchestrator: Orchestrator | None = None
        self._server: Server | None = None
        self._running: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where it is, or will be."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Serve from now on. Raises ``ConfigError`` when somebody else has taken the port meanwhile."""
        from orchclient.server.orchestrator import Orchestrator
        from orchclient.server.serving import Listening, Server

        self._orchestrator = Orchestrator.open(str(self._db))
        self._server = Server(self._orchestrator, Listening(port=self._port))
        self._running = threading.Thread(target=self._server.run, name="orchclient-demo-page")
        self._running.start()

    def arrivals(self) -> list[str]:
        """The ids of the events that came, in their order."""
        from orchclient.server import people

        assert self._orchestrator is not None
        with self._orchestrator.reading() as session:
            return people.arrivals(session)

    def open(self, path: str) -> None:
        """Show a page to the person at this machine, if there is a browser."""
        from orchclient.server.serving import opened_browser

        opened_browser(self.url + path)

    def stay(self) -> None:
        """In a terminal, stay until Ctrl-C; otherwise nobody would come."""
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            return
        click.echo(f"\nThe page is still there for a look around: {self.url}/  Ctrl-C ends it.")
        with suppress(KeyboardInterrupt):
            threading.Event().wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.stop()
        if self._running is not None:
            self._running.join()
        if self._orchestrator is not None:
            self._orchestrator.close()


def play(stage: Stage, page: Page, opens: bool) -> Evidence:
    """The whole story; waits for a person."""
    stage.say("An agent at work is killed while its orchestrator is down. Does anything it said get lost?")
    stage.say("Then you answer what it asks, in a browser.")
    with agent_on(stage) as first:
        works_until_killed(stage, first)
    with agent_on(stage, WAITS) as second:
        starts_again(stage, second)
        asked = second.listen(lambda said: said["say"] == "asked", "the agent to ask its question")
        stage.say("   It counts to the end, asks a person a question, and waits for the answer.")
        waits_in_vain(stage)
        _is_delivered(stage, page)
        primes = _is_answered(stage, second, page, str(asked["id"]), opens)
        second.end()
    receipts = first.receipts + second.receipts
    return Evidence(
        acknowledged=[receipt.id for receipt in receipts],
        recorded=rows(stage),
        arrived=page.arrivals(),
        record_ms=[receipt.took_ms for receipt in receipts],
        result_is_right=primes == PRIMES_BELOW_LIMIT,
    )


def _is_delivered(stage: Stage, page: Page) -> None:
    stage.say("\n4  The orchestrator starts: orchclient serve, with a database of its own.")
    began = time.monotonic()
    page.start()
    while any(row.waits for row in rows(stage)):
        time.sleep(min(LOOK_EVERY_S, stage.deadline.left_s("the agent to deliver")))
    events = plural(len(page.arrivals()), "event")
    stage.say(f"   The agent delivers in the background: {events} arrived after {time.monotonic() - began:.1f} s.")


def _is_answered(stage: Stage, agent: Agent, page: Page, question_id: str, opens: bool) -> int:
    path = f"/q/{question_id}"
    agent.deadline = Deadline.never()
    with _at_ctrl_c(agent.let_go):
        stage.say("\n5  Now the agent waits for you. Its question:")
        click.echo(f"   {page.url}{path}", err=stage.is_silent)
        stage.say("   Answer it there, or end with Ctrl-C.")
        if opens:
            page.open(path)
        said = agent.listen(lambda said: said["say"] in ("answered", "worked"), "an answer")
    agent.deadline = Deadline.of(time.monotonic())
    if said["say"] == "answered":
        stage.say(f"   {_told(said['outcome'], said['text'])}")
        time.sleep(SEEN_S if opens else 0)
        said = agent.listen(lambda said: said["say"] == "worked", "the agent to finish its work")
    else:
        stage.say("   Nobody answered. The agent withdrew its question, and went on with what it recommended.")
    stage.say(f"   It hands in its result, {number(said['primes'])} primes; its second task fails and calls for help.")
    return int(said["primes"])


@contextmanager
def _at_ctrl_c(act: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C ends the wait for a person, and not the story."""
    before = signal.signal(signal.SIGINT, lambda *_: act())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _told(outcome: str, text: str | None) -> str:
    if outcome == "answered" and text:
        return f"The agent has your answer: {printable(text)[:60]}."
    return f"The agent has your answer ({outcome}), and goes on with what it recommended."


def _free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
