"""What the dialects of chat services have in common: what they take, silence, trouble, and the words for them."""

from __future__ import annotations

import json
from typing import Any

from orchclient.core.batching import BatchLimit
from orchclient.core.http import HttpOutcome, HttpReply, HttpRequest, NoReply
from orchclient.core.policy import Action, Verdict, printable
from orchclient.core.secret import Redact
from orchclient.core.telling import Remedy, Told
from orchclient.sinks.secretive import Secretive


class Chat(Secretive):
    """A chat begins now, and looks for no missing sequence."""

    from_beginning = False
    checks_sequence = False
    shared_limit = ""

    def limit(self) -> BatchLimit:
        """As many as there are: what is posted is planned from them."""
        return BatchLimit()

    def probe(self) -> HttpRequest | None:
        """Nothing is known that could be asked without showing it to people."""
        return None

    def told(self, outcome: HttpOutcome, now_us: int, *, is_edit: bool = False) -> Told:
        """What the answer means."""
        raise NotImplementedError

    def probed(self, outcome: HttpOutcome, now_us: int) -> Told:
        """Whatever is no refusal of the destination: it answers, and a message that it refuses costs nothing."""
        told = self.told(outcome, now_us, is_edit=True)
        is_alive = isinstance(outcome, HttpReply) and outcome.status not in (429, *GATEWAY_TIMEOUTS)
        if is_alive and told.verdict.action not in (Action.PAUSE, Action.DISABLE):
            return Told(Verdict(Action.SETTLE, "it answers"))
        return told


GATEWAY_TIMEOUTS = frozenset({504, 524})
"""Somebody on the way waited in vain: what the service did is unknown. Any other 5xx says that it did nothing."""

NOTHING_WAS_SENT = frozenset({"connect", "tls", "request", "settings"})


def silent(outcome: NoReply, *, is_edit: bool) -> Told:
    """No answer: an edit can be repeated, a post whose request may have arrived is ambiguous."""
    action = Action.PAUSE if outcome.reason == "request" else Action.BACK_OFF
    verdict = Verdict(action, f"{outcome.reason}: {outcome.detail}".rstrip(": "))
    is_unsent = outcome.is_unsent or outcome.reason in NOTHING_WAS_SENT
    return Told(verdict, remedy=_doubt(not is_unsent, is_edit))


def in_trouble(reason: str, retry_after_s: float, *, may_have_arrived: bool, is_edit: bool) -> Told:
    """The service is in trouble and comes back by itself."""
    return Told(Verdict(Action.BACK_OFF, reason, retry_after_s), remedy=_doubt(may_have_arrived, is_edit))


def _doubt(may_have_arrived: bool, is_edit: bool) -> Remedy:
    return Remedy.IT_MAY_HAVE_ARRIVED if may_have_arrived and not is_edit else Remedy.NONE


def said(reply: HttpReply, text: object, redact: Redact) -> str:
    """The status and what the service says, as one printable line without secrets."""
    words = printable(redact(text)) if isinstance(text, str) else ""
    return f"HTTP {reply.status} {words}".rstrip()


def as_json(payload: dict[str, Any]) -> bytes:
    """A payload in UTF-8."""
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def json_object(body: bytes) -> dict[str, Any] | None:
    """An answer that is a JSON object; None for anything else."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
