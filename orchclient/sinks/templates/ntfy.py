"""ntfy: a push message with buttons. Its URL names the topic, as people know it: https://ntfy.sh/my-secret-topic.

Documents: docs.ntfy.sh, "Publish as JSON" (posted to the root, the topic stands in the body), "Limitations" (a longer
message than 4,096 bytes becomes a file), "Action buttons" (three). Not tried against the real service.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from orchclient.core.errors import ConfigError
from orchclient.core.events import NotificationPriority
from orchclient.core.message import Message
from orchclient.core.plain_message import plain_text
from orchclient.core.texts import fitted
from orchclient.sinks.templates.rows import end_of, lines_of
from orchclient.sinks.templates.template import Body, Given, Template

TITLE: Final = 250
TEXT: Final = 4_000
BYTES: Final = 4_000
BUTTONS: Final = 3
_TOPIC = re.compile(r"[-_A-Za-z0-9]{1,64}", re.ASCII)
_PRIORITIES: Final = {
    NotificationPriority.LOW: 2,
    NotificationPriority.MEDIUM: 3,
    NotificationPriority.HIGH: 4,
    NotificationPriority.CRITICAL: 5,
}


def _root(url: str) -> str:
    """A topic's address without the topic, which stands in the body. Raises ``ConfigError`` for one without a topic."""
    parts = urlsplit(url)
    if not _TOPIC.fullmatch(parts.path.strip("/")):
        raise ConfigError("the URL of template ntfy ends with a topic, such as https://ntfy.sh/my-secret-topic")
    return urlunsplit((parts.scheme, parts.netloc, "/", parts.query, ""))


def ntfy(message: Message, given: Given) -> Body:
    """A push message: the first line as its title, links as its buttons, the priority as ntfy's own."""
    facts = "\n".join(f"{fact.name}: {fact.value}" for fact in message.facts)
    text = "\n\n".join(part for part in (lines_of(message, TEXT), facts, " · ".join(end_of(message))) if part)
    body: Body = {**_plain(message, given), "message": _in_bytes(text, BYTES)}
    if message.links:
        body["click"] = message.links[0].url
        body["actions"] = [{"action": "view", "label": link.label, "url": link.url} for link in message.links[:BUTTONS]]
    return body


def _plain(message: Message, given: Given) -> Body:
    return {
        "topic": given.path,
        "title": fitted(message.headline, TITLE),
        "message": _in_bytes(plain_text(message), 1_000),
        "priority": _PRIORITIES[message.priority],
    }


def _in_bytes(text: str, most: int) -> str:
    """Text in so many bytes of UTF-8."""
    room = most
    while len((shown := fitted(text, room)).encode("utf-8", "replace")) > most:
        room = room * 3 // 4
    return shown


NTFY: Final = Template(ntfy, _plain, _root, has_bearer=True)
