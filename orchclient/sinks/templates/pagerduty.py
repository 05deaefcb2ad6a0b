"""PagerDuty: a question or an error triggers an alert, its end resolves the same one.

Documents: developer.pagerduty.com, "Events API v2": summary 1,024 characters, dedup_key 255; events with one key are
one alert, so that nothing is lost by repeating. Not tried against the real service.
"""

from __future__ import annotations

from typing import Final

from orchclient.core.events import EventType, NotificationPriority
from orchclient.core.message import Kind, Message
from orchclient.core.texts import fitted, line
from orchclient.sinks.templates.rows import lines_of
from orchclient.sinks.templates.template import Body, Given, Template

TEXT: Final = 4_000
SOURCE: Final = 250
LINKS_SHOWN: Final = 5
SUMMARY: Final = 1_024
DEDUP_KEY: Final = 255
_SEVERITIES: Final = {
    NotificationPriority.LOW: "info",
    NotificationPriority.MEDIUM: "warning",
    NotificationPriority.HIGH: "error",
    NotificationPriority.CRITICAL: "critical",
}
_OVER: Final = frozenset({Kind.ANSWERED, Kind.WITHDRAWN, Kind.RESOLVED, Kind.TEST})
_PAGED: Final = frozenset(
    {
        EventType.CLARIFICATION_REQUESTED,
        EventType.CLARIFICATION_WITHDRAWN,
        EventType.CLARIFICATION_CONSUMED,
        EventType.ERROR_ESCALATED,
        EventType.ERROR_RESOLVED,
        EventType.REMINDER,
    }
)


def pagerduty(message: Message, given: Given) -> Body:
    """An alert event of the Events API v2: a question or an error triggers an alert, its end resolves the same one.

    A test message resolves an alert that never was: nobody is called.
    """
    key = message.about or message.event_id or f"orchclient-{message.kind}"
    body: Body = {"routing_key": given.token, "dedup_key": fitted(line(key), DEDUP_KEY) or "orchclient"}
    if message.kind in _OVER:
        return {**body, "event_action": "resolve"}
    details: Body = {fact.name: fact.value for fact in message.facts}
    payload = {
        "summary": fitted(message.headline, SUMMARY),
        "source": fitted(line(message.task_id), SOURCE) or "orchclient",
        "severity": _SEVERITIES[message.priority],
        "component": "orchclient",
        "custom_details": {**details, "text": lines_of(message, TEXT)},
        **({"timestamp": message.time} if message.time else {}),
    }
    links = [{"href": link.url, "text": link.label} for link in message.links[:LINKS_SHOWN]]
    return {**body, "event_action": "trigger", "client": "orchclient", "payload": payload, "links": links}


def _plain(message: Message, given: Given) -> Body:
    body = pagerduty(message, given)
    if "payload" in body:
        kept = ("summary", "source", "severity")
        body = {**body, "payload": {name: body["payload"][name] for name in kept}, "links": []}
    return body


PAGERDUTY: Final = Template(
    pagerduty,
    _plain,
    needs="the integration key (Events API v2)",
    default_url="https://events.pagerduty.com/v2/enqueue",
    types=_PAGED,
    is_idempotent=True,
)
