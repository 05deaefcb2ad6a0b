"""What the services take, as JSON Schemas written from their documents, and what a schema cannot say beside them.

Discord: "Message Resource" (embed limits, 6,000 in all) and "Webhook Resource" (content 2,000, 10 embeds). Slack:
"Block Kit reference" (header 150, section 3,000, fields 10 of 2,000, 50 blocks) and the measured 13,172 in all.
Lengths are checked in UTF-16 units too: JSON Schema counts code points.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator


def _text(most: int) -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": most}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


WEB = {"type": "string", "pattern": "^https?://[^\\s<>|]+$", "maxLength": 2048}
DISCORD = _object(
    ["allowed_mentions"],
    content={"type": "string", "maxLength": 2000},
    flags={"enum": [4096]},
    allowed_mentions={"const": {"parse": []}},
    embeds={
        "type": "array",
        "maxItems": 10,
        "items": _object(
            ["color"],
            title=_text(256),
            description=_text(4096),
            url=WEB,
            timestamp={"type": "string", "pattern": "^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d"},
            color={"type": "integer", "minimum": 0, "maximum": 0xFFFFFF},
            footer=_object(["text"], text=_text(2048)),
            fields={
                "type": "array",
                "maxItems": 25,
                "items": _object(["name", "value"], name=_text(256), value=_text(1024), inline={"type": "boolean"}),
            },
        ),
    },
)
PLAIN_TEXT = _object(["type", "text"], type={"const": "plain_text"}, text=_text(3000), emoji={"const": False})


def _plain(most: int) -> dict[str, Any]:
    return {"allOf": [PLAIN_TEXT, {"properties": {"text": _text(most)}}]}


_LINKS = _object(["type", "text", "verbatim"], type={"const": "mrkdwn"}, text=_text(3000), verbatim={"const": True})
SLACK = _object(
    ["text"],
    text=_text(4000),
    mrkdwn={"const": False},
    unfurl_links={"const": False},
    unfurl_media={"const": False},
    blocks={
        "type": "array",
        "minItems": 1,
        "maxItems": 50,
        "items": {
            "oneOf": [
                _object(["type", "text"], type={"const": "header"}, text=_plain(150)),
                _object(["type", "text"], type={"const": "section"}, text={"oneOf": [PLAIN_TEXT, _LINKS]}),
                _object(
                    ["type", "fields"],
                    type={"const": "section"},
                    fields={"type": "array", "minItems": 1, "maxItems": 10, "items": _plain(2000)},
                ),
                _object(
                    ["type", "elements"],
                    type={"const": "context"},
                    elements={"type": "array", "minItems": 1, "maxItems": 10, "items": PLAIN_TEXT},
                ),
            ]
        },
    },
)

_UNSEEN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_PING = re.compile(r"(?<!\\)<[@#:!&]|(?<!\\)@(?:everyone|here)")
_SLACK_PING = re.compile(r"<(?!https?://)")
_LINK = re.compile(r"<https?://[^|>\s]+\|[A-Za-z0-9 ]+>")


def utf16(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from texts(inner)


def discord_complaints(body: bytes) -> list[str]:
    """Everything that Discord would refuse in a payload, and everything by which it could ping somebody."""
    payload = json.loads(body)
    found = [error.message[:200] for error in Draft202012Validator(DISCORD).iter_errors(payload)]
    total = 0
    for embed in payload.get("embeds", ()):
        counted = [embed.get("title", ""), embed.get("description", ""), embed.get("footer", {}).get("text", "")]
        counted += [text for each in embed.get("fields", ()) for text in (each["name"], each["value"])]
        total += sum(map(utf16, counted))
        long = utf16(embed.get("description", "")) > 4096 or utf16(embed.get("title", "")) > 256
        found += ["longer in UTF-16"] * long
        found += ["no first line"] * (not payload.get("content") and not embed.get("title"))
    found += [f"{total} characters in all embeds"] * (total > 6000)
    found += ["longer content in UTF-16"] * (utf16(payload.get("content", "")) > 2000)
    found += ["neither content nor embeds"] * (not payload.get("content") and not payload.get("embeds"))
    return found + _unseen(payload) + [f"could ping: {text[:80]!r}" for text in texts(payload) if _PING.search(text)]


def slack_complaints(body: bytes) -> list[str]:
    """Everything that Slack would refuse in a payload, and everything by which it could ping or mislead."""
    payload = json.loads(body)
    found = [error.message[:200] for error in Draft202012Validator(SLACK).iter_errors(payload)]
    blocks = payload.get("blocks", [])
    total = sum(map(utf16, texts(blocks)))
    found += [f"{total} characters in all blocks"] * (total > 13_172)
    for block in blocks:
        for text in block.get("elements", []) + block.get("fields", []) + [block.get("text", {})]:
            if text.get("type") == "mrkdwn":
                found += ["markup that is not a link"] * bool(_LINK.sub("", text["text"]).strip())
            elif "<" in text.get("text", "") or ">" in text.get("text", ""):
                found.append("not escaped")
    found += ["a mention"] * any(_SLACK_PING.search(text) for text in texts(payload))
    return found + _unseen(payload)


def _unseen(payload: Any) -> list[str]:
    return ["hidden characters"] * any(_UNSEEN.search(text) for text in texts(payload))
