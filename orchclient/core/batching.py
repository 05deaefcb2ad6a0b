"""How much to send at once: a limit that shrinks on refusals and outages and grows back on success.

One value serves three rules of delivery: bisecting to a poisoned event, halving what a receiver calls too large,
and the gentle start after an outage.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve, frozen

from orchclient.core.limits import BATCH_BYTES, BATCH_EVENTS

AFTER_OUTAGE_EVENTS = 16


@frozen
class BatchLimit:
    """At most ``events`` and ``bytes`` in the next batch; ``max_events`` and ``max_bytes`` when all is well."""

    events: int = BATCH_EVENTS
    bytes: int = BATCH_BYTES
    max_events: int = BATCH_EVENTS
    max_bytes: int = BATCH_BYTES

    def after_success(self) -> BatchLimit:
        """Twice as many events, up to the maximum. The bytes that were too large stay remembered."""
        return self if self.events == self.max_events else evolve(self, events=min(self.events * 2, self.max_events))

    def after_outage(self) -> BatchLimit:
        """A small batch: in an outage every attempt is a probe, and the first ones after it should be light."""
        return evolve(self, events=min(self.events, AFTER_OUTAGE_EVENTS))

    def after_poison(self, sent_events: int) -> BatchLimit:
        """Half of what was refused, so that repeated refusals end at the one poisoned event."""
        return evolve(self, events=max(1, sent_events // 2))

    def after_too_large(self, sent_events: int, sent_bytes: int) -> BatchLimit:
        """Half of what was too large; remembered in bytes, since the next events have other sizes."""
        return evolve(self, events=max(1, sent_events // 2), bytes=max(1, sent_bytes // 2))

    def within(self, max_events: int, max_bytes: int) -> BatchLimit:
        """The limit under what the receiver says it takes."""
        return BatchLimit(min(self.events, max_events), min(self.bytes, max_bytes), max_events, max_bytes)


def fitting(sizes: Sequence[int], limit: BatchLimit) -> int:
    """How many of the leading events, given their sizes in bytes, go into one batch. At least one of any."""
    total = 2
    for count, size in enumerate(sizes[: limit.events]):
        total += size + 1
        if total > limit.bytes and count:
            return count
    return min(len(sizes), limit.events)
