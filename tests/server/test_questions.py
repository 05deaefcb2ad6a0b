"""Questions and reviews: answered once, whoever asks, answers, withdraws or is late."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from orchclient.server import people, shapes
from orchclient.server.orchestrator import Orchestrator
from orchclient.server.people import CancelRequest, Message, QuestionView
from orchclient.server.questions import Decision, Settled, Unanswerable
from tests.server.conftest import Clock
from tests.server.events import Event, Outbox, at, new_event_id
from tests.server.test_tasks import take

ADA = {"kind": "human", "id": "ada", "display": "Ada"}


def answered(text: str = "yes", **more: Any) -> Decision:
    return Decision("answered", ADA, [{"question_id": "q1", "text": text}], channel="web", answered_us=1, **more)


def settled(orchestrator: Orchestrator, question: Event, decision: Decision | None = None) -> Settled:
    found = orchestrator.answer(question["id"], decision or answered())
    assert found is not None
    return found


def items(orchestrator: Orchestrator, outbox: Outbox) -> list[Any]:
    """The data of everything in a source's inbox; each item is checked against the schema of the contract."""
    found = [json.loads(text) for text in orchestrator.page(outbox.source, "", 0).items]
    assert [shapes.shape("inbound-envelope.json")(item) for item in found] == [""] * len(found)
    return [item["data"] | {"type": item["type"].removeprefix("dev.orchclient.")} for item in found]


def view(orchestrator: Orchestrator, question: Event) -> QuestionView:
    with orchestrator.reading() as session:
        found = people.question(session, question["id"])
    assert found is not None
    return found


def open_questions(orchestrator: Orchestrator) -> list[str]:
    with orchestrator.reading() as session:
        return [each.id for each in people.needs(session, 0).questions]


def test_an_answer_goes_into_the_inbox_of_who_asked(orchestrator: Orchestrator) -> None:
    outbox = Outbox()
    question = outbox.question()
    take(orchestrator, question)
    assert open_questions(orchestrator) == [question["id"]]
    done = settled(orchestrator, question)
    item = items(orchestrator, outbox)[0]
    assert (item["type"], item["clarification_id"]) == ("clarification.answered.v1", question["id"])
    assert (item["answer_id"], item["outcome"], item["late"]) == (done.answer_id, "answered", False)
    assert item["answers"] == [{"question_id": "q1", "text": "yes"}]
    assert item["content_digest"] == question["data"]["content_digest"]
    assert item["responder"] == ADA
    assert open_questions(orchestrator) == []
    assert view(orchestrator, question).state == "answered"


def test_the_first_answer_counts_and_later_ones_are_late(orchestrator: Orchestrator) -> None:
    outbox = Outbox()
    question = outbox.question()
    take(orchestrator, question)
    first, second = settled(orchestrator, question), settled(orchestrator, question, answered("no"))
    assert (first.is_late, second.is_late) == (False, True)
    assert [(item["late"], item["answers"][0]["text"]) for item in items(orchestrator, outbox)] == [
        (False, "yes"),
        (True, "no"),
    ]
    assert [(each.late, each.id) for each in view(orchestrator, question).answers] == [
        (False, first.answer_id),
        (True, second.answer_id),
    ]


def test_of_many_answers_at_once_exactly_one_is_first(orchestrator: Orchestrator) -> None:
    outbox = Outbox()
    question = outbox.question()
    take(orchestrator, question)
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda n: settled(orchestrator, question, answered(str(n))), range(8)))
    assert sum(not each.is_late for each in done) == 1
    found = items(orchestrator, outbox)
    assert len(found) == 8
    assert [item["answer_id"] for item in found if not item["late"]] == [
        each.answer_id for each in done if not each.is_late
    ]


def test_a_question_that_nobody_asked_has_no_answer(orchestrator: Orchestrator) -> None:
    assert orchestrator.answer(new_event_id(), answered()) is None
    assert orchestrator.decide(new_event_id(), Decision("approved", ADA, answered_us=1)) is None


def test_a_deadline_that_passes_is_told_as_a_timeout_and_not_as_a_decision(
    orchestrator: Orchestrator, clock: Clock
) -> None:
    clock.now_us = 1_794_000_000_000_000
    outbox = Outbox()
    question, patient = outbox.question(deadline=at(60), default="no"), outbox.question(text="Other?")
    take(orchestrator, question, patient)
    assert orchestrator.expire() == 0
    clock.pass_(61)
    assert orchestrator.expire() == 1
    item = items(orchestrator, outbox)[0]
    assert (item["outcome"], item["responder"]) == ("expired", {"kind": "timeout"})
    assert "answers" not in item
    assert view(orchestrator, question).state == "expired"
    assert view(orchestrator, question).default == "no"
    assert open_questions(orchestrator) == [patient["id"]]
    assert settled(orchestrator, question).is_late
    assert orchestrator.expire() == 0


def test_an_answer_after_the_deadline_is_late_though_nobody_has_looked_at_the_clock(
    orchestrator: Orchestrator, clock: Clock
) -> None:
    clock.now_us = 1_794_000_000_000_000
    question = Outbox().question(deadline=at(60))
    take(orchestrator, question)
    clock.pass_(61)
    assert settled(orchestrator, question).is_late


def test_who_opens_a_question_is_told_once(orchestrator: Orchestrator) -> None:
    outbox = Outbox()
    question = outbox.question()
    take(orchestrator, question)
    orchestrator.see(question["id"], ADA, "web")
    orchestrator.see(question["id"], ADA, "web")
    assert [item["type"] for item in items(orchestrator, outbox)] == ["clarification.seen.v1"]
    assert view(orchestrator, question).state == "seen"
    assert not settled(orchestrator, question).is_late


def test_a_withdrawn_question_is_struck_and_an_answer_to_it_is_late(orchestrator: Orchestrator) -> None:
    outbox = Outbox()
    question = outbox.question()
    take(orchestrator, question)
    take(orchestrator, outbox.event("clarification.withdrawn.v1", clarification_id=question["id"], reason="found it"))
    assert open_questions(orchestrator) == []
    assert (view(orchestrator, question).state, view(orchestrator, question).reason) == ("withdrawn", "found it")
    assert settled(orchestrator, question).is_late


def test_a_question_that_comes_after_its_withdrawal_stays_withdrawn(orchestrator: Orchestrator) -> None:
    outbox = Outbox()
    question = outbox.question()
    take(orchestrator, outbox.event("clarification.withdrawn.v1", clarification_id=question["id"], reason=""))
    take(orchestrator, question)
    assert open_questions(orchestrator) == []
    assert view(orchestrator, question).questions == question["data"]["questions"]


def test_an_answer_that_was_taken_is_shown_as_taken(orchestrator: Orchestrator) -> None:
    outbox = Outbox()
    question = outbox.question()
    take(orchestrator, question)
    answer = settled(orchestrator, question)
    assert not view(orchestrator, question).is_taken
    consumed = {"clarification_id": question["id"], "answer_id": answer.answer_id}
    take(orchestrator, outbox.event("clarification.consumed.v1", **consumed))
    assert view(orchestrator, question).is_taken


def test_an_answer_that_was_given_at_the_agents_host_settles_the_question(orchestrator: Orchestrator) -> None:
    outbox = Outbox()
    question = outbox.question()
    given = {
        "task_id": "task-1",
        "clarification_id": question["id"],
        "answer_id": "local-1",
        "content_digest": question["data"]["content_digest"],
        "outcome": "answered",
        "answers": [{"question_id": "q1", "text": "here"}],
        "responder": {"kind": "human", "id": "grace"},
        "channel": "cli",
        "answered_at": at(5),
    }
    consumed = {"clarification_id": question["id"], "answer_id": "local-1", "answer": given}
    take(orchestrator, question, outbox.event("clarification.consumed.v1", **consumed))
    found = view(orchestrator, question)
    assert (found.state, found.is_taken) == ("answered", True)
    assert [(each.id, each.responder["id"], each.late) for each in found.answers] == [("local-1", "grace", False)]
    assert settled(orchestrator, question).is_late


def test_nobody_is_asked_again_what_an_agent_has_taken_already(orchestrator: Orchestrator) -> None:
    outbox = Outbox()
    question = outbox.question()
    take(orchestrator, question)
    consumed = {"clarification_id": question["id"], "answer_id": "from before the backup"}
    take(orchestrator, outbox.event("clarification.consumed.v1", **consumed))
    assert open_questions(orchestrator) == []


# --- The same question from another host --------------------------------------------------------------------------


def test_a_question_asked_again_from_another_host_is_answered_from_the_record(orchestrator: Orchestrator) -> None:
    old, new = Outbox(), Outbox()
    first = old.question(key="auth", deadline=at(10**7))
    take(orchestrator, first)
    answer = settled(orchestrator, first)
    again = new.question(key="auth")
    assert orchestrator.ingest([*_batch(again)]).pending == 1
    item = items(orchestrator, new)[0]
    assert (item["clarification_id"], item["answer_id"]) == (again["id"], answer.answer_id)
    assert item["content_digest"] == again["data"]["content_digest"]
    assert open_questions(orchestrator) == []


def test_a_record_of_other_content_is_sent_with_the_digest_of_that_content(orchestrator: Orchestrator) -> None:
    old, new = Outbox(), Outbox()
    first, again = old.question(key="auth", text="Before?"), new.question(key="auth", text="After?")
    take(orchestrator, first)
    settled(orchestrator, first)
    take(orchestrator, again)
    assert items(orchestrator, new)[0]["content_digest"] == first["data"]["content_digest"]


def test_a_question_of_two_hosts_is_shown_once_and_both_are_answered(orchestrator: Orchestrator) -> None:
    old, new = Outbox(), Outbox()
    first, again = old.question(key="auth"), new.question(key="auth")
    take(orchestrator, first)
    take(orchestrator, again)
    assert open_questions(orchestrator) == [first["id"]]
    answer = settled(orchestrator, first)
    for outbox, question in ((old, first), (new, again)):
        item = items(orchestrator, outbox)[0]
        assert (item["clarification_id"], item["answer_id"]) == (question["id"], answer.answer_id)


def test_a_question_that_moves_to_a_new_source_is_answered_there(orchestrator: Orchestrator) -> None:
    old, new = Outbox(), Outbox()
    first = old.question()
    again = new.question(id_=first["id"])
    take(orchestrator, first)
    take(orchestrator, again)
    assert open_questions(orchestrator) == [first["id"]]
    settled(orchestrator, first)
    assert items(orchestrator, new)[0]["clarification_id"] == first["id"]


def test_who_asks_something_else_by_the_same_key_gets_the_digest_of_what_was_shown(orchestrator: Orchestrator) -> None:
    old, new = Outbox(), Outbox()
    first, again = old.question(key="auth", text="Before?"), new.question(key="auth", text="After?")
    take(orchestrator, first)
    take(orchestrator, again)
    assert view(orchestrator, first).questions[0]["text"] == "After?"
    settled(orchestrator, first)
    digests = [items(orchestrator, outbox)[0]["content_digest"] for outbox in (old, new)]
    assert digests == [again["data"]["content_digest"]] * 2
    third = Outbox()
    take(orchestrator, third.question(key="auth", text="Before?"))
    assert items(orchestrator, third)[0]["content_digest"] == again["data"]["content_digest"]


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        (Decision("declined", ADA, content_digest="sha256:" + "0" * 64), "another one by now"),
        (Decision("answered", ADA, [{"question_id": "q2", "text": "x"}]), "no question 'q2'"),
        (Decision("answered", ADA, [{"question_id": "q1", "options": ["c"]}]), "'c' is none of the options"),
    ],
)
def test_an_answer_to_something_else_than_what_is_asked_is_refused(
    orchestrator: Orchestrator, decision: Decision, words: str
) -> None:
    question = Outbox().question(questions=[{"id": "q1", "text": "?", "options": ["a", "b"]}])
    take(orchestrator, question)
    with pytest.raises(Unanswerable, match=words):
        orchestrator.answer(question["id"], decision)
    assert open_questions(orchestrator) == [question["id"]]
    assert not settled(
        orchestrator, question, Decision("answered", ADA, [{"question_id": "q1", "options": ["b"]}])
    ).is_late


@pytest.mark.parametrize("different", [{"key": "other"}, {"task": "task-2", "key": "auth"}, {}])
def test_other_questions_are_other_questions(orchestrator: Orchestrator, different: dict[str, str]) -> None:
    take(orchestrator, Outbox().question(key="auth"))
    take(orchestrator, Outbox().question(**different))
    assert len(open_questions(orchestrator)) == 2


def test_a_question_that_expired_is_asked_again(orchestrator: Orchestrator, clock: Clock) -> None:
    clock.now_us = 1_794_000_000_000_000
    take(orchestrator, Outbox().question(key="auth", deadline=at(60)))
    clock.pass_(61)
    orchestrator.expire()
    again = Outbox().question(key="auth")
    take(orchestrator, again)
    assert open_questions(orchestrator) == [again["id"]]


# --- Reviews, requests to stop, messages --------------------------------------------------------------------------


def test_a_review_is_decided_once(orchestrator: Orchestrator) -> None:
    outbox = Outbox()
    completion = outbox.completion(review=True)
    take(orchestrator, completion, outbox.completion("task-2"))
    with orchestrator.reading() as session:
        assert [each.id for each in people.needs(session, 0).reviews] == [completion["id"]]
    for outcome in ("changes_requested", "approved"):
        assert orchestrator.decide(completion["id"], Decision(outcome, ADA, comment="Rename", answered_us=1))
    assert [(item["outcome"], item["late"]) for item in items(orchestrator, outbox)] == [
        ("changes_requested", False),
        ("approved", True),
    ]
    with orchestrator.reading() as session:
        found = people.review(session, completion["id"])
        assert not people.needs(session, 0).reviews
    assert found is not None
    assert (found.state, [each.outcome for each in found.answers]) == ("decided", ["changes_requested", "approved"])


def test_requests_to_stop_and_messages_go_to_the_outbox_that_last_spoke_of_the_task(
    orchestrator: Orchestrator,
) -> None:
    old, new = Outbox(), Outbox()
    take(orchestrator, old.status())
    take(orchestrator, new.status())
    assert orchestrator.cancel(CancelRequest("task-1", ADA, "superseded"))
    assert orchestrator.message(Message("task-1", "Look!", ADA, urgent=True))
    assert items(orchestrator, old) == []
    cancel, message = items(orchestrator, new)
    assert (cancel["type"], cancel["reason"]) == ("task.cancel_requested.v1", "superseded")
    assert (message["type"], message["text"], message["urgent"]) == ("task.message.v1", "Look!", True)
    assert not orchestrator.cancel(CancelRequest("nobody's", ADA))


def _batch(*events: Event) -> Any:
    from tests.server.events import batch_of

    return batch_of(list(events))
