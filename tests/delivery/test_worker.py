"""The decision table acted on: what a worker does to the outbox after each kind of answer."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from orchclient.core.backoff import OUTAGE
from orchclient.core.envelope import body_text, lane_of
from orchclient.core.events import Event
from orchclient.core.http import HttpReply, NoReply
from orchclient.core.ids import uuid7
from orchclient.core.jsontext import members_text
from orchclient.core.policy import Action, Verdict
from orchclient.delivery.worker import Worker
from orchclient.outbox import cursors, desk, folding, identity, journal, leadership, listing, redelivery
from orchclient.outbox.cursors import SinkRow, SinkState
from orchclient.outbox.leadership import Holder
from orchclient.outbox.outbox import Outbox
from orchclient.outbox.store import Origin
from orchclient.sinks.orchestrator import OrchestratorSink
from tests.delivery.doubles import Answer, ScriptedTransport, StillClock, poisoned, results

RETRY_AFTER_S = 120
SPREAD_S = RETRY_AFTER_S / 10
NOTICE = 1
"""A dead letter leaves a gap at the receiver, of which it is told by an event of its own."""


class Bench:
    """A worker on a real outbox, with a clock and a transport of the test's."""

    def __init__(self, path: Path) -> None:
        self.clock = StillClock()
        self.outbox = Outbox(Origin(path, lambda: str(uuid.uuid4()), self.clock.now_us))
        self.sink = OrchestratorSink("http://127.0.0.1:9", lambda: None)
        self.transport = ScriptedTransport()
        self.outbox.write(
            lambda con: cursors.add_sink(con, "orchestrator", "orchestrator", "x", 0, from_beginning=True)
        )
        self.worker = self.elected()

    def elected(self) -> Worker:
        holder = Holder(1, "host", "agent", 0)
        epoch = self.outbox.write(lambda con: leadership.begin_epoch(con, "orchestrator", holder))
        return Worker(self.outbox, self.sink, self.transport, self.clock, epoch)

    def record(self, *percents: int, task: str = "t") -> None:
        for percent in percents:
            us = self.clock.now_us()
            id_ = uuid7(us // 1000, self.clock.randomness())
            members = members_text({"status": "testing", "progress_percentage": percent})
            body = body_text(id_, "task.status.v1", lane_of(task, "agent"), "low", us, members)
            event = Event(id_, task, "agent", "task.status.v1", "low", us, crc32(body.encode()), body)
            self.outbox.record(event, "testing", False)

    def turns(self, limit: int = 50) -> float | None:
        """Turn until there is something to wait for; what the last turn said."""
        wait_s: float | None = 0.0
        for _ in range(limit):
            wait_s = self.worker.turn()
            if wait_s is None or wait_s > 0:
                return wait_s
        return wait_s

    def answer(self, *answers: Answer) -> None:
        self.transport.answers = list(answers)

    @property
    def row(self) -> SinkRow:
        row = self.outbox.query(lambda con: cursors.sink(con, "orchestrator"))
        assert row is not None
        return row

    @property
    def pending(self) -> int:
        return self.row.pending(self.outbox.query(journal.last_seq))

    @property
    def dead(self) -> list[str]:
        return [letter.reason for letter in self.outbox.query(lambda con: list(desk.dead_letters(con)))]

    def states(self) -> dict[int, str]:
        """State by place."""
        found: list[Any] = self.outbox.query(lambda con: listing.events(con, limit=1000))
        return {each.entry.seq: each.state for each in found}


@pytest.fixture
def bench(outbox_path: Path) -> Iterator[Bench]:
    made = Bench(outbox_path)
    yield made
    made.outbox.close()


def test_a_plain_success_settles_the_whole_batch(bench: Bench) -> None:
    bench.record(1, 2, 3)
    assert bench.turns() is None
    assert (bench.row.delivered, bench.pending, bench.transport.sent) == (3, 0, [1, 2, 3])


def test_events_carry_their_place_and_the_outbox_s_source(bench: Bench) -> None:
    bench.record(1, 2)
    bench.turns()
    batch = bench.transport.batches[0]
    assert [event["sequence"] for event in batch] == ["00000000000000000001", "00000000000000000002"]
    assert {event["source"] for event in batch} == {batch[0]["source"]}
    assert batch[0]["source"].startswith("urn:uuid:")


@pytest.mark.parametrize(
    "outcome",
    [
        NoReply("connect"),
        NoReply("timeout"),
        HttpReply(408),
        HttpReply(425),
        HttpReply(500),
        HttpReply(502),
        HttpReply(504),
    ],
)
def test_trouble_backs_off_without_using_anything_up(bench: Bench, outcome: Any) -> None:
    bench.record(1, 2)
    for failures in range(1, 30):
        bench.answer(outcome)
        assert bench.turns(1)
        assert (bench.row.state, bench.row.failures, bench.pending) == (SinkState.WAITING, failures, 2)
        bench.clock.pass_s(100)
    bench.answer()
    assert bench.turns() is None
    assert (bench.row.delivered, bench.row.state, bench.row.failures) == (2, SinkState.DELIVERING, 0)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_the_least_time_to_wait(bench: Bench, status: int) -> None:
    bench.record(1)
    bench.answer(HttpReply(status, {"retry-after": str(RETRY_AFTER_S)}))
    wait_s = bench.turns()
    assert wait_s is not None
    assert wait_s >= RETRY_AFTER_S
    assert bench.row.state == SinkState.THROTTLED
    bench.worker.hurry()
    assert bench.worker.turn()  # a nudge does not override what the receiver asked for


@pytest.mark.parametrize(("asked_s", "wait_s"), [(31_536_000, 3600), (1e300, 3600), (-5, 0), (math.nan, 0)])
def test_no_dialect_waits_longer_than_a_receiver_may_ask(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, asked_s: float, wait_s: float
) -> None:
    monkeypatch.setattr(bench.sink, "decide", lambda *_: Verdict(Action.BACK_OFF, "busy", asked_s))
    bench.record(1)
    waits_s = bench.turns()
    assert waits_s is not None
    assert wait_s <= waits_s <= wait_s + OUTAGE.cap_s
    assert bench.pending == 1


@pytest.mark.parametrize("status", [401, 403, 404, 405, 407, 301, 307])
def test_a_refusal_pauses_keeps_everything_and_probes_seldom(bench: Bench, status: int) -> None:
    bench.record(1)
    bench.answer(HttpReply(status))
    wait_s = bench.turns()
    assert wait_s is not None
    assert 50 <= wait_s <= 60
    assert (bench.row.state, bench.pending) == (SinkState.PAUSED, 1)
    bench.worker.hurry()
    assert bench.turns() is None
    assert bench.row.delivered == 1


def test_gone_disables_until_the_configuration_changes(bench: Bench) -> None:
    bench.record(1)
    bench.answer(HttpReply(410))
    assert bench.turns() is None
    bench.clock.pass_s(1e6)
    bench.worker.hurry()
    assert bench.turns() is None
    assert (bench.row.state, bench.pending, len(bench.transport.batches)) == (SinkState.DISABLED, 1, 1)
    bench.worker = bench.elected()
    bench.worker.resume(bench.row)
    assert bench.turns() is None
    assert len(bench.transport.batches) == 1
    bench.outbox.write(lambda con: cursors.add_sink(con, "orchestrator", "orchestrator", "y", 0, from_beginning=True))
    bench.worker = bench.elected()
    bench.worker.resume(bench.row)
    assert bench.turns() is None
    assert bench.row.delivered == 1


@pytest.mark.parametrize(("jump_s", "wait_s"), [(0, RETRY_AFTER_S), (1e9, 0), (-1e9, 0), (-60, RETRY_AFTER_S + 60)])
def test_a_flusher_elected_after_a_jump_of_the_clock_waits_no_longer_than_a_receiver_can_ask(
    bench: Bench, jump_s: float, wait_s: float
) -> None:
    bench.record(1)
    bench.answer(HttpReply(429, {"retry-after": str(RETRY_AFTER_S)}))
    bench.turns()
    bench.clock.us += int(jump_s * 1e6)
    bench.worker = bench.elected()
    bench.worker.resume(bench.row)
    waits_s = bench.worker.turn() or 0.0
    assert wait_s <= waits_s <= wait_s + (SPREAD_S if wait_s else 0)


@pytest.mark.parametrize("wrong_by_s", [0, 1e9, -1e9])
def test_an_instant_to_wait_for_is_seen_by_the_receiver_s_clock(bench: Bench, wrong_by_s: float) -> None:
    bench.clock.us += int(wrong_by_s * 1e6)
    bench.record(1)
    headers = {"date": "Mon, 23 Nov 2026 10:00:00 GMT", "retry-after": "Mon, 23 Nov 2026 10:02:00 GMT"}
    bench.answer(HttpReply(503, headers))
    waits_s = bench.turns() or 0.0
    assert RETRY_AFTER_S <= waits_s <= RETRY_AFTER_S + SPREAD_S


@pytest.mark.parametrize("status", [400, 409, 415, 422, 501, 505])
def test_a_poisoned_event_is_found_buried_and_passed(bench: Bench, status: int) -> None:
    bench.record(*range(100))
    bench.answer(*[poisoned(37, status)] * 60)
    assert bench.turns() is None
    assert (bench.row.delivered, bench.row.dead, bench.pending) == (99 + NOTICE, 1, 0)
    assert bench.states()[38] == "dead"
    assert bench.dead == [f"HTTP {status} bad event"]
    assert len(bench.transport.batches) < 30


def test_what_is_too_large_is_halved_and_the_size_remembered(bench: Bench) -> None:
    bench.record(*range(64))

    def only_small(batch: list[dict[str, Any]]) -> HttpReply:
        return HttpReply(413) if len(batch) > 10 else HttpReply(200)

    bench.answer(*[only_small] * 100)
    assert bench.turns() is None
    assert bench.row.delivered == 64
    assert [len(batch) for batch in bench.transport.batches].count(64) == 1
    refused_again = sum(len(batch) > 16 for batch in bench.transport.batches)
    assert refused_again <= 3


def test_a_single_event_that_is_too_large_becomes_a_dead_letter(bench: Bench) -> None:
    bench.record(1, 2)
    bench.answer(*[poisoned(1, 413)] * 10)
    bench.turns()
    assert (bench.row.dead, bench.row.delivered) == (1, 1 + NOTICE)


def test_a_rejected_event_is_dead_with_the_receiver_s_words_and_others_are_delivered(bench: Bench) -> None:
    bench.record(1, task="a")
    bench.record(2, task="b")
    bench.answer(results(a="rejected"))
    bench.turns()
    assert (bench.row.dead, bench.row.delivered, bench.dead) == (1, 1 + NOTICE, ["told: so"])


def test_a_receiver_is_told_of_the_sequences_that_will_not_come(bench: Bench) -> None:
    bench.record(1, 2, task="a")
    bench.record(3, task="b")
    bench.record(4, task="c")
    bench.record(5, task="a")
    bench.answer(results(a="rejected", b="rejected"))
    bench.turns()
    assert bench.transport.gaps == [
        {"from": 1, "to": 3, "reason": "dead", "count": 3},
        {"task_id": "a", "from": 5, "to": 5, "reason": "dead", "count": 1},
    ]
    notices = bench.transport.batches[-1]
    assert [(notice["subject"], notice["agentid"]) for notice in notices] == [("agent", "agent"), ("a", "agent")]


def test_no_notice_is_given_of_a_notice_that_is_refused(bench: Bench) -> None:
    bench.record(1)
    bench.answer(*[results(t="rejected")] * 20)
    assert bench.turns() is None
    assert (bench.row.dead, len(bench.transport.batches)) == (2, 2)


def test_a_notice_says_nothing_of_its_task(bench: Bench) -> None:
    bench.record(1, task="a")
    before = bench.outbox.query(lambda con: (folding.task_state(con, "a"), folding.tallies(con, "agent")))
    bench.answer(results(a="rejected"))
    bench.turns()
    assert bench.outbox.query(lambda con: (folding.task_state(con, "a"), folding.tallies(con, "agent"))) == before
    bench.outbox.write(bench.outbox.query(folding.fold).write)
    assert bench.outbox.query(lambda con: (folding.task_state(con, "a"), folding.tallies(con, "agent"))) == before


def test_a_task_that_must_wait_delays_no_other_and_keeps_its_order(bench: Bench) -> None:
    bench.record(1, task="a")
    bench.record(2, task="b")
    bench.answer(results(a="retry"))
    bench.turns(1)
    bench.record(3, task="a")
    bench.record(4, task="b")
    bench.turns()
    assert bench.transport.sent == [1, 2, 4]
    assert (bench.row.parked, bench.pending, bench.row.delivered) == (2, 2, 2)
    bench.clock.pass_s(5)
    assert bench.turns() is None
    assert bench.transport.sent == [1, 2, 4, 1, 3]
    assert (bench.row.parked, bench.pending, bench.row.delivered) == (0, 0, 4)


def test_what_is_recorded_while_many_tasks_are_sent_again_waits_for_one_of_them_only(bench: Bench) -> None:
    for number in range(40):
        bench.record(number, task=f"t-{number}")
    bench.turns()
    sent = len(bench.transport.batches)
    redelivery.resend(bench.outbox, "orchestrator", [(1, 40)], bench.clock.now_us())
    bench.record(99, task="new")
    bench.worker.turn()
    bench.worker.turn()
    assert 99 in [event["data"]["progress_percentage"] for batch in bench.transport.batches[sent:] for event in batch]
    bench.turns(100)
    assert bench.pending == 0
    assert len(bench.transport.batches) == sent + 41


def test_a_lane_that_is_told_to_wait_again_backs_off_further(bench: Bench) -> None:
    bench.record(1)
    bench.answer(*[results(t="retry")] * 20)
    bench.turns(1)
    waits = []
    for _ in range(9):
        wait_s = bench.turns()
        assert wait_s
        waits.append(wait_s)
        bench.clock.pass_s(wait_s + 0.001)
    assert waits == sorted(waits)
    assert waits[-1] > 20
    assert (bench.row.parked, bench.row.dead) == (1, 0)


def test_an_event_missing_from_the_answer_is_not_delivered(bench: Bench) -> None:
    bench.record(1, task="a")
    bench.record(2, task="b")
    bench.answer(lambda batch: results()(batch[:1]))
    bench.turns(1)
    assert (bench.row.delivered, bench.pending) == (1, 1)


@pytest.mark.parametrize(
    "body", [b'{"results":[{"id":"someone-else","status":"accepted"}]}', b"<html>", b"[" * 100_000, b'{"results":7}']
)
def test_an_answer_that_speaks_of_nothing_sent_delivers_nothing(bench: Bench, body: bytes) -> None:
    bench.record(1)
    bench.answer(HttpReply(200, {}, body))
    assert bench.turns()
    assert (bench.row.delivered, bench.pending, bench.row.state) == (0, 1, SinkState.WAITING)


def test_after_an_outage_the_first_batches_are_small(bench: Bench) -> None:
    bench.record(*range(100))
    bench.answer(NoReply("connect"))
    bench.turns(1)
    bench.clock.pass_s(10)
    bench.turns()
    assert [len(batch) for batch in bench.transport.batches] == [100, 16, 32, 52]


def test_a_flusher_that_was_replaced_settles_nothing(bench: Bench) -> None:
    bench.record(1)
    stale = bench.worker
    bench.worker = bench.elected()
    stale.turn()
    assert stale.is_stale
    assert (bench.row.delivered, bench.pending) == (0, 1)
    assert stale.turn() is None
    bench.turns()
    assert bench.row.delivered == 1


def test_an_event_whose_bits_flipped_is_not_sent_but_itemised(bench: Bench) -> None:
    bench.record(1, 2, 3)
    bench.outbox.write(
        lambda con: con.execute("UPDATE events SET body = replace(body, 'testing', 'tfsting') WHERE seq = 2")
    )
    bench.turns()
    assert bench.transport.sent == [1, 3]
    assert (bench.row.delivered, bench.row.dead) == (2 + NOTICE, 1)
    assert "damaged" in bench.dead[0]


def results_with(status: str, code: str) -> Callable[[list[dict[str, Any]]], HttpReply]:
    """The same result for every event."""

    def answer(batch: list[dict[str, Any]]) -> HttpReply:
        items = [{"id": event["id"], "status": status, "code": code} for event in batch]
        return HttpReply(200, {}, json.dumps({"results": items}).encode())

    return answer


def conflicting(source: str) -> Callable[[list[dict[str, Any]]], HttpReply]:
    """A receiver that holds other events under the numbers from 3 on of one source."""

    def answer(batch: list[dict[str, Any]]) -> HttpReply:
        taken = [event for event in batch if event["source"] == source and int(event["sequence"]) >= 3]
        items = [
            {"id": event["id"], "status": "rejected", "code": "sequence_conflict"}
            if event in taken
            else {"id": event["id"], "status": "accepted"}
            for event in batch
        ]
        return HttpReply(200, {}, json.dumps({"results": items}).encode())

    return answer


def test_a_sequence_that_is_taken_renews_the_source_and_keeps_the_ids(bench: Bench) -> None:
    bench.record(1, 2, 3, 4)
    source = f"urn:uuid:{bench.outbox.query(identity.identities).newest}"
    bench.answer(*[conflicting(source)] * 5)
    bench.turns()
    bench.clock.pass_s(5)
    assert bench.turns() is None
    assert (bench.row.delivered, bench.row.dead) == (4, 0)
    first, again = bench.transport.batches
    assert [event["id"] for event in first[2:]] == [event["id"] for event in again]
    assert source not in {event["source"] for event in again}


def test_a_receiver_that_claims_a_conflict_for_ever_gets_a_dead_letter_and_no_loop(bench: Bench) -> None:
    bench.record(1)
    bench.answer(*[results_with("rejected", "sequence_conflict")] * 9)
    while (wait_s := bench.turns()) is not None:
        bench.clock.pass_s(wait_s)
    assert (bench.row.dead, len(bench.transport.batches)) == (1 + NOTICE, 4)


def test_an_exchange_that_our_own_stop_cut_is_nobody_s_failure(bench: Bench) -> None:
    bench.record(1)
    bench.answer(NoReply("closed"))
    bench.turns(1)
    assert (bench.row.state, bench.row.failures, bench.pending) == (SinkState.DELIVERING, 0, 1)


def test_a_request_that_cannot_be_sent_pauses(bench: Bench) -> None:
    bench.record(1)
    bench.answer(NoReply("request", "the URL cannot be used"))
    bench.turns(1)
    assert (bench.row.state, bench.pending) == (SinkState.PAUSED, 1)


def test_a_state_is_logged_when_it_changes_and_not_at_every_attempt(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.record(1)
    bench.answer(*[NoReply("connect", "refused")] * 5)
    for _ in range(5):
        bench.turns(1)
        bench.clock.pass_s(100)
    caplog.set_level("INFO")
    bench.turns()
    assert [record.getMessage() for record in caplog.records] == [
        "sink orchestrator: waiting (connect: refused)",
        "sink orchestrator: delivering",
    ]


def test_a_receiver_that_takes_gzip_and_small_batches_gets_them(bench: Bench) -> None:
    said: Callable[..., Any] = bench.transport.send
    bench.record(*range(7))

    def send(request: Any, *, deadline_s: float) -> Any:
        if request.method == "GET":
            return HttpReply(200, {}, b'{"batch":{"max_events":3,"max_bytes":"huge"},"encodings":["gzip"]}')
        return said(request, deadline_s=deadline_s)

    bench.transport.send = send  # type: ignore[method-assign]
    bench.turns()
    assert [len(batch) for batch in bench.transport.batches] == [3, 3, 1]


def test_a_worker_whose_destination_is_not_in_the_file_any_more_steps_down(bench: Bench) -> None:
    bench.record(1)
    bench.outbox.write(lambda con: con.execute("DELETE FROM sinks"))
    assert bench.turns() is None
    assert bench.worker.is_stale
    assert bench.transport.batches == []


@pytest.mark.parametrize("answer", [NoReply("connect"), HttpReply(503, {"retry-after": "60"})], ids=["down", "503"])
def test_a_flusher_that_starts_in_an_outage_begins_gently_when_it_ends(bench: Bench, answer: Answer) -> None:
    bench.record(*range(101))
    bench.answer(answer)
    bench.turns()
    row, bench.worker = bench.row, bench.elected()
    bench.worker.resume(row)
    bench.clock.pass_s(120)
    bench.transport.batches.clear()
    bench.turns()
    assert [len(batch) for batch in bench.transport.batches] == [16, 32, 53]
