"""Looking into an outbox without opening it as those do who record: nothing is made, repaired or locked.

A file at rest (no -wal, and as its mark says the last one left it) is read as it lies there, on a read-only file system
too; if it has changed when the question is answered, the answer does not count. Beside a process that delivers from
it, it is read as SQLite's readers do. What a crash left where nothing can be written, as on a file system that has
become read-only, is read in a copy elsewhere. Whatever else is met (a crash before, damage, an older schema, an error)
is a case for those who open it whole, and is left to them: so is every question then.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from orchclient.core.errors import OutboxError
from orchclient.outbox import files
from orchclient.outbox.asides import is_noted
from orchclient.outbox.connection import connect
from orchclient.outbox.migrations import is_current
from orchclient.outbox.past import mark_beside
from orchclient.outbox.wal import wal_bytes

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory

    from orchclient.outbox.outbox import Outbox

T = TypeVar("T")


class _Moved(Exception):
    """The file changed while it was read as one that lies still."""


class Glance:
    """An outbox that is looked at. ``open_whole`` opens it as those do who record."""

    def __init__(self, path: Path, open_whole: Callable[[], Outbox], *, allow_network: bool = False) -> None:
        self._open_whole = open_whole
        self._whole: Outbox | None = None
        self._stands: tuple[int, ...] | None = None
        self._con: sqlite3.Connection | None = None
        self._copy: TemporaryDirectory[str] | None = None
        self.path = str(files.inspected(path, allow_network=allow_network))
        with suppress(sqlite3.Error, OutboxError, OSError):
            self._con = self._opened()
        if self._con is None:
            self._open()

    def _opened(self) -> sqlite3.Connection | None:
        """A connection that reads; None when it has to be opened whole."""
        if is_noted(self.path):
            return None
        self._stands = _at_rest(self.path)
        if self._stands is not None:
            con = sqlite3.connect(f"file:{quote(self.path)}?mode=ro&immutable=1", uri=True, isolation_level=None)
        elif _is_in_use(self.path):
            con = connect(self.path, read_only=True)
        elif not os.access(os.path.dirname(self.path), os.W_OK):
            con = connect(self._copied(), read_only=True)
        else:
            return None
        if is_current(con, self.path):
            return con
        con.close()
        return None

    def _copied(self) -> str:
        """A copy of the database with its -wal, where SQLite can recover it. Nobody has the files open."""
        from shutil import copyfileobj
        from tempfile import TemporaryDirectory

        self._copy = TemporaryDirectory(prefix="orchclient-")  # mode 0700
        copy = os.path.join(self._copy.name, "outbox.db")
        for ending in ("", "-wal"):
            with (
                suppress(FileNotFoundError),
                open(self.path + ending, "rb") as source,
                open(copy + ending, "xb", opener=_private) as target,
            ):
                copyfileobj(source, target)
        return copy

    def query(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Ask a question of one consistent state. Raises ``OutboxError``."""
        if self._con is not None:
            with suppress(sqlite3.Error, OutboxError, _Moved):
                return self._asked(self._con, question)
            self._open()
        assert self._whole is not None
        return self._whole.query(question)

    def _asked(self, con: sqlite3.Connection, question: Callable[[sqlite3.Connection], T]) -> T:
        con.execute("BEGIN")
        try:
            result = question(con)
        finally:
            con.rollback()
        if self._stands is not None and self._stands != _at_rest(self.path):
            raise _Moved
        return result

    def _open(self) -> None:
        self._let_go()
        self._whole = self._open_whole()

    def _let_go(self) -> None:
        con, self._con = self._con, None
        if con is not None:
            con.close()
        if self._copy is not None:
            self._copy.cleanup()

    def close(self) -> None:
        """Close it."""
        self._let_go()
        if self._whole is not None:
            self._whole.close()


def _private(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_CLOEXEC, 0o600)


def _at_rest(path: str) -> tuple[int, ...] | None:
    """How the database stands when it is as the last one left it who had it open; None when it is not."""
    mark = mark_beside(path)
    info = os.stat(path)
    stands = (info.st_size, info.st_mtime_ns, info.st_ino)
    is_as_it_was = mark is not None and (mark.size, mark.mtime_ns, mark.ino) == stands
    return stands if is_as_it_was and not wal_bytes(path) else None


def _is_in_use(path: str) -> bool:
    """Whether a process delivers from it: it has the files open, and has seen to whatever was wrong with them.

    The mark is locked by everybody who has it open, but trying that lock could make the next who opens the files think
    that somebody is there, and look at nothing. An election that is lost for it is held again at once.
    """
    directory, name = os.path.split(path)
    with os.scandir(directory) as entries:
        locks = [entry.path for entry in entries if entry.name.startswith(f"{name}.flusher-")]
    return any(map(_is_held, locks))


def _is_held(lock: str) -> bool:
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        flock(fd, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
