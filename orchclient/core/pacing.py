"""How long a flusher leaves the interpreter to an agent that is at work. Pure.

Python runs one thread at a time, and a record call that meets a batch in the making waits for it. So between two
batches delivery rests for longer than it computed, as long as the agent records and nobody waits for a flush.
"""

from __future__ import annotations

from attrs import frozen

FAR_BEHIND = 20_000
"""Events beyond which a backlog that still grows is worth more of the agent's time."""


@frozen
class Share:
    """Rest for so many times what was computed, and for so many seconds at most."""

    times: float
    longest_s: float

    def rest_s(self, computed_s: float) -> float:
        """Seconds to rest after so many seconds of processor time."""
        return min(max(computed_s, 0.0) * self.times, self.longest_s)


A_BATCH = Share(100.0, 0.15)
"""After a full batch, of a backlog or a burst: of a hundred record calls one meets delivery, so the rare slow ones are
no slower than without a backlog. It leaves with 3,300 events a second then."""

A_FEW = Share(8.0, 0.02)
"""After fewer events: they follow the agent closely."""


def share_of(*, is_full: bool, behind: int, behind_before: int) -> Share:
    """The share after a batch; ``behind``: how many events wait, now and after the batch before."""
    is_losing = behind > FAR_BEHIND and behind > behind_before
    return A_BATCH if is_full and not is_losing else A_FEW
