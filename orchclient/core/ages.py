"""How long ago events were recorded, counted in time that passed and not in dates: a clock that jumps ages nothing.

Whoever keeps house looks now and then, and notes how much time has passed in all and which event was the newest then.
What was there at a look so long ago is old, whatever date it bears. Between two looks of one process the time is that
of a clock that never jumps; between processes it is the difference of two dates, of which no more is believed than a
seventh of the retention. So history is kept longer when nobody looks for days, and never shorter.
"""

from __future__ import annotations

from attrs import evolve, frozen

BELIEVED = 7
"""Which part of the retention may pass between the looks of two processes."""

MARKS = 50
"""About so many marks lie within the retention."""


@frozen
class Ages:
    """``passed_us`` since the first look; the date of the last one; at which looks up to which event was recorded."""

    passed_us: int = 0
    looked_us: int | None = None
    marks: tuple[tuple[int, int], ...] = ()  # (passed_us, last seq), oldest first

    def looked(self, now_us: int, since_my_look_us: int | None, last_seq: int, retention_us: int) -> Ages:
        """After one more look. ``since_my_look_us``: None when another process made the last one."""
        passed_us = self.passed_us
        if since_my_look_us is not None:
            passed_us += since_my_look_us
        elif self.looked_us is not None:
            passed_us += min(max(now_us - self.looked_us, 0), retention_us // BELIEVED)
        marks = self.marks
        if not marks or (passed_us - marks[-1][0] >= retention_us // MARKS and last_seq > marks[-1][1]):
            marks = (*marks, (passed_us, last_seq))
        return Ages(passed_us, now_us, marks)

    def old_seq(self, retention_us: int) -> int:
        """Up to which event all were recorded so long ago; 0 when none was."""
        return max((seq for at_us, seq in self.marks if self.passed_us - at_us >= retention_us), default=0)

    def without(self, seq: int) -> Ages:
        """What is still to be known when the events up to ``seq`` are gone."""
        return evolve(self, marks=tuple(mark for mark in self.marks if mark[1] >= seq))
