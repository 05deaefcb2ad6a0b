"""``orchclient import`` killed at any moment: run again, each event of the recording is there, and sent, once.

A host's outbox is exported once, with gaps and a second source in it. Then a carrier's import dies, once or twice, at
labelled moments, and is run again to its end. ``KILL9_SEED=...`` makes the same choices again.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from orchclient import OrchestratorClient
from orchclient.outbox import identity, journal
from orchclient.testing.receiver import Receiver
from tests.cli.inside import Inside
from tests.outbox.test_outbox import opened

from .crash_points import BIRTHS, IMPORTS, Tripwire
from .crash_roles import import_command
from .crash_zygote import Zygote, hear

SEED = os.environ.get("KILL9_SEED") or str(random.randrange(1 << 32))
KILLS_AT_A_POINT = 4
CONTROL_KILLS = 20
EVENTS = 40


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    made = Zygote("orchclient.cli.recording", "orchclient.server.reading", "sqlite_utils.migrations", __name__)
    yield made
    made.close()


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a host recorded without a network: every verb, a place that is lost, and a source that was renewed."""
    directory = tmp_path_factory.mktemp("host")
    path, carried = directory / "private" / "outbox.db", directory / "carried.jsonl"
    client = OrchestratorClient("agent-1", outbox=path, background=False)
    for number in range(EVENTS - 2):
        client.update_task_status(f"t-{number % 5}", "testing", {"n": number}, progress_percentage=number)
    client.request_clarification("t-0", "Which port?", key="port")
    client.report_completion("t-1", None, {"tests_passed": 3})
    client.close()
    with closing(opened(path)) as outbox:
        outbox.write(lambda con: con.execute("DELETE FROM events WHERE seq IN (7, 8, 21)"))
        renewed = ("8d3a3cf5-0a44-4a44-8d0a-0d1d5a6f0b11", 25, 1)
        outbox.write(lambda con: identity.renew(con, *renewed, "salvaged"))
    assert Inside(path)("export", "-o", str(carried)).code == 0
    return carried


def told(recording: Path) -> list[dict[str, Any]]:
    return [event for event in map(json.loads, recording.read_text().splitlines()[1:]) if "gap" not in event]


@frozen
class Carrier:
    """A host that takes the recording in, and dies of it."""

    zygote: Zygote
    recording: Path
    directory: Path

    @property
    def path(self) -> Path:
        return self.directory / "private" / "outbox.db"

    def die_at(self, tripwire: Tripwire, build: str = "as shipped") -> None:
        child = self.zygote.fork(import_command, str(self.path), str(self.recording), tripwire, build)
        hear([child], lambda: bool(child.texts("struck")) or child.is_gone)
        assert child.texts("struck"), (tripwire, child.said)
        child.kill()
        assert hear([child], lambda: child.is_gone)

    def difference(self) -> str:
        """What is wrong after the import was run again, and all was delivered; nothing when it is as it should be."""
        events = told(self.recording)
        with Receiver() as receiver:
            command = Inside(self.path, receiver.url)
            again = command("import", str(self.recording), "--json")
            if again.code != 0:
                return f"the import cannot go on: {again.out}"
            with closing(opened(self.path)) as outbox:
                entries = list(outbox.query(lambda con: list(journal.newest(con, None, 0, journal.MAX_SEQ))))
            if [each.id for each in reversed(entries)] != [event["id"] for event in events]:
                return "the journal holds other events"
            if (code := command("flush").code) != 0:
                return f"the flush ends with {code}"
            names = ("id", "source", "sequence", "subject", "data")
            got, wanted = ([[each.get(name) for name in names] for each in side] for side in (receiver.events, events))
            return "" if got == wanted and not receiver.conflicts else "the orchestrator got something else"


@pytest.mark.parametrize("label", [*IMPORTS, *BIRTHS])
def test_an_import_killed_at_a_crash_point_is_ended_by_the_same_command(
    label: str, zygote: Zygote, recording: Path, tmp_path: Path
) -> None:
    chance = random.Random(f"{SEED} {label}")
    print(f"KILL9_SEED={SEED}")
    for number in range(KILLS_AT_A_POINT):
        carrier = Carrier(zygote, recording, tmp_path / str(number))
        point = (IMPORTS | BIRTHS)[label]
        carrier.die_at(Tripwire(label, chance.randint(1, point.often), from_outside=chance.random() < 0.25))
        if number % 2:  # and so does the next one
            carrier.die_at(Tripwire(chance.choice(list(IMPORTS)), 1))
        assert carrier.difference() == ""


def test_a_build_that_takes_a_slice_in_in_two_transactions_is_found(
    zygote: Zygote, recording: Path, tmp_path: Path
) -> None:
    found = set()
    for number in range(CONTROL_KILLS):
        carrier = Carrier(zygote, recording, tmp_path / str(number))
        carrier.die_at(
            Tripwire("import: a slice's events are written", 1 + number % 4), "takes a slice in in two transactions"
        )
        found.add(carrier.difference())
        if found != {""}:
            break
    assert found != {""}
