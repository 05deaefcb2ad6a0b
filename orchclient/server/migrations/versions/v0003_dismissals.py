"""Errors that a person set aside: who did, and when."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
    op.add_column("orch_incidents", sa.Column("dismissed_us", sa.BigInteger(), nullable=True))
    op.add_column("orch_incidents", sa.Column("dismissed_by", json, nullable=True))
