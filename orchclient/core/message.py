"""A message as people read it: one value that every dialect renders, in plain text. Pure.

Texts are clean (``core.texts``) but not escaped: what a service would take for markup, its dialect neutralises. Nothing
here ever mentions anybody. What an event becomes: ``core.event_message``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from urllib.parse import quote, urlsplit

from attrs import evolve, frozen

from orchclient.core.events import NotificationPriority
from orchclient.core.texts import counted, fitted

PREFIX = "dev.orchclient."
DIGESTED = 20
OPENED = 5


class Kind(StrEnum):
    """What a message is about."""

    STATUS = "status"
    QUESTION = "question"
    WITHDRAWN = "withdrawn"
    ANSWERED = "answered"
    COMPLETION = "completion"
    ERROR = "error"
    RESOLVED = "resolved"
    REMINDER = "reminder"
    GAP = "gap"
    DIGEST = "digest"
    TEST = "test"


@frozen
class Look:
    """How urgent a message looks, where the service has colours and emoji."""

    colour: int
    emoji: str


LOOKS: Mapping[str, Look] = {
    NotificationPriority.LOW: Look(0x6B7280, "⚪"),
    NotificationPriority.MEDIUM: Look(0x2563EB, "🔵"),
    NotificationPriority.HIGH: Look(0xEA580C, "🟠"),
    NotificationPriority.CRITICAL: Look(0xDC2626, "🔴"),
}
EMOJI: Mapping[Kind, str] = {
    Kind.STATUS: "🔧",
    Kind.QUESTION: "❓",
    Kind.WITHDRAWN: "↩️",
    Kind.ANSWERED: "💬",
    Kind.COMPLETION: "✅",
    Kind.ERROR: "🚨",
    Kind.RESOLVED: "🟢",
    Kind.REMINDER: "⏰",
    Kind.GAP: "🕳️",
    Kind.DIGEST: "📰",
    Kind.TEST: "🧪",
}
PRIORITIES = tuple(NotificationPriority)


@frozen
class Fact:
    """A name and a short value."""

    name: str
    value: str


@frozen
class Link:
    """A label of ours and an http(s) address that is safe to put into markup (``web_address``)."""

    label: str
    url: str


@frozen
class Message:
    """What one person reads. ``title`` is one line; ``lines`` may hold several each; ``footer`` names the event."""

    kind: Kind
    priority: NotificationPriority
    title: str
    lines: tuple[str, ...] = ()
    facts: tuple[Fact, ...] = ()
    links: tuple[Link, ...] = ()
    footer: str = ""
    time: str = ""  # RFC 3339, when the event was recorded
    event_id: str = ""
    task_id: str = ""
    about: str = ""  # the question or the first error that it is about; its own event when empty
    asks: bool = False  # somebody is to act
    is_repeat: bool = False  # it may have been told before

    @property
    def is_for_everybody(self) -> bool:
        """Whether it is to be seen where everybody looks, not only by those who follow the task's thread."""
        return self.asks or self.priority in (NotificationPriority.HIGH, NotificationPriority.CRITICAL)

    @property
    def emoji(self) -> str:
        """The kind's, behind the priority's when it is urgent: not every screen shows colours."""
        is_urgent = self.priority in (NotificationPriority.HIGH, NotificationPriority.CRITICAL)
        return f"{LOOKS[self.priority].emoji} {EMOJI[self.kind]}" if is_urgent else EMOJI[self.kind]

    @property
    def colour(self) -> int:
        """24 bits of RGB."""
        return LOOKS[self.priority].colour

    @property
    def is_silent(self) -> bool:
        """Whether nobody's device needs to sound: news that asks for nothing."""
        return self.priority is NotificationPriority.LOW

    @property
    def headline(self) -> str:
        """The first line, with its emoji."""
        repeat = "(possible repeat) " if self.is_repeat else ""
        return f"{self.emoji} {repeat}{self.title}"


def possibly_repeated(message: Message) -> Message:
    """The same message, marked as one that may have been told before."""
    return evolve(message, is_repeat=True)


def digest(messages: Sequence[Message], left_out: int = 0) -> Message:
    """One message for those that were held back while it was quiet: first what asks somebody to act."""
    ordered = sorted(messages, key=lambda each: not each.asks)
    more = max(len(ordered) - DIGESTED, 0) + left_out
    shown = ordered[:DIGESTED]
    lines = [f"{number}. {each.emoji} {fitted(each.title, 160)}" for number, each in enumerate(shown, 1)]
    linked = [(number, each.links[0].url) for number, each in enumerate(shown, 1) if each.links]
    asking = sum(each.asks for each in messages)
    needed = f", {asking:,} to act on" if asking else ""
    return Message(
        Kind.DIGEST,
        max((each.priority for each in messages), key=PRIORITIES.index, default=NotificationPriority.LOW),
        f"While it was quiet: {counted(len(messages) + left_out, 'message')}{needed}",
        (*lines, *([f"… and {counted(more, 'more message')}"] if more else [])),
        links=tuple(Link(f"Open {number}", url) for number, url in linked[:OPENED]),
        footer="orchclient",
        asks=asking > 0,
    )


def trial() -> Message:
    """The harmless message by which an operator sees that a destination works."""
    return Message(
        Kind.TEST,
        NotificationPriority.LOW,
        "orchclient: a test message",
        ("This destination works. Nothing is asked of you.",),
        footer="orchclient doctor --send-test",
    )


def web_address(text: str) -> str:
    """``text`` as an http(s) address without a character that markup could end at; empty for anything else."""
    try:
        parts = urlsplit(text)
        host, _port = parts.hostname, parts.port
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not host or parts.username is not None or not text.isascii():
        return ""
    address = quote(text, safe="/:?#@!$&'*+,;=%~._-")
    return address if len(address) <= 1_024 else ""
