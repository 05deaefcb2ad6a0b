"""The way back: what is stored, in which order it is told, and what trouble, crashes and takeovers do to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchclient.core.http import HttpReply, NoReply
from orchclient.core.polling import InboxState
from orchclient.delivery.courier import Cut
from orchclient.delivery.settlement import StaleEpoch
from orchclient.testing.orchestrator import ACK_PATH
from tests.delivery.inbox_bench import InboxBench, open_question, stored_ids

HOUR_S = 3600.0


@pytest.fixture
def bench(outbox_path: Path) -> Iterator[InboxBench]:
    bench = InboxBench(outbox_path)
    yield bench
    bench.outbox.close()


class TestIdle:
    def test_an_idle_agent_makes_at_most_one_poll_a_minute(self, bench: InboxBench) -> None:
        until = bench.clock.monotonic() + HOUR_S
        while bench.clock.monotonic() < until:
            bench.clock.pass_s(bench.worker.turn())
        assert 55 <= len(bench.wire.polls) <= 60
        assert {poll["wait"] for poll in bench.wire.polls} == {"0"}

    def test_a_process_that_has_just_begun_asks_nothing_for_a_minute(self, bench: InboxBench) -> None:
        assert bench.worker.turn() == 59.0
        assert bench.wire.requests == []

    def test_a_hint_is_followed_at_once_and_once(self, bench: InboxBench) -> None:
        wanted = bench.put("mind the gap")
        bench.worker.pace = bench.worker.pace.hinted()
        assert bench.turns() == 60.0
        assert stored_ids(bench) == wanted
        assert len(bench.wire.polls) == 1


class TestOpen:
    def test_a_poll_is_long_while_something_is_open_and_has_its_deadline(self, bench: InboxBench) -> None:
        open_question(bench)
        assert bench.turns() == 1.0
        assert [poll["wait"] for poll in bench.wire.polls] == ["25"]
        assert bench.wire.deadlines[-1] == 35.0

    def test_the_receiver_says_how_long_it_holds_a_poll(self, outbox_path: Path) -> None:
        bench = InboxBench(outbox_path, capabilities={"protocol": ["1.0"], "inbox": {"max_wait_s": 5}})
        open_question(bench)
        bench.turns()
        assert [poll["wait"] for poll in bench.wire.polls] == ["5"]

    def test_items_and_cursor_are_stored_before_the_receiver_is_told(self, bench: InboxBench) -> None:
        open_question(bench)
        wanted = bench.put("one", "two")
        seen = []

        def acknowledged(request: object) -> HttpReply:
            seen.append((stored_ids(bench), bench.cursor()[0] != ""))
            return HttpReply(204)

        bench.wire.answers = [bench.wire.judged, acknowledged]
        bench.turns()
        assert seen == [(wanted, True)]
        assert bench.cursor()[0] == bench.cursor()[1]

    def test_pages_follow_each_other_at_once_while_there_is_more(self, outbox_path: Path) -> None:
        bench = InboxBench(outbox_path, page_items=2)
        open_question(bench)
        wanted = bench.put("a", "b", "c", "d", "e")
        assert bench.turns() == 1.0
        assert stored_ids(bench) == wanted
        assert [poll["wait"] for poll in bench.wire.polls] == ["25", "0", "0"]
        assert bench.orchestrator.inbox.items == []

    def test_a_page_that_promises_more_of_nothing_is_not_asked_for_again_at_once(self, bench: InboxBench) -> None:
        open_question(bench)
        nothing = HttpReply(200, {}, b'{"items": [], "cursor": "c", "has_more": true}')
        bench.wire.answers = [nothing, HttpReply(204), nothing]
        assert bench.turns() > 0
        assert len(bench.wire.polls) == 2


class TestCrashes:
    def test_after_an_acknowledgement_that_was_lost_it_is_said_again_and_nothing_comes_twice(
        self, bench: InboxBench
    ) -> None:
        open_question(bench)
        wanted = bench.put("one")
        bench.wire.loses = lambda request: request.url.endswith(ACK_PATH)
        bench.turns()
        assert bench.cursor()[1] == ""
        bench.wire.loses = lambda request: False
        bench.clock.pass_s(120)
        bench.turns()
        assert bench.cursor()[0] == bench.cursor()[1]
        assert stored_ids(bench) == wanted
        assert len(set(bench.wire.acknowledgements)) == 1

    def test_a_process_that_died_before_it_acknowledged_is_made_up_for(self, bench: InboxBench) -> None:
        open_question(bench)
        wanted = bench.put("one")
        bench.wire.answers = [bench.wire.judged, _die]
        with pytest.raises(KeyboardInterrupt):
            bench.turns()
        bench.worker = bench.elected()
        bench.put("two")
        bench.turns()
        assert stored_ids(bench)[:1] == wanted
        assert len(stored_ids(bench)) == 2
        assert bench.orchestrator.inbox.items == []

    def test_a_process_that_died_before_it_stored_gets_the_items_again(self, bench: InboxBench) -> None:
        open_question(bench)
        wanted = bench.put("one")
        bench.wire.loses = lambda request: True
        bench.turns()
        assert stored_ids(bench) == []
        bench.wire.loses = lambda request: False
        bench.worker = bench.elected()
        bench.turns()
        assert stored_ids(bench) == wanted


class TestTakeover:
    def test_a_process_that_was_stalled_while_another_took_over_stores_nothing(self, bench: InboxBench) -> None:
        open_question(bench)
        wanted = bench.put("one")
        stalled, bench.worker = bench.worker, bench.elected()
        with pytest.raises(StaleEpoch):
            stalled.turn()
        assert (stored_ids(bench), bench.cursor()) == ([], ("", ""))
        bench.turns()
        assert stored_ids(bench) == wanted

    def test_a_page_that_arrives_after_another_process_went_on_moves_no_cursor_back(self, bench: InboxBench) -> None:
        open_question(bench)
        bench.put("one")
        stalled = bench.worker

        def overtaken(request: object) -> object:
            answer = bench.wire.judged(request)
            bench.worker = bench.elected()
            bench.put("two")
            bench.turns()
            return answer

        bench.wire.answers = [overtaken]
        with pytest.raises(StaleEpoch):
            stalled.turn()
        assert len(stored_ids(bench)) == 2
        cursor = bench.cursor()
        bench.clock.pass_s(60)
        bench.turns()
        assert bench.cursor() == cursor

    def test_a_stalled_process_does_not_tell_how_the_inbox_fares(self, bench: InboxBench) -> None:
        open_question(bench)
        stalled, bench.worker = bench.worker, bench.elected()
        bench.wire.answers = [HttpReply(403)]
        with pytest.raises(StaleEpoch):
            stalled.turn()


class TestTrouble:
    @pytest.mark.parametrize(
        ("answer", "state", "wait_s"),
        [
            (HttpReply(503), InboxState.WAITING, 1.0),
            (HttpReply(503, {"retry-after": "90"}), InboxState.WAITING, 94.5),
            (NoReply("timeout"), InboxState.WAITING, 1.0),
            (HttpReply(200, {}, b"<html>"), InboxState.WAITING, 1.0),
            (HttpReply(200, {}, b'{"items": [], "cursor": "", "has_more": false}'), InboxState.WAITING, 1.0),
            (HttpReply(404), InboxState.ABSENT, 57.0),
            (HttpReply(401), InboxState.PAUSED, 57.0),
            (HttpReply(307), InboxState.PAUSED, 57.0),
        ],
        ids=str,
    )
    def test_each_kind_of_answer_has_its_pace(
        self, bench: InboxBench, answer: HttpReply | NoReply, state: InboxState, wait_s: float
    ) -> None:
        open_question(bench)
        bench.wire.answers = [answer]
        assert bench.turns() == pytest.approx(wait_s)
        assert bench.worker.pace.state is state

    def test_a_receiver_without_an_inbox_is_asked_again_after_a_minute_rising_to_an_hour(
        self, bench: InboxBench
    ) -> None:
        open_question(bench)
        waits = []
        for _ in range(9):
            bench.wire.answers = [HttpReply(404)]
            waits.append(round(bench.turns()))
            bench.clock.pass_s(waits[-1] + 1)
        assert waits == [57, 114, 228, 456, 912, 1824, 3420, 3420, 3420]

    def test_a_refused_acknowledgement_pauses_and_is_said_again_before_the_next_poll(self, bench: InboxBench) -> None:
        open_question(bench)
        wanted = bench.put("one")
        bench.wire.answers = [bench.wire.judged, HttpReply(403)]
        assert bench.turns() == pytest.approx(57.0)
        assert bench.worker.pace.state is InboxState.PAUSED
        bench.clock.pass_s(60)
        bench.turns()
        assert bench.wire.requests[-2].url.endswith(ACK_PATH)
        assert stored_ids(bench) == wanted

    def test_a_poll_that_is_cut_is_nobodys_failure(self, bench: InboxBench) -> None:
        open_question(bench)
        bench.wire.answers = [NoReply("closed")]
        with pytest.raises(Cut):
            bench.turns()
        assert bench.worker.pace.failures == 0

    def test_trouble_is_logged_once_and_its_end_too(self, bench: InboxBench, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO", "orchclient")
        open_question(bench)
        for answer in (HttpReply(403, {}, b'{"title": "No\\u001b[31m"}'), HttpReply(403), HttpReply(403)):
            bench.wire.answers = [answer]
            bench.turns()
            bench.clock.pass_s(HOUR_S)
        bench.turns()
        assert [record.getMessage() for record in caplog.records] == [
            "sink orchestrator: inbox paused (HTTP 403 No\\x1b[31m)",
            "sink orchestrator: inbox polling",
        ]


def test_whatever_stands_in_the_inbox_is_stored_and_acknowledged(bench: InboxBench) -> None:
    """A single strange item must not keep the others from coming for ever."""
    open_question(bench)
    strange = [None, 7, "text", [], {}, {"id": 5}, {"id": "x" * 300, "source": "s"}, {"data": {"clarification_id": []}}]
    for item in strange:
        bench.put_item(item)
    wanted = bench.put("after all of them")
    bench.turns()
    assert stored_ids(bench)[-1:] == wanted
    assert bench.orchestrator.inbox.items == []


def test_two_sources_with_something_open_are_asked_by_turns(bench: InboxBench) -> None:
    sources = [bench.source, "00000000-0000-4000-8000-000000000001"]
    for source in sources:
        open_question(bench, source)
    for _ in range(4):
        bench.turns()
        bench.clock.pass_s(2.0)
    asked = [poll["source"].removeprefix("urn:uuid:") for poll in bench.wire.polls]
    assert sorted(asked[:2]) == sorted(asked[2:4]) == sorted(sources)
    assert {poll["wait"] for poll in bench.wire.polls} == {"2"}


def _die(request: object) -> HttpReply:
    raise KeyboardInterrupt


def test_the_acknowledgement_names_source_and_cursor(bench: InboxBench) -> None:
    open_question(bench)
    bench.put("one")
    bench.turns()
    assert json.loads(bench.wire.acknowledgements[0]) == {
        "source": f"urn:uuid:{bench.source}",
        "cursor": bench.cursor()[0],
    }
