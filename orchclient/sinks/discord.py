"""The dialect of Discord: webhook messages with one embed, edited in place.

Limits, headers and codes: docs.discord.com, "Webhook Resource", "Message Resource", "Rate Limits" and "Opcodes and
Status Codes", read in August 2026. Characters are counted in UTF-16 and after escaping, which is never too few.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from orchclient.core.http import HttpOutcome, HttpReply, HttpRequest, NoReply
from orchclient.core.message import Message
from orchclient.core.noise import NoiseRules
from orchclient.core.policy import Action, Verdict, bounded_wait_s, retry_after_s
from orchclient.core.secret import KnownSecrets, Secret
from orchclient.core.telling import Remedy, Told
from orchclient.core.texts import fitted, joined, units
from orchclient.sinks.address import must_be_public, target_of
from orchclient.sinks.chat import GATEWAY_TIMEOUTS, Chat, as_json, in_trouble, json_object, said, silent

HOSTS: Final = frozenset({"discord.com", "discordapp.com", "canary.discord.com", "ptb.discord.com"})
PATH: Final = r"/api/(?:v\d{1,2}/)?webhooks/\d{1,25}/[\w-]{1,200}"

CONTENT: Final = 2_000
FIRST_LINE: Final = 600
TITLE: Final = 256
DESCRIPTION: Final = 4_096
FIELDS: Final = 25
FIELD_NAME: Final = 256
FIELD_VALUE: Final = 1_024
FOOTER: Final = 2_048
TOTAL: Final = 6_000
LINKS: Final = 1_800
LINKS_SHOWN: Final = 5
SUPPRESS_NOTIFICATIONS: Final = 1 << 12

CLOUDFLARE_S: Final = 600.0  # a 429 that is not Discord's own: the address is banned for a while
SHORTEST_WAIT_S: Final = 0.5
NO_MENTIONS: Final[Mapping[str, Any]] = {"parse": []}

_MARKUP = re.compile(r"([\\*_~`|\[\]<@])|(?m:^( *)([#>-]))|(:)(?=//)")
"""What begins markup anywhere, at the beginning of a line, and an address that would be linked and fetched. No more: a
phone's notice shows the backslashes."""

_CURE = "make a new webhook in the channel's settings and put its URL in ORCHCLIENT_DISCORD_WEBHOOK_URL"
_STOPPED = {
    401: f"the webhook's token is not valid any more: {_CURE}",
    403: f"Discord forbids this webhook to post: look at the channel's permissions, or {_CURE}",
    404: f"the webhook was removed: {_CURE}",
}
_UNKNOWN_CHANNEL = 10003
_UNKNOWN_MESSAGE = 10008
_FORUM = (220001, 220002, 220003, 220004)
_THREAD_IS_CLOSED = (50083, 160005)
_SLOW_DOWN = (20016, 20028, 20029, 40062)


class DiscordSink(Chat):
    """Posts to one webhook. ``thread_id`` names a thread of its channel."""

    kind = "discord"
    holds = "its webhook's URL"
    can_edit = True
    shortest_edit_s = 15.0

    def __init__(
        self,
        url: Secret,
        *,
        name: str = "discord",
        thread_id: str = "",
        public_url: str = "",
        rules: NoiseRules | None = None,
        secrets: KnownSecrets | None = None,
        allow_private: bool = False,
    ) -> None:
        self.name = name
        self.target = target_of(f"{url.reveal()} {thread_id}")
        host = urlsplit(url.reveal()).netloc
        self.shared_limit = f"discord:{'discord.com' if host in HOSTS else host}"  # by address, for all its webhooks
        self._url = url
        self._thread_id = thread_id
        self._secrets = secrets or KnownSecrets((url.reveal(),))
        self.rules = rules or NoiseRules()
        self.public_url = public_url
        self._is_public = must_be_public(url.reveal(), allow_private)

    def post(self, message: Message, *, plain: bool = False) -> HttpRequest:
        """``POST ?wait=true``: without it Discord reports no error, and no id to edit by."""
        return self._request("POST", "", {"wait": "true"}, payload(message, plain=plain))

    def edit(self, message: Message, message_id: str, *, plain: bool = False) -> HttpRequest:
        """``PATCH`` of the message; what may be mentioned is said again, or Discord would take its own default."""
        edited = {"content": "", "embeds": [], **payload(message, plain=plain)}
        edited.pop("flags", None)  # of a message that is there only the embeds can be suppressed
        return self._request("PATCH", f"/messages/{message_id}", {}, edited)

    def probe(self) -> HttpRequest:
        """``GET`` of the webhook with its token: it describes itself, and nobody sees anything."""
        return HttpRequest("GET", self._url.reveal(), {"Accept": "application/json"}, must_be_public=self._is_public)

    def told(self, outcome: HttpOutcome, now_us: int, *, is_edit: bool = False) -> Told:
        """By status and code, as the tables of Discord's documentation have them."""
        if isinstance(outcome, NoReply):
            return silent(outcome, is_edit=is_edit)
        document = json_object(outcome.body)
        if outcome.status in (200, 204):
            return self._accepted(outcome, document)
        return self._refused(outcome, document or {}, has_document=document is not None, now_us=now_us, is_edit=is_edit)

    def _accepted(self, reply: HttpReply, document: Mapping[str, Any] | None) -> Told:
        if reply.status == 200 and document is None:  # a portal on the way: nobody has seen the message
            return in_trouble("HTTP 200, but not from Discord", 0.0, may_have_arrived=True, is_edit=False)
        id_ = (document or {}).get("id")
        message_id = id_ if isinstance(id_, str) and id_.isascii() and id_.isdigit() and len(id_) <= 25 else ""
        return Told(Verdict(Action.SETTLE, "accepted"), message_id, rest_s=rest_s(reply.headers))

    def _refused(
        self, reply: HttpReply, document: Mapping[str, Any], *, has_document: bool, now_us: int, is_edit: bool
    ) -> Told:
        reason = said(reply, document.get("message"), self._secrets.redact_text)
        code = document.get("code")
        code = code if isinstance(code, int) and not isinstance(code, bool) else 0
        if reply.status == 429 or code in _SLOW_DOWN:
            return _too_fast(reply, document, reason, has_document=has_document, now_us=now_us)
        if code == _UNKNOWN_MESSAGE and is_edit:
            return Told(Verdict(Action.BACK_OFF, reason), remedy=Remedy.POST_ANEW)
        if self._thread_id and (code in _THREAD_IS_CLOSED or code == _UNKNOWN_CHANNEL):
            return Told(Verdict(Action.PAUSE, f"{reason}: the thread is closed or gone, look at thread_id"))
        if code in _FORUM or code in _THREAD_IS_CLOSED:
            return Told(Verdict(Action.PAUSE, f"{reason}: a forum's webhook needs the thread_id of an open thread"))
        if reply.status in _STOPPED:
            return Told(Verdict(Action.DISABLE, f"{reason}: {_STOPPED[reply.status]}"))
        if reply.status in (408, 425) or reply.status >= 500:
            wait_s = retry_after_s(reply.headers.get("retry-after"), now_us)
            return in_trouble(reason, wait_s, may_have_arrived=reply.status in GATEWAY_TIMEOUTS, is_edit=is_edit)
        if 300 <= reply.status < 400 or reply.status in (405, 407, 410):
            return Told(Verdict(Action.PAUSE, reason))
        if reply.status // 100 == 4:
            return Told(Verdict(Action.BISECT, reason), remedy=Remedy.PLAINER)
        return in_trouble(reason, 0.0, may_have_arrived=False, is_edit=is_edit)

    def _request(self, method: str, below: str, query: Mapping[str, str], payload: Mapping[str, Any]) -> HttpRequest:
        parts = urlsplit(self._url.reveal())
        threads = {"thread_id": self._thread_id} if self._thread_id else {}
        text = urlencode({**dict(parse_qsl(parts.query)), **query, **threads})
        url = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") + below, text, ""))
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        return HttpRequest(method, url, headers, as_json(dict(payload)), self._is_public)


def rest_s(headers: Mapping[str, str]) -> float:
    """Seconds until the bucket has room again, when this answer took the last of it (X-RateLimit-*)."""
    if headers.get("x-ratelimit-remaining", "").strip() != "0":
        return 0.0
    return _seconds(headers.get("x-ratelimit-reset-after"))


def _too_fast(reply: HttpReply, document: Mapping[str, Any], reason: str, *, has_document: bool, now_us: int) -> Told:
    asked_s = max(
        _seconds(document.get("retry_after")),
        _seconds(reply.headers.get("x-ratelimit-reset-after")),
        retry_after_s(reply.headers.get("retry-after"), now_us),
    )
    if not has_document:
        asked_s = max(asked_s, CLOUDFLARE_S)
    verdict = Verdict(Action.BACK_OFF, reason, max(asked_s, SHORTEST_WAIT_S))
    return Told(verdict, is_for_all=not has_document or _is_global(reply, document))


def _is_global(reply: HttpReply, document: Mapping[str, Any]) -> bool:
    """Told in three places, of which one suffices; a ban of the address, which has no document, is for all as well."""
    told = reply.headers.get("x-ratelimit-global", ""), reply.headers.get("x-ratelimit-scope", "")
    return document.get("global") is True or told[0].lower() == "true" or told[1].lower() == "global"


def _seconds(value: object) -> float:
    try:
        seconds = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else 0.0
    except (ValueError, OverflowError):
        return 0.0
    return bounded_wait_s(seconds if math.isfinite(seconds) else 0.0)


# --- Rendering ------------------------------------------------------------------------------------------------------


def escaped(text: str) -> str:
    """Text whose markup Discord shows instead of obeying it."""
    return _MARKUP.sub(lambda found: f"{found[2] or ''}\\{found[1] or found[3] or found[4]}", text)


def payload(message: Message, *, plain: bool = False) -> dict[str, Any]:
    """The body of a webhook message. Nobody is mentioned, whatever the text says.

    The first line stands above the embed where a device is to sound: a phone shows nothing of an embed in its notice.
    """
    shown: dict[str, Any] = {"allowed_mentions": NO_MENTIONS}
    if message.is_silent:
        shown["flags"] = SUPPRESS_NOTIFICATIONS
    if plain:
        return {**shown, "content": _plain_content(message)}
    if message.is_silent:
        return {**shown, "embeds": [_embed(message)]}
    return {**shown, "content": fitted(message.headline, FIRST_LINE, escaped), "embeds": [_embed(message, "")]}


def _plain_content(message: Message) -> str:
    facts = [f"{fact.name}: {fact.value}" for fact in message.facts]
    return fitted("\n".join([message.headline, *message.lines, *facts]), CONTENT, escaped)


def _embed(message: Message, title: str | None = None) -> dict[str, Any]:
    title = fitted(message.headline, TITLE, escaped) if title is None else title
    embed: dict[str, Any] = {"title": title} if title else {}
    embed["color"] = message.colour
    if message.links and title:
        embed["url"] = message.links[0].url
    if message.time:
        embed["timestamp"] = message.time
    left = TOTAL - units(title)
    if message.footer:
        embed["footer"] = {"text": fitted(message.footer, min(FOOTER, 128))}
        left -= units(embed["footer"]["text"])
    links = joined((f"[{link.label}]({link.url})" for link in message.links[:LINKS_SHOWN]), LINKS)
    fields, left = _fields(message, left - units(links) - 2, floor=min(2_500, left // 2))
    text = fitted("\n\n".join(message.lines), min(DESCRIPTION - units(links) - 2, left), escaped)
    description = "\n\n".join(part for part in (text, links) if part)
    if description:
        embed["description"] = description
    if fields:
        embed["fields"] = fields
    return embed


def _fields(message: Message, left: int, floor: int) -> tuple[list[dict[str, Any]], int]:
    """As many facts as leave ``floor`` characters for the lines, and what is left of the total."""
    fields: list[dict[str, Any]] = []
    for fact in message.facts[:FIELDS]:
        name = fitted(fact.name, FIELD_NAME, escaped) or "-"
        value = fitted(fact.value, FIELD_VALUE, escaped) or "-"
        if left - units(name) - units(value) < floor:
            break
        left -= units(name) + units(value)
        fields.append({"name": name, "value": value, "inline": units(value) <= 40})
    return fields, left
