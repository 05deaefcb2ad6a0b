"""How many events a second the orchestrator takes in: client and server on one machine, batches of 500.

Outboxes post batches that were rendered before, each over one kept connection, to ``orchclient serve`` with a new
database. Beside it, in the same rounds, the bare driver inserts the rows that the server wrote, events and lines, 500
events to a commit: what the database itself costs. ``--db`` takes a PostgreSQL URL as well; what it holds is dropped.
"""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import uuid
from argparse import ArgumentParser
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

from measure import Spread, parser, report, tell, workspace
from sqlalchemy import JSON, Engine, MetaData, Table, text

from orchclient.core.envelope import batch_body, body_text, event_text, lane_of, opening
from orchclient.core.ids import uuid7
from orchclient.core.jsontext import members_text
from orchclient.server.database import make_engine
from orchclient.server.models import Agent, Event, Log, Source, Span, Task
from orchclient.server.reading import BATCH_TYPE
from orchclient.server.upgrade import upgrade

BATCH = 500
TASKS = 25
SOURCES, EVENTS, LOGS, *_ = TABLES = [model.__table__ for model in (Source, Event, Log, Span, Task, Agent)]


def arguments() -> ArgumentParser:
    found = parser(__doc__)
    found.add_argument("--db", action="append", default=[], help="also measure over this PostgreSQL database")
    found.add_argument("--rounds", type=int, default=5)
    found.add_argument("--batches", type=int, default=80)
    found.add_argument("--outboxes", type=int, default=2, help="so many send at the same time")
    return found


def batches(count: int, uuid: str) -> list[bytes]:
    """Bodies as an outbox sends them: updates of some tasks by turns, in order."""
    start, us = opening(uuid), time.time_ns() // 1000
    bodies, seq = [], 0
    for _ in range(count):
        events = []
        for _ in range(BATCH):
            seq += 1
            members = {
                "status": "in_progress",
                "progress_percentage": seq % 100,
                "current_step": f"Generating file {seq}",
                "metadata": {"branch": "feature/users-api", "files_written": seq},
            }
            event_id = uuid7((us + seq) // 1000, os.urandom(10))
            lane = lane_of(f"task-{seq % TASKS}", "backend-7")
            body = body_text(event_id, "task.status.v1", lane, "low", us + seq, members_text(members))
            events.append(event_text(start, seq, body).encode())
        bodies.append(batch_body(events))
    return bodies


@contextmanager
def serving(db: str) -> Iterator[int]:
    """``orchclient serve`` in a process of its own; gives its port."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "orchclient", "serve", "--port", str(port)]
    env = {**os.environ, "ORCHCLIENT_SERVE_DB": db}
    process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    try:
        _await(port)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _await(port: int) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def served(db: str, outboxes: list[list[bytes]]) -> float:
    """Events a second through the server, from the first byte sent to the last answer read."""
    with serving(db) as port, ThreadPoolExecutor(len(outboxes)) as pool:
        begun = time.perf_counter()
        count = sum(pool.map(lambda bodies: _posted(port, bodies), outboxes))
        return count / (time.perf_counter() - begun)


def _posted(port: int, bodies: list[bytes]) -> int:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    for body in bodies:
        connection.request("POST", "/v1/events", body, {"Content-Type": BATCH_TYPE})
        reply = connection.getresponse()
        text_ = reply.read()
        assert reply.status == 200, text_
        assert text_.count(b'"accepted"') == BATCH, text_[:300]
    connection.close()
    return len(bodies) * BATCH


Rows = dict[Table, list[tuple[Any, ...]]]


def written(engine: Engine) -> Rows:
    """Every row that an orchestrator wrote; JSON as its text."""
    with engine.connect() as connection:
        return {table: [tuple(row) for row in connection.execute(text(_all_of(table)))] for table in TABLES}


def _all_of(table: Table) -> str:
    names = (f'CAST("{c.name}" AS text)' if _is_json(c) else f'"{c.name}"' for c in table.columns)
    return f"SELECT {', '.join(names)} FROM {table.name}"


def bare(engine: Engine, rows: Rows) -> float:
    """Events a second when the driver alone inserts the same rows: events and their lines, 500 to a commit."""
    raw: Any = engine.raw_connection().driver_connection
    is_sqlite = engine.dialect.name == "sqlite"
    write = _write_sqlite if is_sqlite else _write_postgresql
    if is_sqlite:
        raw.execute("PRAGMA wal_autocheckpoint=1000")  # as SQLite does it by itself
    write(raw, {SOURCES: rows[SOURCES]})
    steps = range(0, len(rows[EVENTS]), BATCH)
    begun = time.perf_counter()
    for first in steps:
        write(raw, {table: rows[table][first : first + BATCH] for table in (EVENTS, LOGS)})
    took = time.perf_counter() - begun
    write(raw, {table: rows[table] for table in TABLES[3:]})
    raw.close()
    return len(rows[EVENTS]) / took


def _write_sqlite(raw: sqlite3.Connection, rows: Rows) -> None:
    raw.execute("BEGIN IMMEDIATE")
    for table, values in rows.items():
        places = ", ".join("?" for _ in table.columns)
        raw.executemany(f"INSERT INTO {table.name} VALUES ({places})", values)
    raw.execute("COMMIT")


def _write_postgresql(raw: Any, rows: Rows) -> None:
    with raw.cursor() as cursor:
        for table, values in rows.items():
            places = ", ".join("%s::jsonb" if _is_json(column) else "%s" for column in table.columns)
            cursor.executemany(f"INSERT INTO {table.name} ({_names(table)}) VALUES ({places})", values)
    raw.commit()


def _names(table: Table) -> str:
    return ", ".join(f'"{column.name}"' for column in table.columns)


def _is_json(column: Any) -> bool:
    return isinstance(column.type, JSON)


def emptied(db: str) -> Engine:
    """A database with the schema and no rows."""
    engine = make_engine(db)
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            found = MetaData()
            found.reflect(connection)
            found.drop_all(connection)
    upgrade(engine)
    return engine


def measured(db: str, outboxes: list[list[bytes]]) -> tuple[float, float]:
    """One round: events a second through the server, and bare."""
    emptied(db).dispose()
    ours = served(db, outboxes)
    engine = make_engine(db)
    rows = written(engine)
    engine.dispose()
    other = emptied(db if "://" in db else f"{db}-bare")
    raw = bare(other, rows)
    other.dispose()
    return ours, raw


def row_of(name: str, db: str, rounds: int, count: int, outboxes: int) -> dict[str, object]:
    """One line of the result."""
    found = []
    for number in range(rounds):
        tell(f"{name}: round {number + 1} of {rounds}")
        where = db if "://" in db else f"{db}-{number}"
        bodies = [batches(count // outboxes, str(uuid.uuid4())) for _ in range(outboxes)]
        found.append(measured(where, bodies))
    ours, raw = [each[0] for each in found], [each[1] for each in found]
    return {
        "database": name,
        "outboxes": outboxes,
        "served, events/s": f"{Spread.of(ours).middle:,.0f} [{min(ours):,.0f}..{max(ours):,.0f}]",
        "bare driver, events/s": f"{Spread.of(raw).middle:,.0f} [{min(raw):,.0f}..{max(raw):,.0f}]",
        "ratio": Spread.of_ratios(ours, raw),
    }


def main() -> None:
    given = arguments().parse_args()
    rounds, count = (1, 4) if given.quick else (given.rounds, given.batches)
    with workspace(given.dir) as directory:
        named = [("SQLite", str(directory / "o.db")), *(("PostgreSQL", db) for db in given.db)]
        rows = [row_of(name, db, rounds, count, given.outboxes) for name, db in named]
        print(report("Ingest: events a second, batches of 500", directory, rows))


if __name__ == "__main__":
    main()
