"""Who has waited for long goes first, and nobody waits for a courtesy that is never returned."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pytest

from orchclient.outbox import commits, courtesy
from orchclient.outbox.commits import Commits
from orchclient.outbox.courtesy import Courtesy
from orchclient.outbox.gate import alone
from orchclient.outbox.outbox import Outbox
from orchclient.outbox.patience import Patience
from tests.outbox.test_outbox import opened, record
from tests.stopwatch import Stopwatch

ASKING = """
import os, sys
from orchclient.outbox.courtesy import Courtesy
mine = Courtesy(os.open(sys.argv[1], os.O_RDWR))
mine.ask()
print("asked", flush=True)
sys.stdin.readline()
mine.thank()
print("thanked", flush=True)
sys.stdin.readline()
"""


@contextmanager
def somebody_who_asks(gate: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", ASKING, str(gate)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "asked\n"
        yield process


def thanked(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "thanked\n"


@pytest.fixture
def gate(outbox_path: Path) -> Path:
    with closing(opened(outbox_path)) as outbox:
        record(outbox)
    return Path(f"{outbox_path}.gate")


def test_who_asked_is_older_until_it_thanks(gate: Path) -> None:
    mine = Courtesy(os.open(gate, os.O_RDWR))
    mine.meet()
    assert not mine.others_are_older()
    with somebody_who_asks(gate) as other:
        assert mine.others_are_older()
        mine.ask()  # any number may be old at a time
        thanked(other)
    mine.thank()
    assert not mine.others_are_older()
    assert not mine.is_alone


def test_who_has_met_nobody_for_a_while_looks_no_more(gate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [50.0]
    monkeypatch.setattr(courtesy, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    mine = Courtesy(os.open(gate, os.O_RDWR))
    mine.meet()
    with somebody_who_asks(gate):
        now_s[0] += courtesy.MET_FOR_S / 2
        assert mine.others_are_older()
        now_s[0] += courtesy.MET_FOR_S
        assert not mine.others_are_older()
        assert mine.is_alone


def tries_beside_somebody_who_asks(outbox: Outbox, gate: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the record call had taken at each of its tries."""
    tries: list[float] = []
    outbox._store.gate.courtesy.meet()
    real = Commits._committed
    with somebody_who_asks(gate), Stopwatch() as took:

        def noted(self: Commits, *given: object) -> object:
            tries.append(took.so_far_s)
            return real(self, *given)  # type: ignore[arg-type]

        monkeypatch.setattr(Commits, "_committed", noted)
        record(outbox)
    return tries


def test_an_event_is_recorded_beside_somebody_who_asks_and_never_thanks(
    gate: Path, outbox_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(opened(outbox_path)) as outbox:
        [only] = tries_beside_somebody_who_asks(outbox, gate, monkeypatch)
    assert only >= courtesy.OLD_S  # it let the other one go first until it was as old


def test_who_has_met_nobody_records_at_once(gate: Path, outbox_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "OLD_S", 3600.0)  # to wait for this would be seen
    with closing(opened(outbox_path)) as outbox, somebody_who_asks(gate):
        record(outbox)


def test_a_checkpoint_of_one_s_own_is_nobody_to_be_courteous_to(
    outbox_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would make every commit of the next second dearer."""
    waits, real = Event(), Patience.pause
    monkeypatch.setattr(Patience, "pause", lambda self: (waits.set(), real(self))[1])
    with closing(opened(outbox_path)) as outbox:
        record(outbox)
        with ThreadPoolExecutor(1) as pool:
            with alone(f"{outbox_path}.gate"):
                recording = pool.submit(record, outbox)
                assert waits.wait(20)
            recording.result(20)
        assert outbox._store.gate.courtesy.is_alone
