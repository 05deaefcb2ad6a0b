"""What a flusher hands to a sink: events of one attempt, in order, ready to be joined."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import field, frozen


@frozen
class Batch:
    """Parallel sequences, one place per event: ids, and the complete CloudEvents JSON texts."""

    ids: Sequence[str]
    texts: Sequence[str] = field(repr=False)

    def __len__(self) -> int:
        return len(self.ids)
