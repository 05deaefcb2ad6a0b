"""What people see and do, as JSON over HTTP: the functions of ``people``, behind a person's token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

from flask import Blueprint, Response, request
from sqlalchemy.orm import Session

from orchclient.core.events import TaskStatus
from orchclient.core.jsontext import encode
from orchclient.core.timestamps import microseconds
from orchclient.server import people, shapes
from orchclient.server.calling import orchestrator, person
from orchclient.server.dismissing import Dismissal
from orchclient.server.inbox import PAGE_BYTES, largest_text
from orchclient.server.people import CancelRequest, Message, TaskFilter
from orchclient.server.questions import Decision, Settled
from orchclient.server.reading import Refused, parsed, without_nul

api = Blueprint("api", __name__, url_prefix="/api")

T = TypeVar("T")
_TEXT: Final = {"type": "string", "maxLength": 16384}
_LINE: Final = {"$ref": "common.json#/$defs/line", "maxLength": 255}
_TASK: Final = {"$ref": "common.json#/$defs/task_id"}
_WHO: Final = {"responder": _LINE, "display": _LINE, "channel": {"$ref": "common.json#/$defs/channel"}}
_ANSWERED: Final = shapes.document("clarification.answered.v1.json")["properties"]
_REVIEWED: Final = shapes.document("review.decided.v1.json")["properties"]
_GIVEN: Final = [outcome for outcome in _ANSWERED["outcome"]["enum"] if outcome != "expired"]
_DECIDED: Final = [outcome for outcome in _REVIEWED["outcome"]["enum"] if outcome != "expired"]

BODIES: Final[Mapping[str, Mapping[str, Any]]] = {
    "answer": {
        "type": "object",
        "required": ["question_id", "outcome"],
        "properties": {
            **_WHO,
            "question_id": _LINE,
            "outcome": {"enum": _GIVEN},
            "answers": _ANSWERED["answers"],
            "comment": _TEXT,
            "content_digest": _ANSWERED["content_digest"],
        },
        "if": {"properties": {"outcome": {"const": "answered"}}, "required": ["outcome"]},
        "then": {"required": ["answers"], "properties": {"answers": {"minItems": 1}}},
    },
    "decision": {
        "type": "object",
        "required": ["review_id", "outcome"],
        "properties": {**_WHO, "review_id": _LINE, "outcome": {"enum": _DECIDED}, "comment": _TEXT},
    },
    "seen": {"type": "object", "required": ["question_id"], "properties": {**_WHO, "question_id": _LINE}},
    "cancellation": {
        "type": "object",
        "required": ["task_id"],
        "properties": {**_WHO, "task_id": _TASK, "reason": {"type": "string", "maxLength": 4096}},
    },
    "dismissal": {
        "type": "object",
        "required": ["task_id", "error_id"],
        "properties": {
            **_WHO,
            "task_id": _TASK,
            "error_id": _LINE,
            "reason": {"type": "string", "maxLength": 4096},
        },
    },
    "message": {
        "type": "object",
        "required": ["task_id", "text"],
        "properties": {
            **_WHO,
            "task_id": _TASK,
            "text": {"type": "string", "minLength": 1, "maxLength": 16384},
            "urgent": {"type": "boolean"},
        },
    },
}
"""The schemas of the bodies that are taken here."""

_CHECKS: Final = {name: shapes.compiled(schema) for name, schema in BODIES.items()}


# --- Looking ------------------------------------------------------------------------------------------------------


@api.get("/needs")
def needs() -> Response:
    """What needs a person now."""
    orchestrator().expire()
    now_us = orchestrator().now_us()
    return _shown(lambda session: people.needs(session, now_us))


@api.get("/tasks")
def tasks() -> Response:
    """Tasks by a filter: ``status``, ``agent``, ``q``, ``limit``; after the last one of a page by ``before``, ``task``.

    ``before`` is its ``received_at``, ``task`` its id.
    """
    given = request.args
    status = given.get("status") or None
    if status is not None and status not in set(TaskStatus):
        raise Refused(400, f"status must be one of {', '.join(TaskStatus)}")
    wanted = TaskFilter(
        status,
        _text_of("agent"),
        _text_of("q"),
        _instant("before"),
        _text_of("task") or "",
        _number("limit", 50) or 50,
    )
    return _shown(lambda session: people.tasks(session, wanted))


@api.get("/task")
def task() -> Response:
    """A task by its ``id``, with its questions, reviews, incidents and history."""
    return _shown(lambda session: people.task_page(session, _id()), "task")


@api.get("/question")
def question() -> Response:
    """A question by its ``id``."""
    orchestrator().expire()
    return _shown(lambda session: people.question(session, _id()), "question")


@api.get("/review")
def review() -> Response:
    """A review by its ``id``."""
    return _shown(lambda session: people.review(session, _id()), "review")


@api.get("/event")
def event() -> Response:
    """The JSON text of an event, by its ``place`` in a task's history."""
    person()
    with orchestrator().reading() as session:
        text = people.event_text(session, request.args.get("place", ""))
    if text is None:
        raise Refused(404, "no event at this place, or not any more")
    return Response(text, content_type="application/cloudevents+json")


@api.get("/agents")
def agents() -> Response:
    """The agents that were heard of."""
    return _shown(people.agents)


# --- Acting -------------------------------------------------------------------------------------------------------


@api.post("/answers")
def answer() -> Response:
    """Answer a question."""
    who, body = _responder("answer")
    decision = _decision(who, body)
    refuse_oversized(body)
    return _told(orchestrator().answer(body["question_id"], decision), "question")


@api.post("/decisions")
def decide() -> Response:
    """Decide a review."""
    who, body = _responder("decision")
    return _told(orchestrator().decide(body["review_id"], _decision(who, body)), "review")


@api.post("/seen")
def seen() -> Response:
    """A person looks at a question."""
    who, body = _responder("seen")
    orchestrator().see(body["question_id"], who, body.get("channel", "api"))
    return Response(status=204)


@api.post("/cancellations")
def cancel() -> Response:
    """Ask the agent of a task to stop."""
    who, body = _responder("cancellation")
    request_ = CancelRequest(body["task_id"], who, body.get("reason"), body.get("channel", "api"))
    return _put(orchestrator().cancel(request_))


@api.post("/messages")
def message() -> Response:
    """Say something to the agent of a task."""
    who, body = _responder("message")
    said = Message(body["task_id"], body["text"], who, body.get("urgent", False), body.get("channel", "api"))
    return _put(orchestrator().message(said))


@api.post("/dismissals")
def dismiss() -> Response:
    """Set an error aside."""
    who, body = _responder("dismissal")
    reason, channel = body.get("reason"), body.get("channel", "api")
    return _put(orchestrator().dismiss(Dismissal(body["task_id"], body["error_id"], who, reason, channel)), "error")


def _decision(who: Mapping[str, Any], body: Mapping[str, Any]) -> Decision:
    return Decision(
        body["outcome"],
        who,
        body.get("answers"),
        body.get("comment"),
        body.get("channel", "api"),
        body.get("content_digest"),
        orchestrator().now_us(),
    )


def _responder(kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Who acts, and the body. The name of a token is who has it; only without one may a body say who it is."""
    caller = person()
    if request.mimetype != "application/json":
        raise Refused(415, "the content type must be application/json")
    body = without_nul(parsed(request.get_data(cache=False)))
    trouble = _CHECKS[kind](body) or ("" if _is_utf8(body) else ": contains a lone surrogate")
    if trouble:
        raise Refused(400, f"${trouble}"[:200])
    who = {"kind": "human", "id": (caller.name or body.get("responder") or "local")[:255]}
    return who | ({"display": body["display"]} if "display" in body else {}), body


def _is_utf8(value: Any) -> bool:
    try:
        encode(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def refuse_oversized(body: Mapping[str, Any]) -> None:
    """Raises ``Refused`` when an answer cannot reach an agent."""
    # An item must fit into a page of the inbox; the rest of it, names and digests, is below 4 KiB.
    if largest_text(body) > PAGE_BYTES - 4_096:
        raise Refused(413, "the answer is too long for the agent's inbox: shorten the texts or the comment")


def _told(settled: Settled | None, what: str) -> Response:
    if settled is None:
        raise Refused(404, f"no such {what}")
    return _json({"answer_id": settled.answer_id, "late": settled.is_late})


def _put(is_known: bool, what: str = "task") -> Response:
    if not is_known:
        raise Refused(404, f"no such {what}")
    return Response(status=204)


# --- Values -------------------------------------------------------------------------------------------------------


def _shown(look: Callable[[Session], Any], what: str = "") -> Response:
    person()
    with orchestrator().reading() as session:
        view = look(session)
    if view is None:
        raise Refused(404, f"no such {what}")
    return _json(people.as_json(view))


def _id() -> str:
    return _text_of("id") or ""


def _text_of(name: str) -> str | None:
    text = request.args.get(name, "").replace("\x00", "")
    return text if 0 < len(text) <= 256 else None


def _instant(name: str) -> int | None:
    text = _text_of(name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return microseconds(moment)
    except (ValueError, TypeError):
        raise Refused(400, f"{name} must be an instant as RFC 3339 writes it, with its offset") from None


def _number(name: str, otherwise: int) -> int:
    text = request.args.get(name)
    if text is None:
        return otherwise
    if not (text.isascii() and text.isdecimal() and len(text) <= 17):
        raise Refused(400, f"{name} must be a number")
    return int(text)


def _json(value: Any) -> Response:
    return Response(encode(value), content_type="application/json")
