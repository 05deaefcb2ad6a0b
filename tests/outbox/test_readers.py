"""Who may use and close a connection that asks, while the outbox is closed or found broken."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from orchclient.core.errors import OutboxError
from orchclient.outbox import past, readers
from orchclient.outbox.connection import connect
from orchclient.outbox.readers import Readers
from tests.outbox.test_outbox import opened, record

T = TypeVar("T")
WAIT_S = 30.0


@pytest.fixture
def path(outbox_path: Path) -> Path:
    """An outbox with one event."""
    with closing(opened(outbox_path)) as made:
        record(made)
    return outbox_path


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[sqlite3.Connection]]:
    """The connections that are opened to ask with."""
    connections: list[sqlite3.Connection] = []

    def noted(path: str, *, read_only: bool) -> sqlite3.Connection:
        connections.append(connect(path, read_only=read_only))
        return connections[-1]

    monkeypatch.setattr(readers, "connect", noted)
    yield connections
    for con in connections:
        con.close()


def is_closed(con: sqlite3.Connection) -> bool:
    try:
        con.execute("SELECT 1")
    except sqlite3.ProgrammingError:
        return True
    return False


def count(con: sqlite3.Connection) -> int:
    return int(con.execute("SELECT count(*) FROM events").fetchone()[0])


class Slow:
    """A question that takes until it is let go."""

    def __init__(self) -> None:
        self.is_asked, self.may_end = threading.Event(), threading.Event()

    def __call__(self, con: sqlite3.Connection) -> int:
        self.is_asked.set()
        assert self.may_end.wait(WAIT_S)
        return count(con)


def asked_at_once(asking: Readers, times: int, meanwhile: Callable[[], None]) -> list[int]:
    """What so many threads are told that ask at the same time, with something done while all are at it."""
    questions = [Slow() for _ in range(times)]
    with ThreadPoolExecutor(times) as pool:
        told: list[Future[int]] = [pool.submit(asking.ask, question) for question in questions]
        with ExitStack() as stack:
            for question in questions:
                stack.callback(question.may_end.set)
                assert question.is_asked.wait(WAIT_S)
            meanwhile()
    return [each.result() for each in told]


def test_threads_that_ask_at_once_have_a_connection_each_and_those_after_them_use_the_same(
    path: Path, made: list[sqlite3.Connection]
) -> None:
    asking = Readers(str(path))
    assert asked_at_once(asking, 3, lambda: None) == [1, 1, 1]
    assert asked_at_once(asking, 3, lambda: None) == [1, 1, 1]
    assert len(made) == 3


def test_a_close_leaves_connections_in_use_to_those_who_use_them_and_they_close_them(
    path: Path, made: list[sqlite3.Connection]
) -> None:
    asking = Readers(str(path))
    assert asked_at_once(asking, 2, lambda: None) == [1, 1]
    assert asked_at_once(asking, 1, asking.close) == [1]
    assert [is_closed(con) for con in made] == [True, True]
    with pytest.raises(OutboxError, match="is closed: open a new client"):
        asking.ask(count)


def test_a_connection_that_is_taken_while_others_are_closed_is_not_closed_under_its_user(path: Path) -> None:
    """To close it while its thread is inside SQLite would end the process with a segmentation fault."""
    asking, question = Readers(str(path)), Slow()
    with ThreadPoolExecutor(1) as pool:
        told: list[Future[int]] = []

        class Idle(sqlite3.Connection):
            """Somebody asks while it is closed, and takes the other one."""

            def close(self) -> None:
                if not told:
                    told.append(pool.submit(asking.ask, question))
                    assert question.is_asked.wait(WAIT_S)
                super().close()

        idle = [sqlite3.connect(path, check_same_thread=False, isolation_level=None, factory=Idle) for _ in range(2)]
        asking._idle = list(idle)
        asking._close_idle()  # as after an error on another connection: questions go on
        question.may_end.set()
        assert told[0].result(WAIT_S) == 1
    for con in idle:
        con.close()


def test_a_question_that_meets_a_broken_disk_takes_all_connections_out_of_use(
    path: Path, made: list[sqlite3.Connection]
) -> None:
    asking = Readers(str(path))
    assert asked_at_once(asking, 2, lambda: None) == [1, 1]

    def meets_a_broken_disk(con: sqlite3.Connection) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
        raise error

    with pytest.raises(sqlite3.OperationalError, match="I/O"):
        asking.ask(meets_a_broken_disk)
    assert [is_closed(con) for con in made] == [True, True]
    assert asking.ask(count) == 1


def test_a_question_under_way_when_the_outbox_is_closed_gets_its_answer(outbox_path: Path) -> None:
    outbox, question = opened(outbox_path), Slow()
    record(outbox)
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(outbox.query, question)
        assert question.is_asked.wait(WAIT_S)
        outbox.close()
        question.may_end.set()
        assert told.result(WAIT_S) == 1


def test_a_mark_is_never_written_to_a_descriptor_that_another_thread_closes(
    outbox_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is closed is the number of the next file that anybody opens."""
    outbox, held = opened(outbox_path), []
    kept = outbox._store._past
    assert kept is not None

    def alone(act: Callable[..., T]) -> Callable[..., T]:
        def noted(*arguments: Any) -> T:
            held.append((act.__name__, kept._at_work.locked()))
            return act(*arguments)

        return noted

    functions = {**vars(os), "pwrite": alone(os.pwrite), "close": alone(os.close)}
    monkeypatch.setattr(past, "os", SimpleNamespace(**functions))
    record(outbox)
    outbox._store.note_past()
    outbox.close()
    kept._write(past.Mark("source", 7))  # by a thread that is late
    assert held == [("pwrite", True), ("pwrite", True), ("close", True)]
