"""Hypothesis strategies: any event that an agent may record, whole runs of an outbox, answers, and outages.

    @given(strategies.events())
    def test_my_destination_renders_any_event(event): ...

Events are made by the same code as in earnest, so they keep the wire contract (docs/wire.md); texts in them are any
text. Needs Hypothesis (``pip install hypothesis``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from orchclient.core import verbs
from orchclient.core.envelope import body_text, event_text, lane_of, opening
from orchclient.core.events import NotificationPriority, TaskStatus
from orchclient.core.gap import Gap, GapReason, gap_event
from orchclient.core.http import HttpOutcome, HttpReply, NoReply
from orchclient.core.ids import uuid7
from orchclient.core.incidents import Incident, resolution
from orchclient.core.timestamps import microseconds
from orchclient.core.verbs import Draft
from orchclient.testing.faultplan import Fault

Event = dict[str, Any]

SOURCE = "8f14e45f-ceea-467f-a0e6-4b0f1f4d2a31"
_FIRST, _LAST = datetime(2020, 1, 1), datetime(2060, 1, 1)  # noqa: DTZ001  Hypothesis adds the zone

# By category and not by codec="utf-8", for which Hypothesis tries every character: most of a second at the first draw,
# in which its health check calls a strategy slow. For the same reason it makes its table of characters now.
_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
_ids = st.text(st.characters(exclude_categories=["Cc", "Cn", "Cs", "Co"]), min_size=1, max_size=40).filter(str.strip)
_texts.validate()
_ids.validate()
_randomness = st.binary(min_size=10, max_size=10)
_numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)


def texts() -> st.SearchStrategy[str]:
    """Any text, but for lone surrogates, which JSON cannot carry."""
    return _texts


def task_ids() -> st.SearchStrategy[str]:
    """What may name a task or an agent: printable, and not blank."""
    return _ids


def json_values() -> st.SearchStrategy[Any]:
    """Whatever JSON can hold, some levels deep."""
    return st.recursive(
        st.none() | st.booleans() | _numbers | _texts,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4),
        max_leaves=8,
    )


def json_objects() -> st.SearchStrategy[dict[str, Any]]:
    """An object, as metadata, contexts and results are."""
    return st.dictionaries(_texts, json_values(), max_size=4)


# --- events -------------------------------------------------------------------------------------------------------

_KINDS = ("status", "question", "withdrawn", "consumed", "completed", "error", "resolved", "gap")


def events(kinds: Sequence[str] = _KINDS, tasks: st.SearchStrategy[str] | None = None) -> st.SearchStrategy[Event]:
    """One CloudEvent as an orchestrator gets it.

    :param kinds: some of status, question, withdrawn, consumed, completed, error, resolved, gap.
    :param tasks: the ids of tasks to choose from; default: any.
    """
    return st.builds(_placed, _recorded(kinds, tasks or _ids), st.integers(1_000, 2**40), st.just(SOURCE))


def runs(max_size: int = 20, kinds: Sequence[str] = _KINDS[:-1]) -> st.SearchStrategy[list[Event]]:
    """What one outbox sends, in its order: one source, sequences from 1 on, different ids, few tasks."""
    tasks = st.sampled_from(("alpha", "beta", 'γ "3"\\'))
    recorded = st.lists(_recorded(kinds, tasks), max_size=max_size, unique_by=lambda body: body[6:42])
    return recorded.map(lambda bodies: [_placed(body, place, SOURCE) for place, body in enumerate(bodies, 1)])


def _placed(body: str, place: int, source: str) -> Event:
    event: Event = json.loads(event_text(opening(source), place, body))
    return event


@st.composite
def _recorded(draw: st.DrawFn, kinds: Sequence[str], tasks: st.SearchStrategy[str]) -> str:
    """The text that a journal keeps."""
    at_us = microseconds(draw(st.datetimes(_FIRST, _LAST, timezones=st.just(UTC))))
    event_id = uuid7(at_us // 1000, draw(_randomness))
    task, agent, kind = draw(tasks), draw(_ids), draw(st.sampled_from(kinds))
    if kind == "gap":
        first, size, reason = draw(st.integers(1, 500)), draw(st.integers(1, 400)), draw(st.sampled_from(GapReason))
        gap = Gap(first, first + size - 1, reason, agent, draw(st.none() | st.just(task)))
        return gap_event(gap, event_id, at_us).body
    draft = draw(_DRAFTS[kind](event_id, task))
    trace = draw(st.none() | st.just("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"))
    return body_text(event_id, draft.type, lane_of(task, agent), draft.priority, at_us, draft.members, trace)


def _status(event_id: str, task: str) -> st.SearchStrategy[Draft]:
    progress = st.none() | st.integers(-10, 110) | st.floats(0, 100)
    return st.builds(
        verbs.status_update,
        st.just(task),
        st.sampled_from(TaskStatus),
        st.none() | json_objects(),
        progress,
        st.none() | _texts,
        st.none() | st.integers(1, 9),
    )


@st.composite
def _question(draw: st.DrawFn, event_id: str, task: str) -> Draft:
    words = _texts.filter(str.strip)
    options = draw(st.none() | st.lists(words, min_size=1, max_size=5, unique=True))
    return verbs.clarification_request(
        _unchanged,
        event_id,
        task,
        draw(words),
        draw(st.sampled_from(NotificationPriority)),
        draw(st.none() | json_objects()),
        options,
        draw(st.sampled_from(options)) if options and draw(st.booleans()) else None,
        None if options else draw(st.none() | words),
        draw(st.none() | st.datetimes(_FIRST, _LAST, timezones=st.just(UTC))),
        draw(st.none() | _ids),
    )


def _unchanged(data: dict[str, Any]) -> dict[str, Any]:
    return data


def _withdrawn(event_id: str, task: str) -> st.SearchStrategy[Draft]:
    return st.builds(verbs.clarification_withdrawal, st.just(task), _event_ids(), _texts)


def _consumed(event_id: str, task: str) -> st.SearchStrategy[Draft]:
    answer_ids = _ids.map(lambda text: f"answer-{text}")
    return st.builds(verbs.clarification_consumption, st.just(task), _event_ids(), answer_ids, st.just({}))


def _completed(event_id: str, task: str) -> st.SearchStrategy[Draft]:
    counts = st.integers(0, 10_000)
    results = st.fixed_dictionaries(
        {},
        optional={"tests_passed": counts, "tests_failed": counts, "code_coverage": st.floats(0, 100), "note": _texts},
    )
    return st.builds(
        verbs.completion_report,
        st.just(event_id),
        st.just(task),
        st.none() | _texts,
        results,
        st.none() | json_objects(),
        st.booleans(),
    )


def _error(event_id: str, task: str) -> st.SearchStrategy[Draft]:
    types = st.sampled_from(("github_api_auth", "database_connection", "security_violation", "flaky_test"))
    return st.builds(
        verbs.error_escalation,
        st.just(str),
        st.just(task),
        types | _ids,
        _texts,
        st.integers(0, 9),
        st.none() | json_objects(),
        st.booleans(),
        st.none() | _ids,
        st.none() | _texts,
    )


def _resolved(event_id: str, task: str) -> st.SearchStrategy[Draft]:
    incidents = st.builds(Incident, st.just(task), st.none() | _ids, _event_ids(), _event_ids(), st.integers(1, 99))
    return st.builds(resolution, incidents, st.none() | _texts)


def _event_ids() -> st.SearchStrategy[str]:
    return st.builds(uuid7, st.integers(0, 2**47), _randomness)


_DRAFTS: Mapping[str, Any] = {
    "status": _status,
    "question": _question,
    "withdrawn": _withdrawn,
    "consumed": _consumed,
    "completed": _completed,
    "error": _error,
    "resolved": _resolved,
}


# --- what goes wrong ----------------------------------------------------------------------------------------------


def fault_plans(max_size: int = 6) -> st.SearchStrategy[list[Fault]]:
    """Troubles after which everything must still arrive, for ``receiver.plan(*faults)``: outages and lost answers."""
    statuses = st.sampled_from((408, 425, 429, 500, 502, 503, 504)).map(Fault.status)
    others = st.sampled_from((Fault.ok(), Fault.lose_reply(), Fault.lose_reply(reset=False), Fault.empty_ok()))
    nonsense = st.sampled_from((Fault.not_json(), Fault.garbage(), Fault.foreign_ids()))
    return st.lists(statuses | others | nonsense, max_size=max_size)


def outcomes() -> st.SearchStrategy[HttpOutcome]:
    """Whatever may come back to a request, none at all included, for the ``decide`` of a destination of your own."""
    bodies = st.binary(max_size=60) | json_values().map(lambda value: json.dumps(value).encode())
    headers = st.fixed_dictionaries(
        {}, optional={"retry-after": _texts | st.integers().map(str), "content-type": _texts}
    )
    replies = st.builds(HttpReply, st.integers(100, 599), headers, bodies)
    reasons = st.sampled_from(("connect", "tls", "timeout", "broken", "protocol", "too_large"))
    return replies | st.builds(NoReply, reasons, _texts)
