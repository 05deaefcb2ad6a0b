"""A body of ``POST /v1/events`` as events that are checked, or why it is refused as a whole (docs/wire.md).

Knows no database and no web framework: what comes in are bytes and header values.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final, NamedTuple, NoReturn

from attrs import frozen

from orchclient.core.envelope import TYPE_PREFIX
from orchclient.core.ranges import Range
from orchclient.core.timestamps import microseconds
from orchclient.server import shapes

BATCH_TYPE: Final = "application/cloudevents-batch+json"
SINGLE_TYPE: Final = "application/cloudevents+json"
_GZIP: Final = 31  # the window bits that make zlib expect a gzip header and trailer
_MOST_SEQUENCE: Final = 2**53 - 1
_FIRST, _LAST = f"{1:020d}", f"{_MOST_SEQUENCE:020d}"
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]").search
_GAP: Final = "gap.v1"


class Refused(Exception):
    """A request that is answered with a problem: the status, words for people, and headers if any."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}


class Arrival(NamedTuple):
    """One event that may be stored. ``kind`` is its type without the prefix, empty for a type that is unknown here."""

    id: str
    source: str
    sequence: int
    type: str
    kind: str
    task: str
    agent: str
    priority: str
    time_us: int
    data: dict[str, Any]
    body: str

    @property
    def covers(self) -> list[Range]:
        """The sequences that are no longer missing once it is stored."""
        own = (self.sequence, self.sequence)
        return [own, self.explained] if self.kind == _GAP and not self.explains else [own]

    @property
    def explains(self) -> str:
        """The other source whose sequences it says will not come; empty when it is its own, or says no such thing."""
        source: str = self.data.get("source", "") if self.kind == _GAP else ""
        return "" if source == self.source else source

    @property
    def explained(self) -> Range:
        """The sequences that a gap names."""
        return (self.data["from"], self.data["to"])


class Spoiled(NamedTuple):
    """An event that can be named, but never taken."""

    id: str
    detail: str


@frozen
class Limits:
    """What one request may bring."""

    max_events: int = 500
    max_bytes: int = 2 * 1_048_576


def read_batch(body: bytes, content_type: str, encoding: str, limits: Limits) -> list[Arrival | Spoiled]:
    """The events of a request, in its order. Raises ``Refused``: 400, 413 or 415."""
    media = content_type.partition(";")[0].strip().lower()
    if media not in (BATCH_TYPE, SINGLE_TYPE):
        raise Refused(415, f"the content type must be {BATCH_TYPE}")
    text = _text(_plain(body, encoding.strip().lower(), limits.max_bytes))
    found = [_judged(event, source) for event, source in _events(text, media == SINGLE_TYPE)]
    if len(found) > limits.max_events:
        raise Refused(413, f"{len(found)} events in one request: at most {limits.max_events} are taken")
    return found


def _plain(body: bytes, encoding: str, most: int) -> bytes:
    if encoding not in ("", "identity", "gzip"):
        raise Refused(415, "the content encoding must be gzip or identity")
    if encoding == "gzip" and len(body) <= most:
        body = _unzipped(body, most)
    if len(body) > most:
        raise Refused(413, f"the body has more than {most} bytes")
    return body


def _unzipped(body: bytes, most: int) -> bytes:
    """The plain body, or one byte more than is allowed: a bomb is never inflated further."""
    unzip = zlib.decompressobj(_GZIP)
    try:
        plain = unzip.decompress(body, most + 1)
    except zlib.error as error:
        raise Refused(400, f"the body is not gzip: {error}") from error
    if len(plain) <= most and (not unzip.eof or unzip.unused_data):
        raise Refused(400, "the gzip body is cut short, or something follows it")
    return plain


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused(400, f"the body is not UTF-8 at byte {error.start}") from error


# --- JSON, with the text of each event ----------------------------------------------------------------------------


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:30]} is too large")
    return value


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)


def parsed(body: bytes) -> Any:
    """The value of a JSON body. Raises ``Refused`` for what is none."""
    try:
        return _DECODER.decode(_text(body))
    except (ValueError, RecursionError) as error:
        raise _no_json(error) from error


def _no_json(error: Exception) -> Refused:
    return Refused(400, f"the body is not JSON: {str(error)[:200]}")


def _events(text: str, is_single: bool) -> Iterator[tuple[Any, str]]:
    """Each event with its own text. What is kept is what was sent, and need not be written again."""
    try:
        if is_single:
            yield _DECODER.decode(text), text
            return
        yield from _members(text)
    except (ValueError, RecursionError) as error:
        raise _no_json(error) from error


def _members(text: str) -> Iterator[tuple[Any, str]]:
    place = _after_space(text, 0)
    if text[place : place + 1] != "[":
        raise ValueError("a batch is an array")
    place = _after_space(text, place + 1)
    mark = text[place : place + 1]
    while mark != "]":
        value, end = _DECODER.raw_decode(text, place)
        yield value, text[place:end]
        if text.startswith(",{", end):  # as nearly always
            place = end + 1
            continue
        place = _after_space(text, end)
        mark = text[place : place + 1]
        if mark == ",":
            place = _after_space(text, place + 1)
        elif mark != "]":
            raise ValueError(f"a comma or the end of the array is missing at character {place}")
    if _after_space(text, place + 1) != len(text):
        raise ValueError("something follows the array")


def _after_space(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return found.end() if found else place


# --- One event ----------------------------------------------------------------------------------------------------


def _judged(event: Any, text: str) -> Arrival | Spoiled:
    if type(event) is not dict:
        raise Refused(400, "an entry of the batch is not an object")
    event_id = event.get("id")
    if type(event_id) is not str or not _IS_ID(event_id):
        raise Refused(400, "an event has no UUIDv7 as its id: it could not be named in an answer")
    has_escapes = "\\u" in text
    problem = "" if _is_as_before(event) else _ENVELOPE(event)
    problem = problem or (_lone_surrogate(event, text) if has_escapes else "")
    if problem:
        return Spoiled(event_id, f"${problem}"[:200])
    type_, task, sequence, data = event["type"], event["subject"], event["sequence"], event["data"]
    kind, check = _TYPES.get(type_, _UNKNOWN)
    time_us = _instant(event["time"])
    if event["partitionkey"] != task:
        problem = ".partitionkey: must be equal to subject"
    elif not _FIRST <= sequence <= _LAST:
        problem = f".sequence: must be from 1 to {_MOST_SEQUENCE}"
    elif time_us is None:
        problem = ".time: is no day of the calendar"
    elif check is not None:
        problem = check(event)
        if not problem and data.get("task_id", task) != task:
            problem = ".data.task_id: must be equal to subject"
        if not problem and kind in _CONTRADICTIONS:
            problem = _CONTRADICTIONS[kind](event, data)
    if problem or time_us is None:
        return Spoiled(event_id, f"${problem}"[:200])
    if has_escapes and "\\u0000" in text:
        data = without_nul(data)
    source, agent, priority = event["source"], event["agentid"], event["priority"]
    return Arrival(event_id, source, int(sequence), type_, kind, task, agent, priority, time_us, data, text)


_SAME = itemgetter("specversion", "source", "type", "subject", "partitionkey", "agentid", "priority", "dataschema")
_OTHERS: Final = 4  # id, sequence, time and data
_IS_ID: Final = re.compile(shapes.pattern("event_id")).match
_IS_SEQUENCE: Final = re.compile(r"[0-9]{20}\Z").match
_IS_INSTANT: Final = re.compile(shapes.pattern("instant")).match
_MOST_LANES: Final = 4096
_lanes: set[tuple[str, ...]] = set()


def _is_as_before(event: dict[str, Any]) -> bool:
    """Whether all attributes but the few that are new in every event are those of one that was good: most are."""
    try:
        same = _SAME(event)
        if same not in _lanes or len(event) != len(same) + _OTHERS:
            return _is_new_lane(event, same)
        new = _IS_SEQUENCE(event["sequence"]) and _IS_INSTANT(event["time"])  # the id was looked at before
        return new is not None and type(event["data"]) is dict
    except (KeyError, TypeError):
        return False


def _is_new_lane(event: dict[str, Any], same: tuple[Any, ...]) -> bool:
    if _ENVELOPE(event) or len(event) != len(same) + _OTHERS:
        return False
    if len(_lanes) >= _MOST_LANES:
        _lanes.clear()
    _lanes.add(same)
    return True


def _lone_surrogate(event: dict[str, Any], text: str) -> str:
    if _SURROGATE(text):
        try:
            json.dumps(event, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return ": contains a lone surrogate"
    return ""


def _instant(text: str) -> int | None:
    second = _second(text[:19])
    return None if second is None else second + int(text[20:26])


@lru_cache(maxsize=1024)
def _second(text: str) -> int | None:
    # Events come in bursts within a second: the calendar is asked once for each.
    try:
        return microseconds(datetime.fromisoformat(f"{text}+00:00"))
    except ValueError:
        return None


def _wrong_question(event: dict[str, Any], data: dict[str, Any]) -> str:
    if data["clarification_id"] != event["id"]:
        return ".data.clarification_id: must be equal to id"
    ids = [question["id"] for question in data["questions"]]
    return ".data.questions: two questions have the same id" if len(set(ids)) < len(ids) else ""


def _wrong_completion(event: dict[str, Any], data: dict[str, Any]) -> str:
    return "" if data.get("review_id", event["id"]) == event["id"] else ".data.review_id: must be equal to id"


def _wrong_gap(event: dict[str, Any], data: dict[str, Any]) -> str:
    if not data["from"] <= data["to"] < int(event["sequence"]):
        return ".data: a gap goes from a sequence to one that is not below it, and stands above both"
    return "" if data["count"] == data["to"] - data["from"] + 1 else ".data.count: must be to - from + 1"


_ENVELOPE: Final = shapes.envelope()
_TYPES: Final = {type_: (type_.removeprefix(TYPE_PREFIX), check) for type_, check in shapes.known_types().items()}
_UNKNOWN: Final[tuple[str, shapes.Check | None]] = ("", None)
_CONTRADICTIONS: Final[Mapping[str, Callable[[dict[str, Any], dict[str, Any]], str]]] = {
    "clarification.requested.v1": _wrong_question,
    "task.completed.v1": _wrong_completion,
    _GAP: _wrong_gap,
}
"""What no schema says of the data of a type."""


def without_nul(value: Any) -> Any:
    """The same value with U+FFFD for U+0000, which PostgreSQL cannot hold in a text."""
    if isinstance(value, str):
        return value.replace("\x00", "�")
    if isinstance(value, dict):
        return {without_nul(name): without_nul(member) for name, member in value.items()}
    return [without_nul(item) for item in value] if isinstance(value, list) else value
