"""A generic webhook: one signed CloudEvent a request, verified by the package that others verify with."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchclient.core.batch import Batch
from orchclient.core.errors import ConfigError
from orchclient.core.events import NotificationPriority
from orchclient.core.http import HttpReply
from orchclient.core.policy import Action
from orchclient.core.secret import Secret
from orchclient.sinks.webhook import THIN_ABOVE, WebhookSink, checked_secrets
from orchclient.testing import WebhookDouble
from orchclient.testing.sink_contract import SinkContract
from tests.conftest import MakeClient
from tests.properties.profiles import PURE
from tests.sinks.events import ERROR, KINDS, PUBLIC, QUESTION, STATUS, any_text, batch_with

standardwebhooks = pytest.importorskip("standardwebhooks")

SECRET = "whsec_" + b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + b64encode(bytes(range(1, 33))).decode()
URL = "https://example.com/hooks/" + "s3cret" * 5


def hook(*secrets: str, **settings: Any) -> WebhookSink:
    return WebhookSink(Secret(URL), [Secret(text) for text in secrets or (SECRET,)], **settings)


def verified(secret: str, body: bytes, headers: Any) -> Any:
    return standardwebhooks.Webhook(secret).verify(body, dict(headers))


class TestWebhookSink(SinkContract):
    secrets = (URL, SECRET)

    def make_sink(self) -> WebhookSink:
        return hook()

    def accepting(self, batch: Batch) -> HttpReply:
        return HttpReply(204)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_signed_so_that_it_verifies(kind: str) -> None:
    request = hook().render(batch_with(KINDS[kind]))
    assert verified(SECRET, request.body, request.headers)["id"] == KINDS[kind]["id"]


@PURE
@given(any_text, st.data())
def test_a_change_of_any_byte_fails(text: str, data: st.DataObject) -> None:
    request = hook().render(batch_with({**STATUS, "data": {"current_step": text}}))
    assert verified(SECRET, request.body, request.headers)
    place = data.draw(st.integers(0, len(request.body) - 1))
    flip = data.draw(st.integers(1, 255))
    changed = bytearray(request.body)
    changed[place] ^= flip
    with pytest.raises((standardwebhooks.WebhookVerificationError, UnicodeDecodeError)):  # the package decodes first
        verified(SECRET, bytes(changed), request.headers)


def test_a_change_of_any_byte_at_all_of_one_delivery_fails() -> None:
    request = hook().render(batch_with(STATUS))
    for place in range(len(request.body)):
        changed = bytearray(request.body)
        changed[place] ^= 1
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            verified(SECRET, bytes(changed), request.headers)
    for name in ("webhook-id", "webhook-timestamp"):
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            verified(SECRET, request.body, {**request.headers, name: request.headers[name][:-1] + "x"})
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        verified(OTHER, request.body, request.headers)


def test_while_secrets_change_a_receiver_with_either_verifies() -> None:
    request = hook(OTHER, SECRET).render(batch_with(STATUS))
    for secret in (SECRET, OTHER):
        assert verified(secret, request.body, request.headers)


def test_the_id_stays_and_the_time_is_new_with_each_attempt() -> None:
    times = iter([1_800_000_000.0, 1_800_000_060.0])
    sink = hook(now_s=lambda: next(times))
    first, second = sink.render(batch_with(STATUS)), sink.render(batch_with(STATUS))
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == STATUS["id"]
    assert (first.headers["webhook-timestamp"], second.headers["webhook-timestamp"]) == ("1800000000", "1800000060")
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]


def test_an_event_above_20_kb_goes_without_its_data_and_says_so() -> None:
    large = {**ERROR, "data": {**ERROR["data"], "error_message": "x" * 60_000}}
    request = hook(public_url=PUBLIC).render(batch_with(large))
    assert len(request.body) <= THIN_ABOVE
    event = verified(SECRET, request.body, request.headers)
    assert (event["id"], event["type"], event["data"]["truncated"]) == (ERROR["id"], ERROR["type"], True)
    assert event["data"]["event_bytes"] > 60_000
    assert "database_connection" in event["data"]["summary"]


def test_only_wanted_types_and_priorities_are_sent() -> None:
    urgent = hook(least=NotificationPriority.HIGH)
    assert [urgent.takes(event) for event in (STATUS, QUESTION, ERROR)] == [False, True, True]
    questions = hook(types=["dev.orchclient.clarification.requested.v1"])
    assert [questions.takes(event) for event in (STATUS, QUESTION, ERROR)] == [False, True, False]
    assert hook().takes(STATUS)


def test_any_2xx_is_an_acceptance_and_410_stops_the_destination() -> None:
    for body in (b"", b"<html>thanks</html>", b'{"results": []}'):
        assert hook().decide(batch_with(STATUS), HttpReply(200, {}, body), 0).action is Action.SETTLE
    assert hook().decide(batch_with(STATUS), HttpReply(410), 0).action is Action.DISABLE


@pytest.mark.parametrize("text", ["hunter2", "whsec_!!!!", "whsec_" + b64encode(b"short").decode(), "v1,x9x9x9"])
def test_a_secret_that_is_none_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        checked_secrets("webhook_secret", text)
    assert text.removeprefix("whsec_") not in str(refused.value)


def test_a_client_delivers_signed_events_and_passes_what_is_not_wanted(
    make_client: MakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with WebhookDouble() as service:
        monkeypatch.setenv("HOOK_URL", service.webhook_url)
        monkeypatch.setenv("HOOK_SECRET", f"{SECRET} {OTHER}")
        config = tmp_path / "config.toml"
        config.write_text(
            '[sinks.alerts]\nkind = "webhook"\nwebhook_url_env = "HOOK_URL"\nsecret_env = "HOOK_SECRET"\n'
            'priority = "high"\n'
        )
        monkeypatch.setenv("ORCHCLIENT_CONFIG", str(config))
        client = make_client()
        client.update_task_status("t", "testing")
        wanted = client.escalate_error("t", "database_connection", "down", 1)
        assert client.flush(20)
        (seen,) = service.seen
        assert verified(OTHER, seen.body, seen.headers)["id"] == wanted.event_id
        (sink,) = client.health().sinks
        assert (sink.name, sink.delivered, sink.pending, sink.dead) == ("alerts", 2, 0, 0)


def test_a_webhook_of_the_environment_delivers_and_its_url_shows_nowhere(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with WebhookDouble() as service:
        service.path = "/hooks/" + "s3cret" * 5
        monkeypatch.setenv("ORCHCLIENT_WEBHOOK_URL", service.webhook_url)
        monkeypatch.setenv("ORCHCLIENT_WEBHOOK_SECRET", SECRET)
        client = make_client()
        client.update_task_status("t", "testing", {"where": f"posted to {service.webhook_url}", "key": SECRET})
        service.plan(HttpReply(400, {}, json.dumps({"title": service.webhook_url}).encode()))
        client.flush(20)
        client.update_task_status("t", "completed")
        client.flush(20)
        shown = repr(client.health()) + caplog.text + repr([each.json for each in service.seen])
        assert "s3cret" * 5 not in shown
        assert SECRET not in shown
        assert client.health().sinks[0].dead == 1
