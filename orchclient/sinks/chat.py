"""What a chat service must be able to do: show a message, change one that it shows, and tell what it thought of it.

A chat destination gets no events: a desk plans messages out of them, and this puts them into the service's words.
"""

from __future__ import annotations

import json
from typing import Any, Protocol, TypeGuard

from orchclient.core.http import HttpOutcome, HttpReply, HttpRequest, NoReply
from orchclient.core.message import Message
from orchclient.core.policy import Action, Redact, Verdict, printable
from orchclient.core.telling import Remedy, Told
from orchclient.sinks.sink import Destination

NOTHING_WAS_SENT = frozenset({"connect", "tls", "request", "settings"})


class ChatSink(Destination, Protocol):
    """A dialect of messages. The flusher owns the connection and the deadline."""

    can_edit: bool
    """Whether a message that was posted can be changed later."""

    shortest_edit_s: float
    """Seconds between two changes of one message, or between two messages of one task where none can be changed."""

    def post(self, message: Message, *, plain: bool = False) -> HttpRequest:
        """The request that shows a message; ``plain``: as simply as possible, since the rich form was refused."""

    def edit(self, message: Message, message_id: str, *, plain: bool = False) -> HttpRequest:
        """The request that puts a message in the place of one that was posted."""

    def told(self, outcome: HttpOutcome, now_us: int, *, is_edit: bool = False) -> Told:
        """What the answer means."""


def is_chat(sink: object) -> TypeGuard[ChatSink]:
    """Whether a destination is told messages instead of events."""
    return hasattr(sink, "told")


def silent(outcome: NoReply, *, is_edit: bool) -> Told:
    """No answer: an edit can be repeated, a post whose request may have arrived is ambiguous."""
    action = Action.PAUSE if outcome.reason == "request" else Action.BACK_OFF
    verdict = Verdict(action, f"{outcome.reason}: {outcome.detail}".rstrip(": "))
    return Told(verdict, remedy=_doubt(outcome.reason not in NOTHING_WAS_SENT, is_edit))


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
