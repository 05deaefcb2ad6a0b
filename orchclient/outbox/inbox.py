"""The inbox: every item that came, judged and kept, and per sink and source how far it was read and acknowledged.

Nothing here acts on what an item says: it settles the request that it answers, and is shown.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Any

from attrs import evolve, field, frozen

from orchclient.core.inbox_items import InboxItem, read_item
from orchclient.core.jsontext import encode, storable
from orchclient.core.judging import ItemVerdict, judged, settled_state
from orchclient.outbox import folding, requests

_ITEM = "source, id, type, task, request, answer_id, received_us, verdict, problem, body"
_COUNTED = ("accepted", "late")


@frozen
class Received:
    """One item as it is kept. ``body`` is its JSON text, ``n`` its place in the order in which all items came."""

    n: int
    source: str
    id: str
    type: str
    task: str
    request: str | None
    answer_id: str | None
    received_us: int
    verdict: ItemVerdict = field(converter=ItemVerdict)
    problem: str
    body: str

    @property
    def data(self) -> dict[str, Any]:
        """What it says, as docs/wire.md has it: words of people, never to be acted upon as they are.

        Empty for an item that cannot be read.
        """
        try:
            data = json.loads(self.body)["data"]
        except (ValueError, TypeError, LookupError, RecursionError):
            return {}
        return data if isinstance(data, dict) else {}


@frozen
class Addressed:
    """An item with the agent whose it is: who asked, or whose task it is about; None when nobody knows."""

    item: Received
    agent: str | None


def store_page(
    con: sqlite3.Connection, sink: str, source: str, items: Iterable[Any], cursor: str, now_us: int
) -> list[Received]:
    """Keep the items that are new, judge them, settle what they settle, and move the cursor; the new ones.

    All in the caller's transaction: afterwards either everything holds or nothing.
    """
    received = [_received(con, value, now_us) for value in items]
    con.execute(
        "INSERT INTO inbox_cursors (sink, source, cursor, since_us) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (sink, source) DO UPDATE SET cursor = excluded.cursor",
        (sink, source, cursor, now_us),
    )
    return [each for each in received if each is not None]


def _received(con: sqlite3.Connection, value: Any, now_us: int) -> Received | None:
    """One item kept and acted on; None for one that came before."""
    body, item = _read(value)
    if con.execute("SELECT 1 FROM inbox WHERE source = ? AND id = ?", (item.source, item.id)).fetchone():
        return None
    request = requests.by_id(con, item.request_id) if item.request_id else None
    verdict = judged(item, request.asked if request else None, came_before=_came_before(con, item))
    if verdict is ItemVerdict.SEEN and request:
        requests.mark_seen(con, request.id)
    if verdict is ItemVerdict.ACCEPTED and request:
        state = settled_state(item.data["outcome"])
        requests.settle(con, request.id, state, now_us, encode(item.data), item.answer_id)
    row = (
        item.source,
        item.id,
        item.type,
        item.task,
        item.request_id,
        item.answer_id,
        now_us,
        verdict.value,
        item.problem,
        body,
    )
    n = con.execute(f"INSERT INTO inbox ({_ITEM}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row).lastrowid
    return Received(n or 0, *row)


def _read(value: Any) -> tuple[str, InboxItem]:
    """The text that is kept, and the item. One without a name of its own is named by its content."""
    try:
        text = encode(value)
    except (ValueError, RecursionError):
        text, item = '"not kept"', InboxItem(problem="the item is nested too deeply to be kept")
    else:
        # What no file could hold was replaced when the page was read, unless an item came another way.
        item = read_item(value if storable(text) == text else json.loads(storable(text)))
    body = storable(text)
    if item.problem and not (item.source and item.id):
        from hashlib import sha256  # OpenSSL takes 3 ms to load: only for what has no id

        item = evolve(item, source="", id="sha256:" + sha256(body.encode()).hexdigest())
    return body, item


def _came_before(con: sqlite3.Connection, item: InboxItem) -> bool:
    """Whether the same answer counted before, in another item."""
    if item.problem or not item.is_decision:
        return False
    found = con.execute(
        "SELECT 1 FROM inbox WHERE request = ? AND answer_id = ? AND verdict IN (?, ?)",
        (item.request_id, item.answer_id, *_COUNTED),
    )
    return found.fetchone() is not None


def cursor(con: sqlite3.Connection, sink: str, source: str) -> tuple[str, str]:
    """The cursor that is stored and the one that was acknowledged; "" for none."""
    row = con.execute(
        "SELECT cursor, acknowledged FROM inbox_cursors WHERE sink = ? AND source = ?", (sink, source)
    ).fetchone()
    return (row[0], row[1]) if row else ("", "")


def acknowledged(con: sqlite3.Connection, sink: str, source: str, cursor: str) -> None:
    """The receiver has heard that everything up to the cursor is stored."""
    con.execute("UPDATE inbox_cursors SET acknowledged = ? WHERE sink = ? AND source = ?", (cursor, sink, source))


def last_polled_us(con: sqlite3.Connection, sink: str) -> int | None:
    """When the last poll of a sink's inbox began that brought all there was; None when there was none."""
    (polled_us,) = con.execute("SELECT max(polled_us) FROM inbox_cursors WHERE sink = ?", (sink,)).fetchone()
    return None if polled_us is None else int(polled_us)


def note_poll(
    con: sqlite3.Connection, sink: str, source: str, began_us: int, state: str, reason: str, *, is_last: bool = False
) -> None:
    """How a poll went. ``is_last``: it went well, and there was nothing more."""
    polled_us = began_us if is_last else None
    con.execute(
        "INSERT INTO inbox_cursors (sink, source, cursor, state, reason, polled_us, since_us) "
        "VALUES (?1, ?2, '', ?3, ?4, ?5, ?6) ON CONFLICT (sink, source) DO UPDATE SET "
        "since_us = iif(state = ?3, since_us, ?6), state = ?3, reason = ?4, polled_us = coalesce(?5, polled_us)",
        (sink, source, state, reason, polled_us, began_us),
    )


def received(
    con: sqlite3.Connection, *, after_n: int = 0, request: str | None = None, task: str | None = None, most: int = 1000
) -> list[Received]:
    """What came, in order: about one request, of one task, or all of it."""
    found = con.execute(
        f"SELECT n, {_ITEM} FROM inbox WHERE n > ?1 AND (?2 IS NULL OR request = ?2) AND (?3 IS NULL OR task = ?3) "
        "ORDER BY n LIMIT ?4",
        (after_n, request, task, most),
    )
    return [Received(*row) for row in found.fetchall()]


def last_n(con: sqlite3.Connection) -> int:
    """The place of the newest item, 0 when there was none. The newest is never forgotten, so no place comes twice."""
    last: int = con.execute("SELECT coalesce(max(n), 0) FROM inbox").fetchone()[0]
    return last


def addressed(con: sqlite3.Connection, after_n: int, most: int) -> list[Addressed]:
    """What came behind a place, in order, each with whose it is."""
    rows = con.execute(
        f"SELECT n, {_ITEM}, (SELECT agent FROM requests WHERE requests.id = inbox.request) FROM inbox WHERE n > ? "
        "ORDER BY n LIMIT ?",
        (after_n, most),
    ).fetchall()
    return [Addressed(Received(*item), asker or _agent_of(con, item[4])) for *item, asker in rows]


def _agent_of(con: sqlite3.Connection, task: str) -> str | None:
    state = folding.task_state(con, task) if task else None
    return state.agent_id if state else None


def told(con: sqlite3.Connection, task: str, type_: str, most: int) -> list[Received]:
    """The last words of one type to a task, in order."""
    found = con.execute(
        f"SELECT n, {_ITEM} FROM inbox WHERE task = ? AND type = ? AND verdict = 'told' ORDER BY n DESC LIMIT ?",
        (task, type_, most),
    )
    return [Received(*row) for row in reversed(found.fetchall())]


def keep(con: sqlite3.Connection, item: dict[str, Any], now_us: int) -> Received | None:
    """Keep and judge one item that came by no poll, as from a person on this host; None for one that is known."""
    return _received(con, item, now_us)


def forget(con: sqlite3.Connection, before_us: int) -> None:
    """Items that came before an instant are of no use any more, but for those of what is still open.

    The newest stays, or its place would be given out again, and who reads on from there would miss an item.
    """
    con.execute(
        "DELETE FROM inbox WHERE received_us < ? AND n < (SELECT max(n) FROM inbox) AND NOT EXISTS ("
        "SELECT 1 FROM requests WHERE requests.id = inbox.request AND requests.settled_us IS NULL)",
        (before_us,),
    )


def take_over(lost: sqlite3.Connection, con: sqlite3.Connection) -> None:
    """Copy the items of lost or damaged files that ``con`` does not know.

    The cursors stay behind: what was not acknowledged comes again, and is known then.
    """
    items = lost.execute(f"SELECT {_ITEM} FROM inbox ORDER BY n").fetchall()
    con.executemany(f"INSERT OR IGNORE INTO inbox ({_ITEM}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", items)
