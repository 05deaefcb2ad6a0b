"""Ends at once whatever the connections of an engine are doing: at a deadline, or because nobody waits any more.

A thread that waits for a database cannot be interrupted from outside. Its socket can be shut down, and SQLite can be
told: what is under way is rolled back, or was committed and nobody heard of it.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import Engine, event


class Cutter:
    """Knows the connections of an engine. Threads share it.

    All of them are cut, also those that wait in the pool: before one is given out it is tried, which may hang as well.
    """

    def __init__(self, engine: Engine) -> None:
        self._ends = _interrupt if engine.dialect.name == "sqlite" else _shut_down
        self._open: dict[int, Any] = {}
        self._has_cut = self._is_over = False
        event.listen(engine, "do_connect", self._connecting)
        event.listen(engine, "connect", self._connected)
        event.listen(engine, "close", self._closed)

    def cut(self) -> None:
        """End what is under way. It fails there as if the database had gone away, and finds no other connection."""
        self._has_cut = True
        for connection in list(self._open.values()):
            with suppress(Exception):  # it ended by itself meanwhile
                self._ends(connection)

    def end(self) -> None:
        """Cut, for good."""
        self._is_over = True
        self.cut()

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Cut what takes longer, and what other threads do meanwhile."""
        timer = threading.Timer(seconds, self.cut)
        timer.daemon = True
        with suppress(RuntimeError):  # no thread starts at the end of the interpreter: then the end cuts
            timer.start()
        try:
            yield
        finally:
            timer.cancel()
            self._has_cut = False

    def _connecting(self, dialect: Any, *_: object) -> None:
        if self._has_cut or self._is_over:  # the pool would try again, beyond the deadline
            raise dialect.loaded_dbapi.OperationalError("no answer in time")

    def _connected(self, connection: Any, _: object) -> None:
        self._open[id(connection)] = connection

    def _closed(self, connection: Any, _: object) -> None:
        self._open.pop(id(connection), None)


def _interrupt(connection: Any) -> None:
    connection.turns.is_over.set()
    connection.interrupt()


def _shut_down(connection: Any) -> None:
    # A duplicate of the descriptor: the driver's own stays as it is, and reads the end of the stream.
    with socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)
