"""What a destination must be able to do. A sink is a dialect: it speaks, the flusher decides when and acts."""

from __future__ import annotations

from typing import Protocol

from orchclient.core.batch import Batch
from orchclient.core.batching import BatchLimit
from orchclient.core.http import HttpOutcome, HttpRequest
from orchclient.core.policy import Verdict


class Sink(Protocol):
    """One destination. Used by one thread at a time."""

    name: str
    """Lower-case name, unique in an outbox; its cursor is kept under it."""

    kind: str
    """The dialect, such as ``orchestrator``."""

    target: str
    """Tells one configuration from another without its secrets, for example a digest of the URL."""

    from_beginning: bool
    """Whether a new sink gets the journal from its beginning, or from now on."""

    checks_sequence: bool
    """Whether its receiver looks for missing sequences, so that it must be told of those that will not come."""

    def greeting(self) -> HttpRequest | None:
        """A question to ask before the first batch, None for none."""

    def greeted(self, outcome: HttpOutcome, now_us: int) -> Verdict | None:
        """Read the answer to the greeting; None when delivery may begin, else what to do instead."""

    def limit(self) -> BatchLimit:
        """How much the receiver takes at once."""

    def render(self, batch: Batch) -> HttpRequest:
        """The request that delivers a batch."""

    def decide(self, batch: Batch, outcome: HttpOutcome, now_us: int) -> Verdict:
        """What the answer means for the events of the batch."""
