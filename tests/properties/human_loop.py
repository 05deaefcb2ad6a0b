"""The life of questions as a machine: an agent that asks and is killed, people who answer in every way, time, outages.

The file, the client and the way back are real; the clock, the wire and the people are the machine's. What an agent is
told is held against what people did, in words of its own.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from attrs import define, field
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from orchclient import OrchestratorClient
from orchclient.core.answers import Answer
from orchclient.core.judging import RequestState
from orchclient.handles import Clarification
from orchclient.outbox import journal, requests
from orchclient.testing.items import human, item_of, new_id, now
from tests.delivery.inbox_bench import InboxBench

from .profiles import MEMORY

KEYS = ("a", "b")
DEADLINE_S = 30
GRACE_S = 10
WAYS = ("good", "stale", "rejected", "declined", "foreign", "marked late", "timeout")
VALID = ("good", "rejected", "declined", "timeout")


@define
class Question:
    """One question as people see it."""

    id: str
    digest: str
    source: str
    deadline_us: int | None
    has_default: bool
    given: dict[str, str] = field(factory=dict)  # every answer that was given, and how
    told: Answer | None = None  # what the agent was told
    stored: str | None = None  # the first valid answer that reached the file while it was open
    is_withdrawn: bool = False


class HumanLoop(RuleBasedStateMachine):
    """Questions under two keys of one task."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if Path(MEMORY).is_dir() else None))
        self.bench = InboxBench(self.folder / "outbox.db")
        self.clients: list[OrchestratorClient] = []
        self.current: dict[str, Question] = {}  # by key: the newest question
        self.questions: dict[str, Question] = {}
        self.on_the_way: list[tuple[Question, str, str]] = []  # answers in the inbox that no poll has fetched
        self.is_up = True
        self.start_again()

    def teardown(self) -> None:
        for client in self.clients:
            client.close(0)
        self.bench.outbox.close()
        shutil.rmtree(self.folder)

    # --- the agent ------------------------------------------------------------------------------------------------

    @rule()
    def start_again(self) -> None:
        """Killed, and started again: nothing of the old process is closed or used."""
        self.client = OrchestratorClient(
            "agent", outbox=self.bench.path, sinks=[], background=False, clock=self.bench.clock
        )
        self.clients.append(self.client)

    @rule(key=st.sampled_from(KEYS), ends=st.booleans(), default=st.booleans())
    def ask(self, key: str, ends: bool, default: bool) -> None:
        us = self.bench.clock.us
        known = self.current.get(key)
        is_same = known is not None and not self.is_over(known)
        deadline = datetime.fromtimestamp(us / 1e6, UTC) + timedelta(seconds=DEADLINE_S) if ends else None
        asked = self.client.request_clarification(
            "t", "Ship it?", deadline=deadline, default="wait" if default else None, key=key
        )
        if is_same:
            assert known is not None
            assert asked.id == known.id, "the same question was asked twice"
            return
        assert asked.id not in self.questions, "a question that is over came back"
        data = self.data_of(asked.id)
        question = Question(
            asked.id,
            data["content_digest"],
            f"urn:uuid:{self.bench.source}",
            us + DEADLINE_S * 1_000_000 if ends else None,
            default,
        )
        self.current[key] = self.questions[asked.id] = question

    def is_over(self, question: Question) -> bool:
        """Whether asking again is a new question; asked of the file, since a handle settles what is overdue."""
        found = self.bench.outbox.query(lambda con: requests.by_id(con, question.id))
        assert found is not None, "a question is forgotten"
        is_expired = found.state is RequestState.EXPIRED and not question.has_default
        return question.is_withdrawn or is_expired

    @precondition(lambda self: self.questions)
    @rule(data=st.data(), takes=st.booleans(), polls=st.booleans())
    def look(self, data: st.DataObject, takes: bool, polls: bool) -> None:
        if polls:
            self.poll()
        question = self.drawn(data)
        handle = self.handle(question)
        answer = handle.answer if takes else handle.wait(0)
        if answer is not None:
            self.judge(question, answer)
        else:
            assert question.told is None, "an answer that was told is gone"
            assert question.is_withdrawn or question.stored is None, "an answer that is stored is not told"

    @precondition(lambda self: self.questions)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        question = self.drawn(data)
        is_open = self.handle(question).state.is_open
        assert (self.handle(question).withdraw() is not None) == is_open
        question.is_withdrawn |= is_open

    # --- people ---------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.questions)
    @rule(data=st.data(), way=st.sampled_from(WAYS), twice=st.booleans())
    def answer(self, data: st.DataObject, way: str, twice: bool) -> None:
        question, answer_id = self.drawn(data), f"answer-{new_id()}"
        said = {
            "clarification_id": new_id() if way == "foreign" else question.id,
            "answer_id": answer_id,
            "outcome": {"rejected": "rejected", "declined": "declined", "timeout": "expired"}.get(way, "approved"),
            "responder": {"kind": "timeout"} if way == "timeout" else human("u-1"),
            "answered_at": now(),
            "content_digest": "sha256:" + "0" * 64 if way == "stale" else question.digest,
            **({"late": True} if way == "marked late" else {}),
        }
        for _ in range(1 + twice):
            self.bench.orchestrator.inbox.put(item_of("clarification.answered.v1", "t", said), question.source)
        question.given[answer_id] = way
        self.on_the_way.append((question, answer_id, way))

    # --- the world ------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((1, 15, DEADLINE_S + GRACE_S)))
    def pass_time(self, seconds: int) -> None:
        self.bench.clock.pass_s(seconds)

    @rule()
    def fail_or_heal(self) -> None:
        self.is_up = not self.is_up
        self.bench.wire.loses = lambda request: not self.is_up

    @rule()
    def poll(self) -> None:
        """Another process is elected, and polls until there is nothing more."""
        before = {id_: self.may_be_answered(each) for id_, each in self.questions.items()}
        polls = len(self.bench.wire.polls)
        self.bench.worker = self.bench.elected()
        self.bench.turns()
        if not self.is_up or len(self.bench.wire.polls) == polls:
            return
        for question, answer_id, way in self.on_the_way:
            if way in VALID and before[question.id]:
                question.stored = question.stored or answer_id
        self.on_the_way = []

    def may_be_answered(self, question: Question) -> bool:
        """Whether an answer that is fetched now must settle it."""
        us, deadline_us = self.bench.clock.us, question.deadline_us
        is_in_time = deadline_us is None or us < deadline_us
        return is_in_time and self.handle(question).state.is_open

    # --- the law --------------------------------------------------------------------------------------------------

    def judge(self, question: Question, answer: Answer) -> None:
        """Hold what the agent is told against what people did."""
        assert question.told in (None, answer), "the agent was told something else before"
        assert not question.is_withdrawn, "an answer to a withdrawn question"
        if question.stored is not None:
            assert answer.answer_id == question.stored, "not the first valid answer"
        if answer.outcome == "expired":
            is_past = question.deadline_us is not None and question.deadline_us <= self.bench.clock.us
            assert is_past or "timeout" in question.given.values(), "expired before its time"
            assert answer.responder.kind == "timeout"
            assert answer.is_default == question.has_default
        else:
            way = question.given[answer.answer_id or ""]
            assert way in VALID, f"an answer that is {way}"
            assert way != "timeout", "a timeout was told as a decision"
        question.told = answer

    @invariant()
    def nothing_is_told_twice(self) -> None:
        events = self.bench.outbox.query(lambda con: list(journal.read_range(con, 0, journal.MAX_SEQ)))
        asked = [each.id for each in events if each.type == "clarification.requested.v1"]
        assert asked == list(self.questions), "other questions were sent than asked"
        consumed = Counter(_data(each)["clarification_id"] for each in events if each.type.endswith("consumed.v1"))
        wanted = [each.id for each in self.questions.values() if each.told is not None and each.told.answer_id]
        assert consumed == Counter(wanted), "an answer was not consumed once"

    # --- ----------------------------------------------------------------------------------------------------------

    def drawn(self, data: st.DataObject) -> Question:
        return self.questions[data.draw(st.sampled_from(sorted(self.questions)))]

    def handle(self, question: Question) -> Clarification:
        found = self.client.clarification(question.id)
        assert found is not None, "a question is forgotten"
        return found

    def data_of(self, event_id: str) -> dict[str, Any]:
        (entry,) = self.bench.outbox.query(lambda con: journal.find(con, event_id))
        return _data(entry)


def _data(entry: journal.Entry) -> dict[str, Any]:
    data: dict[str, Any] = json.loads("{" + entry.body)["data"]
    return data
