"""What is done about files that were lost or damaged: new ones in their place, and what can be had of the old ones.

Lost files have no name any more, but the connection to them still reads every event: they are ghosts, kept open until
their events are in the file at the path. Damaged files get another name, and a note names them until the same is done
of what can be read. A rescue that fails is tried again by the next who opens the files; nobody else rescues meanwhile.
Says in which order; what is copied, ``salvage`` knows, and what is noted, ``owed``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Protocol

from attrs import frozen

from orchclient.core.errors import OutboxError
from orchclient.outbox import checkup, files, owed
from orchclient.outbox.connection import is_damage, retry_busy, translated
from orchclient.outbox.gate import Gate, alone

# ``salvage`` is imported where it is needed: only when a file is lost or damaged.

Copy = Callable[[sqlite3.Connection, sqlite3.Connection, str, int], int]
"""Copies what the second connection lacks from the first, under a new source, at an instant; how many events."""

SALVAGE_TOTAL_S = 60.0
"""How long a process waits for another one that copies events out of lost or damaged files."""


class Store(Protocol):
    """Whoever opens the files."""

    path: str
    gate: Gate

    def refuse_lone_wal(self) -> None:
        """Raise ``OutboxError`` with damage as its cause when the database is gone or empty, and its -wal is not."""

    def open_replacement(self) -> sqlite3.Connection:
        """Open what the path names now, a new file if need be, whatever it is known to have held."""

    def closed_on_failure(self, con: sqlite3.Connection) -> AbstractContextManager[None]:
        """A block after whose failure the connection is closed."""

    def note_held(self, con: sqlite3.Connection) -> None:
        """Write down what the file holds now."""

    def new_identity(self) -> tuple[str, int]:
        """A fresh source, and now."""


class Ghosts:
    """Connections of one process to lost files whose events have no other place yet."""

    def __init__(self) -> None:
        self.connections: list[sqlite3.Connection] = []
        self.files: set[files.FileIdentity] = set()  # which they hold open

    def add(self, ghost: sqlite3.Connection, *lost: files.FileIdentity) -> None:
        """Hold lost files open until a rescue has brought what they hold to the path."""
        self.connections.append(ghost)
        self.files.update(lost)


@frozen
class Rescue:
    """One rescue, by the thread that opens the files of ``store``, alone among processes while it opens them."""

    _store: Store
    _ghosts: Ghosts
    _acquitted: set[files.FileIdentity]  # files that were found sound after all
    _now_us: Callable[[], int]

    def open_adopted(self) -> sqlite3.Connection:
        """Open what the path names now, a new file if need be, and bring what the lost files held into it."""
        with self._salvaging():
            owed.end_moves(self._store.path)
            con = self._adopt()
            self._take_over(con)
        return con

    def open_owing(self) -> sqlite3.Connection:
        """Somebody sets files aside, or ended in the middle: what they hold is taken over before anything else."""
        path = self._store.path
        with self._salvaging():
            owed.end_moves(path)
            found = files.identity(path)
            con = self._opened_unless_damaged()
            if isinstance(con, sqlite3.Error):
                con = self._open_another(con, found)
            self._take_over(con)
            return con

    def _opened_unless_damaged(self) -> sqlite3.Connection | sqlite3.Error:
        """What the path names, opened; the damage that was met."""
        try:
            self._store.refuse_lone_wal()
            return self._store.open_replacement()
        except OutboxError as error:
            if not is_damage(error.__cause__):
                raise
            return error.__cause__

    def replace_damaged(self, error: BaseException, found: files.FileIdentity | None) -> sqlite3.Connection:
        """Set damaged files aside, open new ones, and take over what can be read of the old ones.

        ``found``: the database in which the damage was met. Another one at the path is left there.
        """
        with self._salvaging():
            owed.end_moves(self._store.path)
            con = self._open_another(error, found)
            self._take_over(con)
            return con

    @contextmanager
    def _salvaging(self) -> Iterator[None]:
        """Alone among the processes that find the same damage or loss at the same time."""
        path = self._store.path
        with files.translated(Path(path)), alone(path + ".salvage", SALVAGE_TOTAL_S):
            yield

    def _adopt(self) -> sqlite3.Connection:
        """A set that is not whole, or no outbox, is set aside first.

        Not by ``replace_damaged``: it would wait for the lock that is held here.
        """
        if self._holds_part_of_ours():
            self._set_aside("the other files of its set were taken away")
        try:
            return self._store.open_replacement()
        except OutboxError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) or (isinstance(cause, sqlite3.Error) and not is_damage(cause)):
                raise
            self._set_aside(cause or error)
            return self._store.open_replacement()

    def _holds_part_of_ours(self) -> bool:
        """Whether the path names some of our files: a database without its -wal, or a -wal without its database."""
        path = self._store.path
        return any(files.identity(each) in self._ghosts.files for each in (path + "-wal", path))

    def _open_another(self, error: BaseException, found: files.FileIdentity | None) -> sqlite3.Connection:
        from orchclient.outbox import salvage

        if files.identity(self._store.path) == found:  # else another process met the same damage, and replaced them
            salvage.refuse_unreadable(self._store.path)
            con = self._sound_after_all(found)
            if con is not None:
                return con
            self._set_aside(error)
        return self._store.open_replacement()

    def _sound_after_all(self, found: files.FileIdentity | None) -> sqlite3.Connection | None:
        """A connection, when nothing is wrong with the file now that the disk can be read: SQLite says of a disk that
        cannot that the file is malformed. Not twice of one file: then the check does not see what is wrong with it.
        """
        if found is None or found in self._acquitted:
            return None
        con = self._opened_unless_damaged()
        if isinstance(con, sqlite3.Error):
            return None
        with self._store.closed_on_failure(con):
            if checkup.is_known_to_be_sound(con):
                self._acquitted.add(found)
                return con
        con.close()
        return None

    def _set_aside(self, why: BaseException | str) -> None:
        from orchclient.outbox import salvage

        salvage.set_aside(self._store.path, self._now_us(), why)

    def _take_over(self, con: sqlite3.Connection) -> None:
        """Bring what lost and damaged files held into the file that is open. What fails is tried again at the next."""
        from orchclient.outbox import salvage

        path = self._store.path
        with self._store.closed_on_failure(con):
            ours, others = self._owed()
            for entry in others:
                self._take_over_aside(con, entry)
            while ghosts := self._ghosts.connections:
                copied = self._copied(con, ghosts[-1], salvage.copy_lost)
                ghosts.pop().close()
                salvage.announce_lost(path, copied)
            self._ghosts.files.clear()
            self._store.note_held(con)  # before the note goes: a crash between them would be told as a loss
            for entry in ours:
                owed.settle(path, entry)

    def _owed(self) -> tuple[list[owed.Owed], list[owed.Owed]]:
        """What was set aside and is not taken over: parts of what our ghosts hold whole, and all else."""
        path = self._store.path
        ours: list[owed.Owed] = []
        others: list[owed.Owed] = []
        for entry in owed.owed(path):
            named = {files.identity(entry.path(path) + ending) for ending in owed.ENDINGS}
            (ours if named & self._ghosts.files else others).append(entry)
        return ours, others

    def _take_over_aside(self, con: sqlite3.Connection, entry: owed.Owed) -> None:
        from orchclient.outbox import salvage

        path = self._store.path
        aside = entry.path(path)
        try:
            damaged = salvage.opened_aside(aside)
        except sqlite3.Error as error:
            salvage.announce_unreadable(path, aside, entry.why, error)
        else:
            with closing(damaged):
                copied = self._copied(con, damaged, salvage.copy_readable)
            salvage.announce_damaged(path, aside, entry.why, copied)
        self._store.note_held(con)
        owed.settle(path, entry)

    def _copied(self, con: sqlite3.Connection, old: sqlite3.Connection, copy: Copy) -> int:
        source, now_us = self._store.new_identity()
        with self._store.gate.shared(), translated(self._store.path), con:
            retry_busy(lambda: con.execute("BEGIN IMMEDIATE"))
            return copy(old, con, source, now_us)
