"""An orchestrator in memory: what it keeps, and what the wire contract makes it answer.

It must not know sockets or the fault plan: a request comes in as a value, a reply goes out as one.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import zlib
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NoReturn
from urllib.parse import parse_qsl, unquote

from attrs import field, frozen

from orchclient.core.http import HttpReply, HttpRequest
from orchclient.testing.faultplan import Event, Refused, Result, Rule, event_result, problem
from orchclient.testing.inbox import Inbox, opened_cursor

EVENTS_PATH = "/v1/events"
INBOX_PATH, ACK_PATH = "/v1/inbox", "/v1/inbox/ack"
_SOURCES_PATH = "/v1/sources/"
_METHODS = {EVENTS_PATH: "POST", "/v1/capabilities": "GET", INBOX_PATH: "GET", ACK_PATH: "POST"}
_BATCH_TYPE, _SINGLE_TYPE = "application/cloudevents-batch+json", "application/cloudevents+json"
_GAP_TYPE = "dev.orchclient.gap.v1"
_MOST_GAPS = 1000
_LONGEST_POLL_S = 60.0
_SECONDS = r"[0-9]{1,6}(\.[0-9]{1,9})?"
_SHAPE = {  # attribute: (pattern, required)
    "specversion": (r"1\.0", True),
    "id": (r"(?s).+", True),
    "source": (r"(?s).+", True),
    "type": (r"(?s).+", True),
    "subject": (r"(?s).+", False),
    "sequence": (r"[0-9]{1,20}", False),
}
_GZIP_WINDOW = 31  # the window bits that make zlib expect a gzip header and trailer

Hold = Callable[[Callable[[], bool], float], None]  # (until, timeout_s), called with ``changed`` held


@frozen
class Conflict:
    """Two events of one source claimed the same sequence: the first was kept, the other rejected."""

    source: str
    sequence: int
    kept_id: str
    rejected_id: str


@frozen
class Terms:
    """What the orchestrator offers and demands; a limit that is None is not enforced."""

    token: str | None = field(default=None, repr=False)
    capabilities: Mapping[str, Any] | None = None
    accepts_gzip: bool = False
    max_body_bytes: int | None = None
    max_events: int | None = None
    inbox_page: int = 50
    inbox_hints: bool = True


@frozen
class Batch:
    """The events of one request, or why it is refused as a whole."""

    events: tuple[Event, ...] = ()
    refusal: HttpReply | None = None


class InMemoryOrchestrator:
    """Keeps events by ``(source, id)``, and inbox items until they are acknowledged.

    ``changed`` guards every other attribute and is notified of every change.
    """

    def __init__(self, terms: Terms) -> None:
        self.changed = threading.Condition()
        self.events: list[Event] = []
        self.repeats: Counter[str] = Counter()
        self.conflicts: list[Conflict] = []
        self.inbox = Inbox(terms.inbox_page)
        self.on_kept: Callable[[Event], None] = lambda event: None
        self._terms = terms
        self._kept: set[tuple[str, str]] = set()
        self._sources: dict[str, Sequences] = {}

    def batch(self, request: HttpRequest) -> Batch:
        """Reads a POST of events; they are there even when the token is wrong or they are too many."""
        try:
            events = _events_in(request, self._terms)
        except Refused as refused:
            return Batch((), self._stranger(request) or refused.reply)
        limit = self._terms.max_events or sys.maxsize
        too_many = problem(413, f"the limit is {limit} events") if len(events) > limit else None
        return Batch(events, self._stranger(request) or too_many)

    def ingest(self, batch: Batch, rules: Sequence[Rule]) -> HttpReply:
        """Keeps the events that no rule concerns, and answers for each."""
        if batch.refusal is not None:
            return batch.refusal
        held: set[str] = set()
        with self.changed:
            results = [self._judged(event, rules, held) for event in batch.events]
            pending = self.inbox.pending({event["source"] for event in batch.events})
            self.changed.notify_all()
        hint = {"inbox": {"pending": pending}} if self._terms.inbox_hints else {}
        return _json({"results": [r for r in results if r is not None], **hint})

    def _judged(self, event: Event, rules: Sequence[Rule], held: set[str]) -> Result | None:
        event_id, task_id = event["id"], event.get("subject")
        known = (event["source"], event_id) in self._kept
        self.repeats.update([event_id] if known else [])
        if task_id in held:
            return event_result(event_id, "retry", "task_waits", "an earlier event must come first")
        rule = next((rule for rule in rules if rule.concerns(event)), None)
        if rule is None:
            result = event_result(event_id, "duplicate") if known else self._taken(event)
            if result["status"] == "rejected" and task_id is not None:
                held.add(task_id)  # it comes again under another source, and the task's later events after it
            return result
        if rule.status == "retry" and task_id is not None:
            held.add(task_id)
        return rule.result(event)

    def _taken(self, event: Event) -> Result:
        source, event_id = event["source"], event["id"]
        kept_id = self._claimed(event)
        if kept_id != event_id:
            self.conflicts.append(Conflict(source, int(event["sequence"]), kept_id, event_id))
            return event_result(event_id, "rejected", "sequence_conflict", f"it belongs to {kept_id}")
        self._kept.add((source, event_id))
        self.events.append(event)
        self.on_kept(event)
        return event_result(event_id, "accepted")

    def _claimed(self, event: Event) -> str:
        """Who holds its sequence now; a gap that is taken explains those of its source, or of the one that it names."""
        holder = self._sources.setdefault(event["source"], Sequences()).claim(event)
        if holder == event["id"] and event["type"] == _GAP_TYPE:
            data = event["data"]
            self._sources.setdefault(data.get("source", event["source"]), Sequences()).explain(data["from"], data["to"])
        return holder

    def forget(self, matches: Callable[[Event], bool]) -> int:
        """Loses kept events, and what they explained, as a restored backup does; how many."""
        with self.changed:
            kept = [event for event in self.events if not matches(event)]
            lost = len(self.events) - len(kept)
            self.events, self._kept, self._sources = kept, set(), {}
            for event in kept:
                self._kept.add((event["source"], event["id"]))
                self._claimed(event)
            self.changed.notify_all()
        return lost

    def answer(self, request: HttpRequest, hold: Hold) -> HttpReply:
        """Answers everything but a POST of events; calls ``hold`` when the answer must wait for something."""
        try:
            return self._stranger(request) or self._answer(request, hold)
        except Refused as refused:
            return refused.reply

    def _stranger(self, request: HttpRequest) -> HttpReply | None:
        if self._terms.token is None or request.headers.get("authorization") == f"Bearer {self._terms.token}":
            return None
        return problem(401, "the bearer token is missing or wrong", {"WWW-Authenticate": "Bearer"})

    def _answer(self, request: HttpRequest, hold: Hold) -> HttpReply:
        path, _, query = request.url.partition("?")
        source = unquote(path.removeprefix(_SOURCES_PATH)) if path.startswith(_SOURCES_PATH) else None
        method = "GET" if source else _METHODS.get(path)
        if method is None:
            raise Refused(404, f"there is nothing at {path}")
        if request.method != method:
            raise Refused(405, f"this takes {method} only", {"Allow": method})
        if source:
            return self._source(source)
        if path == INBOX_PATH:
            return self._inbox_page(dict(parse_qsl(query)), hold)
        return self._acknowledged(request.body) if path == ACK_PATH else self._capabilities()

    def _capabilities(self) -> HttpReply:
        if self._terms.capabilities is None:
            raise Refused(404, "this orchestrator does not tell its capabilities")
        return _json(self._terms.capabilities)

    def _source(self, source: str) -> HttpReply:
        with self.changed:
            sequences = self._sources.get(source, Sequences())
            return _json({"highest": sequences.highest, "gaps": sequences.gaps()[:_MOST_GAPS]})

    def _inbox_page(self, query: Mapping[str, str], hold: Hold) -> HttpReply:
        source, wait = query.get("source", ""), query.get("wait", "0")
        if not source or not re.fullmatch(_SECONDS, wait):
            raise Refused(400, "the source is missing, or the wait is not usable")
        known = opened_cursor(query.get("cursor", ""))  # one that is not known counts as absent
        after = known[0] if known and known[1] == source else 0
        with self.changed:
            if float(wait) and not self.inbox.after(after, source):
                hold(lambda: bool(self.inbox.after(after, source)), min(float(wait), _LONGEST_POLL_S))
            return _json(self.inbox.page(after, source))

    def _acknowledged(self, body: bytes) -> HttpReply:
        value = _parsed(body)
        cursor = value.get("cursor") if isinstance(value, dict) else None
        known = opened_cursor(cursor) if isinstance(cursor, str) else None
        if known is None:
            raise Refused(400, "an acknowledgement is an object with a cursor that was given out here")
        position, source = known
        with self.changed:
            self.inbox.drop(position, source)
            self.changed.notify_all()
            return _json({"inbox": {"pending": self.inbox.pending({source})}})


class Sequences:
    """The sequences of one source: which event holds each, and the spans that were received or explained."""

    def __init__(self) -> None:
        self.highest = 0
        self._holders: dict[int, str] = {}
        self._spans: list[tuple[int, int]] = []

    def claim(self, event: Event) -> str:
        """Gives the event its sequence, unless another holds it; returns the id of the holder."""
        sequence = int(event.get("sequence") or 0)
        holder = self._holders.setdefault(sequence, event["id"]) if sequence else event["id"]
        if holder == event["id"]:
            self.highest = max(self.highest, sequence)
            self._cover(sequence, sequence)
        return holder

    def explain(self, first: int, last: int) -> None:
        """These will not come."""
        self._cover(first, last)

    def gaps(self) -> list[list[int]]:
        between = [[left[1] + 1, right[0] - 1] for left, right in pairwise([(0, 0), *self._spans])]
        return [gap for gap in between if gap[0] <= gap[1] and gap[0] < self.highest]

    def _cover(self, first: int, last: int) -> None:
        """Adds a span and joins it with those it touches."""
        low = bisect_left(self._spans, first - 1, key=lambda span: span[1])
        high = bisect_right(self._spans, last + 1, key=lambda span: span[0])
        joined = [(first, last), *self._spans[low:high]]
        self._spans[low:high] = [(min(joined)[0], max(span[1] for span in joined))]


def _events_in(request: HttpRequest, terms: Terms) -> tuple[Event, ...]:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in (_BATCH_TYPE, _SINGLE_TYPE):
        raise Refused(415, f"the content type must be {_BATCH_TYPE} or {_SINGLE_TYPE}")
    value = _parsed(_plain_body(request, terms))
    events = [value] if media_type == _SINGLE_TYPE else value
    if not isinstance(events, list):
        raise Refused(400, "a batch is a JSON array")
    for index, event in enumerate(events):
        _check_event(event, f"event {index}")
    return tuple(events)


def _plain_body(request: HttpRequest, terms: Terms) -> bytes:
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding not in (("identity", "gzip") if terms.accepts_gzip else ("identity",)):
        raise Refused(415, f"the content encoding {encoding} is not accepted")
    body, limit = request.body, terms.max_body_bytes or sys.maxsize
    if encoding == "gzip" and len(body) <= limit:
        body = _unzipped(body, limit)
    if len(body) > limit:
        raise Refused(413, f"the body is too large; the limit is {limit} bytes")
    return body


def _unzipped(body: bytes, limit: int) -> bytes:
    """The plain body, or the first part of it if that is over the limit."""
    unzip = zlib.decompressobj(_GZIP_WINDOW)
    try:
        plain = unzip.decompress(body, min(limit + 1, sys.maxsize))
    except zlib.error as error:
        raise Refused(400, f"the body is not gzip: {error}") from error
    if not unzip.eof and len(plain) <= limit:
        raise Refused(400, "the gzip body is cut short")
    return plain


def _check_event(event: object, where: str) -> None:
    if not isinstance(event, dict):
        raise Refused(400, f"{where} is not a JSON object")
    for name, (pattern, required) in _SHAPE.items():
        value = event.get(name)
        if (value is not None or required) and not (isinstance(value, str) and re.fullmatch(pattern, value)):
            raise Refused(400, f"{where}: {name} is missing or malformed")
    if event["type"] == _GAP_TYPE and not _is_gap(event.get("data")):
        raise Refused(400, f"{where}: the data of a gap are the integers from and to, in this order")


def _is_gap(data: object) -> bool:
    first, last = (data.get("from"), data.get("to")) if isinstance(data, dict) else (None, None)
    return type(first) is int and type(last) is int and 0 < first <= last


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON: {error}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _json(value: object) -> HttpReply:
    return HttpReply(200, {"Content-Type": "application/json"}, json.dumps(value).encode())
