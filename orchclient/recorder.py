"""The record path: a draft becomes a durable event. Every statement here is paid for by every call of an agent."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zlib import crc32

from attrs import evolve

from orchclient.config import Settings
from orchclient.core.envelope import Lane, body_text, lane_of
from orchclient.core.errors import InvalidEvent
from orchclient.core.events import Event, Receipt
from orchclient.core.ids import checked_id, uuid7
from orchclient.core.incidents import Incident, resolution
from orchclient.core.jsontext import encode, members_text
from orchclient.core.judging import RequestKind, RequestState
from orchclient.core.questions import content_digest
from orchclient.core.secret import KnownSecrets
from orchclient.core.timestamps import microseconds
from orchclient.core.verbs import Draft
from orchclient.delivery.clock import Clock
from orchclient.outbox import identity, incidents, requests
from orchclient.outbox.journal import Recording
from orchclient.outbox.requests import Request
from orchclient.station import Station, SwitchedOff
from orchclient.tracing import OPENTELEMETRY, loaded, of_span

KNOWN_LANES = 4096

_new = tuple.__new__
"""Makes a named tuple in half the time of a call of its class, which is a function of Python."""


class Recorder:
    """Records for one agent.

    ``always_synced``: no thread will sync later, so every event is synced at once. ``traceparent``: the trace of what
    is recorded outside any span.
    """

    def __init__(
        self,
        agent_id: str,
        station: Station | SwitchedOff,
        settings: Settings,
        clock: Clock,
        secrets: KnownSecrets,
        *,
        always_synced: bool,
        traceparent: str | None = None,
    ) -> None:
        self.agent_id = agent_id
        self._station = station
        self._clock = clock
        self._max_bytes = settings.max_event_bytes
        self._synced = always_synced or settings.durability == "full"
        self._secrets = secrets
        self._traceparent = traceparent
        self._lanes: dict[str, Lane] = {}

    def new_id(self) -> str:
        """A fresh event id, for data that names its own event."""
        return uuid7(self._clock.now_us() // 1000, self._clock.randomness())

    def record(self, draft: Draft, event_id: str | None = None) -> Receipt:
        """Store a draft and return its receipt. Raises ``InvalidEvent`` or ``OutboxError``; then nothing is stored."""
        task_id = draft.task_id
        lane = self._lanes.get(task_id) if type(task_id) is str else None
        if lane is None:
            lane = self._new_lane(task_id)
        members = draft.members
        said, redactor = draft.said, self._secrets.redactor
        if said is None or redactor.extra_keys:  # a name of the user's own may be one of ours
            said = members
        if said and redactor.suspects(said):
            members = self._redacted(members)
        now_us = self._clock.now_us()
        event_id = event_id or uuid7(now_us // 1000, self._clock.randomness())
        type_, priority = draft.type, draft.priority
        traceparent = self._traceparent
        if (api := loaded(OPENTELEMETRY)) is not None:
            traceparent = of_span(api) or traceparent
        body = body_text(event_id, type_, lane, priority, now_us, members, traceparent)
        stored = body.encode()
        if len(stored) > self._max_bytes:
            raise self._too_large(len(stored), draft)
        event = _new(Event, (event_id, task_id, self.agent_id, type_, priority, now_us, crc32(stored), body))
        seq = self._station.record(event, draft.status, draft.synced or self._synced)
        return _new(Receipt, (event_id, seq, now_us))

    def record_error(self, draft: Draft, key: str | None) -> tuple[Receipt, Incident]:
        """Store an error, as one more of the open incident with its key when there is one.

        The event tells how many there were, so it is put together in the transaction that counts it.
        """
        event_id = self.new_id()
        if key is None:
            return self.record(draft, event_id), Incident(draft.task_id, None, event_id, event_id)
        first = Incident(draft.task_id, self.clean_text(key), event_id, event_id)  # stored beside the event, too
        return self._composed(draft, event_id, first, lambda con: _repeated(con, first))

    def record_resolution(self, incident: Incident, note: str | None) -> Receipt | None:
        """Store that an incident is over, once; None when that was said before."""
        event_id, now_us = self.new_id(), self._clock.now_us()

        def work(con: sqlite3.Connection, record: Recording) -> Receipt | None:
            latest = incidents.by_first(con, incident.first_id) or incident
            if not incidents.resolve(con, latest, now_us):
                return None
            event = self.event(resolution(latest, note), event_id, now_us)
            return Receipt(event_id, record(event, None), now_us)

        self.event(resolution(incident, note), event_id, now_us)  # what is wrong with it is told outside
        return self._station.compose(work, event_id)

    def record_question(self, draft: Draft, event_id: str) -> Request:
        """Store a question, or find that it was asked before: by its key within the task, else by its content."""
        data, now_us = draft.data, self._clock.now_us()
        deadline, default = data.get("deadline"), data.get("default")
        event = self.event(draft, event_id, now_us)
        asked = Request(
            event_id,
            RequestKind.QUESTION,
            0,
            "",
            event.task,
            event.agent,
            self.clean_text(data["key"]) if "key" in data else None,
            data["content_digest"],
            event.priority,
            now_us,
            microseconds(datetime.fromisoformat(deadline)) if deadline else None,
            None if default is None else encode(_by_question(default, data["questions"])),
            content=content_digest({name: data[name] for name in ("questions", "context", "default") if name in data}),
        )

        def work(con: sqlite3.Connection, record: Recording) -> Request:
            known = requests.same_question(con, asked.task, asked.key, asked.content)
            return known or _added(con, asked, record(event, draft.status))

        return self._station.compose(work, event_id) or asked

    def record_result(self, draft: Draft, event_id: str) -> Receipt:
        """Store a result on which a person must decide."""
        now_us = self._clock.now_us()
        event = self.event(draft, event_id, now_us)
        asked = Request(event_id, RequestKind.REVIEW, 0, "", event.task, event.agent, None, "", event.priority, now_us)

        def work(con: sqlite3.Connection, record: Recording) -> Request:
            return _added(con, asked, record(event, draft.status))

        kept = self._station.compose(work, event_id) or asked
        return Receipt(event_id, kept.seq, now_us)

    def record_withdrawal(self, draft: Draft, request_id: str) -> Receipt | None:
        """Store that a question needs no answer any more; None when it was settled before, and nothing is stored."""
        event_id, now_us = self.new_id(), self._clock.now_us()
        event = self.event(draft, event_id, now_us)

        def work(con: sqlite3.Connection, record: Recording) -> Receipt | None:
            is_open = requests.settle(con, request_id, RequestState.WITHDRAWN, now_us)
            return Receipt(event_id, record(event, draft.status), now_us) if is_open else None

        return self._station.compose(work, event_id)

    def _composed(
        self, draft: Draft, event_id: str, first: Incident, counted: Callable[[sqlite3.Connection], Incident]
    ) -> tuple[Receipt, Incident]:
        now_us = self._clock.now_us()

        def work(con: sqlite3.Connection, record: Recording) -> tuple[Receipt, Incident]:
            incident = counted(con)
            incidents.note(con, incident)
            seq = record(self.event(draft, event_id, now_us, incident.members), draft.status)
            return Receipt(event_id, seq, now_us), incident

        self.event(draft, event_id, now_us, first.repeated(event_id).members)  # its size is refused outside
        return self._station.compose(work, event_id) or (Receipt(event_id, 0, now_us), first)

    def event(self, draft: Draft, event_id: str, now_us: int, more: str = "") -> Event:
        """A draft as the journal keeps it, with ``more`` members behind its own."""
        task_id = draft.task_id
        lane = (self._lanes.get(task_id) if type(task_id) is str else None) or self._new_lane(task_id)
        members = draft.members
        if self._secrets.redactor.suspects(members):
            members = self._redacted(members)
        traceparent = self._traceparent
        if (api := loaded(OPENTELEMETRY)) is not None:
            traceparent = of_span(api) or traceparent
        body = body_text(event_id, draft.type, lane, draft.priority, now_us, members + more, traceparent)
        stored = body.encode()
        if len(stored) > self._max_bytes:
            raise self._too_large(len(stored), draft)
        return Event(event_id, task_id, self.agent_id, draft.type, draft.priority, now_us, crc32(stored), body)

    def _new_lane(self, task_id: str) -> Lane:
        lane = lane_of(checked_id("task_id", task_id), self.agent_id)
        self._secrets.refuse_in("task_id", task_id)
        if len(self._lanes) >= KNOWN_LANES:
            self._lanes.clear()
        self._lanes[task_id] = lane
        return lane

    def moment(self, from_now: timedelta) -> datetime:
        """The UTC time so long from now. Raises ``InvalidEvent`` for one that no calendar has."""
        try:
            return datetime.fromtimestamp(self._clock.now_us() / 1e6, UTC) + from_now
        except OverflowError as error:
            raise InvalidEvent("deadline", "is beyond the year 9999, or before the year 1") from error

    def clean(self, data: dict[str, Any]) -> dict[str, Any]:
        """JSON-like data without secrets."""
        clean: dict[str, Any] = self._secrets.redactor.redact(data)
        return clean

    def clean_text(self, text: str) -> str:
        """A text without secrets, for what is cut before it is recorded: half a secret would not be found."""
        return self._secrets.redact_text(text)

    def _redacted(self, members: str) -> str:
        return members_text(self.clean(json.loads(f"{{{members[1:]}}}")))

    def _too_large(self, size: int, draft: Draft) -> InvalidEvent:
        data = draft.data
        largest = max(data, key=lambda member: len(encode(data[member])))
        return InvalidEvent(
            largest,
            f"makes the event {size:,} bytes, {self._max_bytes:,} at most: keep the large part elsewhere and pass "
            "a link, or raise the setting max_event_bytes (1,048,576 at most)",
        )


def _by_question(default: Any, questions: list[dict[str, Any]]) -> dict[str, str]:
    return default if isinstance(default, dict) else {each["id"]: default for each in questions}


def _added(con: sqlite3.Connection, asked: Request, seq: int) -> Request:
    """The request of the event that was just stored at ``seq``, remembered in its transaction."""
    request = evolve(asked, seq=seq, source=identity.identities(con).of(seq))
    requests.add(con, request)
    return request


def _repeated(con: sqlite3.Connection, first: Incident) -> Incident:
    known = incidents.open_one(con, first.task, first.key) if first.key is not None else None
    return known.repeated(first.first_id) if known else first
