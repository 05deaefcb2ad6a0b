"""Delivery with real threads, processes and sockets: election, wake-ups, ends, the late sync, forks."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from orchclient import OrchestratorClient
from orchclient.core.pacing import A_BATCH, A_FEW, Share, share_of
from orchclient.delivery.clock import SystemClock
from orchclient.delivery.election import Election, is_held, lock_path
from orchclient.delivery.housekeeper import Housekeeper
from orchclient.delivery.waker import Waker
from orchclient.outbox import attempts, leadership
from orchclient.outbox.attempts import Attempt
from orchclient.testing import Fault, Receiver
from tests.conftest import MakeClient
from tests.faults.orchestrator_wire import URL, OrchestratorWire

AGENT = """
import sys
from orchclient import OrchestratorClient
client = OrchestratorClient(sys.argv[1], outbox=sys.argv[2], url=sys.argv[3])
for percent in range(int(sys.argv[4])):
    receipt = client.update_task_status(sys.argv[1], "in_progress", progress_percentage=percent)
    print(receipt.event_id, flush=True)
sys.stdin.read()
client.close()
"""


def agent(name: str, path: Path, url: str, count: int) -> subprocess.Popen[str]:
    """An agent process that records and then waits for the end of its standard input."""
    command = [sys.executable, "-c", AGENT, name, str(path), url, str(count)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> list[str]:
    """Let an agent end; the ids that it acknowledged."""
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    return out.split()


def our_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("orchclient-")]


def percents(receiver: Receiver, task: str) -> list[Any]:
    return [event["data"]["progress_percentage"] for event in receiver.by_task()[task]]


def test_agents_on_one_host_share_an_outbox_and_one_of_them_delivers(outbox_path: Path, receiver: Receiver) -> None:
    agents = [agent(f"agent-{number}", outbox_path, receiver.url, 50) for number in range(4)]
    assert receiver.wait_for(200, 30)
    for process in agents:
        assert len(ended(process)) == 50
    assert [percents(receiver, f"agent-{number}") for number in range(4)] == [list(range(50))] * 4
    assert not receiver.repeats
    assert not receiver.conflicts


def test_when_the_process_that_delivers_is_killed_another_takes_over(
    outbox_path: Path, receiver: Receiver, make_client: MakeClient
) -> None:
    first = agent("first", outbox_path, receiver.url, 5)
    assert receiver.wait_for(5, 20)
    second = make_client("second", url=receiver.url)
    second.update_task_status("second", "testing")
    assert receiver.wait_for(6, 20)  # by the first: it holds the lock
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=20)
    second.update_task_status("second", "completed")
    assert receiver.wait_for(7, 20)


def test_a_suspended_flusher_that_wakes_up_after_another_took_over_settles_nothing(
    outbox_path: Path, receiver: Receiver, make_client: MakeClient
) -> None:
    receiver.plan(Fault.hang())
    stopped = agent("first", outbox_path, receiver.url, 5)
    assert receiver.wait_for_requests(1, 20, path="/v1/events")
    stopped.send_signal(signal.SIGSTOP)
    # The lock is the stopped process's; an operator who removes the lock file lets another one in.
    Path(lock_path(str(outbox_path), "orchestrator")).unlink()
    client = make_client("second", url=receiver.url)
    client.update_task_status("second", "testing")
    assert client.flush(20)
    before = client.health().sinks[0]
    stopped.send_signal(signal.SIGCONT)
    receiver.release()
    assert len(ended(stopped)) == 5
    assert client.health().sinks[0].delivered == before.delivered == 6


def test_a_forked_child_delivers_what_it_records_and_frees_its_parent_s_lock(
    make_client: MakeClient, receiver: Receiver
) -> None:
    client = make_client(url=receiver.url)
    client.update_task_status("parent", "testing")
    assert receiver.wait_for(1, 20)

    def child() -> None:
        client.update_task_status("child", "testing")
        os._exit(0 if client.flush(20) else 1)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(40)
    assert process.exitcode == 0
    client.update_task_status("parent", "completed")
    assert receiver.wait_for(3, 20)


def test_a_child_that_never_records_does_not_keep_the_lock_of_its_dead_parent(
    outbox_path: Path, receiver: Receiver
) -> None:
    script = """
import os, sys
from orchclient import OrchestratorClient
client = OrchestratorClient("a", outbox=sys.argv[1], url=sys.argv[2])
client.update_task_status("t", "testing")
client.flush(20)
if os.fork() == 0:
    print("the child is there", flush=True)
    sys.stdin.read()
os._exit(0)
"""
    command = [sys.executable, "-c", script, str(outbox_path), receiver.url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline()  # else it may not have come to letting go when its parent is gone
        process.wait(20)
        assert not is_held(lock_path(str(outbox_path), "orchestrator"))


def test_progress_is_synced_by_the_housekeeper_without_another_record(make_client: MakeClient) -> None:
    client = make_client()
    client.update_task_status("t", "testing")
    client.update_task_status("t", "testing", progress_percentage=5)
    outbox: Any = client._station._outbox  # type: ignore[union-attr]
    assert outbox.has_unsynced
    synced = threading.Event()
    write = outbox.sync

    def sync() -> None:
        write()
        synced.set()

    outbox.sync = sync
    assert synced.wait(5)
    assert not outbox.has_unsynced


def test_nothing_starts_before_the_first_record(make_client: MakeClient, receiver: Receiver) -> None:
    make_client(url=receiver.url)
    assert our_threads() == []


def test_a_client_without_background_has_no_threads_and_flushes_all_the_same(
    make_client: MakeClient, receiver: Receiver
) -> None:
    client = make_client(url=receiver.url, background=False)
    client.update_task_status("t", "testing")
    client.update_task_status("t", "testing", progress_percentage=5)
    outbox: Any = client._station._outbox  # type: ignore[union-attr]
    assert (our_threads(), outbox.has_unsynced) == ([], False)
    assert client.flush(20).delivered == 2
    assert our_threads() == []


@pytest.mark.parametrize(
    "ending", ["", "sys.exit(3)", "raise RuntimeError", "os.kill(os.getpid(), signal.SIGTERM)", "os._exit(0)"]
)
def test_any_end_of_an_agent_prints_nothing_of_ours_and_keeps_what_it_recorded(
    outbox_path: Path, receiver: Receiver, ending: str
) -> None:
    receiver.always(Fault.hang())
    script = f"""
import os, signal, sys
from orchclient import OrchestratorClient
client = OrchestratorClient("a", outbox=sys.argv[1], url=sys.argv[2])
client.update_task_status("t", "testing")
{ending}
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(outbox_path), receiver.url],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout == ""
    assert "orchclient" not in done.stderr
    with OrchestratorClient("judge", outbox=outbox_path) as judge:
        assert judge.health().recorded == 1


def test_a_script_that_records_and_ends_at_once_has_delivered(outbox_path: Path, receiver: Receiver) -> None:
    script = """
import sys
from orchclient import OrchestratorClient
OrchestratorClient("a", outbox=sys.argv[1], url=sys.argv[2], shutdown_timeout=60).update_task_status("t", "completed")
"""
    subprocess.run([sys.executable, "-c", script, str(outbox_path), receiver.url], timeout=90, check=True)
    assert len(receiver.events) == 1


def test_recording_works_while_the_interpreter_exits(outbox_path: Path) -> None:
    script = """
import atexit, sys
from orchclient import OrchestratorClient
def late():
    client.update_task_status("t", "completed")
atexit.register(late)
client = OrchestratorClient("a", outbox=sys.argv[1])
late_client = OrchestratorClient("b", outbox=sys.argv[1])
atexit.unregister(late)
atexit.register(lambda: late_client.update_task_status("t", "completed"))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(outbox_path)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    with OrchestratorClient("judge", outbox=outbox_path) as judge:
        assert judge.health().recorded == 1


def test_an_election_has_one_winner_until_it_resigns(tmp_path: Path) -> None:
    first, second = Election(str(tmp_path / "lock")), Election(str(tmp_path / "lock"))
    assert first.stand()
    assert first.stand()
    assert not second.stand()
    first.resign()
    assert second.stand()
    second.resign()


def test_a_wake_up_before_the_sleep_is_not_lost() -> None:
    waker = Waker()
    waker.wake()
    waker.sleep(None)  # would never end
    sleeper = threading.Thread(target=waker.sleep, args=(None,))
    sleeper.start()
    waker.wake()
    sleeper.join(20)
    assert not sleeper.is_alive()


def test_an_unexpected_error_of_a_sink_is_logged_and_delivery_goes_on(
    make_client: MakeClient, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = iter(["", RuntimeError("vault is closed")])

    def token() -> str | None:
        said = next(tokens, "fine")
        if isinstance(said, Exception):
            raise said
        return said

    caplog.set_level(logging.WARNING)
    client = make_client(url=receiver.url, token=token)
    client.update_task_status("t", "testing")
    assert receiver.wait_for(1, 20)


class Errands:
    """What a housekeeper is to wake, and whether its process delivers."""

    def __init__(self) -> None:
        self.is_leading = False
        self.hurried = threading.Event()

    def wake(self) -> None:
        pass

    def hurry(self) -> None:
        self.hurried.set()


@pytest.mark.parametrize("nudges_first", [False, True])
def test_a_flush_by_hand_is_heard_by_a_process_that_has_only_just_begun_to_deliver(
    make_client: MakeClient, nudges_first: bool
) -> None:
    outbox: Any = make_client()._station._outbox  # type: ignore[union-attr]
    errands = Errands()
    housekeeper = Housekeeper(outbox, SystemClock(), errands, retention_s=60)
    housekeeper.start()
    try:
        if nudges_first:
            outbox.write(leadership.nudge)
        errands.is_leading = True
        housekeeper.notice_lead()
        if not nudges_first:
            outbox.write(leadership.nudge)
        assert errands.hurried.wait(10)
    finally:
        housekeeper.stop(0)


def test_a_backlog_leaves_beside_an_agent_that_records_and_rests_between_its_batches(
    make_client: MakeClient, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[bool] = []
    client = make_client(mode="offline")
    with client.transaction():
        for percent in range(2000):
            client.update_task_status("t", "testing", None, percent % 100)
    client.close()
    monkeypatch.setattr(
        "orchclient.delivery.runner.share_of", lambda *, is_full, **_: rests.append(is_full) or Share(0.0, 0.0)
    )
    client = make_client(url=receiver.url)
    while len(receiver.events) < 1500:
        client.update_task_status("t", "testing", None, 1)
    assert client.flush(60)
    assert True in rests


def test_a_flush_that_somebody_waits_for_does_not_rest_beside_an_agent_that_records(
    make_client: MakeClient, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchclient.delivery.runner.share_of", lambda **_: Share(math.inf, 3600.0))
    client = make_client(mode="offline")
    with client.transaction():
        for percent in range(3000):
            client.update_task_status("t", "testing", None, percent % 100)
    client.close()
    client, over = make_client(url=receiver.url), threading.Event()

    def record() -> None:
        while not over.is_set():
            client.update_task_status("t", "testing", None, 1)

    with ThreadPoolExecutor(1) as pool:
        recording = pool.submit(record)
        assert receiver.wait_for(500, 20)  # the first batch is there, and now it rests
        try:
            client.flush(20)
        finally:
            over.set()
        recording.result(20)
    assert len(receiver.events) >= 3000


@pytest.mark.parametrize(("computed_s", "rest"), [(0.0, 0.0), (0.001, 0.008), (5.0, 0.02), (-1.0, 0.0)])
def test_the_rest_is_many_times_what_was_computed_and_bounded(computed_s: float, rest: float) -> None:
    assert A_FEW.rest_s(computed_s) == rest


@pytest.mark.parametrize(
    ("is_full", "behind", "before", "share"),
    [
        (False, 10, 0, A_FEW),
        (True, 600, 0, A_BATCH),
        (True, 100_000, 100_400, A_BATCH),  # an outage is over, and the backlog shrinks
        (True, 30_000, 29_000, A_FEW),  # the agent records faster than it is delivered
        (False, 30_000, 29_000, A_FEW),
    ],
)
def test_a_backlog_rests_for_long_unless_it_grows_and_grows(
    is_full: bool, behind: int, before: int, share: Share
) -> None:
    assert share_of(is_full=is_full, behind=behind, behind_before=before) == share


def test_a_flush_waits_for_the_attempt_after_the_one_that_was_under_way_when_it_began(make_client: MakeClient) -> None:
    """What that one met may be over by now: an operator mends something, and says flush."""
    is_under_way, may_fail = threading.Event(), threading.Event()

    def first_is_lost() -> bool:
        is_first = not is_under_way.is_set()
        is_under_way.set()
        return is_first and may_fail.wait(30)

    client = make_client(url=URL, transport=lambda: OrchestratorWire(loses_answer=first_is_lost))
    client.update_task_status("t", "testing")
    assert is_under_way.wait(30)
    report = client._station.flush(30, watch=lambda progress: may_fail.set())
    assert report


@pytest.mark.parametrize(("began_us", "counts"), [((1, 9), {"b"}), ((9, 1), {"b"}), ((9, 12), {"b"}), ((1,), set())])
def test_a_failed_attempt_counts_for_a_flush_unless_it_was_under_way_when_that_began(
    outbox_path: Path, began_us: tuple[int, ...], counts: set[str]
) -> None:
    """The second one counts whatever the clock said."""

    def fail(con: sqlite3.Connection) -> set[str]:
        attempts.add(con, Attempt("b", 11, 1, 1, 1, 0.0, "back_off", None, "before the flush"))
        last_n = attempts.last_n(con)
        attempts.add(con, Attempt("c", 20, 1, 1, 1, 0.0, "settle", 200, ""))
        for at_us in began_us:
            attempts.add(con, Attempt("b", at_us, 1, 1, 1, 0.0, "back_off", None, "down"))
        return attempts.failed_since(con, last_n, 9)

    with OrchestratorClient("agent", outbox=outbox_path, background=False) as client:
        assert client._station.write(fail) == counts
