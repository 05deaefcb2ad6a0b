"""The first schema."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _key() -> Any:
    return sa.String(256).with_variant(sa.String(256, collation="C"), "postgresql")


def _json() -> Any:
    return sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def _serial() -> Any:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make every table."""
    op.create_table(
        "orch_answers",
        sa.Column("id", _key(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("target_id", _key(), nullable=False),
        sa.Column("task_id", _key(), nullable=False),
        sa.Column("outcome", sa.String(length=32), nullable=False),
        sa.Column("answers", _json(), nullable=True),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.Column("responder", _json(), nullable=False),
        sa.Column("channel", sa.String(length=64), nullable=True),
        sa.Column("content_digest", sa.String(length=80), nullable=True),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("answered_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_orch_answers_target_id"), "orch_answers", ["target_id"], unique=False)
    op.create_table(
        "orch_incidents",
        sa.Column("task_id", _key(), nullable=False),
        sa.Column("id", _key(), nullable=False),
        sa.Column("key", _key(), nullable=True),
        sa.Column("agent_id", _key(), nullable=False),
        sa.Column("error_type", sa.String(length=256), nullable=False),
        sa.Column("error_message", sa.Text(), nullable=False),
        sa.Column("priority", sa.String(length=16), nullable=False),
        sa.Column("fatal", sa.Boolean(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("first_us", sa.BigInteger(), nullable=False),
        sa.Column("last_us", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("task_id", "id"),
    )
    op.create_index(op.f("ix_orch_incidents_state"), "orch_incidents", ["state"], unique=False)
    op.create_table(
        "orch_sources",
        sa.Column("id", _serial(), autoincrement=True, nullable=False),
        sa.Column("name", _key(), nullable=False),
        sa.Column("owner", _key(), nullable=True),
        sa.Column("highest", sa.BigInteger(), nullable=False),
        sa.Column("first_seen_us", sa.BigInteger(), nullable=False),
        sa.Column("last_seen_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "orch_tokens",
        sa.Column("id", _key(), nullable=False),
        sa.Column("name", _key(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("revoked_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("digest"),
    )
    op.create_table(
        "orch_agents",
        sa.Column("agent_id", _key(), nullable=False),
        sa.Column("source_id", _serial(), nullable=False),
        sa.Column("first_seen_us", sa.BigInteger(), nullable=False),
        sa.Column("last_seen_us", sa.BigInteger(), nullable=False),
        sa.Column("pending", sa.BigInteger(), nullable=True),
        sa.Column("dead", sa.BigInteger(), nullable=True),
        sa.Column("oldest_age_s", sa.Float(), nullable=True),
        sa.Column("reported_us", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["source_id"],
            ["orch_sources.id"],
        ),
        sa.PrimaryKeyConstraint("agent_id"),
    )
    op.create_table(
        "orch_clarifications",
        sa.Column("source_id", _serial(), nullable=False),
        sa.Column("id", _key(), nullable=False),
        sa.Column("question_id", _key(), nullable=False),
        sa.Column("task_id", _key(), nullable=False),
        sa.Column("agent_id", _key(), nullable=False),
        sa.Column("key", _key(), nullable=True),
        sa.Column("priority", sa.String(length=16), nullable=False),
        sa.Column("questions", _json(), nullable=False),
        sa.Column("context", _json(), nullable=False),
        sa.Column("default_answer", _json(), nullable=True),
        sa.Column("deadline_us", sa.BigInteger(), nullable=True),
        sa.Column("content_digest", sa.String(length=80), nullable=False),
        sa.Column("core_digest", sa.String(length=80), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("asked_us", sa.BigInteger(), nullable=False),
        sa.Column("received_us", sa.BigInteger(), nullable=False),
        sa.Column("seen_us", sa.BigInteger(), nullable=True),
        sa.Column("settled_us", sa.BigInteger(), nullable=True),
        sa.Column("answer_id", _key(), nullable=True),
        sa.Column("taken_id", _key(), nullable=True),
        sa.Column("taken_us", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["source_id"],
            ["orch_sources.id"],
        ),
        sa.PrimaryKeyConstraint("source_id", "id"),
    )
    op.create_index(op.f("ix_orch_clarifications_question_id"), "orch_clarifications", ["question_id"], unique=False)
    op.create_index("orch_clarifications_by_state", "orch_clarifications", ["state", "deadline_us"], unique=False)
    op.create_index("orch_clarifications_by_task", "orch_clarifications", ["task_id", "key"], unique=False)
    op.create_table(
        "orch_events",
        sa.Column("source_id", _serial(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", _key(), nullable=False),
        sa.Column("type", _key(), nullable=False),
        sa.Column("task_id", _key(), nullable=False),
        sa.Column("agent_id", _key(), nullable=False),
        sa.Column("time_us", sa.BigInteger(), nullable=False),
        sa.Column("received_us", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["source_id"],
            ["orch_sources.id"],
        ),
        sa.PrimaryKeyConstraint("source_id", "sequence"),
        sa.UniqueConstraint("source_id", "id", name="orch_events_id"),
    )
    op.create_table(
        "orch_inbox_items",
        sa.Column("source_id", _serial(), nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", _key(), nullable=False),
        sa.Column("type", _key(), nullable=False),
        sa.Column("task_id", _key(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["source_id"],
            ["orch_sources.id"],
        ),
        sa.PrimaryKeyConstraint("source_id", "position"),
    )
    op.create_table(
        "orch_inboxes",
        sa.Column("source_id", _serial(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("acknowledged", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["source_id"],
            ["orch_sources.id"],
        ),
        sa.PrimaryKeyConstraint("source_id"),
    )
    op.create_table(
        "orch_logs",
        sa.Column("source_id", _serial(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("task_id", _key(), nullable=False),
        sa.Column("agent_id", _key(), nullable=False),
        sa.Column("level", sa.String(length=16), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("metadata", _json(), nullable=False),
        sa.Column("time_us", sa.BigInteger(), nullable=False),
        sa.Column("received_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["source_id"],
            ["orch_sources.id"],
        ),
        sa.PrimaryKeyConstraint("source_id", "sequence"),
    )
    op.create_index("orch_logs_by_task", "orch_logs", ["task_id", "received_us", "source_id", "sequence"], unique=False)
    op.create_table(
        "orch_reviews",
        sa.Column("source_id", _serial(), nullable=False),
        sa.Column("id", _key(), nullable=False),
        sa.Column("task_id", _key(), nullable=False),
        sa.Column("agent_id", _key(), nullable=False),
        sa.Column("pr_url", sa.Text(), nullable=True),
        sa.Column("quality_score", sa.Float(), nullable=True),
        sa.Column("result", _json(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("asked_us", sa.BigInteger(), nullable=False),
        sa.Column("received_us", sa.BigInteger(), nullable=False),
        sa.Column("settled_us", sa.BigInteger(), nullable=True),
        sa.Column("answer_id", _key(), nullable=True),
        sa.ForeignKeyConstraint(
            ["source_id"],
            ["orch_sources.id"],
        ),
        sa.PrimaryKeyConstraint("source_id", "id"),
    )
    op.create_index(op.f("ix_orch_reviews_state"), "orch_reviews", ["state"], unique=False)
    op.create_index(op.f("ix_orch_reviews_task_id"), "orch_reviews", ["task_id"], unique=False)
    op.create_table(
        "orch_spans",
        sa.Column("source_id", _serial(), nullable=False),
        sa.Column("first", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["source_id"],
            ["orch_sources.id"],
        ),
        sa.PrimaryKeyConstraint("source_id", "first"),
    )
    op.create_table(
        "orch_tasks",
        sa.Column("task_id", _key(), nullable=False),
        sa.Column("source_id", _serial(), nullable=False),
        sa.Column("agent_id", _key(), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("progress_percentage", sa.Float(), nullable=True),
        sa.Column("current_step", sa.Text(), nullable=True),
        sa.Column("metadata", _json(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=True),
        sa.Column("pr_url", sa.Text(), nullable=True),
        sa.Column("quality_score", sa.Float(), nullable=True),
        sa.Column("result", _json(), nullable=True),
        sa.Column("marks", _json(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("updated_us", sa.BigInteger(), nullable=False),
        sa.Column("received_us", sa.BigInteger(), nullable=False),
        sa.Column("completed_us", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["source_id"],
            ["orch_sources.id"],
        ),
        sa.PrimaryKeyConstraint("task_id"),
    )
    op.create_index("orch_tasks_by_status", "orch_tasks", ["status", "received_us"], unique=False)
    op.create_index("orch_tasks_by_time", "orch_tasks", ["received_us"], unique=False)
