"""How old events are: in time that passed, whatever the dates say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchclient.core.ages import BELIEVED, MARKS, Ages

DAY_US = 86_400 * 10**6
WEEK_US = 7 * DAY_US

Look = tuple[int, bool, int, int]
"""Time since the look before, whether the same process made that one, by how much the clock jumped, new events."""

looks = st.lists(
    st.tuples(st.integers(0, 2 * DAY_US), st.booleans(), st.integers(-4000 * DAY_US, 4000 * DAY_US), st.integers(0, 9)),
    max_size=200,
)


def test_what_was_there_a_week_of_looks_ago_is_old_and_nothing_younger() -> None:
    ages = Ages()
    for day in range(10):
        ages = ages.looked(day * DAY_US, DAY_US if day else None, 100 * (day + 1), WEEK_US)
    assert ages.old_seq(WEEK_US) == 300  # of the looks on days 0, 1 and 2


def test_the_first_look_at_an_outbox_makes_nothing_old() -> None:
    assert Ages().looked(4000 * DAY_US, None, 100, WEEK_US).old_seq(WEEK_US) == 0


def test_of_the_time_between_two_processes_a_seventh_of_the_retention_is_believed() -> None:
    ages = Ages().looked(0, None, 1, WEEK_US).looked(4000 * DAY_US, None, 2, WEEK_US)
    assert ages.passed_us == WEEK_US // BELIEVED


def test_without_retention_what_was_there_at_the_look_is_old() -> None:
    assert Ages().looked(5, None, 100, 0).old_seq(0) == 100


@given(looks)
def test_no_event_is_old_before_its_time_however_the_clock_jumps(told: list[Look]) -> None:
    ages, now_us, jumped_us, seq = Ages(), 0, 0, 0
    recorded: list[tuple[int, int]] = []  # when the events up to this one were recorded at the earliest
    for after_us, is_mine, jump_us, count in told:
        recorded.append((now_us, seq + count))
        now_us += after_us
        jumped_us += 0 if is_mine else jump_us
        seq += count
        # Between processes at most a seventh is believed too much.
        ages = ages.looked(now_us + jumped_us, after_us if is_mine else None, seq, WEEK_US)
        believed_us = sum(WEEK_US // BELIEVED for _, mine, _, _ in told if not mine)
        old_seq = ages.old_seq(WEEK_US)
        assert all(now_us - at_us + believed_us >= WEEK_US for at_us, up_to in recorded if 0 < up_to <= old_seq)
        ages = ages.without(old_seq)
    assert len(ages.marks) <= MARKS + 3
