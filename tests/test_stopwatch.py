"""The stopwatch charges the code with its own waits, and not with what the machine took from the whole process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

from tests.stopwatch import Stopwatch

STOPPED_S = 0.6
PROGRAM = f"""
import sys, threading
from tests.stopwatch import Stopwatch
with Stopwatch() as took:
    print("begun", flush=True)
    sys.stdin.readline()  # comes once the process goes on
print(took.wall_s >= {STOPPED_S}, took.s < {STOPPED_S} / 2)
"""


def test_a_wait_of_the_code_is_charged() -> None:
    with Stopwatch() as took:
        assert not threading.Event().wait(STOPPED_S)
    assert took.wall_s >= STOPPED_S
    assert took.s >= took.wall_s - took.late_s
    assert took.late_s < took.wall_s


def test_a_process_that_was_stopped_is_not_charged_for_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "begun\n"
        os.kill(program.pid, signal.SIGSTOP)
        assert not threading.Event().wait(STOPPED_S)
        os.kill(program.pid, signal.SIGCONT)
        out, _ = program.communicate("on\n", timeout=30)
    assert out == "True True\n"
