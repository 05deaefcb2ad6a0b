"""The noise rules: topics, spacing, and quiet hours in any zone."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from orchclient.core.events import NotificationPriority
from orchclient.core.noise import NoiseRules, Quiet, Topic, due_us, topic_of
from orchclient.core.timestamps import microseconds
from tests.sinks.events import ERROR, KINDS, STATUS, event_of

BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = Quiet(22 * 60, 7 * 60, BERLIN)
S = 1_000_000


def at(text: str) -> int:
    return microseconds(datetime.fromisoformat(text).replace(tzinfo=BERLIN))


@pytest.mark.parametrize(
    ("now", "ends"),
    [
        ("2026-11-26T21:59", None),
        ("2026-11-26T22:00", "2026-11-27T07:00"),
        ("2026-11-27T06:59", "2026-11-27T07:00"),
        ("2026-11-27T07:00", None),
        ("2026-03-28T23:00", "2026-03-29T07:00"),  # the night in which the clocks go forward
        ("2026-10-24T23:00", "2026-10-25T07:00"),  # and back
    ],
)
def test_quiet_hours_end_when_the_clock_on_the_wall_says_so(now: str, ends: str | None) -> None:
    assert NIGHT.ends_us(at(now)) == (None if ends is None else at(ends))


def test_quiet_hours_within_a_day() -> None:
    noon = Quiet(12 * 60, 13 * 60, BERLIN)
    assert noon.ends_us(at("2026-11-26T12:30")) == at("2026-11-26T13:00")
    assert noon.ends_us(at("2026-11-26T13:00")) is None


def test_what_is_urgent_is_not_held() -> None:
    rules = NoiseRules(quiet=NIGHT)
    held = [rules.held_until_us(urgency, at("2026-11-26T23:00")) is not None for urgency in range(4)]
    assert held == [True, True, False, False]


def test_progress_of_a_task_shares_a_topic_and_what_asks_has_its_own() -> None:
    keys = {kind: topic.key for kind, event in KINDS.items() if (topic := topic_of(event))}
    assert keys["status"] == "task:task-42"
    assert keys["question"] == keys["withdrawn"] == keys["answered"]
    assert len(set(keys.values())) == len(keys) - 2


def test_errors_with_one_key_share_a_topic_that_their_end_tells_in() -> None:
    def error(**more: object) -> Topic | None:
        return topic_of(event_of("error.escalated.v1", {"error_type": "x", "priority": "low", **more}))

    first, second = error(dedup_key="db"), error(dedup_key="db")
    over = topic_of(event_of("error.resolved.v1", {"dedup_key": "db"}))
    assert first is not None
    assert second is not None
    assert over is not None
    assert first.key == second.key == over.key
    assert first.is_spaced
    critical = topic_of({**ERROR, "data": {**ERROR["data"], "dedup_key": "db"}})
    assert critical is not None
    assert not critical.is_spaced


@pytest.mark.parametrize(
    "event", [{}, {"type": 7, "data": {}, "id": "x"}, {**STATUS, "type": "x"}, {**STATUS, "data": 1}]
)
def test_what_nobody_is_told_has_no_topic(event: dict[str, object]) -> None:
    assert topic_of(event) is None


def test_a_spaced_topic_waits_for_its_turn_and_another_does_not() -> None:
    spaced, urgent = Topic("a", 0, is_spaced=True), Topic("b", 3)
    assert due_us(spaced, None, 15, 100 * S) == 100 * S
    assert due_us(spaced, 90 * S, 15, 100 * S) == 105 * S
    assert due_us(spaced, 10 * S, 15, 100 * S) == 100 * S
    assert due_us(spaced, 10**15, 15, 100 * S) == 100 * S  # told by a clock that was ahead
    assert due_us(urgent, 99 * S, 15, 100 * S) == 100 * S


def test_only_what_is_critical_is_repeated_unless_a_user_says_otherwise() -> None:
    assert [NoiseRules().is_repeated(urgency) for urgency in range(4)] == [False, False, False, True]
    assert NoiseRules(repeats=NotificationPriority.LOW).is_repeated(0)
