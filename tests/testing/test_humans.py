"""The people at the receiver: what they say reaches the inbox of the agent that asked, well-formed or not, as told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests
from referencing import Registry, Resource

import orchclient.core.schemas
from orchclient import Clarification, OrchestratorClient
from orchclient.sinks.orchestrator import OrchestratorSink
from orchclient.testing import ACK_PATH, WRONG_DIGEST, Fault, Receiver

LONG = 10.0


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def agent(receiver: Receiver, tmp_path: Path) -> Iterator[OrchestratorClient]:
    with client(receiver, tmp_path / "outbox.db") as agent:
        yield agent


def client(receiver: Receiver, outbox: Path) -> OrchestratorClient:
    return OrchestratorClient("me", outbox=outbox, sinks=[OrchestratorSink(receiver.url, lambda: None)])


def source_of(receiver: Receiver, question: Any) -> str:
    return next(str(event["source"]) for event in receiver.events if event["id"] == question.id)


def waiting(receiver: Receiver) -> list[dict[str, Any]]:
    return [item["data"] for item in receiver.said]


def asked(agent: OrchestratorClient, **how: Any) -> Clarification:
    return agent.request_clarification("task-1", "Ship it?", options=["yes", "no"], **how)


def schema(name: str) -> Any:
    folder = Path(orchclient.core.schemas.__file__).parent
    documents = {path.name: json.loads(path.read_text()) for path in folder.glob("*.json")}
    known = [(document["$id"], Resource.from_contents(document)) for document in documents.values()]
    return jsonschema.Draft202012Validator(documents[name], registry=Registry().with_resources(known))


class TestWellFormed:
    def test_everything_people_say_fits_its_schema(self, receiver: Receiver, agent: OrchestratorClient) -> None:
        question, handed_in = asked(agent), agent.report_completion("task-1", None, {}, review=True)
        receiver.see(question)
        receiver.answer(question, "yes", comment="go on")
        receiver.answer(question, {"q1": ["no"]})
        receiver.answer(question)
        receiver.expire(question)
        receiver.review(handed_in, "changes_requested", comment="rename it")
        receiver.cancel("task-1", "superseded")
        receiver.message("task-1", "mind the migration", urgent=True)
        receiver.put_foreign()
        assert len(receiver.said) == 9
        for item in receiver.said:
            schema("inbound-envelope.json").validate(item)

    def test_an_item_of_which_it_is_told_that_it_breaks_its_schema_does(
        self, receiver: Receiver, agent: OrchestratorClient
    ) -> None:
        receiver.put_unreadable()
        receiver.answer(asked(agent), "yes", from_nobody=True)
        for item in receiver.said:
            assert not schema("inbound-envelope.json").is_valid(item)

    def test_an_option_is_chosen_and_anything_else_is_said(self, receiver: Receiver, agent: OrchestratorClient) -> None:
        question = asked(agent)
        for said in ("yes", "perhaps"):
            receiver.answer(question, said)
        assert [data["answers"] for data in waiting(receiver)] == [
            [{"question_id": "q1", "options": ["yes"]}],
            [{"question_id": "q1", "text": "perhaps"}],
        ]

    def test_a_text_alone_cannot_answer_two_questions(self, receiver: Receiver, agent: OrchestratorClient) -> None:
        question = agent.request_clarification("task-1", ["Where?", "When?"])
        with pytest.raises(ValueError, match="q1, q2"):
            receiver.answer(question, "here")

    def test_a_question_that_never_arrives_is_named(self, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("orchclient.testing.humans.ARRIVES_WITHIN_S", 0.01)
        with pytest.raises(LookupError, match="no question 'q-1' arrived"):
            receiver.answer("q-1", "yes")


class TestOnTimeAndLate:
    def test_only_the_first_valid_answer_is_in_time(self, receiver: Receiver, agent: OrchestratorClient) -> None:
        question = asked(agent)
        receiver.answer(question, "no", digest=WRONG_DIGEST)
        receiver.answer(question, "yes")
        receiver.answer(question, "no")
        assert [data.get("late", False) for data in waiting(receiver)] == [False, False, True]

    def test_an_answer_after_the_withdrawal_is_late(self, receiver: Receiver, agent: OrchestratorClient) -> None:
        question = asked(agent)
        question.withdraw("found it")
        assert receiver.wait_for(2, LONG)
        receiver.answer(question, "yes")
        assert waiting(receiver)[0]["late"] is True

    def test_an_answer_that_takes_time_comes_by_itself(self, receiver: Receiver, agent: OrchestratorClient) -> None:
        receiver.answer(asked(agent), "yes", after_s=0.05)
        assert receiver.said == []
        assert receiver.wait_for(lambda r: len(r.said) == 1, LONG)

    def test_what_nobody_said_yet_is_not_said_after_the_end(self, tmp_path: Path) -> None:
        with Receiver() as receiver, client(receiver, tmp_path / "outbox.db") as agent:
            receiver.answer(asked(agent), "yes", after_s=3600)
        assert not receiver._pending

    def test_the_same_item_twice_or_the_same_answer_in_two_items(
        self, receiver: Receiver, agent: OrchestratorClient
    ) -> None:
        receiver.answer(asked(agent, key="a"), "yes", twice=True)
        receiver.answer(asked(agent, key="b"), "yes", twice="answer")
        ids = [item["id"] for item in receiver.said]
        answer_ids = [data["answer_id"] for data in waiting(receiver)]
        assert (ids[0] == ids[1], ids[2] == ids[3]) == (True, False)
        assert (answer_ids[0] == answer_ids[1], answer_ids[2] == answer_ids[3]) == (True, True)


class TestWhoGetsIt:
    def test_an_answer_lies_in_the_inbox_of_the_outbox_that_asked(
        self, receiver: Receiver, agent: OrchestratorClient
    ) -> None:
        receiver.always(Fault.status(503), on=ACK_PATH)  # or the agent itself may be quicker to take it away
        question = asked(agent)
        receiver.answer(question, "yes")
        page = requests.get(f"{receiver.url}/v1/inbox", {"source": source_of(receiver, question)}, timeout=LONG)
        theirs = requests.get(f"{receiver.url}/v1/inbox", {"source": "urn:uuid:other"}, timeout=LONG)
        assert (len(page.json()["items"]), len(theirs.json()["items"])) == (1, 0)

    def test_a_question_asked_again_from_another_outbox_is_answered_from_the_record(
        self, receiver: Receiver, agent: OrchestratorClient, tmp_path: Path
    ) -> None:
        receiver.answer(asked(agent, key="ship"), "yes")
        with client(receiver, tmp_path / "new-host.db") as again:
            question = asked(again, key="ship")
            assert receiver.wait_for(lambda r: len(r.said) == 2, LONG)
        first, second = waiting(receiver)
        assert second["answer_id"] == first["answer_id"]
        assert second["clarification_id"] == question.id

    def test_a_question_that_two_outboxes_ask_is_answered_to_both(
        self, receiver: Receiver, agent: OrchestratorClient, tmp_path: Path
    ) -> None:
        with client(receiver, tmp_path / "new-host.db") as again:
            questions = [asked(each, key="ship") for each in (agent, again)]
            assert receiver.wait_for(2, LONG)
        receiver.answer(questions[0], "yes")
        assert {data["clarification_id"] for data in waiting(receiver)} == {question.id for question in questions}

    def test_a_word_about_a_task_goes_to_the_outbox_that_spoke_of_it(
        self, receiver: Receiver, agent: OrchestratorClient
    ) -> None:
        agent.update_task_status("task-1", "in_progress")
        assert receiver.wait_for(1, LONG)
        receiver.cancel("task-1")
        source = receiver.events[0]["source"]
        assert [entry.source for entry in receiver._orchestrator.inbox.entries] == [source]

    def test_an_inbox_of_several_pages_arrives_whole_and_in_order(
        self, receiver: Receiver, agent: OrchestratorClient
    ) -> None:
        receiver.end_pages_after(2)
        question = asked(agent)
        assert receiver.wait_for(1, LONG)
        words = [f"word {number}" for number in range(5)]
        for word in words:
            receiver.message("task-1", word)
        receiver.answer(question, "yes")
        assert question.wait(LONG)
        told = [item.data["text"] for item in agent.inbox() if item.type.endswith("task.message.v1")]
        assert told == words


class TestPolicies:
    def test_every_question_is_answered_as_the_policy_says_open_ones_first(
        self, receiver: Receiver, agent: OrchestratorClient
    ) -> None:
        first = asked(agent, key="a")
        assert receiver.wait_for(1, LONG)
        receiver.answer_each(lambda event: None if event["data"].get("key") == "b" else "yes", comment="by rule")
        asked(agent, key="b")
        third = asked(agent, key="c")
        assert receiver.wait_for(3, LONG)
        assert [data["clarification_id"] for data in waiting(receiver)] == [first.id, third.id]

    def test_the_answer_is_told_of_in_the_reply_that_took_the_question(
        self, receiver: Receiver, agent: OrchestratorClient
    ) -> None:
        receiver.answer_each("yes")
        asked(agent)
        assert receiver.wait_for(lambda r: len(r.said) == 1, LONG)

    def test_every_result_is_decided_as_the_policy_says(self, receiver: Receiver, agent: OrchestratorClient) -> None:
        receiver.review_each("rejected", comment="no tests")
        agent.report_completion("task-1", None, {})
        handed_in = agent.report_completion("task-2", None, {}, review=True)
        assert receiver.wait_for(2, LONG)
        assert [(data["review_id"], data["outcome"]) for data in waiting(receiver)] == [
            (handed_in.event_id, "rejected")
        ]

    def test_what_a_policy_raises_is_shown_and_the_question_is_kept(
        self, receiver: Receiver, agent: OrchestratorClient
    ) -> None:
        receiver.answer_each(lambda event: event["data"]["nothing"])
        asked(agent)
        assert receiver.wait_for(1, LONG)
        assert [type(failure) for failure in receiver.failures] == [KeyError]
