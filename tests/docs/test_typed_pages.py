"""The how-to pages whose commands need nothing but a receiver are typed, command by command, as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchclient import OrchestratorClient
from orchclient.testing import DiscordDouble, Receiver, SlackDouble
from tests.cli.inside import Inside
from tests.docs.console import DOCS, typed

FENCED = re.compile(r"^ *```(\w+)\n(.*?)^ *```", re.M | re.S)


def blocks(page: str, *languages: str) -> list[str]:
    """The blocks of a page, those in lists too."""
    return [code for language, code in FENCED.findall((DOCS / page).read_text()) if language in languages]


def commands(text: str) -> list[str]:
    """One a line; those of a session without what is printed."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    is_session = any(line.startswith("$ ") for line in lines)
    return [line.removeprefix("$ ").partition("  #")[0] for line in lines if not is_session or line.startswith("$ ")]


def run(command: str, environment: dict[str, str]) -> str:
    """What it prints; it must end well."""
    printed = typed(f"({command}) && echo ENDED WELL", environment)
    assert printed[-1:] == ["ENDED WELL"], "\n".join([f"$ {command}", *printed])
    return "\n".join(printed[:-1])


def test_events_are_carried_from_a_host_without_a_network(outbox_path: Path, receiver: Receiver) -> None:
    with OrchestratorClient("builder", outbox=outbox_path) as client:
        client.update_task_status("build-42", "testing", progress_percentage=10)
    there, here = blocks("offline-hosts.md", "sh")
    for command in commands(there):
        run(command, {"ORCHCLIENT_DB": str(outbox_path)})
    for command in commands(here):
        run(command, {"ORCHCLIENT_URL": receiver.url})
    assert [event["agentid"] for event in receiver.events] == ["builder"]


def test_the_first_message_appears_on_discord_and_on_slack(outbox_path: Path) -> None:
    page = (DOCS / "telling-people.md").read_text()
    discord, slack = re.findall(r"export (ORCHCLIENT_\w+_WEBHOOK_URL)=https://", page)
    [trial] = [
        command for text in blocks("telling-people.md", "sh") for command in commands(text) if "doctor" in command
    ]
    with DiscordDouble() as channel, SlackDouble() as other:
        environment = {"ORCHCLIENT_DB": str(outbox_path), discord: channel.webhook_url, slack: other.webhook_url}
        run(trial, environment)
        assert ["a test message" in shown.text for shown in (*channel.messages, *other.messages)] == [True, True]


def test_the_tables_of_the_pages_on_chats_make_these_destinations(outbox_path: Path, tmp_path: Path) -> None:
    token = tmp_path / "home" / ".config" / "orchclient" / "slack.token"
    token.parent.mkdir(parents=True)
    token.touch(0o600)
    token.write_text("xoxb-a-token")
    settings = tmp_path / "settings.toml"
    settings.write_text("\n".join(blocks("telling-people.md", "toml")))
    environment = {
        "ORCHCLIENT_CONFIG": str(settings),
        "HOME": str(tmp_path / "home"),
        "NTFY_URL": "https://ntfy.sh/a-topic",
    }
    command = Inside(outbox_path, **environment)
    assert "team (slack), phone (webhook)" in command("config", "show").out
    command("update", "t", "testing")
    assert set(command.json("flush", "--dry-run")["destinations"]) == {"team", "phone"}


def test_an_upgrade_is_looked_at_before_and_after(outbox_path: Path, receiver: Receiver) -> None:
    with OrchestratorClient("a", outbox=outbox_path, url=receiver.url) as client:
        client.update_task_status("t", "testing")
    [session] = blocks("upgrading.md", "console")
    for command in commands(session):
        assert run(command, {"ORCHCLIENT_DB": str(outbox_path), "ORCHCLIENT_URL": receiver.url})


def test_tokens_are_made_listed_and_revoked(tmp_path: Path) -> None:
    pytest.importorskip("flask", reason="the orchestrator needs the extra server")
    [session] = [text for text in blocks("orchestrator.md", "console") if "token revoke" in text]
    environment = {"ORCHCLIENT_SERVE_DB": str(tmp_path / "orchestrator.db")}
    first, _, listed, _ = [run(command, environment) for command in commands(session)]
    assert first.splitlines()[-1].startswith("orch_")
    assert re.findall(r"backend-7|ada", listed) == ["backend-7", "ada"]
