"""Who commits and wakes whom: threads that share a commit."""

from __future__ import annotations

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

from orchclient.outbox import writer
from orchclient.outbox.outbox import Outbox
from tests.outbox.test_outbox import opened, record

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
