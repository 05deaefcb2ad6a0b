"""Scores, priorities, ids, JSON text, health, instants: the small rules, each by its table."""

from __future__ import annotations

import pickle
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from attrs import frozen

from orchclient.core.errors import InvalidEvent
from orchclient.core.escalation import escalation_priority
from orchclient.core.health import Health, overall
from orchclient.core.ids import checked_id
from orchclient.core.jsontext import json_text
from orchclient.core.quality import quality_score
from orchclient.core.task_state import TaskState, advanced
from orchclient.core.timestamps import instant, microseconds, rfc3339


@pytest.mark.parametrize(
    ("results", "score"),
    [
        ({"tests_passed": 15, "tests_failed": 1}, 75.0),
        ({"tests_passed": 10, "total_tests": 20}, 40.0),
        ({"tests_passed": 10, "tests_failed": 0, "code_coverage": 81, "lint_score": 8.1}, 100.0),
        ({"tests_passed": 10, "code_coverage": 80, "lint_score": 8}, 80.0),
        ({}, 50.0),
        ({"code_coverage": 95}, 60.0),
        ({"tests_passed": 10, "security_score": 30}, 30.0),
        ({"tests_passed": 30, "total_tests": 20}, 80.0),
    ],
)
def test_the_quality_score_follows_its_table(results: dict[str, Any], score: float) -> None:
    assert quality_score(results) == score


@pytest.mark.parametrize("value", ["15", -1, float("nan"), True])
def test_a_test_result_that_is_no_number_is_refused_by_its_path(value: Any) -> None:
    with pytest.raises(InvalidEvent, match=r"test_results at \$\.tests_passed"):
        quality_score({"tests_passed": value})


@pytest.mark.parametrize(
    ("error_type", "attempts", "priority"),
    [
        ("github_api_auth", 0, "critical"),
        ("database_connection", 9, "critical"),
        ("security_violation", 1, "critical"),
        ("timeout", 4, "high"),
        ("timeout", 3, "high"),
        ("timeout", 2, "medium"),
        ("timeout", 1, "medium"),
        ("timeout", 0, "low"),
    ],
)
def test_the_priority_of_an_error_follows_the_matrix(error_type: str, attempts: int, priority: str) -> None:
    assert escalation_priority(error_type, attempts) == priority


@pytest.mark.parametrize("bad", ["", "  ", "a\nb", "a\x7fb", "a\ud800", "x" * 257, 7, None, b"task"])
def test_an_id_that_cannot_be_sent_is_refused_by_the_argument_s_name(bad: Any) -> None:
    with pytest.raises(InvalidEvent, match=r"^task_id: "):
        checked_id("task_id", bad)


@pytest.mark.parametrize("good", ["task-1", "Aufgabe/größe", "a b", "x" * 256])
def test_an_id_of_printable_characters_is_taken(good: str) -> None:
    assert checked_id("task_id", good) == good


@frozen
class Artifact:
    name: str
    size: int


def test_values_of_agents_become_json() -> None:
    value = {
        "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "on": date(2026, 1, 2),
        "took": timedelta(seconds=1.5),
        "path": Path("/a/b"),
        "id": UUID(int=7),
        "cost": Decimal("1.10"),
        "set": frozenset({1}),
        "artifact": Artifact("a.py", 3),
    }
    assert json_text({"metadata": value}) == (
        '{"metadata":{"at":"2026-01-02T03:04:05+00:00","on":"2026-01-02","took":1.5,"path":"/a/b",'
        '"id":"00000000-0000-0000-0000-000000000007","cost":"1.10","set":[1],"artifact":{"name":"a.py","size":3}}}'
    )


def circle() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return inner


@pytest.mark.parametrize(
    ("value", "path", "problem"),
    [
        ({"a": [1, {"b": float("nan")}]}, "$.a[1].b", "nan"),
        ({"a": float("-inf")}, "$.a", "-inf"),
        ({"a": b"x"}, "$.a", "bytes"),
        ({"a": object()}, "$.a", "object"),
        ({"a": {(1, 2): 3}}, "$.a", "key of type tuple"),
        ({"a": circle()}, r"\$\.a\[0\]", "nested deeper"),
    ],
)
def test_what_has_no_json_form_is_refused_by_its_path(value: Any, path: str, problem: str) -> None:
    with pytest.raises(InvalidEvent, match=problem) as caught:
        json_text({"task_id": "t", "metadata": value})
    assert caught.value.argument == "metadata"
    assert caught.value.path == path or path.startswith("\\")


def test_lone_surrogates_become_replacement_characters() -> None:
    assert json_text({"m": "bad \udcff name"}) == '{"m":"bad � name"}'


def test_an_invalid_event_survives_pickling() -> None:
    error = InvalidEvent("metadata", "is wrong", "$.a")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.argument, again.path) == (str(error), "metadata", "$.a")


@pytest.mark.parametrize(
    ("recorded", "sinks", "word"),
    [
        (0, [("delivering", 0, 0)], Health.INACTIVE),
        (5, [], Health.INACTIVE),
        (5, [("delivering", 0, 0)], Health.HEALTHY),
        (5, [("waiting", 1, 0)], Health.DEGRADED),
        (5, [("delivering", 0, 2)], Health.DEGRADED),
        (5, [("waiting", 5, 0)], Health.UNHEALTHY),
        (5, [("delivering", 0, 0), ("paused", 1, 0)], Health.UNHEALTHY),
    ],
)
def test_health_is_as_good_as_the_worst_destination(
    recorded: int, sinks: list[tuple[str, int, int]], word: Health
) -> None:
    assert overall(recorded, sinks) is word


def test_a_state_takes_what_an_event_says_and_keeps_the_rest() -> None:
    state = advanced(TaskState("t"), 1, "a", 5, {"status": "in_progress", "metadata": {"x": 1}, "current_step": "s"})
    state = advanced(state, 2, "b", 6, {"progress_percentage": 10, "metadata": {"y": 2}})
    assert (state.status, state.current_step, state.progress_percentage) == ("in_progress", "s", 10)
    assert state.metadata == {"x": 1, "y": 2}
    assert advanced(state, 2, "c", 9, {"status": "failed"}) is state


def test_instants_round_trip_and_a_wild_clock_is_shown_at_the_calendar_s_end() -> None:
    us = 1_795_400_251_972_975
    assert microseconds(instant(us)) == us
    assert rfc3339(us) == "2026-11-23T02:17:31.972975Z"
    assert rfc3339(10**18).startswith("9999-12-31T23:59:59")
