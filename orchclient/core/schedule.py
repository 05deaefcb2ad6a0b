"""After how long people are reminded of what is critical and still open. Pure; settings hold one."""

from __future__ import annotations

from attrs import frozen

SECOND_US = 1_000_000


@frozen
class Schedule:
    """``after_s``: how long something has waited at its first, second ... reminder; then ``every_s`` (0: never)."""

    after_s: tuple[float, ...] = (15 * 60.0, 3600.0)
    every_s: float = 4 * 3600.0

    def wait_us(self, number: int) -> int | None:
        """How long after the one before (or the question itself) the reminder of a number comes; None for never."""
        if number <= len(self.after_s):
            wait_s = self.after_s[number - 1] - (self.after_s[number - 2] if number > 1 else 0.0)
        else:
            wait_s = self.every_s
        return int(wait_s * SECOND_US) if wait_s > 0 else None


NEVER = Schedule((), 0.0)
