"""Many events of the journal at a time, for delivering and folding: SQLite puts them together, and hands over one row.

Python's sqlite3 gives the interpreter's lock away at every row and takes it back. Beside an agent that records, each
time is a change of threads, which costs more than the row. In one row the reading goes on while the agent computes.
Rows that do not come apart again as they should (a place is missing, bits flipped on the disk) are read one by one; so
are all where nobody records, since that spares taking them apart.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from zlib import crc32

from orchclient.core.envelope import data_text, event_text, opening

if TYPE_CHECKING:
    from orchclient.core.batching import BatchLimit

Row = tuple[int, str, int, bytes]
"""What delivering needs of an event: its place, task, checksum and text in UTF-8. A plain tuple, and bytes: making an
object of each, and decoding what is only sent on, would cost half as much as sending it."""

Told = tuple[int, str, str, str, int, dict[str, Any]]
"""What folding needs: (seq, task, agent, type, recorded_us, data)."""


# --- for delivering --------------------------------------------------------------------------------------------------


def ids_in(rows: Iterable[Row]) -> list[str]:
    """The ids of events, out of their texts: each begins with ``"id":"`` and 36 characters."""
    return [body[6:42].decode() for _, _, _, body in rows]


class Ids(Sequence[str]):
    """The ids of events, taken out of their texts when somebody asks: a receiver may answer for a batch as a whole."""

    __slots__ = ("_rows", "_taken")

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self._taken: list[str] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: Any) -> Any:
        if self._taken is None:
            self._taken = ids_in(self._rows)
        return self._taken[place]

    def __iter__(self) -> Iterator[str]:
        if self._taken is None:
            self._taken = ids_in(self._rows)
        return iter(self._taken)


def damaged_among(rows: Sequence[Row]) -> list[Row]:
    """Events whose text is not what was recorded: bits that flip on a disk are not noticed by SQLite."""
    if not rows:
        return []
    _, _, recorded, bodies = zip(*rows, strict=True)
    found = tuple(map(crc32, bodies))  # all at once: it is a fifth of what a flush costs
    if found == recorded:
        return []
    return [row for row, checksum in zip(rows, found, strict=True) if row[2] != checksum]


def read_next(con: sqlite3.Connection, after_seq: int, limit: BatchLimit, *, one_by_one: bool = False) -> list[Row]:
    """The events behind ``after_seq`` that fit into one batch, in order; at least one if there is any.

    ``one_by_one``: no thread of this process records right now.
    """
    read = _each_behind if one_by_one else _rows_behind
    return _taken(lambda taken, at_most: read(con, taken[-1][0] if taken else after_seq, at_most), limit)


def read_lane(con: sqlite3.Connection, sink: str, task: str, limit: BatchLimit) -> list[Row]:
    """The oldest parked events of a task for a sink that fit into one batch, in order."""
    query = """
        SELECT e.seq, e.task, e.crc, CAST(e.body AS BLOB)
        FROM work AS w JOIN events AS e ON e.seq = w.seq
        WHERE w.sink = ? AND w.state = 'parked' AND w.task = ? ORDER BY w.seq LIMIT ?"""
    cursor = con.execute(query, (sink, task, limit.events))
    rows = _taken(lambda _, at_most: cursor.fetchmany(at_most), limit)
    cursor.close()
    return rows


_SEPARATOR = b"\n"
_NEXT = "FROM events WHERE seq > ? ORDER BY seq LIMIT ?"
_TOGETHER = f"""
    SELECT count(*), min(seq), max(seq), group_concat(task, char(10)), group_concat(crc),
        CAST(group_concat(body, char(10)) AS BLOB)
    FROM (SELECT seq, task, crc, body {_NEXT})"""
"""No text of JSON and no id of a task has a line feed in it."""


def _rows_behind(con: sqlite3.Connection, after_seq: int, at_most: int) -> list[Row]:
    count, first, last, *texts = con.execute(_TOGETHER, (after_seq, at_most)).fetchone()
    rows = _apart(range(first, last + 1), *texts) if count and None not in texts else []
    return rows if len(rows) == count else _each_behind(con, after_seq, at_most)


def _each_behind(con: sqlite3.Connection, after_seq: int, at_most: int) -> list[Row]:
    return con.execute(f"SELECT seq, task, crc, CAST(body AS BLOB) {_NEXT}", (after_seq, at_most)).fetchall()


def _apart(places: range, tasks: str, checksums: str, bodies: bytes) -> list[Row]:
    """The rows again; none when the texts do not come apart into one for each place."""
    try:
        return list(
            zip(places, tasks.split("\n"), map(int, checksums.split(",")), bodies.split(_SEPARATOR), strict=True)
        )
    except ValueError:
        return []


OPENING_BYTES = len(event_text(opening("0" * 36), 0, "")) + len(",")
"""What the envelope puts in front of a stored body, and the comma behind it."""

FIRST_ROWS, MOST_ROWS = 16, 256
"""Rows that are read before their sizes are looked at: 500 events of a megabyte are never in memory together."""


def _taken(more: Callable[[list[Row], int], list[Row]], limit: BatchLimit) -> list[Row]:
    """As many rows as fit; ``more`` gives at most so many behind those that were taken."""
    taken: list[Row] = []
    room, at_once = limit.bytes - 2, FIRST_ROWS
    while rows := more(taken, min(at_once, limit.events - len(taken))):
        size = sum(map(len, map(_BODY, rows))) + OPENING_BYTES * len(rows)
        if size > room:
            taken += rows[: max(_fitting(rows, room), 0 if taken else 1)]
            break
        taken += rows
        room -= size
        at_once = min(max(room * len(rows) // size, FIRST_ROWS), MOST_ROWS)  # as many as fit if they are of that size
    return taken


_BODY = itemgetter(3)


def _fitting(rows: Sequence[Row], room: int) -> int:
    """How many of the leading events fit."""
    for count, row in enumerate(rows):
        room -= len(_BODY(row)) + OPENING_BYTES
        if room < 0:
            return count
    return len(rows)


# --- for folding -----------------------------------------------------------------------------------------------------

TOLD_ROWS = 100
"""Events that are put together for the fold at a time: as texts of a megabyte each they must fit into memory."""

_TOLD = "FROM events WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
_TOLD_TOGETHER = f"""
    SELECT count(*), group_concat(seq), group_concat(task, char(10)), group_concat(agent, char(10)),
        group_concat(type, char(10)), group_concat(recorded_us),
        group_concat('{{"data":' || substr(body, instr(body, ',"data":') + 8))
    FROM (SELECT seq, task, agent, type, recorded_us, body {_TOLD})"""
"""The text of a body ends with the brace that closes the event; here it closes the object around the data."""


def told_between(con: sqlite3.Connection, after_seq: int, up_to_seq: int) -> Iterator[Told]:
    """What the events with ``after_seq < seq <= up_to_seq`` tell, in order; no data of one whose bits flipped."""
    while rows := _told_behind(con, after_seq, up_to_seq):
        yield from rows
        after_seq = rows[-1][0]


def _told_behind(con: sqlite3.Connection, after_seq: int, up_to_seq: int) -> list[Told]:
    place = (after_seq, up_to_seq, TOLD_ROWS)
    count, *texts = con.execute(_TOLD_TOGETHER, place).fetchone()
    rows = _told_apart(*texts) if count and None not in texts else []
    if len(rows) == count:
        return rows
    query = f"SELECT seq, task, agent, type, recorded_us, body {_TOLD}"
    return [(*attributes, data_of(body)) for *attributes, body in con.execute(query, place)]


def _told_apart(places: str, tasks: str, agents: str, types: str, times_us: str, objects: str) -> list[Told]:
    try:
        told = zip(
            map(int, places.split(",")),
            tasks.split("\n"),
            agents.split("\n"),
            types.split("\n"),
            map(int, times_us.split(",")),
            map(_told_in, json.loads(f"[{objects}]")),
            strict=True,
        )
        return list(told)
    except (ValueError, LookupError, TypeError):
        return []


def _told_in(body: dict[str, Any]) -> dict[str, Any]:
    return _object(body["data"])


def data_of(body: str) -> dict[str, Any]:
    """The members of a stored event's data; none when bits flipped, since a fold must go on."""
    try:
        return _object(json.loads(data_text(body)))
    except ValueError:
        return {}


def _object(data: Any) -> dict[str, Any]:
    return data if isinstance(data, dict) else {}
