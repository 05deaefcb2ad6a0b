"""What people look at: what needs them, tasks, questions, reviews, errors, agents, health."""

from __future__ import annotations

import time
from typing import Any, Final

from flask import Response, current_app, g, request

from orchclient.core.events import TaskStatus
from orchclient.server import people
from orchclient.server.access import Caller
from orchclient.server.calling import orchestrator
from orchclient.server.page import urgency
from orchclient.server.page.blueprint import look, not_found, page, shown
from orchclient.server.people import IncidentView, QuestionView, ReviewView, TaskFilter, TaskView

CHANNEL: Final = "web"
TASKS_SHOWN: Final = 50
LINES_SHOWN: Final = 100


@page.get("/")
def home() -> Response:
    """What needs a person now."""
    served = orchestrator()
    served.expire()
    now_us = served.now_us()
    needs, counts = look(lambda session: (people.needs(session, now_us), people.counts(session)))
    queue = urgency.queue(needs, now_us)
    url = request.host_url.rstrip("/")
    return shown("home.html", queue=queue, kinds=KINDS, alive=needs.agents_alive, counts=counts, url=url)


KINDS: Final = {QuestionView: "question", ReviewView: "review", IncidentView: "error"}
"""What a template calls each of them."""


@page.get("/tasks")
def tasks() -> Response:
    """Tasks by a filter that stands in the address."""
    before = _given("before")
    wanted = TaskFilter(
        status if (status := _given("status")) in set(TaskStatus) else None,
        _given("agent") or None,
        _given("q") or None,
        int(before) if before.isascii() and before.isdecimal() and len(before) <= 17 else None,
        _given("task"),
        TASKS_SHOWN + 1,
    )
    found, counts = look(lambda session: (people.tasks(session, wanted), people.counts(session)))
    given = {"status": wanted.status, "agent": wanted.agent_id, "q": wanted.text}
    kept = {name: value for name, value in given.items() if value}
    older = _older(found)
    return shown(
        "tasks.html",
        tasks=found[:TASKS_SHOWN],
        older=kept | older if older else {},
        wanted=wanted,
        kept=kept,
        statuses=list(TaskStatus),
        counts=counts,
    )


def _older(found: list[TaskView]) -> dict[str, Any]:
    """Where the next page begins; empty when there is none."""
    last = found[TASKS_SHOWN - 1] if len(found) > TASKS_SHOWN else None
    return {"before": last.received_us, "task": last.task_id} if last else {}


@page.get("/task")
def task() -> Response:
    """A task: where it stands, what is open, and its history."""
    orchestrator().expire()
    task_id, before = request.args.get("id", ""), _given("before") or None
    return task_shown(task_id, before)


def task_shown(task_id: str, before: str | None = None, status: int = 200, **values: Any) -> Response:
    """The page of a task, after a form that was not good with its values."""
    found = look(lambda session: people.task_page(session, task_id, before=before, most_logs=LINES_SHOWN + 1))
    if found is None:
        raise not_found("task")
    lines = found.logs[:LINES_SHOWN]
    older = lines[-1].place if len(found.logs) > LINES_SHOWN else ""
    told = request.args.get("told", "")
    return shown(
        "task.html", status, **{"it": found, "lines": lines, "before": before, "older": older, "told": told, **values}
    )


@page.get("/q/<question_id>")
def question(question_id: str) -> Response:
    """A question: links in chats lead here."""
    orchestrator().expire()
    found = _question(question_id)
    if found.state == "open" and _is_a_look():
        orchestrator().see(found.id, responder(), CHANNEL)
    return question_shown(found)


def _question(question_id: str) -> QuestionView:
    found: QuestionView | None = look(lambda session: people.question(session, question_id))
    if found is None:
        raise not_found("question")
    return found


def _is_a_look() -> bool:
    """Whether a person asks, and not a browser ahead of its person."""
    return request.method == "GET" and "prefetch" not in request.headers.get("Sec-Purpose", "")


def question_shown(found: QuestionView, status: int = 200, **values: Any) -> Response:
    """The page of a question, after a form that was not good with what was entered."""
    is_open = found.state in ("open", "seen")
    return shown("question.html", status, **{"it": found, "is_open": is_open, "given": {}, "wrong": {}, **values})


@page.get("/r/<review_id>")
def review(review_id: str) -> Response:
    """A result that waits for a decision: links in chats lead here."""
    found = look(lambda session: people.review(session, review_id))
    if found is None:
        raise not_found("review")
    return review_shown(found)


def review_shown(found: ReviewView, status: int = 200, **values: Any) -> Response:
    """The page of a review, after a form that was not good with what was entered."""
    return shown(
        "review.html", status, **{"it": found, "is_open": found.state == "open", "given": {}, "wrong": "", **values}
    )


@page.get("/error")
def error() -> Response:
    """An error for which an agent called for help."""
    return error_shown(request.args.get("task", ""), request.args.get("id", ""))


def error_shown(task_id: str, incident_id: str, status: int = 200, **values: Any) -> Response:
    """The page of an error, after a form that was not good with what was entered."""
    found = look(lambda session: people.error(session, task_id, incident_id))
    if found is None:
        raise not_found("error")
    return shown("error.html", status, **{"it": found.incident, "newest": found.newest, "wrong": "", **values})


@page.get("/event")
def event() -> Response:
    """An event as it came, as plain text."""
    text = look(lambda session: people.event_text(session, _given("place")))
    if text is None:
        raise not_found("event")
    return Response(text, content_type="text/plain; charset=utf-8")


@page.get("/agents")
def agents() -> Response:
    """Agents and their outboxes."""
    found, sources = look(lambda session: (people.agents(session), people.sources(session)))
    now_us = orchestrator().now_us()
    return shown("agents.html", agents=found, sources=sources, alive_since_us=now_us - people.ALIVE_US)


@page.get("/health")
def health() -> Response:
    """How the orchestrator is."""
    begun = time.monotonic()
    counts, database = look(lambda session: (people.counts(session), session.get_bind().dialect.name))
    took_ms = (time.monotonic() - begun) * 1000
    requests = current_app.extensions["orchclient-counters"].requests.copy()
    failed = sum(count for (_, status), count in requests.items() if status >= 500)
    return shown(
        "health.html",
        counts=counts,
        database=database,
        took_ms=took_ms,
        polls=orchestrator().bell.waiting,
        requests=sum(requests.values()),
        failed=failed,
    )


def responder() -> dict[str, Any]:
    """Who acts, as an agent is told: the name of the token; without any token whoever is at this machine."""
    caller: Caller = g.caller
    if caller.name is not None:
        return {"kind": "human", "id": caller.name[:255]}
    return {"kind": "human", "id": "local", "display": "someone at the orchestrator's machine"}


def _given(name: str) -> str:
    text = request.args.get(name, "").replace("\x00", "")
    return text if len(text) <= 256 else ""
