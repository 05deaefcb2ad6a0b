"""Our own chats keep the published contract, and it finds those that do not."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from orchclient.core.http import HttpOutcome, HttpReply, HttpRequest, NoReply
from orchclient.core.message import Message
from orchclient.core.policy import Action, Verdict
from orchclient.core.secret import Secret
from orchclient.core.telling import Told
from orchclient.sinks.discord import DiscordSink
from orchclient.sinks.sink import ChatSink
from orchclient.sinks.slack import SlackSink
from orchclient.sinks.slack_bot import SlackBotSink
from orchclient.testing.sink_contract import ChatSinkContract, DestinationContract

DISCORD = "https://discord.com/api/webhooks/1/" + "canary" * 11
SLACK = "https://hooks.slack.com/services/T0/B0/" + "canary" * 4
TOKEN = "xoxb-canary-91c2"


class TestDiscord(ChatSinkContract):
    secrets = (DISCORD, "canary")

    def make_sink(self) -> ChatSink:
        return DiscordSink(Secret(DISCORD))

    def accepting(self, request: HttpRequest) -> HttpReply:
        return HttpReply(200, {"content-type": "application/json"}, b'{"id": "1234567890"}')


class TestSlack(ChatSinkContract):
    secrets = (SLACK, "canary")

    def make_sink(self) -> ChatSink:
        return SlackSink(Secret(SLACK))

    def accepting(self, request: HttpRequest) -> HttpReply:
        return HttpReply(200, {"content-type": "text/html"}, b"ok")


class TestSlackBot(ChatSinkContract):
    secrets = (TOKEN, "canary")

    def make_sink(self) -> ChatSink:
        return SlackBotSink(lambda: Secret(TOKEN), "C0123")

    def accepting(self, request: HttpRequest) -> HttpReply:
        return HttpReply(
            200, {"content-type": "application/json"}, b'{"ok":true,"channel":"C0123","ts":"1234567890.000001"}'
        )


# --- and what it finds --------------------------------------------------------------------------------------------


class Right(DiscordSink):
    def __init__(self) -> None:
        super().__init__(Secret(DISCORD))


class HeaderOfText(Right):
    def post(self, message: Message, *, plain: bool = False) -> HttpRequest:
        return evolve(super().post(message, plain=plain), headers={"X-Title": str(message)})


class NeverShown(Right):
    def told(self, outcome: HttpOutcome, now_us: int, *, is_edit: bool = False) -> Told:
        return Told(Verdict(Action.BACK_OFF, "later"))


class RepeatsBlindly(Right):
    def told(self, outcome: HttpOutcome, now_us: int, *, is_edit: bool = False) -> Told:
        found = super().told(outcome, now_us, is_edit=is_edit)
        return Told(found.verdict) if isinstance(outcome, NoReply) else found


class SettlesOnRefusal(Right):
    def told(self, outcome: HttpOutcome, now_us: int, *, is_edit: bool = False) -> Told:
        if isinstance(outcome, HttpReply) and outcome.status == 403:
            return Told(Verdict(Action.SETTLE))
        return super().told(outcome, now_us, is_edit=is_edit)


class RepeatsWhatWasSaid(Right):
    def told(self, outcome: HttpOutcome, now_us: int, *, is_edit: bool = False) -> Told:
        said = outcome.body.decode("latin-1") if isinstance(outcome, HttpReply) else ""
        found = super().told(outcome, now_us, is_edit=is_edit)
        return evolve(found, verdict=evolve(found.verdict, reason=said))


WRONG: dict[str, type[Any]] = {
    "test_whatever_it_shows_can_be_put_on_the_wire": HeaderOfText,
    "test_what_is_accepted_is_shown": NeverShown,
    "test_a_post_without_an_answer_may_have_arrived": RepeatsBlindly,
    "test_no_answer_settles_what_nobody_has_seen": SettlesOnRefusal,
    "test_no_answer_at_all_can_hurt_it": RepeatsWhatWasSaid,
}


@pytest.mark.parametrize("check", WRONG)
def test_a_wrong_chat_is_found_by_its_check(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = TestDiscord()
    monkeypatch.setattr(suite, "make_sink", WRONG[check])
    with pytest.raises(AssertionError):
        getattr(suite, check)()


def test_every_check_has_a_chat_that_it_finds() -> None:
    own = {name for name in dir(ChatSinkContract) if name.startswith("test_")} - set(dir(DestinationContract))
    assert own == set(WRONG)
