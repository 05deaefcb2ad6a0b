"""Sets of places as ranges: both ends included, rising, no two of them touching. What is missing may be millions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

Range = tuple[int, int]


def ranges_of(places: Iterable[int]) -> Iterator[Range]:
    """Rising places as ranges."""
    first = last = None
    for place in places:
        if last is not None and first is not None and place != last + 1:
            yield first, last
            first = None
        first, last = (place if first is None else first), place
    if first is not None and last is not None:
        yield first, last


def size(ranges: Iterable[Range]) -> int:
    """How many places."""
    return sum(last - first + 1 for first, last in ranges)


def intersection(left: Sequence[Range], right: Sequence[Range]) -> list[Range]:
    """The places that are in both."""
    found: list[Range] = []
    i = j = 0
    while i < len(left) and j < len(right):
        first, last = max(left[i][0], right[j][0]), min(left[i][1], right[j][1])
        if first <= last:
            found.append((first, last))
        if left[i][1] < right[j][1]:
            i += 1
        else:
            j += 1
    return found


def difference(left: Sequence[Range], right: Sequence[Range]) -> list[Range]:
    """The places of ``left`` that are not in ``right``."""
    found: list[Range] = []
    j = 0
    for first, last in left:
        while j < len(right) and right[j][1] < first:
            j += 1
        k = j  # the range that reaches over the end may cut the next one, too
        while k < len(right) and right[k][0] <= last:
            if right[k][0] > first:
                found.append((first, right[k][0] - 1))
            first = right[k][1] + 1
            k += 1
        if first <= last:
            found.append((first, last))
    return found
