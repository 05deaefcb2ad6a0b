"""Whether an agent is in the middle of a burst, so that what can wait does not take its time.

Python runs one thread at a time, and a checkpoint keeps everybody from committing. What keeps house works beside the
agent when the agent rests; in a burst it waits, to a bound.
"""

from __future__ import annotations

BURST_PER_S = 1000.0
"""Faster than this is a burst: an agent that tells of every token records fewer."""

FEWEST = 50
"""Fewer events than this since the last look are no burst, however short that is ago."""


class Pace:
    """How fast events come. Asked by one thread at a time, now and then."""

    def __init__(self) -> None:
        self._seq, self._at = 0, 0.0

    def is_burst(self, seq: int, now_s: float) -> bool:
        """Whether events came that fast since the last time somebody asked: ``seq`` is the newest, at a monotonic time.

        The first look after a pause says no, since the pause counts: nothing waited yet.
        """
        events, seconds = seq - self._seq, now_s - self._at
        self._seq, self._at = seq, now_s
        return events >= FEWEST and events > seconds * BURST_PER_S
