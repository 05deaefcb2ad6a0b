"""Any text at all: every rendering keeps the services' limits and pings nobody; and the schemas find what does not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings

from orchclient.core.event_message import message_of
from orchclient.core.events import NotificationPriority
from orchclient.core.message import Kind, Message, digest, possibly_repeated, trial, web_address
from orchclient.core.secret import Secret
from orchclient.core.texts import fitted, line, seen, units
from orchclient.sinks import discord, slack
from orchclient.sinks.discord import DiscordSink
from orchclient.sinks.slack import SlackSink
from tests.properties.profiles import PURE
from tests.sinks.events import (
    COMPLETION,
    ERROR,
    KINDS,
    NASTY,
    ONE_QUESTION,
    PUBLIC,
    QUESTION,
    REMINDER,
    STATUS,
    any_events,
    any_text,
)
from tests.sinks.payload_schemas import discord_complaints, slack_complaints

DISCORD = DiscordSink(Secret("https://discord.com/api/webhooks/123456789012345678/" + "t" * 68))
SLACK = SlackSink(Secret("https://hooks.slack.com/services/T0/B0/" + "x" * 24))


def complaints(message: Message) -> list[str]:
    """What either service would refuse, rich or plain, posted or edited."""
    found = []
    for plain in (False, True):
        found += discord_complaints(DISCORD.post(message, plain=plain).body)
        found += slack_complaints(SLACK.post(message, plain=plain).body)
        found += discord_complaints(DISCORD.edit(message, "1", plain=plain).body)
    return found


def obeys(event: Any, public_url: str = PUBLIC) -> None:
    message = message_of(event, public_url, count=3)
    assert message is not None
    assert complaints(message) == []
    assert complaints(possibly_repeated(message)) == []
    assert complaints(digest([message] * 25)) == []


@PURE
@given(any_events())
def test_any_text_keeps_every_limit_and_pings_nobody(event: Any) -> None:
    obeys(event)


@pytest.mark.release
@pytest.mark.timeout(3600)
@settings(PURE, max_examples=10_000)
@given(any_events())
def test_ten_thousand_texts_keep_every_limit_and_ping_nobody(event: Any) -> None:
    obeys(event)


@pytest.mark.parametrize("word", NASTY)
def test_a_hostile_word_in_every_place_of_every_kind_pings_nobody(word: str) -> None:
    def everywhere(value: Any) -> Any:
        if isinstance(value, dict):
            return {f"{name}{word}" if name == "host" else name: everywhere(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [everywhere(inner) for inner in value]
        return f"{value} {word * 200}" if isinstance(value, str) else value

    for event in KINDS.values():
        hostile = {**event, "data": everywhere(event["data"]), "subject": word * 40, "agentid": word * 40}
        obeys(hostile)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_told_in_a_title_that_says_who_and_what(kind: str) -> None:
    message = message_of(KINDS[kind], PUBLIC)
    assert message is not None
    assert message.kind.value == kind
    assert message.title.startswith("backend-1")
    assert message.event_id == KINDS[kind]["id"]
    assert complaints(message) == []


def test_a_heartbeat_and_an_unknown_type_are_told_to_nobody() -> None:
    for type_ in ("dev.orchclient.agent.heartbeat.v1", "dev.orchclient.new.v9", "", None, 7):
        assert message_of({**STATUS, "type": type_}) is None
    assert message_of({**STATUS, "data": None}) is None


def test_a_question_tells_options_deadline_and_what_happens_without_an_answer() -> None:
    message = message_of(QUESTION, PUBLIC + "/")
    assert message is not None
    assert message.title == "backend-1 asks 2 questions about task-42: answer by 2026-11-26 14:00 UTC"
    assert "PostgreSQL 16 (recommended)" in message.lines[0]
    assert message.lines[-1].endswith("the agent goes on with its default: PostgreSQL 16")
    assert message.links[0].url == f"{PUBLIC}/q/{QUESTION['id']}"


def test_one_question_stands_in_the_first_line_and_is_not_said_twice() -> None:
    message = message_of(ONE_QUESTION)
    assert message is not None
    asked = "Which database shall the new service use?"
    assert message.headline == f"🔴 ❓ backend-1 asks about task-42, answer by 2026-11-26 14:00 UTC: {asked}"
    assert message.lines[0].startswith("• PostgreSQL 16")
    long = {**ONE_QUESTION, "data": {**ONE_QUESTION["data"], "questions": [{"text": "why " * 50 + "not?"}]}}
    message = message_of(long)
    assert message is not None
    assert message.title.endswith("why…")
    assert message.lines[0].endswith("not?")


def test_a_reminder_says_again_what_is_asked_and_by_which_page_to_act() -> None:
    error = {"error_type": "network", "error_message": "no route"}
    for type_, said, page in (
        ("clarification.requested.v1", "has waited 5 h for an answer about task-42: Which", "/q/"),
        ("task.completed.v1", "has waited 5 h for a review of task-42", "/r/"),
        ("error.escalated.v1", "has needed help with task-42 for 5 h: network: no route", "/error?task=task-42&id="),
        ("something.else.v9", "has waited 5 h for somebody to look at task-42", "/task?id=task-42"),
    ):
        about = {**REMINDER["data"]["about"], "type": f"dev.orchclient.{type_}"}
        about["data"] = about["data"] if "requested" in type_ else error if "error" in type_ else {}
        message = message_of({**REMINDER, "data": {**REMINDER["data"], "about": about}}, PUBLIC)
        assert message is not None
        assert said in message.title
        assert page in message.links[0].url
        assert complaints(message) == []


def test_a_task_whose_name_is_no_word_is_linked_to_all_the_same() -> None:
    message = message_of({**STATUS, "subject": 'a b/ü?&"\ud800'}, PUBLIC)
    assert message is not None
    assert message.links[0].url == f"{PUBLIC}/task?id=a%20b%2F%C3%BC%3F%26%22%3F"


def test_without_a_public_url_nothing_is_linked_to() -> None:
    message = message_of(QUESTION)
    assert message is not None
    assert message.links == ()


def test_an_address_of_any_length_leaves_room_for_the_rest() -> None:
    for tail in ("&" * 990, "a" * 990):
        long = {**COMPLETION, "data": {**COMPLETION["data"], "pr_url": f"https://github.com/{tail}"}}
        message = message_of(long, PUBLIC)
        assert message is not None
        assert complaints(message) == complaints(digest([message] * 25)) == []


def test_what_is_left_out_is_counted() -> None:
    asked = [{"text": "x" * 10_000}] * 300
    message = message_of({**QUESTION, "data": {**QUESTION["data"], "questions": asked}})
    assert message is not None
    assert "… and 290 more questions (2,900,000 characters)" in message.lines
    assert "characters)" in message.lines[0]


def test_a_completion_tells_quality_tests_pull_request_and_that_a_review_is_wanted() -> None:
    message = message_of(COMPLETION, PUBLIC)
    assert message is not None
    assert message.title == "backend-1 completed task-42, quality 86 of 100, 2 tests failed: a review is wanted"
    facts = {fact.name: fact.value for fact in message.facts}
    assert facts["Tests"] == "40 passed, 2 failed of 42"
    assert facts["Artifacts (2)"] == "report, coverage"
    assert [link.url for link in message.links] == [f"{PUBLIC}/r/{COMPLETION['id']}", COMPLETION["data"]["pr_url"]]


def test_an_error_tells_its_priority_attempts_context_and_how_often_it_came() -> None:
    message = message_of(ERROR, count=14)
    assert message is not None
    said = "could not connect to db-1:5432 after 3 attempts"
    assert message.title == f"backend-1 needs help now, task-42 failed: database_connection (14 times): {said}"
    assert message.lines == ()  # it stands in the first line, whole
    facts = {fact.name: fact.value for fact in message.facts}
    assert (facts["Priority"], facts["Recovery attempts"], facts["host"]) == ("critical", "3", "db-1")
    assert facts["Traceback"].startswith("left out here (")


def test_the_newest_state_after_an_outage_tells_how_many_there_were() -> None:
    message = message_of(STATUS, count=120)
    assert message is not None
    assert message.lines[-1] == "The newest of 120 updates."


def test_a_digest_has_the_highest_priority_of_what_it_holds() -> None:
    held = [message for event in (STATUS, QUESTION) if (message := message_of(event, PUBLIC))]
    told = digest(held, left_out=3)
    assert (told.kind, told.priority) == (Kind.DIGEST, NotificationPriority.HIGH)
    assert told.title == "While it was quiet: 5 messages, 1 to act on"
    assert told.lines[0].startswith("1. 🟠 ❓")  # what asks somebody goes first
    assert told.links[0].url.endswith(f"/q/{QUESTION['id']}")
    assert complaints(told) == []


def test_the_trial_asks_for_nothing() -> None:
    assert trial().is_silent
    assert complaints(trial()) == []


@pytest.mark.parametrize(
    "address",
    ["javascript:x", "https://u:p@evil.example/", "https://evil.example/|>x", "ftp://x", "https://", "http://[", "x"],
)
def test_a_pull_request_s_address_that_is_none_is_no_link(address: str) -> None:
    assert set(web_address(address)) & set(" <>|()[]\"'`\\") == set()
    assert web_address(address) in ("", "https://evil.example/%7C%3Ex")


@PURE
@given(any_text)
def test_a_fitted_text_fits_whatever_it_is_and_says_what_it_leaves_out(text: str) -> None:
    for most in (40, 256, 3000):
        for escape in (discord.escaped, slack.escaped):
            cut = fitted(seen(text), most, escape)
            assert units(cut) <= most
            assert cut == escape(seen(text)) or cut.endswith("characters)")


def test_on_discord_only_what_would_be_markup_is_escaped() -> None:
    for text, shown in (
        ("backend-1: it is 14:00 (UTC), see #7!", "backend-1: it is 14:00 (UTC), see #7!"),
        ("a_b*c~`|", "a\\_b\\*c\\~\\`\\|"),
        ("[x](https://evil.example)", "\\[x\\](https\\://evil.example)"),
        ("# head\n  > quote\n-# small\n- item", "\\# head\n  \\> quote\n\\-# small\n\\- item"),
        ("<@1> @everyone <#2> <:a:1>", "\\<\\@1> \\@everyone \\<#2> \\<:a:1>"),
    ):
        assert discord.escaped(text) == shown


def test_direction_control_and_hidden_characters_are_taken_out() -> None:
    assert seen("a\u202eb\x00c\u200bd\r\ne\tf\U000e0041") == "abcd\ne f"
    assert line(" a\n\n b ") == "a b"
    assert seen("👩‍👩‍👧") == "👩‍👩‍👧"


# --- Controls: what the schemas find ---------------------------------------------------------------------------------


def _discord(**changes: Any) -> bytes:
    embed = {"title": "t", "color": 1, "description": "d"}
    return json.dumps({"embeds": [embed], "allowed_mentions": {"parse": []}, **changes}).encode()


def _slack(*blocks: Any, **changes: Any) -> bytes:
    header = {"type": "header", "text": {"type": "plain_text", "text": "t", "emoji": False}}
    return json.dumps({"text": "t", "blocks": [header, *blocks], **changes}).encode()


def _section(text: str, type_: str = "plain_text", **more: Any) -> Any:
    return {"type": "section", "text": {"type": type_, "text": text, **more}}


def test_the_schemas_take_what_is_right() -> None:
    assert discord_complaints(_discord()) == []
    assert slack_complaints(_slack()) == []


@pytest.mark.parametrize(
    "body",
    [
        _discord(content="x" * 2001),
        _discord(allowed_mentions={"parse": ["everyone"]}),
        json.dumps({"content": "x"}).encode(),
        _discord(allow_mentions={"parse": []}),
        _discord(content="hi @everyone"),
        _discord(content="hi <@123>"),
        _discord(content="a\u202eb"),
        _discord(embeds=[{"title": "t", "color": 1}] * 11),
        _discord(embeds=[{"title": "x" * 257, "color": 1}]),
        _discord(embeds=[{"title": "😀" * 200, "color": 1}]),
        _discord(embeds=[{"title": "t", "color": 1, "description": "x" * 4097}]),
        _discord(embeds=[{"title": "t", "color": 1, "fields": [{"name": "n", "value": "v"}] * 26}]),
        _discord(embeds=[{"title": "t", "color": 1, "fields": [{"name": "n", "value": "x" * 1025}]}]),
        _discord(embeds=[{"title": "t", "color": 1, "fields": [{"name": "n", "value": ""}]}]),
        _discord(embeds=[{"title": "t", "color": 1, "description": "x" * 4000}] * 2),
        _discord(embeds=[{"title": "t", "color": 1 << 24}]),
        _discord(embeds=[{"title": "t", "color": 1, "url": "javascript:x"}]),
        _discord(embeds=[]),
    ],
)
def test_the_schema_of_discord_finds_a_planted_violation(body: bytes) -> None:
    assert discord_complaints(body)


@pytest.mark.parametrize(
    "body",
    [
        _slack(*[_section("x")] * 50),
        _slack(_section("x" * 3001)),
        _slack(_section("")),
        _slack(*[_section("x" * 2900)] * 5),
        _slack(_section("<!channel>")),
        _slack(_section("a < b")),
        _slack(_section("*bold*", "mrkdwn", verbatim=True)),
        _slack(_section("<https://x.example|go>", "mrkdwn")),
        _slack(text="<@U1>"),
        _slack(text="a\u202eb"),
        _slack(blocks=[{"type": "header", "text": {"type": "plain_text", "text": "x" * 151}}]),
        _slack(blocks=[{"type": "header", "text": {"type": "mrkdwn", "text": "x"}}]),
        _slack({"type": "section", "fields": [{"type": "plain_text", "text": "x", "emoji": False}] * 11}),
        _slack({"type": "section", "fields": [{"type": "plain_text", "text": "x" * 2001, "emoji": False}]}),
        _slack({"type": "actions", "elements": []}),
        json.dumps({"blocks": []}).encode(),
    ],
)
def test_the_schema_of_slack_finds_a_planted_violation(body: bytes) -> None:
    assert slack_complaints(body)


def test_a_dialect_that_escapes_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for dialect in (discord, slack):
        monkeypatch.setattr(dialect, "escaped", lambda text: text)
    message = message_of({**ERROR, "subject": "@everyone <!channel> <@U1>"})
    assert message is not None
    assert discord_complaints(DISCORD.post(message).body)
    assert slack_complaints(SLACK.post(message).body)


def test_slack_s_own_library_takes_the_blocks() -> None:
    blocks = pytest.importorskip("slack_sdk.models.blocks")
    for event in KINDS.values():
        message = message_of(event, PUBLIC)
        assert message is not None
        for block in json.loads(SLACK.post(message).body)["blocks"]:
            parsed = blocks.Block.parse(block)
            assert parsed is not None
            assert parsed.to_dict()["type"] == block["type"]  # to_dict validates
