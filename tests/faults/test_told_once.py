"""An agent that is killed at every step of telling: nothing is shown twice unmarked, nothing is lost uncounted."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orchclient import OrchestratorClient
from orchclient.core.noise import NoiseRules
from orchclient.core.secret import Secret
from orchclient.outbox import cursors, journal, posts
from orchclient.sinks.discord import DiscordSink
from orchclient.testing import DiscordDouble
from tests.conftest import MakeClient

AGENT = """
import os, signal, sys, threading, time
from orchclient import OrchestratorClient
from orchclient.core.noise import NoiseRules
from orchclient.core.secret import Secret
from orchclient.delivery.transport import HttpTransport
from orchclient.outbox import posts
from orchclient.outbox.outbox import Outbox
from orchclient.sinks.discord import DiscordSink

url, path, error, point, bug = sys.argv[1:]
steps = 0

def step():
    global steps
    if threading.current_thread().name != "orchclient-discord":
        return
    steps += 1
    if steps == int(point):
        os.kill(os.getpid(), signal.SIGKILL)

class Steps(HttpTransport):
    def send(self, request, *, deadline_s):
        step()
        outcome = super().send(request, deadline_s=deadline_s)
        step()
        return outcome

write = Outbox.write
def stepped(self, work, *, synced=False):
    step()
    done = write(self, work, synced=synced)
    step()
    return done
Outbox.write = stepped
if bug == "no_claim":
    posts.claim = lambda *arguments: None
sink = DiscordSink(Secret(url), rules=NoiseRules(0.0))
client = OrchestratorClient("agent-1", outbox=path, sinks=[sink], transport=Steps)
client.escalate_error("t", error, "only once", 1)
client.flush(30)
"""
POINTS = range(1, 15)
"""Before and after each transaction and each request: electing, recovering, planning, claiming, sending, settling."""

SOON_S = 20.0


def killed_at(service: DiscordDouble, outbox: Path, error: str, point: int, bug: str = "") -> bool:
    """Whether the agent came to that step."""
    ended = subprocess.run(
        [sys.executable, "-c", AGENT, service.webhook_url, str(outbox), error, str(point), bug],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode in (0, -9), ended.stderr.decode()
    return ended.returncode == -9


def settled(client: OrchestratorClient) -> tuple[int, int]:
    """Delivered and dead once nothing is pending, and the books in order."""
    ends = time.monotonic() + SOON_S

    def read(con: Any) -> tuple[int, int, int]:
        (row,) = cursors.sinks(con)
        pending = row.pending(journal.last_seq(con))
        assert row.delivered + pending + row.dead + row.expired == journal.last_seq(con) - row.start_seq
        return row.delivered, pending, row.dead

    client.flush(SOON_S)
    while (counts := client._station.query(read))[1] and time.monotonic() < ends:
        time.sleep(0.02)
    assert counts[1] == 0
    return counts[0], counts[2]


def broken_laws(service: DiscordDouble, delivered: int, dead: int, error: str) -> list[str]:
    """What a person or an operator could complain of."""
    unmarked = sum("possible repeat" not in shown.text for shown in service.shown)
    found = ["shown twice, unmarked"] * (unmarked > 1)
    found += ["neither shown nor dead"] * (not service.shown and not dead)
    found += ["a critical one was given up"] * (error == "database_connection" and dead > 0)
    found += ["not counted once"] * (delivered + dead != 1)
    return found


@pytest.mark.parametrize("error", ["odd", "database_connection"])
def test_a_kill_at_any_step_of_telling_is_told_as_what_it_is(
    make_client: MakeClient, tmp_path: Path, error: str
) -> None:
    kills = 0
    for point in POINTS:
        with DiscordDouble() as service:
            outbox = tmp_path / f"{point}.db"
            kills += killed_at(service, outbox, error, point)
            client = make_client(outbox=outbox, sinks=[DiscordSink(Secret(service.webhook_url), rules=NoiseRules(0.0))])
            delivered, dead = settled(client)
            client.close(0)
            assert broken_laws(service, delivered, dead, error) == [], point
    assert kills >= 10


def test_a_teller_that_claims_nothing_is_found(make_client: MakeClient, tmp_path: Path) -> None:
    broken: list[str] = []
    for point in POINTS:
        with DiscordDouble() as service:
            outbox = tmp_path / f"{point}.db"
            killed_at(service, outbox, "odd", point, bug="no_claim")
            client = make_client(outbox=outbox, sinks=[DiscordSink(Secret(service.webhook_url), rules=NoiseRules(0.0))])
            delivered, dead = settled(client)
            client.close(0)
            broken += broken_laws(service, delivered, dead, "odd")
        if broken:
            break
    assert broken == ["shown twice, unmarked"]


def test_the_planted_bug_is_planted_where_the_teller_looks() -> None:
    from orchclient.delivery import teller

    assert teller.posts is posts
