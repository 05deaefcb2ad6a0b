"""What this outbox asked people, and what came of it: one row per question or review, settled once.

A row is written in the transaction of the event that asks. Whoever settles it (an answer that came, an operator, a
deadline that passed) does so by compare-and-set: the first one wins.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from attrs import field, frozen

from orchclient.core.judging import Asked, RequestKind, RequestState
from orchclient.outbox import identity

GRACE_US = 10_000_000
"""How long after its deadline a request is still open when no poll told that no answer is on its way."""

_COLUMNS = (
    "id, kind, seq, source, task, agent, key, digest, priority, asked_us, deadline_us, fallback, state, answer, "
    "answer_id, settled_us, consumed_us, content"
)
_PLACES = ", ".join("?" for _ in _COLUMNS.split(","))
_OPEN = "settled_us IS NULL"


@frozen
class Request:
    """One request as the outbox knows it. ``fallback`` is what the agent does without an answer, as JSON text.

    ``source`` is the identity under which it was asked. ``answer`` is the JSON text of what settled it. ``digest`` is
    of what people were shown, ``content`` of that without the deadline: by it a question asked again is recognised.
    """

    id: str
    kind: RequestKind = field(converter=RequestKind)
    seq: int
    source: str
    task: str
    agent: str
    key: str | None
    digest: str
    priority: str
    asked_us: int
    deadline_us: int | None = None
    fallback: str | None = None
    state: RequestState = field(default=RequestState.OPEN, converter=RequestState)
    answer: str | None = None
    answer_id: str | None = None
    settled_us: int | None = None
    consumed_us: int | None = None
    content: str = ""

    @property
    def asked(self) -> Asked:
        """What an item about it is held against."""
        return Asked(self.id, self.kind, self.task, self.digest, self.state)

    @property
    def answered(self) -> dict[str, Any] | None:
        """What settled it, as a value."""
        return json.loads(self.answer) if self.answer else None


def add(con: sqlite3.Connection, request: Request) -> None:
    """Remember a request, in the transaction of its event. One that is known stays as it is."""
    con.execute(
        f"INSERT OR IGNORE INTO requests ({_COLUMNS}) VALUES ({_PLACES})",
        (
            request.id,
            request.kind.value,
            request.seq,
            request.source,
            request.task,
            request.agent,
            request.key,
            request.digest,
            request.priority,
            request.asked_us,
            request.deadline_us,
            request.fallback,
            request.state.value,
            request.answer,
            request.answer_id,
            request.settled_us,
            request.consumed_us,
            request.content,
        ),
    )


def by_id(con: sqlite3.Connection, request_id: str) -> Request | None:
    """The request that an event made."""
    return _found(con.execute(f"SELECT {_COLUMNS} FROM requests WHERE id = ?", (request_id,)))


def beginning(con: sqlite3.Connection, prefix: str) -> list[Request]:
    """Requests whose id begins so, open ones first, two at most."""
    rows = con.execute(
        f"SELECT {_COLUMNS} FROM requests WHERE substr(id, 1, length(?1)) = ?1 ORDER BY settled_us IS NOT NULL, id "
        "LIMIT 2",
        (prefix,),
    )
    return [Request(*row) for row in rows.fetchall()]


def same_question(con: sqlite3.Connection, task: str, key: str | None, content: str) -> Request | None:
    """The newest question of a task with this key, or without one with this content; another deadline is no other one.

    One that was withdrawn, or expired without a default, has no answer to give: asked again, it is a new one.
    """
    column, value = ("key", key) if key is not None else ("content", content)
    return _found(
        con.execute(
            f"SELECT {_COLUMNS} FROM requests WHERE task = ? AND {column} = ? AND kind = 'question' "
            "AND state <> 'withdrawn' AND NOT (state = 'expired' AND fallback IS NULL) "
            "AND (? IS NOT NULL OR key IS NULL) ORDER BY asked_us DESC, seq DESC LIMIT 1",
            (task, value, key),
        )
    )


def open_ones(con: sqlite3.Connection, agent: str | None = None) -> list[Request]:
    """What waits for a person, oldest first; of one agent or of all."""
    rows = con.execute(
        f"SELECT {_COLUMNS} FROM requests WHERE {_OPEN} AND (?1 IS NULL OR agent = ?1) ORDER BY asked_us, seq",
        (agent,),
    )
    return [Request(*row) for row in rows.fetchall()]


def sources_to_poll(con: sqlite3.Connection) -> list[str]:
    """The identities in whose inbox an answer to what is open may come, in order.

    That under which it was asked, and, when the outbox has taken another one since, that under which it is sent now.
    """
    open_rows = con.execute(f"SELECT source, seq FROM requests WHERE {_OPEN}").fetchall()
    if not open_rows:
        return []
    known = identity.identities(con)
    sources = {source for source, _ in open_rows} | {known.of(seq) for _, seq in open_rows}
    return sorted(sources if len(sources) == 1 else sources | {known.newest})


def mark_seen(con: sqlite3.Connection, request_id: str) -> None:
    """A person opened it."""
    con.execute("UPDATE requests SET state = 'seen' WHERE id = ? AND state = 'open'", (request_id,))


def settle(
    con: sqlite3.Connection,
    request_id: str,
    state: RequestState,
    now_us: int,
    answer: str | None = None,
    answer_id: str | None = None,
) -> bool:
    """Settle a request that is open; False when it was settled before, and then nothing changes."""
    settled = con.execute(
        f"UPDATE requests SET state = ?, answer = ?, answer_id = ?, settled_us = ? WHERE id = ? AND {_OPEN}",
        (state.value, answer, answer_id, now_us, request_id),
    )
    return settled.rowcount == 1


def next_deadline_us(con: sqlite3.Connection) -> int | None:
    """The earliest deadline of what is open."""
    deadline_us: int | None = con.execute(f"SELECT min(deadline_us) FROM requests WHERE {_OPEN}").fetchone()[0]
    return deadline_us


def settle_overdue(con: sqlite3.Connection, now_us: int, grace_us: int = GRACE_US) -> list[str]:
    """Settle as expired what is open past its deadline, once no answer given in time can be on its way; the ids.

    That is: when a poll that began after the deadline brought nothing more, or ``grace_us`` after it.
    """
    overdue = con.execute(
        f"SELECT id FROM requests WHERE {_OPEN} AND deadline_us <= ?1 AND (deadline_us <= ?1 - ?2 OR EXISTS ("
        "SELECT 1 FROM inbox_cursors c WHERE c.source = requests.source AND c.polled_us >= requests.deadline_us))",
        (now_us, grace_us),
    ).fetchall()
    return [row[0] for row in overdue if settle(con, row[0], RequestState.EXPIRED, now_us)]


def consume(con: sqlite3.Connection, request_id: str, now_us: int) -> bool:
    """The answer is handed to the agent; False when that happened before."""
    consumed = con.execute(
        "UPDATE requests SET consumed_us = ? WHERE id = ? AND consumed_us IS NULL AND answer IS NOT NULL",
        (now_us, request_id),
    )
    return consumed.rowcount == 1


def forget_settled(con: sqlite3.Connection, before_us: int) -> None:
    """What was settled before an instant is told in the journal, and nobody waits for it."""
    con.execute("DELETE FROM requests WHERE settled_us < ?", (before_us,))


def take_over(lost: sqlite3.Connection, con: sqlite3.Connection) -> None:
    """Copy the requests of lost or damaged files that ``con`` does not know; what it knows itself stays."""
    rows = lost.execute(f"SELECT {_COLUMNS} FROM requests").fetchall()
    con.executemany(f"INSERT OR IGNORE INTO requests ({_COLUMNS}) VALUES ({_PLACES})", rows)


def _found(rows: sqlite3.Cursor) -> Request | None:
    row = rows.fetchone()
    rows.close()
    return Request(*row) if row else None
