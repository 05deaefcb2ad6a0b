"""Two runs of an agent compared: what is new in every run is put aside first, then each difference is named.

Pure. Ids, instants, sources, the name of the host and paths of this run are not the agent's to say; the rest is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

Event = Mapping[str, Any]

MOST = 20
_CUT = 200
_PUT_ASIDE = frozenset({"specversion", "source", "sequence", "id", "time", "traceparent", "tracestate", "dataschema"})
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)\Z")
_ID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\b")
_NEW_EACH_TIME = frozenset({"content_digest", "waited_s", "oldest_age_s", "answer_id"})
"""Members of data that are computed from instants, or that the orchestrator minted."""

_ABSENT = object()


def normalised(events: Sequence[Event], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Events as another run would tell them. ``names``: texts of this host or this run, and what stands for them."""
    counts: Counter[tuple[Any, Any]] = Counter()
    labels = {}
    for event in events:
        type_, task = event.get("type"), event.get("subject")
        counts[type_, task] += 1
        labels[str(event.get("id"))] = f"<{type_} {counts[type_, task]} of {task}>"
    return [_event(event, labels, names) for event in events]


def _event(event: Event, labels: Mapping[str, str], names: Mapping[str, str]) -> dict[str, Any]:
    kept = {name: value for name, value in event.items() if name not in _PUT_ASIDE and name != "partitionkey"}
    return {name: _plain(value, labels, names) for name, value in kept.items()}


def _plain(value: Any, labels: Mapping[str, str], names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            key: f"<{key}>" if key in _NEW_EACH_TIME else _plain(member, labels, names) for key, member in value.items()
        }
    if isinstance(value, list):
        return [_plain(item, labels, names) for item in value]
    return _text(value, labels, names) if isinstance(value, str) else value


def _text(text: str, labels: Mapping[str, str], names: Mapping[str, str]) -> str:
    if _INSTANT.match(text):
        return "<instant>"
    text = _ID.sub(lambda found: labels.get(found[0], "<id>"), text)
    for found, stands_for in names.items():
        text = text.replace(found, stands_for)
    return text


def differences(expected: Sequence[Event], got: Sequence[Event], ignore: Sequence[str] = ()) -> list[str]:
    """Each difference in one line that names the event and the field; both sides normalised.

    ``ignore`` are fields, such as ``data.current_step``: they and all below them.
    """
    return list(_differences(expected, got, ignore))


def _differences(expected: Sequence[Event], got: Sequence[Event], ignore: Sequence[str]) -> Iterator[str]:
    matcher = SequenceMatcher(None, list(map(_kind, expected)), list(map(_kind, got)), autojunk=False)
    for tag, low, high, got_low, got_high in matcher.get_opcodes():
        pairs = min(high - low, got_high - got_low) if tag in ("equal", "replace") else 0
        for step in range(pairs):
            yield from _of_pair(low + step, expected[low + step], got[got_low + step], ignore)
        for place in range(low + pairs, high):
            yield f"{_named(place, expected[place])}: expected, but the run did not record it"
        for place in range(got_low + pairs, got_high):
            yield f"{_named(place, got[place])}: recorded, but not expected here"


def _kind(event: Event) -> tuple[Any, Any, Any]:
    return event.get("type"), event.get("subject"), event.get("agentid")


def _named(place: int, event: Event) -> str:
    return f"event {place + 1} ({event.get('type')} of {event.get('subject')!r})"


def _of_pair(place: int, expected: Event, got: Event, ignore: Sequence[str]) -> Iterator[str]:
    for field, wanted, found in _fields("", expected, got):
        if not any(field == each or field.startswith((f"{each}.", f"{each}[")) for each in ignore):
            yield f"{_named(place, expected)} {field}: {_told(wanted, found)}"


def _told(wanted: Any, found: Any) -> str:
    if found is _ABSENT:
        return f"expected {_short(wanted)}, got nothing"
    if wanted is _ABSENT:
        return f"expected nothing, got {_short(found)}"
    return f"expected {_short(wanted)}, got {_short(found)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _CUT else f"{text[:_CUT]}... ({len(text)} characters)"


def _fields(path: str, expected: Any, got: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(expected, dict) and isinstance(got, dict):
        for name in [*expected, *(name for name in got if name not in expected)]:
            inner = f"{path}.{name}" if path else str(name)
            yield from _fields(inner, expected.get(name, _ABSENT), got.get(name, _ABSENT))
    elif isinstance(expected, list) and isinstance(got, list):
        for place in range(max(len(expected), len(got))):
            yield from _fields(f"{path}[{place}]", _at(expected, place), _at(got, place))
    elif type(expected) is bool or type(got) is bool:
        if expected is not got:
            yield path, expected, got
    elif expected != got:
        yield path, expected, got


def _at(items: Sequence[Any], place: int) -> Any:
    return items[place] if place < len(items) else _ABSENT
