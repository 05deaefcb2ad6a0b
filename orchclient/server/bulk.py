"""Many rows in one statement, in the words of each database.

SQLite takes the rows one after the other in one prepared statement; PostgreSQL gets one array for each column, since a
statement for each row costs it ten times as much. Statements are put together from names of tables and columns.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, Table
from sqlalchemy.orm import DeclarativeBase, Session

from orchclient.server.models import Json

Row = Sequence[Any]
_ARRAYS: Final = {BigInteger: "bigint", Integer: "bigint", Boolean: "boolean", Float: "double precision"}


def json_column(value: Any) -> str | None:
    """The text of a JSON column in a row given to this module."""
    return None if value is None else _encode(value)


_encode: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False).encode


def insert_new(session: Session, model: type[DeclarativeBase], rows: Sequence[Row]) -> int:
    """Insert the rows that are not there yet, in the order of the model's columns; how many those were."""
    return _run(session, model, rows, "DO NOTHING")


def upsert(session: Session, model: type[DeclarativeBase], rows: Sequence[Row]) -> int:
    """Insert the rows, each in the place of the one with its key."""
    table = _table(model)
    keys = [column.name for column in table.primary_key]
    others = [column.name for column in table.columns if column.name not in keys]
    sets = ", ".join(f'"{name}" = excluded."{name}"' for name in others)
    return _run(session, model, rows, f"({_names(keys)}) DO UPDATE SET {sets}")


def _run(session: Session, model: type[DeclarativeBase], rows: Sequence[Row], conflict: str) -> int:
    if not rows:
        return 0
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        statement = _postgresql(_table(model), conflict)
        return connection.exec_driver_sql(statement, tuple(list(column) for column in zip(*rows, strict=True))).rowcount
    return connection.exec_driver_sql(_sqlite(_table(model), conflict), [tuple(row) for row in rows]).rowcount


def _table(model: type[DeclarativeBase]) -> Table:
    table = model.__table__
    assert isinstance(table, Table)
    return table


@lru_cache
def _sqlite(table: Table, conflict: str) -> str:
    places = ", ".join("?" for _ in table.columns)
    return f"INSERT INTO {table.name} ({_columns(table)}) VALUES ({places}) ON CONFLICT {conflict}"


@lru_cache
def _postgresql(table: Table, conflict: str) -> str:
    arrays = ", ".join(f"%s::{_array(column)}[]" for column in table.columns)
    values = ", ".join(f'u."{column.name}"{"::jsonb" if column.type is Json else ""}' for column in table.columns)
    names = _columns(table)
    return (
        f"INSERT INTO {table.name} ({names}) SELECT {values} FROM unnest({arrays}) AS u({names}) ON CONFLICT {conflict}"
    )


def _array(column: Column[Any]) -> str:
    return next((name for kind, name in _ARRAYS.items() if isinstance(column.type, kind)), "text")


def _columns(table: Table) -> str:
    return _names([column.name for column in table.columns])


def _names(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
