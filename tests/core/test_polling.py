"""When the inbox is asked for: the floor, the long poll, the slow one, and what each kind of trouble does to them."""

from __future__ import annotations

import pytest

from orchclient.core.http import HttpOutcome, HttpReply, NoReply
from orchclient.core.inbox_page import Page
from orchclient.core.polling import Heard, InboxState, NextPoll, Pace, next_poll, state_for

EMPTY, MORE = Page((), "c"), Page(("an item",), "c", has_more=True)
NOW = 1000.0


def polled(page: Page = EMPTY, at_s: float = NOW) -> Pace:
    return Pace().starting(at_s).after(Heard(InboxState.POLLING, page=page), at_s, 0.5)


def troubled(state: InboxState, times: int = 1, retry_after_s: float = 0.0) -> Pace:
    pace = Pace().starting(NOW)
    for _ in range(times):
        pace = pace.after(Heard(state, "because", retry_after_s), NOW, 1.0)
    return pace


class TestWhenAllIsWell:
    def test_the_first_poll_is_at_once_and_long_while_something_is_open(self) -> None:
        assert next_poll(Pace(), NOW, 1) == NextPoll(0.0, 25.0)

    def test_two_polls_start_a_second_apart_at_least(self) -> None:
        assert next_poll(polled(), NOW + 0.25, 1).in_s == 0.75
        assert next_poll(polled(), NOW + 25.0, 1).in_s == 0.0

    def test_a_page_that_is_not_the_last_is_followed_at_once_by_a_short_poll(self) -> None:
        assert next_poll(polled(MORE), NOW, 1) == NextPoll(0.0, 0.0)

    def test_with_nothing_open_it_is_a_short_poll_a_minute(self) -> None:
        assert next_poll(polled(), NOW + 10.0, 0) == NextPoll(50.0, 0.0)

    def test_a_hint_is_followed_once_by_a_short_poll_when_the_floor_allows(self) -> None:
        assert next_poll(polled().hinted(), NOW + 0.5, 0) == NextPoll(0.5, 0.0)
        assert next_poll(polled().hinted().starting(NOW + 1.0), NOW + 1.0, 0).in_s == 60.0

    def test_a_receiver_that_holds_for_less_is_asked_for_less(self) -> None:
        assert next_poll(Pace(), NOW, 1, longest_wait_s=7.0).wait_s == 7.0
        assert next_poll(Pace(), NOW, 1, longest_wait_s=600.0).wait_s == 25.0

    def test_several_sources_share_the_time(self) -> None:
        assert next_poll(Pace(), NOW, 2).wait_s == 2.0


class TestTrouble:
    def test_an_outage_backs_off_like_a_delivery(self) -> None:
        delays = [next_poll(troubled(InboxState.WAITING, times), NOW, 1).in_s for times in (1, 2, 3, 4, 20)]
        assert delays == [1.0, 1.0, 2.0, 4.0, 60.0]  # the first two are the floor's

    def test_what_the_receiver_asks_for_is_the_floor(self) -> None:
        assert 120.0 <= next_poll(troubled(InboxState.WAITING, retry_after_s=120.0), NOW, 1).in_s <= 132.0

    @pytest.mark.parametrize("state", [InboxState.ABSENT, InboxState.PAUSED])
    def test_without_an_inbox_it_is_asked_for_after_a_minute_rising_to_an_hour(self, state: InboxState) -> None:
        delays = [next_poll(troubled(state, times), NOW, 1).in_s for times in (1, 2, 3, 7, 50)]
        assert delays == [60.0, 120.0, 240.0, 3600.0, 3600.0]

    def test_a_hint_cannot_shorten_trouble(self) -> None:
        assert next_poll(troubled(InboxState.PAUSED).hinted(), NOW, 0).in_s == 60.0

    def test_what_was_hinted_is_still_asked_for_after_an_outage(self) -> None:
        pace = Pace().hinted().starting(NOW).after(Heard(InboxState.WAITING), NOW, 0.5)
        assert next_poll(pace, NOW, 0).in_s == 1.0

    @pytest.mark.parametrize("state", [InboxState.ABSENT, InboxState.PAUSED, InboxState.WAITING])
    def test_somebody_who_asks_to_try_now_is_heard(self, state: InboxState) -> None:
        assert next_poll(troubled(state, 9).hurried(), NOW + 1.0, 0).in_s == 0.0

    def test_but_what_the_receiver_throttled_stays_so(self) -> None:
        assert next_poll(troubled(InboxState.WAITING, retry_after_s=120.0).hurried(), NOW + 1.0, 1).in_s >= 119.0

    def test_another_kind_of_trouble_begins_anew(self) -> None:
        pace = troubled(InboxState.PAUSED, 6).after(Heard(InboxState.WAITING), NOW, 1.0)
        assert pace.failures == 1

    def test_success_ends_it(self) -> None:
        pace = troubled(InboxState.ABSENT, 6).after(Heard(InboxState.POLLING, page=EMPTY), NOW, 1.0)
        assert (pace.state, pace.failures, next_poll(pace, NOW + 2.0, 1).in_s) == (InboxState.POLLING, 0, 0.0)


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        *((HttpReply(status), InboxState.POLLING) for status in (200, 204, 299)),
        *((HttpReply(status), InboxState.WAITING) for status in (408, 425, 429, 500, 502, 503, 505, 599)),
        *((HttpReply(status), InboxState.ABSENT) for status in (404, 405, 410, 501)),
        *((HttpReply(status), InboxState.PAUSED) for status in (300, 302, 307, 400, 401, 403, 407, 409, 413, 422, 451)),
        *((HttpReply(status), InboxState.WAITING) for status in (0, 101, 600, 999)),
        *((NoReply(reason), InboxState.WAITING) for reason in ("connect", "tls", "timeout", "broken", "too_large")),
        (NoReply("request"), InboxState.PAUSED),
    ],
    ids=str,
)
def test_every_answer_has_its_row_of_the_table(outcome: HttpOutcome, state: InboxState) -> None:
    assert state_for(outcome) is state
