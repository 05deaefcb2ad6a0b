"""Alembic runs this for each command; the connection and its transaction are the caller's."""

from __future__ import annotations

from alembic import context

from orchclient.server.models import Base
from orchclient.server.upgrade import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
context.run_migrations()
