"""The command line and what people are told: a test message, and a message as it is shown."""

from __future__ import annotations

from pathlib import Path

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


def test_without_the_flag_nothing_is_sent(outbox_path: Path) -> None:
    with DiscordDouble() as service:
        Command(outbox_path)("doctor", ORCHCLIENT_DISCORD_WEBHOOK_URL=service.webhook_url)
        assert service.seen == []


def test_show_prints_the_message_that_people_are_told(make_client: MakeClient, outbox_path: Path) -> None:
    asked = make_client(mode="offline").request_clarification("t", ["Which \x1b[31mone?"])
    command = Command(outbox_path)
    shown = command("show", asked.id, ORCHCLIENT_PUBLIC_URL="https://answers.example")
    assert "agent-1 asks about t, an answer is needed: " in shown.out
    assert f"Answer here: https://answers.example/q/{asked.id}" in shown.out
    assert "\x1b" not in shown.out
    assert "asks about t" in command.json("show", asked.id)["message"]
