"""What two runs are compared by, and how a difference is told."""

from __future__ import annotations

from typing import Any

import pytest

from orchclient.testing import ManualClock
from orchclient.testing.differences import differences, normalised
from orchclient.testing.expectations import Expectation, told_of_unmet


def event(number: int, type_: str = "task.status.v1", task: str = "t", **data: Any) -> dict[str, Any]:
    """An event of which nothing is as in another run but what is said."""
    return {
        "id": f"01a207af-1842-726b-b2a7-{number:012x}",
        "source": f"urn:uuid:{number}",
        "sequence": f"{number:020d}",
        "time": f"2026-11-23T09:14:{number % 60:02d}.250413Z",
        "type": f"dev.orchclient.{type_}",
        "subject": task,
        "agentid": "a",
        "priority": "low",
        "data": {"task_id": task, **data},
    }


def told(expected: list[Any], got: list[Any], **names: str) -> list[str]:
    return differences(normalised(expected, names), normalised(got, names))


def test_what_is_new_in_every_run_is_put_aside() -> None:
    def run(start: int, home: str) -> list[Any]:
        asked = event(
            start, "clarification.requested.v1", deadline=f"2026-11-2{start % 9}T00:00:00Z", step=f"in {home}/x"
        )
        taken = {"clarification_id": asked["id"], "answer_id": f"answer-{start}", "note": f"of {asked['id']}!"}
        return [asked, event(start + 1, "clarification.consumed.v1", **taken)]

    assert told(run(1, "/home/ada"), run(40, "/tmp/17"), **{"/home/ada": "<tmp>", "/tmp/17": "<tmp>"}) == []


def test_a_reference_to_another_event_is_a_difference() -> None:
    first, second = (event(n, "clarification.requested.v1") for n in (1, 2))
    by_first, by_second = (
        event(3, "clarification.consumed.v1", clarification_id=each["id"]) for each in (first, second)
    )
    (line,) = told([first, second, by_first], [first, second, by_second])
    assert line.startswith("event 3 (dev.orchclient.clarification.consumed.v1 of 't') data.clarification_id: expected")


@pytest.mark.parametrize(
    ("expected", "got", "words"),
    [
        ({"a": 45}, {"a": 50}, "data.a: expected 45, got 50"),
        ({"a": 1}, {}, "data.a: expected 1, got nothing"),
        ({}, {"a": None}, "data.a: expected nothing, got None"),
        ({"a": {"b": [1, {"c": "x"}]}}, {"a": {"b": [1, {"c": "y"}]}}, "data.a.b[1].c: expected 'x', got 'y'"),
        ({"a": [1]}, {"a": [1, 2]}, "data.a[1]: expected nothing, got 2"),
        ({"a": True}, {"a": 1}, "data.a: expected True, got 1"),
        ({"a": "x" * 999}, {"a": "y"}, "... (1001 characters), got 'y'"),
    ],
)
def test_a_difference_names_the_field_and_both_values(expected: Any, got: Any, words: str) -> None:
    (line,) = told([event(1, **expected)], [event(2, **got)])
    assert line.startswith("event 1 (dev.orchclient.task.status.v1 of 't') ")
    assert words in line


def test_one_event_more_or_less_does_not_make_all_others_differ() -> None:
    run = [event(n, task=f"t-{n}", n=n) for n in range(5)]
    assert told(run, run[:2] + run[3:]) == [
        "event 3 (dev.orchclient.task.status.v1 of 't-2'): expected, but the run did not record it"
    ]
    assert told(run[:2] + run[3:], run) == [
        "event 3 (dev.orchclient.task.status.v1 of 't-2'): recorded, but not expected here"
    ]


def test_fields_that_are_ignored_are_so_with_all_below_them() -> None:
    one, other = [event(1, a={"b": 1}, ab=1)], [event(1, a={"b": 2}, ab=2)]
    assert [line.split()[5] for line in differences(one, other, ["data.a"])] == ["data.ab:"]


def test_an_expectation_says_how_many_came() -> None:
    events = [event(1, status="testing"), event(2, status="testing")]
    assert Expectation("task.status", "t", {"status": "testing"}, 2).is_met(events)
    once = Expectation("dev.orchclient.task.status.v1", None, {}, 1)
    assert not once.is_met(events)
    assert "type='dev.orchclient.task.status.v1', 1 times: 2 arrived" in told_of_unmet([once], events)
    assert "Nothing arrived" in told_of_unmet([Expectation("gap")], [])


def test_the_clock_moves_when_it_is_told_to() -> None:
    clock = ManualClock()
    date, elapsed = clock.now_us(), clock.monotonic()
    clock.advance("5m")
    assert 300e6 <= clock.now_us() - date < 301e6
    assert 300 <= clock.monotonic() - elapsed < 330
    clock.sleep(3600)
    assert clock.monotonic() - elapsed >= 3900
    clock.jump(-7200)
    assert clock.now_us() < date
    assert [ManualClock().randomness(), ManualClock().jitter()] == [ManualClock().randomness(), ManualClock().jitter()]
