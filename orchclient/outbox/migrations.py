"""The tables, as a list of migrations that sqlite-utils applies. A released migration is never edited.

All pending migrations run in one ``BEGIN IMMEDIATE`` transaction, so a process that dies in the middle leaves the file
as it was. sqlite-utils costs about 90 ms to import, so it is imported only when the file's ``user_version`` is old.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from orchclient.core.errors import OutboxError

VERSION = 7

_TABLES_1 = """
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value
) WITHOUT ROWID;

-- Who this outbox is from which event on. Renewed when a file was restored, cloned or lost its tail.
CREATE TABLE identities (
    first_seq INTEGER PRIMARY KEY,
    source TEXT NOT NULL,
    since_us INTEGER NOT NULL,
    reason TEXT NOT NULL
);

-- No index and no AUTOINCREMENT: each would write one more page for every event. seq is not reused because the
-- newest row is never pruned; an id is found by its time, since a UUIDv7 begins with it.
CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    task TEXT NOT NULL,
    agent TEXT NOT NULL,
    type TEXT NOT NULL,
    priority TEXT NOT NULL,
    recorded_us INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    body TEXT NOT NULL
);

-- A fold of the journal up to meta.folded_seq; see folding.py.
CREATE TABLE tasks (
    task TEXT PRIMARY KEY,
    agent TEXT NOT NULL,
    status TEXT NOT NULL,
    progress REAL,
    step TEXT,
    metadata TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    updated_us INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE tallies (
    agent TEXT NOT NULL,
    type TEXT NOT NULL,
    count INTEGER NOT NULL,
    last_us INTEGER NOT NULL,
    PRIMARY KEY (agent, type)
) WITHOUT ROWID;

-- delivered = cursor - start_seq - parked - dead - expired, so nothing has to be counted.
CREATE TABLE sinks (
    name TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    start_seq INTEGER NOT NULL,
    cursor INTEGER NOT NULL,
    parked INTEGER NOT NULL DEFAULT 0,
    dead INTEGER NOT NULL DEFAULT 0,
    expired INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'delivering',
    reason TEXT NOT NULL DEFAULT '',
    failures INTEGER NOT NULL DEFAULT 0,
    next_try_us INTEGER,
    last_success_us INTEGER,
    last_error TEXT NOT NULL DEFAULT '',
    last_error_us INTEGER,
    target TEXT NOT NULL DEFAULT '',
    epoch INTEGER NOT NULL DEFAULT 0,
    holder TEXT,
    created_us INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE work (
    sink TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('parked', 'dead')),
    seq INTEGER NOT NULL,
    task TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    reason TEXT NOT NULL,
    since_us INTEGER NOT NULL,
    PRIMARY KEY (sink, state, seq)
) WITHOUT ROWID;

-- Tasks of which an event is parked: their later events follow it to the desk.
CREATE TABLE lanes (
    sink TEXT NOT NULL,
    task TEXT NOT NULL,
    parked INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    due_us INTEGER NOT NULL,
    PRIMARY KEY (sink, task)
) WITHOUT ROWID;
CREATE INDEX lanes_by_due ON lanes (sink, due_us);
CREATE INDEX work_by_lane ON work (sink, task, seq) WHERE state = 'parked';

CREATE TABLE attempts (
    n INTEGER PRIMARY KEY,
    sink TEXT NOT NULL,
    at_us INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    events INTEGER NOT NULL,
    took_ms REAL NOT NULL,
    action TEXT NOT NULL,
    status INTEGER,
    reason TEXT NOT NULL
);

INSERT INTO meta (key, value) VALUES ('folded_seq', 0), ('syncs', 0), ('nudges', 0);
"""


_GAPS_2 = """
-- What a sink will never get although it was not refused, with the reason; see gaps.py.
CREATE TABLE gaps (
    sink TEXT NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    reason TEXT NOT NULL,
    since_us INTEGER NOT NULL,
    PRIMARY KEY (sink, first_seq)
) WITHOUT ROWID;

-- Of the expired events, those that the cursor has not passed yet:
-- pending = last seq - cursor + parked - ahead, delivered = cursor - start_seq - parked - dead - (expired - ahead).
ALTER TABLE sinks ADD COLUMN ahead INTEGER NOT NULL DEFAULT 0;

-- Whether a sink gets what was recorded before it came; asked again when the files were lost.
ALTER TABLE sinks ADD COLUMN from_beginning INTEGER NOT NULL DEFAULT 1;
"""


_INCIDENTS_3 = """
-- Errors of a task with one key, until they are resolved; see incidents.py.
CREATE TABLE incidents (
    first_id TEXT PRIMARY KEY,
    task TEXT NOT NULL,
    key TEXT,
    last_id TEXT NOT NULL,
    count INTEGER NOT NULL,
    resolved_us INTEGER
) WITHOUT ROWID;
CREATE UNIQUE INDEX open_incidents ON incidents (task, key) WHERE resolved_us IS NULL;
"""


_REMINDERS_4 = """
-- What is critical and open, with the reminders of it so far: a fold of the journal from here on; see reminders.py.
CREATE TABLE reminders (
    about TEXT PRIMARY KEY,
    type TEXT NOT NULL,
    task TEXT NOT NULL,
    agent TEXT NOT NULL,
    priority TEXT NOT NULL,
    since_us INTEGER NOT NULL,
    number INTEGER NOT NULL,
    last_us INTEGER NOT NULL,
    deadline_us INTEGER,
    said TEXT NOT NULL
) WITHOUT ROWID;
INSERT INTO meta (key, value)
SELECT 'reminded', json_array(coalesce(max(seq), 0), 0, NULL) FROM events;
"""


_POSTS_5 = """
-- One row per message of a chat sink: the event that it is to tell next (parked in work while is_owed), and the
-- message that people see. claimed_us: a request is under way, or was when a process ended; see posts.py.
CREATE TABLE posts (
    sink TEXT NOT NULL,
    topic TEXT NOT NULL,
    seq INTEGER,
    task TEXT NOT NULL,
    is_owed INTEGER NOT NULL,
    count INTEGER NOT NULL,
    total INTEGER NOT NULL,
    urgency INTEGER NOT NULL,
    due_us INTEGER NOT NULL,
    is_held INTEGER NOT NULL DEFAULT 0,
    message_id TEXT NOT NULL DEFAULT '',
    told_us INTEGER,
    claimed_us INTEGER,
    is_repeat INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (sink, topic)
) WITHOUT ROWID;
CREATE INDEX posts_by_due ON posts (sink, due_us) WHERE seq IS NOT NULL;
"""


_PEOPLE_6 = """
-- What people were asked, each settled once; see requests.py.
CREATE TABLE requests (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('question', 'review')),
    seq INTEGER NOT NULL,
    source TEXT NOT NULL,
    task TEXT NOT NULL,
    agent TEXT NOT NULL,
    key TEXT,
    digest TEXT NOT NULL,
    priority TEXT NOT NULL,
    asked_us INTEGER NOT NULL,
    deadline_us INTEGER,
    fallback TEXT,
    state TEXT NOT NULL,
    answer TEXT,
    answer_id TEXT,
    settled_us INTEGER,
    consumed_us INTEGER,
    content TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE INDEX open_requests ON requests (source, deadline_us) WHERE settled_us IS NULL;
CREATE INDEX requests_by_task ON requests (task, key, content);

-- Every item that came back, in order, each once; see inbox.py.
CREATE TABLE inbox (
    n INTEGER PRIMARY KEY,
    source TEXT NOT NULL,
    id TEXT NOT NULL,
    type TEXT NOT NULL,
    task TEXT NOT NULL,
    request TEXT,
    answer_id TEXT,
    received_us INTEGER NOT NULL,
    verdict TEXT NOT NULL,
    problem TEXT NOT NULL,
    body TEXT NOT NULL
);
CREATE UNIQUE INDEX inbox_by_id ON inbox (source, id);
CREATE INDEX unreadable ON inbox (verdict) WHERE verdict = 'unreadable';
CREATE INDEX inbox_by_request ON inbox (request, answer_id) WHERE request IS NOT NULL;

-- How far each inbox is read, and how polling it fares.
CREATE TABLE inbox_cursors (
    sink TEXT NOT NULL,
    source TEXT NOT NULL,
    cursor TEXT NOT NULL,
    acknowledged TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL DEFAULT 'polling',
    reason TEXT NOT NULL DEFAULT '',
    polled_us INTEGER,
    since_us INTEGER NOT NULL,
    PRIMARY KEY (sink, source)
) WITHOUT ROWID;
"""


_TOLD_7 = """
-- The event that a topic told last: when it comes again, out of files that were lost, people know it already.
ALTER TABLE posts ADD COLUMN told_id TEXT NOT NULL DEFAULT '';
"""


def _tables_1(db: Any) -> None:
    _run(db, _TABLES_1)


def _gaps_2(db: Any) -> None:
    _run(db, _GAPS_2)


def _incidents_3(db: Any) -> None:
    _run(db, _INCIDENTS_3)


def _reminders_4(db: Any) -> None:
    _run(db, _REMINDERS_4)


def _posts_5(db: Any) -> None:
    _run(db, _POSTS_5)


def _people_6(db: Any) -> None:
    _run(db, _PEOPLE_6)


def _told_7(db: Any) -> None:
    _run(db, _TOLD_7)


def _run(db: Any, script: str) -> None:
    # executescript would commit the surrounding transaction, so the statements run one by one.
    for statement in script.split(";\n"):
        if statement.strip():
            db.conn.execute(statement)


_MIGRATIONS: tuple[Callable[[Any], None], ...] = (
    _tables_1,
    _gaps_2,
    _incidents_3,
    _reminders_4,
    _posts_5,
    _people_6,
    _told_7,
)


def migrate(con: sqlite3.Connection, path: str) -> None:
    """Bring the file to ``VERSION``, in one transaction. The caller holds the gate alone.

    Raises ``OutboxError`` for a file of a newer orchclient, or of another program.
    """
    con.execute("BEGIN IMMEDIATE")
    try:
        if _version(con, path) < VERSION:
            _apply(con)
            con.execute(f"PRAGMA user_version={VERSION}")
        con.execute("COMMIT")
    except BaseException:
        if con.in_transaction:
            con.execute("ROLLBACK")
        raise


def is_current(con: sqlite3.Connection, path: str) -> bool:
    """Whether the file needs no migration."""
    con.execute("BEGIN")  # one state for both questions below: another process may be migrating right now
    try:
        return _version(con, path) == VERSION
    finally:
        con.rollback()


def _version(con: sqlite3.Connection, path: str) -> int:
    version = int(con.execute("PRAGMA user_version").fetchone()[0])
    if version > VERSION:
        raise OutboxError(
            f"outbox {path} has schema {version}, this orchclient knows {VERSION}: upgrade it, or set ORCHCLIENT_DB"
        )
    if version == 0 and con.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        raise OutboxError(f"{path} is an SQLite file of another program: set ORCHCLIENT_DB to a path of its own")
    return version


def _apply(con: sqlite3.Connection) -> None:
    from sqlite_utils import Database
    from sqlite_utils.migrations import Migrations

    # Plugins of sqlite-utils are other people's code, and a trigger setting of theirs would stay on our connection.
    db = Database(con, execute_plugins=False, recursive_triggers=False)
    migrations = Migrations("orchclient")
    for function in _MIGRATIONS:
        migrations(name=function.__name__.strip("_"))(function)
    migrations.apply(db)
