"""What the orchestrator keeps, as SQLAlchemy models over SQLite and PostgreSQL.

Instants are integer UTC microseconds, and the same in both databases. Every table begins with ``orch_``, so that they
can live in a database that has tables of its own. Must not know HTTP, nor how a row comes about.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import JSON, BigInteger, Boolean, Float, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeEngine

from orchclient.core.timestamps import instant

Json: Final[TypeEngine[Any]] = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
# Keys are compared byte by byte: the rules of a language would make every comparison in an index slower.
Key: Final[TypeEngine[str]] = String(256).with_variant(String(256, collation="C"), "postgresql")
Serial: Final[TypeEngine[int]] = BigInteger().with_variant(Integer(), "sqlite")


class Base(DeclarativeBase):
    """The root of the models; its metadata is what the migrations lead to."""


class Source(Base):
    """One outbox, by the identity under which it sends. ``owner`` is the credential that used it first."""

    __tablename__ = "orch_sources"

    id: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(Key, unique=True)
    owner: Mapped[str | None] = mapped_column(Key)
    highest: Mapped[int] = mapped_column(BigInteger, default=0)
    first_seen_us: Mapped[int] = mapped_column(BigInteger)
    last_seen_us: Mapped[int] = mapped_column(BigInteger)


class Event(Base):
    """One event as it came. ``body`` is the CloudEvent's JSON text, byte for byte; the first one of an id counts."""

    __tablename__ = "orch_events"

    source_id: Mapped[int] = mapped_column(ForeignKey("orch_sources.id"), primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    id: Mapped[str] = mapped_column(Key)
    type: Mapped[str] = mapped_column(Key)
    task_id: Mapped[str] = mapped_column(Key)
    agent_id: Mapped[str] = mapped_column(Key)
    time_us: Mapped[int] = mapped_column(BigInteger)
    received_us: Mapped[int] = mapped_column(BigInteger)
    body: Mapped[str] = mapped_column(Text)

    __table_args__ = (UniqueConstraint("source_id", "id", name="orch_events_id"),)


class Span(Base):
    """Sequences of a source that are held or explained by a gap, from first to last; no two spans touch."""

    __tablename__ = "orch_spans"

    source_id: Mapped[int] = mapped_column(ForeignKey("orch_sources.id"), primary_key=True)
    first: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    last: Mapped[int] = mapped_column(BigInteger)


class Task(Base):
    """A task as its agents last described it. ``marks``: how new each member is, ``{source: {member: sequence}}``."""

    __tablename__ = "orch_tasks"

    task_id: Mapped[str] = mapped_column(Key, primary_key=True)
    source_id: Mapped[int] = mapped_column(ForeignKey("orch_sources.id"))
    agent_id: Mapped[str] = mapped_column(Key)
    status: Mapped[str] = mapped_column(String(32))
    progress_percentage: Mapped[float | None] = mapped_column(Float)
    current_step: Mapped[str | None] = mapped_column(Text)
    task_metadata: Mapped[dict[str, Any]] = mapped_column("metadata", Json)
    attempt: Mapped[int | None] = mapped_column(BigInteger)
    pr_url: Mapped[str | None] = mapped_column(Text)
    quality_score: Mapped[float | None] = mapped_column(Float)
    result: Mapped[dict[str, Any] | None] = mapped_column(Json)
    marks: Mapped[dict[str, dict[str, int]]] = mapped_column(Json)
    created_us: Mapped[int] = mapped_column(BigInteger)
    updated_us: Mapped[int] = mapped_column(BigInteger)
    received_us: Mapped[int] = mapped_column(BigInteger)
    completed_us: Mapped[int | None] = mapped_column(BigInteger)

    __table_args__ = (
        Index("orch_tasks_by_time", "received_us"),
        Index("orch_tasks_by_status", "status", "received_us"),
    )

    @property
    def updated_at(self) -> datetime:
        """When the agent made its newest call about the task."""
        return instant(self.updated_us)


class Log(Base):
    """The audit trail: one line for each event that tells something of a task, and for what people did beside them.

    The ``sequence`` of what people did is none of an event: it is beyond 2^53.
    """

    __tablename__ = "orch_logs"

    source_id: Mapped[int] = mapped_column(ForeignKey("orch_sources.id"), primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    task_id: Mapped[str] = mapped_column(Key)
    agent_id: Mapped[str] = mapped_column(Key)
    level: Mapped[str] = mapped_column(String(16))
    message: Mapped[str] = mapped_column(Text)
    log_metadata: Mapped[dict[str, Any]] = mapped_column("metadata", Json)
    time_us: Mapped[int] = mapped_column(BigInteger)
    received_us: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (Index("orch_logs_by_task", "task_id", "received_us", "source_id", "sequence"),)

    @property
    def logged_at(self) -> datetime:
        """When the agent made the call."""
        return instant(self.time_us)


class Agent(Base):
    """An agent that was heard of, and what it last said of its outbox."""

    __tablename__ = "orch_agents"

    agent_id: Mapped[str] = mapped_column(Key, primary_key=True)
    source_id: Mapped[int] = mapped_column(ForeignKey("orch_sources.id"))
    first_seen_us: Mapped[int] = mapped_column(BigInteger)
    last_seen_us: Mapped[int] = mapped_column(BigInteger)
    pending: Mapped[int | None] = mapped_column(BigInteger)
    dead: Mapped[int | None] = mapped_column(BigInteger)
    oldest_age_s: Mapped[float | None] = mapped_column(Float)
    reported_us: Mapped[int | None] = mapped_column(BigInteger)


class Clarification(Base):
    """A request of one source. Requests that are the same question share ``question_id``: shown once, all answered.

    ``state``: open, seen, answered, expired, withdrawn. ``asked_us`` is 0 while only a word about the request has come
    (that it was withdrawn, or its answer taken) and not yet the request.
    """

    __tablename__ = "orch_clarifications"

    source_id: Mapped[int] = mapped_column(ForeignKey("orch_sources.id"), primary_key=True)
    id: Mapped[str] = mapped_column(Key, primary_key=True)
    question_id: Mapped[str] = mapped_column(Key, index=True)
    task_id: Mapped[str] = mapped_column(Key)
    agent_id: Mapped[str] = mapped_column(Key)
    key: Mapped[str | None] = mapped_column(Key)
    priority: Mapped[str] = mapped_column(String(16))
    questions: Mapped[list[dict[str, Any]]] = mapped_column(Json)
    context: Mapped[dict[str, Any]] = mapped_column(Json)
    default: Mapped[Any] = mapped_column("default_answer", Json, nullable=True)
    deadline_us: Mapped[int | None] = mapped_column(BigInteger)
    content_digest: Mapped[str] = mapped_column(String(80))
    core_digest: Mapped[str] = mapped_column(String(80))
    state: Mapped[str] = mapped_column(String(16))
    asked_us: Mapped[int] = mapped_column(BigInteger)
    received_us: Mapped[int] = mapped_column(BigInteger)
    seen_us: Mapped[int | None] = mapped_column(BigInteger)
    settled_us: Mapped[int | None] = mapped_column(BigInteger)
    answer_id: Mapped[str | None] = mapped_column(Key)
    taken_id: Mapped[str | None] = mapped_column(Key)
    taken_us: Mapped[int | None] = mapped_column(BigInteger)
    reason: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        Index("orch_clarifications_by_state", "state", "deadline_us"),
        Index("orch_clarifications_by_task", "task_id", "key"),
    )


class Review(Base):
    """A result that waits for a decision. ``state``: open, decided."""

    __tablename__ = "orch_reviews"

    source_id: Mapped[int] = mapped_column(ForeignKey("orch_sources.id"), primary_key=True)
    id: Mapped[str] = mapped_column(Key, primary_key=True)
    task_id: Mapped[str] = mapped_column(Key, index=True)
    agent_id: Mapped[str] = mapped_column(Key)
    pr_url: Mapped[str | None] = mapped_column(Text)
    quality_score: Mapped[float | None] = mapped_column(Float)
    result: Mapped[dict[str, Any]] = mapped_column(Json)
    state: Mapped[str] = mapped_column(String(16), index=True)
    asked_us: Mapped[int] = mapped_column(BigInteger)
    received_us: Mapped[int] = mapped_column(BigInteger)
    settled_us: Mapped[int | None] = mapped_column(BigInteger)
    answer_id: Mapped[str | None] = mapped_column(Key)


class Answer(Base):
    """A decision on a question or a review, the first and every late one. ``target_id`` is the question or review."""

    __tablename__ = "orch_answers"

    id: Mapped[str] = mapped_column(Key, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    target_id: Mapped[str] = mapped_column(Key, index=True)
    task_id: Mapped[str] = mapped_column(Key)
    outcome: Mapped[str] = mapped_column(String(32))
    answers: Mapped[list[dict[str, Any]] | None] = mapped_column(Json)
    comment: Mapped[str | None] = mapped_column(Text)
    responder: Mapped[dict[str, Any]] = mapped_column(Json)
    channel: Mapped[str | None] = mapped_column(String(64))
    content_digest: Mapped[str | None] = mapped_column(String(80))
    late: Mapped[bool] = mapped_column(Boolean)
    answered_us: Mapped[int] = mapped_column(BigInteger)


class Incident(Base):
    """Errors that are one trouble, by the id of the first. ``state``: open, resolved, dismissed (by a person).

    ``error_type`` is empty while only the word has come that it is over.
    """

    __tablename__ = "orch_incidents"

    task_id: Mapped[str] = mapped_column(Key, primary_key=True)
    id: Mapped[str] = mapped_column(Key, primary_key=True)
    key: Mapped[str | None] = mapped_column(Key)
    agent_id: Mapped[str] = mapped_column(Key)
    error_type: Mapped[str] = mapped_column(String(256))
    error_message: Mapped[str] = mapped_column(Text)
    priority: Mapped[str] = mapped_column(String(16))
    fatal: Mapped[bool] = mapped_column(Boolean)
    count: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String(16), index=True)
    first_us: Mapped[int] = mapped_column(BigInteger)
    last_us: Mapped[int] = mapped_column(BigInteger)
    note: Mapped[str | None] = mapped_column(Text)
    dismissed_us: Mapped[int | None] = mapped_column(BigInteger)
    dismissed_by: Mapped[dict[str, Any] | None] = mapped_column(Json)


class Inbox(Base):
    """Where the inbox of a source stands. Its row is locked by who puts items: positions are in order of commit."""

    __tablename__ = "orch_inboxes"

    source_id: Mapped[int] = mapped_column(ForeignKey("orch_sources.id"), primary_key=True)
    last: Mapped[int] = mapped_column(BigInteger)
    acknowledged: Mapped[int] = mapped_column(BigInteger)


class InboxItem(Base):
    """One item for the agents of a source; kept until it was acknowledged, and for the retention after that."""

    __tablename__ = "orch_inbox_items"

    source_id: Mapped[int] = mapped_column(ForeignKey("orch_sources.id"), primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    id: Mapped[str] = mapped_column(Key)
    type: Mapped[str] = mapped_column(Key)
    task_id: Mapped[str] = mapped_column(Key)
    body: Mapped[str] = mapped_column(Text)
    created_us: Mapped[int] = mapped_column(BigInteger)


class Token(Base):
    """A bearer token, of which only the SHA-256 is kept. Two of one ``name`` are one credential: so one is renewed."""

    __tablename__ = "orch_tokens"

    id: Mapped[str] = mapped_column(Key, primary_key=True)
    name: Mapped[str] = mapped_column(Key)
    kind: Mapped[str] = mapped_column(String(16))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    created_us: Mapped[int] = mapped_column(BigInteger)
    revoked_us: Mapped[int | None] = mapped_column(BigInteger)


class SignIn(Base):
    """A browser in which a person has signed in, by the SHA-256 of its cookie; it ends with the token it came by."""

    __tablename__ = "orch_sign_ins"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    token_id: Mapped[str] = mapped_column(ForeignKey("orch_tokens.id"), index=True)
    created_us: Mapped[int] = mapped_column(BigInteger)
    expires_us: Mapped[int] = mapped_column(BigInteger)
