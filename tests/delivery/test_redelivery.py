"""An operator at work beside a live flusher: at every moment the counts add up, and at the end everything is there."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from orchclient import OrchestratorClient
from orchclient.delivery.clock import SystemClock
from orchclient.outbox import dead_letters, redelivery
from orchclient.outbox.dead_letters import Chosen
from orchclient.testing import Receiver
from tests.conftest import MakeClient

NAME = "orchestrator"
ROUNDS = 12
EVENTS = 120


class Accountant:
    """Looks at the counts without a pause, from a client of its own."""

    def __init__(self, client: OrchestratorClient) -> None:
        self.looks = 0
        self.faults: list[str] = []
        self._client = client
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Accountant:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._is_over.is_set():
            report = self._client.health()
            self.looks += 1
            for sink in report.sinks:
                counts = (sink.delivered, sink.pending, sink.dead, sink.expired)
                if sum(counts) != report.recorded or min(counts) < 0:
                    self.faults.append(f"{counts} of {report.recorded}")


def operate(client: OrchestratorClient, act: Callable[[int], object]) -> None:
    """Record and act by turns."""
    for number in range(ROUNDS):
        for each in range(EVENTS // ROUNDS):
            client.update_task_status(f"t-{each % 5}", "testing", progress_percentage=number)
        client.update_task_status("bad", "testing")
        act(number)


def test_the_counts_add_up_at_every_moment_while_an_operator_works_beside_a_live_flusher(
    make_client: MakeClient, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redelivery, "SET_BACK_FROM", 20)
    receiver.reject(lambda event: event["subject"] == "bad")
    live, operator, looker = make_client("live", url=receiver.url), make_client("op"), make_client("looker")
    with Accountant(looker) as accountant:
        operate(live, lambda number: _act(operator, live, number))
        live.flush(30)
    assert accountant.looks > ROUNDS
    assert accountant.faults == []
    receiver.lift_rules()
    dead_letters.retry(operator._station, NAME, Chosen(), SystemClock.now_us())
    assert live.flush(30)
    (sink,) = looker.health().sinks
    assert (sink.pending, sink.dead) == (0, 0)
    assert sink.delivered + sink.expired == looker.health().recorded
    held = {int(event["sequence"]) for event in receiver.events}
    assert len(held) + sink.expired == looker.health().recorded


def _act(operator: OrchestratorClient, live: OrchestratorClient, number: int) -> None:
    station, now_us = operator._station, SystemClock.now_us()
    acts: tuple[Callable[[], object], ...] = (
        lambda: redelivery.resend(station, NAME, [(1, 10**9)], now_us),
        lambda: dead_letters.retry(station, NAME, Chosen(), now_us),
        lambda: redelivery.resend(station, NAME, [(1, 10**9)], now_us, "t-1"),
        lambda: dead_letters.give_up(station, NAME, Chosen(last_seq=20), now_us),
        lambda: live.flush(5),
    )
    acts[number % len(acts)]()
