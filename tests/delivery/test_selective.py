"""A destination that does not take every event: what it does not take is settled unsent, and delays nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from orchclient import ConfigError
from orchclient.core.envelope import attributes_of
from orchclient.core.http import NoReply
from orchclient.destinations import checked
from orchclient.outbox import gaps
from orchclient.outbox.cursors import SinkState
from orchclient.sinks.orchestrator import OrchestratorSink
from tests.delivery.doubles import poisoned, results
from tests.delivery.test_worker import Bench

Takes = Callable[[Mapping[str, Any]], bool]


class Choosy(OrchestratorSink):
    """Takes what its rule says."""

    checks_sequence = False

    def __init__(self, rule: Takes) -> None:
        super().__init__("http://127.0.0.1:9", lambda: None)
        self.rule = rule

    def takes(self, attributes: Mapping[str, Any]) -> bool:
        return self.rule(attributes)


def of_task(*names: str) -> Takes:
    return lambda attributes: attributes["subject"] in names


@pytest.fixture
def bench(outbox_path: Path) -> Iterator[Bench]:
    made = Bench(outbox_path)
    made.sink = Choosy(of_task("wanted"))
    made.worker = made.elected()
    yield made
    made.outbox.close()


def test_what_it_does_not_take_counts_as_delivered_and_is_never_sent(bench: Bench) -> None:
    for percent in range(6):
        bench.record(percent, task="wanted" if percent % 2 else "other")
    assert bench.turns() is None
    assert bench.transport.sent == [1, 3, 5]
    assert (bench.row.delivered, bench.pending, bench.row.dead, bench.row.expired) == (6, 0, 0, 0)
    assert set(bench.states().values()) == {"delivered"}
    assert bench.outbox.query(lambda con: list(gaps.expired(con))) == []


def test_nothing_is_said_to_its_receiver_when_there_is_nothing_for_it(bench: Bench) -> None:
    bench.record(*range(10), task="other")
    bench.turns()
    assert (bench.transport.requests, bench.pending, bench.row.last_success_us) == ([], 0, None)


def test_passing_events_says_nothing_of_a_receiver_that_is_down(bench: Bench) -> None:
    bench.record(1, task="wanted")
    bench.answer(NoReply("connect", "refused"))
    bench.turns()
    bench.record(2, task="other")
    bench.clock.pass_s(100)
    bench.answer(NoReply("connect", "refused"))
    bench.turns()
    assert (bench.row.state, bench.row.failures, bench.pending) == (SinkState.WAITING, 2, 2)
    bench.clock.pass_s(100)
    bench.turns()
    assert (bench.row.state, bench.pending, bench.transport.sent) == (SinkState.DELIVERING, 0, [1, 1, 1])


def test_a_poisoned_event_among_others_is_found(bench: Bench) -> None:
    for percent in range(40):
        bench.record(percent, task="wanted" if percent % 3 == 0 else "other")
    bench.answer(*[poisoned(21)] * 40)
    bench.turns(200)
    assert [seq for seq, state in bench.states().items() if state == "dead"] == [22]
    assert (bench.row.delivered, bench.row.dead, bench.pending) == (39, 1, 0)


def test_what_it_does_not_take_does_not_wait_with_its_task_at_the_desk(bench: Bench) -> None:
    bench.sink.rule = lambda attributes: attributes["time"] < "2027-01-15T08:00:05"  # type: ignore[attr-defined]
    bench.record(1, task="a")
    bench.answer(results(a="retry"))
    bench.turns(1)
    bench.clock.pass_s(6)
    bench.record(2, task="a")
    bench.turns()
    assert (bench.row.delivered, bench.pending, bench.transport.sent) == (2, 0, [1, 1])


def test_a_rule_that_raises_is_trouble_of_its_destination_and_loses_nothing(bench: Bench) -> None:
    def rule(attributes: Mapping[str, Any]) -> bool:
        raise LookupError("no such attribute")

    bench.sink.rule = rule  # type: ignore[attr-defined]
    bench.record(1, task="wanted")
    assert (bench.turns() or 0) > 0
    assert (bench.row.state, bench.pending) == (SinkState.WAITING, 1)
    assert "LookupError" in bench.row.last_error
    bench.sink.rule = of_task("wanted")  # type: ignore[attr-defined]
    bench.clock.pass_s(100)
    bench.turns()
    assert (bench.pending, bench.transport.sent) == (0, [1])


def test_a_rule_sees_the_attributes_whatever_the_texts_hold(bench: Bench) -> None:
    name = 'a","data":{"x\\'
    bench.record(1, task=name)
    seen: list[Mapping[str, Any]] = []
    bench.sink.rule = lambda attributes: not seen.append(attributes)  # type: ignore[attr-defined, func-returns-value]
    bench.turns()
    sent = bench.transport.batches[0][0]
    opening = {"specversion", "source", "sequence", "data"}
    assert seen[-1] == {key: value for key, value in sent.items() if key not in opening}
    assert seen[-1]["subject"] == name
    assert attributes_of(json.dumps(sent, separators=(",", ":")).encode()[1:])["subject"] == name


def test_a_destination_whose_receiver_looks_for_missing_sequences_must_take_everything() -> None:
    sink = Choosy(of_task("x"))
    sink.checks_sequence = True
    with pytest.raises(ConfigError, match="missing sequences"):
        checked([sink])
