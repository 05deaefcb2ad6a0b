"""The verdict on an item: what counts, what is late, and what is never an approval."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from orchclient.core.inbox_items import ANSWERED, CANCEL_REQUESTED, DECIDED, MESSAGE, SEEN, InboxItem
from orchclient.core.judging import Asked, ItemVerdict, RequestKind, RequestState, judged, settled_state

QUESTION = Asked("q-1", RequestKind.QUESTION, "task-1", "sha256:asked", RequestState.OPEN)
REVIEW = Asked("r-1", RequestKind.REVIEW, "task-1", "", RequestState.OPEN)


def answer(**members: Any) -> InboxItem:
    data = {"clarification_id": "q-1", "answer_id": "a-1", "outcome": "approved", "content_digest": "sha256:asked"}
    return InboxItem("https://o/", "i-1", ANSWERED, "task-1", data | members)


def decision(**members: Any) -> InboxItem:
    return InboxItem("https://o/", "i-2", DECIDED, "task-1", {"review_id": "r-1", "outcome": "approved"} | members)


def other(type_: str, **data: Any) -> InboxItem:
    return InboxItem("https://o/", "i-3", type_, "task-1", data)


@pytest.mark.parametrize(
    ("item", "asked", "verdict"),
    [
        (answer(), QUESTION, ItemVerdict.ACCEPTED),
        (answer(), evolve(QUESTION, state=RequestState.SEEN), ItemVerdict.ACCEPTED),
        (decision(), REVIEW, ItemVerdict.ACCEPTED),
        (answer(late=True), QUESTION, ItemVerdict.LATE),
        *(
            (answer(), evolve(QUESTION, state=state), ItemVerdict.LATE)
            for state in (
                RequestState.ANSWERED,
                RequestState.DECLINED,
                RequestState.EXPIRED,
                RequestState.WITHDRAWN,
            )
        ),
        (answer(content_digest="sha256:other"), QUESTION, ItemVerdict.STALE),
        (answer(content_digest="sha256:other", outcome="expired"), QUESTION, ItemVerdict.STALE),
        (answer(content_digest="sha256:other"), evolve(QUESTION, state=RequestState.ANSWERED), ItemVerdict.STALE),
        (answer(), None, ItemVerdict.FOREIGN),
        (answer(clarification_id="q-2"), QUESTION, ItemVerdict.FOREIGN),
        (evolve(answer(), task="task-2"), QUESTION, ItemVerdict.FOREIGN),
        (answer(clarification_id="r-1"), REVIEW, ItemVerdict.FOREIGN),
        (decision(review_id="q-1"), QUESTION, ItemVerdict.FOREIGN),
        (other(SEEN, clarification_id="q-1"), QUESTION, ItemVerdict.SEEN),
        (other(SEEN, clarification_id="q-1"), None, ItemVerdict.FOREIGN),
        (other(SEEN, clarification_id="r-1"), REVIEW, ItemVerdict.FOREIGN),
        (other(CANCEL_REQUESTED), None, ItemVerdict.TOLD),
        (other(MESSAGE), None, ItemVerdict.TOLD),
        (other("task.praised.v1"), None, ItemVerdict.UNKNOWN),
        (evolve(answer(), problem="data.responder is missing"), QUESTION, ItemVerdict.UNREADABLE),
    ],
)
def test_each_item_has_its_verdict(item: InboxItem, asked: Asked | None, verdict: ItemVerdict) -> None:
    assert judged(item, asked) is verdict


def test_the_same_answer_in_another_item_is_a_repeat() -> None:
    assert judged(answer(), QUESTION, came_before=True) is ItemVerdict.REPEAT


def test_a_timeout_and_a_refusal_to_decide_are_no_answers() -> None:
    states = {outcome: settled_state(outcome).value for outcome in ("approved", "rejected", "declined", "expired")}
    assert states == {"approved": "answered", "rejected": "answered", "declined": "declined", "expired": "expired"}
