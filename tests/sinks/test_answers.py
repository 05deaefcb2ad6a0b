"""What the services answer, row by row: what it means for the message and for the destination."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from orchclient.core.http import HttpOutcome, HttpReply, NoReply
from orchclient.core.message import trial
from orchclient.core.policy import Action
from orchclient.core.secret import Secret
from orchclient.core.telling import Remedy, Told
from orchclient.sinks.discord import DiscordSink
from orchclient.sinks.slack import SlackSink
from orchclient.testing.sink_contract import NOW_US, _everything

DISCORD_URL = "https://discord.com/api/webhooks/123456789012345678/" + "t0kEn" * 14
SLACK_URL = "https://hooks.slack.com/services/T0/B0/" + "x9" * 12
DISCORD = DiscordSink(Secret(DISCORD_URL))
SLACK = SlackSink(Secret(SLACK_URL))


def discord(status: int, code: int = 0, is_edit: bool = False, **more: Any) -> Told:
    headers = {name.replace("_", "-"): str(value) for name, value in more.items() if name[:2] in ("x_", "re")}
    body = {"message": "as Discord says", "code": code} | {
        name: value for name, value in more.items() if name in ("retry_after", "global")
    }
    headers.pop("retry-after", None)
    return DISCORD.told(HttpReply(status, headers, json.dumps(body).encode()), NOW_US, is_edit=is_edit)


def slack(status: int, word: str, **headers: str) -> Told:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return SLACK.told(HttpReply(status, named, word.encode()), NOW_US)


@pytest.mark.parametrize(
    ("status", "code", "action"),
    [
        (400, 50035, Action.BISECT),
        (400, 50006, Action.BISECT),
        (400, 220001, Action.PAUSE),
        (401, 50027, Action.DISABLE),
        (403, 50013, Action.DISABLE),
        (404, 10015, Action.DISABLE),
        (404, 10003, Action.DISABLE),
        (405, 0, Action.PAUSE),
        (302, 0, Action.PAUSE),
        (403, 20016, Action.BACK_OFF),
        (429, 0, Action.BACK_OFF),
        (500, 0, Action.BACK_OFF),
        (502, 0, Action.BACK_OFF),
    ],
)
def test_discord_is_classed_by_status_and_code(status: int, code: int, action: Action) -> None:
    assert discord(status, code).verdict.action is action


def test_a_dead_webhook_says_how_to_mend_it() -> None:
    for told in (discord(401, 50027), discord(404, 10015), slack(404, "no_service"), slack(400, "invalid_token")):
        assert told.verdict.action is Action.DISABLE
        assert "_WEBHOOK_URL" in told.verdict.reason


def test_a_refused_rendering_is_tried_once_more_as_plain_text() -> None:
    assert discord(400, 50035).remedy is Remedy.PLAINER
    assert slack(400, "invalid_blocks").remedy is Remedy.PLAINER
    assert slack(400, "msg_blocks_too_long").remedy is Remedy.PLAINER


def test_a_message_that_a_person_deleted_is_posted_anew_and_the_destination_lives() -> None:
    told = discord(404, 10008, is_edit=True)
    assert told.remedy is Remedy.POST_ANEW
    assert told.verdict.action is not Action.DISABLE


def test_an_accepted_message_has_an_id_to_edit_by() -> None:
    told = DISCORD.told(HttpReply(200, {}, b'{"id": "1100000000000000001"}'), NOW_US)
    assert (told.verdict.action, told.message_id) == (Action.SETTLE, "1100000000000000001")


@pytest.mark.parametrize("id_", ["../../x", 7, "", "9" * 40, None, "1/2"])
def test_an_id_that_is_none_is_not_kept(id_: Any) -> None:
    assert DISCORD.told(HttpReply(200, {}, json.dumps({"id": id_}).encode()), NOW_US).message_id == ""


def test_a_portal_s_page_is_no_acceptance() -> None:
    assert DISCORD.told(HttpReply(200, {}, b"<html>Wi-Fi"), NOW_US).verdict.action is Action.BACK_OFF


def test_an_empty_bucket_is_waited_for_before_a_429_comes() -> None:
    headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset-after": "1.25"}
    assert DISCORD.told(HttpReply(200, headers, b'{"id": "1"}'), NOW_US).rest_s == 1.25
    headers["x-ratelimit-remaining"] = "1"
    assert DISCORD.told(HttpReply(200, headers, b'{"id": "1"}'), NOW_US).rest_s == 0.0


def test_a_429_waits_for_the_float_of_its_body() -> None:
    told = discord(429, retry_after=2.75)
    assert (told.verdict.retry_after_s, told.is_for_all, told.remedy) == (2.75, False, Remedy.NONE)


def test_a_global_429_is_for_every_destination() -> None:
    assert DISCORD.told(HttpReply(429, {}, b'{"retry_after": 1.5, "global": true}'), NOW_US).is_for_all
    assert DISCORD.told(HttpReply(429, {"x-ratelimit-scope": "global"}, b"{}"), NOW_US).is_for_all
    assert DISCORD.told(HttpReply(429, {"x-ratelimit-global": "true"}, b"{}"), NOW_US).is_for_all
    assert not DISCORD.told(HttpReply(429, {"x-ratelimit-scope": "shared"}, b"{}"), NOW_US).is_for_all


def test_a_429_that_is_not_discord_s_own_waits_long() -> None:
    assert DISCORD.told(HttpReply(429, {}, b"<html>Cloudflare"), NOW_US).verdict.retry_after_s >= 600


@pytest.mark.parametrize("value", ["nan", "inf", -5, True, [], "1e999", 10**400])
def test_no_wait_that_is_asked_for_is_longer_than_an_hour_or_none(value: Any) -> None:
    told = DISCORD.told(HttpReply(429, {}, json.dumps({"retry_after": value}).encode()), NOW_US)
    assert 0 < told.verdict.retry_after_s <= 3600


def test_without_an_answer_a_post_is_ambiguous_and_an_edit_is_not() -> None:
    for reason in ("timeout", "broken", "protocol", "too_large"):
        assert DISCORD.told(NoReply(reason), NOW_US).remedy is Remedy.IT_MAY_HAVE_ARRIVED
        assert SLACK.told(NoReply(reason), NOW_US).remedy is Remedy.IT_MAY_HAVE_ARRIVED
        assert DISCORD.told(NoReply(reason), NOW_US, is_edit=True).remedy is Remedy.NONE
    for reason in ("connect", "tls"):
        assert DISCORD.told(NoReply(reason), NOW_US).remedy is Remedy.NONE
    assert DISCORD.told(NoReply("request"), NOW_US).verdict.action is Action.PAUSE


def test_a_gateway_s_timeout_at_a_post_is_ambiguous_and_another_server_error_is_not() -> None:
    assert discord(504).remedy is Remedy.IT_MAY_HAVE_ARRIVED
    assert discord(504, is_edit=True).remedy is Remedy.NONE
    assert slack(504, "").remedy is Remedy.IT_MAY_HAVE_ARRIVED
    for status in (500, 502, 503):
        assert discord(status).remedy is slack(status, "oops").remedy is Remedy.NONE


def test_a_timeout_while_connecting_is_not_ambiguous() -> None:
    assert DISCORD.told(NoReply("timeout", is_unsent=True), NOW_US).remedy is Remedy.NONE


@pytest.mark.parametrize(
    ("status", "word", "action"),
    [
        (200, "ok", Action.SETTLE),
        (200, "<html>", Action.SETTLE),
        (400, "invalid_payload", Action.BISECT),
        (400, "no_text", Action.BISECT),
        (400, "invalid_token", Action.DISABLE),
        (403, "invalid_token", Action.DISABLE),
        (400, "user_not_found", Action.DISABLE),
        (404, "channel_not_found", Action.DISABLE),
        (404, "No hooks", Action.DISABLE),
        (404, "anything", Action.DISABLE),
        (403, "action_prohibited", Action.PAUSE),
        (410, "channel_is_archived", Action.PAUSE),
        (403, "anything", Action.PAUSE),
        (302, "", Action.PAUSE),
        (405, "", Action.BISECT),
        (400, "anything", Action.BISECT),
        (429, "rate_limited", Action.BACK_OFF),
        (500, "rollup_error", Action.BACK_OFF),
        (503, "", Action.BACK_OFF),
    ],
)
def test_slack_is_classed_by_its_word_before_its_status(status: int, word: str, action: Action) -> None:
    assert slack(status, word).verdict.action is action


def test_slack_s_retry_after_is_waited_for_and_a_second_passes_between_messages() -> None:
    assert slack(429, "rate_limited", retry_after="30").verdict.retry_after_s == 30
    assert slack(429, "rate_limited").verdict.retry_after_s == 1
    assert slack(200, "ok").rest_s == 1.0


@pytest.mark.parametrize("sink", [DISCORD, SLACK], ids=lambda sink: sink.kind)
def test_no_answer_at_all_can_hurt(sink: Any) -> None:
    def outcomes() -> Any:
        yield from _everything()
        for status in (200, 400, 404, 429):
            for body in (b'{"code": true}', b'{"code": [], "message": {}, "global": 1}', b'{"id": {}}', b"\xff" * 200):
                yield HttpReply(status, {"x-ratelimit-remaining": "0", "x-ratelimit-reset-after": "x"}, body)

    outcome: HttpOutcome
    for outcome in outcomes():
        for is_edit in (False, True):
            told = sink.told(outcome, NOW_US, is_edit=is_edit)
            assert told.verdict.reason.isprintable()
            assert len(told.verdict.reason) <= 500
            assert 0 <= told.verdict.retry_after_s <= 3600
            assert 0 <= told.rest_s <= 3600
            if told.verdict.action is Action.SETTLE:
                assert isinstance(outcome, HttpReply)
                assert outcome.status // 100 == 2


@pytest.mark.parametrize(("sink", "url"), [(DISCORD, DISCORD_URL), (SLACK, SLACK_URL)], ids=["discord", "slack"])
def test_the_url_shows_nowhere(sink: Any, url: str) -> None:
    secret = url.rpartition("/")[2]
    request = sink.post(trial())
    assert secret not in repr(sink) + repr(request) + sink.target + request.body.decode()
    with pytest.raises(TypeError):
        pickle.dumps(sink)
    echoed = HttpReply(400, {}, json.dumps({"message": f"no {url}", "code": 50035}).encode())
    assert secret not in sink.told(echoed, NOW_US).verdict.reason


def test_every_edit_says_again_that_nobody_is_mentioned() -> None:
    request = DISCORD.edit(trial(), "77")
    assert request.method == "PATCH"
    assert request.url.endswith("/messages/77")
    assert json.loads(request.body)["allowed_mentions"] == {"parse": []}


def test_a_thread_is_named_in_every_request() -> None:
    sink = DiscordSink(Secret(DISCORD_URL + "?thread_id=1"), thread_id="42")
    assert sink.post(trial()).url.endswith("?thread_id=42&wait=true")
    assert sink.edit(trial(), "7").url.endswith("/messages/7?thread_id=42")
