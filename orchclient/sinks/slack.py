"""The dialect of Slack: incoming webhooks with Block Kit. Nothing can be edited, so only milestones are told.

Limits and answers: docs.slack.dev, "Incoming webhooks", "Block Kit" and "Rate limits"; what all blocks together may
hold is documented nowhere and was measured at 13,172 characters (slackapi/bolt-js #2509). What an agent wrote is
plain_text throughout: Slack neither links, nor styles, nor mentions anything in it; ``& < >`` are escaped all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from orchclient.core.http import HttpOutcome, HttpReply, HttpRequest, NoReply
from orchclient.core.message import Message
from orchclient.core.noise import NoiseRules
from orchclient.core.policy import Action, Verdict, retry_after_s
from orchclient.core.secret import KnownSecrets, Secret
from orchclient.core.telling import Remedy, Told
from orchclient.core.texts import fitted, joined, units
from orchclient.sinks.address import must_be_public, target_of
from orchclient.sinks.chat import GATEWAY_TIMEOUTS, Chat, as_json, in_trouble, said, silent

HOSTS: Final = frozenset({"hooks.slack.com", "hooks.slack-gov.com"})
PATH: Final = r"/(?:services/T\w+/B\w+/\w+)/?"

FALLBACK: Final = 3_000
HEADER: Final = 150
SECTION: Final = 3_000
FIELD: Final = 2_000
FIELDS: Final = 10
BLOCKS: Final = 50
ALL_BLOCKS: Final = 12_000
LINKS_SHOWN: Final = 5
ONE_A_SECOND: Final = 1.0  # messages in one channel, by the documentation

_CURE = "add an incoming webhook to the channel again and put its URL in ORCHCLIENT_SLACK_WEBHOOK_URL"
_GONE = f"the webhook was removed: {_CURE}"
_NOT_THIS_WAY = Action.BISECT
_BY_BODY: Mapping[str, tuple[Action, str]] = {
    **dict.fromkeys(
        (
            "invalid_payload",
            "invalid_blocks",
            "invalid_blocks_format",
            "no_text",
            "missing_text_or_fallback_or_attachments",
            "too_many_attachments",
            "msg_blocks_too_long",
        ),
        (_NOT_THIS_WAY, ""),
    ),
    "invalid_token": (Action.DISABLE, f"the webhook is not valid any more: {_CURE}"),
    "token_revoked": (Action.DISABLE, f"the webhook is not valid any more: {_CURE}"),
    "user_not_found": (Action.DISABLE, f"the webhook's person is gone: {_CURE}"),
    "channel_not_found": (Action.DISABLE, f"the channel is gone: {_CURE}"),
    "no_service": (Action.DISABLE, _GONE),
    "no_service_id": (Action.DISABLE, _GONE),
    "no_active_hooks": (Action.DISABLE, _GONE),
    "no hooks": (Action.DISABLE, _GONE),
    "no_team": (Action.DISABLE, "the workspace is gone"),
    "team_disabled": (Action.DISABLE, "the workspace is disabled"),
    "channel_is_archived": (Action.PAUSE, "unarchive the channel, or choose another one"),
    "action_prohibited": (Action.PAUSE, "an administrator of the workspace forbids it"),
    "posting_to_general_channel_denied": (Action.PAUSE, "choose another channel than the general one"),
    "rate_limited": (Action.BACK_OFF, ""),
    "ratelimited": (Action.BACK_OFF, ""),
    "rollup_error": (Action.BACK_OFF, ""),
}


class SlackSink(Chat):
    """Posts to one incoming webhook."""

    kind = "slack"
    holds = "its webhook's URL"
    can_edit = False
    shortest_edit_s = 300.0

    def __init__(
        self,
        url: Secret,
        *,
        name: str = "slack",
        public_url: str = "",
        rules: NoiseRules | None = None,
        secrets: KnownSecrets | None = None,
        allow_private: bool = False,
    ) -> None:
        self.name = name
        self.target = target_of(url.reveal())
        self._url = url
        self._secrets = secrets or KnownSecrets((url.reveal(),))
        self.rules = rules or NoiseRules()
        self.public_url = public_url
        self._is_public = must_be_public(url.reveal(), allow_private)

    def post(self, message: Message, *, plain: bool = False) -> HttpRequest:
        """``POST`` of blocks and a fallback text."""
        headers = {"Content-Type": "application/json", "Accept": "*/*"}
        return HttpRequest("POST", self._url.reveal(), headers, as_json(payload(message, plain=plain)), self._is_public)

    def edit(self, message: Message, message_id: str, *, plain: bool = False) -> HttpRequest:
        """A webhook cannot edit."""
        raise NotImplementedError("a message of an incoming webhook cannot be edited")

    def probe(self) -> HttpRequest:
        """A message without a text, which Slack refuses (400 ``no_text``): nobody sees it, and it tells that it works.

        Undocumented; it is how secret scanners verify a webhook (trufflesecurity/trufflehog #1427, #1761).
        """
        headers = {"Content-Type": "application/json", "Accept": "*/*"}
        return HttpRequest("POST", self._url.reveal(), headers, as_json({"text": ""}), self._is_public)

    def told(self, outcome: HttpOutcome, now_us: int, *, is_edit: bool = False) -> Told:
        """By the body first: Slack says ``400 invalid_token`` of a webhook that is gone, and means it."""
        if isinstance(outcome, NoReply):
            return silent(outcome, is_edit=False)
        word = outcome.body[:100].decode("ascii", "replace").strip()
        reason = said(outcome, word, self._secrets.redact_text)
        if outcome.status // 100 == 2:
            return Told(Verdict(Action.SETTLE, "accepted" if word == "ok" else reason), rest_s=ONE_A_SECOND)
        if outcome.status == 429:
            return _back_off(outcome, reason, now_us)
        action, cure = _BY_BODY.get(word.lower(), (None, ""))
        if action is not None:
            return self._classed(action, f"{reason}: {cure}" if cure else reason, outcome, now_us)
        return _by_status(outcome, reason, now_us)

    def _classed(self, action: Action, reason: str, reply: HttpReply, now_us: int) -> Told:
        if action is Action.BACK_OFF:
            return _back_off(reply, reason, now_us)
        return Told(Verdict(action, reason), remedy=Remedy.PLAINER if action is _NOT_THIS_WAY else Remedy.NONE)


def _by_status(reply: HttpReply, reason: str, now_us: int) -> Told:
    if reply.status == 404:
        return Told(Verdict(Action.DISABLE, f"{reason}: {_GONE}"))
    if 300 <= reply.status < 400 or reply.status in (401, 403, 407, 410):
        return Told(Verdict(Action.PAUSE, f"{reason}: {_CURE}"))
    if reply.status // 100 == 4 and reply.status not in (408, 425):
        return Told(Verdict(Action.BISECT, reason), remedy=Remedy.PLAINER)
    wait_s = retry_after_s(reply.headers.get("retry-after"), now_us)
    return in_trouble(reason, wait_s, may_have_arrived=reply.status in GATEWAY_TIMEOUTS, is_edit=False)


def _back_off(reply: HttpReply, reason: str, now_us: int) -> Told:
    wait_s = max(retry_after_s(reply.headers.get("retry-after"), now_us), ONE_A_SECOND)
    return Told(Verdict(Action.BACK_OFF, reason, wait_s))


# --- Rendering ------------------------------------------------------------------------------------------------------


def escaped(text: str) -> str:
    """The three characters by which Slack's mentions, links and entities begin."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def payload(message: Message, *, plain: bool = False) -> dict[str, Any]:
    """The body of an incoming webhook."""
    if plain:
        facts = [f"{fact.name}: {fact.value}" for fact in message.facts]
        text = "\n".join([message.headline, *message.lines, *facts])
        return {"text": fitted(text, FALLBACK, escaped), "mrkdwn": False, **_UNTOUCHED}
    return {"text": fitted(message.headline, FALLBACK, escaped), "blocks": _blocks(message), **_UNTOUCHED}


_UNTOUCHED: Final[Mapping[str, Any]] = {"unfurl_links": False, "unfurl_media": False}


def _blocks(message: Message) -> list[dict[str, Any]]:
    header = {"type": "header", "text": _plain(message.headline, HEADER)}
    footer = " · ".join(part for part in (message.footer, message.time) if part)
    acts: list[dict[str, Any]] = []
    rows = (f"<{escaped(link.url)}|{escaped(link.label)}>" for link in message.links[:LINKS_SHOWN])
    links = joined(rows, SECTION)
    if links:
        acts.append({"type": "section", "text": {"type": "mrkdwn", "text": links, "verbatim": True}})
    ends = [{"type": "context", "elements": [_plain(footer, 256)]}] if footer else []
    left = ALL_BLOCKS - _size([header, *acts, *ends])
    facts = _facts(message, left // 2)
    sections = _sections(message, left - _size(facts))
    return [header, *sections[: BLOCKS - 1 - len(acts) - len(facts) - len(ends)], *acts, *facts, *ends]


def _sections(message: Message, left: int) -> list[dict[str, Any]]:
    """The lines, each a section of its own, as long as there is room."""
    lines = list(message.lines)
    if units(escaped(message.headline)) > HEADER:  # the header had to be cut: the whole line stands below it
        lines.insert(0, message.headline)
    sections: list[dict[str, Any]] = []
    for number, text in enumerate(lines):
        room = min(SECTION, left)
        if room < 200:
            break
        rest = "\n\n".join(lines[number:])
        is_last = number >= 20 or left - units(escaped(text)) < 200
        section = {"type": "section", "text": _plain(rest if is_last else text, room)}
        sections.append(section)
        left -= _size([section])
        if is_last:
            break
    return sections


def _facts(message: Message, most: int) -> list[dict[str, Any]]:
    fields: list[dict[str, Any]] = []
    for fact in message.facts[:FIELDS]:
        field = _plain(f"{fact.name}\n{fact.value}", FIELD)
        if _size(fields) + units(field["text"]) > most:
            break
        fields.append(field)
    return [{"type": "section", "fields": fields}] if fields else []


def _plain(text: str, most: int) -> dict[str, Any]:
    return {"type": "plain_text", "text": fitted(text, most, escaped) or "-", "emoji": False}


def _size(value: Any) -> int:
    """Characters of every text inside."""
    if isinstance(value, Mapping):
        return sum(
            units(inner) if name == "text" and isinstance(inner, str) else _size(inner) for name, inner in value.items()
        )
    return sum(map(_size, value)) if isinstance(value, list) else 0
