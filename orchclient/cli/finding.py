"""One thing that ``orchclient doctor`` looked at."""

from __future__ import annotations

from attrs import frozen


@frozen
class Finding:
    """One thing that was looked at. ``level`` is ok, warning or problem."""

    level: str
    what: str
    cure: str = ""
