"""Which sequences of a source are held or explained, and the report of those that are not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy import bindparam, delete, select
from sqlalchemy.orm import Session

from orchclient.core.ranges import Range, difference
from orchclient.core.source_report import GAPS_AT_MOST
from orchclient.server.bulk import upsert
from orchclient.server.models import Source, Span

_TOUCHING: Final = select(Span.first, Span.last).where(
    Span.source_id == bindparam("source"), Span.last >= bindparam("least"), Span.first <= bindparam("most")
)


def cover(session: Session, source_id: int, ranges: Iterable[Range]) -> None:
    """Add what was stored or explained. The caller holds the lock of the source's row."""
    added = joined(ranges)
    if not added:
        return
    near = {"source": source_id, "least": added[0][0] - 1, "most": added[-1][1] + 1}
    before = [(first, last) for first, last in session.connection().execute(_TOUCHING, near)]
    after = joined([*before, *added])
    gone = {first for first, _ in before} - {first for first, _ in after}
    if gone:
        session.execute(delete(Span).where(Span.source_id == source_id, Span.first.in_(gone)))
    upsert(session, Span, [(source_id, *span) for span in after if span not in set(before)])


def joined(ranges: Iterable[Range]) -> list[Range]:
    """The same places as ranges that rise and do not touch."""
    found: list[Range] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def report(session: Session, name: str) -> dict[str, object]:
    """What is held of a source: ``{"highest", "gaps"}``, the lowest thousand gaps at most."""
    source = session.scalars(select(Source).where(Source.name == name)).one_or_none()
    if source is None or not source.highest:
        return {"highest": 0, "gaps": []}
    # One span more than gaps: between n+1 spans there are n gaps, and one may stand before the first.
    spans = select(Span.first, Span.last).where(Span.source_id == source.id).order_by(Span.first)
    held = [(first, last) for first, last in session.execute(spans.limit(GAPS_AT_MOST + 2))]
    end = source.highest if len(held) < GAPS_AT_MOST + 2 else held[-1][1]
    gaps = difference([(1, end)], held)[:GAPS_AT_MOST]
    return {"highest": source.highest, "gaps": [list(gap) for gap in gaps]}
