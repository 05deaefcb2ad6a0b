"""How long a flusher leaves the interpreter to an agent that is at work. Pure.

Python runs one thread at a time. A backlog that drains at full speed would take what the agent's own calls need; so
between two batches delivery rests for longer than it computed, as long as the agent records.
"""

from __future__ import annotations

SHARE = 8.0
"""Rest for so many times what was computed: a ninth of one core at most is delivery's beside an agent that records."""

LONGEST_S = 0.02


def rest_s(computed_s: float) -> float:
    """Seconds to rest after so many seconds of processor time."""
    return min(max(computed_s, 0.0) * SHARE, LONGEST_S)
