"""How long to wait after a failure. Jitter comes in as an argument in [0, 1)."""

from __future__ import annotations

from attrs import frozen


@frozen
class Backoff:
    """Exponential with full jitter: uniform between 0 and ``base_s * 2 ** (failures - 1)``, at most ``cap_s``.

    Full jitter spreads a fleet that lost the same orchestrator at the same moment (AWS Architecture Blog,
    "Exponential Backoff And Jitter", 2015). A whole fleet may also be told at once when to come back, so what is
    added to a floor has a ceiling of at least a tenth of it.
    """

    base_s: float = 0.5
    cap_s: float = 60.0

    def delay_s(self, failures: int, jitter: float, floor_s: float = 0.0) -> float:
        """Seconds to wait after the given number of failures in a row; never below ``floor_s``."""
        ceiling = max(self.base_s * 2.0 ** min(max(failures - 1, 0), 60), floor_s / 10)
        return floor_s + min(ceiling, self.cap_s) * jitter


OUTAGE = Backoff()
PROBE = Backoff(base_s=60.0, cap_s=3600.0)


def probe_delay_s(probes: int, jitter: float) -> float:
    """Seconds until a paused destination is tried again: from a minute to an hour, jittered by a tenth."""
    ceiling = min(PROBE.cap_s, PROBE.base_s * 2.0 ** min(max(probes - 1, 0), 60))
    return ceiling * (0.9 + 0.1 * jitter)
