"""Questions and reviews: what agents ask, how one answer settles each, and who is told.

A question is answered once: whoever settles it first, by a compare-and-set on its state; later answers are kept, marked
and delivered as late. Requests of several sources may be one question. Locks are taken in one order: sources, requests,
inboxes. Must not know HTTP, nor who may answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from attrs import evolve, frozen
from sqlalchemy import select
from sqlalchemy.orm import Session

from orchclient.core.errors import OrchClientError
from orchclient.core.events import EventType
from orchclient.core.questions import content_digest
from orchclient.core.timestamps import microseconds, rfc3339
from orchclient.server.bulk import insert_new, json_column
from orchclient.server.ids import new_id
from orchclient.server.inbox import Item
from orchclient.server.models import Answer, Clarification, Review
from orchclient.server.reading import Arrival

OPEN: Final = ("open", "seen")
ANSWERED: Final = "clarification.answered.v1"
SEEN: Final = "clarification.seen.v1"
DECIDED: Final = "review.decided.v1"
TIMEOUT: Final[Mapping[str, str]] = {"kind": "timeout"}


@frozen
class Decision:
    """What somebody decided. ``content_digest`` is that of what was shown; None when that was the content itself."""

    outcome: str
    responder: Mapping[str, Any]
    answers: Sequence[Mapping[str, Any]] | None = None
    comment: str | None = None
    channel: str | None = None
    content_digest: str | None = None
    answered_us: int = 0


class Unanswerable(OrchClientError):
    """A decision that answers something else than what is asked."""


@frozen
class Settled:
    """What became of a decision: whether it was the first, and what is to be put into inboxes."""

    answer_id: str
    is_late: bool
    items: tuple[Item, ...] = ()


# --- What agents say ----------------------------------------------------------------------------------------------


def asked(session: Session, event: Arrival, source_id: int, now_us: int) -> list[Item]:
    """A request came. One that is a question already known is shown once, and answered from the record if it was."""
    data = event.data
    core = content_digest({name: data[name] for name in ("questions", "context", "default") if name in data})
    before = _same_question(session, event, source_id)
    known = _row(session, source_id, event.id)
    if known is not None and known.asked_us:
        return []
    row = (
        source_id,
        event.id,
        before.question_id if before else event.id,
        event.task,
        event.agent,
        data.get("key"),
        data["priority"],
        json_column(data["questions"]),
        json_column(data["context"]),
        json_column(data.get("default")),
        _deadline(data.get("deadline")),
        data["content_digest"],
        core,
        "open",
        event.time_us,
        now_us,
        *(None,) * 6,
    )
    if known is not None:
        return _filled(session, known, event, core)
    insert_new(session, Clarification, [row])
    if before is None or before.answer_id is None or before.state != "answered":
        return []
    return _from_the_record(session, event.id, source_id, before)


def _filled(session: Session, known: Clarification, event: Arrival, core: str) -> list[Item]:
    """The request itself comes after a word about it: it stays withdrawn, or taken."""
    data = event.data
    known.agent_id, known.key, known.priority = event.agent, data.get("key"), data["priority"]
    known.questions, known.context, known.default = data["questions"], data["context"], data.get("default")
    known.deadline_us, known.asked_us = _deadline(data.get("deadline")), event.time_us
    known.content_digest, known.core_digest = data["content_digest"], core
    session.flush()
    return []


def _same_question(session: Session, event: Arrival, source_id: int) -> Clarification | None:
    """An earlier request, of another source, that asks the same: the newest that is open or answered, locked."""
    key = event.data.get("key")
    same = (
        (Clarification.id == event.id) if key is None else ((Clarification.id == event.id) | (Clarification.key == key))
    )
    wanted = (
        select(Clarification)
        .where(Clarification.task_id == event.task, Clarification.source_id != source_id, same)
        .where(Clarification.state.in_([*OPEN, "answered"]), Clarification.asked_us > 0)
        .order_by(Clarification.received_us.desc(), Clarification.source_id.desc())
        .with_for_update()
    )
    return session.scalars(wanted.execution_options(populate_existing=True)).first()


def _from_the_record(session: Session, request_id: str, source_id: int, before: Clarification) -> list[Item]:
    answer = session.get_one(Answer, before.answer_id)
    mine = session.get_one(Clarification, (source_id, request_id))
    mine.state, mine.answer_id, mine.settled_us = "answered", answer.id, before.settled_us
    session.flush()
    shown = select(Clarification.core_digest).where(
        Clarification.question_id == before.question_id, Clarification.content_digest == answer.content_digest
    )
    is_same = mine.core_digest in session.scalars(shown).all()
    digest = mine.content_digest if is_same else answer.content_digest or before.content_digest
    return [_answer_item(mine, answer.id, _decision(answer), digest, is_late=False)]


def withdrawn(session: Session, event: Arrival, source_id: int, now_us: int) -> None:
    """The agent needs no answer any more: the question is struck wherever it is shown, unless it is answered."""
    found = _row_or_place(session, event, source_id, now_us)
    if found.state in OPEN:
        found.state, found.settled_us, found.reason = "withdrawn", now_us, event.data["reason"]
        session.flush()


def taken(session: Session, event: Arrival, source_id: int, now_us: int) -> None:
    """The agent took an answer. One that was given at its host comes with it, and settles the question here too."""
    found = _row_or_place(session, event, source_id, now_us)
    found.taken_id, found.taken_us = event.data["answer_id"], event.time_us
    given = event.data.get("answer")
    if isinstance(given, Mapping) and session.get(Answer, event.data["answer_id"]) is None:
        _record_given(session, event, given, found, now_us)
    if found.state in OPEN:  # an answer that is not known here, as after a backup came back: nobody is asked again
        is_known = session.get(Answer, found.taken_id) is not None
        found.state, found.settled_us, found.answer_id = "answered", now_us, found.taken_id if is_known else None
    session.flush()


def _record_given(
    session: Session, event: Arrival, given: Mapping[str, Any], found: Clarification, now_us: int
) -> None:
    responder = given.get("responder")
    decision = Decision(
        str(given.get("outcome", "answered"))[:32],
        responder if isinstance(responder, Mapping) else {"kind": "policy"},
        given.get("answers"),
        given.get("comment"),
        str(given.get("channel") or "cli")[:64],
        answered_us=_instant_or(given.get("answered_at"), event.time_us),
    )
    is_late = found.state not in OPEN
    _keep(session, "question", found.question_id, found.task_id, event.data["answer_id"], decision, is_late)
    if not is_late:
        state = "expired" if decision.outcome == "expired" else "answered"
        found.state, found.answer_id, found.settled_us = state, event.data["answer_id"], now_us


def submitted(session: Session, event: Arrival, source_id: int, now_us: int) -> None:
    """A result came that waits for a decision."""
    data = event.data
    if not data["review"]:
        return
    result = json_column({"test_results": data["test_results"], "artifacts": data["artifacts"]})
    row = (source_id, event.id, event.task, event.agent, data["pr_url"], data["quality_score"], result)
    insert_new(session, Review, [(*row, "open", event.time_us, now_us, None, None)])


HANDLERS: Final = {
    EventType.CLARIFICATION_REQUESTED: asked,
    EventType.CLARIFICATION_WITHDRAWN: withdrawn,
    EventType.CLARIFICATION_CONSUMED: taken,
    EventType.TASK_COMPLETED: submitted,
}
"""What to do with an event beside its task's state; some give items for inboxes."""


def _row(session: Session, source_id: int, request_id: str) -> Clarification | None:
    wanted = select(Clarification).where(Clarification.source_id == source_id, Clarification.id == request_id)
    return session.scalars(wanted.with_for_update().execution_options(populate_existing=True)).one_or_none()


def _row_or_place(session: Session, event: Arrival, source_id: int, now_us: int) -> Clarification:
    """The request that an event is about, or a place for it: a word about a request may come before it."""
    request_id = event.data["clarification_id"]
    found = _row(session, source_id, request_id)
    if found is not None:
        return found
    before = (
        request_id,
        event.task,
        event.agent,
        None,
        event.priority,
        "[]",
        "{}",
        None,
        None,
        "",
        "",
        "open",
        0,
        now_us,
    )
    insert_new(session, Clarification, [(source_id, request_id, *before, *(None,) * 6)])
    return session.get_one(Clarification, (source_id, request_id))


def _deadline(text: str | None) -> int | None:
    return None if text is None else _instant_or(text, None)


def _instant_or(text: Any, otherwise: Any) -> Any:
    try:
        moment = datetime.fromisoformat(text)
        return microseconds(moment) if moment.tzinfo else otherwise
    except (TypeError, ValueError):
        return otherwise


# --- What people decide -------------------------------------------------------------------------------------------


def settle_question(session: Session, question_id: str, decision: Decision, now_us: int) -> Settled | None:
    """Settle a question, or keep the decision as a late one; None when nobody asked it.

    Raises ``Unanswerable`` when it answers something else than what is asked.
    """
    requests = _locked(session, question_id)
    if not requests:
        return None
    waiting = [request for request in requests if request.state in OPEN]
    shown = (waiting or requests)[-1]
    decision = evolve(decision, content_digest=_checked_digest(shown, decision))
    answer_id, is_late = new_id(now_us), not waiting
    state = "expired" if decision.outcome == "expired" else "answered"
    for request in waiting:
        request.state, request.settled_us, request.answer_id = state, now_us, answer_id
    session.flush()
    _keep(session, "question", question_id, requests[0].task_id, answer_id, decision, is_late)
    items = tuple(
        _answer_item(request, answer_id, decision, _digest_of(request, shown), is_late)
        for request in waiting or [shown]
    )
    return Settled(answer_id, is_late, items)


def _checked_digest(shown: Clarification, decision: Decision) -> str:
    """The digest of what was shown, when the decision fits to it."""
    if decision.content_digest not in (None, shown.content_digest):
        raise Unanswerable("the question is another one by now: look at it again")
    asked_ = {question["id"]: question for question in shown.questions}
    for answer in decision.answers or ():
        question = asked_.get(answer["question_id"])
        if question is None:
            raise Unanswerable(f"there is no question {answer['question_id']!r:.70} to answer")
        strange = set(answer.get("options", ())) - set(question.get("options", answer.get("options", ())))
        if strange:
            raise Unanswerable(f"{min(strange)!r:.70} is none of the options of question {answer['question_id']!r:.70}")
    return shown.content_digest


def _digest_of(request: Clarification, shown: Clarification) -> str:
    """For a request that asks the same its own digest; another deadline is no other content."""
    return request.content_digest if request.core_digest == shown.core_digest else shown.content_digest


def _locked(session: Session, question_id: str) -> list[Clarification]:
    """The requests of a question, locked. Asked for twice: one that joined while we waited is in the second answer."""
    wanted = (
        select(Clarification)
        .where(Clarification.question_id == question_id, Clarification.asked_us > 0)
        .order_by(Clarification.received_us, Clarification.source_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    session.scalars(wanted).all()
    return list(session.scalars(wanted).all())


def settle_review(session: Session, review_id: str, decision: Decision, now_us: int) -> Settled | None:
    """Decide a review, or keep the decision as a late one; None when no result waits under that id."""
    wanted = select(Review).where(Review.id == review_id).order_by(Review.received_us, Review.source_id)
    reviews = session.scalars(wanted.with_for_update().execution_options(populate_existing=True)).all()
    if not reviews:
        return None
    waiting = [review for review in reviews if review.state == "open"]
    answer_id, is_late = new_id(now_us), not waiting
    for review in waiting:
        review.state, review.settled_us, review.answer_id = "decided", now_us, answer_id
    session.flush()
    _keep(session, "review", review_id, reviews[0].task_id, answer_id, decision, is_late)
    items = tuple(_review_item(review, decision, is_late) for review in waiting or reviews[-1:])
    return Settled(answer_id, is_late, items)


def mark_seen(
    session: Session, question_id: str, responder: Mapping[str, Any], channel: str, now_us: int
) -> list[Item]:
    """A person opened a question: told once, the first time."""
    fresh = [request for request in _locked(session, question_id) if request.state == "open"]
    for request in fresh:
        request.state, request.seen_us = "seen", now_us
    session.flush()
    said = {"responder": dict(responder), "channel": channel, "seen_at": rfc3339(now_us)}
    return [
        Item(request.source_id, SEEN, {"task_id": request.task_id, "clarification_id": request.id, **said})
        for request in fresh
    ]


def expire(session: Session, now_us: int) -> list[Item]:
    """Settle the questions whose deadline has passed. Silence is no decision: the agent uses its default, or none."""
    due = select(Clarification.question_id).where(
        Clarification.state.in_(OPEN), Clarification.deadline_us <= now_us, Clarification.asked_us > 0
    )
    items: list[Item] = []
    for question_id in sorted(set(session.scalars(due))):
        requests = [each for each in _locked(session, question_id) if each.state in OPEN]
        # A question that is asked again with a later deadline has that one.
        if all(each.deadline_us is not None and each.deadline_us <= now_us for each in requests):
            settled = settle_question(session, question_id, Decision("expired", TIMEOUT, answered_us=now_us), now_us)
            items += settled.items if settled else ()
    return items


def has_due(session: Session, now_us: int) -> bool:
    """Whether a deadline has passed that nobody settled."""
    due = select(Clarification.id).where(Clarification.state.in_(OPEN), Clarification.deadline_us <= now_us)
    return session.execute(due.where(Clarification.asked_us > 0).limit(1)).first() is not None


def _keep(
    session: Session, kind: str, target: str, task: str, answer_id: str, decision: Decision, is_late: bool
) -> None:
    session.add(
        Answer(
            id=answer_id,
            kind=kind,
            target_id=target,
            task_id=task,
            outcome=decision.outcome,
            answers=decision.answers,
            comment=decision.comment,
            responder=dict(decision.responder),
            channel=decision.channel,
            content_digest=decision.content_digest,
            late=is_late,
            answered_us=decision.answered_us,
        )
    )
    session.flush()


def _decision(answer: Answer) -> Decision:
    return Decision(
        answer.outcome,
        answer.responder,
        answer.answers,
        answer.comment,
        answer.channel,
        answer.content_digest,
        answer.answered_us,
    )


def _answer_item(request: Clarification, answer_id: str, decision: Decision, digest: str, is_late: bool) -> Item:
    said: dict[str, Any] = {
        "task_id": request.task_id,
        "clarification_id": request.id,
        "answer_id": answer_id,
        "outcome": decision.outcome,
        "answers": decision.answers,
        "comment": decision.comment,
        "responder": dict(decision.responder),
        "channel": decision.channel,
        "answered_at": rfc3339(decision.answered_us),
        "late": is_late,
        "content_digest": digest,
    }
    return Item(request.source_id, ANSWERED, {name: value for name, value in said.items() if value is not None})


def _review_item(review: Review, decision: Decision, is_late: bool) -> Item:
    said: dict[str, Any] = {
        "task_id": review.task_id,
        "review_id": review.id,
        "outcome": decision.outcome,
        "comment": decision.comment,
        "responder": dict(decision.responder),
        "channel": decision.channel,
        "decided_at": rfc3339(decision.answered_us),
        "late": is_late,
    }
    return Item(review.source_id, DECIDED, {name: value for name, value in said.items() if value is not None})
