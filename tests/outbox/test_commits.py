"""Who commits, syncs and wakes whom: threads that share a commit, and processes that share a file."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from orchclient.core.errors import OutboxBusy
from orchclient.outbox import commits, writer
from orchclient.outbox.connection import connect
from orchclient.outbox.outbox import Outbox
from orchclient.outbox.wal_sync import WalSync
from tests.outbox.test_outbox import event, opened, places, record

WAIT_S = 20.0


@pytest.fixture
def outbox(outbox_path: Path) -> Iterator[Outbox]:
    with closing(opened(outbox_path)) as made:
        yield made


@contextmanager
def held(outbox: Outbox) -> Iterator[Callable[[int], None]]:
    """A thread keeps all others from committing; what is yielded waits until so many stand in the queue."""
    is_held, go_on = threading.Event(), threading.Event()

    def hold(con: sqlite3.Connection) -> None:
        is_held.set()
        assert go_on.wait(WAIT_S)

    def wait_for(length: int) -> None:
        while len(outbox._writer._waiting) < length:
            threading.Event().wait(0.001)

    holder = threading.Thread(target=outbox.write, args=(hold,))
    holder.start()
    assert is_held.wait(WAIT_S)
    try:
        yield wait_for
    finally:
        go_on.set()
        holder.join()


def recorded_together(outbox: Outbox, records: list[Callable[[], int]]) -> list[int]:
    """The places of events that all waited for the same commit, in the order in which they came."""
    with ThreadPoolExecutor(len(records)) as pool:
        with held(outbox) as wait_for:
            futures: list[Future[int]] = []
            for each in records:
                futures.append(pool.submit(each))
                wait_for(len(futures))
        return [future.result(WAIT_S) for future in futures]


def statements(outbox: Outbox) -> list[str]:
    seen: list[str] = []
    outbox._store.connection().set_trace_callback(seen.append)
    return seen


# --- threads ----------------------------------------------------------------------------------------------------------


def test_events_that_wait_together_are_one_statement_and_each_gets_its_own_place(outbox: Outbox) -> None:
    record(outbox)
    seen = statements(outbox)
    tasks = [f"t{number}" for number in range(6)]
    seqs = recorded_together(outbox, [lambda task=task: record(outbox, task) for task in tasks])  # type: ignore[misc]
    assert seqs == [2, 3, 4, 5, 6, 7]
    assert [each.partition(" ")[0] for each in seen if "INTO events" in each] == ["INSERT"]
    stored = outbox.query(lambda con: con.execute("SELECT seq, task FROM events WHERE seq > 1 ORDER BY seq").fetchall())
    assert stored == list(zip(seqs, tasks, strict=True))


def test_events_that_wait_together_with_other_works_are_one_transaction(outbox: Outbox) -> None:
    seen = statements(outbox)
    other: list[Callable[[], Any]] = [lambda: outbox.write(lambda con: None)]
    assert recorded_together(outbox, [lambda: record(outbox), *other, lambda: record(outbox)]) == [1, None, 2]
    assert seen.count("COMMIT") == 2  # the holder's, and the group's


def test_who_commits_for_others_rings_for_two_at_most_and_each_who_leaves_for_one(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    rung: dict[int, int] = defaultdict(int)

    class Bell(SimpleQueue[None]):
        def put(self, *args: Any, **options: Any) -> None:
            rung[threading.get_ident()] += 1
            super().put(*args, **options)

    monkeypatch.setattr(writer, "SimpleQueue", Bell)
    recorded_together(outbox, [lambda: record(outbox)] * 8)
    assert (max(rung.values()) <= 2, sum(rung.values()) <= 10) == (True, True), rung


# --- processes --------------------------------------------------------------------------------------------------------


def meet_somebody(outbox: Outbox, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Record while another connection has the file for a moment."""
    pauses: list[float] = []
    with closing(connect(str(path))) as other:
        other.execute("BEGIN IMMEDIATE")

        def pause(self: Any) -> bool:
            pauses.append(1)
            other.execute("ROLLBACK")
            return True

        with monkeypatch.context() as patch:
            patch.setattr(commits.Patience, "pause", pause)
            record(outbox)
    assert pauses == [1]


def sees_others_commit_while_it_syncs(outbox: Outbox, path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record an event that is synced; what another connection finds while it is synced by us, if it is."""
    found: list[int] = []
    honest = outbox._store.sync

    def sync() -> None:
        with closing(connect(str(path))) as other:
            other.execute("PRAGMA busy_timeout=0")
            other.execute("BEGIN IMMEDIATE")
            found.append(other.execute("SELECT max(seq) FROM events").fetchone()[0])
            other.execute("ROLLBACK")
        honest()

    monkeypatch.setattr(outbox._store, "sync", sync)
    outbox.record(event(), None, True)
    return found


def test_who_met_another_process_lets_go_of_the_file_before_it_syncs(
    outbox_path: Path, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(outbox)
    meet_somebody(outbox, outbox_path, monkeypatch)
    assert sees_others_commit_while_it_syncs(outbox, outbox_path, monkeypatch) == [3]
    assert not outbox.has_unsynced


def test_who_met_nobody_for_a_second_lets_sqlite_sync(
    outbox_path: Path, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(outbox)
    assert sees_others_commit_while_it_syncs(outbox, outbox_path, monkeypatch) == []
    monkeypatch.setattr(commits, "MET_FOR_S", 0.0)
    meet_somebody(outbox, outbox_path, monkeypatch)
    assert sees_others_commit_while_it_syncs(outbox, outbox_path, monkeypatch) == []


def test_a_sync_of_ours_that_fails_is_made_good_before_the_call_returns(
    outbox_path: Path, outbox: Outbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    record(outbox)
    meet_somebody(outbox, outbox_path, monkeypatch)

    def fail() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(outbox._store, "sync", fail)
    assert outbox.record(event(), None, True) == 3
    assert (places(outbox), outbox.has_unsynced) == ([1, 2, 3], False)
    assert "all in doubt was written again" in caplog.text


def test_a_foreign_change_of_status_is_looked_at_when_it_matters_and_not_before(
    outbox_path: Path, outbox: Outbox
) -> None:
    record(outbox, status="in_progress")
    with closing(opened(outbox_path)) as other:
        record(other, status="testing")
    seen = statements(outbox)
    outbox.record(event("another"), None, True)
    assert not [each for each in seen if "DISTINCT task" in each]
    record(outbox, status="in_progress")
    assert [each for each in seen if "DISTINCT task" in each]
    assert not outbox.has_unsynced


# --- the late sync ----------------------------------------------------------------------------------------------------


def test_nobody_waits_for_a_late_sync_and_what_came_meanwhile_is_not_taken_for_synced(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(outbox)
    record(outbox)
    assert outbox.has_unsynced
    another, syncs, may_end = WalSync.another, threading.Event(), threading.Event()

    def slow(self: WalSync) -> WalSync:
        made = another(self)
        honest = made.sync

        def sync() -> None:
            syncs.set()
            assert may_end.wait(WAIT_S)
            honest()

        made.sync = sync
        return made

    monkeypatch.setattr(WalSync, "another", slow)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(outbox.sync)
        assert syncs.wait(WAIT_S)
        assert record(outbox) == 3
        may_end.set()
        late.result(WAIT_S)
    assert outbox.has_unsynced
    outbox.sync()
    assert not outbox.has_unsynced


def test_a_late_sync_waits_for_who_keeps_others_from_committing(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "BUSY_TOTAL_S", 0.1)
    monkeypatch.setattr(writer.Writer.acquire, "__defaults__", (0.1,))
    with held(outbox), pytest.raises(OutboxBusy):
        outbox.sync()


def test_inside_a_transaction_the_sync_is_that_of_its_commit(outbox: Outbox) -> None:
    record(outbox)
    with outbox.transaction():
        record(outbox)
        outbox.sync()
    assert not outbox.has_unsynced


def test_a_late_sync_that_fails_is_made_good(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    record(outbox)
    record(outbox)
    another = WalSync.another

    def failing(self: WalSync) -> WalSync:
        made = another(self)

        def fail() -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        made.sync = fail
        return made

    with monkeypatch.context() as patch:
        patch.setattr(WalSync, "another", failing)
        outbox.sync()
    assert not outbox.has_unsynced
    assert "all in doubt was written again" in caplog.text
    assert record(outbox) == 3


def test_what_a_checkpoint_would_sync_is_synced_before_it_keeps_others_out(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(outbox)
    record(outbox)
    seen: list[bool] = []
    honest = outbox._store.checkpoint

    def checkpoint(*, wait: bool) -> bool:
        seen.append(outbox.has_unsynced)
        return honest(wait=wait)

    monkeypatch.setattr(outbox._store, "checkpoint", checkpoint)
    assert outbox.has_unsynced
    outbox._checkpoint(wait=True)
    assert seen == [False]
