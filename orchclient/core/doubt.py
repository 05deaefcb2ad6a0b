"""What is done about a service that takes a post and never answers: something harmless is asked before the next one.

Each post of which nobody knows whether it arrived costs a dead letter, or a message marked as a possible repeat. So one
of them is risked, not one after another. Pure.
"""

from __future__ import annotations

from attrs import evolve, frozen

from orchclient.core.policy import Action

PROBES = 60
"""So many probes without an answer, in half an hour, and a post is risked: the probe may be what is wrong."""


@frozen
class Doubt:
    """How a service behaved last. ``is_open``: it owes an answer, to a post or since an earlier process."""

    is_open: bool = False
    posts_lost: int = 0  # in a row
    probes_lost: int = 0  # in a row

    @property
    def is_to_be_asked(self) -> bool:
        """Whether a probe goes before the next post."""
        return self.is_open and self.probes_lost < PROBES

    @property
    def action(self) -> Action:
        """What a lost post leads to: that a probe was answered meanwhile means little the second time."""
        return Action.BACK_OFF if self.posts_lost <= 1 else Action.PAUSE

    def after_lost_post(self) -> Doubt:
        """A post may have arrived."""
        return Doubt(is_open=True, posts_lost=self.posts_lost + 1)

    def after_lost_probe(self) -> Doubt:
        """It does not answer anything."""
        return evolve(self, probes_lost=self.probes_lost + 1)

    def after_answered_probe(self) -> Doubt:
        """It answers, so the next post may be tried."""
        return evolve(self, is_open=False, probes_lost=0)
