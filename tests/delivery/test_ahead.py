"""The next batch is read while the receiver works, and counts only when it is still what would be read."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from orchclient.core.batching import BatchLimit
from orchclient.core.gap import GapReason
from orchclient.delivery.ahead import read_ahead
from orchclient.delivery.worker import Worker
from orchclient.outbox import bulk, gaps
from orchclient.outbox.outbox import Outbox
from orchclient.testing.receiver import Receiver
from tests.conftest import MakeClient
from tests.outbox.test_outbox import event, opened

LIMIT = BatchLimit(events=4, max_events=4)


def filled(path: Path, count: int) -> Outbox:
    outbox = opened(path)
    for number in range(count):
        outbox.record(event(us=number), None, False)
    return outbox


def holds(outbox: Outbox, after_seq: int, limit: BatchLimit = LIMIT) -> bool:
    ahead = read_ahead(outbox, 2, LIMIT)
    assert ahead is not None
    return outbox.query(lambda con: ahead.holds(con, outbox.generation, after_seq, limit))


def fold(con: sqlite3.Connection, seq: int) -> None:
    """As an event goes that is superseded, at a limit: the ledger tells of it."""
    con.execute("DELETE FROM events WHERE seq = ?", (seq,))
    gaps.add(con, gaps.JOURNAL, seq, seq, GapReason.FOLDED, 0)


def test_it_counts_where_the_cursor_stands_and_nowhere_else(outbox_path: Path) -> None:
    with closing(filled(outbox_path, 9)) as outbox:
        assert [holds(outbox, after_seq) for after_seq in (1, 2, 3)] == [False, True, False]


def test_it_does_not_count_under_another_limit(outbox_path: Path) -> None:
    with closing(filled(outbox_path, 9)) as outbox:
        assert not holds(outbox, 2, LIMIT.after_outage().after_poison(4))


def test_a_batch_that_was_not_full_is_read_again_since_there_may_be_more(outbox_path: Path) -> None:
    with closing(filled(outbox_path, 5)) as outbox:
        assert not holds(outbox, 2)


def test_what_was_folded_since_is_not_sent(outbox_path: Path) -> None:
    with closing(filled(outbox_path, 9)) as outbox:
        ahead = read_ahead(outbox, 2, LIMIT)
        outbox.write(lambda con: fold(con, 4))
        assert ahead is not None
        assert not outbox.query(lambda con: ahead.holds(con, outbox.generation, 2, LIMIT))


def test_what_was_read_of_other_files_does_not_count(outbox_path: Path) -> None:
    """The same places may be other events there."""
    with closing(filled(outbox_path, 9)) as outbox:
        ahead = read_ahead(outbox, 2, LIMIT)
        for ending in ("", "-wal", "-shm"):
            outbox_path.with_name(outbox_path.name + ending).unlink()
        outbox.record(event(us=9), None, False)
        assert ahead is not None
        assert not outbox.query(lambda con: ahead.holds(con, outbox.generation, 2, LIMIT))


def test_what_was_folded_before_is_not_read_twice(outbox_path: Path) -> None:
    with closing(filled(outbox_path, 9)) as outbox:
        outbox.write(lambda con: fold(con, 4))
        assert holds(outbox, 2)


def test_a_backlog_is_read_once_and_all_but_the_first_batch_ahead(
    make_client: MakeClient, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    next_rows = Worker._next_rows

    def counted(self: Worker, con: object, after_seq: int) -> object:
        ahead = self._ahead
        rows = next_rows(self, con, after_seq)  # type: ignore[arg-type]
        if rows.whole:
            read.append(ahead is not None and rows is ahead.rows)
        return rows

    monkeypatch.setattr(Worker, "_next_rows", counted)
    client = make_client(background=False, url=receiver.url)
    for number in range(2500):
        client.update_task_status("t", "in_progress", None, number % 101)
    assert client.flush(30)
    assert len({event["id"] for event in receiver.events}) == len(receiver.events) == 2500
    assert [event["sequence"] for event in receiver.events] == sorted(event["sequence"] for event in receiver.events)
    assert read[1:] == [False] + [True] * 4  # the first time to greet, the second to send


def test_events_are_put_together_by_sqlite_while_this_process_records_and_read_one_by_one_else(
    make_client: MakeClient, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one row the reading does not disturb who records; each by itself is quicker where nobody does."""
    ways: list[bool] = []
    read_next = bulk.read_next

    def noted(con: sqlite3.Connection, after_seq: int, limit: BatchLimit, *, one_by_one: bool) -> list[bulk.Row]:
        ways.append(one_by_one)
        return read_next(con, after_seq, limit, one_by_one=one_by_one)

    monkeypatch.setattr(bulk, "read_next", noted)
    client = make_client(background=False, url=receiver.url)
    for number in range(1500):
        client.update_task_status("t", "in_progress", None, number % 101)
    assert client.flush(30)
    assert ways == [False] + [True] * (len(ways) - 1)
