"""What events become for a chat: the topics that tell them, and when. Sends nothing, writes into others' transactions.

How a topic comes to be told: docs/decisions/0019-how-people-are-told.md.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from attrs import evolve, frozen

from orchclient.core.noise import Topic, due_us, status_topic, step_topic, task_topic, thread_topic, topic_of
from orchclient.delivery.settlement import DAMAGED, Selection
from orchclient.outbox import desk, posts
from orchclient.outbox.bulk import Row
from orchclient.outbox.posts import Known
from orchclient.sinks.sink import ChatSink, Selective, is_threaded

MILESTONES_EVERY_S = 300.0


@frozen
class Planner:
    """Plans the messages of one chat."""

    chat: ChatSink

    def place(self, con: sqlite3.Connection, row: Row, now_us: int) -> None:
        """Let a topic tell an event; what nobody is to be told counts as delivered."""
        seq, task, _, body = row
        event = json.loads(b"{" + body)
        topic = topic_of(event)
        if topic is None or not self._takes(event):
            return
        known = posts.known(con, self.chat.name, topic.key)
        if topic.ends and not known.is_known and topic.began:
            topic = evolve(topic, key=topic.began)
            known = posts.known(con, self.chat.name, topic.key)
        if not (known.is_known if topic.ends else self.chat.rules.is_told(topic.urgency)):
            return
        if topic.began and not topic.ends and not posts.known(con, self.chat.name, topic.began).is_known:
            posts.keep(con, self.chat.name, topic.began, task, "", now_us)  # who is reminded of it is told its end, too
        if known.told_id == event["id"]:  # out of files that were lost, behind what it superseded
            posts.drop_untold(con, self.chat.name, topic.key)
        else:
            self._plan(con, topic, known, seq, task, now_us)
        if topic.ends_progress:
            posts.echo(con, self.chat.name, task_topic(task), seq, now_us, can_edit=self.chat.can_edit)
        if topic.key == task_topic(task) and is_threaded(self.chat):
            self._plan_milestone(con, topic, known, seq, task, str(event["data"].get("status")), now_us)

    def _plan(self, con: sqlite3.Connection, topic: Topic, known: Known, seq: int, task: str, now_us: int) -> None:
        rules = self.chat.rules
        every_s = self.chat.shortest_edit_s if rules.speaks_every_s is None else rules.speaks_every_s
        due = due_us(topic, known.told_us, every_s, now_us)
        is_edit = self.chat.can_edit and known.message_id != ""
        held_us = None if is_edit else rules.held_until_us(topic.urgency, now_us)
        posts.plan(
            con,
            self.chat.name,
            topic.key,
            seq,
            task,
            topic.urgency,
            due if held_us is None else max(due, held_us),
            now_us,
            held=held_us is not None,
        )

    def _plan_milestone(
        self, con: sqlite3.Connection, topic: Topic, known: Known, seq: int, task: str, status: str, now_us: int
    ) -> None:
        """A status that the task has for the first time is told in its thread too, since the task's message only shows
        the newest one. Before people see that message, it says it.
        """
        name, mark = self.chat.name, status_topic(task, status)
        if posts.known(con, name, mark).told_us is not None:
            return
        posts.keep(con, name, mark, task, "", now_us)
        is_quiet = self.chat.rules.held_until_us(topic.urgency, now_us) is not None
        if is_quiet or not known.message_id or not posts.known(con, name, thread_topic(task)).message_id:
            return
        step = Topic(step_topic(task), topic.urgency, is_spaced=True)
        due = due_us(step, posts.known(con, name, step.key).told_us, MILESTONES_EVERY_S, now_us)
        posts.also(con, name, step.key, seq, task, topic.urgency, due)

    def place_again(self, con: sqlite3.Connection, selection: Selection, task: str, now_us: int) -> None:
        """What a person had sent again: each event is a message of its own, and leaves its lane."""
        name = self.chat.name
        for seq, _, _, body in selection.to_send:
            topic = topic_of(json.loads(b"{" + body)) or Topic("", 0)
            posts.plan(con, name, f"again:{seq}", seq, task, topic.urgency, now_us, now_us, is_parked=True)
        for seq, *_ in selection.damaged:
            posts.release(con, name, seq)
            desk.bury(con, name, seq, task, 1, DAMAGED.reason, now_us)
        posts.adopt(con, name, task, len(selection))

    def _takes(self, event: Mapping[str, Any]) -> bool:
        return not isinstance(self.chat, Selective) or bool(self.chat.takes(event))
