"""What a flusher hands to a sink: events of one attempt, in order, ready to be joined."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from attrs import field, frozen


@frozen
class Batch:
    """Parallel sequences, one place per event: ids, and the complete CloudEvents JSON texts."""

    ids: Sequence[str]
    texts: Sequence[str] = field(repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events as values, for dialects that do not send the texts as they are."""
        return [json.loads(text) for text in self.texts]
