"""The dialect of a webhook of another service: each message in the body that its template makes. Nothing can be edited.

What the services answer: any 2xx is an acceptance (Teams says 202 before its workflow has run), a 4xx refuses the body
or the destination, everything else is an outage.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

from orchclient.core.http import HttpOutcome, HttpRequest, NoReply
from orchclient.core.message import PREFIX, Message
from orchclient.core.noise import NoiseRules
from orchclient.core.policy import Action, Verdict, action_for, retry_after_s
from orchclient.core.secret import KnownSecrets, Secret
from orchclient.core.telling import Remedy, Told
from orchclient.sinks.address import must_be_public, target_of
from orchclient.sinks.chat import GATEWAY_TIMEOUTS, Chat, as_json, in_trouble, said, silent
from orchclient.sinks.templates.template import Given, Template

ONE_A_SECOND = 1.0  # slower than any of them allows


class TemplatedSink(Chat):
    """Posts to one URL what a template makes of messages. ``types`` are without their prefix; none: all."""

    kind = "webhook"
    holds = "its URL and its token"
    can_edit = False
    shortest_edit_s = 300.0

    def __init__(
        self,
        url: Secret,
        template: Template,
        *,
        token: Callable[[], Secret] | None = None,
        types: Collection[str] = (),
        name: str = "webhook",
        public_url: str = "",
        rules: NoiseRules | None = None,
        secrets: KnownSecrets | None = None,
        allow_private: bool = False,
    ) -> None:
        self.name = name
        self.target = target_of(url.reveal())
        self._post_to = Secret(template.post_to(url.reveal()))
        self._path = urlsplit(url.reveal()).path.strip("/")
        self._template = template
        self._token = token
        self._types = frozenset(type_.removeprefix(PREFIX) for type_ in types) or template.types
        self._secrets = secrets or KnownSecrets((url.reveal(), *([token().reveal()] if token else [])))
        self.rules = rules or NoiseRules()
        self.public_url = public_url
        self._is_public = must_be_public(url.reveal(), allow_private)

    def takes(self, attributes: Mapping[str, Any]) -> bool:
        """Only types that were asked for, and that mean something to the service."""
        return not self._types or str(attributes.get("type")).removeprefix(PREFIX) in self._types

    def post(self, message: Message, *, plain: bool = False) -> HttpRequest:
        """``POST`` of the template's body."""
        token = self._token().reveal() if self._token else ""
        headers = {"Content-Type": "application/json", "Accept": "*/*"}
        if token:
            self._secrets.learn(token)
        if token and self._template.has_bearer:
            headers["Authorization"] = f"Bearer {token}"
        made = self._template.plain if plain else self._template.body
        body = as_json(made(message, Given(token, self._path)))
        return HttpRequest("POST", self._post_to.reveal(), headers, body, self._is_public)

    def edit(self, message: Message, message_id: str, *, plain: bool = False) -> HttpRequest:
        """A webhook cannot edit."""
        raise NotImplementedError("a message of a webhook cannot be edited")

    def told(self, outcome: HttpOutcome, now_us: int, *, is_edit: bool = False) -> Told:
        """By the status, as for every destination; what refuses this body is tried once more as plain text."""
        is_repeatable = is_edit or self._template.is_idempotent
        if isinstance(outcome, NoReply):
            return silent(outcome, is_edit=is_repeatable)
        reason = said(outcome, outcome.body[:200].decode("utf-8", "replace"), self._secrets.redact_text)
        action = action_for(outcome.status)
        if action is Action.SETTLE:
            return Told(Verdict(action, "accepted"), rest_s=ONE_A_SECOND)
        if action is Action.BACK_OFF:
            wait_s = retry_after_s(outcome.headers.get("retry-after"), now_us)
            floor_s = max(wait_s, ONE_A_SECOND) if outcome.status == 429 else wait_s
            is_lost = outcome.status in GATEWAY_TIMEOUTS
            return in_trouble(reason, floor_s, may_have_arrived=is_lost, is_edit=is_repeatable)
        if action in (Action.BISECT, Action.HALVE):
            return Told(Verdict(Action.BISECT, reason), remedy=Remedy.PLAINER)
        return Told(Verdict(action, reason))
