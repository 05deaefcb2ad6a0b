"""What people were asked and what they said: looked at, waited for, and taken by the agent, once.

An answer is stored before anybody waits for it (the poller and ``orchclient answer`` do that), so waiting is looking at
the file: it works in any thread and process, after a fork, and after a restart.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attrs import evolve, frozen

from orchclient.core import verbs
from orchclient.core.answers import Answer, Responder, answer_of, expired, responder_of
from orchclient.core.events import Receipt
from orchclient.core.inbox_items import CANCEL_REQUESTED, MESSAGE
from orchclient.core.judging import ItemVerdict, RequestKind, RequestState
from orchclient.core.verbs import Draft
from orchclient.delivery.clock import Clock
from orchclient.delivery.interruption import is_cut
from orchclient.outbox import inbox, requests
from orchclient.outbox.inbox import Received
from orchclient.outbox.journal import Recording
from orchclient.outbox.requests import Request
from orchclient.recorder import Recorder
from orchclient.station import Station, SwitchedOff

LOOK_S = 0.02
"""How often somebody who waits looks: a point look-up in the file, some 50 microseconds."""


@frozen
class Message:
    """A word to the agent about a task, or a request to stop it: data with a named sender. True."""

    task_id: str
    text: str  # of a request to stop: its reason
    sender: Responder
    channel: str | None
    sent_at: datetime
    urgent: bool = False

    def __bool__(self) -> bool:
        return True


class People:
    """The human side of one agent's outbox."""

    def __init__(self, recorder: Recorder, station: Station | SwitchedOff, clock: Clock) -> None:
        self._recorder = recorder
        self._station = station
        self._clock = clock

    def request(self, request_id: str) -> Request | None:
        """What is known of a request, a deadline that has passed included; None when nothing is."""
        request = self._station.query(lambda con: requests.by_id(con, request_id))
        now_us = self._clock.now_us()
        if request is None or not request.state.is_open or (request.deadline_us or now_us + 1) > now_us:
            return request
        grace_us = requests.GRACE_US if self._station.may_hear else 0
        if self._station.write(lambda con: requests.settle_overdue(con, now_us, grace_us), synced=True):
            return self._station.query(lambda con: requests.by_id(con, request_id))
        return request

    def open_questions(self) -> list[Request]:
        """This agent's questions that wait for a person, oldest first."""
        agent = self._recorder.agent_id
        found = self._station.query(lambda con: requests.open_ones(con, agent)) or []
        return [each for each in found if each.kind is RequestKind.QUESTION]

    def state(self, request_id: str) -> RequestState:
        """Where a request stands; open, too, when nothing is known of it."""
        request = self.request(request_id)
        return request.state if request else RequestState.OPEN

    def take(self, request_id: str) -> Answer | None:
        """The decision, None while there is none; that the agent has it is recorded the first time."""
        request = self.request(request_id)
        if request is None or request.state.is_open or request.state is RequestState.WITHDRAWN:
            return None
        if request.answer is not None and request.consumed_us is None:
            self._consume(request)
        return _decision(request)

    def wait(self, request_id: str, timeout_s: float | None) -> Answer | None:
        """The decision as soon as there is one; None after the timeout, or when it was withdrawn."""
        until = None if timeout_s is None else self._clock.monotonic() + timeout_s
        if not self.state(request_id).is_open:
            return self.take(request_id)
        with self._station.attended():
            while self.state(request_id).is_open:
                left_s = LOOK_S if until is None else until - self._clock.monotonic()
                if left_s <= 0 or is_cut():
                    return None
                self._clock.sleep(min(left_s, LOOK_S))
        return self.take(request_id)

    def late_answers(self, request_id: str) -> tuple[Answer, ...]:
        """Valid answers that came when it was settled already, in order; they change nothing."""
        items = self._station.query(lambda con: inbox.received(con, request=request_id)) or []
        return tuple(answer_of(each.data, is_late=True) for each in items if each.verdict is ItemVerdict.LATE)

    def withdraw(self, task_id: str, request_id: str, reason: str) -> Receipt | None:
        """Tell people that no answer is needed any more; None when it was settled before."""
        draft = verbs.clarification_withdrawal(task_id, request_id, reason)
        return self._recorder.record_withdrawal(draft, request_id)

    def cancellation(self, task_id: str) -> Message | None:
        """The newest request to stop a task."""
        items = self._station.query(lambda con: inbox.told(con, task_id, CANCEL_REQUESTED, 1)) or []
        return _cancellation(items[0].data) if items else None

    def messages(self, task_id: str) -> tuple[Message, ...]:
        """What people told the agent about a task, in order; the last thousand."""
        items = self._station.query(lambda con: inbox.told(con, task_id, MESSAGE, 1000)) or []
        return tuple(_message(each.data) for each in items)

    def received(self, after_n: int, task_id: str | None) -> tuple[Received, ...]:
        """Every item as it came, with what became of it."""
        return tuple(self._station.query(lambda con: inbox.received(con, after_n=after_n, task=task_id)) or ())

    def _consume(self, request: Request) -> None:
        event_id, now_us = self._recorder.new_id(), self._clock.now_us()
        draft = _consumption(request)
        event = self._recorder.event(draft, event_id, now_us) if draft else None

        def work(con: sqlite3.Connection, record: Recording) -> None:
            if requests.consume(con, request.id, now_us) and event is not None and draft is not None:
                record(event, draft.status)

        self._station.compose(work, event_id)


def _decision(request: Request) -> Answer:
    given = answer_of(request.answered) if request.answered else None
    if given is not None and given.outcome != "expired":
        return given
    fallback = expired(json.loads(request.fallback) if request.fallback else None)
    return evolve(fallback, answer_id=given.answer_id, answered_at=given.answered_at) if given else fallback


_FOLLOWS = {"approved": "approved", "changes_requested": "in_progress", "rejected": "failed"}


def _consumption(request: Request) -> Draft | None:
    """What is told when the agent takes a decision: that it has it, or where the reviewed task stands now."""
    data = request.answered or {}
    if request.kind is RequestKind.QUESTION:
        return verbs.clarification_consumption(request.task, request.id, request.answer_id or "", data)
    status = _FOLLOWS.get(data.get("outcome", ""))
    return verbs.status_update(request.task, status, None, None, None) if status else None


def _cancellation(data: Mapping[str, Any]) -> Message:
    at = datetime.fromisoformat(data["requested_at"])
    return Message(data["task_id"], data.get("reason", ""), responder_of(data["requested_by"]), data.get("channel"), at)


def _message(data: Mapping[str, Any]) -> Message:
    at = datetime.fromisoformat(data["sent_at"])
    sender = responder_of(data["sent_by"])
    return Message(data["task_id"], data["text"], sender, data.get("channel"), at, data.get("urgent", False))
