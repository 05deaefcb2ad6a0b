"""What a flusher hands to a sink: events of one attempt, in order, ready to be joined."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Self

from attrs import field, frozen


@frozen
class Batch:
    """Parallel sequences, one place per event: ids, and the complete CloudEvents JSON texts in UTF-8."""

    ids: Sequence[str]
    encoded: Sequence[bytes] = field(repr=False)

    @classmethod
    def of_texts(cls, ids: Sequence[str], texts: Sequence[str]) -> Self:
        """A batch out of texts."""
        return cls(ids, [text.encode() for text in texts])

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def texts(self) -> list[str]:
        """The texts, for dialects that do not send bytes."""
        return [event.decode() for event in self.encoded]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events as values, for dialects that do not send the texts as they are."""
        return [json.loads(event) for event in self.encoded]

    @property
    def size(self) -> int:
        """Bytes of all texts together."""
        return sum(map(len, self.encoded))
