"""A Slack app: posts and edits through the Web API, whose answers are 200 whatever happened."""

from __future__ import annotations

import json
import pickle
import time
from pathlib import Path
from typing import Any

import pytest

from orchclient import config
from orchclient.core.errors import ConfigError
from orchclient.core.event_message import message_of
from orchclient.core.http import HttpReply, NoReply
from orchclient.core.message import trial
from orchclient.core.policy import Action
from orchclient.core.secret import KnownSecrets, Secret
from orchclient.core.telling import Remedy, Told
from orchclient.destinations import configured
from orchclient.sinks.slack_bot import SlackBotSink
from orchclient.testing import SlackApiDouble
from orchclient.testing.services import slack_error
from orchclient.testing.sink_contract import NOW_US, _everything
from tests.conftest import MakeClient
from tests.sinks.events import KINDS, PUBLIC
from tests.sinks.payload_schemas import slack_complaints

TOKEN = "xoxb-1234567890-abcdefghijkl"
SINK = SlackBotSink(lambda: Secret(TOKEN), "C0123456789")
SOON_S = 20.0


def told(error: str, *, is_edit: bool = False, status: int = 200, **headers: str) -> Told:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return SINK.told(
        HttpReply(status, named, json.dumps({"ok": False, "error": error}).encode()), NOW_US, is_edit=is_edit
    )


@pytest.mark.parametrize(
    ("error", "action", "remedy"),
    [
        ("invalid_auth", Action.PAUSE, Remedy.NONE),
        ("token_revoked", Action.PAUSE, Remedy.NONE),
        ("missing_scope", Action.PAUSE, Remedy.NONE),
        ("channel_not_found", Action.PAUSE, Remedy.NONE),
        ("not_in_channel", Action.PAUSE, Remedy.NONE),
        ("is_archived", Action.PAUSE, Remedy.NONE),
        ("msg_blocks_too_long", Action.BISECT, Remedy.PLAINER),
        ("invalid_blocks", Action.BISECT, Remedy.PLAINER),
        ("something_new", Action.BISECT, Remedy.PLAINER),
        ("ratelimited", Action.BACK_OFF, Remedy.NONE),
        ("internal_error", Action.BACK_OFF, Remedy.NONE),
        ("request_timeout", Action.BACK_OFF, Remedy.IT_MAY_HAVE_ARRIVED),
    ],
)
def test_an_answer_is_classed_by_its_error(error: str, action: Action, remedy: Remedy) -> None:
    found = told(error)
    assert (found.verdict.action, found.remedy) == (action, remedy)


def test_what_stops_it_says_how_to_mend_it() -> None:
    assert "token" in told("invalid_auth").verdict.reason
    assert "invite the app" in told("not_in_channel").verdict.reason


def test_a_message_that_is_gone_is_posted_anew() -> None:
    assert told("message_not_found", is_edit=True).remedy is Remedy.POST_ANEW


def test_a_429_waits_as_long_as_it_says() -> None:
    assert told("ratelimited", status=429, retry_after="30").verdict.retry_after_s == 30


def test_without_an_answer_a_post_is_ambiguous_and_an_edit_is_not() -> None:
    assert SINK.told(NoReply("timeout"), NOW_US).remedy is Remedy.IT_MAY_HAVE_ARRIVED
    assert SINK.told(NoReply("timeout"), NOW_US, is_edit=True).remedy is Remedy.NONE


def test_no_answer_at_all_can_hurt() -> None:
    for outcome in _everything():
        found = SINK.told(outcome, NOW_US)
        assert found.verdict.reason.isprintable()
        assert 0 <= found.verdict.retry_after_s <= 3600
        assert found.verdict.action is not Action.SETTLE
    odd = HttpReply(200, {}, json.dumps({"ok": True, "ts": "../x", "channel": []}).encode())
    assert SINK.told(odd, NOW_US).message_id == ""


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_sends_keeps_slack_s_limits(kind: str) -> None:
    message = message_of(KINDS[kind], PUBLIC)
    assert message is not None
    for request in (SINK.post(message), SINK.edit(message, "C0123456789:1.2"), SINK.post(message, plain=True)):
        sent: dict[str, Any] = json.loads(request.body)
        for name in ("channel", "ts"):
            sent.pop(name, None)
        assert slack_complaints(json.dumps(sent).encode()) == []
    cleared = json.loads(SINK.edit(message, "C0123456789:1.2", plain=True).body)
    assert cleared["blocks"] == []


def test_the_token_shows_nowhere() -> None:
    request = SINK.post(trial())
    assert TOKEN not in repr(SINK) + repr(request) + SINK.target + request.body.decode() + request.url
    with pytest.raises(TypeError):
        pickle.dumps(SINK)
    assert TOKEN not in told(f"no {TOKEN}").verdict.reason


def test_a_task_has_one_message_and_a_deleted_one_comes_again(
    make_client: MakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SlackApiDouble() as service:
        monkeypatch.setenv("SLACK_BOT_TOKEN", service.token)
        settings = tmp_path / "config.toml"
        settings.write_text(
            '[sinks.team]\nkind = "slack"\ntoken_env = "SLACK_BOT_TOKEN"\nspeaks_every = "0s"\n'
            f'channel = "{service.channel}"\napi_url = "{service.api_url}"\n'
        )
        monkeypatch.setenv("ORCHCLIENT_CONFIG", str(settings))
        client = make_client()
        for percent in (10, 90):
            client.update_task_status("t", "in_progress", progress_percentage=percent)
            assert service.wait_for(lambda: any(f"{percent} %" in each.text for each in service.shown), SOON_S)  # noqa: B023
        (shown,) = service.shown
        service.delete(shown)
        client.update_task_status("t", "in_progress", progress_percentage=95)
        assert service.wait_for(lambda: any("95 %" in each.text for each in service.shown), SOON_S)
        service.plan(slack_error("invalid_blocks"))
        client.escalate_error("t", "odd", "as plain text", 1)
        assert service.wait_for(lambda: any("as plain text" in each.payload["text"] for each in service.shown), SOON_S)


def test_a_token_that_is_renewed_goes_on_with_the_same_messages(
    make_client: MakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with SlackApiDouble() as service:
        token_file = tmp_path / "token"
        token_file.touch(0o600)
        token_file.write_text(service.token)
        settings = tmp_path / "config.toml"
        settings.write_text(
            f'[sinks.team]\nkind = "slack"\ntoken_file = "{token_file}"\nspeaks_every = "0s"\n'
            f'channel = "{service.channel}"\napi_url = "{service.api_url}"\n'
        )
        monkeypatch.setenv("ORCHCLIENT_CONFIG", str(settings))
        client = make_client()
        client.update_task_status("t", "in_progress", progress_percentage=10)
        assert client.flush(SOON_S)
        service.token = "xoxb-the-next-token-0987654321"
        client.update_task_status("t", "in_progress", progress_percentage=20)
        client.flush(SOON_S)
        (sink,) = client.health().sinks
        assert (sink.state, sink.pending) == ("paused", 1)
        assert "token_file" in sink.reason
        token_file.write_text(service.token)
        client.update_task_status("t", "in_progress", progress_percentage=30, current_step=f"with {service.token}")
        ends = time.monotonic() + SOON_S
        while not client.flush(SOON_S) and time.monotonic() < ends:
            pass  # an attempt with the old token was still under way
        (shown,) = service.shown
        assert "30 %" in shown.text
        assert shown.edited_s


def test_another_token_is_not_another_target() -> None:
    renewed = SlackBotSink(lambda: Secret(TOKEN[::-1]), "C0123456789")
    elsewhere = SlackBotSink(lambda: Secret(TOKEN), "C0123456780")
    assert renewed.target == SINK.target != elsewhere.target


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"channel": "C0123456789"}, "token_env"),
        ({"token_env": "T", "channel": "#general"}, "id of a channel"),
        ({"token_env": "T"}, "id of a channel"),
        ({"token_env": "T", "channel": "C0123456789", "api_url": "https://evil.example/api"}, "evil.example"),
        ({"token_env": "T", "channel": "C0123456789", "quiet": "22-7"}, "22:00-07:00"),
        ({"token_env": "T", "channel": "C0123456789", "quiet": "22:00-07:00", "timezone": "Mars/X"}, "Europe/Berlin"),
        ({"token_env": "T", "channel": "C0123456789", "wakes": "loud"}, "low, medium"),
        ({"token_env": "T", "channel": "C0123456789", "speaks_every": "often"}, "15s or 5m"),
    ],
)
def test_an_unusable_table_is_told_with_its_cure(
    table: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("T", TOKEN)
    with pytest.raises(ConfigError, match=said) as refused:
        configured(config.load({}, sinks={"team": {"kind": "slack", **table}}), KnownSecrets())
    assert TOKEN not in str(refused.value)
