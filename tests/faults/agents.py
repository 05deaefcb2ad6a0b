"""Programs that record, flush, fork and end in processes of their own, for test_processes.py and test_clock.py.

Run as ``python -m tests.faults.agents SECONDS NAME ARGUMENTS``, the arguments as one JSON list. What a program has to
tell is a line on stdout; after so many seconds it tells on stderr where its threads are, and dies. Knows the public
client; of the inside only what must be brought about at a certain moment.
"""

from __future__ import annotations

import atexit
import ctypes
import faulthandler
import fcntl
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from orchclient import OrchestratorClient
from orchclient.core.errors import OutboxError
from orchclient.delivery import housekeeper
from orchclient.delivery.clock import SystemClock
from orchclient.delivery.housekeeper import Housekeeper
from orchclient.outbox import folding, journal
from orchclient.outbox import outbox as outbox_module
from orchclient.outbox.gate import Gate, alone
from orchclient.outbox.outbox import Outbox
from orchclient.outbox.store import Origin
from tests.faults.interrupts import CHANGES, harm_everywhere
from tests.faults.program import QUICK_S

CHILD_HANGS_S = 20


def say(line: str) -> None:
    """In one piece, and out of this process's hands when the call returns."""
    os.write(1, f"{line}\n".encode())


def tell(value: object) -> None:
    """A result of any length."""
    print(json.dumps(value), flush=True)


@contextmanager
def threads(count: int, work: Callable[[int], object]) -> Iterator[threading.Event]:
    """So many threads at ``work`` until the event is set, at the latest at the end of the block."""
    is_over = threading.Event()

    def again(number: int) -> None:
        while not is_over.is_set():
            work(number)

    running = [threading.Thread(target=again, args=(number,)) for number in range(count)]
    for thread in running:
        thread.start()
    try:
        yield is_over
    finally:
        is_over.set()
        for thread in running:
            thread.join()


# --- Recording ----------------------------------------------------------------------------------------------------


def record_flat_out(name: str, path: str, url: str, thread_count: int, events: int) -> None:
    """Every thread records its own task as fast as it can."""
    tasks = [f"{name}-{number}" for number in range(thread_count)]
    with OrchestratorClient(name, outbox=path, url=url) as client, ThreadPoolExecutor(thread_count) as pool:
        logs = list(pool.map(lambda task: log_of_records(client, task, events), tasks))
    tell(logs)


def log_of_records(client: OrchestratorClient, task: str, count: int) -> dict[str, Any]:
    """Ids, waits and errors of so many records; every tenth is synced."""
    ids: list[str] = []
    waits_s: list[float] = []
    errors: list[str] = []
    for number in range(count):
        began = time.monotonic()
        try:
            if number % 10:
                ids.append(client.update_task_status(task, "testing", None, number % 101).event_id)
            else:
                ids.append(client.escalate_error(task, "flaky", f"number {number}", fatal=False).event_id)
        except Exception as error:
            errors.append(repr(error))
        waits_s.append(time.monotonic() - began)
    return {"task": task, "ids": ids, "waits_s": waits_s, "errors": errors}


def open_when_told(gun: str) -> None:
    """Open each path that is told, all programs at the moment when nobody holds ``gun`` alone any more."""
    starter = os.open(gun, os.O_RDWR)
    for line in sys.stdin:
        say("ready")
        fcntl.flock(starter, fcntl.LOCK_SH)
        with OrchestratorClient("opener", outbox=line.strip(), background=False) as client:
            receipt = client.update_task_status("task", "testing")
        fcntl.flock(starter, fcntl.LOCK_UN)
        say(receipt.event_id)


def flush_until_told(path: str, url: str) -> None:
    """Deliver what others record, and nothing of its own, however long it takes."""
    with OrchestratorClient("flusher", outbox=path, url=url, heartbeat="off") as client:
        client.flush(0.1)
        say("ready")
        sys.stdin.readline()


# --- Forks --------------------------------------------------------------------------------------------------------


class Forked:
    """A forked child that tells a list of texts and ends without its parent's exit handlers."""

    def __init__(self, work: Callable[[], list[str]]) -> None:
        began = time.monotonic()
        self._pipe, theirs = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            signal.alarm(CHILD_HANGS_S)
            os.write(theirs, json.dumps(work()).encode())
            os._exit(0)
        self.took_s = time.monotonic() - began
        os.close(theirs)

    def ended(self) -> tuple[list[str], int]:
        """What it told, and its exit code."""
        with open(self._pipe) as pipe:
            text = pipe.read()
        _, status = os.waitpid(self._pid, 0)
        return json.loads(text or "[]"), os.waitstatus_to_exitcode(status)


def fork_in_the_middle(path: str, url: str, forks: int) -> None:
    """Threads record, one flushes, checkpoints come often; children of any moment record and flush as well."""
    outbox_module.CHECKPOINT_AFTER = 50
    client = OrchestratorClient("parent", outbox=path, url=url)
    ids: list[str] = []

    def record_or_flush(number: int) -> None:
        if number:
            ids.append(client.update_task_status(f"parent-{number}", "testing", None, 5).event_id)
            time.sleep(0.001)  # leaves the processor to the children
        else:
            client.flush(0.2)

    slowest_s, bad = 0.0, []
    with threads(5, record_or_flush):
        for number in range(forks):
            child = Forked(lambda number=number: child_of_any_moment(client, number))  # type: ignore[misc]
            slowest_s = max(slowest_s, child.took_s)
            said, code = child.ended()
            ids += said
            if code or len(said) != 3:
                bad.append([number, code, said])
    client.close()
    tell({"ids": ids, "bad_children": bad, "slowest_fork_s": slowest_s})


def child_of_any_moment(client: OrchestratorClient, number: int) -> list[str]:
    """Some flush, some close, some just end."""
    ids = [client.update_task_status(f"child-{number}", "testing", None, n).event_id for n in range(3)]
    if number % 3 == 0:
        client.flush(1)
    if number % 2 == 0:
        client.close(0)
    return ids


def record_in_a_pool(method: str, path: str, url: str) -> None:
    """A pool's workers record, with the client they inherited if there is one, and so does their parent."""
    global inherited
    inherited = OrchestratorClient("parent", outbox=path, url=url)
    told = {"parent": [inherited.update_task_status("parent", "testing").event_id]}

    def record(_: int) -> None:
        told["parent"].append(inherited.update_task_status("parent", "testing", None, 1).event_id)
        time.sleep(0.001)  # leaves the processor to the workers

    context = multiprocessing.get_context(method)
    with threads(1, record), ProcessPoolExecutor(3, mp_context=context) as pool:
        for part in pool.map(record_in_a_worker, [path] * 9, [url] * 9, range(9)):
            told |= part
    inherited.close()
    tell(told)


inherited: Any = None


def record_in_a_worker(path: str, url: str, number: int) -> dict[str, list[str]]:
    client = inherited or OrchestratorClient("worker", outbox=path, url=url)
    task = f"worker-{number}"
    ids = [client.update_task_status(task, "testing", None, n).event_id for n in range(20)]
    if inherited is None:
        client.close(0)
    return {task: ids}


def fork_beside_openers(directory: str, forks: int) -> None:
    """Fork until a child cannot record, while two threads open and close outboxes of their own."""
    client = OrchestratorClient("parent", outbox=f"{directory}/parent.db", background=False)
    client.update_task_status("task", "testing")

    def open_and_close(number: int) -> None:
        with OrchestratorClient("other", outbox=f"{directory}/other-{number}.db", background=False) as other:
            other.update_task_status("task", "testing")

    codes: list[int] = []
    with threads(2, open_and_close):
        while len(codes) < forks and not any(codes):
            codes.append(Forked(lambda: impatient(client)).ended()[1])
    tell(codes)


def impatient(client: OrchestratorClient) -> list[str]:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # to hang is expected of some, so they die without a word
    signal.alarm(5)
    return [client.update_task_status("child", "testing").event_id]


def fork_beside_checkpoints(path: str, forks: int) -> None:
    """Fork until one is slow, while threads record and checkpoint."""
    client: Any = OrchestratorClient("parent", outbox=path)
    client.update_task_status("task", "testing")
    store = client._station._outbox._store

    def record_or_checkpoint(number: int) -> None:
        if number:
            client.update_task_status(f"task-{number}", "testing", None, 5)
        else:
            store.checkpoint(wait=True)

    slowest_s = 0.0
    with threads(4, record_or_checkpoint):
        while forks and slowest_s < 1:
            forks -= 1
            child = Forked(list)
            slowest_s = max(slowest_s, child.took_s)
            child.ended()
    client.close()
    tell(slowest_s)


# --- Ends ---------------------------------------------------------------------------------------------------------


def record_until_the_end(ending: str, path: str, url: str) -> None:
    """Eight threads record until this process ends, or the client does."""
    client = OrchestratorClient("agent", outbox=path, url=url)

    def record(task: str) -> None:
        with suppress(OutboxError):  # closed at exit
            while True:
                say(client.update_task_status(task, "testing", None, 5).event_id)

    with suppress(KeyboardInterrupt):  # it may come while the last of them still start
        for number in range(8):
            threading.Thread(target=record, args=(f"task-{number}",), daemon=True).start()
        sys.stdin.readline()
    if ending == "os._exit":
        os._exit(7)


def close_beside_questions(directory: str, rounds: int) -> None:
    """Close an outbox again and again while threads ask it: what they are told, and who still asked afterwards."""
    sys.setswitchinterval(1e-5)
    told = Counter[str]()
    for number in range(rounds):
        outbox = Outbox(Origin(Path(directory) / f"{number}.db", lambda: str(uuid.uuid4()), lambda: 0))
        starts = threading.Barrier(7)

        def ask(outbox: Outbox = outbox, starts: threading.Barrier = starts) -> None:
            starts.wait(CHILD_HANGS_S)
            try:
                for _ in range(400):
                    outbox._store.query(journal.last_seq)
                told["all answered"] += 1
            except OutboxError as error:
                told["closed" if "is closed" in str(error) else str(error)] += 1

        askers = [threading.Thread(target=ask, daemon=True) for _ in range(6)]
        for asker in askers:
            asker.start()
        starts.wait(CHILD_HANGS_S)
        for _ in range(30):
            outbox._store.query(journal.last_seq)
        outbox.close()
        for asker in askers:
            asker.join()
    tell(told)


def record_while_exiting(path: str) -> None:
    """Before, while and after the client is closed by its own exit handler."""

    def record(who: str) -> None:
        try:
            say(f"{who} {client.update_task_status(who, 'completed').event_id}")
        except OutboxError as error:
            say(f"{who} {type(error).__name__}")

    def record_after_the_main_thread() -> None:
        threading.main_thread().join()
        record("thread")

    atexit.register(record, "late")  # the last to run: handlers run in reverse order
    client = OrchestratorClient("agent", outbox=path)
    client.update_task_status("task", "testing")
    atexit.register(record, "handler")
    threading.Thread(target=record_after_the_main_thread).start()


def interrupt_everywhere(directory: str, followers: int, change: str) -> None:
    """Tell who is harmed by an interrupt inside a record call."""
    CHANGES[change]()
    for line in harm_everywhere(Path(directory), followers, has_threads=change == "threads"):
        say(line)
    os._exit(0)  # threads that hang must not keep this process


def hold_the_gate(path: str, manner: str) -> None:
    """Be alone at the gate, as a checkpoint is, or one of many, as a commit is."""
    gate = Gate(path + ".gate")
    with alone(gate.path) if manner == "alone" else gate.shared():
        say("held")
        sys.stdin.readline()


# --- Clocks -------------------------------------------------------------------------------------------------------


def record_beside_jumps(path: str, url: str, retention_s: float, planted: str) -> None:
    """Do what is told, a line each: ``record`` for a task, be ``ahead`` by seconds, wait for so many ``looks``."""
    BUILDS[planted]()
    looks = threading.Semaphore(0)
    note_each_look(looks)
    housekeeper.PRUNE_EVERY_S = 0.0
    folding.STEP = 1  # only what is folded may be forgotten
    client = OrchestratorClient("agent", outbox=path, url=url, retention=retention_s)
    shim = ctypes.CDLL(None)
    say("ready")
    for line in sys.stdin:
        verb, argument = line.split()
        if verb == "record":
            say(client.update_task_status(argument, "testing").event_id)
        elif verb == "ahead":
            shim.wallclock_set_ahead(ctypes.c_long(int(argument)))
            say(str(int(time.time())))
        elif verb == "looks":
            is_done = all(looks.acquire(timeout=QUICK_S) for _ in range(int(argument)))
            say("looked" if is_done else "nobody looks")
    client.close(0)


def durations_by_the_wall_clock() -> None:
    """A planted bug: back-offs and deadlines by the clock that jumps."""
    SystemClock.monotonic = staticmethod(time.time)  # type: ignore[method-assign]


def ages_by_the_wall_clock() -> None:
    """A planted bug: events are as old as their dates are ago."""

    def prune(self: Housekeeper) -> None:
        self._outbox.prune(recorded_before_us=self._clock.now_us() - self._retention_us)

    Housekeeper._prune_at_times = prune  # type: ignore[method-assign]


BUILDS = {"": lambda: None, "durations": durations_by_the_wall_clock, "ages": ages_by_the_wall_clock}


def note_each_look(looks: threading.Semaphore) -> None:
    look_and_prune = Outbox.prune

    def noted(outbox: Outbox, **settings: Any) -> None:
        look_and_prune(outbox, **settings)
        looks.release()

    Outbox.prune = noted  # type: ignore[method-assign]


if __name__ == "__main__":
    # Not dump_traceback_later(): in a forked child its thread is missing, and it waits for that for ever.
    faulthandler.register(signal.SIGALRM, chain=True)
    signal.alarm(int(sys.argv[1]))
    globals()[sys.argv[2]](*json.loads(sys.argv[3]))
