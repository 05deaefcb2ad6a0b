"""A fleet of agents that lost the same orchestrator at the same moment does not come back in the same second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

from orchclient.core.backoff import OUTAGE, Backoff

FLEET = 1_000
BACK_S = 6 * 3600.0
ONE_OF_SIXTY = FLEET / 60


def first_tries(backoff: Backoff, back_s: float, jitter: Callable[[], float]) -> list[float]:
    """When each agent of a fleet first tries after the orchestrator is back, in seconds since then."""
    tries = []
    for _ in range(FLEET):
        at_s, failures = 0.0, 0
        while at_s < back_s:
            failures += 1
            at_s += max(backoff.delay_s(failures, jitter()), 0.05)
        tries.append(at_s - back_s)
    return tries


def busiest_second(tries: list[float]) -> int:
    """The most tries in one second."""
    return max(Counter(int(each) for each in tries).values())


def test_after_an_outage_a_fleet_comes_back_over_a_minute() -> None:
    tries = first_tries(OUTAGE, BACK_S, Random(11).random)
    assert max(tries) <= OUTAGE.cap_s
    assert busiest_second(tries) < 4 * ONE_OF_SIXTY


@pytest.mark.parametrize("floor_s", [120.0, 600.0, 3600.0])
def test_a_fleet_that_was_told_when_to_come_back_does_so_over_a_tenth_of_it(floor_s: float) -> None:
    random = Random(11)
    tries = [OUTAGE.delay_s(1, random.random(), floor_s) for _ in range(FLEET)]
    spread_s = min(floor_s / 10, OUTAGE.cap_s)
    assert floor_s <= min(tries)
    assert max(tries) <= floor_s + spread_s
    assert busiest_second(tries) < 2 * FLEET / spread_s


def test_without_jitter_the_whole_fleet_comes_at_once() -> None:
    assert busiest_second(first_tries(OUTAGE, BACK_S, lambda: 0.999)) == FLEET
