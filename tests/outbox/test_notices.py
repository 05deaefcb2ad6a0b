"""Notices of gaps name the source whose places they are: a receiver must not take them for its sender's own."""

from __future__ import annotations

import pytest

from orchclient.core.gap import Gap, GapReason
from orchclient.outbox.identity import Identities
from orchclient.outbox.notices import by_source

KNOWN = Identities((1, 10, 20), ("a", "b", "c"))


@pytest.mark.parametrize(
    ("places", "parts"),
    [
        ((20, 25), [(20, 25, None)]),
        ((3, 5), [(3, 5, "a")]),
        ((9, 9), [(9, 9, "a")]),
        ((10, 10), [(10, 10, "b")]),
        ((5, 30), [(5, 9, "a"), (10, 19, "b"), (20, 30, None)]),
    ],
)
def test_a_gap_is_told_source_by_source(places: tuple[int, int], parts: list[tuple[int, int, str | None]]) -> None:
    gap = Gap(*places, GapReason.DEAD, "agent-1", "t")
    found = list(by_source(gap, KNOWN))
    assert [(each.first_seq, each.last_seq, each.source) for each in found] == parts
    assert sum(each.count for each in found) == gap.count
    assert {(each.reason, each.agent, each.task) for each in found} == {(gap.reason, "agent-1", "t")}
