"""Other services by templates: any text keeps their limits and is text; what they answer; how a table names them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from orchclient import config
from orchclient.core.errors import ConfigError
from orchclient.core.event_message import message_of
from orchclient.core.http import HttpReply, NoReply
from orchclient.core.message import Message, digest, possibly_repeated, trial
from orchclient.core.policy import Action
from orchclient.core.secret import KnownSecrets, Secret
from orchclient.core.telling import Remedy
from orchclient.destinations import configured
from orchclient.sinks.templated import TemplatedSink
from orchclient.sinks.templates.known import TEMPLATES
from orchclient.sinks.templates.own import KNOWN, own
from orchclient.testing import WebhookDouble
from orchclient.testing.sink_contract import NOW_US, _everything
from tests.conftest import MakeClient
from tests.properties.profiles import PURE
from tests.sinks.events import ERROR, KINDS, NASTY, ONE_QUESTION, PUBLIC, QUESTION, STATUS, any_events
from tests.sinks.template_schemas import complaints

SOON_S = 20.0
TOKEN = "tk_1234567890abcdefghij"
URL = "https://push.example/my-secret-topic-0123456789"


def sink(name: str, **settings: Any) -> TemplatedSink:
    return TemplatedSink(Secret(URL), TEMPLATES[name], token=lambda: Secret(TOKEN), **settings)


SINKS = {name: sink(name) for name in TEMPLATES}


def found(message: Message) -> list[str]:
    return [
        f"{name}: {complaint}"
        for name, each in SINKS.items()
        for plain in (False, True)
        for complaint in complaints(name, each.post(message, plain=plain).body)
    ]


def told(event: Any) -> Message:
    message = message_of(event, PUBLIC, count=3)
    assert message is not None
    return message


def obeys(event: Any) -> None:
    message = told(event)
    assert found(message) == []
    assert found(possibly_repeated(digest([message] * 25))) == []


@PURE
@given(any_events())
def test_any_text_keeps_every_limit_and_is_text(event: Any) -> None:
    obeys(event)


@pytest.mark.release
@pytest.mark.timeout(3600)
@settings(PURE, max_examples=10_000)
@given(any_events())
def test_ten_thousand_texts_keep_every_limit_and_are_text(event: Any) -> None:
    obeys(event)


@pytest.mark.parametrize("word", NASTY)
def test_a_hostile_word_in_every_place_of_every_kind_is_text(word: str) -> None:
    for event in KINDS.values():
        said = {name: f"{value} {word * 200}" for name, value in event["data"].items() if isinstance(value, str)}
        data = {**event["data"], **said}
        assert found(told({**event, "data": data, "subject": word * 40, "agentid": word * 40})) == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_told_and_so_is_the_test_message(kind: str) -> None:
    assert found(told(KINDS[kind])) == []
    assert found(trial()) == []


def test_what_a_person_needs_stands_first_with_a_way_to_act() -> None:
    message = told(ONE_QUESTION)
    teams = json.loads(SINKS["teams"].post(message).body)["attachments"][0]["content"]
    assert teams["body"][0]["style"] == "attention"
    assert teams["body"][0]["items"][0]["inlines"][0]["text"] == message.headline
    assert teams["actions"][0] == {"type": "Action.OpenUrl", "title": "Answer here", "url": message.links[0].url}
    push = json.loads(SINKS["ntfy"].post(message).body)
    assert (push["title"], push["priority"], push["click"]) == (message.headline, 5, message.links[0].url)
    post = json.loads(SINKS["mattermost"].post(message).body)
    assert post["attachments"][0]["color"] == "#DC2626"
    assert f"[Answer here]({message.links[0].url})" in post["attachments"][0]["text"]
    alert = json.loads(SINKS["pagerduty"].post(message).body)
    assert (alert["event_action"], alert["payload"]["severity"], alert["routing_key"]) == ("trigger", "critical", TOKEN)


def test_the_end_of_a_question_or_an_error_resolves_the_alert_that_it_triggered() -> None:
    def alert(event: Any) -> tuple[str, str]:
        body = json.loads(SINKS["pagerduty"].post(told(event)).body)
        return body["event_action"], body["dedup_key"]

    asked = alert(QUESTION)
    assert asked == ("trigger", QUESTION["id"])
    assert alert(KINDS["withdrawn"]) == alert(KINDS["answered"]) == ("resolve", asked[1])
    first = alert(ERROR)
    again = {**ERROR, "id": "01a207af-1842-726b-b2a7-000000000099"}
    again["data"] = {**ERROR["data"], "count": 2, "first_id": ERROR["id"]}
    assert alert(again) == first
    over = {**KINDS["resolved"], "data": {**KINDS["resolved"]["data"], "error_id": ERROR["id"]}}
    assert alert(over) == ("resolve", first[1])
    assert alert(KINDS["reminder"]) == asked
    assert json.loads(SINKS["pagerduty"].post(trial()).body)["event_action"] == "resolve"
    assert [SINKS["pagerduty"].takes(event) for event in (STATUS, QUESTION, ERROR)] == [False, True, True]


def test_a_topic_of_ntfy_stands_in_the_body_and_the_token_in_a_header() -> None:
    request = SINKS["ntfy"].post(trial())
    assert request.url == "https://push.example/"
    assert json.loads(request.body)["topic"] == "my-secret-topic-0123456789"
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert "Authorization" not in SINKS["pagerduty"].post(trial()).headers


# --- A body of one's own ----------------------------------------------------------------------------------------------

BODY = {
    "msg": "$headline",
    "as_it_is": "costs $5",
    "dollar": "$$headline",
    "nested": [{"facts": "$facts", "link": "$link"}, 1, True, None, 0.5],
    "urgent": "$asks",
}


def test_a_body_of_one_s_own_gets_values_and_no_pasted_text() -> None:
    hostile = 'a"}, {"msg": "b'
    message = told({**QUESTION, "subject": hostile, "data": {**QUESTION["data"], "context": {hostile: hostile}}})
    body = json.loads(TemplatedSink(Secret(URL), own(BODY)).post(message).body)
    assert set(body) == set(BODY)
    assert body["msg"] == message.headline
    assert hostile in body["msg"]
    assert (body["as_it_is"], body["dollar"], body["urgent"]) == ("costs $5", "$headline", True)
    assert body["nested"][0]["facts"][hostile] == hostile
    assert body["nested"][1:] == [1, True, None, 0.5]


@pytest.mark.parametrize("body", [None, {}, [], "x", {"a": "$nothing"}, {"a": float("nan")}, {"a": {1, 2}}])
def test_a_body_that_cannot_be_made_is_refused_at_once(body: Any) -> None:
    with pytest.raises(ConfigError, match="body"):
        own(body)


@PURE
@given(any_events())
def test_a_body_of_one_s_own_stays_small_whatever_was_said(event: Any) -> None:
    every = {name[1:]: name for name in KNOWN}
    body = TemplatedSink(Secret(URL), own(every)).post(told(event)).body
    assert len(body) < 64_000
    assert json.loads(body)["headline"]


# --- Answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "action", "remedy"),
    [
        (200, Action.SETTLE, Remedy.NONE),
        (202, Action.SETTLE, Remedy.NONE),
        (400, Action.BISECT, Remedy.PLAINER),
        (413, Action.BISECT, Remedy.PLAINER),
        (401, Action.PAUSE, Remedy.NONE),
        (403, Action.PAUSE, Remedy.NONE),
        (404, Action.PAUSE, Remedy.NONE),
        (302, Action.PAUSE, Remedy.NONE),
        (410, Action.DISABLE, Remedy.NONE),
        (429, Action.BACK_OFF, Remedy.NONE),
        (502, Action.BACK_OFF, Remedy.NONE),
        (504, Action.BACK_OFF, Remedy.IT_MAY_HAVE_ARRIVED),
    ],
)
def test_an_answer_is_classed_by_its_status(status: int, action: Action, remedy: Remedy) -> None:
    answered = SINKS["teams"].told(HttpReply(status), NOW_US)
    assert (answered.verdict.action, answered.remedy) == (action, remedy)


def test_a_429_waits_as_long_as_it_says() -> None:
    assert SINKS["ntfy"].told(HttpReply(429, {"retry-after": "30"}), NOW_US).verdict.retry_after_s == 30
    assert SINKS["ntfy"].told(HttpReply(429), NOW_US).verdict.retry_after_s == 1


def test_only_what_is_shown_once_whatever_happens_is_repeated_without_a_mark() -> None:
    for name, expected in (("teams", Remedy.IT_MAY_HAVE_ARRIVED), ("pagerduty", Remedy.NONE)):
        assert SINKS[name].told(NoReply("timeout"), NOW_US).remedy is expected
        assert SINKS[name].told(HttpReply(504), NOW_US).remedy is expected


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_answer_at_all_can_hurt(name: str) -> None:
    for outcome in _everything():
        answered = SINKS[name].told(outcome, NOW_US)
        assert answered.verdict.reason.isprintable()
        assert 0 <= answered.verdict.retry_after_s <= 3600


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_url_and_the_token_show_nowhere(name: str) -> None:
    request = SINKS[name].post(trial())
    shown = repr(SINKS[name]) + repr(request) + SINKS[name].target
    echoed = HttpReply(400, {}, f"no {URL} {TOKEN}".encode())
    shown += SINKS[name].told(echoed, NOW_US).verdict.reason
    assert "my-secret-topic" not in shown
    assert TOKEN not in shown


# --- Tables -----------------------------------------------------------------------------------------------------------


def test_a_client_tells_people_by_a_template_with_its_noise_rules(
    make_client: MakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with WebhookDouble() as service:
        monkeypatch.setenv("TEAMS_URL", service.webhook_url)
        monkeypatch.setenv("PAGER_URL", service.webhook_url)
        monkeypatch.setenv("PAGER_KEY", TOKEN)
        written = tmp_path / "config.toml"
        written.write_text(
            '[sinks.teams]\nkind = "webhook"\ntemplate = "teams"\nwebhook_url_env = "TEAMS_URL"\n'
            '[sinks.oncall]\nkind = "webhook"\ntemplate = "pagerduty"\nwebhook_url_env = "PAGER_URL"\n'
            'token_env = "PAGER_KEY"\npriority = "high"\n'
            '[sinks.mine]\nkind = "webhook"\nwebhook_url_env = "TEAMS_URL"\nbody = {text = "$headline"}\n'
            'types = ["clarification.requested.v1"]\n'
        )
        monkeypatch.setenv("ORCHCLIENT_CONFIG", str(written))
        client = make_client()
        for percent in range(20):
            client.update_task_status("t", "in_progress", progress_percentage=percent)
        small = client.request_clarification("t", ["Which small one?"])
        asked = client.request_clarification("t", ["Which one?"], "high")
        assert client.flush(SOON_S)
        asked.withdraw("found it")
        small.withdraw("found it")
        assert client.flush(SOON_S)
        seen = [shown.payload for shown in service.shown]
        alerts = [(each["event_action"], each["dedup_key"]) for each in seen if "event_action" in each]
        assert alerts == [("trigger", asked.id), ("resolve", asked.id)]  # its end, although that is not urgent
        cards = [json.dumps(each) for each in seen if each.get("type") == "message"]
        assert sum("in progress" in card for card in cards) <= 2
        assert sum("Which" in card for card in cards) == 2
        assert sum("withdrew" in card for card in cards) == 2
        assert [list(each) for each in seen if "event_action" not in each and "type" not in each] == [["text"]] * 2


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"template": "team"}, "did you mean teams"),
        ({"template": "teams", "body": {"a": 1}}, "leave out body"),
        ({"template": "own"}, "body is not usable"),
        ({"body": {"a": "$b"}}, r"\$headline"),
        ({"template": "pagerduty"}, "integration key"),
        ({"template": "ntfy"}, "ends with a topic"),
        ({"template": "teams", "secret_env": "S"}, "unknown option"),
        ({"template": "teams", "quiet": "22-7"}, "22:00-07:00"),
    ],
)
def test_an_unusable_table_is_told_with_its_cure(
    table: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("U", "https://push.example/a/b")
    monkeypatch.setenv("S", "whsec_x")
    named = {"kind": "webhook", "webhook_url_env": "U", **table}
    with pytest.raises(ConfigError, match=said) as refused:
        configured(config.load({}, sinks={"x": named}), KnownSecrets())
    assert str(refused.value).startswith("[sinks.x]: ")


def test_pagerduty_needs_no_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K", TOKEN)
    table = {"kind": "webhook", "template": "pagerduty", "token_env": "K"}
    (made,) = configured(config.load({}, sinks={"x": table}), KnownSecrets())
    assert isinstance(made, TemplatedSink)
    assert made.post(trial()).url == "https://events.pagerduty.com/v2/enqueue"


# --- Controls: what the schemas find ----------------------------------------------------------------------------------


def _changed(name: str, change: Any) -> bytes:
    body = json.loads(SINKS[name].post(told(ONE_QUESTION)).body)
    change(body)
    return json.dumps(body).encode()


def _card(body: Any) -> Any:
    return body["attachments"][0]["content"]


PLANTED = [
    ("teams", lambda body: _card(body)["body"].append({"type": "TextBlock", "text": "**markup**"})),
    ("teams", lambda body: _card(body)["body"][0]["items"][0]["inlines"][0].update(text="")),
    ("teams", lambda body: _card(body)["actions"][0].update(url="javascript:x")),
    ("teams", lambda body: body["attachments"].append(body["attachments"][0])),
    ("teams", lambda body: _card(body)["body"][1]["inlines"][0].update(text="x" * 28_000)),
    ("teams", lambda body: body.update(text="x")),
    ("mattermost", lambda body: body.update(text="hi @all")),
    ("mattermost", lambda body: body.update(text="**bold**")),
    ("mattermost", lambda body: body["attachments"][0].update(text="[x](https://evil.example)<x>")),
    ("mattermost", lambda body: body["attachments"][0].update(color="red")),
    ("mattermost", lambda body: body.update(channel="@somebody")),
    ("mattermost", lambda body: body.update(text="x" * 4_001)),
    ("ntfy", lambda body: body.update(topic="a/b")),
    ("ntfy", lambda body: body.update(message="\u00fc" * 2_100)),
    ("ntfy", lambda body: body.update(priority=6)),
    ("ntfy", lambda body: body.update(actions=body["actions"] * 4)),
    ("ntfy", lambda body: body.update(email="x@example.com")),
    ("ntfy", lambda body: body.update(title="a\u202eb")),
    ("pagerduty", lambda body: body["payload"].update(summary="x" * 1_025)),
    ("pagerduty", lambda body: body["payload"].update(severity="high")),
    ("pagerduty", lambda body: body.update(dedup_key="x" * 256)),
    ("pagerduty", lambda body: body.pop("payload")),
    ("pagerduty", lambda body: body["links"].append({"href": "file:///etc/passwd"})),
]


@pytest.mark.parametrize("number", range(len(PLANTED)))
def test_what_a_service_would_refuse_is_found(number: int) -> None:
    name, change = PLANTED[number]
    assert complaints(name, _changed(name, lambda body: None)) == []
    assert complaints(name, _changed(name, change)) != []
