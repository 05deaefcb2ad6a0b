"""The record path: a draft becomes a durable event. Every statement here is paid for by every call of an agent."""

from __future__ import annotations

import json
from typing import Any
from zlib import crc32

from orchclient.config import Settings
from orchclient.core.envelope import Lane, body_text, lane_of
from orchclient.core.errors import InvalidEvent
from orchclient.core.events import Event, Receipt
from orchclient.core.ids import checked_id, uuid7
from orchclient.core.jsontext import encode, members_text
from orchclient.core.secret import KnownSecrets
from orchclient.core.verbs import Draft
from orchclient.delivery.clock import Clock
from orchclient.station import Station, SwitchedOff
from orchclient.tracing import OPENTELEMETRY, loaded, of_span

KNOWN_LANES = 4096


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
        self._agent_id = agent_id
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
        if self._secrets.redactor.suspects(members):
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
        event = Event(event_id, task_id, self._agent_id, type_, priority, now_us, crc32(stored), body)
        seq = self._station.record(event, draft.status, draft.synced or self._synced)
        return Receipt(event_id, seq, now_us)

    def _new_lane(self, task_id: str) -> Lane:
        lane = lane_of(checked_id("task_id", task_id), self._agent_id)
        self._secrets.refuse_in("task_id", task_id)
        if len(self._lanes) >= KNOWN_LANES:
            self._lanes.clear()
        self._lanes[task_id] = lane
        return lane

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
