"""A caller's own statements inside a transaction on the outbox, for callers that may not touch the connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Parameters = Sequence[Any] | Mapping[str, Any]


def rows(con: sqlite3.Connection, sql: str, parameters: Parameters) -> list[tuple[Any, ...]]:
    """The rows of one statement, all of them."""
    return con.execute(sql, parameters).fetchall()


def run_many(con: sqlite3.Connection, sql: str, parameters: Iterable[Parameters]) -> None:
    """Run one statement for each set of parameters."""
    con.executemany(sql, parameters)
