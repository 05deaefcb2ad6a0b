"""Brings a database to the present schema by the migrations that the package ships."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, text

VERSION_TABLE: Final = "orch_version"
_LOCK: Final = 0x6F726368  # an advisory lock of PostgreSQL: processes that start together upgrade one by one


def upgrade(engine: Engine) -> None:
    """Run the migrations that are missing, all in one transaction; any number of processes may do so at once."""
    with engine.execution_options(orch_writes=True).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
