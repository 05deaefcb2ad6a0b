"""The doubles of the services keep the services' rules, asked over a real connection."""

from __future__ import annotations

import json

import pytest

from orchclient.core.event_message import message_of
from orchclient.core.http import HttpReply, HttpRequest, NoReply
from orchclient.core.policy import Action
from orchclient.core.secret import Secret
from orchclient.core.telling import Remedy
from orchclient.delivery.transport import HttpTransport
from orchclient.sinks.discord import DiscordSink
from orchclient.sinks.slack import SlackSink
from orchclient.testing import DiscordDouble, Fault, SlackDouble
from tests.sinks.events import ERROR, STATUS


def ask(request: HttpRequest) -> HttpReply:
    with HttpTransport() as transport:
        reply = transport.send(request, deadline_s=10)
        assert isinstance(reply, HttpReply)
        return reply


def test_a_message_is_posted_edited_and_once_deleted_unknown() -> None:
    with DiscordDouble() as service:
        sink = DiscordSink(Secret(service.webhook_url))
        first, second = message_of(STATUS), message_of(ERROR)
        assert first is not None
        assert second is not None
        told = sink.told(ask(sink.post(first)), 0)
        assert told.verdict.action is Action.SETTLE
        assert "is in progress" in service.shown[0].text.replace("\\", "")
        sink.told(ask(sink.edit(second, told.message_id)), 0, is_edit=True)
        assert [len(shown.edited_s) for shown in service.shown] == [1]
        assert "database" in service.shown[0].text
        service.delete(service.shown[0])
        gone = sink.told(ask(sink.edit(second, told.message_id)), 0, is_edit=True)
        assert gone.remedy is Remedy.POST_ANEW


def test_the_bucket_says_when_it_is_empty_and_then_refuses() -> None:
    with DiscordDouble(limit=2, window_s=60) as service:
        sink = DiscordSink(Secret(service.webhook_url))
        message = message_of(STATUS)
        assert message is not None
        assert sink.told(ask(sink.post(message)), 0).rest_s == 0
        assert sink.told(ask(sink.post(message)), 0).rest_s > 50
        refused = sink.told(ask(sink.post(message)), 0)
        assert refused.verdict.action is Action.BACK_OFF
        assert refused.verdict.retry_after_s > 50
        assert (len(service.shown), service.count(429)) == (2, 1)


@pytest.mark.parametrize("body", [b"{}", b"no json", json.dumps({"content": "x" * 2001}).encode()])
def test_what_discord_refuses_is_refused(body: bytes) -> None:
    with DiscordDouble() as service:
        reply = ask(HttpRequest("POST", service.webhook_url, {}, body))
        assert (reply.status, json.loads(reply.body)["code"]) == (400, 50035)


def test_slack_says_ok_or_one_word() -> None:
    with SlackDouble(burst=1) as service:
        sink = SlackSink(Secret(service.webhook_url))
        message = message_of(STATUS)
        assert message is not None
        assert ask(sink.post(message)).body == b"ok"
        assert ask(HttpRequest("POST", service.webhook_url, {}, b"{}")).body == b"no_text"
        assert ask(HttpRequest("POST", service.webhook_url, {}, b"{}")).status == 429
        assert ask(HttpRequest("POST", service.webhook_url + "x", {}, b"{}")).body == b"no_service"


def test_a_lost_answer_leaves_the_message_shown() -> None:
    with DiscordDouble() as service:
        service.plan(Fault.lose_reply())
        sink = DiscordSink(Secret(service.webhook_url))
        message = message_of(STATUS)
        assert message is not None
        with HttpTransport() as transport:
            outcome = transport.send(sink.post(message), deadline_s=10)
        assert isinstance(outcome, NoReply)
        assert sink.told(outcome, 0).remedy is Remedy.IT_MAY_HAVE_ARRIVED
        assert len(service.shown) == 1
