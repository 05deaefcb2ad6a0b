"""What needs a person, in the order in which to look at it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import frozen

from orchclient.server.people import CALLS, IncidentView, Needs, QuestionView, ReviewView

SOON_US: Final = 10 * 60 * 1_000_000
_RANKS: Final = {"critical": 0, "high": 1, "medium": 2, "low": 3}
_NEVER: Final = 2**62


@frozen
class Queue:
    """``urgent``: what a person should look at, the most urgent first. ``errors``: open errors that can wait."""

    urgent: Sequence[QuestionView | ReviewView | IncidentView]
    errors: Sequence[IncidentView]


def queue(needs: Needs, now_us: int) -> Queue:
    """Critical first, and with it whatever ends within ten minutes; then by priority, deadline and age."""
    calls = [each for each in needs.incidents if each.priority in CALLS]
    waiting: list[QuestionView | ReviewView | IncidentView] = [*needs.questions, *needs.reviews, *calls]
    return Queue(
        sorted(waiting, key=lambda each: _key(each, now_us)),
        [each for each in needs.incidents if each.priority not in CALLS],
    )


def _key(each: QuestionView | ReviewView | IncidentView, now_us: int) -> tuple[int, int, int]:
    if isinstance(each, IncidentView):
        return _RANKS[each.priority], _NEVER, each.first_us
    if isinstance(each, ReviewView):
        return _RANKS["medium"], _NEVER, each.asked_us
    deadline_us = _NEVER if each.deadline_us is None else each.deadline_us
    rank = 0 if deadline_us - now_us < SOON_US else _RANKS.get(each.priority, 3)
    return rank, deadline_us, each.asked_us
