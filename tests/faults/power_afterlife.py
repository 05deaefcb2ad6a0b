"""Life after a power cut: the agent starts again, goes on, and delivers to the orchestrator that knew it before.

The orchestrator is given what it had kept until the cut. Afterwards it must hold every event of the journal once,
in order per task: a cut may cost a repeat on the wire, and nothing else (design, P3).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping

from orchclient import OrchestratorClient
from orchclient.core.events import TaskStatus
from orchclient.delivery import settlement
from orchclient.outbox import desk, journal
from orchclient.outbox.identity import Renewal
from orchclient.outbox.journal import Entry
from tests.faults.orchestrator_wire import REFUSAL, URL, OrchestratorWire
from tests.faults.power_ledger import Ledger

DELIVERED_S = 5.0


def violations(ledger: Ledger) -> list[str]:
    """What is wrong after the agent went on for a while and delivered everything."""
    wire = OrchestratorWire(rules=lambda: REFUSAL)
    for event in ledger.kept:
        wire.orchestrator._judged(event, (), set())
    client = OrchestratorClient("a", outbox=ledger.outbox, url=URL, transport=lambda: wire, min_free_bytes=1)
    with client:
        for n in range(3):
            client.update_task_status(f"a/{n}", TaskStatus.ASSIGNED, current_step="after the cut")
        client.flush(DELIVERED_S)
        rows = client._station.query(lambda con: list(journal.read_range(con, 0, journal.MAX_SEQ)))
        dead = _dead_after_delivery(client, wire, {row.id: row.seq for row in rows})
    return list(_broken_laws(rows, dead, wire))


def give_up_taken_numbers() -> None:
    """A planted bug: an event whose number the receiver gave to another one becomes a dead letter at once."""
    settlement.identity.renewed = lambda *_: Renewal.IN_VAIN  # type: ignore[attr-defined]


def _dead_after_delivery(client: OrchestratorClient, wire: OrchestratorWire, seqs: Mapping[str, int]) -> dict[int, str]:
    """The dead letters once every event has arrived or is one.

    A flush delivers what is due; an event whose number turns out to be taken waits a moment for a new one.
    """

    def dead() -> dict[int, str]:
        return client._station.query(lambda con: {letter.seq: letter.reason for letter in desk.dead_letters(con)})

    def open_ids() -> set[str]:
        arrived = {event["id"] for event in wire.orchestrator.events}
        buried = dead()
        return {id_ for id_, seq in seqs.items() if id_ not in arrived and seq not in buried}

    until = time.monotonic() + DELIVERED_S
    while open_ids() and time.monotonic() < until:
        with wire.orchestrator.changed:  # nobody tells of what is buried, so look again soon
            wire.orchestrator.changed.wait(0.02)
    return dead()


def _broken_laws(rows: list[Entry], dead: dict[int, str], wire: OrchestratorWire) -> Iterator[str]:
    arrivals = [event["id"] for event in wire.orchestrator.events]
    for id_, times in Counter(arrivals).items():
        if times > 1:
            yield f"kept twice: event {id_}"
    arrived = {id_: place for place, id_ in reversed(list(enumerate(arrivals)))}
    for row in rows:
        if row.seq in dead and "rejected by the test" not in dead[row.seq]:
            yield f"dead: event {row.seq} with {dead[row.seq]}"
        elif row.id not in arrived and row.seq not in dead:
            yield f"never arrived: event {row.seq}"
    for task in {row.task for row in rows}:
        order = [arrived[row.id] for row in rows if row.task == task and row.id in arrived]
        if order != sorted(order):
            yield f"disorder: the events of {task} arrived as {order}"
