"""Checkpoints: what is in the -wal goes into the database file, while nobody commits.

On a connection of their own, since any thread may come with one while another one commits. Rule 1 of "What SQLite needs
from us" in docs/architecture.md.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import suppress

from orchclient.outbox.connection import connect, translated
from orchclient.outbox.gate import is_locked_alone, lock_file
from orchclient.outbox.stillness import STILLNESS
from orchclient.outbox.wal import Wal

CHECKPOINT_TOTAL_S = 0.5
"""How long a checkpoint waits for a moment in which nobody commits, before it is left for later."""


class Checkpoints:
    """The checkpoints of one process, and the connection that the first of them opens."""

    def __init__(self) -> None:
        self._at_work = threading.Lock()
        self._con: sqlite3.Connection | None = None
        self._is_ended = False

    def checkpoint(self, wal: Wal, gate_path: str, *, wait: bool) -> bool:
        """Move the content of ``wal``, alone at the gate; whether it was done.

        Not when somebody commits right now, with ``wait`` for half a second: a process that was stopped in the middle
        of a commit must not stop everybody else. Raises ``OutboxError``.
        """
        with STILLNESS, translated(wal.path), lock_file(gate_path) as gate:
            if not is_locked_alone(gate, CHECKPOINT_TOTAL_S if wait else 0.0):
                return False
            with self._at_work:
                if self._is_ended:
                    return False
                self._move(wal)
        return True

    def _move(self, wal: Wal) -> None:
        con = self._con  # the files may be opened anew meanwhile, which lets go of it
        if con is None:
            con = self._con = connect(wal.path)
            con.execute("PRAGMA busy_timeout=0")
        # PASSIVE never waits for readers; the next writer restarts the -wal once everything is moved.
        _, frames, moved = con.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if moved < frames:
            wal.note_held_back()
            return
        wal.note_moved()
        if wal.is_over:  # a reader was in the way, or events are large
            con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def let_go(self) -> sqlite3.Connection | None:
        """Forget the connection without closing it, since other files are open now: the next checkpoint opens one."""
        con, self._con = self._con, None
        return con

    def start_anew(self) -> sqlite3.Connection | None:
        """In a forked child: the same, and no other thread is at it. The connection must be kept as it is."""
        self._at_work = threading.Lock()
        return self.let_go()

    def end(self) -> None:
        """Close the connection; a later checkpoint is not done."""
        self._is_ended = True
        # Else a thread is in the middle of one, on a busy machine: to close the connection under it would be a crash.
        if self._at_work.acquire(timeout=CHECKPOINT_TOTAL_S):
            con = self.let_go()
            if con is not None:
                with suppress(sqlite3.Error):
                    con.close()
            self._at_work.release()
