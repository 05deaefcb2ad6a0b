"""Superseded progress: what may go, and that a receiver ends up knowing the same."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchclient.core.superseded import Told, superseded, superseded_repeats, told_by_update
from orchclient.core.task_state import TaskState, advanced


def update(seq: int, task: str = "t", status: str = "testing", **data: Any) -> Told:
    return told_by_update(seq, task, {"task_id": task, "status": status, **data})


def test_progress_that_a_later_update_tells_again_is_superseded_and_the_change_of_status_stays() -> None:
    told = [update(seq, progress_percentage=seq) for seq in range(1, 6)]
    assert superseded(told) == [2, 3, 4]


def test_metadata_that_no_later_update_repeats_is_kept() -> None:
    told = [update(1), update(2, metadata={"a": 1, "b": 1}), update(3, metadata={"a": 2}), update(4, metadata={"a": 3})]
    assert superseded(told) == [3]


def test_tasks_do_not_supersede_each_other() -> None:
    told = [update(1, "a"), update(2, "b"), update(3, "a"), update(4, "b"), update(5, "a")]
    assert superseded(told) == [3]


def test_another_event_of_the_task_ends_a_run() -> None:
    told = [update(1), update(2), update(3), Told(4, "t"), update(5), update(6)]
    assert superseded(told) == [2]


def test_a_change_of_status_and_back_is_history() -> None:
    told = [update(seq, status=status) for seq, status in enumerate(["testing", "pending"] * 4, 1)]
    assert superseded(told) == []


names = st.dictionaries(st.sampled_from("abc"), st.integers(0, 9), max_size=2)
members = st.fixed_dictionaries(
    {"status": st.sampled_from(["testing", "in_progress"])},
    optional={"progress_percentage": st.integers(0, 100), "current_step": st.sampled_from("xyz"), "metadata": names},
)
histories = st.lists(st.tuples(st.sampled_from("ab"), st.none() | members), max_size=40)


@given(histories)
def test_a_receiver_that_never_gets_what_is_superseded_knows_the_same_of_every_task(
    history: list[tuple[str, dict[str, Any] | None]],
) -> None:
    events = list(enumerate(history, 1))
    told = [Told(n, task) if data is None else told_by_update(n, task, data) for n, (task, data) in events]
    gone = set(superseded(told))
    for task in "ab":
        everything, kept = TaskState(task), TaskState(task)
        for n, (name, data) in events:
            if name == task:
                everything = advanced(everything, n, "agent", n, data or {})
                kept = kept if n in gone else advanced(kept, n, "agent", n, data or {})
            if name == task and data is None:
                assert kept == everything  # nothing is missing when something else is said of the task
        assert kept == everything


def test_of_an_incident_its_newest_repeat_stays() -> None:
    assert superseded_repeats([(2, "a"), (3, "a"), (5, "b"), (6, "a"), (9, "c"), (10, "c")]) == [2, 3, 9]
    assert superseded_repeats([]) == []
