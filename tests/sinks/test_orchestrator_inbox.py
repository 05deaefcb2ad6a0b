"""The dialect of the inbox: what is asked, word for word, and what an answer means."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from orchclient.core.errors import ConfigError
from orchclient.core.http import HttpOutcome, HttpReply, NoReply
from orchclient.core.inbox_page import Page
from orchclient.core.polling import Heard, InboxState
from orchclient.core.secret import KnownSecrets
from orchclient.sinks.orchestrator import OrchestratorSink
from orchclient.sinks.orchestrator_inbox import OrchestratorInbox
from orchclient.sinks.sink import inbox_of

SOURCE = "8f14e45f-ceea-467f-a0e6-4b0f1f4d2a31"
URL = "https://orchestrator.example"


def inbox(token: str | None = "s3cret-token") -> OrchestratorInbox:
    sink = OrchestratorSink(URL, lambda: token, secrets=KnownSecrets([token] if token else []))
    found = inbox_of(sink)
    assert isinstance(found, OrchestratorInbox)
    return found


def page(*items: Any, **members: Any) -> HttpReply:
    return HttpReply(200, {}, json.dumps({"items": items, "cursor": "c-2", "has_more": False} | members).encode())


class TestAsking:
    def test_a_poll_names_the_source_the_cursor_and_the_wait(self) -> None:
        request = inbox().poll(SOURCE, "c/1 &ü", 25.0)
        assert (request.method, request.body) == ("GET", b"")
        assert parse_qs(urlsplit(request.url).query) == {
            "source": [f"urn:uuid:{SOURCE}"],
            "cursor": ["c/1 &ü"],
            "wait": ["25"],
        }
        assert request.url.isascii()

    def test_the_first_poll_has_no_cursor(self) -> None:
        assert "cursor" not in inbox().poll(SOURCE, "", 0.0).url

    @pytest.mark.parametrize(("wait_s", "text"), [(0.0, "0"), (0.25, "0.25"), (10.0, "10"), (-1.0, "0")])
    def test_the_wait_is_a_plain_number(self, wait_s: float, text: str) -> None:
        assert parse_qs(urlsplit(inbox().poll(SOURCE, "", wait_s).url).query)["wait"] == [text]

    def test_an_acknowledgement_is_a_small_object(self) -> None:
        request = inbox().acknowledgement(SOURCE, "c-1")
        assert (request.method, request.url) == ("POST", f"{URL}/v1/inbox/ack")
        assert json.loads(request.body) == {"source": f"urn:uuid:{SOURCE}", "cursor": "c-1"}
        assert request.headers["Content-Type"] == "application/json"

    def test_every_request_carries_the_token_of_the_moment(self) -> None:
        asked = inbox()
        for request in (asked.greeting(), asked.poll(SOURCE, "", 0.0), asked.acknowledgement(SOURCE, "c")):
            assert request.headers["Authorization"] == "Bearer s3cret-token"
            assert request.headers["Orchclient-Version"] == "1.0"

    def test_a_token_that_cannot_be_had_raises_before_anything_is_sent(self) -> None:
        def no_token() -> str:
            raise ConfigError("token: the callable raised")

        with pytest.raises(ConfigError):
            OrchestratorSink(URL, no_token).inbox.poll(SOURCE, "", 0.0)


class TestHearing:
    def test_a_page_is_handed_on(self) -> None:
        assert inbox().polled(page({"id": "1"}), 0) == Heard(InboxState.POLLING, page=Page(({"id": "1"},), "c-2"))

    def test_a_page_that_is_none_is_trouble_with_a_reason(self) -> None:
        heard = inbox().polled(HttpReply(200, {}, b"<html>Hotel Wi-Fi"), 0)
        assert (heard.state, heard.page) == (InboxState.WAITING, None)
        assert heard.reason == "HTTP 200: the page is not JSON"

    def test_a_refusal_is_told_without_the_token(self) -> None:
        reply = HttpReply(403, {}, b'{"title": "Forbidden", "detail": "s3cret-token may not read this"}')
        heard = inbox().polled(reply, 0)
        assert heard.state is InboxState.PAUSED
        assert heard.reason.startswith("HTTP 403 Forbidden")
        assert "s3cret" not in heard.reason

    def test_how_long_to_wait_is_heeded(self) -> None:
        assert inbox().polled(HttpReply(503, {"retry-after": "30"}), 0) == Heard(InboxState.WAITING, "HTTP 503", 30.0)

    @pytest.mark.parametrize("status", [200, 204])
    def test_the_body_of_an_acknowledgement_is_not_read(self, status: int) -> None:
        assert inbox().acknowledged(HttpReply(status, {}, b"<html>"), 0) == Heard(InboxState.POLLING)

    def test_no_answer_is_trouble(self) -> None:
        assert inbox().acknowledged(NoReply("timeout", "after 10 s"), 0).reason == "timeout: after 10 s"


@pytest.mark.parametrize(
    ("answer", "longest_s"),
    [
        (HttpReply(200, {}, b'{"protocol": ["1.0"], "inbox": {"max_wait_s": 7}}'), 7.0),
        (HttpReply(200, {}, b'{"inbox": {"max_wait_s": 0}}'), 0.0),
        (HttpReply(200, {}, b'{"inbox": {"max_wait_s": 3600}}'), 25.0),
        (HttpReply(200, {}, b'{"inbox": {"max_wait_s": 1e400}}'), 25.0),
        (HttpReply(200, {}, b'{"inbox": {"max_wait_s": ' + b"9" * 400 + b"}}"), 25.0),
        *(
            (HttpReply(200, {}, body), 25.0)
            for body in (b"", b"[]", b"{}", b'{"inbox": 5}', b'{"inbox": {"max_wait_s": true}}', b"[" * 30_000)
        ),
        *((HttpReply(200, {}, b'{"inbox": {"max_wait_s": %s}}' % wait), 25.0) for wait in (b"-1", b'"9"', b"NaN")),
        (HttpReply(404), 25.0),
        (HttpReply(401, {}, b'{"inbox": {"max_wait_s": 7}}'), 25.0),
        (NoReply("connect"), 25.0),
    ],
    ids=str,
)
def test_the_longest_wait_is_the_receivers_or_25_s(answer: HttpOutcome, longest_s: float) -> None:
    asked = inbox()
    asked.greeted(answer)
    assert asked.longest_wait_s == longest_s
