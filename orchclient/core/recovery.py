"""When a piece of work that failed is tried again, and what is told of it. Pure: one immutable value, easy to print.

The work is done once, and at most ``attempts`` times again; each of these is a recovery attempt of the escalation
matrix.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve, frozen

from orchclient.core.backoff import Backoff

RECOVERY = Backoff(base_s=1.0, cap_s=60.0)


@frozen
class Recovery:
    """Where the work on one trouble stands. ``history`` has an entry for each recovery attempt, oldest first."""

    error_type: str
    attempts: int = 3
    backoff: Backoff = RECOVERY
    history: tuple[dict[str, Any], ...] = ()

    @property
    def is_exhausted(self) -> bool:
        """Whether another failure is the last one."""
        return len(self.history) >= self.attempts

    def delay_s(self, jitter: float) -> float:
        """Seconds to wait after the next failure."""
        return self.backoff.delay_s(len(self.history) + 1, jitter)

    def after(self, error: str, delay_s: float) -> Recovery:
        """After one more failure: the work is tried again in ``delay_s`` seconds."""
        entry = {"attempt": len(self.history) + 1, "error": error, "action": f"tried again after {delay_s:.1f} s"}
        return evolve(self, history=(*self.history, entry))

    @property
    def step(self) -> str:
        """The task's step while the next attempt is waited for and made."""
        return f"Recovering from {self.error_type}: attempt {len(self.history)} of {self.attempts}"

    @property
    def step_recovered(self) -> str:
        """The task's step once the work succeeded after a failure."""
        count = len(self.history)
        return f"Recovered from {self.error_type} after {count} attempt{'s' if count > 1 else ''}"
