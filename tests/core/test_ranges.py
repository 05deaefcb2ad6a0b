"""Ranges of places against sets of places."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from orchclient.core.ranges import Range, difference, intersection, ranges_of, size

PLACES = st.frozensets(st.integers(1, 40))


def places(ranges: list[Range]) -> set[int]:
    return {place for first, last in ranges for place in range(first, last + 1)}


def ranged(chosen: frozenset[int]) -> list[Range]:
    return list(ranges_of(sorted(chosen)))


@given(PLACES)
def test_places_as_ranges_are_the_same_places_in_as_few_ranges_as_there_can_be(chosen: frozenset[int]) -> None:
    found = ranged(chosen)
    assert (places(found), size(found)) == (set(chosen), len(chosen))
    assert all(right[0] > left[1] + 1 for left, right in itertools.pairwise(found))


@given(PLACES, PLACES)
def test_intersection_and_difference_are_those_of_sets(left: frozenset[int], right: frozenset[int]) -> None:
    assert places(intersection(ranged(left), ranged(right))) == left & right
    assert places(difference(ranged(left), ranged(right))) == left - right
    assert size(difference(ranged(left), ranged(right))) == len(left - right)
