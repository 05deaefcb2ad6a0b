"""Slack's own SDK against the double: it plays what the SDK expects of Slack, and what decision 0018 says of it holds.

The SDK repeats by itself what our tellers must not repeat: that is the reason why they do not speak through it.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from orchclient.core.http import HttpReply
from orchclient.core.noise import NoiseRules
from orchclient.core.policy import Action
from orchclient.core.secret import Secret
from orchclient.sinks.slack_bot import SlackBotSink
from orchclient.testing import Fault, SlackApiDouble
from tests.conftest import MakeClient
from tests.delivery.test_teller import books, until

slack_sdk = pytest.importorskip("slack_sdk", reason="Slack's SDK is not installed")
TOO_FAST = HttpReply(
    429, {"Retry-After": "1", "Content-Type": "application/json"}, b'{"ok":false,"error":"ratelimited"}'
)


def sdk(service: SlackApiDouble, **settings: Any) -> Any:
    return slack_sdk.WebClient(token=service.token, base_url=f"{service.api_url}/", **settings)


def test_the_sdk_posts_replies_and_edits_as_it_does_with_slack() -> None:
    with SlackApiDouble() as service:
        client = sdk(service)
        assert client.auth_test()["team_id"]
        root = client.chat_postMessage(channel=service.channel, text="root")
        client.chat_postMessage(channel=service.channel, text="below", thread_ts=root["ts"], reply_broadcast=True)
        client.chat_postMessage(channel=service.channel, text="hidden", thread_ts=root["ts"])
        client.chat_update(channel=service.channel, ts=root["ts"], text="changed")
        assert [(each.payload["text"], bool(each.thread_id), each.is_in_channel) for each in service.shown] == [
            ("changed", False, True),
            ("below", True, True),
            ("hidden", True, False),
        ]


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"channel": "C9999999999"}, "channel_not_found"),
        ({"blocks": [{"type": "header", "text": {"type": "plain_text", "text": "x" * 151}}]}, "invalid_blocks"),
        ({"thread_ts": "1700000000.000001"}, "thread_not_found"),
    ],
)
def test_the_sdk_raises_the_words_of_slack(given: dict[str, Any], word: str) -> None:
    with SlackApiDouble() as service, pytest.raises(slack_sdk.errors.SlackApiError) as refused:
        sdk(service).chat_postMessage(**{"channel": service.channel, "text": "x", **given})
    assert refused.value.response["error"] == word


def test_the_sdk_waits_for_a_retry_after_when_it_is_told_to_and_so_does_a_sink_always() -> None:
    from slack_sdk.http_retry.builtin_handlers import RateLimitErrorRetryHandler

    with SlackApiDouble() as service:
        service.plan(TOO_FAST)
        client = sdk(service, retry_handlers=[RateLimitErrorRetryHandler(max_retry_count=1)])
        began_s = time.monotonic()
        client.chat_postMessage(channel=service.channel, text="x")
        assert time.monotonic() - began_s >= 1
        service.plan(TOO_FAST)
        with pytest.raises(slack_sdk.errors.SlackApiError):
            sdk(service).chat_postMessage(channel=service.channel, text="x")
        sink = SlackBotSink(lambda: Secret(service.token), service.channel)
        verdict = sink.told(TOO_FAST, 0).verdict
        assert (verdict.action, verdict.retry_after_s) == (Action.BACK_OFF, 1)


def test_the_sdk_posts_twice_when_an_answer_is_lost_and_a_sink_does_not(make_client: MakeClient) -> None:
    with SlackApiDouble() as service:
        service.plan(Fault.lose_reply())
        sdk(service).chat_postMessage(channel=service.channel, text="once")
        assert [each.payload["text"] for each in service.shown] == ["once", "once"]
    with SlackApiDouble() as service:
        service.plan(Fault.lose_reply())
        rules = NoiseRules(0.0)
        sink = SlackBotSink(lambda: Secret(service.token), service.channel, api_url=service.api_url, rules=rules)
        client = make_client(sinks=[sink])
        client.escalate_error("t", "odd", "once", 1, fatal=False)
        client.flush(20)
        assert until(lambda: books(client) == (0, 0, 1))
        assert len(service.shown) == 1
