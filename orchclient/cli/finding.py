"""One thing that ``orchclient doctor`` looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attrs import evolve, frozen


@frozen
class Finding:
    """One thing that was looked at. ``level`` is ok, warning or problem; ``check`` says to a program at what."""

    level: str
    what: str
    cure: str = ""
    check: str = ""


def of(check: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    """The findings of one check."""
    for finding in findings:
        yield evolve(finding, check=check)
