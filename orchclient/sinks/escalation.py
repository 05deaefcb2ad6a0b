"""A destination named for escalation: it gets reminders that two earlier ones led to nothing, and nothing else.

People who were called that way are told when it is over: a chat tells an end only where it told the beginning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from orchclient.core.events import EventType
from orchclient.core.message import PREFIX
from orchclient.sinks.sink import AnySink, is_chat

_OVER = frozenset({EventType.CLARIFICATION_WITHDRAWN, EventType.CLARIFICATION_CONSUMED, EventType.ERROR_RESOLVED})


class _OnlyEscalated:
    """Another destination in all but what it takes."""

    checks_sequence = False

    def __init__(self, sink: AnySink) -> None:
        self._sink = sink

    def __repr__(self) -> str:
        return f"only_escalated({self._sink!r})"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)

    def takes(self, attributes: Mapping[str, Any]) -> bool:
        """Whether an event is an escalated reminder, or for people the end of what they were reminded of."""
        is_over = str(attributes.get("type")).removeprefix(PREFIX) in _OVER
        return attributes.get("escalated") is True or (is_over and is_chat(self._sink))


def only_escalated(sink: AnySink) -> AnySink:
    """A destination that gets escalated reminders only: what is critical, and nobody did anything about.

    They tell what they are about, so that whoever is called can act.
    """
    return cast(AnySink, _OnlyEscalated(sink))
