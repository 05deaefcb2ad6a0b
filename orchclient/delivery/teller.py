"""One chat sink's delivery: plan messages out of events, then tell the most urgent one. Knows no thread and no sleep.

How a message survives the end of its process between post and settlement: docs/decisions/0019-how-people-are-told.md.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from attrs import define, evolve, field, frozen

from orchclient.core.batching import BatchLimit
from orchclient.core.doubt import Doubt
from orchclient.core.errors import ConfigError
from orchclient.core.event_message import message_of
from orchclient.core.http import HttpOutcome, HttpReply, HttpRequest, NoReply
from orchclient.core.message import Kind, Message, digest, possibly_repeated
from orchclient.core.noise import STEP, THREADLESS, NoiseRules, thread_topic
from orchclient.core.policy import Action, Verdict, all_delivered, bounded_wait_s, without_secrets
from orchclient.core.telling import Remedy, Told
from orchclient.delivery.courier import Cut
from orchclient.delivery.planner import Planner
from orchclient.delivery.settlement import Exchange, Selection, StaleEpoch, settled, write_fates
from orchclient.delivery.transport import Transport
from orchclient.delivery.worker import IDLE, Worker
from orchclient.outbox import attempts, bulk, cursors, desk, journal, posts, shared_waits
from orchclient.outbox.bulk import Row
from orchclient.outbox.cursors import SinkRow, SinkState
from orchclient.outbox.posts import Post
from orchclient.outbox.shared_waits import SharedWait
from orchclient.sinks.sink import ChatSink, is_threaded

FORGOTTEN_AFTER_US = 30 * 86_400 * 1_000_000
AMBIGUOUS = "it may have arrived: no answer came to the whole request; not repeated"


@frozen
class Telling:
    """One message that is to be told: of one topic, or of several that were held while it was quiet."""

    posts: tuple[Post, ...]
    message: Message
    row: SinkRow
    events: tuple[Row, ...]
    ids: Mapping[int, str] = field(factory=dict)  # of the events, by place
    root: str = ""  # the message that the task's thread stands below

    @property
    def thread(self) -> str:
        """Under which its root is kept; empty for what belongs to no task's thread."""
        first = self.posts[0]
        return "" if len(self.posts) > 1 or first.topic == THREADLESS else thread_topic(first.task)

    @property
    def edits(self) -> str:
        """The message to edit; empty when a new one is to be posted."""
        return self.posts[0].message_id if len(self.posts) == 1 else ""

    @property
    def urgency(self) -> int:
        """Of the most urgent."""
        return max(post.urgency for post in self.posts)


@define
class Teller(Worker):
    """Tells one chat sink during one ``epoch``."""

    _recovered: bool = field(default=False, init=False)
    _doubt: Doubt = field(factory=Doubt, init=False)
    _planner: Planner = field(init=False)
    _plans_to: int | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        """A message goes by its own way, not by a courier's batches."""
        self._planner = Planner(self.chat)

    @property
    def chat(self) -> ChatSink:
        """The destination, which is told messages."""
        return cast(ChatSink, self.sink)

    @property
    def rules(self) -> NoiseRules:
        """What the user set."""
        return self.chat.rules

    def resume(self, row: SinkRow) -> None:
        """As every worker does; and after any trouble the first thing that is sent is a question."""
        super().resume(row)
        self._doubt = Doubt(is_open=row.state is not SinkState.DELIVERING)

    def _turn(self) -> float | None:
        if self.is_stale or self.state is SinkState.DISABLED:
            return IDLE
        wait_s = self._not_before - self.clock.monotonic()
        if wait_s > 0:
            return wait_s
        if not self._recovered:
            self._recover()
        if not self._plan_next():
            return 0.0
        telling = self._next()
        if telling is None:
            return self._next_due_s()
        if telling.events and not self._waits_with_others() and (self._edits(telling) or self._answers(telling.row)):
            self._tell(telling)
        return max(self._not_before - self.clock.monotonic(), 0.0)

    def _next_due_s(self) -> float | None:
        due = self.outbox.query(lambda con: posts.next_due_us(con, self.sink.name))
        return IDLE if due is None else max((due - self.clock.now_us()) / 1e6, 0.001)

    def _plan_next(self) -> bool:
        """Plan what comes next; whether everything is planned that was there when this began.

        Not until nothing is left: an agent that records without a pause would keep everything from being told.
        """
        if self._plans_to is None:
            self._plans_to = self.outbox.query(journal.last_seq)
        self.limit = BatchLimit()  # planning asks nobody: what the service thinks of us does not matter
        selection = self._select()
        if selection:
            self._served_lane = selection.lane is not None
            self._plan(selection)
            if selection.lane is None and selection.last_seq < self._plans_to:
                return False
        self._plans_to = None
        return True

    # --- planning -------------------------------------------------------------------------------------------------

    def _plan(self, selection: Selection) -> None:
        """Assign events to topics and move the cursor behind them, in one transaction."""
        now_us, jitter = self.clock.now_us(), self.clock.jitter()
        exchange = Exchange(selection, all_delivered(bulk.ids_in(selection.to_send)), now_us)

        def write(con: sqlite3.Connection) -> None:
            if selection.lane is None:
                write_fates(con, exchange, self.epoch, now_us, jitter)
                for row in selection.to_send:
                    self._planner.place(con, row, now_us)
                return
            self._hold_epoch(con)
            self._planner.place_again(con, selection, selection.lane.task, now_us)

        self.outbox.write(write)

    def _hold_epoch(self, con: sqlite3.Connection) -> None:
        row = cursors.sink(con, self.sink.name)
        if row is None or row.epoch != self.epoch:
            raise StaleEpoch

    # --- telling --------------------------------------------------------------------------------------------------

    def _next(self) -> Telling | None:
        """What is to be told now; without events when what was planned is gone meanwhile."""
        now_us = self.clock.now_us()

        def read(con: sqlite3.Connection) -> Telling | None:
            row = cursors.sink(con, self.sink.name)
            if row is None:
                raise StaleEpoch
            first = posts.next_due(con, row.name, now_us)
            due = [first] if first else posts.held_due(con, row.name, now_us)
            return self._composed(con, row, due) if due else None

        telling = self.outbox.query(read)
        if telling is not None and not telling.events:  # nothing of it can be told any more
            self._write_told(telling, "", Verdict(Action.SETTLE, "nothing to tell"), now_us)
        return telling

    def _composed(self, con: sqlite3.Connection, row: SinkRow, due: Sequence[Post]) -> Telling:
        found = [(post, entry) for post in due if (entry := journal.read_one(con, post.seq)) is not None]
        told = [(post, entry, message) for post, entry in found if (message := self._message(post, entry.body))]
        events = tuple((entry.seq, entry.task, entry.crc, entry.body.encode()) for _, entry, _ in told)
        messages = [message for *_, message in told]
        message = messages[0] if len(messages) == 1 else digest(messages)
        ids = {entry.seq: entry.id for _, entry, _ in told}
        telling = Telling(tuple(due), message, row, events, ids)
        if not telling.thread or not is_threaded(self.chat):
            return telling
        return evolve(telling, root=posts.known(con, row.name, telling.thread).message_id)

    def _message(self, post: Post, body: str) -> Message | None:
        is_told_apart = post.message_id or post.topic.startswith(STEP)
        count = post.total if post.topic.startswith("error:") else 1 if is_told_apart else post.count
        message = message_of(json.loads("{" + body), self.chat.public_url, count=count)
        return possibly_repeated(message) if message and post.is_repeat else message

    def _edits(self, telling: Telling) -> bool:
        return bool(telling.edits) and self.chat.can_edit

    def _answers(self, row: SinkRow) -> bool:
        """Whether the service answers; asked when it owed an answer, since a post that is lost costs a message."""
        at_us = self.clock.now_us()
        outcome = self._probed() if self._doubt.is_to_be_asked else None
        if outcome is None:
            return True
        told = self.chat.probed(outcome, self.clock.now_us())
        if told.verdict.action is Action.SETTLE:
            self._doubt = self._doubt.after_answered_probe()
            return True
        if isinstance(outcome, NoReply):
            self._doubt = self._doubt.after_lost_probe()
        reason = f"before the next message: {told.verdict.reason}"
        told = evolve(told, verdict=without_secrets(evolve(told.verdict, reason=reason), self.redact))
        status = outcome.status if isinstance(outcome, HttpReply) else None
        self._wait_as_told(told, Exchange(Selection(row, ""), told.verdict, at_us, status, outcome.took_ms))
        return False

    def _probed(self) -> HttpOutcome | None:
        try:
            probe = self.chat.probe()
        except ConfigError as error:
            return NoReply("settings", str(error))
        return self._exchanged(probe) if probe else None

    def _tell(self, telling: Telling) -> None:
        at_us = self.clock.now_us()
        self._claim(telling, at_us)
        is_edit = self._edits(telling)
        told, outcome, sent_bytes = self._sent(telling, is_edit=is_edit, plain=False)
        if told.remedy is Remedy.PLAINER:
            told, outcome, sent_bytes = self._sent(telling, is_edit=is_edit, plain=True)
        told = evolve(told, verdict=without_secrets(told.verdict, self.redact))
        selection = Selection(telling.row, "", None, telling.events)
        status = outcome.status if isinstance(outcome, HttpReply) else None
        self._conclude(telling, told, Exchange(selection, told.verdict, at_us, status, outcome.took_ms, sent_bytes))

    def _sent(self, telling: Telling, *, is_edit: bool, plain: bool) -> tuple[Told, HttpOutcome, int]:
        try:
            request = self._request(telling, is_edit=is_edit, plain=plain)
        except ConfigError as error:
            outcome: HttpOutcome = NoReply("settings", str(error))
            return self.chat.told(outcome, self.clock.now_us(), is_edit=is_edit), outcome, 0
        outcome = self._exchanged(request)
        return self.chat.told(outcome, self.clock.now_us(), is_edit=is_edit), outcome, len(request.body)

    def _exchanged(self, request: HttpRequest) -> HttpOutcome:
        outcome = cast(Transport, self.transport).send(request, deadline_s=self.deadline_s)
        if isinstance(outcome, NoReply) and outcome.reason == "closed":
            raise Cut  # the claim stays: the next teller finds it
        return outcome

    def _request(self, telling: Telling, *, is_edit: bool, plain: bool) -> HttpRequest:
        if is_edit:
            return self.chat.edit(telling.message, telling.edits, plain=plain)
        if telling.root and is_threaded(self.chat):
            return self.chat.reply(telling.message, telling.root, plain=plain)
        return self.chat.post(telling.message, plain=plain)

    def _waits_with_others(self) -> bool:
        """Whether another destination that shares a limit of the service with this one was told to wait."""
        limit, now_us = self.chat.shared_limit, self.clock.now_us()
        wait = self.outbox.query(lambda con: shared_waits.of(con, limit, now_us)) if limit else None
        if wait is None:
            return False
        reason = f"waits with {wait.sink}: {wait.reason}"
        throttled: dict[str, Any] = {"state": SinkState.THROTTLED, "reason": reason, "next_try_us": wait.until_us}
        self.outbox.write(lambda con: self._note(con, **throttled))
        self._not_before = self.clock.monotonic() + (wait.until_us - now_us) / 1e6
        self._change(SinkState.THROTTLED, self.failures, reason)
        return True

    def _let_others_wait(self, verdict: Verdict) -> None:
        now_us = self.clock.now_us()
        wait = SharedWait(now_us + int(bounded_wait_s(verdict.retry_after_s) * 1e6), self.sink.name, verdict.reason)
        self.outbox.write(lambda con: shared_waits.ask(con, self.chat.shared_limit, wait, now_us))

    def _claim(self, telling: Telling, at_us: int) -> None:
        def write(con: sqlite3.Connection) -> None:
            self._hold_epoch(con)
            for post in telling.posts:
                posts.claim(con, self.sink.name, post, at_us)

        self.outbox.write(write, synced=True)

    # --- concluding -----------------------------------------------------------------------------------------------

    def _conclude(self, telling: Telling, told: Told, exchange: Exchange) -> None:
        if told.remedy is not Remedy.IT_MAY_HAVE_ARRIVED:
            self._doubt = evolve(self._doubt, is_open=True) if exchange.status is None else Doubt()
        if told.verdict.action is Action.SETTLE:
            self._write_told(telling, told.message_id or telling.edits, told.verdict, self.clock.now_us(), exchange)
            self._not_before = self.clock.monotonic() + told.rest_s
            self._change(SinkState.DELIVERING, 0, "")
        elif told.remedy is Remedy.POST_ANEW:
            self._unclaim(telling, gone=telling.edits)
            self._log_attempt(exchange)
        elif told.remedy is Remedy.DEPART and telling.root:
            self._unclaim(telling, gone=telling.root)
            self._log_attempt(exchange)
        elif told.verdict.action in (Action.BISECT, Action.HALVE):
            self._give_up(telling.posts, told.verdict.reason, exchange)
        else:
            self._wait_for_better_times(telling, told, exchange)

    def _wait_for_better_times(self, telling: Telling, told: Told, exchange: Exchange) -> None:
        if told.remedy is not Remedy.IT_MAY_HAVE_ARRIVED:
            self._unclaim(telling)
            self._wait_as_told(told, exchange)
            return
        self._doubt = self._doubt.after_lost_post()
        reason = told.verdict.reason
        if self.rules.is_repeated(telling.urgency):
            self._unclaim(telling, is_repeat=True)
        else:
            reason = f"{AMBIGUOUS} ({reason})"
            self._give_up(telling.posts, reason, None)
        verdict = evolve(exchange.verdict, action=self._doubt.action, reason=reason)
        self._settle(evolve(exchange, verdict=verdict))

    def _wait_as_told(self, told: Told, exchange: Exchange) -> None:
        if told.is_for_all and self.chat.shared_limit:
            self._let_others_wait(told.verdict)
        self._settle(exchange)

    def _recover(self) -> None:
        """What was under way when a teller ended: an edit is repeated, a post may have arrived."""
        now_us = self.clock.now_us()
        self.outbox.write(lambda con: posts.forget_old(con, self.sink.name, now_us - FORGOTTEN_AFTER_US))
        found = self.outbox.query(lambda con: posts.claimed(con, self.sink.name))
        lost = [post for post in found if not post.message_id and not self.rules.is_repeated(post.urgency)]
        again = [post for post in found if post not in lost]

        def unclaim(con: sqlite3.Connection) -> None:
            for post in again:
                posts.unclaim(con, self.sink.name, post, is_repeat=not post.message_id)

        if lost or any(not post.message_id for post in again):
            self._doubt = evolve(self._doubt, is_open=True)
        if again:
            self.outbox.write(unclaim)
        if lost:
            self._give_up(lost, f"{AMBIGUOUS} (the process ended meanwhile)", None)
        self._recovered = True

    def _unclaim(self, telling: Telling, *, is_repeat: bool = False, gone: str = "") -> None:
        """It was not told. ``gone``: a message that is not there any more, nor a thread below it."""

        def write(con: sqlite3.Connection) -> None:
            self._hold_epoch(con)
            for post in telling.posts:
                posts.unclaim(con, self.sink.name, post, is_repeat=is_repeat)
                if gone:
                    posts.forget_message(con, self.sink.name, post.topic, gone)
                    posts.forget_message(con, self.sink.name, telling.thread, gone)

        self.outbox.write(write)

    def _give_up(self, given: Iterable[Post], reason: str, exchange: Exchange | None) -> None:
        """Make dead letters of what will not be told."""
        now_us = self.clock.now_us()

        def write(con: sqlite3.Connection) -> None:
            self._hold_epoch(con)
            for post in given:
                if posts.given_up(con, self.sink.name, post, now_us):
                    desk.bury(con, self.sink.name, post.seq, post.task, 1, reason, now_us)
            if exchange is not None:
                attempts.add(con, self._logged(exchange))

        self.outbox.write(write)

    def _write_told(
        self, telling: Telling, message_id: str, verdict: Verdict, now_us: int, exchange: Exchange | None = None
    ) -> None:
        is_kept = len(telling.posts) == 1 and telling.message.kind is not Kind.DIGEST
        kept_id = message_id if is_kept and not telling.posts[0].topic.startswith(STEP) else ""
        root = telling.root or ("" if telling.edits else message_id)

        def write(con: sqlite3.Connection) -> None:
            self._hold_epoch(con)
            for post in telling.posts:
                posts.told(con, self.sink.name, post, kept_id, now_us, telling.ids.get(post.seq, ""))
            if exchange is None:
                return
            if telling.thread and root and is_threaded(self.chat):
                posts.keep(con, self.sink.name, telling.thread, telling.posts[0].task, root, now_us)
            columns: dict[str, Any] = {"state": SinkState.DELIVERING, "reason": "", "failures": 0}
            self._note(con, **columns, next_try_us=None, last_success_us=now_us)
            attempts.add(con, self._logged(exchange))

        self.outbox.write(write)
        if self.announce is not None and exchange is not None:
            seqs = [post.seq for post in telling.posts if post.is_owed]
            entries = self.outbox.query(lambda con: journal.at(con, seqs))
            accepted = all_delivered(bulk.ids_in(exchange.selection.to_send))
            self.announce(settled(evolve(exchange, verdict=accepted), entries, now_us))
