"""``orchclient doctor``: what is provoked is found, with a cure, and the exit code says whether it is a problem."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from orchclient.cli import reaching, soundness
from orchclient.core.http import HttpReply
from orchclient.delivery.clock import SystemClock
from orchclient.outbox import filesystems
from orchclient.testing.receiver import Receiver
from tests.cli.inside import Inside
from tests.conftest import MakeClient


@pytest.fixture
def command(outbox_path: Path, receiver: Receiver) -> Inside:
    outbox_path.parent.chmod(0o700)
    return Inside(outbox_path, receiver.url)


def found(command: Inside, check: str, *arguments: str, **environment: str) -> list[tuple[str, str, str]]:
    """What doctor says of one check: level, what, cure."""
    findings = command.json("doctor", *arguments, **environment)["findings"]
    return [(each["level"], each["what"], each["cure"]) for each in findings if each["check"] == check]


def only(command: Inside, check: str, **environment: str) -> tuple[str, str, str]:
    (finding,) = found(command, check, **environment)
    return finding


def test_all_is_well_and_every_check_is_there(command: Inside) -> None:
    command("update", "t", "--flush=20s")
    ended = command("doctor", "--json", "--strict")
    assert (ended.code, ended.document["ok"]) == (0, True), ended.out
    assert {each["level"] for each in ended.document["findings"]} == {"ok"}
    assert {each["check"] for each in ended.document["findings"]} == {
        "sqlite", "file", "permissions", "file_system", "space", "integrity", "readers", "delivery",
        "destination",
    }  # fmt: skip


def test_a_warning_is_a_failure_with_strict_only(command: Inside) -> None:
    command("update", "t")
    assert command("doctor").code == 0
    assert command("doctor", "--strict").code == 1
    assert only(command, "leader") == ("warning", "orchestrator: nobody delivers right now", "Run: orchclient flush")


def test_unusable_settings_are_a_finding(command: Inside) -> None:
    ended = command("doctor", ORCHCLIENT_RETENTION="soon")
    assert ended.code == 1
    assert "PROBLEM  ORCHCLIENT_RETENTION is not usable" in ended.out
    assert "orchclient config" in ended.out


def test_a_variable_that_nobody_reads_is_named(command: Inside) -> None:
    assert found(command, "settings", ORCHCLIENT_TOKNE="x")[0][2] == "Did you mean ORCHCLIENT_TOKEN?"


def test_a_directory_that_others_can_list_is_told(command: Inside, outbox_path: Path) -> None:
    command("update", "t")
    outbox_path.parent.chmod(0o755)
    level, what, cure = only(command, "permissions")
    assert (level, "0600, 0755" in what, f"chmod 700 {outbox_path.parent}" in cure) == ("problem", True, True)


def test_a_file_on_the_network_is_told(command: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    command("update", "t")
    monkeypatch.setattr(filesystems, "kind_at", lambda path: "nfs4")
    level, what, cure = only(command, "file_system", ORCHCLIENT_ALLOW_NETWORK_FILESYSTEM="yes")
    assert (level, "nfs4" in what, "ORCHCLIENT_DB" in cure) == ("warning", True, True)


def test_a_disk_that_is_nearly_full_is_told(command: Inside) -> None:
    command("update", "t")
    level, what, cure = only(command, "space", ORCHCLIENT_MIN_FREE_BYTES=str(2**60))
    assert (level, "status updates are refused" in what, "prune" in cure) == ("problem", True, True)


def test_a_clock_that_was_set_back_is_told(command: Inside, make_client: MakeClient) -> None:
    class Ahead(SystemClock):
        @staticmethod
        def now_us() -> int:
            return SystemClock.now_us() + 3 * 3_600_000_000

    make_client(clock=Ahead(), background=False).update_task_status("t", "testing")
    assert ("warning", "The newest event is dated 3 h ahead: the clock was set back since") in [
        finding[:2] for finding in found(command, "integrity")
    ]


@pytest.mark.parametrize(
    ("ours_ahead", "level", "words"),
    [
        (timedelta(seconds=5), "ok", "agree"),
        (timedelta(minutes=2), "warning", "is 2 min ahead of that of"),
        (timedelta(hours=-3), "problem", "is 3 h behind that of"),
    ],
)
def test_the_clock_is_held_against_the_orchestrators(
    command: Inside, ours_ahead: timedelta, level: str, words: str
) -> None:
    theirs = format_datetime(datetime.now(UTC) - ours_ahead, usegmt=True)
    reply: Any = HttpReply(200, {"date": theirs})
    with patch("orchclient.delivery.transport.HttpTransport.send", return_value=reply):
        told = only(command, "clock")
    assert (told[0], words in told[1]) == (level, True)


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 99 Foo 2026 99:99:99 GMT"])
def test_a_date_that_is_none_says_nothing(date: str) -> None:
    assert list(reaching._clock("orchestrator", date)) == []


@pytest.mark.parametrize(
    ("status", "words"), [(401, "refuses the token (HTTP 401)"), (503, "is in trouble (HTTP 503)")]
)
def test_what_a_destination_answers_is_told(command: Inside, status: int, words: str) -> None:
    reply: Any = HttpReply(status)
    with patch("orchclient.delivery.transport.HttpTransport.send", return_value=reply):
        assert words in only(command, "destination")[1]


def test_a_destination_that_is_down_is_told_and_one_that_cannot_be_asked_too(
    command: Inside, receiver: Receiver
) -> None:
    receiver.stop()
    told = found(command, "destination", ORCHCLIENT_WEBHOOK_URL="https://hooks.example/a-long-secret-path")
    assert [level for level, _, _ in told] == ["problem", "ok"]
    assert "--send-test" in told[1][2]
    assert "a-long-secret-path" not in str(told)


def test_events_that_were_changed_on_the_disk_are_told(command: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    command("update", "t")
    monkeypatch.setattr(soundness.checkup, "spoiled", lambda con: 2)
    assert any("2 events of the newest 500" in what for _, what, _ in found(command, "integrity"))


AGENT = """
import sys, time
from orchclient import OrchestratorClient
client = OrchestratorClient("sleeper")
client.update_task_status("t", "testing")
client.flush(20)
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_process_that_delivers_and_is_stopped_is_told(command: Inside) -> None:
    environment = {**os.environ, **command.environment}
    with subprocess.Popen(
        [sys.executable, "-c", AGENT], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as agent:
        assert agent.stdout is not None
        assert agent.stdout.readline() == "ready\n"
        level, what, _ = only(command, "leader")
        assert (level, f"pid {agent.pid} (agent sleeper) delivers" in what) == ("ok", True)
        agent.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, agent.pid, os.WSTOPPED | os.WNOWAIT)
        level, what, cure = only(command, "leader")
        assert (level, "is stopped" in what, f"kill -CONT {agent.pid}" in cure) == ("problem", True, True)
        agent.send_signal(signal.SIGCONT)
        agent.communicate("", timeout=30)
