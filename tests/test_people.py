"""The human side as an agent uses it: ask, wait, take, once, over restarts; a timeout is never a person's no."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchclient import InvalidEvent, OrchestratorClient
from orchclient.sinks.orchestrator import OrchestratorSink
from orchclient.testing.receiver import Receiver

MakeClient = Callable[..., OrchestratorClient]
LONG = 20.0
CONSUMED = "dev.orchclient.clarification.consumed.v1"
ASKED = "dev.orchclient.clarification.requested.v1"
STATUS = "dev.orchclient.task.status.v1"


def sinks(receiver: Receiver) -> list[OrchestratorSink]:
    return [OrchestratorSink(receiver.url, lambda: None)]


def of_type(receiver: Receiver, type_: str) -> list[dict[str, Any]]:
    return [event for event in receiver.events if event["type"] == type_]


@pytest.fixture
def client(make_client: MakeClient, receiver: Receiver) -> OrchestratorClient:
    return make_client(sinks=sinks(receiver))


def test_an_answer_wakes_who_waits_and_is_consumed_once(client: OrchestratorClient, receiver: Receiver) -> None:
    question = client.request_clarification("t", "Which colour?", options=["red", "blue"], key="colour")
    receiver.answer(question, "red", comment="as the logo")
    answer = question.wait(LONG)
    assert answer is not None
    assert (answer.outcome, answer.choice, answer.text, answer.comment) == ("answered", "red", "red", "as the logo")
    assert (answer.responder.kind, answer.responder.id, answer.is_late, answer.is_default) == (
        "human",
        "u-1",
        False,
        False,
    )
    assert question.answer == answer == question.wait(0)
    assert question.state == "answered"
    client.update_task_status("t", "in_progress")
    assert client.flush(LONG)
    assert [each["data"]["answer_id"] for each in of_type(receiver, CONSUMED)] == [answer.answer_id]


def test_a_deadline_may_be_counted_from_now(make_client: MakeClient) -> None:
    client = make_client(sinks=[])
    before = datetime.now(UTC)
    client.task("t").ask("Which colour?", deadline=timedelta(hours=2))
    [told] = client._station.query(lambda con: con.execute("SELECT deadline_us FROM requests").fetchall())[0]  # type: ignore[union-attr]
    assert before <= datetime.fromtimestamp(told / 1e6, UTC) - timedelta(hours=2) <= datetime.now(UTC)
    with pytest.raises(InvalidEvent, match="9999"):
        client.request_clarification("t", "When?", deadline=timedelta.max)
    with pytest.raises(InvalidEvent, match="a datetime or a timedelta, not int"):
        client.request_clarification("t", "When?", deadline=3600)  # type: ignore[arg-type]


def test_asked_again_with_a_later_deadline_it_is_the_same_question(make_client: MakeClient) -> None:
    client = make_client(sinks=[])
    soon, later = (datetime.now(UTC) + timedelta(hours=hours) for hours in (1, 2))
    first = client.request_clarification("t", "Which colour?", deadline=soon)
    assert client.request_clarification("t", "Which colour?", deadline=later).id == first.id
    assert client.request_clarification("t", "Which colour?", default="red", deadline=later).id != first.id


def test_a_wait_that_ends_settles_nothing(make_client: MakeClient) -> None:
    question = make_client(sinks=[]).request_clarification("t", "Which colour?")
    assert question.wait(0.05) is None
    assert question.state == "open"
    assert question.answer is None


def test_asked_again_by_another_process_it_is_the_same_question_with_its_answer(
    client: OrchestratorClient, receiver: Receiver, make_client: MakeClient
) -> None:
    first = client.request_clarification("t", "Which colour?", key="colour")
    receiver.answer(first, "red")
    assert first.wait(LONG)
    client.close()
    later = make_client(sinks=[])
    again = later.request_clarification("t", "Which colour, please?", key="colour")
    assert again.id == first.id
    assert again.answer is not None
    assert again.answer.text == "red"
    assert later.open_clarifications() == ()


@pytest.mark.parametrize("background", [True, False])
def test_a_fresh_process_that_recorded_nothing_waits_and_gets_it(
    client: OrchestratorClient, receiver: Receiver, outbox_path: Path, background: bool
) -> None:
    question = client.request_clarification("t", "Which colour?")
    assert client.flush(LONG)
    client.close()
    with OrchestratorClient("agent-1", outbox=outbox_path, sinks=sinks(receiver), background=background) as other:
        found = other.clarification(question.id)
        assert found is not None
        assert [each.id for each in other.open_clarifications()] == [question.id]
        receiver.answer(question.id, "red")
        answer = found.wait(LONG)
    assert answer is not None
    assert answer.text == "red"
    assert background or not [each for each in threading.enumerate() if each.name.startswith("orchclient-orch")]


def test_only_one_of_many_who_wait_consumes_it(client: OrchestratorClient, receiver: Receiver) -> None:
    question = client.request_clarification("t", "Which colour?")
    got: list[Any] = []
    waiting = [threading.Thread(target=lambda: got.append(question.wait(LONG))) for _ in range(5)]
    for thread in waiting:
        thread.start()
    receiver.answer(question, "red", twice=True)
    for thread in waiting:
        thread.join(LONG)
    assert [each.text for each in got] == ["red"] * 5
    assert client.flush(LONG)
    assert len(of_type(receiver, CONSUMED)) == 1


class TestDeadlines:
    PAST = datetime(2020, 1, 1, tzinfo=UTC)

    def test_without_a_default_it_expires_and_is_nobodys_no(self, make_client: MakeClient) -> None:
        question = make_client(sinks=[]).request_clarification("t", "Which colour?", deadline=self.PAST)
        answer = question.wait(LONG)
        assert answer is not None
        assert (answer.outcome, answer.responder.kind, answer.is_default) == ("expired", "timeout", False)
        assert answer.answers == {}
        assert question.state == "expired"

    def test_the_default_applies_and_is_marked(self, make_client: MakeClient) -> None:
        client = make_client(sinks=[])
        question = client.request_clarification("t", ["One?", "Two?"], deadline=self.PAST, default="skip")
        answer = question.wait(LONG)
        assert answer is not None
        assert (answer.outcome, answer.is_default) == ("expired", True)
        assert {name: each.text for name, each in answer.answers.items()} == {"q1": "skip", "q2": "skip"}

    def test_asked_again_it_is_a_new_question_unless_there_was_a_default(self, make_client: MakeClient) -> None:
        client = make_client(sinks=[])
        bare = client.request_clarification("t", "Which colour?", deadline=self.PAST, key="bare")
        held = client.request_clarification("t", "Which size?", deadline=self.PAST, key="held", default="m")
        assert bare.wait(LONG)
        assert held.wait(LONG)
        assert client.request_clarification("t", "Which colour?", key="bare").id != bare.id
        assert client.request_clarification("t", "Which size?", key="held").id == held.id

    def test_an_answer_after_it_is_kept_as_late(self, client: OrchestratorClient, receiver: Receiver) -> None:
        soon = datetime.now(UTC) + timedelta(milliseconds=50)
        question = client.request_clarification("t", "Which colour?", deadline=soon)
        expired = question.wait(LONG)
        assert expired is not None
        assert expired.outcome == "expired"
        receiver.answer(question, "red")
        other = client.request_clarification("t", "Which size?")  # something is open, so it is polled
        receiver.answer(other, "m")
        assert other.wait(LONG)
        assert [(each.text, each.is_late) for each in question.late_answers] == [("red", True)]
        assert question.answer == expired


class TestReviews:
    @pytest.mark.parametrize(
        ("outcome", "status"), [("approved", "approved"), ("changes_requested", "in_progress"), ("rejected", "failed")]
    )
    def test_the_task_follows_the_decision_once(
        self, client: OrchestratorClient, receiver: Receiver, outcome: str, status: str
    ) -> None:
        done = client.report_completion("t", None, {"tests_passed": 1}, review=True)
        assert done.review is not None
        receiver.review(done, outcome, comment="see inline")
        decision = done.review.wait(LONG)
        assert decision is not None
        assert (decision.outcome, decision.comment) == (outcome, "see inline")
        assert done.review.decision == decision
        state = client.task_state("t")
        assert state is not None
        assert state.status == status
        again = client.review(done.event_id)
        assert again is not None
        assert again.decision == decision
        assert client.flush(LONG)
        assert len(of_type(receiver, STATUS)) == 1

    def test_without_review_there_is_nothing_to_wait_for(self, make_client: MakeClient) -> None:
        assert make_client(sinks=[]).report_completion("t", None, {}).review is None


def test_a_withdrawn_question_ends_the_wait_and_takes_no_answer(client: OrchestratorClient, receiver: Receiver) -> None:
    question = client.request_clarification("t", "Which colour?")
    assert question.withdraw("found it")
    assert question.wait(LONG) is None
    assert question.state == "withdrawn"
    assert question.withdraw() is None


def test_a_task_tells_who_wants_it_stopped_and_what_people_said(client: OrchestratorClient, receiver: Receiver) -> None:
    with client.task("t") as task:
        assert task.cancelled is None
        question = task.ask("Which colour?")
        receiver.message("t", "mind the gap")
        receiver.cancel("t", "superseded")
        receiver.answer(question, "red")
        assert question.wait(LONG)
        assert task.cancelled
        assert (task.cancelled.text, task.cancelled.sender.kind) == ("superseded", "human")
        assert [each.text for each in task.messages] == ["mind the gap"]
    assert {each.type for each in client.inbox(task_id="t")} >= {"task.message.v1", "task.cancel_requested.v1"}


def test_a_question_in_a_transaction_is_asked_with_it_or_not_at_all(make_client: MakeClient) -> None:
    client = make_client(sinks=[])
    with pytest.raises(ZeroDivisionError), client.transaction():
        int(client.request_clarification("t", "Which colour?", key="k").receipt.seq / 0)
    assert client.open_clarifications() == ()
    with client.transaction():
        asked = client.request_clarification("t", "Which colour?", key="k")
    assert [each.id for each in client.open_clarifications()] == [asked.id]


def test_a_disabled_client_waits_for_nothing_to_come(make_client: MakeClient) -> None:
    question = make_client(mode="disabled").request_clarification("t", "Which colour?")
    assert question.wait(0) is None
    assert question.state == "open"
