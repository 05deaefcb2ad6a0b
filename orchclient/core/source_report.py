"""What an orchestrator says it holds of a source, and what is missing by it (docs/wire.md, "The source report")."""

from __future__ import annotations

import json
from typing import Any

from attrs import frozen

from orchclient.core.ranges import Range, intersection

GAPS_AT_MOST = 1000
"""A report that names so many gaps may have left out higher ones."""

ENDLESS = 2**63 - 1


@frozen
class SourceReport:
    """The highest sequence held, and the ranges up to it that are neither held nor explained."""

    highest: int
    gaps: tuple[Range, ...] = ()

    @property
    def is_partial(self) -> bool:
        """Whether there may be more gaps than it names."""
        return len(self.gaps) >= GAPS_AT_MOST

    def missing(self, first_seq: int, last_seq: int) -> list[Range]:
        """What is known to be missing between two places of ours."""
        return intersection([*self.gaps, (self.highest + 1, ENDLESS)], [(first_seq, last_seq)])


def source_report(body: bytes) -> SourceReport | None:
    """The report in an answer; None when it is none that can be believed."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or not _is_place(document.get("highest")):
        return None
    highest, said = document["highest"], document.get("gaps")
    if not isinstance(said, list) or len(said) > GAPS_AT_MOST:
        return None
    below = 0
    for each in said:
        if not (isinstance(each, list) and len(each) == 2 and all(map(_is_place, each))):
            return None
        if not below < each[0] <= each[1] <= highest:
            return None
        below = each[1]
    return SourceReport(highest, tuple((first, last) for first, last in said))


def _is_place(value: Any) -> bool:
    return type(value) is int and 0 <= value < ENDLESS
