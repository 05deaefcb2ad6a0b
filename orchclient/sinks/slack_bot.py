"""The dialect of a Slack app with a bot token: as the incoming webhook's, and messages are edited in place.

Methods and errors: docs.slack.dev, "chat.postMessage", "chat.update" and "Rate limits". Spoken over the client's own
transport and not through slack_sdk, whose client has deadlines, retries and logs of its own (docs/decisions/0018).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from orchclient.core.http import HttpOutcome, HttpRequest, NoReply
from orchclient.core.message import Message
from orchclient.core.noise import NoiseRules
from orchclient.core.policy import Action, Verdict, retry_after_s
from orchclient.core.secret import KnownSecrets, Secret
from orchclient.core.telling import Remedy, Told
from orchclient.sinks.address import must_be_public, target_of
from orchclient.sinks.chat import GATEWAY_TIMEOUTS, Chat, as_json, in_trouble, json_object, said, silent
from orchclient.sinks.slack import ONE_A_SECOND, payload

API: Final = "https://slack.com/api"
HOSTS: Final = frozenset({"slack.com", "slack-gov.com"})
CHANNEL: Final = r"[CDG][A-Z0-9]{2,30}"

_MESSAGE = re.compile(rf"({CHANNEL}):(\d{{1,16}}\.\d{{1,9}})", re.ASCII)
_TOKEN_CURE = "install the app again and give its new token in the token_file or token_env of its table"  # noqa: S105
_CHANNEL_CURE = "invite the app to the channel, or name another channel in its table"
_NOT_THIS_WAY = "msg_too_long msg_blocks_too_long invalid_blocks invalid_blocks_format invalid_arguments no_text"
_GONE = "message_not_found cant_update_message edit_window_closed"
_NO_THREAD = "thread_not_found message_not_found invalid_thread_ts cannot_reply_to_message"
_LATER = "internal_error fatal_error service_unavailable request_timeout accesslimited"
_BY_ERROR: Final[Mapping[str, tuple[Action, str]]] = {
    **dict.fromkeys(_NOT_THIS_WAY.split(), (Action.BISECT, "")),
    **dict.fromkeys(
        ["invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired", "org_login_required"],
        (Action.PAUSE, _TOKEN_CURE),  # and not disabled: with the next token it goes on
    ),
    **dict.fromkeys(["missing_scope", "no_permission"], (Action.PAUSE, "give the app the scope chat:write")),
    **dict.fromkeys(
        ["channel_not_found", "not_in_channel", "is_archived", "restricted_action", "ekm_access_denied"],
        (Action.PAUSE, _CHANNEL_CURE),
    ),
}


class SlackBotSink(Chat):
    """Posts to one channel as an app. ``token`` is asked for at every request, so it may be renewed."""

    kind = "slack"
    holds = "its token"
    can_edit = True
    shortest_edit_s = 15.0

    def __init__(
        self,
        token: Callable[[], Secret],
        channel: str,
        *,
        name: str = "slack",
        api_url: str = API,
        public_url: str = "",
        rules: NoiseRules | None = None,
        secrets: KnownSecrets | None = None,
        allow_private: bool = False,
    ) -> None:
        self.name = name
        self.target = target_of(f"{api_url} {channel}")  # not the token: it is renewed, and the messages stay
        self.shared_limit = f"slack:{target_of(f'{api_url} {token().reveal()}')}"  # by method, app and workspace
        self.rules = rules or NoiseRules()
        self.public_url = public_url
        self._token = token
        self._channel = channel
        self._api_url = api_url.rstrip("/")
        self._secrets = secrets or KnownSecrets((token().reveal(),))
        self._is_public = must_be_public(api_url, allow_private)

    def post(self, message: Message, *, plain: bool = False) -> HttpRequest:
        """``chat.postMessage``."""
        return self._request("chat.postMessage", {"channel": self._channel, **payload(message, plain=plain)})

    def reply(self, message: Message, root_id: str, *, plain: bool = False) -> HttpRequest:
        """``chat.postMessage`` into the thread below a message; what is for everybody stands in the channel, too."""
        channel, _, ts = root_id.partition(":")
        place = {"channel": channel, "thread_ts": ts, "reply_broadcast": message.is_for_everybody}
        return self._request("chat.postMessage", {**place, **payload(message, plain=plain)})

    def edit(self, message: Message, message_id: str, *, plain: bool = False) -> HttpRequest:
        """``chat.update``; the blocks that are there go when the new text has none."""
        channel, _, ts = message_id.partition(":")
        shown = {"blocks": [], **payload(message, plain=plain)}
        for name in ("unfurl_links", "unfurl_media", "mrkdwn"):  # of a post only
            shown.pop(name, None)
        return self._request("chat.update", {"channel": channel, "ts": ts, **shown})

    def probe(self) -> HttpRequest:
        """``auth.test``: whose token it is, which shows nobody anything."""
        return self._request("auth.test", {})

    def told(self, outcome: HttpOutcome, now_us: int, *, is_edit: bool = False) -> Told:
        """By ``ok`` and ``error``: the status is 200 whatever happened, but for a 429."""
        if isinstance(outcome, NoReply):
            return silent(outcome, is_edit=is_edit)
        document = json_object(outcome.body) or {}
        error = document.get("error")
        reason = said(outcome, error, self._secrets.redact_text)
        if outcome.status == 200 and document.get("ok") is True:
            return Told(Verdict(Action.SETTLE, "accepted"), _message_id(document), rest_s=ONE_A_SECOND)
        wait_s = retry_after_s(outcome.headers.get("retry-after"), now_us)
        if outcome.status == 429 or error in ("ratelimited", "rate_limited"):
            return Told(Verdict(Action.BACK_OFF, reason, max(wait_s, ONE_A_SECOND)), is_for_all=True)
        if outcome.status == 200 and isinstance(error, str):
            return _classed(error, reason, is_edit=is_edit)
        if outcome.status in (401, 403):
            return Told(Verdict(Action.PAUSE, f"{reason}: {_TOKEN_CURE}"))
        if 300 <= outcome.status < 500 and outcome.status not in (408, 425):
            return Told(Verdict(Action.PAUSE, reason))
        return in_trouble(reason, wait_s, may_have_arrived=outcome.status in GATEWAY_TIMEOUTS, is_edit=is_edit)

    def _request(self, method: str, payload: Mapping[str, Any]) -> HttpRequest:
        token = self._token().reveal()
        self._secrets.learn(token)
        headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json; charset=utf-8",
            "Accept": "application/json",
        }
        return HttpRequest("POST", f"{self._api_url}/{method}", headers, as_json(dict(payload)), self._is_public)


def _classed(error: str, reason: str, *, is_edit: bool) -> Told:
    if error in _GONE.split() and is_edit:
        return Told(Verdict(Action.BACK_OFF, reason), remedy=Remedy.POST_ANEW)
    if error in _NO_THREAD.split():
        return Told(Verdict(Action.BISECT, reason), remedy=Remedy.DEPART)
    if error in _LATER.split():
        return in_trouble(reason, 0.0, may_have_arrived=error == "request_timeout", is_edit=is_edit)
    action, cure = _BY_ERROR.get(error, (Action.BISECT, ""))
    remedy = Remedy.PLAINER if action is Action.BISECT else Remedy.NONE
    return Told(Verdict(action, f"{reason}: {cure}" if cure else reason), remedy=remedy)


def _message_id(document: Mapping[str, Any]) -> str:
    """Channel and time stamp, by which Slack knows a message; empty when they are none."""
    id_ = f"{document.get('channel')}:{document.get('ts')}"
    return id_ if _MESSAGE.fullmatch(id_) else ""
