"""What people see and do, as plain functions over a session: what needs them, tasks, timelines, agents.

The page and the JSON interface are made of these. They return values, never rows that hang on a session.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import asdict, frozen
from sqlalchemy import ColumnElement, and_, func, or_, select, tuple_
from sqlalchemy.orm import Session

from orchclient.core.envelope import TYPE_PREFIX
from orchclient.core.events import EventType
from orchclient.core.timestamps import rfc3339
from orchclient.server import spans
from orchclient.server.dismissing import FROM_PEOPLE
from orchclient.server.inbox import Item
from orchclient.server.models import (
    Agent,
    Answer,
    Clarification,
    Event,
    Inbox,
    InboxItem,
    Incident,
    Log,
    Review,
    Source,
    Span,
    Task,
)
from orchclient.server.questions import DECIDED, OPEN

CANCEL: Final = "task.cancel_requested.v1"
MESSAGE: Final = "task.message.v1"
MOST_ROWS: Final = 200
MOST_GAPS: Final = 5
CALLS: Final = ("critical", "high")
"""Priorities of errors that call for a person."""
_PLACE: Final = re.compile(r"([0-9]{1,18})-([0-9]{1,18})\Z")


# --- What is shown ------------------------------------------------------------------------------------------------


@frozen
class AnswerView:
    """A decision, as it was given."""

    id: str
    outcome: str
    answers: Sequence[Mapping[str, Any]] | None
    comment: str | None
    responder: Mapping[str, Any]
    channel: str | None
    late: bool
    answered_us: int


@frozen
class QuestionView:
    """A question as a person is asked it. ``is_taken`` says that the agent has picked the answer up."""

    id: str
    task_id: str
    agent_id: str
    state: str
    priority: str
    questions: Sequence[Mapping[str, Any]]
    context: Mapping[str, Any]
    default: Any
    deadline_us: int | None
    asked_us: int
    seen_us: int | None
    settled_us: int | None
    content_digest: str
    reason: str | None
    is_taken: bool
    taken_us: int | None
    answers: Sequence[AnswerView] = ()


@frozen
class ReviewView:
    """A result that waits, or waited, for a decision. ``is_taken`` says that its agent's outbox has that."""

    id: str
    task_id: str
    agent_id: str
    state: str
    pr_url: str | None
    quality_score: float | None
    result: Mapping[str, Any]
    asked_us: int
    settled_us: int | None
    is_taken: bool = False
    answers: Sequence[AnswerView] = ()


@frozen
class IncidentView:
    """An error for which an agent called for help."""

    task_id: str
    id: str
    key: str | None
    agent_id: str
    error_type: str
    error_message: str
    priority: str
    fatal: bool
    count: int
    state: str
    first_us: int
    last_us: int
    note: str | None
    dismissed_us: int | None = None
    dismissed_by: Mapping[str, Any] | None = None


@frozen
class TaskView:
    """A task as its agents last described it."""

    task_id: str
    agent_id: str
    status: str
    progress_percentage: float | None
    current_step: str | None
    metadata: Mapping[str, Any]
    attempt: int | None
    pr_url: str | None
    quality_score: float | None
    result: Mapping[str, Any] | None
    created_us: int
    updated_us: int
    received_us: int
    completed_us: int | None


@frozen
class LogView:
    """One line of a task's history. ``place`` names it: the source's number and the sequence.

    ``is_event`` is false for what people did here.
    """

    place: str
    agent_id: str
    level: str
    message: str
    metadata: Mapping[str, Any]
    time_us: int
    received_us: int
    is_event: bool = True


@frozen
class AgentView:
    """An agent, and what was last said of its outbox, by it or by another agent of the same outbox."""

    agent_id: str
    first_seen_us: int
    last_seen_us: int
    pending: int | None
    dead: int | None
    oldest_age_s: float | None
    reported_us: int | None
    inbox_pending: int


@frozen
class Needs:
    """What needs a person now."""

    questions: Sequence[QuestionView]
    reviews: Sequence[ReviewView]
    incidents: Sequence[IncidentView]
    agents_alive: int


@frozen
class TaskPage:
    """A task with everything about it."""

    task: TaskView
    questions: Sequence[QuestionView]
    reviews: Sequence[ReviewView]
    incidents: Sequence[IncidentView]
    logs: Sequence[LogView]


@frozen
class ErrorView:
    """An incident, and its newest error as the agent told it: None when that is beyond the retention."""

    incident: IncidentView
    newest: Mapping[str, Any] | None


@frozen
class SourceView:
    """An outbox, by the identity under which it sends, and what is missing of it."""

    source: str
    owner: str | None
    first_seen_us: int
    last_seen_us: int
    highest: int
    missing: int
    gaps: Sequence[Sequence[int]]
    inbox_pending: int


@frozen
class TaskFilter:
    """Which tasks, newest word first; a page goes on behind a task that was ``received_us`` and has that id."""

    status: str | None = None
    agent_id: str | None = None
    text: str | None = None
    before_us: int | None = None
    before_task: str = ""
    limit: int = 50


ALIVE_US: Final = 120 * 1_000_000


def needs(session: Session, now_us: int) -> Needs:
    """Open questions, the soonest deadline first; open reviews; errors that nobody resolved, the worst first."""
    asked = select(Clarification).where(Clarification.state.in_(OPEN), Clarification.asked_us > 0)
    asked = asked.order_by(func.coalesce(Clarification.deadline_us, 2**62), Clarification.received_us)
    waiting = select(Review).where(Review.state == "open").order_by(Review.received_us)
    alive = select(func.count()).select_from(Agent).where(Agent.last_seen_us > now_us - ALIVE_US)
    return Needs(
        _shown_once(session, session.scalars(asked.limit(MOST_ROWS)).all()),
        _reviews(session, session.scalars(waiting.limit(MOST_ROWS)).all()),
        _incidents(session, Incident.state == "open"),
        session.execute(alive).scalar_one(),
    )


def question(session: Session, question_id: str) -> QuestionView | None:
    """One question with every answer given to it, the first one first."""
    rows = select(Clarification).where(Clarification.question_id == question_id, Clarification.asked_us > 0)
    found = _shown_once(session, session.scalars(rows.order_by(Clarification.received_us)).all())
    return found[0] if found else None


def review(session: Session, review_id: str) -> ReviewView | None:
    """One review with every decision on it."""
    found = _reviews(session, session.scalars(select(Review).where(Review.id == review_id).limit(1)).all())
    return found[0] if found else None


def tasks(session: Session, wanted: TaskFilter) -> list[TaskView]:
    """Tasks by a filter, the one that was heard of last first."""
    rows = select(Task)
    if wanted.status:
        rows = rows.where(Task.status == wanted.status)
    if wanted.agent_id:
        rows = rows.where(Task.agent_id == wanted.agent_id)
    if wanted.text:
        rows = rows.where(or_(_contains(Task.task_id, wanted.text), _contains(Task.current_step, wanted.text)))
    if wanted.before_us is not None:
        # Tasks of one batch were received at one instant.
        is_next = and_(Task.received_us == wanted.before_us, Task.task_id > wanted.before_task)
        rows = rows.where(or_(Task.received_us < wanted.before_us, is_next))
    limit = min(max(wanted.limit, 1), MOST_ROWS)
    rows = rows.order_by(Task.received_us.desc(), Task.task_id).limit(limit)
    return [_task(task) for task in session.scalars(rows)]


def _contains(column: Any, text: str) -> ColumnElement[bool]:
    found: ColumnElement[bool] = column.contains(text, autoescape=True)
    return found


def task_page(
    session: Session, task_id: str, *, before: str | None = None, most_logs: int = MOST_ROWS
) -> TaskPage | None:
    """A task and its history, newest first; older than the line at the place ``before``."""
    task = session.get(Task, task_id)
    if task is None:
        return None
    asked = select(Clarification).where(Clarification.task_id == task_id, Clarification.asked_us > 0)
    decided = select(Review).where(Review.task_id == task_id).order_by(Review.received_us.desc())
    return TaskPage(
        _task(task),
        _shown_once(session, session.scalars(asked.order_by(Clarification.received_us.desc()).limit(MOST_ROWS)).all()),
        _reviews(session, session.scalars(decided.limit(MOST_ROWS)).all()),
        _incidents(session, Incident.task_id == task_id),
        _history(session, task_id, before, most_logs),
    )


def _history(session: Session, task_id: str, before: str | None, most: int) -> list[LogView]:
    order = (Log.received_us, Log.source_id, Log.sequence)
    lines = select(Log).where(Log.task_id == task_id)
    if before is not None:
        place = _place(before)
        last = None if place is None else session.get(Log, place)
        if last is None:
            return []
        lines = lines.where(tuple_(*order) < tuple_(last.received_us, last.source_id, last.sequence))
    return [_log(line) for line in session.scalars(lines.order_by(*(each.desc() for each in order)).limit(most))]


def error(session: Session, task_id: str, incident_id: str) -> ErrorView | None:
    """An incident by its task and the id of its first error."""
    found = _incidents(session, and_(Incident.task_id == task_id, Incident.id == incident_id))
    return ErrorView(found[0], _newest_error(session, found[0])) if found else None


def _newest_error(session: Session, incident: IncidentView) -> Mapping[str, Any] | None:
    """Looked for among the newest errors of its task, for incidents have no index into events."""
    places = select(Log.source_id, Log.sequence).where(
        Log.task_id == incident.task_id, Log.level.in_(("error", "critical"))
    )
    places = places.order_by(Log.received_us.desc(), Log.source_id.desc(), Log.sequence.desc()).limit(MOST_ROWS)
    wanted = select(Event.body).where(
        tuple_(Event.source_id, Event.sequence).in_(session.execute(places).all()),
        Event.type == TYPE_PREFIX + EventType.ERROR_ESCALATED,
    )
    for body in session.scalars(wanted.order_by(Event.received_us.desc(), Event.sequence.desc())):
        event = json.loads(body)
        data = event["data"]
        is_same_key = incident.key is not None and data.get("dedup_key") == incident.key
        if data.get("first_id", event["id"]) == incident.id or is_same_key:
            return dict(data)
    return None


def event_text(session: Session, place: str) -> str | None:
    """The JSON text of an event by its place in a task's history."""
    found = _place(place)
    if found is None:
        return None
    wanted = select(Event.body).where(Event.source_id == found[0], Event.sequence == found[1])
    return session.scalars(wanted).one_or_none()


def arrivals(session: Session) -> list[str]:
    """The ids of all events that are held, in the order in which they came."""
    return list(session.scalars(select(Event.id).order_by(Event.received_us, Event.source_id, Event.sequence)))


def _place(text: str) -> tuple[int, int] | None:
    """The source's number and the sequence that a place is."""
    match = _PLACE.match(text)
    return None if match is None else (int(match[1]), int(match[2]))


def agents(session: Session) -> list[AgentView]:
    """Agents, the one that was heard of last first."""
    rows = select(Agent, func.coalesce(Inbox.last - Inbox.acknowledged, 0))
    rows = rows.outerjoin(Inbox, Inbox.source_id == Agent.source_id).order_by(Agent.last_seen_us.desc())
    found = session.execute(rows.limit(MOST_ROWS)).all()
    told = {agent.source_id: agent for agent, _ in sorted(found, key=lambda row: row[0].reported_us or 0)}
    return [_agent(agent, told[agent.source_id], waiting) for agent, waiting in found]


def _agent(agent: Agent, teller: Agent, waiting: int) -> AgentView:
    """``teller`` is the agent that told last of their outbox: the process that delivers does, for all of them."""
    return AgentView(
        agent.agent_id,
        agent.first_seen_us,
        agent.last_seen_us,
        teller.pending,
        teller.dead,
        teller.oldest_age_s,
        teller.reported_us,
        waiting,
    )


def sources(session: Session) -> list[SourceView]:
    """Outboxes, the one that was heard of last first, each with its lowest gaps."""
    rows = select(Source, func.coalesce(Inbox.last - Inbox.acknowledged, 0))
    rows = rows.outerjoin(Inbox, Inbox.source_id == Source.id).order_by(Source.last_seen_us.desc()).limit(MOST_ROWS)
    found = session.execute(rows).all()
    held = select(Span.source_id, func.sum(Span.last - Span.first + 1)).group_by(Span.source_id)
    held = held.where(Span.source_id.in_([source.id for source, _ in found]))
    counted = {row[0]: int(row[1]) for row in session.execute(held)}
    return [_source(session, source, source.highest - counted.get(source.id, 0), waiting) for source, waiting in found]


def _source(session: Session, row: Source, missing: int, waiting: int) -> SourceView:
    gaps: Any = spans.report(session, row.name)["gaps"] if missing else []
    return SourceView(
        row.name, row.owner, row.first_seen_us, row.last_seen_us, row.highest, missing, gaps[:MOST_GAPS], waiting
    )


def counts(session: Session) -> dict[str, Any]:
    """How much of what there is, for metrics and the page on health."""
    by_status = select(Task.status, func.count()).group_by(Task.status)
    waiting = select(func.count(), func.min(Clarification.asked_us)).where(
        Clarification.state.in_(OPEN), Clarification.asked_us > 0
    )
    open_questions, oldest_us = session.execute(waiting).one()
    unread = select(func.coalesce(func.sum(Inbox.last - Inbox.acknowledged), 0))
    return {
        "tasks": {row[0]: row[1] for row in session.execute(by_status)},
        "questions_open": open_questions,
        "oldest_question_us": oldest_us,
        "reviews_open": _count(session, Review, Review.state == "open"),
        "incidents_open": _count(session, Incident, Incident.state == "open"),
        "inbox_pending": int(session.execute(unread).scalar_one()),
        "agents": _count(session, Agent),
        "sources": _count(session, Source),
    }


def waiting(session: Session) -> int:
    """How many things need a person: open questions and reviews, and errors that call for help."""
    asked = select(func.count(func.distinct(Clarification.question_id)))
    asked = asked.where(Clarification.state.in_(OPEN), Clarification.asked_us > 0)
    reviews = select(func.count(func.distinct(Review.id))).where(Review.state == "open")
    calls = _count(session, Incident, Incident.state == "open", Incident.priority.in_(CALLS), Incident.error_type != "")
    return int(session.execute(asked).scalar_one()) + int(session.execute(reviews).scalar_one()) + calls


def is_answering(session: Session) -> bool:
    """Whether the database answers; raises when it does not."""
    return bool(session.execute(select(1)).scalar_one())


def _count(session: Session, model: Any, *which: ColumnElement[bool]) -> int:
    return session.execute(select(func.count()).select_from(model).where(*which)).scalar_one()


# --- What is said to an agent -------------------------------------------------------------------------------------


@frozen
class CancelRequest:
    """Please stop this task."""

    task_id: str
    requested_by: Mapping[str, Any]
    reason: str | None = None
    channel: str | None = None


@frozen
class Message:
    """A word to the agent of a task."""

    task_id: str
    text: str
    sent_by: Mapping[str, Any]
    urgent: bool = False
    channel: str | None = None


def cancel(session: Session, request: CancelRequest, now_us: int) -> list[Item]:
    """What to put into the inbox of the outbox that last spoke of the task; nothing when no such task is known."""
    said = {"reason": request.reason, "requested_by": request.requested_by, "requested_at": rfc3339(now_us)}
    return _to_task(session, CANCEL, request.task_id, said | {"channel": request.channel})


def message(session: Session, said: Message, now_us: int) -> list[Item]:
    """What to put into the inbox of the outbox that last spoke of the task; nothing when no such task is known."""
    members = {"text": said.text, "urgent": said.urgent, "sent_by": said.sent_by, "sent_at": rfc3339(now_us)}
    return _to_task(session, MESSAGE, said.task_id, members | {"channel": said.channel})


def _to_task(session: Session, kind: str, task_id: str, members: Mapping[str, Any]) -> list[Item]:
    task = session.get(Task, task_id)
    if task is None:
        return []
    given = {name: value for name, value in members.items() if value is not None}
    return [Item(task.source_id, kind, {"task_id": task_id, **given})]


# --- Rows as values -----------------------------------------------------------------------------------------------


def _shown_once(session: Session, rows: Sequence[Clarification]) -> list[QuestionView]:
    """One view for each question, whichever outboxes asked it: the newest request is the one that counts."""
    newest: dict[str, Clarification] = {}
    for row in rows:
        before = newest.get(row.question_id)
        newest[row.question_id] = row if before is None or row.received_us >= before.received_us else before
    given = _answers(session, "question", list(newest))
    return [_question(row, given.get(question_id, ())) for question_id, row in newest.items()]


def _answers(session: Session, kind: str, targets: Sequence[str]) -> dict[str, list[AnswerView]]:
    found: dict[str, list[AnswerView]] = {}
    wanted = select(Answer).where(Answer.kind == kind, Answer.target_id.in_(targets))
    for answer in session.scalars(wanted.order_by(Answer.late, Answer.id)) if targets else ():
        view = AnswerView(
            answer.id,
            answer.outcome,
            answer.answers,
            answer.comment,
            answer.responder,
            answer.channel,
            answer.late,
            answer.answered_us,
        )
        found.setdefault(answer.target_id, []).append(view)
    return found


def _question(row: Clarification, answers: Sequence[AnswerView]) -> QuestionView:
    return QuestionView(
        id=row.question_id,
        task_id=row.task_id,
        agent_id=row.agent_id,
        state=row.state,
        priority=row.priority,
        questions=row.questions,
        context=row.context,
        default=row.default,
        deadline_us=row.deadline_us,
        asked_us=row.asked_us,
        seen_us=row.seen_us,
        settled_us=row.settled_us,
        content_digest=row.content_digest,
        reason=row.reason,
        is_taken=row.taken_id is not None,
        taken_us=row.taken_us,
        answers=answers,
    )


def _reviews(session: Session, rows: Sequence[Review]) -> list[ReviewView]:
    once = {row.id: row for row in rows}
    given = _answers(session, "review", list(once))
    unread = _unread_decisions(session, [row.source_id for row in once.values() if row.state != "open"])
    return [
        ReviewView(
            row.id,
            row.task_id,
            row.agent_id,
            row.state,
            row.pr_url,
            row.quality_score,
            row.result,
            row.asked_us,
            row.settled_us,
            row.state != "open" and row.id not in unread,
            given.get(row.id, ()),
        )
        for row in once.values()
    ]


def _unread_decisions(session: Session, source_ids: Sequence[int]) -> set[str]:
    """The reviews whose decision waits here until an outbox fetches it."""
    if not source_ids:
        return set()
    unread = select(InboxItem.body).join(Inbox, Inbox.source_id == InboxItem.source_id)
    unread = unread.where(InboxItem.source_id.in_(source_ids), InboxItem.position > Inbox.acknowledged)
    said = [json.loads(body)["data"] for body in session.scalars(unread.where(InboxItem.type == DECIDED))]
    return {data["review_id"] for data in said if not data["late"]}


_WORST_FIRST: Final = {"critical": 0, "high": 1, "medium": 2, "low": 3}


def _incidents(session: Session, which: ColumnElement[bool]) -> list[IncidentView]:
    rows = session.scalars(
        select(Incident).where(which, Incident.error_type != "").order_by(Incident.last_us.desc()).limit(MOST_ROWS)
    )
    names = [each.name for each in IncidentView.__attrs_attrs__]
    views = [IncidentView(**{name: getattr(row, name) for name in names}) for row in rows]
    return sorted(views, key=lambda view: _WORST_FIRST.get(view.priority, 4))


def _task(row: Task) -> TaskView:
    return TaskView(
        row.task_id,
        row.agent_id,
        row.status,
        row.progress_percentage,
        row.current_step,
        row.task_metadata,
        row.attempt,
        row.pr_url,
        row.quality_score,
        row.result,
        row.created_us,
        row.updated_us,
        row.received_us,
        row.completed_us,
    )


def _log(row: Log) -> LogView:
    place = f"{row.source_id}-{row.sequence}"
    told = (place, row.agent_id, row.level, row.message, row.log_metadata, row.time_us, row.received_us)
    return LogView(*told, is_event=row.sequence < FROM_PEOPLE)


def as_json(view: Any) -> Any:
    """A view as plain values: each instant ``x_us`` becomes ``x_at`` in RFC 3339."""
    return _with_instants(asdict(view)) if not isinstance(view, list) else [as_json(each) for each in view]


def _with_instants(value: Any) -> Any:
    if isinstance(value, dict):
        return dict(_instant_member(name, member) for name, member in value.items())
    return [_with_instants(item) for item in value] if isinstance(value, list | tuple) else value


def _instant_member(name: str, member: Any) -> tuple[str, Any]:
    if name.endswith("_us") and (member is None or isinstance(member, int)):
        return name.removesuffix("_us") + "_at", None if member is None else rfc3339(member)
    return name, _with_instants(member)
