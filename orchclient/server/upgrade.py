"""Brings a database to the present schema by the migrations that the package ships."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, inspect, text

VERSION_TABLE: Final = "orch_version"
_LOCK: Final = 0x6F726368  # an advisory lock of PostgreSQL: processes that start together upgrade one by one
_MIGRATIONS: Final = Path(__file__).parent / "migrations"


def upgrade(engine: Engine) -> None:
    """Run the migrations that are missing, all in one transaction; any number of processes may do so at once."""
    if _is_present(engine):  # as nearly always: Alembic need not be loaded, nor anybody be waited for
        return
    from alembic import command
    from alembic.config import Config

    with engine.execution_options(orch_writes=True).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _is_present(engine: Engine) -> bool:
    with engine.connect() as connection:
        if not inspect(connection).has_table(VERSION_TABLE):
            return False
        found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalars().all()  # noqa: S608
    return list(found) == [_newest()]


def _newest() -> str:
    """The last migration; they are numbered by their files, ``v0001_first.py``."""
    names = (re.fullmatch(r"v(\d+)_\w+\.py", path.name) for path in (_MIGRATIONS / "versions").iterdir())
    return max(name[1] for name in names if name)
