"""The -wal stays under a limit whoever reads, who is in the way is named, and it shrinks when that one is gone."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchclient import OrchestratorClient, OutboxFull
from orchclient.outbox import holders, wal
from orchclient.testing import Receiver
from tests.conftest import MakeClient

MIB = 1_048_576
LARGE = {"pad": "x" * 240_000}
WAIT_S = 20.0
needs_names = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="no /proc/locks: holders cannot be named")

READER = """
import sqlite3, sys
con = sqlite3.connect(sys.argv[1], isolation_level=None)
con.execute("BEGIN")
con.execute("SELECT count(*) FROM events").fetchone()
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def reader(path: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A program that reads a state of the outbox and does not end its read."""
    script = tmp_path / "forgetful.py"
    script.write_text(READER)
    command = [sys.executable, str(script), str(path), "--token=canary"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def record(client: OrchestratorClient, count: int, metadata: dict[str, Any]) -> None:
    for number in range(count):
        client.update_task_status("t", "in_progress", metadata, number % 100)


def command_line(path: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "orchclient", "--db", str(path), *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def wait_until_small(path: Path) -> None:
    """Nobody tells when another process's read has ended and the -wal was cut."""
    until = time.monotonic() + WAIT_S
    while wal.wal_bytes(str(path)) > wal.WAL_LIMIT:
        assert time.monotonic() < until
        time.sleep(0.05)


@needs_names
def test_beside_a_reader_that_never_ends_the_wal_is_bounded_and_the_reader_named_until_it_is_gone(
    make_client: MakeClient, outbox_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    limit = 16 * MIB
    client = make_client(background=False, max_outbox_bytes=limit, min_free_bytes=1)
    client.update_task_status("t", "in_progress")
    with reader(outbox_path, tmp_path) as stuck:
        with pytest.raises(OutboxFull) as refused:
            record(client, 100_000, {})
        message = str(refused.value)
        assert f"pid {stuck.pid} (" in message
        assert "forgetful.py" in message
        assert wal.WAL_LIMIT < wal.wal_bytes(str(outbox_path)) < wal.WAL_LIMIT + limit
        told = [record.getMessage() for record in caplog.records if "does not end a read" in record.getMessage()]
        assert len(told) == 1
        assert f"pid {stuck.pid} (" in told[0]
        status = command_line(outbox_path, "status")["wal"]
        assert [holder["pid"] for holder in status["held_by"]] == [stuck.pid]
        assert status["bytes"] > status["limit"]
        problems = [each for each in command_line(outbox_path, "doctor")["findings"] if each["level"] == "problem"]
        assert [f"pid {stuck.pid} (" in each["what"] for each in problems] == [False, True]
        assert "canary" not in f"{message}{told}{status}{problems}"
    recorded = client.health().recorded
    client.update_task_status("t", "in_progress", {}, 100)
    assert client.health().recorded == recorded + 1
    assert wal.wal_bytes(str(outbox_path)) < MIB


def test_when_the_reader_is_gone_whoever_delivers_cuts_the_wal_though_nothing_is_recorded(
    make_client: MakeClient, outbox_path: Path, tmp_path: Path, receiver: Receiver
) -> None:
    client = make_client(url=receiver.url, min_free_bytes=1)
    client.update_task_status("t", "in_progress")
    with reader(outbox_path, tmp_path):
        record(client, 300, LARGE)
        client.flush(WAIT_S)
        assert wal.wal_bytes(str(outbox_path)) > wal.WAL_LIMIT
    wait_until_small(outbox_path)


def test_large_events_without_any_reader_do_not_make_the_wal_grow_beyond_its_limit(
    make_client: MakeClient, outbox_path: Path
) -> None:
    client = make_client(background=False, min_free_bytes=1)
    largest = 0
    for _ in range(500):
        record(client, 1, LARGE)
        largest = max(largest, wal.wal_bytes(str(outbox_path)))
    between_two_looks = 50 * 2 * len(LARGE["pad"])
    assert 50 * MIB < largest < wal.WAL_LIMIT + between_two_looks


@needs_names
def test_a_reader_that_is_stopped_is_named_whatever_the_size(
    make_client: MakeClient, outbox_path: Path, tmp_path: Path
) -> None:
    make_client(background=False).update_task_status("t", "in_progress")
    with reader(outbox_path, tmp_path) as stopped:
        assert command_line(outbox_path, "status")["wal"]["held_by"] == []
        os.kill(stopped.pid, signal.SIGSTOP)
        held_by = command_line(outbox_path, "status")["wal"]["held_by"]
    assert [(each["pid"], each["acts"], each["is_stopped"]) for each in held_by] == [(stopped.pid, ["reads"], True)]


@needs_names
def test_who_commits_and_who_checkpoints_is_told_too(make_client: MakeClient, outbox_path: Path) -> None:
    client = make_client(background=False)
    with client.transaction():
        (me,) = holders.holders(str(outbox_path))
        assert me.pid == os.getpid()
        assert me.acts == ("commits", "reads")
        assert str(me).startswith(f"pid {os.getpid()} (")
    assert holders.holders(str(outbox_path)) == ()


def test_where_locks_cannot_be_seen_nobody_is_named(
    make_client: MakeClient, outbox_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_client(background=False).update_task_status("t", "in_progress")
    monkeypatch.setattr(holders, "_lines", list)
    with closing(sqlite3.connect(outbox_path, isolation_level=None)) as con:
        con.execute("BEGIN")
        con.execute("SELECT count(*) FROM events").fetchone()
        assert holders.holders(str(outbox_path)) == ()
        assert "cannot be seen" in wal.readers(str(outbox_path))
