"""What stands in an inbox, read: an item that fits its schema, or why it does not. Nothing here decides anything.

The rules are those of the schemas ``inbound-envelope.json`` and the types it names; a test holds the two together. By
hand, since a checker of JSON Schema is a library that agents would have to install and import.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import field, frozen

from orchclient.core.envelope import SCHEMA_BASE, TYPE_PREFIX

ANSWERED: Final = "clarification.answered.v1"
SEEN: Final = "clarification.seen.v1"
DECIDED: Final = "review.decided.v1"
CANCEL_REQUESTED: Final = "task.cancel_requested.v1"
MESSAGE: Final = "task.message.v1"

OUTCOMES = ("approved", "changes_requested", "rejected", "declined", "expired")

Check = Callable[[Any], bool]


@frozen
class InboxItem:
    """One item. ``problem`` says in our own words why it counts for nothing; then only the ids may be believed.

    ``source`` and ``id`` tell it from others, ``type`` is without its prefix. ``request_id`` is the question or result
    that it is about, ``answer_id`` names a decision.
    """

    source: str = ""
    id: str = ""
    type: str = ""
    task: str = ""
    data: Mapping[str, Any] = field(factory=dict, repr=False)
    problem: str = ""

    @property
    def request_id(self) -> str | None:
        """The id of the event that this is about."""
        found = self.data.get("review_id" if self.type == DECIDED else "clarification_id")
        return found if isinstance(found, str) else None

    @property
    def answer_id(self) -> str | None:
        """What names a decision in every delivery of it. A review's has no name of its own but that of its item."""
        found = self.data.get("answer_id", self.id if self.type == DECIDED else None)
        return found if isinstance(found, str) else None

    @property
    def is_known(self) -> bool:
        """Whether this client knows its type."""
        return self.type in _DATA

    @property
    def is_decision(self) -> bool:
        """Whether it decides on something that was asked."""
        return self.type in (ANSWERED, DECIDED)


def read_item(value: Any) -> InboxItem:
    """Any JSON value as an item."""
    if not isinstance(value, dict):
        return InboxItem(problem="the item is not a JSON object")
    source, id_, type_, task = (_plain(value.get(name)) for name in ("source", "id", "type", "subject"))
    data = value.get("data")
    kind = type_.removeprefix(TYPE_PREFIX)
    problem = _envelope_problem(value) or _data_problem(kind, task, data)
    if (
        not problem
        and kind in _DATA
        and value.get("dataschema", f"{SCHEMA_BASE}{kind}.json") != f"{SCHEMA_BASE}{kind}.json"
    ):
        problem = "dataschema is that of another type"
    return InboxItem(source, id_, kind, task, data if isinstance(data, dict) else {}, problem)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) and len(value) <= 2048 else ""


# --- the envelope -----------------------------------------------------------------------------------------------------

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]")
_TYPE = re.compile(r"dev\.orchclient\.[a-z_]+(\.[a-z_]+)*\.v[1-9][0-9]{0,3}")
_INSTANT = re.compile(
    r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?"
    r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
)
_EVENT_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_NO_TRACE = re.compile(r"-(0{32}|0{16})-|^ff")
_EXTENSION = re.compile(r"[a-z0-9]+")


def _line(most: int) -> Check:
    return lambda value: isinstance(value, str) and 0 < len(value) <= most and not _CONTROL.search(value)


def _text(most: int, least: int = 0) -> Check:
    return lambda value: isinstance(value, str) and least <= len(value) <= most


def _like(pattern: re.Pattern[str]) -> Check:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _among(*words: str) -> Check:
    return lambda value: isinstance(value, str) and value in words


def _is_boolean(value: Any) -> bool:
    return isinstance(value, bool)


def _is_traceparent(value: Any) -> bool:
    return _like(_TRACEPARENT)(value) and not _NO_TRACE.search(value)


def _is_extension(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= 65_536 and not _CONTROL.search(value)
    is_small = isinstance(value, int | float) and -(2**31) <= value < 2**31 and value == int(value)
    return value is None or isinstance(value, bool) or is_small


_REQUIRED: Mapping[str, Check] = {
    "specversion": _among("1.0"),
    "id": _line(255),
    "source": _line(2048),
    "type": _like(_TYPE),
    "subject": _line(256),
    "time": _like(_INSTANT),
    "data": lambda value: isinstance(value, dict),
}
_OPTIONAL: Mapping[str, Check] = {
    "traceparent": _is_traceparent,
    "tracestate": _line(512),
    "datacontenttype": _among("application/json"),
    "dataschema": _like(re.compile(r"https://orchclient\.dev/schemas/[a-z_]+(\.[a-z_]+)*\.v[1-9][0-9]{0,3}\.json")),
}


def _envelope_problem(item: Mapping[str, Any]) -> str:
    problem = _problem(item, _REQUIRED, _OPTIONAL)
    if problem:
        return problem
    if len(item["type"]) > 128 or len(item["time"]) > 35 or len(item.get("dataschema", "")) > 255:
        return "type, time or dataschema is too long"
    for name, value in item.items():
        known = name in _REQUIRED or name in _OPTIONAL
        if not known and not (_EXTENSION.fullmatch(name) and _is_extension(value)):
            return "an extension attribute is none of CloudEvents'"
    return ""


# --- the data ---------------------------------------------------------------------------------------------------------


def _is_responder(value: Any) -> bool:
    if not isinstance(value, dict) or value.get("kind") not in ("human", "policy", "timeout"):
        return False
    if value["kind"] == "human" and "id" not in value:
        return False
    return all(_line(255)(value[name]) for name in ("id", "display") if name in value)


def _are_answers(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 100 and all(map(_is_answer, value))


def _is_answer(value: Any) -> bool:
    if not isinstance(value, dict) or not _line(64)(value.get("question_id")):
        return False
    if "text" in value and not _text(16_384)(value["text"]):
        return False
    return ("text" in value or "options" in value) and ("options" not in value or _are_options(value["options"]))


def _are_options(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 100 and all(map(_text(1024, 1), value))


_TASK: Mapping[str, Check] = {"task_id": _line(256)}
_CHANNEL: Mapping[str, Check] = {"channel": _line(64)}
_COMMENT: Mapping[str, Check] = {"comment": _text(16_384), "late": _is_boolean}
_AT = _like(_INSTANT)

_DATA: Mapping[str, tuple[Mapping[str, Check], Mapping[str, Check]]] = {
    ANSWERED: (
        {
            **_TASK,
            "clarification_id": _like(_EVENT_ID),
            "answer_id": _line(255),
            "outcome": _among("answered", *OUTCOMES),
            "responder": _is_responder,
            "answered_at": _AT,
            "content_digest": _like(_DIGEST),
        },
        {**_CHANNEL, **_COMMENT, "answers": _are_answers},
    ),
    SEEN: (
        {**_TASK, "clarification_id": _like(_EVENT_ID), "responder": _is_responder, "seen_at": _AT},
        {**_CHANNEL},
    ),
    DECIDED: (
        {
            **_TASK,
            "review_id": _like(_EVENT_ID),
            "outcome": _among(*OUTCOMES),
            "responder": _is_responder,
            "decided_at": _AT,
        },
        {**_CHANNEL, **_COMMENT},
    ),
    CANCEL_REQUESTED: (
        {**_TASK, "requested_by": _is_responder, "requested_at": _AT},
        {**_CHANNEL, "reason": _text(4096)},
    ),
    MESSAGE: (
        {**_TASK, "text": _text(16_384, 1), "sent_by": _is_responder, "sent_at": _AT},
        {**_CHANNEL, "urgent": _is_boolean},
    ),
}


def _data_problem(kind: str, task: str, data: Any) -> str:
    if kind not in _DATA:
        return ""
    problem = _problem(data, *_DATA[kind], where="data.")
    if problem:
        return problem
    if data["task_id"] != task:
        return "data.task_id is not the subject"
    if kind == SEEN and data["responder"]["kind"] != "human":
        return "data.responder is not a human"
    return _decision_problem(data) if kind in (ANSWERED, DECIDED) else ""


def _decision_problem(data: Mapping[str, Any]) -> str:
    if (data["outcome"] == "expired") != (data["responder"]["kind"] == "timeout"):
        return "data.outcome expired and data.responder timeout do not come together"
    if data["outcome"] == "answered" and not data.get("answers"):
        return "data.answers is missing or empty"
    return ""


def _problem(
    found: Mapping[str, Any], required: Mapping[str, Check], optional: Mapping[str, Check], where: str = ""
) -> str:
    for name, fits in required.items():
        if name not in found or not fits(found[name]):
            return f"{where}{name} is missing or malformed"
    for name, fits in optional.items():
        if name in found and not fits(found[name]):
            return f"{where}{name} is malformed"
    return ""
