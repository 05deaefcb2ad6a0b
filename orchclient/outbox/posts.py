"""The messages of a chat sink: one row per topic, what it is to tell next, and the message that people see of it.

What a topic is to tell is one event, parked at the desk (``work``) while it is owed. Every function is a work of the
writer or a question; the counters in ``sinks`` change in the same transaction.
"""

from __future__ import annotations

import sqlite3

from attrs import frozen

_COLUMNS = (
    "topic, seq, task, is_owed, count, total, urgency, due_us, is_held, message_id, told_us, claimed_us, is_repeat"
)


@frozen
class Post:
    """A topic that has something to tell: the event ``seq``, newest of ``count`` untold and ``total`` in all."""

    topic: str
    seq: int
    task: str
    is_owed: bool
    count: int
    total: int
    urgency: int
    due_us: int
    is_held: bool
    message_id: str
    told_us: int | None
    claimed_us: int | None
    is_repeat: bool


@frozen
class Known:
    """What is known of a topic before an event is planned for it."""

    message_id: str = ""
    told_us: int | None = None
    told_id: str = ""
    is_known: bool = False  # it has something to tell, or told something


def known(con: sqlite3.Connection, sink: str, topic: str) -> Known:
    """The message that people see of a topic, when it last spoke, and of which event."""
    row = con.execute(
        "SELECT message_id, told_us, told_id FROM posts WHERE sink = ? AND topic = ?", (sink, topic)
    ).fetchone()
    return Known(row[0], row[1], row[2], is_known=True) if row else Known()


def plan(
    con: sqlite3.Connection,
    sink: str,
    topic: str,
    seq: int,
    task: str,
    urgency: int,
    due_us: int,
    now_us: int,
    *,
    held: bool = False,
    is_parked: bool = False,
) -> None:
    """Let a topic tell an event next; the one that it supersedes is released. ``is_parked``: it is at the desk."""
    _supersede(con, sink, topic)
    if not is_parked:
        _park(con, sink, seq, task, now_us)
    con.execute(
        "INSERT INTO posts (sink, topic, seq, task, is_owed, count, total, urgency, due_us, is_held) "
        "VALUES (:sink, :topic, :seq, :task, 1, 1, 1, :urgency, :due, :held) "
        "ON CONFLICT (sink, topic) DO UPDATE SET task = :task, is_owed = 1, total = total + 1, "
        "count = iif(seq IS NULL, 1, count + 1), "
        "urgency = iif(seq IS NULL, :urgency, max(urgency, :urgency)), "
        "due_us = iif(seq IS NULL, :due, min(due_us, :due)), "
        "is_held = iif(seq IS NULL, :held, min(is_held, :held)), seq = :seq",
        {
            "sink": sink,
            "topic": topic,
            "seq": seq,
            "task": task,
            "urgency": urgency,
            "due": due_us,
            "held": held,
        },
    )


def echo(con: sqlite3.Connection, sink: str, topic: str, seq: int, due_us: int, *, can_edit: bool) -> None:
    """Let the message of a topic, if people see one, tell an event that another topic owns; else it has no more to say.

    A task that is completed is not to be shown as one at work.
    """
    _supersede(con, sink, topic)
    con.execute(
        "UPDATE posts SET seq = iif(:edit AND message_id <> '', :seq, NULL), is_owed = 0, count = 1, due_us = :due, "
        "is_held = 0 WHERE sink = :sink AND topic = :topic",
        {"edit": can_edit, "seq": seq, "due": due_us, "sink": sink, "topic": topic},
    )


def drop_untold(con: sqlite3.Connection, sink: str, topic: str) -> None:
    """What a topic was to tell is older than what people know: it is released."""
    _supersede(con, sink, topic)
    con.execute(
        "UPDATE posts SET total = total - count, seq = NULL, is_owed = 0, count = 0, is_held = 0 "
        "WHERE sink = ? AND topic = ? AND seq IS NOT NULL",
        (sink, topic),
    )


def also(con: sqlite3.Connection, sink: str, topic: str, seq: int, task: str, urgency: int, due_us: int) -> None:
    """Let one more topic tell an event that another one owns, in a message of its own."""
    con.execute(
        "INSERT INTO posts (sink, topic, seq, task, is_owed, count, total, urgency, due_us) "
        "VALUES (:sink, :topic, :seq, :task, 0, 1, 1, :urgency, :due) ON CONFLICT (sink, topic) DO UPDATE SET "
        "due_us = iif(seq IS NULL, :due, min(due_us, :due)), seq = :seq, urgency = :urgency, count = 1",
        {"sink": sink, "topic": topic, "seq": seq, "task": task, "urgency": urgency, "due": due_us},
    )


def keep(con: sqlite3.Connection, sink: str, topic: str, task: str, message_id: str, now_us: int) -> None:
    """Remember a message, or only that something was, under a topic that has nothing to tell itself."""
    con.execute(
        "INSERT INTO posts (sink, topic, task, is_owed, count, total, urgency, due_us, message_id, told_us) "
        "VALUES (:sink, :topic, :task, 0, 0, 0, 0, 0, :message, :now) "
        "ON CONFLICT (sink, topic) DO UPDATE SET message_id = :message, told_us = :now",
        {"sink": sink, "topic": topic, "task": task, "message": message_id, "now": now_us},
    )


def forget_message(con: sqlite3.Connection, sink: str, topic: str, message_id: str) -> None:
    """A message is gone; another one that the topic has meanwhile stays."""
    con.execute(
        "UPDATE posts SET message_id = '' WHERE sink = ? AND topic = ? AND message_id = ?", (sink, topic, message_id)
    )


def next_due(con: sqlite3.Connection, sink: str, now_us: int) -> Post | None:
    """The most urgent topic that may speak now, the oldest event first; held ones are told together."""
    row = con.execute(
        f"SELECT {_COLUMNS} FROM posts WHERE sink = ? AND seq IS NOT NULL AND is_held = 0 AND due_us <= ? "
        "ORDER BY urgency DESC, seq LIMIT 1",
        (sink, now_us),
    ).fetchone()
    return Post(*row) if row else None


def held_due(con: sqlite3.Connection, sink: str, now_us: int, at_most: int = 200) -> list[Post]:
    """Topics that were held while it was quiet and may speak now, in the order of their events."""
    rows = con.execute(
        f"SELECT {_COLUMNS} FROM posts WHERE sink = ? AND seq IS NOT NULL AND is_held = 1 AND due_us <= ? "
        "ORDER BY seq LIMIT ?",
        (sink, now_us, at_most),
    )
    return [Post(*row) for row in rows]


def claimed(con: sqlite3.Connection, sink: str) -> list[Post]:
    """Topics of which a request was under way when its process ended."""
    rows = con.execute(
        f"SELECT {_COLUMNS} FROM posts WHERE sink = ? AND claimed_us IS NOT NULL AND seq IS NOT NULL", (sink,)
    )
    return [Post(*row) for row in rows]


def next_due_us(con: sqlite3.Connection, sink: str) -> int | None:
    """When the first topic may speak; None when none has anything to tell."""
    due_us: int | None = con.execute(
        "SELECT min(due_us) FROM posts WHERE sink = ? AND seq IS NOT NULL", (sink,)
    ).fetchone()[0]
    return due_us


def held_back(con: sqlite3.Connection, sink: str, now_us: int, up_to_seq: int, task: str | None = None) -> int:
    """How many events up to a place wait for their turn only: people are not to be told of them yet."""
    count: int = con.execute(
        "SELECT count(*) FROM posts WHERE sink = :sink AND due_us > :now AND is_owed AND seq <= :seq "
        "AND (:task IS NULL OR task = :task)",
        {"sink": sink, "now": now_us, "seq": up_to_seq, "task": task},
    ).fetchone()[0]
    return count


def claim(con: sqlite3.Connection, sink: str, post: Post, now_us: int) -> None:
    """A request is about to go out: whoever finds this later knows that it may have arrived."""
    con.execute("UPDATE posts SET claimed_us = ? WHERE sink = ? AND topic = ?", (now_us, sink, post.topic))


def unclaim(con: sqlite3.Connection, sink: str, post: Post, *, is_repeat: bool = False) -> None:
    """The request came to nothing."""
    con.execute(
        "UPDATE posts SET claimed_us = NULL, is_repeat = max(is_repeat, ?) WHERE sink = ? AND topic = ?",
        (is_repeat, sink, post.topic),
    )


def told(con: sqlite3.Connection, sink: str, post: Post, message_id: str, now_us: int, event_id: str = "") -> None:
    """People see it: the event is delivered, the topic has nothing more to tell for now."""
    if post.is_owed:
        release(con, sink, post.seq)
    con.execute(
        "UPDATE posts SET seq = NULL, count = 0, claimed_us = NULL, is_repeat = 0, is_held = 0, told_us = ?, "
        "message_id = ?, told_id = ? WHERE sink = ? AND topic = ?",
        (now_us, message_id, event_id, sink, post.topic),
    )


def given_up(con: sqlite3.Connection, sink: str, post: Post, now_us: int) -> bool:
    """The topic tells this event no more, and what it tells next is a new message. Whether the event was owed."""
    told(con, sink, post, "", now_us)
    return post.is_owed


def forget_old(con: sqlite3.Connection, sink: str, before_us: int) -> None:
    """Topics that have had nothing to tell for long: what comes of them is a new message."""
    con.execute("DELETE FROM posts WHERE sink = ? AND seq IS NULL AND told_us < ?", (sink, before_us))


def tell_again(con: sqlite3.Connection, sink: str) -> None:
    """Somebody has everything sent again: nothing counts as known to people."""
    con.execute("UPDATE posts SET told_id = '' WHERE sink = ?", (sink,))


def take_over(lost: sqlite3.Connection, con: sqlite3.Connection) -> None:
    """Copy which messages people see, out of lost or damaged files: what comes next is told in them, and not anew.

    What was to be told is copied as an event, and planned once more. Of a request that was under way nobody knows
    whether it arrived: what comes of its topic is marked as a possible repeat.
    """
    has_told_id = any(column[1] == "told_id" for column in lost.execute("PRAGMA table_info(posts)"))
    rows = lost.execute(
        "SELECT sink, topic, task, total - count, urgency, message_id, told_us, "
        "max(is_repeat, claimed_us IS NOT NULL AND message_id = ''), "
        f"{'told_id' if has_told_id else repr('')} FROM posts"
    ).fetchall()
    con.executemany(
        "INSERT INTO posts (sink, topic, task, is_owed, count, total, urgency, due_us, message_id, told_us, is_repeat, "
        "told_id) VALUES (?1, ?2, ?3, 0, 0, ?4, ?5, 0, ?6, ?7, ?8, ?9) ON CONFLICT (sink, topic) DO UPDATE SET "
        "message_id = ?6, told_us = ?7, is_repeat = max(is_repeat, ?8), told_id = ?9 WHERE posts.message_id = ''",
        rows,
    )


def adopt(con: sqlite3.Connection, sink: str, task: str, count: int) -> None:
    """So many events of a lane belong to topics from now on; a lane without events ends."""
    con.execute("UPDATE lanes SET parked = parked - ? WHERE sink = ? AND task = ?", (count, sink, task))
    con.execute("DELETE FROM lanes WHERE sink = ? AND task = ? AND parked <= 0", (sink, task))


def release(con: sqlite3.Connection, sink: str, seq: int) -> None:
    """Take an event off the desk: it is told, superseded, or becomes a dead letter in the same transaction."""
    gone = con.execute("DELETE FROM work WHERE sink = ? AND state = 'parked' AND seq = ?", (sink, seq)).rowcount
    con.execute("UPDATE sinks SET parked = parked - ? WHERE name = ?", (gone, sink))


def _supersede(con: sqlite3.Connection, sink: str, topic: str) -> None:
    row = con.execute(
        "SELECT seq FROM posts WHERE sink = ? AND topic = ? AND seq IS NOT NULL AND is_owed = 1", (sink, topic)
    ).fetchone()
    if row:
        release(con, sink, row[0])


def _park(con: sqlite3.Connection, sink: str, seq: int, task: str, now_us: int) -> None:
    con.execute(
        "INSERT INTO work (sink, state, seq, task, attempts, reason, since_us) VALUES (?, 'parked', ?, ?, 0, '', ?)",
        (sink, seq, task, now_us),
    )
    con.execute("UPDATE sinks SET parked = parked + 1 WHERE name = ?", (sink,))
