"""A body of the user's own, as a table of the settings: texts that name a value become that value, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, Final

from orchclient.core.errors import ConfigError
from orchclient.core.events import NotificationPriority
from orchclient.core.message import Kind, Message
from orchclient.core.plain_message import plain_text
from orchclient.core.texts import fitted, line
from orchclient.sinks.templates.rows import rows_of
from orchclient.sinks.templates.template import NOTHING, Body, Given, Template

TEXT: Final = 4_000
FIRST_LINE: Final = 500


def _values(message: Message) -> dict[str, Any]:
    """What a user's own body may name, each a JSON value."""
    return {
        "$headline": fitted(message.headline, FIRST_LINE),
        "$title": fitted(message.title, FIRST_LINE),
        "$text": fitted(plain_text(message), TEXT),
        "$lines": rows_of(message, TEXT),
        "$facts": {fact.name: fact.value for fact in message.facts},
        "$links": [{"label": link.label, "url": link.url} for link in message.links],
        "$link": message.links[0].url if message.links else None,
        "$kind": message.kind.value,
        "$priority": message.priority.value,
        "$emoji": message.emoji,
        "$colour": f"#{message.colour:06X}",
        "$asks": message.asks,
        "$task": fitted(line(message.task_id), FIRST_LINE),
        "$event": message.event_id,
        "$about": message.about or message.event_id,
        "$time": message.time or None,
    }


KNOWN: Final = tuple(_values(Message(Kind.TEST, NotificationPriority.LOW, "")))


def own(body: object) -> Template:
    """A body of the user's: a text that is ``$headline`` and so on becomes that value, all else stays as it is.

    ``$$`` at the beginning of a text is one ``$``. Raises ``ConfigError`` for a name that there is none of.
    """
    if not isinstance(body, Mapping) or not body:
        raise ConfigError('body is not usable: expected a table, such as body = {text = "$headline"}')
    _filled(body, dict.fromkeys(KNOWN))

    def made(message: Message, given: Given = NOTHING) -> Body:
        filled: Body = _filled(body, _values(message))
        return filled

    return Template(made, made, has_bearer=True)


def _filled(value: object, values: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _filled(inner, values) for name, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, values) for inner in value]
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and isfinite(value)):
        return value
    if not isinstance(value, str):
        raise ConfigError(f"body has a value ({value!s:.40}) that JSON does not know: write it as a text")
    if not value.startswith("$"):
        return value
    if value.startswith("$$"):
        return value[1:]
    if value not in values:
        raise ConfigError(f"body names {value:.40}, which is none of {', '.join(values)}; a text of $ begins with $$")
    return values[value]
