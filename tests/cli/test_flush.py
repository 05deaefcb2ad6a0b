"""``orchclient flush``: one destination or task, beside a live flusher or alone, told beforehand, interrupted."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchclient import OrchestratorClient
from orchclient.core.secret import Secret
from orchclient.sinks.discord import DiscordSink
from orchclient.testing import INBOX_PATH, DiscordDouble, Fault, Receiver
from tests.cli.command import Command
from tests.cli.inside import Inside
from tests.conftest import MakeClient
from tests.stopwatch import Stopwatch

EVENTS = "/v1/events"


@pytest.fixture
def command(outbox_path: Path, receiver: Receiver) -> Command:
    return Command(outbox_path, receiver.url)


@pytest.fixture
def client(make_client: MakeClient) -> OrchestratorClient:
    """Three events of each of two tasks, not delivered."""
    client = make_client(background=False)
    for percent in (10, 20, 30):
        client.update_task_status("build", "testing", progress_percentage=percent)
        client.update_task_status("deploy", "testing", progress_percentage=percent)
    return client


@pytest.fixture
def second(tmp_path: Path) -> Iterator[tuple[Receiver, str]]:
    """Another orchestrator, and the settings that name it ``audit``."""
    with Receiver() as receiver:
        settings = tmp_path / "settings.toml"
        settings.write_text(f'[sinks.audit]\nkind = "orchestrator"\nurl = "{receiver.url}"\n')
        yield receiver, str(settings)


def test_without_a_destination_it_says_what_to_set_and_no_time(client: OrchestratorClient, outbox_path: Path) -> None:
    ended = Command(outbox_path)("flush")
    assert ended.out == "No destination is configured: events wait in the outbox. Set ORCHCLIENT_URL.\n"
    assert (ended.code, Command(outbox_path)("flush", "--json").document["ok"]) == (3, False)


def test_offline_it_says_so_and_not_that_a_destination_is_missing(outbox_path: Path, receiver: Receiver) -> None:
    command = Inside(outbox_path, receiver.url, ORCHCLIENT_MODE="offline")
    command("update", "t")
    told = "Mode is offline: events wait in the outbox. Unset ORCHCLIENT_MODE to deliver.\n"
    for ended in (command("flush"), command("flush", "--dry-run")):
        assert ended.out.endswith(told)
    assert command("flush").code == 3
    assert command("flush", ORCHCLIENT_MODE="online").code == 0


def test_what_noise_rules_hold_back_is_not_due_and_is_told(make_client: MakeClient, outbox_path: Path) -> None:
    with DiscordDouble() as discord:
        command = Command(outbox_path)
        command.environment["ORCHCLIENT_DISCORD_WEBHOOK_URL"] = discord.webhook_url
        client = make_client(sinks=[DiscordSink(Secret(discord.webhook_url))])
        client.update_task_status("build", "testing", progress_percentage=10)
        assert client.flush(20)
        client.update_task_status("build", "testing", progress_percentage=20)
        client.close()
        ended = command("flush")
        assert (ended.code, ended.out.partition(" in ")[0]) == (
            0,
            "discord  0 delivered, 1 held back by its noise rules",
        )
        flushed = command.json("flush")
        assert (flushed["ok"], flushed["pending"], flushed["held"]) == (True, 1, 1)


def test_only_the_destinations_that_are_named_are_served(
    client: OrchestratorClient, command: Command, receiver: Receiver, second: tuple[Receiver, str]
) -> None:
    audit, settings = second
    dry = command.json("flush", "--dry-run", ORCHCLIENT_CONFIG=settings)["destinations"]
    assert {each["name"]: each["pending"] for each in dry.values()} == {"audit": 6, "orchestrator": 6}
    assert command("flush", "--to", "audit", ORCHCLIENT_CONFIG=settings).code == 0
    assert (len(audit.events), len(receiver.events)) == (6, 0)
    dry = command.json("flush", "--dry-run", ORCHCLIENT_CONFIG=settings)["destinations"]
    assert {each["name"]: each["pending"] for each in dry.values()} == {"audit": 0, "orchestrator": 6}
    ended = command("flush", "--to", "audit", "--to", "orchestrator", ORCHCLIENT_CONFIG=settings)
    assert (ended.code, len(receiver.events)) == (0, 6)
    assert "6 delivered, 0 pending, 0 dead" in ended.out
    ended = command("flush", "--to", "adit", ORCHCLIENT_CONFIG=settings)
    assert (ended.code, "Did you mean audit?" in ended.err) == (2, True)


def test_a_task_is_done_although_others_still_wait(
    client: OrchestratorClient, command: Command, receiver: Receiver
) -> None:
    receiver.retry("deploy")
    ended = command("flush", "--task", "build")
    assert (ended.code, len(receiver.by_task()["build"])) == (0, 3)
    ended = command("flush", "--task", "deploy", "--timeout", "0.2")
    assert (ended.code, "3 left" in ended.out) == (3, True)
    assert command.json("flush", "--dry-run", "--task", "deploy")["destinations"]["orchestrator"]["pending"] == 3
    assert command.json("flush", "--dry-run", "--task", "build")["destinations"]["orchestrator"]["pending"] == 0
    receiver.lift_rules()
    assert command("flush", "--task", "deploy").code == 0
    unheard = command("flush", "--task", "unheard", "--json")
    assert (unheard.code, unheard.document["ok"]) == (1, False)


def test_only_dead_letters_of_the_task_count(client: OrchestratorClient, command: Command, receiver: Receiver) -> None:
    receiver.reject(lambda event: event["data"].get("status") is not None and event["subject"] == "deploy")
    assert command("flush", "--task", "build").code == 0
    client.update_task_status("deploy", "failed")
    ended = command("flush", "--task", "deploy")
    assert (ended.code, "1 became dead" in ended.out) == (4, True)


def test_a_dry_run_sends_nothing_and_makes_nothing(
    client: OrchestratorClient, command: Command, receiver: Receiver
) -> None:
    ended = command("flush", "--dry-run")
    assert (ended.code, "orchestrator  6 events would be sent" in ended.out) == (0, True)
    assert (receiver.requests, command.json("status")["sinks"]) == ([], [])
    receiver.stop()
    command("flush")
    ended = command("flush", "--dry-run")
    assert "6 events would be sent, the oldest recorded" in ended.out
    assert "waiting: connect" in ended.out


def test_no_wait_is_busy_beside_a_live_flusher_and_works_without(
    client: OrchestratorClient, command: Command, receiver: Receiver, make_client: MakeClient
) -> None:
    live = make_client("live-agent", url=receiver.url)
    live.update_task_status("other", "testing")
    assert live.flush(10)
    busy = command("flush", "--no-wait")
    assert (busy.code, busy.out) == (5, "")
    assert f"pid {os.getpid()} (agent live-agent)" in busy.err
    as_json = command("flush", "--no-wait", "--json")
    assert (as_json.code, as_json.document["error"]["code"]) == (5, "busy")
    live.close(0)
    assert command("flush", "--no-wait").code == 0


def test_an_interrupt_ends_it_with_a_summary_and_keeps_what_is_left(
    client: OrchestratorClient, command: Command, receiver: Receiver
) -> None:
    receiver.always(Fault.hang())
    running = subprocess.Popen(
        [sys.executable, "-m", "orchclient", "flush", "--timeout", "60s", "--json"],
        env={**os.environ, **command.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert receiver.wait_for_requests(1, 20, EVENTS)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=20)
    document = json.loads(out)
    assert (running.returncode, document["ok"], document["interrupted"], document["pending"]) == (130, False, True, 6)
    assert "Traceback" not in err
    receiver.heal()
    assert command("flush").code == 0
    assert command.counts()["delivered"] == 6


def test_a_terminal_is_told_how_much_is_left_and_who_delivers(
    client: OrchestratorClient, command: Command, receiver: Receiver, make_client: MakeClient
) -> None:
    live = make_client("live-agent", url=receiver.url)
    live.update_task_status("other", "testing")
    assert live.flush(10)
    receiver.always(Fault.hang())
    live.update_task_status("other", "completed")
    leader, follower = pty.openpty()
    running = subprocess.Popen(
        [sys.executable, "-m", "orchclient", "flush"],
        env={**os.environ, **command.environment},
        stdout=subprocess.PIPE,
        stderr=follower,
        text=True,
    )
    told = b""
    while b"left" not in told or b")" not in told:
        told += os.read(leader, 1000)
    receiver.heal()
    out, _ = running.communicate(timeout=20)
    os.close(leader)
    os.close(follower)
    assert f"1 left, delivered by pid {os.getpid()} (agent live-agent)" in told.decode()
    assert (running.returncode, "\x1b" in out) == (0, False)


# --- the way back -------------------------------------------------------------------------------------------------


def test_a_flush_brings_back_the_answers_that_wait(outbox_path: Path, receiver: Receiver) -> None:
    command = Inside(outbox_path, receiver.url)
    question = command.json("ask", "build", "Ship it?", "--option", "yes", "--option", "no", "--flush")["id"]
    with OrchestratorClient("looks", outbox=outbox_path) as looks:
        receiver.answer(looks.clarification(question), "yes")
    flushed = command("flush")
    assert (flushed.code, flushed.out.splitlines()[-1]) == (0, "1 item of the inbox came back")
    assert "Nothing waits for a person" in command("answer").out
    assert command.json("flush")["heard"] == 0
    assert [each.path for each in receiver.requests].count("/v1/inbox/ack") == 1


def test_flushes_in_a_row_ask_once_a_second(outbox_path: Path, receiver: Receiver) -> None:
    command = Inside(outbox_path, receiver.url)
    question = command.json("ask", "build", "Ship it?", "--option", "yes", "--flush")["id"]
    with OrchestratorClient("looks", outbox=outbox_path) as looks:
        receiver.answer(looks.clarification(question), "yes")
        for _ in range(4):
            command("update", "build", "--flush")
        assert looks.clarification(question).state == "answered"
    first, second = (each.arrived_s for each in receiver.requests if each.path == INBOX_PATH)
    assert second - first > 0.9


def test_a_flush_asks_for_nothing_when_nothing_is_open(outbox_path: Path, receiver: Receiver) -> None:
    command = Inside(outbox_path, receiver.url)
    assert command("update", "build", "testing", "--flush").code == 0
    assert not [each for each in receiver.requests if each.path.startswith("/v1/inbox")]


def test_a_flush_with_a_new_event_brings_the_wish_to_stop_that_waits(outbox_path: Path, receiver: Receiver) -> None:
    command = Inside(outbox_path, receiver.url)
    command("update", "build", "testing", "--flush")
    receiver.cancel("build", "no budget")
    assert command.json("update", "build", "testing", "--flush")["cancel_requested"]["reason"] == "no budget"


def test_an_inbox_that_hangs_holds_a_flush_for_a_bounded_time(outbox_path: Path, receiver: Receiver) -> None:
    command = Inside(outbox_path, receiver.url)
    command("ask", "build", "Ship it?")
    receiver.always(Fault.hang(), on=INBOX_PATH)
    with Stopwatch() as watch:
        assert command("flush", "--timeout", "30s").code == 0
    assert watch.s < 8  # two for the answers, and what it takes to cut the poll
