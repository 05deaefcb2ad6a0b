"""What a call costs does not depend on how much is stored: counted in SQLite's own instructions, not in seconds.

A question that reads more rows of a larger file executes more instructions of SQLite's virtual machine, on every
machine alike. ``benchmarks/scale.py`` measures the same in time, up to ten million events.
"""

from __future__ import annotations

import shutil
import sqlite3
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from attrs import define, field

from orchclient import OrchestratorClient
from orchclient.core.batching import BatchLimit
from orchclient.core.envelope import body_text, lane_of
from orchclient.core.events import Event
from orchclient.core.http import HttpReply, HttpRequest
from orchclient.core.ids import uuid7
from orchclient.delivery.clock import SystemClock
from orchclient.delivery.worker import Worker
from orchclient.outbox import bulk, checkpoints, cursors, desk, journal, leadership, listing, readers, retention, store
from orchclient.outbox.leadership import Holder
from orchclient.outbox.outbox import Outbox
from orchclient.sinks.orchestrator import OrchestratorSink

FEW, MANY = 10, 100_000
AT_MOST = 1.2
"""Times the instructions at few events: a deeper tree costs none, only a row more does."""

START_US = 1_700_000_000_000_000
BATCH = 5


@define
class Counter:
    """Instructions of every connection that is opened while it counts."""

    count: int = 0
    connections: list[sqlite3.Connection] = field(factory=list)

    def watch(self, con: sqlite3.Connection) -> sqlite3.Connection:
        con.set_progress_handler(self._step, 1)
        return con

    def _step(self) -> int:
        self.count += 1
        return 0


@contextmanager
def counting(patch: pytest.MonkeyPatch) -> Iterator[Counter]:
    """Counts the instructions of every outbox that is opened inside."""
    counter, connect = Counter(), store.connect
    with patch.context() as inner:
        for opener in (store, checkpoints, readers):
            inner.setattr(opener, "connect", lambda *args, **options: counter.watch(connect(*args, **options)))
        yield counter


def event(seq: int) -> Event:
    """The event at a place of the filled journal: one a millisecond, of 50 tasks."""
    at_us, task = START_US + seq * 1000, f"t{seq % 50}"
    id_ = uuid7(at_us // 1000, seq.to_bytes(10))
    body = body_text(id_, "task.status.v1", lane_of(task, "a"), "low", at_us, ',"status":"in_progress"')
    return Event(id_, task, "a", "task.status.v1", "low", at_us, crc32(body.encode()), body)


def fill(path: Path, count: int) -> None:
    """An outbox with so many events, folded; of one sink that is settled up to one batch, with two dead letters."""
    with OrchestratorClient("a", outbox=path, mode="offline", background=False) as client:
        outbox = client._station._outbox  # type: ignore[union-attr]
        outbox.write(lambda con: con.executemany(journal._INSERT, map(event, range(1, count + 1))))
        while outbox._fold(min(count, 500)):
            pass
        outbox.write(lambda con: settled(con, count))


def settled(con: sqlite3.Connection, count: int) -> None:
    """Everything is delivered but for one batch, and the first two are dead."""
    cursors.add_sink(con, "orchestrator", "orchestrator", "", 0, from_beginning=True)
    con.execute("UPDATE sinks SET cursor = ?", (count - BATCH,))
    for entry in list(journal.read_range(con, 0, 2)):
        desk.bury(con, "orchestrator", entry.seq, entry.task, 1, "bad", 0)


class Agreeable:
    """A transport whose receiver takes everything."""

    def send(self, request: HttpRequest, *, deadline_s: float) -> HttpReply:
        return HttpReply(200)

    def close(self) -> None: ...


def settle(outbox: Outbox, batch: int = BATCH) -> Callable[[], object]:
    """Turns of a worker: read the next batch, send it, settle it."""
    epoch = outbox.write(lambda con: leadership.begin_epoch(con, "orchestrator", Holder(1, "h", "a", 0)))
    sink = OrchestratorSink("http://127.0.0.1:9", lambda: None)
    worker = Worker(outbox, sink, Agreeable(), SystemClock(), epoch, limit=BatchLimit(batch, max_events=batch))
    worker._greeted = True
    return worker.turn


def find_old(outbox: Outbox) -> Callable[[], object]:
    id_ = event(3).id
    return lambda: outbox.query(lambda con: listing.event(con, id_[:20]))


def listed(**wanted: Any) -> Callable[[Outbox], Callable[[], object]]:
    return lambda outbox: lambda: outbox.query(lambda con: listing.events(con, limit=20, **wanted))


Station = Callable[[Outbox], Callable[[], object]]

QUESTIONS: dict[str, Station] = {
    "read the next batch": lambda outbox: lambda: outbox.query(lambda con: read(con)),
    "deliver and settle a batch": settle,
    "look for news": lambda outbox: lambda: outbox.query(journal.last_seq),
    "prune a slice": lambda outbox: lambda: outbox.write(lambda con: retention.prune(con, 0, START_US + 4000)),
    "find an old event by the beginning of its id": find_old,
    "list the newest": lambda outbox: lambda: outbox.query(lambda con: listing.events(con, limit=5)),
    "list the dead": listed(states=("dead",)),
    "list the parked": listed(states=("parked",)),
    "list the pending": listed(states=("pending",)),
    "list an unknown task": listed(task="nobody's"),
}


def read(con: sqlite3.Connection) -> object:
    row = cursors.sink(con, "orchestrator")
    assert row
    return bulk.read_next(con, row.cursor, BatchLimit(BATCH))


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Two outboxes, few events and many."""
    paths = {count: tmp_path_factory.mktemp(str(count)) / "outbox.db" for count in (FEW, MANY)}
    for count, path in paths.items():
        fill(path, count)
    return paths


@pytest.fixture
def filled(templates: dict[int, Path], tmp_path: Path) -> dict[int, Path]:
    """A copy of the two for each test."""
    return {count: Path(shutil.copy(path, tmp_path / f"{count}.db")) for count, path in templates.items()}


def instructions(path: Path, patch: pytest.MonkeyPatch, question: Station) -> int:
    """How many one call executes, on connections that know the tables already."""
    with counting(patch) as counter, OrchestratorClient("a", outbox=path, mode="offline", background=False) as client:
        outbox = client._station._outbox  # type: ignore[union-attr]
        ask = question(outbox)
        outbox.query(journal.last_seq)
        before = counter.count
        ask()
        return counter.count - before


def assert_flat(few: int, many: int) -> None:
    assert few > 0
    assert many <= few * AT_MOST, f"{few} instructions at {FEW} events, {many} at {MANY:,}"


@pytest.mark.parametrize("what", QUESTIONS)
def test_a_question_costs_the_same_at_any_number_of_events(
    filled: dict[int, Path], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(retention, "SLICE", 3)
    few, many = (instructions(filled[count], monkeypatch, QUESTIONS[what]) for count in (FEW, MANY))
    if what.startswith("find"):  # by bisection: so many steps more as the number has binary digits more
        assert many <= few * 5
    else:
        assert_flat(few, many)


CALLS: dict[str, Callable[[OrchestratorClient], object]] = {
    "progress": lambda client: client.update_task_status("t1", "in_progress", None, 5),
    "an error": lambda client: client.escalate_error("t1", "e", "m"),
    "health": lambda client: client.health(),
    "statistics": lambda client: client.get_communication_stats(),
    "a task's state": lambda client: client.task_state("t1"),
}


@pytest.mark.parametrize("what", CALLS)
def test_a_call_of_the_client_costs_the_same_at_any_number_of_events(
    filled: dict[int, Path], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def question(count: int) -> int:
        with counting(monkeypatch) as counter:
            client = OrchestratorClient("a", outbox=filled[count], mode="offline", background=False)
            with client:
                CALLS[what](client)
                before = counter.count
                CALLS[what](client)
                return counter.count - before

    assert_flat(question(FEW), question(MANY))


def test_opening_costs_the_same_at_any_number_of_events(
    filled: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(count: int) -> int:
        with counting(monkeypatch) as counter:
            client = OrchestratorClient("a", outbox=filled[count], mode="offline", background=False)
            found = counter.count
            client.close()
            return found

    assert_flat(opened(FEW), opened(MANY))


def test_a_record_call_reads_no_more_than_a_bounded_number_of_other_processes_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "outbox.db"

    def after_others(count: int) -> int:
        with counting(monkeypatch) as counter:
            client = OrchestratorClient("a", outbox=path, mode="offline", background=False)
            client.update_task_status("t1", "in_progress")
            with OrchestratorClient("b", outbox=path, mode="offline", background=False) as other:
                rows = map(event, range(count))
                other._station._outbox.write(  # type: ignore[union-attr]
                    lambda con: con.executemany(journal._INSERT, rows)
                )
            before = counter.count
            client.update_task_status("t1", "in_progress", None, 1)
            found = counter.count - before
            client.close()
            return found

    assert after_others(20_000) <= after_others(1000)


@pytest.mark.parametrize("waiting", ["due", "later"])
def test_a_turn_costs_the_same_with_any_number_of_tasks_at_the_desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waiting: str
) -> None:
    def turned(lanes: int) -> int:
        path = tmp_path / str(lanes) / "outbox.db"
        fill(path, 1000)
        with counting(monkeypatch) as counter:
            client = OrchestratorClient("a", outbox=path, mode="offline", background=False)
            outbox = client._station._outbox  # type: ignore[union-attr]
            outbox.write(lambda con: crowd(con, lanes, SystemClock.now_us() + (0 if waiting == "due" else 60_000_000)))
            turn = settle(outbox)
            before = counter.count
            turn()
            found = counter.count - before
            client.close()
            return found

    assert_flat(turned(10), turned(10_000))


def crowd(con: sqlite3.Connection, lanes: int, due_us: int) -> None:
    """Tasks that wait at the desk, each with one parked event: the first event of the journal has to do for all."""
    con.executemany(
        "INSERT INTO lanes (sink, task, parked, failures, due_us) VALUES ('orchestrator', ?, 1, 1, ?)",
        [(f"w{n}", due_us + n) for n in range(lanes)],
    )
    con.executemany(
        "INSERT INTO work (sink, state, seq, task, attempts, reason, since_us) "
        "VALUES ('orchestrator', 'parked', ?, ?, 0, '', 0)",
        [(10 + n, f"w{n}") for n in range(lanes)],
    )
    con.execute("UPDATE sinks SET parked = ?", (lanes,))


def peak_bytes(path: Path) -> int:
    """The most memory of Python that a turn and the reports need, with everything pending."""
    with OrchestratorClient("a", outbox=path, mode="offline", background=False) as client:
        outbox = client._station._outbox  # type: ignore[union-attr]
        outbox.write(lambda con: con.execute("UPDATE sinks SET cursor = 0"))
        turn = settle(outbox, batch=500)
        turn()  # what is imported and compiled once
        tracemalloc.start()
        try:
            turn()
            client.health()
            client.get_communication_stats()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


@pytest.fixture
def thousand(tmp_path: Path) -> Path:
    path = tmp_path / "thousand" / "outbox.db"
    fill(path, 1000)
    return path


def test_a_turn_needs_the_same_memory_with_any_backlog(filled: dict[int, Path], thousand: Path) -> None:
    assert peak_bytes(filled[MANY]) <= peak_bytes(thousand) * 1.5


# --- The count can tell ----------------------------------------------------------------------------------------------


def test_a_planted_scan_is_counted(filled: dict[int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def first_seq(con: sqlite3.Connection) -> int:
        return int(con.execute("SELECT count(*) FROM events WHERE task = 't1'").fetchone()[0])

    monkeypatch.setattr(journal, "first_seq", first_seq)
    few, many = (
        instructions(filled[count], monkeypatch, lambda outbox: lambda: outbox.query(journal.first_seq))
        for count in (FEW, MANY)
    )
    assert many > 1000 * few


def test_a_planted_hoard_is_seen(filled: dict[int, Path], thousand: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_all(con: sqlite3.Connection, after_seq: int, limit: BatchLimit, *, one_by_one: bool) -> list[bulk.Row]:
        entries = list(journal.read_range(con, after_seq, journal.MAX_SEQ))
        return [(entry.seq, entry.task, entry.crc, entry.body.encode()) for entry in entries][: limit.events]

    monkeypatch.setattr(bulk, "read_next", read_all)
    assert peak_bytes(filled[MANY]) > peak_bytes(thousand) * 10
