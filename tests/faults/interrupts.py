"""A KeyboardInterrupt at every place inside a record call where CPython looks for signals, one place a run.

Yields a line for each place where somebody was harmed, and a summary. With followers, other threads wait for the
interrupted one to commit for them. To be run in a process of its own: threads that hang stay.

The interpreter runs a signal's handler at the beginning of a function, at a jump backwards and after the call of a
function in C, nowhere else (ceval.c, CHECK_EVAL_BREAKER). So that is where the exception is raised here.
"""

from __future__ import annotations

import dis
import gc
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import orchclient
from orchclient import OrchestratorClient
from orchclient.outbox import folding, limits
from orchclient.outbox import outbox as outbox_module
from orchclient.outbox.commits import Together, Work
from orchclient.outbox.gate import is_locked_alone, lock_file
from orchclient.outbox.journal import Append
from orchclient.outbox.writer import Writer

PACKAGE = str(Path(orchclient.__file__).parent)
WATCHED = (PACKAGE, "contextlib.py", "threading.py")
CALLS = frozenset({"CALL", "CALL_KW", "CALL_FUNCTION_EX"})
AFTERWARDS = frozenset({"RESUME", "JUMP_BACKWARD"})
HANG_S = 1.0  # in memory and alone, a record takes less than a millisecond
ENOUGH = 5  # places with harm, after which nothing new is learnt


@cache
def names(code: CodeType) -> dict[int, str]:
    return {each.offset: each.opname for each in dis.get_instructions(code)}


class Interruption:
    """Traces a thread and raises at the ``wanted``-th place."""

    def __init__(self, wanted: int) -> None:
        self.where = ""
        self._left = wanted
        self._last: dict[FrameType, str] = {}  # the instruction before, as long as it called nothing in Python

    def at_call(self, frame: FrameType, event: str, argument: object) -> Any:
        caller = frame.f_back
        if caller is not None:
            self._last.pop(caller, None)
        file = frame.f_code.co_filename
        if not file.startswith(PACKAGE) and not file.endswith(WATCHED[1:]):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self._last[frame] = "RESUME"  # of which nothing is told
        return self.at_instruction

    def at_instruction(self, frame: FrameType, event: str, argument: object) -> Any:
        if event != "opcode":
            return self.at_instruction
        before = self._last.get(frame, "")
        self._last[frame] = names(frame.f_code)[frame.f_lasti]
        if before in CALLS or before in AFTERWARDS:
            self._left -= 1
            if not self._left:
                self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"
                raise KeyboardInterrupt
        return self.at_instruction


class Scene:
    """A client whose main thread is interrupted while it records, for itself and for its followers."""

    def __init__(self, path: Path, followers: int, *, has_threads: bool) -> None:
        self._path = path
        url = "http://127.0.0.1:9" if has_threads else None  # where nobody listens
        self._client: Any = OrchestratorClient("agent", outbox=path, url=url, background=has_threads)
        if not has_threads:  # else the interrupted call is the one that starts them
            self._client.update_task_status("task", "testing")
        self._acknowledged: list[str] = []
        self._errors: list[str] = []
        self._is_over = threading.Event()
        self._followers = [self._thread(f"follower-{number}") for number in range(followers)]

    def _thread(self, task: str) -> threading.Thread:
        return threading.Thread(target=self._record, args=(task,), daemon=True)

    def _record(self, task: str) -> None:
        try:
            self._acknowledged.append(self._client.update_task_status(task, "testing").event_id)
        except BaseException as error:
            self._errors.append(f"a thread that nobody interrupted got {error!r}")

    def play(self, place: int) -> tuple[str, list[str]]:
        """Where the interrupt came, "" when there is no such place; and whom it harmed."""
        helper = threading.Thread(target=self._gather, daemon=True)
        is_held = threading.Event()
        if self._followers:
            threading.Thread(target=self._hold, args=(is_held, helper), daemon=True).start()
            is_held.wait()
        where = self._interrupted(Interruption(place))
        self._is_over.set()
        return where, self._harm()

    def _hold(self, is_held: threading.Event, helper: threading.Thread) -> None:
        """Keep everybody waiting until the main thread and then all followers are in the queue."""
        with self._client.transaction():
            is_held.set()
            helper.start()
            helper.join()

    def _gather(self) -> None:
        self._wait_for_queue(1)
        for number, follower in enumerate(self._followers):
            follower.start()
            self._wait_for_queue(2 + number)

    def _wait_for_queue(self, length: int) -> None:
        queue = self._client._station._outbox._writer._waiting
        until = time.monotonic() + HANG_S
        while len(queue) < length and not self._is_over.is_set() and time.monotonic() < until:
            time.sleep(0.0002)
        time.sleep(0.002)  # from the queue to the wait itself

    def _interrupted(self, interruption: Interruption) -> str:
        gc.collect()
        gc.disable()  # its finalizers belong to other scenes, and a tracer must not raise in them
        sys.settrace(interruption.at_call)
        try:
            receipt = self._client.update_task_status("task", "testing", None, 5)
            sys.settrace(None)
            self._acknowledged.append(receipt.event_id)
        except KeyboardInterrupt:
            sys.settrace(None)
        gc.enable()
        return interruption.where

    def _harm(self) -> list[str]:
        with lock_file(f"{self._path}.gate") as gate:
            harm = [] if is_locked_alone(gate, HANG_S) else ["the gate is still held"]
        late = self._thread("late")
        late.start()
        hanging = still_at_work([*self._followers, late], HANG_S)
        harm += [f"{hanging} threads hang"] if hanging else []
        closer = threading.Thread(target=self._client.close, args=(0,), daemon=True)
        closer.start()
        harm += ["close hangs"] if still_at_work([closer], HANG_S) else []
        ours = [each for each in threading.enumerate() if each.name.startswith("orchclient-")]
        harm += ["threads go on after close"] if still_at_work(ours, HANG_S) else []
        with closing(sqlite3.connect(self._path)) as con:
            stored = {id_ for (id_,) in con.execute("SELECT id FROM events")}
        lost = [id_ for id_ in self._acknowledged if id_ not in stored]
        return harm + ([f"{len(lost)} events were acknowledged and are not there"] if lost else []) + self._errors


def still_at_work(threads: list[threading.Thread], seconds: float) -> int:
    """How many of the threads that were started do not end in time."""
    until = time.monotonic() + seconds
    begun = [thread for thread in threads if thread.is_alive()]
    for thread in begun:
        thread.join(max(until - time.monotonic(), 0.0))
    return sum(thread.is_alive() for thread in begun)


def keep_house_at_every_call() -> None:
    """Each record call measures, folds and checkpoints, which otherwise one in fifty or a thousand does."""
    outbox_module.LOOK_AFTER = 1
    outbox_module.CHECKPOINT_AFTER = folding.BEHIND_AT_MOST = limits.SOME_EVENTS = 0
    folding.SMALL_STEP = 1


def sync_at_every_call() -> None:
    """Each record call finds that another process changed the task's status, so it syncs what it committed."""
    honest = Append.is_stored

    def is_stored(self: Append, seq: int) -> None:
        honest(self, seq)
        self.known.needs_sync = True

    Append.is_stored = is_stored  # type: ignore[method-assign]


def release_by_a_call() -> None:
    """A planted bug, and what one would write: a method in ``finally`` lets the next one lead."""

    def run(self: Writer, work: Work, synced: bool, together: Together | None = None) -> Any:
        self.acquire()
        try:
            return self.commits.commit(work, synced, together is not None)
        finally:
            self.release()

    Writer.run = run  # type: ignore[method-assign]


CHANGES = {
    "": lambda: None,
    "threads": lambda: None,
    "house": keep_house_at_every_call,
    "sync": sync_at_every_call,
    "planted bug": release_by_a_call,
}


def harm_everywhere(directory: Path, followers: int, *, has_threads: bool) -> Iterator[str]:
    """Interrupt the same call at one place after another, until there are no more or enough is known."""
    places = harmful = 0
    while harmful < ENOUGH:
        where, harm = Scene(directory / f"{places}.db", followers, has_threads=has_threads).play(places + 1)
        if not where:
            break
        places += 1
        if harm:
            harmful += 1
            yield f"{where}: {'; '.join(dict.fromkeys(harm))}"
    yield f"{places} places, harm at {harmful}"
