"""How communication fares as one word, from how the sinks fare."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

UNHEALTHY_AFTER_FAILURES = 5
_REFUSED = frozenset({"paused", "disabled"})


class Health(StrEnum):
    """inactive: nothing was recorded yet, or there is nobody to deliver to. degraded: events wait, or some are dead."""

    INACTIVE = "inactive"
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


def overall(recorded: int, sinks: Sequence[tuple[str, int, int]]) -> Health:
    """Health from the number of recorded events and (state, failures in a row, dead letters) of each sink."""
    if not recorded or not sinks:
        return Health.INACTIVE
    if any(state in _REFUSED or failures >= UNHEALTHY_AFTER_FAILURES for state, failures, _ in sinks):
        return Health.UNHEALTHY
    if any(state != "delivering" or dead for state, _, dead in sinks):
        return Health.DEGRADED
    return Health.HEALTHY
