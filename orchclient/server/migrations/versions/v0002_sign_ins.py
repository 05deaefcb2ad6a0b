"""Browsers in which people have signed in."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _key() -> Any:
    return sa.String(256).with_variant(sa.String(256, collation="C"), "postgresql")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "orch_sign_ins",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("token_id", _key(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["token_id"], ["orch_tokens.id"]),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index(op.f("ix_orch_sign_ins_token_id"), "orch_sign_ins", ["token_id"], unique=False)
