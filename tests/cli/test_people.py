"""The command line and what people are told: a test message, and a message as it is shown."""

from __future__ import annotations

import re
from pathlib import Path

from orchclient.core.http import HttpReply
from orchclient.core.secret import Secret
from orchclient.sinks.discord import DiscordSink
from orchclient.testing import DiscordDouble, SlackDouble, WebhookDouble
from orchclient.testing.services import discord_error
from tests.cli.command import Command
from tests.conftest import MakeClient


def test_one_test_message_goes_to_each_destination_of_people(outbox_path: Path) -> None:
    with DiscordDouble() as one, SlackDouble() as two, WebhookDouble() as three:
        urls = {
            "ORCHCLIENT_DISCORD_WEBHOOK_URL": one.webhook_url,
            "ORCHCLIENT_SLACK_WEBHOOK_URL": two.webhook_url,
            "ORCHCLIENT_WEBHOOK_URL": three.webhook_url,
        }
        ended = Command(outbox_path)("doctor", "--send-test", **urls)
        assert ended.code == 0, ended.err
        for service in (one, two, three):
            (shown,) = service.shown
            assert "a test message" in shown.text
        for name in ("discord", "slack", "webhook"):
            assert f"{name} took a test message" in ended.out
        assert "tttttttt" not in ended.out + ended.err


def test_a_test_message_that_is_refused_tells_the_cure(outbox_path: Path) -> None:
    with DiscordDouble() as service:
        service.always(discord_error(401, 50027, "Invalid Webhook Token"))
        ended = Command(outbox_path)("doctor", "--send-test", ORCHCLIENT_DISCORD_WEBHOOK_URL=service.webhook_url)
        assert ended.code == 1
        assert "ORCHCLIENT_DISCORD_WEBHOOK_URL" in ended.out
        assert "tttttttt" not in ended.out


def test_without_the_flag_a_chat_is_asked_whether_it_answers_and_shows_nothing(outbox_path: Path) -> None:
    with DiscordDouble() as one, SlackDouble() as two:
        urls = {
            "ORCHCLIENT_DISCORD_WEBHOOK_URL": one.webhook_url,
            "ORCHCLIENT_SLACK_WEBHOOK_URL": two.webhook_url,
        }
        ended = Command(outbox_path)("doctor", **urls)
        assert "discord answers (" in ended.out
        assert "slack answers (" in ended.out
        one.always(discord_error(404, 10015, "Unknown Webhook"))
        two.always(HttpReply(404, {}, b"no_service"))
        ended = Command(outbox_path)("doctor", **urls)
        assert "discord takes no messages: HTTP 404 Unknown Webhook: the webhook was removed" in ended.out
        assert "slack takes no messages: HTTP 404 no_service: the webhook was removed" in ended.out
        assert one.shown == two.shown == []


def test_status_tells_until_when_noise_rules_hold_something_back(make_client: MakeClient, outbox_path: Path) -> None:
    with DiscordDouble() as service:
        client = make_client(sinks=[DiscordSink(Secret(service.webhook_url))])
        client.update_task_status("t", "in_progress", progress_percentage=1)
        assert client.flush(20)
        client.update_task_status("t", "in_progress", progress_percentage=2)
        assert client.flush(20).held == 1
        command = Command(outbox_path)
        assert re.search(r"in 1?\d s, held back", command("status").out)
        (sink,) = command.json("status")["sinks"]
        assert (sink["pending"], sink["held"]) == (1, 1)
        assert command("status", "--check", "--max-age", "0s").out.startswith("ok: 1 pending")


def test_show_prints_the_message_that_people_are_told(make_client: MakeClient, outbox_path: Path) -> None:
    asked = make_client(mode="offline").request_clarification("t", ["Which \x1b[31mone?"])
    command = Command(outbox_path)
    shown = command("show", asked.id, ORCHCLIENT_PUBLIC_URL="https://answers.example")
    assert "agent-1 asks about t, an answer is needed: " in shown.out
    assert f"Answer here: https://answers.example/q/{asked.id}" in shown.out
    assert "\x1b" not in shown.out
    assert "asks about t" in command.json("show", asked.id)["message"]
