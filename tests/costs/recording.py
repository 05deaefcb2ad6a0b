"""An agent that records a number of events of one kind, between two marks that a tracer of system calls can see.

    python -m tests.costs.recording KIND DIRECTORY CALLS

The kind ``raw`` is the limit: the text of a progress update inserted into a table of two columns.
``progress_full`` is progress with ``durability="full"``.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from orchclient import OrchestratorClient

WARM_UP = 300
BEGIN, END = "/mark/begin", "/mark/end"


def progress(client: OrchestratorClient, number: int) -> None:
    """What an agent says most often."""
    client.update_task_status("task-123", "in_progress", None, number % 101, "Generating Flask routes")


def error(client: OrchestratorClient, number: int) -> None:
    """An event that is synced, with a context."""
    client.escalate_error("task-123", "build_failure", "The build failed", 1, {"number": number}, fatal=False)


KINDS: dict[str, Callable[[OrchestratorClient, int], None]] = {"progress": progress, "error": error}


def marked(call: Callable[[int], object], calls: int) -> None:
    """Call so often, after as many calls as warm everything up, between the marks."""
    for number in range(WARM_UP):
        call(number)
    with suppress(OSError):
        os.stat(BEGIN)
    for number in range(calls):
        call(number)
    with suppress(OSError):
        os.stat(END)


def raw(path: Path, text: str, calls: int) -> None:
    """The same with the standard library's driver alone."""
    with closing(sqlite3.connect(path, isolation_level=None)) as con:
        con.execute("PRAGMA journal_mode=WAL").fetchall()
        con.execute("PRAGMA synchronous=NORMAL")
        con.execute("PRAGMA wal_autocheckpoint=0")
        con.execute("CREATE TABLE events (seq INTEGER PRIMARY KEY, body TEXT)")
        marked(lambda number: con.execute("INSERT INTO events (body) VALUES (?)", (text,)), calls)


def example(directory: Path) -> str:
    """The text of a progress update as our own journal keeps it."""
    path = directory / "example.db"
    with OrchestratorClient("backend-agent", outbox=path, mode="offline", background=False) as client:
        progress(client, 50)
    with closing(sqlite3.connect(path)) as con:
        return str(con.execute("SELECT body FROM events").fetchone()[0])


def main(kind: str, directory: Path, calls: int) -> None:
    """Record."""
    if kind == "raw":
        raw(directory / "raw.db", example(directory), calls)
        return
    name, _, durability = kind.partition("_")
    path = directory / "outbox.db"
    with OrchestratorClient("backend-agent", outbox=path, mode="offline", durability=durability or "auto") as client:
        marked(lambda number: KINDS[name](client, number), calls)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
