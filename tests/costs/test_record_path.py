"""What a record call costs in things that can be counted, so that no busy neighbour hides a change for the worse.

The figures are the most that is allowed, averages over ``CALLS`` calls on a warm client: what happens every so many
calls (a look at limits, a checkpoint) is in them with its share. Who makes one smaller lowers it here; who needs more
says beside the figure what for. Seconds are measured in ``benchmarks/record.py``.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from orchclient import OrchestratorClient
from orchclient.recorder import Recorder

from .recording import BEGIN, END, KINDS, WARM_UP

CALLS = 200
REPOSITORY = Path(__file__).parents[2]
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


@pytest.fixture(autouse=True)
def no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another test has imported OpenTelemetry, its current span would be asked for."""
    monkeypatch.setattr("orchclient.recorder.loaded", lambda name: None)


# --- in Python ------------------------------------------------------------------------------------------------------


def calls_per_event(client: OrchestratorClient, kind: str) -> Counter[str]:
    """Calls of functions in Python (``python``), in C (``c``) and of each name in C, by one record call."""
    counted: Counter[str] = Counter()

    def count(frame: FrameType, event: str, callee: Any) -> None:
        if event == "call":
            counted["python"] += 1
        elif event == "c_call":
            counted["c"] += 1
            counted[callee.__name__] += 1

    for number in range(WARM_UP):
        KINDS[kind](client, number)
    before = sys.getprofile()  # a coverage tool's
    sys.setprofile(count)
    try:
        for number in range(CALLS):
            KINDS[kind](client, number)
    finally:
        sys.setprofile(before)
    return Counter({name: number / CALLS for name, number in counted.items()})  # type: ignore[misc]


MOST = {
    # arguments to text 2, secrets 1, id, time and text 5, one commit 11, the file is still there 1, who delivers 2
    "progress": (27, 33),
    # besides: arguments of its own 8, the error counted as an incident 12, the history of attempts 2
    "error": (51, 46),
}
"""Calls of functions in Python, and in C."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_makes_few_calls(kind: str, outbox_path: Path) -> None:
    with OrchestratorClient("backend-agent", outbox=outbox_path, mode="offline") as client:
        counted = calls_per_event(client, kind)
    assert counted["python"] <= MOST[kind][0], counted
    assert counted["c"] <= MOST[kind][1], counted


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_is_one_statement(kind: str, outbox_path: Path) -> None:
    with OrchestratorClient("backend-agent", outbox=outbox_path, mode="offline") as client:
        counted = calls_per_event(client, kind)
    assert 1 <= counted["execute"] <= 1.3, counted  # looks at limits and at the -wal, every hundred or so
    assert counted["commit"] == 0


def test_control_a_second_statement_and_a_second_look_at_the_text_are_found(
    outbox_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Recorder.record

    def planted(self: Recorder, draft: Any, *rest: Any) -> Any:
        json.loads(json.dumps(draft.task_id))
        self._station.query(lambda con: con.execute("SELECT 1").fetchone())
        return record(self, draft, *rest)

    monkeypatch.setattr(Recorder, "record", planted)
    with OrchestratorClient("backend-agent", outbox=outbox_path, mode="offline") as client:
        counted = calls_per_event(client, "progress")
    assert counted["execute"] >= 2
    assert counted["python"] > MOST["progress"][0]
    assert counted["c"] > MOST["progress"][1]


# --- of the system --------------------------------------------------------------------------------------------------


needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="no strace to count system calls with")
LINE = re.compile(r"(\w+)\((?:(\d+), )?.*= (-?\d+)")


def system_calls(kind: str) -> Counter[str]:
    """System calls of the recording thread by one record call, and bytes written as ``bytes``."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        trace = Path(name, "trace")
        program = [sys.executable, "-m", "tests.costs.recording", kind, name, str(CALLS)]
        done = subprocess.run(
            ["strace", "-qq", "-o", str(trace), *program], cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        if "PTRACE" in done.stderr or "ptrace" in done.stderr:
            pytest.skip(f"processes cannot be traced here: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        return _counted(trace.read_text(errors="replace"))


def _counted(trace: str) -> Counter[str]:
    between = trace.partition(f'"{BEGIN}"')[2].partition("\n")[2].partition(f'"{END}"')[0]
    assert between, "the program did not come to its marks"
    counted: Counter[str] = Counter()
    for name, _, result in LINE.findall(between):
        counted[name] += 1
        counted["all"] += 1
        counted["bytes"] += int(result) if name in ("pwrite64", "write") else 0
    return Counter({name: number / CALLS for name, number in counted.items()})  # type: ignore[misc]


@needs_strace
def test_a_progress_update_asks_little_of_the_system_and_never_for_a_sync() -> None:
    ours, raw = system_calls("progress"), system_calls("raw")
    assert ours["fdatasync"] + ours["fsync"] <= 0.02, ours  # at a checkpoint
    # the gate 2, a random id 1, which process is this 1, are the files still there 3
    assert ours["all"] <= raw["all"] + 8, (ours, raw)
    assert ours["bytes"] <= 1.3 * raw["bytes"], (ours, raw)


@needs_strace
def test_an_error_is_synced_once() -> None:
    ours = system_calls("error")
    assert 1 <= ours["fdatasync"] + ours["fsync"] <= 1.05, ours
    assert ours["all"] <= 17, ours


@needs_strace
def test_control_progress_that_is_synced_at_once_is_found() -> None:
    assert system_calls("progress_full")["fdatasync"] >= 1
