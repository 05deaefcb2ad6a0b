"""Microsoft Teams: an Adaptive Card to a workflow ("When a Teams webhook request is received").

Documents: learn.microsoft.com, "Create incoming webhooks with Workflows" (a message has about 28 KB), and
adaptivecards.io: the text of a TextRun is no Markdown, that of a TextBlock and of a Fact is, so neither is used. Nobody
is mentioned without an entity. Not tried against the real service.
"""

from __future__ import annotations

from typing import Any, Final

from orchclient.core.events import NotificationPriority
from orchclient.core.message import Message
from orchclient.core.plain_message import plain_text
from orchclient.core.texts import fitted
from orchclient.sinks.templates.rows import end_of, rows_of
from orchclient.sinks.templates.template import NOTHING, Body, Given, Template

ALL_TEXTS: Final = 6_000
"""Characters of all lines: with three bytes each and the rest of a card below 28 KB."""

TITLE: Final = 250
LINKS_SHOWN: Final = 5
BLOCKS_SHOWN: Final = 40
_STYLES: Final = {
    NotificationPriority.LOW: "default",
    NotificationPriority.MEDIUM: "accent",
    NotificationPriority.HIGH: "warning",
    NotificationPriority.CRITICAL: "attention",
}


def teams(message: Message, given: Given = NOTHING) -> Body:
    """An Adaptive Card in the envelope that a workflow takes ("When a Teams webhook request is received")."""
    title = _run(fitted(message.headline, TITLE), weight="Bolder", size="Medium")
    head = {"type": "Container", "style": _STYLES[message.priority], "bleed": True, "items": [_rich([title])]}
    rows = [_rich([_run(text)], first=number == 0) for number, text in enumerate(rows_of(message, ALL_TEXTS))]
    facts = [_rich([_run(f"{fact.name}: ", weight="Bolder"), _run(fact.value)]) for fact in message.facts]
    footer = _rich([_run(fitted(" · ".join(end_of(message)), TITLE), size="Small", isSubtle=True)])
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "fallbackText": fitted(message.headline, TITLE),
        "body": [head, *[*rows, *facts][:BLOCKS_SHOWN], footer],
        "actions": [
            {"type": "Action.OpenUrl", "title": link.label, "url": link.url} for link in message.links[:LINKS_SHOWN]
        ],
    }
    return _envelope(card)


def _plain(message: Message, given: Given = NOTHING) -> Body:
    text = fitted(plain_text(message), 1_000)
    card = {"type": "AdaptiveCard", "version": "1.2", "body": [_rich([_run(text)])]}
    return _envelope(card)


def _envelope(card: Body) -> Body:
    kind = "application/vnd.microsoft.card.adaptive"
    return {"type": "message", "attachments": [{"contentType": kind, "contentUrl": None, "content": card}]}


def _rich(runs: list[Body], *, first: bool = False) -> Body:
    return {"type": "RichTextBlock", "inlines": runs, **({"spacing": "Medium"} if first else {})}


def _run(text: str, **look: Any) -> Body:
    return {"type": "TextRun", "text": text or "-", **look}


TEAMS: Final = Template(teams, _plain)
