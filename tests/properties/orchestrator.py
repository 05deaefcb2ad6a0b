"""The other end of the wire, in memory: an orchestrator that keeps the contract, behind a network that does not.

It judges what arrives (one place for every law that a receiver can see) and notes each breach in ``breaches``.
Must not know how the client stores or decides.
"""

from __future__ import annotations

import json
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from email.utils import format_datetime
from typing import Any

from attrs import field, frozen

from orchclient.core.http import HttpReply, HttpRequest, NoReply
from orchclient.core.timestamps import instant

from .clock import FakeClock

Event = dict[str, Any]
Outcome = HttpReply | NoReply
Judge = Callable[[Event], str | None]
"""What an event of a sink's registry breaks, None when it is what was recorded."""


class Killed(BaseException):
    """The process died in the middle of an exchange. No product code may catch it."""


@frozen
class Terms:
    """What the orchestrator takes at once, and whether it says so when asked."""

    max_events: int = 500
    max_bytes: int = 1_048_576
    says_so: bool = True
    gzip: bool = False


@frozen
class Answer:
    """What becomes of one request."""

    name: str
    play: Callable[[Orchestrator, HttpRequest], Outcome] = field(repr=False)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(f"<{self.name}>")  # how Hypothesis shows it


class Wire:
    """One flusher's way to an orchestrator: remembers what it was told to send at most."""

    def __init__(self, orchestrator: Orchestrator) -> None:
        self._orchestrator = orchestrator
        self.told: Terms | None = None

    def send(self, request: HttpRequest, *, deadline_s: float) -> Outcome:
        """Carry one request, after holding it against what this flusher was told."""
        if request.method == "POST":
            self._orchestrator.check_size(request, self.told)
        outcome = self._orchestrator.answer(request)
        if request.method == "GET" and isinstance(outcome, HttpReply):
            self.told = _told(outcome)
        return outcome

    def close(self) -> None:
        """Nothing to end."""


class Orchestrator:
    """A receiver that keeps events by ``(source, id)``; each request takes the next answer of ``script``."""

    def __init__(self, clock: FakeClock, judge: Judge) -> None:
        self.script: deque[Answer] = deque()
        self.terms = Terms()
        self.poisoned: set[str] = set()  # a batch with one of them is refused as a whole
        self.unwanted: set[str] = set()  # refused one by one
        self.kept: dict[str, Event] = {}  # by id
        self.keys: set[tuple[str, str]] = set()  # (source, id) of what is kept
        self.refused: set[str] = set()  # ids that the client may give up
        self.breaches: list[str] = []
        self.hand_over: Callable[[], None] = lambda: None
        self.meanwhile: Callable[[], None] = lambda: None
        self._clock = clock
        self._judge = judge
        self._seen: dict[str, Event] = {}
        self._by_sequence: dict[tuple[str, str], str] = {}
        self._highest_seen: dict[tuple[str, str], str] = {}
        self._highest_kept: dict[tuple[str, str], str] = {}
        self._excused: set[str] = set()  # ids that the receiver itself put out of order
        self._kept_in_silence: set[str] = set()  # ids of which it said nothing, though it kept them

    def answer(self, request: HttpRequest) -> Outcome:
        """Play the next answer of the script; without one, all is well."""
        return (self.script.popleft() if self.script else WELL).play(self, request)

    # --- what a test does to it -----------------------------------------------------------------------------------

    def heal(self) -> None:
        """From now on all is well."""
        self.script.clear()
        self.terms = Terms()
        self.poisoned.clear()
        self.unwanted.clear()

    def forgive_order(self) -> None:
        """The client's file was restored from a backup: what it sends now may be older than what was seen."""
        self._highest_seen.clear()
        self._excused |= self._seen.keys()

    # --- what answers are made of ---------------------------------------------------------------------------------

    def process(self, request: HttpRequest, *, defer: Deferral | None = None) -> HttpReply:
        """Answer as the contract says; ``defer`` puts an event off."""
        if request.method == "GET":
            return self._capabilities()
        events = self._arrived(request)
        refusal = self._refusal(events, len(request.body))
        if refusal is not None:
            if len(events) == 1:
                self.refused.add(events[0]["id"])
            return refusal
        deferred = defer.verdicts([event for event in events if self._is_new(event)]) if defer else {}
        results = [self._result(event, deferred.get(event["id"], TAKE)) for event in events]
        return _json(200, {"results": [result for result in results if result]})

    def process_plainly(self, request: HttpRequest, body: bytes, content_type: str) -> HttpReply:
        """Process, and say no more than that all is well, if it is."""
        reply = self.process(request)
        if request.method == "GET" or reply.status != 200 or b"rejected" in reply.body:
            return reply
        return HttpReply(200, {"content-type": content_type}, body)

    def retry_after_date(self, status: int, seconds: int) -> HttpReply:
        """Trouble, and when to come back as an HTTP date."""
        moment = instant(self._clock.now_us() + seconds * 1_000_000)
        return problem(status, {"retry-after": format_datetime(moment, usegmt=True)})

    def _capabilities(self) -> HttpReply:
        if not self.terms.says_so:
            return problem(404)
        batch = {"max_events": self.terms.max_events, "max_bytes": self.terms.max_bytes}
        return _json(200, {"batch": batch, "encodings": ["gzip"] if self.terms.gzip else []})

    def _refusal(self, events: list[Event], size: int) -> HttpReply | None:
        if len(events) > self.terms.max_events or size > self.terms.max_bytes:
            return problem(413)
        if any(event["id"] in self.poisoned for event in events):
            return problem(400, body=b'{"title": "cannot be read", "detail": "\\u001b[31mred"}')
        return None

    def _result(self, event: Event, verdict: Verdict) -> dict[str, str] | None:
        result = self._kept_or_not(event, verdict)
        return result if verdict.is_said else None

    def _kept_or_not(self, event: Event, verdict: Verdict) -> dict[str, str]:
        event_id = event["id"]
        if verdict.breaks_order:
            self._excused.add(event_id)
        if verdict.is_taken and not verdict.is_said:
            self._kept_in_silence.add(event_id)
        if not self._is_new(event):
            return {"id": event_id, "status": "duplicate"}
        if not verdict.is_taken:
            return {"id": event_id, "status": "retry", "code": "busy"}
        if event_id in self.unwanted:
            self.refused.add(event_id)
            return {"id": event_id, "status": "rejected", "code": "invalid", "detail": "not\x07wanted"}
        return self._take(event)

    def _is_new(self, event: Event) -> bool:
        return (event["source"], event["id"]) not in self.keys

    def _take(self, event: Event) -> dict[str, str]:
        event_id, place = event["id"], (event["source"], event["sequence"])
        if self._by_sequence.setdefault(place, event_id) != event_id:
            # Not refused: the contract has the client send it again, under a new source.
            return {"id": event_id, "status": "rejected", "code": "sequence_conflict"}
        lane = event["source"], event["subject"]
        highest = self._highest_kept.get(lane, "")
        if event["sequence"] < highest and event_id not in self._excused | self.refused:
            self.breaches.append(f"{lane[1]}: {event['sequence']} is kept after {highest}")
        self._highest_kept[lane] = max(highest, event["sequence"])
        # Against the contract, what is behind a conflict may have been kept, and without a word: then nobody knows.
        if event_id in self.kept and event_id not in self._kept_in_silence:
            self.breaches.append(f"{event_id} is kept under two sources")
        self.keys.add((event["source"], event_id))
        self.kept[event_id] = event
        return {"id": event_id, "status": "accepted"}

    # --- the laws that can be seen from here ----------------------------------------------------------------------

    def check_size(self, request: HttpRequest, told: Terms | None) -> None:
        """A request is not larger than what its flusher was told, unless it is a single event."""
        events = _events(request)
        if told is None:
            self.breaches.append("events were sent before the capabilities were asked for")
        elif len(events) > 1 and (len(events) > told.max_events or len(_plain_body(request)) > told.max_bytes):
            self.breaches.append(f"{len(events)} events were sent to a receiver that said {told}")

    def _arrived(self, request: HttpRequest) -> list[Event]:
        events = _events(request)
        places = [event["sequence"] for event in events]
        if not events or sorted(set(places)) != places:
            self.breaches.append(f"a request is not in ascending order: {places}")
        if len({event["source"] for event in events}) > 1:
            self.breaches.append("a request mixes sources")
        for event in events:
            self._check(event)
        return events

    def _check(self, event: Event) -> None:
        first = self._seen.setdefault(event["id"], event)
        if first is event:
            self._check_first_sight(event)
        elif first | {"source": ""} != event | {"source": ""}:
            self.breaches.append(f"{event['id']} came again with other content")

    def _check_first_sight(self, event: Event) -> None:
        lane = event["source"], event["subject"]
        highest = self._highest_seen.get(lane, "")
        if event["sequence"] <= highest:
            self.breaches.append(f"{lane[1]}: {event['sequence']} is seen first after {highest}")
        self._highest_seen[lane] = max(highest, event["sequence"])
        problem_ = self._judge(event)
        if problem_:
            self.breaches.append(f"{event['sequence']}: {problem_}")


@frozen
class Verdict:
    """What an orchestrator does with one new event of a batch, and whether the results say so."""

    is_taken: bool = True
    is_said: bool = True
    breaks_order: bool = False


TAKE = Verdict()


@frozen
class Deferral:
    """One event of a batch is put off: the ``place``-th new one of the ``lane``-th task in it.

    A receiver that is ``strict`` puts off what follows of the task as well, as the contract wants; one that is not
    takes it, and so breaks the order by itself.
    """

    lane: int
    place: int
    verdict: Verdict
    strict: bool = True

    def verdicts(self, new: Sequence[Event]) -> dict[str, Verdict]:
        """The verdicts that are not ``TAKE``, by event id."""
        tasks = list(dict.fromkeys(event["subject"] for event in new))
        if self.lane >= len(tasks):
            return {}
        lane = [event["id"] for event in new if event["subject"] == tasks[self.lane]]
        return dict.fromkeys(lane[self.place :] if self.strict else lane[self.place : self.place + 1], self.verdict)


def _events(request: HttpRequest) -> list[Event]:
    events: list[Event] = json.loads(_plain_body(request))
    return events


def _plain_body(request: HttpRequest) -> bytes:
    return zlib.decompress(request.body, 31) if "Content-Encoding" in request.headers else request.body


def _told(reply: HttpReply) -> Terms:
    """What a flusher may believe after this answer to its question."""
    try:
        batch = json.loads(reply.body).get("batch", {})
    except ValueError:
        batch = {}
    return Terms(**batch) if reply.status == 200 else Terms()


def problem(status: int, headers: Mapping[str, str] | None = None, body: bytes = b'{"title": "trouble"}') -> HttpReply:
    """An answer that is not 2xx."""
    return HttpReply(status, {"content-type": "application/problem+json", **(headers or {})}, body)


def _json(status: int, document: Any) -> HttpReply:
    return HttpReply(status, {"content-type": "application/json"}, json.dumps(document).encode())


def _lose_reply(orchestrator: Orchestrator, request: HttpRequest) -> Outcome:
    orchestrator.process(request)
    return NoReply("broken", "the connection ended")


def _killed_after(orchestrator: Orchestrator, request: HttpRequest) -> Outcome:
    orchestrator.process(request)
    raise Killed


def _killed_before(orchestrator: Orchestrator, request: HttpRequest) -> Outcome:
    raise Killed


def _late(orchestrator: Orchestrator, request: HttpRequest) -> Outcome:
    orchestrator.hand_over()
    return orchestrator.process(request)


def _early(orchestrator: Orchestrator, request: HttpRequest) -> Outcome:
    reply = orchestrator.process(request)
    orchestrator.hand_over()
    return reply


def _busy(orchestrator: Orchestrator, request: HttpRequest) -> Outcome:
    orchestrator.meanwhile()
    reply = orchestrator.process(request)
    orchestrator.meanwhile()
    return reply


def _twice(orchestrator: Orchestrator, request: HttpRequest) -> Outcome:
    """Every result stands there twice, the second time as a refusal; the first one counts."""
    reply = orchestrator.process(request)
    results = json.loads(reply.body).get("results", [])
    if request.method == "GET" or not results:
        return reply
    refusals = [{"id": result["id"], "status": "rejected", "code": "invalid"} for result in results]
    return _json(200, {"results": results + refusals})


def _status(status: int, retry_after: str | None = None) -> Answer:
    headers = {} if retry_after is None else {"retry-after": retry_after}
    name = f"{status}" if retry_after is None else f"{status}, Retry-After {retry_after!r}"
    return Answer(name, lambda orchestrator, request: problem(status, headers))


def _says(name: str, body: bytes, content_type: str = "application/json") -> Answer:
    """A 200 from something that kept nothing."""
    return Answer(name, lambda orchestrator, request: HttpReply(200, {"content-type": content_type}, body))


def _plainly(name: str, body: bytes, content_type: str) -> Answer:
    return Answer(name, lambda orchestrator, request: orchestrator.process_plainly(request, body, content_type))


def _defers(name: str, deferral: Deferral) -> Answer:
    name = f"{name}, event {deferral.place} of task {deferral.lane}"
    return Answer(name, lambda orchestrator, request: orchestrator.process(request, defer=deferral))


WELL = Answer("well", lambda orchestrator, request: orchestrator.process(request))
REQUEST_LOST = Answer("request lost", lambda orchestrator, request: NoReply("connect", "no route"))
REPLY_LOST = Answer("reply lost", _lose_reply)
GONE = _status(410)
KILLED = (Answer("killed before it arrives", _killed_before), Answer("killed before the reply", _killed_after))
FENCED = (Answer("fenced, then it arrives", _late), Answer("fenced before the reply", _early))
_RETRY, _UNSAID, _KEPT_UNSAID = Verdict(is_taken=False), Verdict(False, False), Verdict(True, False)
_WAYS_TO_DEFER = (
    ("retry", _RETRY, True),
    ("retry, but not for what follows", Verdict(False, True, True), False),
    ("no result", _UNSAID, True),
    ("no result, but for what follows", Verdict(False, False, True), False),
    ("kept without a result", _KEPT_UNSAID, False),
)
BUSY = Answer("well, while others record and deliver", _busy)
DEFERRALS = tuple(
    _defers(name, Deferral(lane, place, verdict, strict))
    for name, verdict, strict in _WAYS_TO_DEFER
    for lane, place in ((0, 0), (1, 0), (0, 1))
)
STATUSES = (
    *(_status(status) for status in (500, 502, 408, 425, 401, 403, 404, 302)),
    _status(503, "7"),
    _status(429, "5000"),
    _status(503, "soon"),
    Answer("503, Retry-After a date", lambda orchestrator, request: orchestrator.retry_after_date(503, 90)),
)
LIES = (
    _says("a captive portal", b"<!doctype html><title>Hotel</title>", "text/html"),
    _says("JSON cut short", b'{"results": [{"id": "'),
    _says("no results", b'{"results": []}'),
    _says("results that are none", b'{"results": {"all": "accepted"}}'),
    _says("foreign ids", b'{"results": [{"id": "018f0000-0000-7000-8000-000000000000", "status": "accepted"}]}'),
    Answer("an endless answer", lambda orchestrator, request: NoReply("too_large", "more than 65536 bytes")),
)
PLAIN = (
    _plainly("well, without a word", b"", "text/plain"),
    _plainly("well, in plain text", b"ok", "text/plain; charset=utf-8"),
    _plainly("well, without results", b'{"results": null}', "application/json"),
    Answer("well, said twice", _twice),
)
ANSWERS = (
    *(WELL,) * 8,
    *(REQUEST_LOST, REPLY_LOST) * 3,
    *FENCED * 2,
    *(BUSY,) * 3,
    *DEFERRALS,
    *STATUSES,
    *LIES,
    *PLAIN,
    *KILLED,
    GONE,
)
"""Everything that can happen to a request, the likely things more than once."""
GREETINGS = (*(WELL,) * 24, REQUEST_LOST, *FENCED, *KILLED, *STATUSES, *LIES)
"""What can happen to the question for the capabilities: most often, nothing."""
