"""Forgets what is older than the retention, a few thousand rows at a time so that nobody waits for it.

What was forgotten still counts as held: the spans of a source stay, and so do tasks, questions, reviews and answers.
Tables are walked by their keys, which need no index on time: within a source what is older stands lower.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from attrs import frozen
from sqlalchemy import ColumnElement, delete, exists, func, select
from sqlalchemy.orm import Session

from orchclient.server.models import Event, Inbox, InboxItem, Log, Source

STEP: Final = 5_000
Writing = Callable[[Callable[[Session], Any]], Any]


@frozen
class _History:
    """A table that grows, and which of its rows may go."""

    model: Any
    place: Any
    born_us: Any
    also: tuple[ColumnElement[bool], ...] = ()


_IS_READ = exists().where(Inbox.source_id == InboxItem.source_id, Inbox.acknowledged >= InboxItem.position)
_HISTORIES: Final = (
    _History(Event, Event.sequence, Event.received_us),
    _History(Log, Log.sequence, Log.received_us),
    _History(InboxItem, InboxItem.position, InboxItem.created_us, (_IS_READ,)),
)


def prune(writing: Writing, older_than_us: int) -> int:
    """Forget events, lines of the trail, and items that were acknowledged; how many rows."""
    sources: list[int] = writing(lambda session: list(session.scalars(select(Source.id))))
    return sum(_pruned(writing, history, source, older_than_us) for history in _HISTORIES for source in sources)


def _pruned(writing: Writing, history: _History, source_id: int, older_than_us: int) -> int:
    done = 0
    while count := writing(lambda session: _step(session, history, source_id, older_than_us)):
        done += count
    return done


def _step(session: Session, history: _History, source_id: int, older_than_us: int) -> int:
    of_source = history.model.source_id == source_id
    lowest = select(history.place).where(of_source).order_by(history.place).limit(STEP).subquery()
    last = session.execute(select(func.max(lowest.c[0]))).scalar_one()
    if last is None:
        return 0
    old = delete(history.model).where(of_source, history.place <= last, history.born_us < older_than_us, *history.also)
    gone: Any = session.execute(old.execution_options(synchronize_session=False))
    return int(gone.rowcount)
