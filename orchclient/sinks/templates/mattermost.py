"""Mattermost: the first line as text, the rest as an attachment with the priority's colour.

Documents: docs.mattermost.com, "Incoming webhooks" and "Message attachments". Names behind an @ are notified wherever
they stand, also ``@all``: the character is replaced by one that looks alike. Not tried against the real service.
"""

from __future__ import annotations

import re
from typing import Final

from orchclient.core.message import Message
from orchclient.core.plain_message import plain_text
from orchclient.core.texts import fitted
from orchclient.sinks.templates.rows import end_of, lines_of
from orchclient.sinks.templates.template import NOTHING, Body, Given, Template

TITLE: Final = 250
FIRST_LINE: Final = 500
LINKS_SHOWN: Final = 5
_MARKUP = re.compile(r"([\\`*_~\[\]<>#|])")
TEXT: Final = 2_500
FIELD: Final = 300


def _quiet(text: str) -> str:
    """Text without markup, and with another @: Mattermost would notify whoever is named, and ``@all``."""
    return _MARKUP.sub(r"\\\1", text).replace("@", "\uff20")


def mattermost(message: Message, given: Given = NOTHING) -> Body:
    """The first line as text, the rest as an attachment with the priority's colour."""
    links = " · ".join(f"[{link.label}]({link.url})" for link in message.links[:LINKS_SHOWN])
    text = "\n\n".join(part for part in (lines_of(message, TEXT, _quiet), links) if part)
    fields = [
        {
            "title": fitted(fact.name, 100, _quiet),
            "value": fitted(fact.value, FIELD, _quiet) or "-",
            "short": len(fact.value) <= 40,
        }
        for fact in message.facts
    ]
    attachment = {
        "fallback": fitted(message.headline, TITLE, _quiet),
        "color": f"#{message.colour:06X}",
        "text": text,
        "fields": fields,
        "footer": fitted(" · ".join(end_of(message)), TITLE, _quiet),
    }
    return {"text": fitted(message.headline, FIRST_LINE, _quiet), "attachments": [attachment]}


def _plain(message: Message, given: Given = NOTHING) -> Body:
    return {"text": fitted(plain_text(message), TEXT, _quiet)}


MATTERMOST: Final = Template(mattermost, _plain)
