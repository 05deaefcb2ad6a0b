"""One race after another between a checkpoint and commits, with the checkpoint stopped a little later each time.

The order of events is the one of SQLite's WAL-reset bug (sqlite.org/wal.html): everything in the -wal is checkpointed;
a second checkpoint begins and is stopped; commits begin the -wal anew; the second checkpoint goes on, and may write
down that what it saw is checkpointed, of a -wal that is another one by now; a third one then skips the new events,
and the commit after it overwrites them.
"""

from __future__ import annotations

import platform
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import count
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any, Self

import pytest
from attrs import frozen

SOURCE = Path(__file__).with_name("stepper.c")
REPOSITORY = Path(__file__).parents[3]
CHECKPOINT_LOCK = 121
"""The byte of the -shm file that a checkpoint locks (sqlite.org/walformat.html, section 2.3.1: WAL_CKPT_LOCK)."""

REFUSED = 77
PATIENCE_S = 30.0  # nothing here takes that long unless it hangs
BEFORE, MEANWHILE, AFTER, LAST = 60, 3, 20, 1

# Numbers of the system calls in which a process waits for another (x86-64): poll, select, nanosleep, flock, futex,
# clock_nanosleep. Waiting for orders is a read.
WAITS = frozenset({"7", "23", "35", "73", "202", "230"})


def why_not() -> str:
    """Why nothing can be stepped here; empty when it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"the stepper is for Linux on x86-64, this is {sys.platform} on {platform.machine()}"
    return "" if shutil.which("cc") else "no C compiler (cc) to build the stepper with"


def built(directory: Path) -> Path:
    """The stepper, compiled into a directory."""
    program = directory / "stepper"
    command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


@frozen
class Outcome:
    """What became of one race."""

    steps: int  # instructions between taking the checkpoint lock and the stop
    was_stopped: bool  # False: the checkpoint was over before
    met: bool  # the commits went through while the checkpoint stood still
    lost: int  # acknowledged events that are not in the file
    integrity: str

    @property
    def is_damaged(self) -> bool:
        return bool(self.lost) or self.integrity != "ok"


class Process:
    """A role in a process of its own, asked through a socket."""

    def __init__(self, line: Connection, pid: int) -> None:
        self.pid = pid
        self._line = line

    def ask(self, verb: str, *arguments: object) -> Any:
        """Order something and wait until it is done; raises what the other side raised."""
        self.order(verb, *arguments)
        return self.answer()

    def order(self, verb: str, *arguments: object) -> None:
        self._line.send((verb, arguments))

    def answer(self) -> Any:
        if not self._line.poll(PATIENCE_S):
            raise TimeoutError(f"process {self.pid} does not answer")
        answer = self._line.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def is_done_or_waits(self) -> bool:
        """Watch until it has answered (True), or waits for another process inside a system call (False)."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            if self._line.poll(0.0005):
                return True
            if Path(f"/proc/{self.pid}/syscall").read_text().split()[0] in WAITS:
                return self._line.poll(0)
        raise TimeoutError(f"process {self.pid} neither answers nor waits")

    def close(self) -> None:
        self._line.close()


class Stepper:
    """The C program and the process that it can stop."""

    def __init__(self, program: Path, command: list[str]) -> None:
        whole = [str(program), str(CHECKPOINT_LOCK), *command]
        self._program = subprocess.Popen(
            whole, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=REPOSITORY
        )
        if self.heard() != "ready":
            code = self._program.wait(PATIENCE_S)
            assert code == REFUSED, f"the stepper ended with {code}"
            pytest.skip("this system does not let a process be traced (ptrace)")

    def tell(self, order: str, answer: str) -> None:
        assert self._program.stdin is not None
        self._program.stdin.write(order + "\n")
        assert self.heard() == answer

    def heard(self) -> str:
        assert self._program.stdout is not None
        return self._program.stdout.readline().strip()

    def close(self) -> None:
        self._program.kill()  # its child follows it
        self._program.communicate(timeout=PATIENCE_S)


class Race:
    """A recorder, and a checkpointer that can be stopped, which meet on one new file after another."""

    def __init__(self, program: Path, directory: Path, *, is_gated: bool) -> None:
        self._directory = directory
        self._numbers = count(1)
        with ExitStack() as stack:
            self._listener = stack.enter_context(Listener(str(directory / "orders"), "AF_UNIX"))
            self._checkpointer, self._stepper = self._stepped(stack, program, is_gated)
            self._recorder = self._plain(stack, is_gated)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _command(self, role: str, is_gated: bool) -> list[str]:
        kind = "gated" if is_gated else "ungated"
        return [sys.executable, "-m", f"{__package__}.roles", str(self._listener.address), role, kind]

    def _stepped(self, stack: ExitStack, program: Path, is_gated: bool) -> tuple[Process, Stepper]:
        stepper = Stepper(program, self._command("checkpointer", is_gated))
        stack.callback(stepper.close)
        return self._met(stack, 0), stepper

    def _plain(self, stack: ExitStack, is_gated: bool) -> Process:
        process = subprocess.Popen(self._command("recorder", is_gated), cwd=REPOSITORY)
        stack.callback(process.wait, PATIENCE_S)
        return self._met(stack, process.pid)

    def _met(self, stack: ExitStack, pid: int) -> Process:
        process = Process(self._listener.accept(), pid)
        stack.callback(process.close)
        return process

    def sweep(self, every: int) -> Iterator[Outcome]:
        """A race for every so many instructions, until the checkpoint is over before it is stopped."""
        for steps in count(1, every):
            outcome = self.run(steps)
            yield outcome
            if not outcome.was_stopped:
                return

    def run(self, steps: int) -> Outcome:
        """One race on a file of its own, with the second checkpoint stopped after so many instructions."""
        path = self._directory / f"{next(self._numbers)}.db"
        for process in (self._recorder, self._checkpointer):
            process.ask("open", str(path))
        acknowledged: list[str] = []
        broken = ""
        was_stopped = met = False
        try:
            acknowledged += self._recorder.ask("record", BEFORE)
            assert self._checkpointer.ask("checkpoint", True)
            was_stopped, met, meanwhile = self._stopped_checkpoint(steps)
            acknowledged += meanwhile + self._recorder.ask("record", AFTER)
            assert self._recorder.ask("checkpoint", True)
            acknowledged += self._recorder.ask("record", LAST)
        except (sqlite3.Error, ValueError, RuntimeError) as error:
            broken = repr(error)
        for process in (self._recorder, self._checkpointer):
            process.ask("close")
        found, integrity = judged(path)
        lost = len(set(acknowledged) - found)
        return Outcome(steps, was_stopped, met, lost, broken or integrity)

    def _stopped_checkpoint(self, steps: int) -> tuple[bool, bool, list[str]]:
        """The second checkpoint, stopped in the middle while the other process commits and tries a checkpoint too."""
        self._stepper.tell(f"watch {steps}", "watching")
        self._checkpointer.order("checkpoint", True)
        was_stopped = self._stepper.heard() == "stopped"
        met = False
        if was_stopped:
            self._recorder.ask("checkpoint", False)
        self._recorder.order("record", MEANWHILE)
        if was_stopped:
            met = self._recorder.is_done_or_waits()
            self._stepper.tell("go", "running")
        assert self._checkpointer.answer()
        return was_stopped, met, self._recorder.answer()


def judged(path: Path) -> tuple[set[str], str]:
    """The ids of the events in a file that nobody has open, and what SQLite says of its pages."""
    try:
        with closing(sqlite3.connect(path)) as con:
            integrity: str = con.execute("PRAGMA integrity_check(1)").fetchone()[0]
            return {id_ for (id_,) in con.execute("SELECT id FROM events")}, integrity
    except sqlite3.DatabaseError as error:
        return set(), str(error)
