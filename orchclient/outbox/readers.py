"""Questions to an outbox, each on a reading connection that no other thread uses meanwhile.

To close a connection while another thread is inside SQLite with it ends the process with a segmentation fault: neither
SQLite nor Python's sqlite3 looks. So whoever takes one out of the idle ones is the only one who may use or close it,
also while the outbox is closed: a thread that still asks then closes its own when it has its answer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from orchclient.core.errors import OutboxError
from orchclient.outbox.connection import (
    DISK_CODES,
    connect,
    is_damage,
    is_no_text,
    primary_code,
    retry_busy,
    text_as_far_as_it_goes,
)

T = TypeVar("T")


class Readers:
    """The reading connections of one process to the files that the path named when they were opened."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._idle: list[sqlite3.Connection] = []
        self._is_closed = False

    def ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Ask a question of one consistent state; BUSY is waited out.

        Raises SQLite's errors, and ``OutboxError`` when no connection could be opened or after ``close``.
        """
        if self._is_closed:
            raise OutboxError(f"outbox {self._path} is closed: open a new client to ask it")
        con, is_fit = self._taken_out(), True
        try:
            return retry_busy(lambda: _in_one_state(con, question))
        except sqlite3.Error as error:
            is_fit = not may_pass(error)
            raise
        finally:
            if is_fit:
                self._idle.append(con)
            else:  # nor are the others: what they believe of the file may be wrong
                con.close()
            if not is_fit or self._is_closed:
                self._close_idle()

    def _taken_out(self) -> sqlite3.Connection:
        try:
            return self._idle.pop()
        except IndexError:
            return connect(self._path, read_only=True)

    def _close_idle(self) -> None:
        for con in self.taken_out():
            with suppress(sqlite3.Error):
                con.close()

    def taken_out(self) -> list[sqlite3.Connection]:
        """All that no thread uses now; they are the caller's from now on."""
        idle: list[sqlite3.Connection] = []
        try:
            while True:
                idle.append(self._idle.pop())  # other threads take from it too
        except IndexError:
            return idle

    def close(self) -> None:
        """Close what is not in use; what is, is closed by the thread that uses it. Later questions are refused."""
        self._is_closed = True  # before the idle ones are taken: who gives one back later sees it
        self._close_idle()


def _in_one_state(con: sqlite3.Connection, question: Callable[[sqlite3.Connection], T]) -> T:
    con.execute("BEGIN")
    try:
        return question(con)
    except sqlite3.OperationalError as error:
        if not is_no_text(error):
            raise
        con.text_factory = text_as_far_as_it_goes
        return question(con)
    finally:
        con.text_factory = str
        if con.in_transaction:  # an I/O error has ended it
            con.execute("ROLLBACK")


def may_pass(error: BaseException | None) -> bool:
    """Whether a disk with one bad moment may be all there is to it."""
    return isinstance(error, sqlite3.Error) and (primary_code(error) in DISK_CODES or is_damage(error))
