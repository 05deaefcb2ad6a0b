"""The store under its users: threads, processes, forks, lost files, retention, and questions about events."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import stat
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import pytest

from orchclient.core.errors import OutboxBusy, OutboxError, UnknownEvent
from orchclient.core.events import Event
from orchclient.core.ids import uuid7
from orchclient.core.judging import RequestKind
from orchclient.outbox import (
    connection,
    cursors,
    desk,
    folding,
    identity,
    journal,
    listing,
    migrations,
    requests,
    retention,
    salvage,
)
from orchclient.outbox import outbox as outbox_module
from orchclient.outbox.connection import connect
from orchclient.outbox.limits import Limits
from orchclient.outbox.outbox import Outbox
from orchclient.outbox.requests import Request
from orchclient.outbox.store import Origin
from orchclient.outbox.writer import Writer

SECOND_US = 1_000_000


def opened(path: Path) -> Outbox:
    return Outbox(Origin(path, lambda: str(uuid.uuid4()), lambda: 0))


def event(task: str = "t", us: int = 0, status: str = "testing", id_: str | None = None) -> Event:
    id_ = id_ or uuid7(us // 1000, os.urandom(10))
    body = f'"id":"{id_}","agentid":"a","data":{{"task_id":"{task}","status":"{status}"}}}}'
    return Event(id_, task, "a", "task.status.v1", "low", us, crc32(body.encode()), body)


def record(outbox: Outbox, task: str = "t", us: int = 0, status: str = "testing") -> int:
    return outbox.record(event(task, us, status), status, False)


@pytest.fixture
def outbox(outbox_path: Path) -> Iterator[Outbox]:
    made = opened(outbox_path)
    yield made
    made.close()


def places(outbox: Outbox) -> list[int]:
    return outbox.query(lambda con: [seq for (seq,) in con.execute("SELECT seq FROM events ORDER BY seq")])


def test_places_rise_without_gaps_and_the_newest_is_never_reused(outbox: Outbox) -> None:
    assert [record(outbox) for _ in range(3)] == [1, 2, 3]
    outbox.write(lambda con: cursors.add_sink(con, "s", "k", "", 0, from_beginning=True))
    outbox.write(lambda con: cursors.advance(con, "s", 0, 0, 3))
    outbox.write(outbox.query(folding.fold).write)
    outbox.prune(recorded_before_us=1)
    assert places(outbox) == [3]
    assert record(outbox) == 4


def test_pragmas_hold_on_every_connection(outbox: Outbox) -> None:
    def pragmas(con: sqlite3.Connection) -> list[int]:
        names = ("wal_autocheckpoint", "mmap_size", "trusted_schema", "auto_vacuum")
        return [con.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert outbox.query(pragmas) == [0, 0, 0, 2]
    assert outbox.write(pragmas) == [0, 0, 0, 2]


def test_a_reader_that_met_a_file_in_the_making_writes_nothing_into_it(
    outbox_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, made = connection._is_in_wal_mode, []

    def made_when_it_was_asked(con: sqlite3.Connection) -> bool:
        said = ask(con)
        if not said and not made:
            made.append(None)
            with closing(opened(outbox_path)) as outbox:
                record(outbox)
            made[0] = outbox_path.read_bytes()
        return said

    outbox_path.touch(0o600)
    with monkeypatch.context() as patch:
        patch.setattr(connection, "_is_in_wal_mode", made_when_it_was_asked)
        reader = connect(str(outbox_path), read_only=True)
    with closing(reader):
        assert reader.execute("SELECT count(*) FROM events").fetchone() == (1,)
    assert [outbox_path.read_bytes()] == made


def synchronous(outbox: Outbox) -> int:
    store = outbox._store
    value: int = store.connection().execute("PRAGMA synchronous").fetchone()[0]
    return value


def test_progress_is_committed_without_a_sync_and_a_change_of_status_with_one(outbox: Outbox) -> None:
    record(outbox, status="in_progress")
    assert (synchronous(outbox), outbox.has_unsynced) == (2, False)
    record(outbox, status="in_progress")
    assert (synchronous(outbox), outbox.has_unsynced) == (1, True)
    record(outbox, status="testing")
    assert (synchronous(outbox), outbox.has_unsynced) == (2, False)
    record(outbox, status="testing")
    outbox.sync()
    assert not outbox.has_unsynced


def test_another_process_s_change_of_status_makes_ours_a_change_again(outbox_path: Path, outbox: Outbox) -> None:
    record(outbox, status="in_progress")
    with closing(opened(outbox_path)) as other:
        record(other, status="testing")
    record(outbox, status="in_progress")
    assert not outbox.has_unsynced


def test_many_threads_share_commits_and_each_gets_its_own_place(outbox: Outbox) -> None:
    seen: list[int] = []
    commits: list[str] = []
    outbox._store.connection().set_trace_callback(lambda sql: commits.append(sql) if "INTO events" in sql else None)
    barrier = threading.Barrier(16)

    def work(number: int) -> None:
        barrier.wait()
        seen.extend([outbox.record(event(f"t{number}"), None, True) for _ in range(25)])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == list(range(1, 401)) == places(outbox)
    assert len(commits) < 400


def test_one_failing_work_in_a_group_hurts_no_other(outbox: Outbox) -> None:
    first_holds, go_on = threading.Event(), threading.Event()
    errors: list[Exception] = []
    seqs: list[int] = []

    def hold(con: sqlite3.Connection) -> None:
        first_holds.set()
        go_on.wait(10)

    def fail(con: sqlite3.Connection) -> None:
        raise RuntimeError("mine alone")

    def failing() -> None:
        try:
            outbox.write(fail)
        except RuntimeError as error:
            errors.append(error)

    threads = [threading.Thread(target=outbox.write, args=(hold,))]
    threads[0].start()
    assert first_holds.wait(10)
    threads += [threading.Thread(target=failing)]
    threads += [threading.Thread(target=lambda: seqs.append(record(outbox))) for _ in range(5)]
    for thread in threads[1:]:
        thread.start()
    while len(outbox._writer._waiting) < 6:
        threading.Event().wait(0.001)
    go_on.set()
    for thread in threads:
        thread.join()
    assert [str(error) for error in errors] == ["mine alone"]
    assert sorted(seqs) == places(outbox) == [1, 2, 3, 4, 5]


def test_a_record_whose_commit_failed_is_stored_once_when_it_is_tried_again(outbox: Outbox) -> None:
    wanted = event()
    append = journal.Append(wanted, None, True, outbox._known)
    raised: list[bool] = []

    def commits_and_then_fails(con: sqlite3.Connection) -> int:
        seq = append(con)
        if not raised:
            raised.append(True)
            raise sqlite3.OperationalError("disk I/O error")
        return seq

    assert outbox._writer.run(commits_and_then_fails, True, journal.append_together) == 1
    assert places(outbox) == [1]


def test_a_dead_letter_whose_commit_was_stored_and_is_tried_again_counts_once(outbox: Outbox) -> None:
    record(outbox)
    outbox.write(lambda con: cursors.add_sink(con, "sink", "kind", "target", 0, from_beginning=True))

    def bury(con: sqlite3.Connection) -> None:
        entry = journal.read_one(con, 1)
        assert entry is not None
        desk.bury(con, "sink", entry.seq, entry.task, 1, "refused", 0)

    outbox.write(bury)
    outbox.write(bury)
    [row] = outbox.query(cursors.sinks)
    assert (row.dead, len(list(outbox.query(lambda con: list(desk.dead_letters(con)))))) == (1, 1)


def test_a_signal_handler_that_interrupted_a_commit_is_refused_at_once_instead_of_waiting_for_itself(
    outbox: Outbox,
) -> None:
    def interrupted(con: sqlite3.Connection) -> None:  # a handler runs in the interrupted thread, in the middle of it
        with pytest.raises(OutboxBusy, match="signal handler"):
            record(outbox)

    outbox.write(interrupted)
    assert record(outbox) == 1


def _first_open(path: Path, start: threading.Barrier, codes: multiprocessing.Queue[str]) -> None:
    try:
        start.wait(20)
        with closing(opened(path)) as outbox:
            record(outbox, us=1)
        codes.put("")
    except BaseException as error:
        codes.put(repr(error))


def test_processes_that_open_a_new_file_at_once_all_record(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for number in range(5):
        path = tmp_path / f"{number}.db"
        start, codes = context.Barrier(4), context.Queue()
        children = [context.Process(target=_first_open, args=(path, start, codes)) for _ in range(4)]
        for child in children:
            child.start()
        assert [codes.get(timeout=30) for _ in children] == [""] * 4
        for child in children:
            child.join()
        with closing(opened(path)) as outbox:
            assert places(outbox) == [1, 2, 3, 4]
            assert len(outbox.query(identity.identities).sources) == 1


def in_child(act: Callable[[], None]) -> int:
    """Run in a forked child; its exit code."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_forked_child_and_its_parent_both_go_on_recording(outbox: Outbox) -> None:
    record(outbox)
    assert in_child(lambda: [record(outbox) for _ in range(20)] and None) == 0
    assert record(outbox) == 22
    assert places(outbox) == list(range(1, 23))
    assert outbox.query(lambda con: con.execute("PRAGMA integrity_check").fetchone()[0]) == "ok"


def test_a_fork_in_the_middle_of_other_threads_records_leaves_a_child_that_can_record(outbox: Outbox) -> None:
    stop = threading.Event()
    count = [0]

    def work() -> None:
        while not stop.is_set():
            record(outbox)
            count[0] += 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        assert [in_child(lambda: record(outbox) and None) for _ in range(10)] == [0] * 10
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert len(places(outbox)) == count[0] + 10


@pytest.mark.parametrize("removed", [("",), ("-wal",), ("-wal", "-shm"), ("", "-wal", "-shm")])
def test_files_removed_under_a_live_process_are_noticed_by_the_next_record_and_nothing_is_lost(
    outbox: Outbox, outbox_path: Path, removed: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    ids = [event(us=n) for n in range(5)]
    for each in ids:
        outbox.record(each, None, False)
    source = outbox.query(identity.identities).newest
    for suffix in removed:
        Path(f"{outbox_path}{suffix}").unlink()
    outbox.record(last := event(), None, False)
    with closing(opened(outbox_path)) as judge:
        found = judge.query(lambda con: [row for (row,) in con.execute("SELECT id FROM events ORDER BY seq")])
        assert sorted(found) == sorted(each.id for each in [*ids, last])
        assert judge.query(identity.identities).newest != source
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "removed or replaced" in caplog.text
    assert {stat.S_IMODE(path.stat().st_mode) for path in outbox_path.parent.iterdir()} == {0o600}


@pytest.mark.parametrize("removed", [(), ("-wal",), ("-wal", "-shm")])
@pytest.mark.timeout(30)
def test_a_file_put_in_the_outbox_s_place_is_set_aside_and_nothing_is_lost(
    outbox: Outbox, outbox_path: Path, removed: tuple[str, ...]
) -> None:
    outbox.record(first := event(), None, False)
    outbox_path.rename(outbox_path.with_suffix(".moved"))
    for suffix in removed:
        Path(f"{outbox_path}{suffix}").unlink()
    outbox_path.write_text("not a database, but long enough to look like one " * 50)
    outbox_path.chmod(0o600)
    outbox.record(second := event(), None, False)
    with closing(opened(outbox_path)) as judge:
        found = judge.query(lambda con: [row for (row,) in con.execute("SELECT id FROM events ORDER BY seq")])
    assert sorted(found) == sorted([first.id, second.id])
    assert [path.read_text()[:3] for path in outbox_path.parent.glob("outbox.db.damaged-*Z")] == ["not"]


def test_retention_keeps_what_a_sink_still_needs_and_every_dead_letter(outbox: Outbox) -> None:
    for number in range(1, 1201):
        record(outbox, us=number * SECOND_US)
    outbox.write(lambda con: cursors.add_sink(con, "s", "k", "", 0, from_beginning=True))
    outbox.write(lambda con: cursors.advance(con, "s", 0, 0, 1100))
    dead = outbox.query(lambda con: journal.read_one(con, 7))
    assert dead is not None
    outbox.write(lambda con: desk.bury(con, "s", dead.seq, dead.task, 1, "bad", 0))
    outbox.keep_house()
    outbox.prune(recorded_before_us=2000 * SECOND_US)
    kept = places(outbox)
    assert kept[0] == 7
    assert set(range(1101, 1201)) <= set(kept)
    assert len(kept) < 300
    outbox.prune(recorded_before_us=0)
    assert places(outbox) == kept


def test_without_a_sink_nothing_is_forgotten(outbox: Outbox) -> None:
    record(outbox)
    record(outbox)
    outbox.prune(recorded_before_us=2**62)
    assert places(outbox) == [1, 2]
    assert outbox.query(retention.prunable_seq) == 0


def test_free_pages_are_given_back(outbox: Outbox) -> None:
    outbox.write(lambda con: con.execute("CREATE TABLE waste (x)"))
    outbox.write(lambda con: con.executemany("INSERT INTO waste VALUES (?)", [("x" * 3000,)] * 500))
    outbox.write(lambda con: con.execute("DROP TABLE waste"))
    pages = outbox.query(lambda con: con.execute("PRAGMA page_count").fetchone()[0])
    outbox.prune(recorded_before_us=0)
    assert outbox.query(lambda con: con.execute("PRAGMA page_count").fetchone()[0]) < pages / 2


def test_an_event_is_found_by_any_unique_beginning_of_its_id(outbox: Outbox) -> None:
    made = [event(us=number * SECOND_US) for number in range(1, 200)]
    for each in made:
        outbox.record(each, None, False)
    wanted = made[77]
    for length in (12, 15, 36):
        assert outbox.query(lambda con, n=length: listing.event(con, wanted.id[:n])).entry.id == wanted.id  # type: ignore[misc]
    with pytest.raises(UnknownEvent, match="more than one"):
        outbox.query(lambda con: listing.event(con, wanted.id[:6]))
    for nonsense in ("ffffffff", "zz", "", "*", "%"):
        with pytest.raises(UnknownEvent, match="no event"):
            outbox.query(lambda con, text=nonsense: listing.event(con, text))  # type: ignore[misc]


def test_an_event_is_found_although_the_clock_jumped(outbox: Outbox) -> None:
    made = [event(us=us) for us in (50 * SECOND_US, 10**15, 3, 60 * SECOND_US, 10**14)]
    for each in made:
        outbox.record(each, None, False)
    for each in made:
        assert outbox.query(lambda con, id_=each.id: listing.event(con, id_)).entry.id == each.id  # type: ignore[misc]


def test_a_new_sink_starts_at_the_beginning_or_from_now(outbox: Outbox) -> None:
    record(outbox)
    for name, from_beginning in (("o", True), ("chat", False)):
        outbox.write(lambda con, n=name, f=from_beginning: cursors.add_sink(con, n, "k", "", 0, from_beginning=f))  # type: ignore[misc]
    pending = {row.name: row.pending(1) for row in outbox.query(cursors.sinks)}
    assert pending == {"o": 1, "chat": 0}


def test_a_fold_in_steps_and_the_events_behind_it_give_the_same_state(outbox: Outbox) -> None:
    for number in range(700):
        record(outbox, task=f"t{number % 3}", status="testing" if number < 699 else "failed")
    outbox.keep_house()
    assert outbox.query(folding.folded_seq) == folding.STEP
    state = outbox.query(lambda con: folding.task_state(con, "t0"))
    assert state is not None
    assert (state.status, state.seq) == ("failed", 700)
    assert outbox.query(lambda con: folding.tallies(con, "a"))["task.status.v1"].count == 700


def test_in_a_burst_the_fold_waits_until_it_is_over_or_far_behind(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [100.0]
    monkeypatch.setattr(outbox_module, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    monkeypatch.setattr(outbox_module, "BEHIND_IN_A_BURST", 2 * folding.STEP)
    outbox.on_burden = lambda: None  # somebody keeps house, so the recording thread does not

    def folded_after(events: int, seconds: float) -> tuple[int, bool]:
        for _ in range(events):
            record(outbox)
        now_s[0] += seconds
        was_put_off = outbox.keep_house()
        return outbox.query(folding.folded_seq), was_put_off

    assert folded_after(folding.STEP, 10.0) == (500, False)  # the pause before counts
    assert folded_after(folding.STEP, 0.1) == (500, True)
    assert folded_after(folding.STEP, 0.1) == (500, True)
    assert folded_after(80, 0.1) == (1500, False)
    assert folded_after(folding.STEP * 2 + 1, 0.1) == (2500, True)


@pytest.mark.parametrize(("synced", "moved"), [(True, [40, 80, 120]), (False, [80, 160])])
def test_in_a_burst_the_wal_is_moved_late_unless_every_event_is_synced(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, *, synced: bool, moved: list[int]
) -> None:
    monkeypatch.setattr(outbox._pace, "is_burst", lambda *_: True)
    monkeypatch.setattr(outbox_module, "CHECKPOINT_AFTER", 30)
    monkeypatch.setattr(outbox_module, "CHECKPOINT_IN_A_BURST", 70)
    outbox.on_burden = lambda: None
    seen: list[int] = []
    real = outbox._store.checkpoint
    monkeypatch.setattr(outbox._store, "checkpoint", lambda **how: (seen.append(outbox.newest_seq), real(**how))[1])
    for number in range(1, 161 if not synced else 121):
        outbox.record(event(), None, synced)
        if number % 20 == 0:
            outbox.keep_house()
    assert seen == moved


def test_a_housekeeper_is_told_of_a_burden_once_in_a_while(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "BEHIND_AT_MOST", 200)
    told: list[int] = []
    outbox.on_burden = lambda: told.append(outbox._known.last_seq)
    for _ in range(900):
        record(outbox)
    assert told == [250, 450, 650, 850]


def test_the_wal_is_moved_after_so_many_events_whoever_recorded_them(
    outbox: Outbox, outbox_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "CHECKPOINT_AFTER", 100)
    with closing(opened(outbox_path)) as beside:
        beside.on_burden = lambda: None  # it leaves its chores to somebody else
        for _ in range(6):
            for each, events in ((beside, 95), (outbox, 5)):
                for _ in range(events):
                    record(each)
        frames = outbox_path.with_name(outbox_path.name + "-wal").stat().st_size / 4096
    assert frames < 400  # without being moved it would have more than one for each of the 600 events


def test_fullness_is_measured_seldom_while_there_is_room_and_often_when_there_is_little(
    outbox_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []
    real = outbox_module.fullness
    with closing(Outbox(Origin(outbox_path, lambda: str(uuid.uuid4()), lambda: 0), Limits(max_pending=700))) as outbox:
        monkeypatch.setattr(
            outbox_module, "fullness", lambda *given: (measured.append(outbox._known.last_seq), real(*given))[1]
        )
        for _ in range(690):
            record(outbox)
    assert measured == [50, 300, 550, 600, 650]


def test_a_file_of_another_program_is_refused_and_left_alone(outbox_path: Path) -> None:
    with closing(sqlite3.connect(outbox_path)) as con:
        con.execute("CREATE TABLE theirs (x)")
    outbox_path.chmod(0o600)
    with pytest.raises(OutboxError, match="another program"):
        opened(outbox_path)


def test_a_file_that_another_process_makes_right_now_is_not_taken_for_another_program_s(outbox_path: Path) -> None:
    outbox_path.touch(0o600)
    with closing(connect(str(outbox_path))) as ours, closing(connect(str(outbox_path))) as theirs:

        def let_them_make_the_tables(statement: str) -> None:
            ours.set_trace_callback(None)
            migrations.migrate(theirs, str(outbox_path))

        ours.set_trace_callback(lambda sql: let_them_make_the_tables(sql) if "sqlite_schema" in sql else None)
        assert not migrations.is_current(ours, str(outbox_path))
        assert migrations.is_current(ours, str(outbox_path))


def test_a_file_of_a_newer_orchclient_is_refused(outbox: Outbox, outbox_path: Path) -> None:
    outbox.write(lambda con: con.execute("PRAGMA user_version=99"))
    with pytest.raises(OutboxError, match="schema 99"):
        opened(outbox_path)


def test_the_wal_stays_small_without_any_thread(outbox: Outbox, outbox_path: Path) -> None:
    for _ in range(9000):
        record(outbox)
    assert Path(f"{outbox_path}-wal").stat().st_size < 8 * 1024 * 1024
    assert outbox._writer.commits.count <= 1100


def test_destinations_of_lost_files_go_on_in_a_file_that_another_process_made_meanwhile(
    outbox: Outbox, outbox_path: Path
) -> None:
    outbox.write(lambda con: cursors.add_sink(con, "chat", "k", "", 0, from_beginning=False))
    record(outbox, task="lost")
    for ending in ("", "-wal", "-shm"):
        Path(f"{outbox_path}{ending}").unlink()
    other = opened(outbox_path)
    record(other, task="other")
    record(outbox, task="after")
    row = outbox.query(lambda con: cursors.sink(con, "chat"))
    entries = outbox.query(lambda con: list(journal.read_range(con, row.cursor if row else 99, 99)))
    assert [entry.task for entry in entries] == ["lost", "after"]
    other.close()


def test_what_is_committed_to_lost_files_while_they_are_copied_is_taken_over_whole_or_not_at_all(
    outbox: Outbox, outbox_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process asks before it notices the loss: of a question without its event nobody would be told again."""
    record(outbox)
    other, copy_events = connect(str(outbox_path)), salvage._copy_events
    question = event("asked")

    def copied_meanwhile(rows: Any, con: sqlite3.Connection) -> int:
        copied = copy_events(rows, con)
        journal.append(other, question)
        requests.add(other, Request(question.id, RequestKind.QUESTION, 2, "", "asked", "a", None, "", "low", 0))
        return copied

    monkeypatch.setattr(salvage, "_copy_events", copied_meanwhile)
    for ending in ("", "-wal", "-shm"):
        Path(f"{outbox_path}{ending}").unlink()
    record(outbox)
    assert requests.by_id(other, question.id)
    assert outbox.query(lambda con: requests.by_id(con, question.id)) is None
    other.close()


@pytest.mark.parametrize("when", ["before", "inside"])
def test_what_a_transaction_acknowledged_is_in_the_file_at_the_path_when_the_files_were_lost(
    when: str, outbox: Outbox, outbox_path: Path
) -> None:
    def lose() -> None:
        for ending in ("", "-wal", "-shm"):
            Path(f"{outbox_path}{ending}").unlink()

    record(outbox, task="earlier")
    if when == "before":
        lose()
    with outbox.transaction():
        record(outbox, task="together")
        if when == "inside":
            lose()
    # Not the outbox that recorded: its process may die right now.
    with closing(sqlite3.connect(outbox_path)) as con:
        assert {task for (task,) in con.execute("SELECT task FROM events")} == {"earlier", "together"}


def test_a_close_in_the_middle_of_another_thread_s_checkpoint_leaves_its_connection_alone(outbox: Outbox) -> None:
    record(outbox)
    store = outbox._store
    assert store.checkpoint()
    con = store._checkpoints._con
    assert con is not None
    with store._checkpoints._at_work:  # as if SQLite were at work with it: closing it then crashes the interpreter
        outbox.close()
    assert con.execute("SELECT 1").fetchone() == (1,)
    assert not store.checkpoint()
    con.close()


def test_a_close_ends_the_connection_that_checkpoints(outbox: Outbox) -> None:
    record(outbox)
    assert outbox._store.checkpoint()
    con = outbox._store._checkpoints._con
    assert con is not None
    outbox.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        con.execute("SELECT 1")


def test_a_close_beside_a_transaction_is_made_good_at_its_end(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Writer.acquire, "__defaults__", (0.01,))
    record(outbox, status="completed")
    with outbox.transaction() as con:
        closing_thread = threading.Thread(target=outbox.close)
        closing_thread.start()
        closing_thread.join()
        record(outbox)
        assert con.execute("SELECT count(*) FROM events").fetchone() == (2,)
    with pytest.raises(OutboxError, match="is closed"):
        record(outbox)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        con.execute("SELECT 1")
    with closing(opened(Path(outbox.path))) as again:
        assert places(again) == [1, 2]


def test_a_client_may_be_closed_inside_its_own_transaction(outbox: Outbox) -> None:
    with outbox.transaction():
        record(outbox)
        outbox.close()
        record(outbox)
    with pytest.raises(OutboxError, match="is closed"):
        record(outbox)
    with closing(opened(Path(outbox.path))) as again:
        assert places(again) == [1, 2]
