"""Many rows in one statement, in the words of each database.

SQLite takes fifty rows in one prepared statement; PostgreSQL gets them in one COPY, or as one JSON text, since a
statement for each row costs it ten times as much. Statements are put together from names of tables and columns.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Final

from sqlalchemy import BigInteger, Boolean, Column, Connection, Float, Integer, Table
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Session

from orchclient.core.jsontext import encode
from orchclient.server.models import Json

Row = Sequence[Any]
_AT_ONCE: Final = 50
_TYPES: Final = {BigInteger: "bigint", Integer: "bigint", Boolean: "boolean", Float: "double precision"}


def json_column(value: Any) -> str | None:
    """The text of a JSON column in a row given to this module."""
    return None if value is None else encode(value)


class Repeated(Exception):
    """A row with the key of one that is to be added is there already."""


def add(session: Session, model: type[DeclarativeBase], rows: Sequence[Row]) -> None:
    """Insert rows that are all new, in the order of the model's columns. Raises ``Repeated`` when one is not."""
    if not rows:
        return
    if session.connection().dialect.name == "postgresql":
        _copy(session.connection(), _table(model), rows)
    elif insert_new(session, model, rows) < len(rows):
        raise Repeated


def insert_new(session: Session, model: type[DeclarativeBase], rows: Sequence[Row]) -> int:
    """Insert the rows that are not there yet, in the order of the model's columns; how many those were."""
    return _run(session, model, rows, "DO NOTHING")


def upsert(session: Session, model: type[DeclarativeBase], rows: Sequence[Row], only: tuple[str, ...] = ()) -> int:
    """Insert the rows, each in the place of the one with its key, of which ``only`` these columns change if any."""
    return _run(session, model, rows, _replacing(_table(model), only))


@lru_cache
def _replacing(table: Table, only: tuple[str, ...]) -> str:
    keys = [column.name for column in table.primary_key]
    others = only or [column.name for column in table.columns if column.name not in keys]
    sets = ", ".join(f'"{name}" = excluded."{name}"' for name in others)
    return f"({_names(keys)}) DO UPDATE SET {sets}"


def _run(session: Session, model: type[DeclarativeBase], rows: Sequence[Row], conflict: str) -> int:
    if not rows:
        return 0
    connection, table = session.connection(), _table(model)
    if connection.dialect.name == "postgresql":
        return connection.exec_driver_sql(_postgresql(table, conflict), (encode(rows),)).rowcount
    cursor: Any = connection.connection.cursor()
    try:
        return _inserted(cursor, table, conflict, rows)
    except sqlite3.Error as error:
        raise DBAPIError.instance(f"INSERT INTO {table.name}", None, error, sqlite3.Error) from error
    finally:
        cursor.close()


def _inserted(cursor: Any, table: Table, conflict: str, rows: Sequence[Row]) -> int:
    """By the driver itself: a step of SQLite for each row lets other threads in each time, and costs a third more."""
    count = 0
    whole = len(rows) - len(rows) % _AT_ONCE
    for first in range(0, whole, _AT_ONCE):
        values = list(chain.from_iterable(rows[first : first + _AT_ONCE]))
        count += cursor.execute(_sqlite(table, conflict, _AT_ONCE), values).rowcount
    if whole < len(rows):
        count += cursor.executemany(_sqlite(table, conflict, 1), rows[whole:]).rowcount
    return count


def _copy(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """The fastest way into PostgreSQL. It knows no conflicts: one ends the transaction."""
    import psycopg

    driver: Any = connection.connection.driver_connection
    statement = f"COPY {table.name} ({_columns(table)}) FROM STDIN"
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)
    except psycopg.errors.UniqueViolation as error:
        raise Repeated from error
    except psycopg.Error as error:
        raise DBAPIError.instance(statement, None, error, psycopg.Error) from error


def _table(model: type[DeclarativeBase]) -> Table:
    table = model.__table__
    assert isinstance(table, Table)
    return table


@lru_cache
def _sqlite(table: Table, conflict: str, count: int) -> str:
    places = ", ".join("?" for _ in table.columns)
    rows = ", ".join(f"({places})" for _ in range(count))
    return f"INSERT INTO {table.name} ({_columns(table)}) VALUES {rows} ON CONFLICT {conflict}"


@lru_cache
def _postgresql(table: Table, conflict: str) -> str:
    # One parameter for all rows, a JSON array of arrays: arrays of text would be escaped one by one.
    values = ", ".join(f"(u.r->>{n})::{_type(column)}" for n, column in enumerate(table.columns))
    rows = "json_array_elements(%s::json) AS u(r)"
    return f"INSERT INTO {table.name} ({_columns(table)}) SELECT {values} FROM {rows} ON CONFLICT {conflict}"


def _type(column: Column[Any]) -> str:
    if column.type is Json:
        return "jsonb"
    return next((name for kind, name in _TYPES.items() if isinstance(column.type, kind)), "text")


def _columns(table: Table) -> str:
    return _names([column.name for column in table.columns])


def _names(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
