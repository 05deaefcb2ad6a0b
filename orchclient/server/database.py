"""Engines and the ``SessionLocal`` factory: an embedded SQLite file, or PostgreSQL.

Writers of a SQLite file take turns at a side lock, in the process and between processes, and only the one whose turn
it is moves the -wal into the file: in SQLite 3.7.0 to 3.51.2 a checkpoint that meets a commit can corrupt it
(sqlite.org/wal.html), and a queue is fairer than SQLite's own waiting. Must not know the models.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

from orchclient.core.errors import ConfigError

SessionFactory = Callable[[], Session]
"""Anything that makes sessions: a ``sessionmaker``, or the function of an application."""

WAIT_S = 10.0
_TURN_S = 0.002
_MOVE_ABOVE = 8 * 1_048_576
_CUT_ABOVE = 64 * 1_048_576
_CUT_MS = 200
_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "wal_autocheckpoint=0", "cache_size=-16384")
_POOL = 16


def database_url(text: str, setting: str = "--db") -> URL:
    """The URL of a database; a plain path is a SQLite file. Raises ``ConfigError`` for what is neither."""
    if "://" not in text:
        return URL.create("sqlite", database=str(Path(text).expanduser()))
    try:
        url = make_url(text)
    except ArgumentError:
        form = "expected a path or postgresql://user@host/name"
        raise ConfigError(f"{setting} is not a URL of a database: {form}") from None
    backend = url.get_backend_name()
    if backend == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if backend != "sqlite" or not url.database or url.database == ":memory:":
        raise ConfigError(
            f"{setting} names {backend}: the orchestrator keeps its data in a SQLite file or in PostgreSQL"
        )
    return url


def is_missing(url: URL) -> bool:
    """Whether a URL names a file that is not there yet."""
    return url.get_backend_name() == "sqlite" and not os.path.exists(str(url.database))


def make_engine(url: str | URL, *, connect_s: float = WAIT_S) -> Engine:
    """An engine over a SQLite file or PostgreSQL, which has so long to answer. A new file is made with mode 0600.

    Raises ``ConfigError`` for another kind of database, and when the driver for PostgreSQL is not installed.
    """
    found = database_url(url) if isinstance(url, str) else url
    return _sqlite_engine(found) if found.get_backend_name() == "sqlite" else _postgresql_engine(found, connect_s)


def make_session_local(engine: Engine) -> sessionmaker[Session]:
    """The factory of sessions. On SQLite each of its transactions writes: it waits for its turn when it begins."""
    bound = engine.execution_options(orch_writes=True)
    return sessionmaker(bound, expire_on_commit=False)


def make_reader(engine: Engine) -> sessionmaker[Session]:
    """A factory of sessions that only read: they wait for nobody."""
    return sessionmaker(engine, expire_on_commit=False)


def _postgresql_engine(url: URL, connect_s: float) -> Engine:
    # The driver alone would wait for two minutes for a host that does not answer.
    patience = {} if "connect_timeout" in url.query else {"connect_timeout": ceil(connect_s)}
    pool: dict[str, Any] = {"pool_size": _POOL, "max_overflow": _POOL, "pool_timeout": WAIT_S, "pool_pre_ping": True}
    try:
        return create_engine(url, connect_args=patience, **pool)
    except ModuleNotFoundError:
        raise ConfigError("PostgreSQL needs its driver: pip install 'orchclient[postgres]'") from None


def _sqlite_engine(url: URL) -> Engine:
    path = Path(str(url.database)).resolve()
    _create(path)
    turns = Turns(path)

    def connect() -> _Connection:
        con = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None, check_same_thread=False, factory=_Connection)
        con.turns = turns
        for pragma in _PRAGMAS:
            _patient(con, f"PRAGMA {pragma}")
        return con

    # The connection that was used last comes first: the pages that it has in its cache are the newest.
    pool = {"pool_size": _POOL, "max_overflow": _POOL, "pool_timeout": WAIT_S, "pool_use_lifo": True}
    engine = create_engine(url, creator=connect, **pool)
    event.listen(engine, "begin", _begin)
    return engine


def _create(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    except OSError as error:
        raise ConfigError(f"the database {path} cannot be opened: {error.strerror}") from error


def _patient(con: sqlite3.Connection, statement: str) -> None:
    # The first switch of a file to WAL fails at once when two processes try it together, whatever the timeout.
    until = time.monotonic() + WAIT_S
    while True:
        try:
            con.execute(statement)
            return
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(_TURN_S)


def _begin(connection: Connection) -> None:
    con: Any = connection.connection.dbapi_connection
    if connection.get_execution_options().get("orch_writes"):
        try:
            con.begin_writing()
        except sqlite3.OperationalError as error:  # SQLAlchemy translates what it says itself only
            raise OperationalError("BEGIN IMMEDIATE", None, error) from error
    else:
        con.execute("BEGIN")


class Turns:
    """The queue of those who write one SQLite file."""

    def __init__(self, path: Path) -> None:
        self.wal = f"{path}-wal"
        self.move_above = _MOVE_ABOVE
        self.is_over = threading.Event()  # nobody of this process waits any more
        self._lock = threading.Lock()
        self._lock_path = f"{path}-turn"
        self._held: int | None = None

    def take(self) -> None:
        """Wait for the turn. Raises ``sqlite3.OperationalError`` when it does not come within 10 s."""
        until = time.monotonic() + WAIT_S
        if not self._lock.acquire(timeout=WAIT_S):
            raise sqlite3.OperationalError("database is locked: another thread writes for too long")
        try:
            self._take_among_processes(until)
        except BaseException:
            self._lock.release()
            raise

    def _take_among_processes(self, until: float) -> None:
        fd = os.open(self._lock_path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            while not _locked(fd):
                if time.monotonic() > until or self.is_over.is_set():
                    raise sqlite3.OperationalError("database is locked: another process writes for too long")
                time.sleep(_TURN_S)
        except BaseException:
            os.close(fd)
            raise
        self._held = fd

    def give(self) -> None:
        """End the turn."""
        fd, self._held = self._held, None
        if fd is not None:
            os.close(fd)
        self._lock.release()


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _Connection(sqlite3.Connection):
    """Holds its turn from the beginning of a transaction that writes to its end."""

    turns: Turns
    _has_turn = False

    def begin_writing(self) -> None:
        self.turns.take()
        self._has_turn = True
        try:
            self.execute("BEGIN IMMEDIATE")
        except BaseException:
            self._give()
            raise

    def commit(self) -> None:
        super().commit()
        if self._has_turn:
            try:
                self._move_wal()
            finally:
                self._give()

    def rollback(self) -> None:
        try:
            super().rollback()
        finally:
            self._give()

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._give()

    def _move_wal(self) -> None:
        """Move the -wal into the file and begin it anew.

        Readers that never pause would put that off for ever: from a certain size on they are awaited for a moment. What
        could not be moved is tried again when as much has been added.
        """
        size = _size(self.turns.wal)
        if size <= self.turns.move_above:
            return
        self.execute(f"PRAGMA busy_timeout={_CUT_MS if size > _CUT_ABOVE else 0}").close()
        try:
            self.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            self.execute(f"PRAGMA busy_timeout={int(WAIT_S * 1000)}").close()
        self.turns.move_above = _size(self.turns.wal) + _MOVE_ABOVE

    def _give(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self.turns.give()


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
