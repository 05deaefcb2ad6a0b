"""Requests and the inbox in the file: asked once, settled once, every item kept once, the cursor never before them."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from orchclient import OrchestratorClient
from orchclient.core.ids import uuid7
from orchclient.core.judging import ItemVerdict, RequestKind, RequestState
from orchclient.outbox import identity, inbox, requests
from orchclient.outbox.outbox import Outbox
from orchclient.outbox.requests import GRACE_US, Request
from orchclient.outbox.store import Origin
from orchclient.testing.items import TIMEOUT, human, item_of

DIGEST = "sha256:" + "1" * 64
SOURCE = "8f14e45f-ceea-467f-a0e6-4b0f1f4d2a31"
NOW = 1_800_000_000_000_000
AT = "2026-11-23T10:20:58Z"
ID = uuid7(NOW // 1000, bytes(10))
QUESTION = Request(ID, RequestKind.QUESTION, 1, SOURCE, "t", "agent", None, DIGEST, "high", NOW)


@pytest.fixture
def outbox(outbox_path: Path) -> Iterator[Outbox]:
    outbox = Outbox(Origin(outbox_path, lambda: SOURCE, lambda: NOW))
    outbox.write(lambda con: requests.add(con, QUESTION))
    yield outbox
    outbox.close()


def answer(answer_id: str = "a-1", **members: Any) -> dict[str, Any]:
    data = {
        "clarification_id": ID,
        "answer_id": answer_id,
        "outcome": "approved",
        "responder": human("u-1"),
        "answered_at": AT,
        "content_digest": DIGEST,
    }
    return item_of("clarification.answered.v1", "t", data | members)


def stored(outbox: Outbox, *items: Any, cursor: str = "c-1", now_us: int = NOW + 1) -> list[str]:
    """The verdicts on what is new."""
    kept = outbox.write(lambda con: inbox.store_page(con, "o", SOURCE, items, cursor, now_us))
    return [each.verdict.value for each in kept]


def request(outbox: Outbox) -> Request:
    found = outbox.query(lambda con: requests.by_id(con, ID))
    assert found is not None
    return found


def verdicts(outbox: Outbox) -> list[str]:
    return [item.verdict.value for item in outbox.query(inbox.received)]


class TestSettling:
    def test_the_first_valid_answer_wins_and_later_ones_are_kept_as_late(self, outbox: Outbox) -> None:
        assert stored(outbox, answer("a-1"), answer("a-2", outcome="rejected")) == ["accepted", "late"]
        assert (request(outbox).state, request(outbox).answer_id) == (RequestState.ANSWERED, "a-1")
        assert request(outbox).answered == answer("a-1")["data"]

    def test_an_answer_for_other_content_leaves_the_question_open(self, outbox: Outbox) -> None:
        assert stored(outbox, answer(content_digest="sha256:" + "2" * 64)) == ["stale"]
        assert request(outbox).state is RequestState.OPEN

    def test_an_item_that_comes_again_is_kept_once_and_an_answer_that_comes_again_settles_nothing(
        self, outbox: Outbox
    ) -> None:
        item = answer("a-1")
        assert stored(outbox, item, item) == ["accepted"]
        assert stored(outbox, item, answer("a-1")) == ["repeat"]
        assert verdicts(outbox) == ["accepted", "repeat"]

    def test_a_person_who_opens_a_question_is_noted_until_it_is_settled(self, outbox: Outbox) -> None:
        seen = {"clarification_id": ID, "responder": human("u-1"), "seen_at": AT}
        stored(outbox, item_of("clarification.seen.v1", "t", seen))
        assert request(outbox).state is RequestState.SEEN
        stored(outbox, answer(), item_of("clarification.seen.v1", "t", seen))
        assert request(outbox).state is RequestState.ANSWERED

    def test_the_clock_of_the_orchestrator_settles_as_expired(self, outbox: Outbox) -> None:
        assert stored(outbox, answer(outcome="expired", responder=TIMEOUT)) == ["accepted"]
        assert request(outbox).state is RequestState.EXPIRED

    def test_a_timeout_worded_as_a_no_is_unreadable(self, outbox: Outbox) -> None:
        assert stored(outbox, answer(outcome="rejected", responder=TIMEOUT)) == ["unreadable"]
        assert request(outbox).state is RequestState.OPEN

    def test_whoever_settles_second_changes_nothing(self, outbox: Outbox) -> None:
        settled = [
            outbox.write(lambda con, s=state: requests.settle(con, ID, s, NOW))  # type: ignore[misc]
            for state in (RequestState.WITHDRAWN, RequestState.EXPIRED)
        ]
        assert settled == [True, False]
        assert stored(outbox, answer()) == ["late"]
        assert request(outbox).state is RequestState.WITHDRAWN


class TestKeeping:
    def test_strange_items_are_kept_each_once(self, outbox: Outbox) -> None:
        strange = [None, 7, [], {}, {"id": "x"}, {"id": "x", "source": "s"}, "\ud800", {"id": "\ud800", "source": "s"}]
        assert set(stored(outbox, *strange)) == {"unreadable"}
        assert stored(outbox, *strange) == []
        assert len(verdicts(outbox)) == len(strange)

    def test_one_that_is_nested_too_deeply_for_any_file_is_noted(self, outbox: Outbox) -> None:
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        assert stored(outbox, deep, answer()) == ["unreadable", "accepted"]

    def test_items_and_cursor_are_one(self, outbox: Outbox) -> None:
        def fails(con: sqlite3.Connection) -> None:
            inbox.store_page(con, "o", SOURCE, [answer()], "c-1", NOW)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            outbox.write(fails)
        assert verdicts(outbox) == []
        assert outbox.query(lambda con: inbox.cursor(con, "o", SOURCE)) == ("", "")

    def test_the_cursor_and_what_was_acknowledged_are_two(self, outbox: Outbox) -> None:
        stored(outbox, answer(), cursor="c-7")
        assert outbox.query(lambda con: inbox.cursor(con, "o", SOURCE)) == ("c-7", "")
        outbox.write(lambda con: inbox.acknowledged(con, "o", SOURCE, "c-7"))
        assert outbox.query(lambda con: inbox.cursor(con, "o", SOURCE)) == ("c-7", "c-7")

    def test_old_items_are_forgotten_but_not_those_of_what_is_open(self, outbox: Outbox) -> None:
        stored(outbox, "strange", answer(content_digest="sha256:" + "2" * 64), "the newest")
        outbox.write(lambda con: inbox.forget(con, NOW + 2))
        assert verdicts(outbox) == ["stale", "unreadable"]


class TestDeadlines:
    def deadline(self, outbox: Outbox) -> None:
        overdue = evolve(QUESTION, id=uuid7(NOW // 1000, bytes([1] * 10)), deadline_us=NOW)
        outbox.write(lambda con: requests.add(con, overdue))

    def settled(self, outbox: Outbox, now_us: int) -> int:
        return len(outbox.write(lambda con: requests.settle_overdue(con, now_us)))

    def test_an_answer_on_its_way_has_ten_seconds(self, outbox: Outbox) -> None:
        self.deadline(outbox)
        assert self.settled(outbox, NOW - 1) == 0
        assert self.settled(outbox, NOW + GRACE_US - 1) == 0
        assert self.settled(outbox, NOW + GRACE_US) == 1
        assert self.settled(outbox, NOW + GRACE_US) == 0

    @pytest.mark.parametrize(("began_us", "is_last", "count"), [(NOW, True, 1), (NOW - 1, True, 0), (NOW, False, 0)])
    def test_a_poll_that_began_after_it_and_brought_no_more_ends_the_wait(
        self, outbox: Outbox, began_us: int, is_last: bool, count: int
    ) -> None:
        self.deadline(outbox)
        outbox.write(lambda con: inbox.note_poll(con, "o", SOURCE, began_us, "polling", "", is_last=is_last))
        assert self.settled(outbox, NOW + 1) == count

    def test_what_has_no_deadline_stays_open(self, outbox: Outbox) -> None:
        assert self.settled(outbox, NOW * 2) == 0


class TestAsking:
    def test_the_same_question_is_asked_once_over_restarts(self, outbox_path: Path) -> None:
        for _ in range(2):
            with OrchestratorClient("a", outbox=outbox_path, mode="offline") as client:
                asked = [client.request_clarification("t", "Ship it?", key=key).id for key in ("k", "k", None, None)]
                assert (asked[0] == asked[1], asked[2] == asked[3], asked[0] == asked[2]) == (True, True, False)
                other = client.request_clarification("t2", "Ship it?", key="k").id
                assert client.health().recorded == 3
        assert other not in asked

    def test_a_key_names_it_whatever_its_words_are(self, outbox_path: Path) -> None:
        with OrchestratorClient("a", outbox=outbox_path, mode="offline") as client:
            ids = {client.request_clarification("t", words, key="k").id for words in ("Ship it?", "Shall we ship?")}
            assert len(ids) == 1

    def test_what_was_withdrawn_is_asked_anew(self, outbox_path: Path) -> None:
        with OrchestratorClient("a", outbox=outbox_path, mode="offline") as client:
            first = client.request_clarification("t", "Ship it?", key="k")
            assert first.withdraw() is not None
            assert first.withdraw() is None
            assert client.request_clarification("t", "Ship it?", key="k").id != first.id
            assert client.health().recorded == 3

    def test_a_result_to_review_is_open_and_one_without_is_not(self, outbox_path: Path) -> None:
        with OrchestratorClient("a", outbox=outbox_path, mode="offline") as client:
            client.report_completion("t", None, {})
            handed_in = client.report_completion("t", None, {}, review=True)
            found = client._station.query(requests.open_ones)  # type: ignore[union-attr]
            assert [(each.id, each.kind) for each in found] == [(handed_in.event_id, RequestKind.REVIEW)]

    def test_an_answer_is_looked_for_under_every_identity_that_it_may_come_to(self, outbox: Outbox) -> None:
        assert outbox.query(requests.sources_to_poll) == [SOURCE]
        other = str(uuid.uuid4())
        outbox.write(lambda con: identity.renew(con, other, 1, NOW, "restored"))
        assert outbox.query(requests.sources_to_poll) == sorted([SOURCE, other])
        stored(outbox, answer())
        assert outbox.query(requests.sources_to_poll) == []


class TestTakeover:
    def test_what_was_asked_and_what_came_survive_the_loss_of_the_files(self, outbox_path: Path) -> None:
        with OrchestratorClient("a", outbox=outbox_path, mode="offline") as client:
            asked = client.request_clarification("t", "Ship it?", key="k")
            station = client._station
            station.write(  # type: ignore[union-attr]
                lambda con: inbox.store_page(con, "o", SOURCE, [{"strange": True}], "c", NOW)
            )
            for file in outbox_path.parent.glob("outbox.db*"):
                file.unlink()
            client.update_task_status("t", "in_progress")
            assert client.request_clarification("t", "Ship it?", key="k").id == asked.id
            kept = station.query(inbox.received)  # type: ignore[union-attr]
            assert [item.verdict for item in kept] == [ItemVerdict.UNREADABLE]


def test_the_newest_item_is_never_forgotten_so_no_place_comes_twice(outbox: Outbox) -> None:
    for id_ in ("1", "2"):
        outbox.write(lambda con, id_=id_: inbox.store_page(con, "o", SOURCE, [{"strange": id_}], id_, NOW))
    before_n = outbox.query(inbox.last_n)
    outbox.write(lambda con: inbox.forget(con, NOW + 1))
    outbox.write(lambda con: inbox.store_page(con, "o", SOURCE, [{"strange": "3"}], "3", NOW))
    assert [item.n for item in outbox.query(inbox.received)] == [before_n, before_n + 1]


@pytest.mark.parametrize("body", ["no JSON", "[]", "{}", '{"data": 1}', "null", "[" * 100_000])
def test_an_item_that_cannot_be_read_says_nothing(body: str) -> None:
    item = inbox.Received(1, SOURCE, "i", "x", "t", None, None, NOW, ItemVerdict.UNREADABLE, "broken", body)
    assert item.data == {}
