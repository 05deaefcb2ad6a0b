"""Many processes and threads on one outbox: nothing lost, order per task, no deadlock, no lock error at a caller.

The programs that the tests start are in agents.py. tests/delivery/test_flusher.py has each of these things once and
alone; here they come together and in numbers.
"""

from __future__ import annotations

import fcntl
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from attrs import Factory, define, frozen

from orchclient import OrchestratorClient
from orchclient.core.errors import OutboxError
from orchclient.delivery.election import lock_path
from orchclient.outbox import outbox as outbox_module
from orchclient.testing import Fault, Receiver
from tests.conftest import MakeClient
from tests.faults.program import QUICK_S, Program
from tests.stopwatch import Stopwatch

SINK = "orchestrator"
LONG_S = 800
"""When a test of the release's rung counts as hanging."""

LONGEST_WAIT_S = 30.0
"""No record call may take longer, however many others record. Generous: 64 threads share two busy cores and a disk."""

LONGEST_END_S = 6.0
"""An end takes 2 s at most; a busy machine needs a while to take an interpreter down."""

BUSY_S = 8.0
"""How long a caller may wait for a process that blocks the file: 5 s are stated, and some for the machine."""


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory if there is one, for what depends on no disk and would only wait for it."""
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with TemporaryDirectory(prefix="orchclient-processes-", dir=base) as directory:
        yield Path(directory)


def ids_in(path: Path) -> list[str]:
    """The ids in an outbox by place; the places have no gaps and SQLite finds no damage."""
    with closing(sqlite3.connect(path)) as con:
        assert con.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",)
        rows = con.execute("SELECT seq, id FROM events ORDER BY seq").fetchall()
    assert [seq for seq, _ in rows] == list(range(1, len(rows) + 1))
    return [id_ for _, id_ in rows]


def arrived(receiver: Receiver) -> dict[str, list[str]]:
    """The ids that a receiver kept, by task, in order of arrival."""
    return {task: [event["id"] for event in events] for task, events in receiver.by_task().items()}


def deliver_the_rest(path: Path, receiver: Receiver) -> None:
    """A last flush, by a process of its own, to a receiver that is well again."""
    receiver.heal()
    with OrchestratorClient("judge", outbox=path, url=receiver.url, background=False) as judge:
        assert judge.flush(60)


def lost_replies(seed: int, count: int) -> list[Fault]:
    """One reply in four is lost, in one of three ways, or says that nothing was taken."""
    chance = random.Random(seed)
    bad = (Fault.lose_reply(), Fault.lose_reply(reset=False), Fault.hang(0.2), Fault.status(502))
    return [chance.choice(bad) if chance.random() < 0.25 else Fault.ok() for _ in range(count)]


def wait_until(is_so: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Look again and again: nobody tells when another process changed the file."""
    until = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


# --- Many at once -------------------------------------------------------------------------------------------------


@frozen
class Load:
    """So many processes with so many threads each, and what each thread records."""

    processes: int
    threads: int
    events: int

    def __str__(self) -> str:
        return f"{self.processes}x{self.threads}x{self.events}"


@pytest.mark.timeout(LONG_S)
@pytest.mark.parametrize("load", [Load(8, 8, 15), pytest.param(Load(8, 8, 400), marks=pytest.mark.release)], ids=str)
def test_agents_with_many_threads_beside_flushes_by_hand_and_lost_replies_lose_nothing_and_keep_order(
    load: Load, outbox_path: Path, receiver: Receiver
) -> None:
    receiver.plan(*lost_replies(8, 5000))
    with ExitStack() as stack:
        codes = stack.enter_context(flushing_by_hand(2, outbox_path, receiver.url))
        agents = [
            Program(
                "record_flat_out",
                f"agent-{number}",
                str(outbox_path),
                receiver.url,
                load.threads,
                load.events,
                hangs_after_s=LONG_S,
            )
            for number in range(load.processes)
        ]
        for agent in agents:
            stack.enter_context(agent)
        logs = [log for agent in agents for log in agent.told()]
    deliver_the_rest(outbox_path, receiver)
    worst_s = shown_waits(str(load), [wait for log in logs for wait in log["waits_s"]])
    print(f"  {sum(receiver.repeats.values())} repeats, {len(codes)} flushes by hand")
    assert [error for log in logs for error in log["errors"]] == []
    assert sorted(ids_in(outbox_path)) == sorted(id_ for log in logs for id_ in log["ids"])
    assert arrived(receiver) == {log["task"]: log["ids"] for log in logs}
    assert receiver.conflicts == []
    assert set(codes) <= {0, 3}  # done, or still pending
    assert worst_s < LONGEST_WAIT_S


def shown_waits(title: str, waits_s: list[float]) -> float:
    """The longest wait of a record call, printed with the others."""
    ordered = sorted(waits_s)
    p50_ms, p99_ms, worst_ms = (ordered[int(len(ordered) * share)] * 1e3 for share in (0.5, 0.99, 0.9999999))
    print(f"{title}: worst wait {worst_ms:,.0f} ms, 99 of 100 below {p99_ms:,.0f} ms, half below {p50_ms:.1f} ms")
    return ordered[-1]


@contextmanager
def flushing_by_hand(shells: int, path: Path, url: str) -> Iterator[list[int]]:
    """``orchclient flush`` again and again, in so many shells at once; the exit codes, -1 with a word on stderr."""
    command = [sys.executable, "-m", "orchclient", "flush", "--timeout", "1s", "--json"]
    environment = os.environ | {"ORCHCLIENT_DB": str(path), "ORCHCLIENT_URL": url}
    codes: list[int] = []
    is_over = threading.Event()

    def again() -> None:
        while not is_over.is_set():
            done = subprocess.run(command, env=environment, capture_output=True, timeout=QUICK_S, check=False)
            codes.append(-1 if done.stderr else done.returncode)

    with ThreadPoolExecutor(shells) as pool:
        running = [pool.submit(again) for _ in range(shells)]
        try:
            yield codes
        finally:
            is_over.set()
        for each in running:
            each.result()


@pytest.mark.timeout(LONG_S)
@pytest.mark.parametrize("rounds", [100, pytest.param(2000, marks=pytest.mark.release)])
def test_processes_that_meet_at_a_new_file_all_record_in_it(rounds: int, tmp_path: Path) -> None:
    gun = os.open(tmp_path / "gun", os.O_RDWR | os.O_CREAT, 0o600)
    with ExitStack() as stack:
        openers = [
            stack.enter_context(Program("open_when_told", str(tmp_path / "gun"), hangs_after_s=LONG_S))
            for _ in range(6)
        ]
        for number in range(rounds):
            path = tmp_path / f"new-{number}.db"
            fcntl.flock(gun, fcntl.LOCK_EX)
            for opener in openers:
                opener.hear(str(path))
            assert [opener.line() for opener in openers] == ["ready"] * len(openers)
            fcntl.flock(gun, fcntl.LOCK_UN)
            assert sorted(opener.line() for opener in openers) == sorted(ids_in(path))
        for opener in openers:
            assert opener.ended() == []
    os.close(gun)


# --- Forks --------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(LONG_S)
@pytest.mark.parametrize("forks", [12, pytest.param(400, marks=pytest.mark.release)])
def test_forks_in_the_middle_of_records_and_of_a_flush_leave_parent_and_children_at_work(
    forks: int, outbox_path: Path, receiver: Receiver
) -> None:
    receiver.plan(*lost_replies(3, 5000))
    with Program("fork_in_the_middle", str(outbox_path), receiver.url, forks, hangs_after_s=LONG_S) as parent:
        told = parent.told()
    deliver_the_rest(outbox_path, receiver)
    print(f"{forks} forks, the slowest took {told['slowest_fork_s']:.2f} s; {len(told['ids'])} events")
    assert told["bad_children"] == []
    assert sorted(ids_in(outbox_path)) == sorted(told["ids"])
    assert sorted(event["id"] for event in receiver.events) == sorted(told["ids"])


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_the_workers_of_a_pool_record_beside_their_parent_however_they_were_started(
    method: str, outbox_path: Path, receiver: Receiver
) -> None:
    with Program("record_in_a_pool", method, str(outbox_path), receiver.url) as parent:
        told = parent.told()
    deliver_the_rest(outbox_path, receiver)
    assert sorted(ids_in(outbox_path)) == sorted(id_ for ids in told.values() for id_ in ids)
    assert arrived(receiver) == told


def test_a_child_forked_while_other_threads_open_outboxes_can_record(tmp_path: Path) -> None:
    with Program("fork_beside_openers", str(tmp_path), 80) as parent:
        codes = parent.told()
    assert codes == [0] * 80


def test_a_fork_beside_records_and_checkpoints_is_quick(outbox_path: Path) -> None:
    with Program("fork_beside_checkpoints", str(outbox_path), 40) as parent:
        slowest_s = parent.told()
    assert slowest_s < 1


# --- Ends ---------------------------------------------------------------------------------------------------------

ENDINGS = {"return": 0, "os._exit": 7, "SIGINT": 0, "SIGTERM": -signal.SIGTERM, "SIGKILL": -signal.SIGKILL}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("network", ["up", "hanging"])
def test_an_agent_that_ends_in_the_middle_of_many_threads_records_keeps_what_it_acknowledged(
    network: str, ending: str, outbox_path: Path, receiver: Receiver
) -> None:
    if network == "hanging":
        receiver.always(Fault.hang())
    with Program("record_until_the_end", ending, str(outbox_path), receiver.url) as agent:
        acknowledged = [agent.line() for _ in range(200)]
        with Stopwatch() as took:
            if ending.startswith("SIG"):
                agent.process.send_signal(getattr(signal, ending))
            acknowledged += agent.ended(ENDINGS[ending])
    print(f"{ending} with the network {network}: {took.s:.2f} s, {len(acknowledged)} acknowledged")
    assert set(acknowledged) <= set(ids_in(outbox_path))
    assert took.s < LONGEST_END_S
    deliver_the_rest(outbox_path, receiver)
    assert sorted(event["id"] for event in receiver.events) == sorted(ids_in(outbox_path))


@pytest.mark.parametrize("rounds", [60, pytest.param(3000, marks=pytest.mark.release)])
def test_threads_that_ask_while_an_outbox_is_closed_are_answered_or_refused(rounds: int, memory: Path) -> None:
    with Program("close_beside_questions", str(memory), rounds, hangs_after_s=LONG_S) as agent:
        told = agent.told()
    assert set(told) <= {"all answered", "closed"}
    assert (sum(told.values()), told.get("closed", 0) > 0) == (6 * rounds, True)


def test_threads_and_exit_handlers_record_until_and_after_the_client_is_closed_at_exit(
    outbox_path: Path,
) -> None:
    with Program("record_while_exiting", str(outbox_path)) as agent:
        told = dict(line.split() for line in agent.ended())
    # "late" is a handler registered before the client: it runs after the client's own.
    assert {told["thread"], told["handler"], told["late"]} < set(ids_in(outbox_path))


@pytest.mark.parametrize(("followers", "change"), [(0, ""), (3, ""), (0, "house"), (0, "sync"), (0, "threads")])
def test_an_interrupt_anywhere_in_a_record_call_harms_nobody(followers: int, change: str, memory: Path) -> None:
    with Program("interrupt_everywhere", str(memory), followers, change) as agent:
        *harmed, summary = agent.ended()
    print(summary)
    assert harmed == []


def test_the_interrupts_find_a_build_that_leaves_the_turn_to_a_call(memory: Path) -> None:
    with Program("interrupt_everywhere", str(memory), 0, "planted bug") as agent:
        *harmed, _ = agent.ended()
    assert any("hang" in line for line in harmed)


# --- Stopped processes --------------------------------------------------------------------------------------------


@pytest.mark.timeout(LONG_S)
@pytest.mark.parametrize("rounds", [4, pytest.param(60, marks=pytest.mark.release)])
def test_flushers_that_are_stopped_replaced_and_woken_in_turn_deliver_everything_once_and_in_order(
    rounds: int, outbox_path: Path, receiver: Receiver, make_client: MakeClient
) -> None:
    handover = Handover(outbox_path, receiver, make_client("recorder", background=False))
    with ExitStack() as stack:
        arguments = ("flush_until_told", str(outbox_path), receiver.url)
        handover.recorder.update_task_status("first", "testing")
        flushers = [stack.enter_context(Program(*arguments, hangs_after_s=LONG_S)) for _ in range(2)]
        assert [flusher.line() for flusher in flushers] == ["ready", "ready"]
        assert receiver.wait_for(1, 30)
        for number in range(rounds):
            handover.run(number, overtakes=bool(number % 2))
        for flusher in flushers:
            assert flusher.ended() == []
    deliver_the_rest(outbox_path, receiver)
    print(f"{rounds} rounds, {len(receiver.events)} events, {sum(receiver.repeats.values())} repeats")
    [sink] = handover.recorder.health().sinks
    assert (sink.delivered, sink.pending, sink.dead) == (len(ids_in(outbox_path)), 0, 0)
    assert {task: ids for task, ids in arrived(receiver).items() if task != "first"} == handover.told
    assert receiver.conflicts == []


@define
class Handover:
    """The flusher at work is stopped in the middle of an exchange, the other one takes over, the first one wakes up."""

    path: Path
    receiver: Receiver
    recorder: OrchestratorClient
    told: dict[str, list[str]] = Factory(dict)

    def run(self, number: int, *, overtakes: bool) -> None:
        posts = self._posts()
        self.receiver.plan(Fault.hang())
        self._record(number)
        assert self.receiver.wait_for_requests(posts + 1, 30, path="/v1/events")
        stopped = self._holder()
        os.kill(stopped, signal.SIGSTOP)
        # The stopped process still holds the lock; an operator who removes the lock file lets another one in.
        Path(lock_path(str(self.path), SINK)).unlink()
        self._record(number)
        assert wait_until(lambda: self._holder() != stopped)
        if overtakes:  # then what the stopped one sent before arrives after what the other one sent later
            assert self.recorder.flush(30)
        os.kill(stopped, signal.SIGCONT)
        self.receiver.release()
        assert self.recorder.flush(30)

    def _record(self, number: int) -> None:
        for task in ("left", "right", f"round-{number}"):
            ids = self.told.setdefault(task, [])
            ids += [self.recorder.update_task_status(task, "testing", {"n": n}).event_id for n in range(10)]

    def _holder(self) -> int:
        [sink] = self.recorder.health().sinks
        assert sink.holder is not None
        pid: int = sink.holder["pid"]
        return pid

    def _posts(self) -> int:
        return sum(request.path == "/v1/events" for request in self.receiver.requests)


def test_a_process_that_is_stopped_while_it_checkpoints_does_not_block_a_record_for_ever(
    outbox_path: Path, make_client: MakeClient
) -> None:
    client = make_client(background=False)
    client.update_task_status("task", "testing")
    with Program("hold_the_gate", str(outbox_path), "alone") as holder, ThreadPoolExecutor(1) as pool:
        assert holder.line() == "held"
        holder.process.send_signal(signal.SIGSTOP)
        with Stopwatch() as took:
            result = pool.submit(record_or_give_up, client)
            wait_until(result.done, BUSY_S)
            holder.process.send_signal(signal.SIGKILL)
            result.result(30)
    assert took.s < BUSY_S


def test_a_process_that_is_stopped_while_it_commits_delays_checkpoints_and_nothing_else(
    outbox_path: Path, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(background=False)
    store: Any = client._station._outbox._store  # type: ignore[union-attr]
    client.update_task_status("task", "testing")
    monkeypatch.setattr(outbox_module, "LOOK_AFTER", 1)
    monkeypatch.setattr(outbox_module, "CHECKPOINT_AFTER", 20)
    with Program("hold_the_gate", str(outbox_path), "shared") as holder:
        assert holder.line() == "held"
        holder.process.send_signal(signal.SIGSTOP)
        with Stopwatch() as took:
            for _ in range(50):  # two of them want to checkpoint, wait a moment and leave it
                client.update_task_status("task", "testing")
        assert not store.checkpoint(wait=True)
    assert store.checkpoint(wait=True)
    assert took.s < BUSY_S


def test_callers_that_wait_together_for_a_process_that_never_commits_give_up_together(
    outbox_path: Path, make_client: MakeClient
) -> None:
    client = make_client(background=False)
    client.update_task_status("task", "testing")
    with closing(sqlite3.connect(outbox_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with Stopwatch() as took, ThreadPoolExecutor(4) as pool:
            results = list(pool.map(record_or_give_up, [client] * 4))
    assert results == ["OutboxBusy"] * 4
    assert took.s < BUSY_S


def record_or_give_up(client: OrchestratorClient) -> str:
    try:
        return client.update_task_status("task", "completed").event_id
    except OutboxError as error:
        return type(error).__name__
