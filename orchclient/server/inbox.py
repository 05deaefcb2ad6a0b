"""Items for agents: put in the order of commit, given out from a cursor, kept until they are acknowledged."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import frozen
from sqlalchemy import bindparam, func, select, update
from sqlalchemy.orm import Session

from orchclient.core.envelope import SCHEMA_BASE, TYPE_PREFIX
from orchclient.core.jsontext import encode
from orchclient.core.timestamps import rfc3339
from orchclient.server.bulk import insert_new
from orchclient.server.ids import new_id
from orchclient.server.models import Inbox, InboxItem, Source

PAGE_ITEMS: Final = 100
PAGE_BYTES: Final = 65_536 - 1_024
_CURSOR: Final = re.compile(r"(0|[1-9][0-9]{0,15})-([0-9a-f-]{1,36})\Z")
_START: Final = "0-0"


@frozen
class Item:
    """One thing to tell the agents of a source; ``data`` has the task's id in it."""

    source_id: int
    type: str
    data: Mapping[str, Any]


@frozen
class Page:
    """A part of an inbox. ``items`` are JSON texts."""

    items: Sequence[str]
    cursor: str
    has_more: bool

    @property
    def text(self) -> str:
        """The page as the wire wants it."""
        return f'{{"items":[{",".join(self.items)}],"cursor":{encode(self.cursor)},"has_more":{encode(self.has_more)}}}'


def put(session: Session, items: Sequence[Item], origin: str, now_us: int) -> set[int]:
    """Add items; the ids of the sources that got some. The rows of their inboxes are locked until the commit."""
    wanted: dict[int, list[Item]] = {}
    for item in items:
        wanted.setdefault(item.source_id, []).append(item)
    for source_id in sorted(wanted):  # in one order, so that two who put cannot wait for each other
        insert_new(session, Inbox, [(source_id, 0, 0)])
        count = len(wanted[source_id])
        moved = update(Inbox).where(Inbox.source_id == source_id).values(last=Inbox.last + count)
        last = session.execute(moved.returning(Inbox.last)).scalar_one()
        places = range(last - count + 1, last + 1)
        rows = [_row(item, place, origin, now_us) for place, item in zip(places, wanted[source_id], strict=True)]
        insert_new(session, InboxItem, rows)
    return set(wanted)


def _row(item: Item, position: int, origin: str, now_us: int) -> tuple[Any, ...]:
    item_id, task = new_id(now_us), item.data["task_id"]
    body = {
        "specversion": "1.0",
        "id": item_id,
        "source": origin,
        "type": TYPE_PREFIX + item.type,
        "subject": task,
        "time": rfc3339(now_us),
        "dataschema": f"{SCHEMA_BASE}{item.type}.json",
        "data": item.data,
    }
    return (item.source_id, position, item_id, item.type, task, encode(body), now_us)


def page(session: Session, source: str, cursor: str) -> Page:
    """What follows a cursor, or the oldest item that is not acknowledged when it is empty or not known here."""
    found = _inbox(session, source)
    if found is None:
        return Page((), cursor if _CURSOR.match(cursor) else _START, has_more=False)
    after = _position(session, found.source_id, cursor)
    begin = max(after or 0, found.acknowledged)
    wanted = (
        select(InboxItem.position, InboxItem.id, InboxItem.body)
        .where(InboxItem.source_id == found.source_id, InboxItem.position > begin)
        .order_by(InboxItem.position)
        .limit(PAGE_ITEMS + 1)
    )
    rows = session.execute(wanted).all()
    taken: list[Any] = []
    room = PAGE_BYTES
    for row in rows[:PAGE_ITEMS]:
        room -= len(row.body.encode()) + 1
        if room < 0 and taken:
            break
        taken.append(row)
    repeated = cursor if after is not None else _START
    end = f"{taken[-1].position}-{taken[-1].id}" if taken else repeated
    return Page([row.body for row in taken], end, has_more=len(taken) < len(rows))


def acknowledge(session: Session, source: str, cursor: str) -> None:
    """Everything up to the cursor is stored at the agent's. A cursor that is not known here acknowledges nothing."""
    found = _inbox(session, source)
    after = None if found is None else _position(session, found.source_id, cursor)
    if found is not None and after is not None:
        further = update(Inbox).where(Inbox.source_id == found.source_id, Inbox.acknowledged < after)
        session.execute(further.values(acknowledged=after))


def pending(session: Session, source_ids: Sequence[int]) -> int:
    """How many items wait for these sources."""
    return int(session.connection().execute(_PENDING, {"sources": source_ids}).scalar_one())


_PENDING: Final = select(func.coalesce(func.sum(Inbox.last - Inbox.acknowledged), 0)).where(
    Inbox.source_id.in_(bindparam("sources", expanding=True))
)


def is_waiting(session: Session, source: str, cursor: str) -> bool:
    """Whether a page would have items."""
    return bool(page(session, source, cursor).items)


def ends(session: Session, sources: Sequence[str]) -> dict[str, int]:
    """The last position in the inbox of each source that has one."""
    wanted = select(Source.name, Inbox.last).join(Inbox, Inbox.source_id == Source.id).where(Source.name.in_(sources))
    return {row.name: row.last for row in session.execute(wanted)}


def _inbox(session: Session, source: str) -> Inbox | None:
    return session.scalars(
        select(Inbox).join(Source, Source.id == Inbox.source_id).where(Source.name == source)
    ).one_or_none()


def _position(session: Session, source_id: int, cursor: str) -> int | None:
    """The place that a cursor names. A place that has another item by now was given out before a backup came back."""
    match = _CURSOR.match(cursor)
    if match is None:
        return None
    position = int(match[1])
    item_id = session.scalars(
        select(InboxItem.id).where(InboxItem.source_id == source_id, InboxItem.position == position)
    ).one_or_none()
    return position if item_id == match[2] else None


def largest_text(data: Mapping[str, Any]) -> int:
    """The bytes of an item with this data, at most."""
    return len(json.dumps(data, ensure_ascii=False).encode()) + 1_024
