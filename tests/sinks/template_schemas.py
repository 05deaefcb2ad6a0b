"""What the services of the templates take, as JSON Schemas written from their documents, and what a schema cannot say.

Teams: learn.microsoft.com ("Create incoming webhooks with Workflows") and the Adaptive Cards schema explorer, narrowed
to elements whose text is no Markdown. Mattermost: "Incoming webhooks", "Message attachments". ntfy: "Publish as JSON".
PagerDuty: "Send an alert event" (Events API v2).
"""

from __future__ import annotations

import json
import re
from typing import Any

from jsonschema import Draft202012Validator

from tests.sinks.payload_schemas import WEB, _object, _text, _unseen, texts

_RUN = _object(
    ["type", "text"],
    type={"const": "TextRun"},
    text={"type": "string", "minLength": 1},
    weight={"enum": ["Bolder"]},
    size={"enum": ["Small", "Medium"]},
    isSubtle={"type": "boolean"},
)
_RICH = _object(
    ["type", "inlines"],
    type={"const": "RichTextBlock"},
    inlines={"type": "array", "minItems": 1, "items": _RUN},
    spacing={"enum": ["Medium"]},
)
_CONTAINER = _object(
    ["type", "items"],
    type={"const": "Container"},
    style={"enum": ["default", "accent", "warning", "attention"]},
    bleed={"type": "boolean"},
    items={"type": "array", "items": _RICH},
)
_OPEN = _object(["type", "title", "url"], type={"const": "Action.OpenUrl"}, title=_text(100), url=WEB)
_CARD = _object(
    ["type", "version", "body"],
    type={"const": "AdaptiveCard"},
    version={"enum": ["1.2", "1.4"]},
    fallbackText=_text(250),
    body={"type": "array", "minItems": 1, "items": {"oneOf": [_RICH, _CONTAINER]}},
    actions={"type": "array", "maxItems": 6, "items": _OPEN},
)
_CARD["properties"]["$schema"] = {"const": "http://adaptivecards.io/schemas/adaptive-card.json"}
TEAMS = _object(
    ["type", "attachments"],
    type={"const": "message"},
    attachments={
        "type": "array",
        "minItems": 1,
        "maxItems": 1,
        "items": _object(
            ["contentType", "content"],
            contentType={"const": "application/vnd.microsoft.card.adaptive"},
            contentUrl={"type": "null"},
            content=_CARD,
        ),
    },
)
MATTERMOST = _object(
    ["text"],
    text=_text(4000),
    attachments={
        "type": "array",
        "items": _object(
            ["fallback"],
            fallback=_text(1000),
            color={"type": "string", "pattern": "^#[0-9A-F]{6}$"},
            text={"type": "string", "maxLength": 8000},
            fields={
                "type": "array",
                "items": _object(
                    ["title", "value", "short"], title=_text(1000), value=_text(1000), short={"type": "boolean"}
                ),
            },
            footer={"type": "string", "maxLength": 1000},
        ),
    },
)
NTFY = _object(
    ["topic", "message"],
    topic={"type": "string", "pattern": "^[-_A-Za-z0-9]{1,64}$"},
    title=_text(250),
    message={"type": "string"},
    priority={"enum": [1, 2, 3, 4, 5]},
    click=WEB,
    actions={
        "type": "array",
        "maxItems": 3,
        "items": _object(["action", "label", "url"], action={"const": "view"}, label=_text(100), url=WEB),
    },
)
_LINKS = {"type": "array", "items": _object(["href"], href=WEB, text=_text(100))}
_KEYS = {"routing_key": _text(64), "dedup_key": _text(255)}
PAGERDUTY = {
    "oneOf": [
        _object(["routing_key", "event_action", "dedup_key"], event_action={"const": "resolve"}, **_KEYS),
        _object(
            ["routing_key", "event_action", "payload"],
            event_action={"const": "trigger"},
            client=_text(100),
            links=_LINKS,
            payload=_object(
                ["summary", "source", "severity"],
                summary=_text(1024),
                source=_text(255),
                severity={"enum": ["critical", "error", "warning", "info"]},
                timestamp={"type": "string", "pattern": "^\\d{4}-\\d\\d-\\d\\dT"},
                component=_text(100),
                custom_details={"type": "object"},
            ),
            **_KEYS,
        ),
    ]
}
SCHEMAS: dict[str, Any] = {"teams": TEAMS, "mattermost": MATTERMOST, "ntfy": NTFY, "pagerduty": PAGERDUTY}
_VALIDATORS = {name: Draft202012Validator(schema) for name, schema in SCHEMAS.items()}
TEAMS_BYTES = 28_000
MATTERMOST_CHARS = 16_383
NTFY_BYTES = 4_096
PAGERDUTY_BYTES = 512_000
_OUR_LINK = re.compile(r"\[[A-Za-z0-9 ]+\]\(https?://[^\s()<>]*\)")
_MATTERMOST_MARKUP = re.compile(r"(?<!\\)(?:\\\\)*[`*_~\[\]<>#|]")


def complaints(name: str, body: bytes) -> list[str]:
    """Everything that a service would refuse in a body, or take for more than text."""
    payload = json.loads(body)
    found = [error.message[:200] for error in _VALIDATORS[name].iter_errors(payload)]
    return found + _unseen(payload) + _BEYOND[name](payload, body)


def _teams(payload: Any, body: bytes) -> list[str]:
    return [f"{len(body)} bytes"] * (len(body) > TEAMS_BYTES)


def _mattermost(payload: Any, body: bytes) -> list[str]:
    shown = [text for text in texts(payload) if not text.startswith("#")]
    found = ["could notify somebody"] * any("@" in _OUR_LINK.sub("", text) for text in shown)
    found += ["markup"] * any(_MATTERMOST_MARKUP.search(_OUR_LINK.sub("", text)) for text in shown)
    return found + ["too long"] * (sum(map(len, shown)) > MATTERMOST_CHARS)


def _ntfy(payload: Any, body: bytes) -> list[str]:
    return ["would become a file"] * (len(str(payload.get("message")).encode()) > NTFY_BYTES)


def _pagerduty(payload: Any, body: bytes) -> list[str]:
    return [f"{len(body)} bytes"] * (len(body) > PAGERDUTY_BYTES)


_BEYOND = {"teams": _teams, "mattermost": _mattermost, "ntfy": _ntfy, "pagerduty": _pagerduty}
