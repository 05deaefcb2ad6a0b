"""What people do by the forms of the page: answer, decide, ask an agent to stop, and say something to it."""

from __future__ import annotations

from typing import Any

from flask import redirect, request, url_for

from orchclient.server import people
from orchclient.server.calling import orchestrator, person
from orchclient.server.dismissing import Dismissal
from orchclient.server.page import entering
from orchclient.server.page.blueprint import look, not_found, page
from orchclient.server.page.looking import CHANNEL, error_shown, question_shown, responder, review_shown, task_shown
from orchclient.server.people import CancelRequest, Message, QuestionView
from orchclient.server.people_api import refuse_oversized
from orchclient.server.questions import Decision, Unanswerable
from orchclient.server.reading import Refused


@page.post("/q/<question_id>")
def answer(question_id: str) -> Any:
    """Answer a question, or say that one cannot."""
    person()
    orchestrator().expire()
    found = look(lambda session: people.question(session, question_id))
    if found is None:
        raise not_found("question")
    decision, wrong = _decision(found)
    if not wrong and not _is_repeated(found.answers, decision):
        wrong = _sent(found, decision)
    if wrong:
        now = look(lambda session: people.question(session, question_id)) or found
        return question_shown(now, 400, given=request.form, wrong=wrong)
    return redirect(url_for("page.question", question_id=question_id), 303)


def _decision(found: QuestionView) -> tuple[Decision, dict[str, str]]:
    form, now_us = request.form, orchestrator().now_us()
    shown = form.get("digest") or None
    if form.get("outcome") == "declined":
        words = entering.comment(form)
        wrong = {"decline": f"At most {entering.MOST_TEXT:,} characters."} if _is_long(words) else {}
        return Decision("declined", responder(), None, words, CHANNEL, shown, now_us), wrong
    entered = entering.answers(form, found.questions)
    decision = Decision("answered", responder(), entered.answers, None, CHANNEL, shown, now_us)
    return decision, dict(entered.wrong)


def _sent(found: QuestionView, decision: Decision) -> dict[str, str]:
    """Send it; why it was not, otherwise."""
    try:
        refuse_oversized({"answers": decision.answers, "comment": decision.comment})
        orchestrator().answer(found.id, decision)
    except (Unanswerable, Refused) as error:
        return {"": f"Nothing was sent: {error}."}
    return {}


@page.post("/r/<review_id>")
def decide(review_id: str) -> Any:
    """Decide a review."""
    person()
    found = look(lambda session: people.review(session, review_id))
    if found is None:
        raise not_found("review")
    outcome, words = request.form.get("outcome", ""), entering.comment(request.form)
    wrong = _wrong_review(outcome, words)
    if wrong:
        return review_shown(found, 400, given=request.form, wrong=wrong)
    decision = Decision(outcome, responder(), None, words, CHANNEL, None, orchestrator().now_us())
    if not _is_repeated(found.answers, decision):
        orchestrator().decide(review_id, decision)
    return redirect(url_for("page.review", review_id=review_id), 303)


def _wrong_review(outcome: str, words: str | None) -> str:
    if outcome not in ("approved", "changes_requested", "rejected", "declined"):
        return "Choose a decision."
    if outcome == "changes_requested" and not words:
        return "Say which changes: the agent goes on with your comment."
    return f"At most {entering.MOST_TEXT:,} characters in a comment." if _is_long(words) else ""


@page.post("/error")
def dismiss() -> Any:
    """Set an error aside."""
    person()
    task_id, error_id, reason = request.form.get("task", ""), request.form.get("id", ""), entering.comment(request.form)
    if reason and len(reason) > 4096:
        return error_shown(task_id, error_id, 400, wrong="At most 4,096 characters.", given=reason)
    if not orchestrator().dismiss(Dismissal(task_id, error_id, responder(), reason, CHANNEL)):
        raise not_found("error")
    return redirect(url_for("page.error", task=task_id, id=error_id), 303)


@page.post("/cancel")
def cancel() -> Any:
    """Ask the agent of a task to stop."""
    person()
    task_id, reason = request.form.get("task", ""), entering.comment(request.form)
    if reason and len(reason) > 4096:
        return task_shown(task_id, status=400, wrong={"cancel": "At most 4,096 characters."}, given=request.form)
    if not orchestrator().cancel(CancelRequest(task_id, responder(), reason, CHANNEL)):
        raise not_found("task")
    return redirect(url_for("page.task", id=task_id, told="cancel"), 303)


@page.post("/message")
def message() -> Any:
    """Say something to the agent of a task."""
    person()
    task_id, words = request.form.get("task", ""), entering.comment(request.form)
    wrong = "Write a message, then send it." if not words else ""
    wrong = f"At most {entering.MOST_TEXT:,} characters." if _is_long(words) else wrong
    if wrong or words is None:
        return task_shown(task_id, status=400, wrong={"message": wrong}, given=request.form)
    said = Message(task_id, words, responder(), "urgent" in request.form, CHANNEL)
    if not orchestrator().message(said):
        raise not_found("task")
    return redirect(url_for("page.task", id=task_id, told="message"), 303)


def _is_repeated(answers: Any, decision: Decision) -> bool:
    """Whether the same person has said the same already: a form sent twice says it once."""
    return any(
        (each.outcome, each.answers or None, each.comment, each.responder)
        == (decision.outcome, decision.answers or None, decision.comment, decision.responder)
        for each in answers
    )


def _is_long(words: str | None) -> bool:
    return words is not None and len(words) > entering.MOST_TEXT
