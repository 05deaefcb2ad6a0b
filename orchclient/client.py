"""The client that an agent embeds. Each verb records one durable event and returns; delivery happens behind it.

The methods stand in the order of the docs: tell, ask, hand in, call for help, look, deliver, end. Each delegates.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from orchclient import config, tracing
from orchclient.core import verbs
from orchclient.core.events import EventType, NotificationPriority, Receipt, TaskStatus
from orchclient.core.exceptions import error_type_of, mark_escalated, message_of, traceback_of
from orchclient.core.ids import checked_id
from orchclient.core.incidents import checked_key
from orchclient.core.judging import RequestKind
from orchclient.core.task_state import TaskState
from orchclient.delivery.callbacks import Callback, Callbacks, Hearer
from orchclient.delivery.clock import Clock, SystemClock
from orchclient.handles import Clarification, Completion, Escalation, Review, escalation_of
from orchclient.outbox import journal
from orchclient.outbox.inbox import Received
from orchclient.outbox.requests import Request
from orchclient.people import People
from orchclient.recorder import Recorder
from orchclient.reporting import FlushReport, OutboxReport, SinkReport
from orchclient.station import TransportFactory, open_station
from orchclient.task import Task

if TYPE_CHECKING:
    from orchclient.sinks.sink import AnySink


class OrchestratorClient:
    """Tells an orchestrator and people what an agent does, through a durable local outbox.

    :param agent_id: who speaks, 1 to 256 printable characters; shown to people.
    :param outbox: path of the outbox file; default ``ORCHCLIENT_DB``, else one per user in the state directory.
    :param url: base URL of the orchestrator, https (http to this machine only). None: everything waits in the outbox.
    :param token: bearer token, or a callable that returns it; asked for at every request, never stored or shown.
    :param sinks: destinations in place of the ones that the settings name.
    :param on_delivered: called with a ``Settled`` for each event that this process delivered.
    :param on_dead: called with a ``Settled`` for each event that became a dead letter. Both are called in a thread of
        their own, in order; what they raise is logged, and delivery never waits for them.
    :param on_answer: called with the inbox item of each decision on what this agent asked, late and stale ones with
        their ``verdict``.
    :param on_cancel: called with each request to stop one of its tasks.
    :param on_message: called with each word about one of its tasks. These three are told, in order, what came since
        the client was made, by whatever process of the host; in a thread of their own, from the first record or wait
        on. What they raise is logged.
    :param durability: ``auto`` syncs everything but progress before the call returns and progress within a second;
        ``full`` syncs every event.
    :param background: deliver and keep house in threads of this process, started by the first record. Without them
        every event is synced at once and ``flush`` delivers.
    :param clock: time and randomness, for tests.
    :param transport: makes what requests are sent with, for tests.
    :param traceparent: the W3C trace context of everything that is recorded outside an OpenTelemetry span; default
        the environment's ``TRACEPARENT``.
    :param settings: any other setting by name, such as ``request_timeout=5.0``; see docs/configuration.

    Raises ``ConfigError`` for unusable settings, ``OutboxUnsafe`` or ``OutboxError`` when the outbox cannot be opened.
    Recording afterwards raises ``InvalidEvent`` for bad arguments and ``OutboxError`` when the disk cannot store,
    never anything because of the network. Threads may share a client; a forked child may go on using it.
    """

    def __init__(
        self,
        agent_id: str,
        *,
        outbox: str | os.PathLike[str] | None = None,
        url: str | None = None,
        token: config.TokenSource = None,
        sinks: Sequence[AnySink] | None = None,
        on_delivered: Callback | None = None,
        on_dead: Callback | None = None,
        on_answer: Hearer | None = None,
        on_cancel: Hearer | None = None,
        on_message: Hearer | None = None,
        durability: str | None = None,
        background: bool = True,
        clock: Clock | None = None,
        transport: TransportFactory | None = None,
        traceparent: str | None = None,
        **settings: Any,
    ) -> None:
        try:
            self.agent_id = checked_id("agent_id", agent_id)
            db = None if outbox is None else Path(outbox)
            self._settings = config.load(db=db, url=url, token=token, durability=durability, agent=agent_id, **settings)
        finally:
            del url, token, settings  # a traceback that shows locals would print the secrets among them
        self._clock = clock or SystemClock()
        secrets = self._settings.known_secrets()
        secrets.refuse_in("agent_id", agent_id)
        parent = tracing.of_process(traceparent)
        self._station = open_station(
            self._settings,
            self._clock,
            secrets,
            sinks=sinks,
            transport=transport,
            background=background,
            callbacks=Callbacks(on_delivered, on_dead, on_answer, on_cancel, on_message),
        )
        self._recorder = Recorder(
            self.agent_id,
            self._station,
            self._settings,
            self._clock,
            secrets,
            always_synced=not background,
            traceparent=parent,
        )
        self._people = People(self._recorder, self._station, self._clock)

    def __repr__(self) -> str:
        if not hasattr(self, "_station"):
            return "OrchestratorClient(not made)"  # as in the traceback that tells why
        return f"OrchestratorClient({self.agent_id!r}, outbox={self._station.path!r})"

    # --- tell -----------------------------------------------------------------------------------------------------

    def update_task_status(
        self,
        task_id: str,
        status: TaskStatus | str,
        metadata: Mapping[str, Any] | None = None,
        progress_percentage: float | None = None,
        current_step: str | None = None,
    ) -> Receipt:
        """Tell where a task stands. What is not given stays as it was told before.

        :param task_id: the agent's own name for the task, 1 to 256 printable characters.
        :param status: a ``TaskStatus`` or its text.
        :param metadata: merged into what was told before, key by key; whatever JSON can hold.
        :param progress_percentage: 0 to 100, clamped.
        :param current_step: at most 4,096 characters.

        Durable afterwards: against the death of the process always; against power loss at once when the status is
        another one than before, within a second otherwise (``durability="full"``: at once). Raises ``InvalidEvent``
        for an argument that cannot be recorded, ``OutboxError`` when the disk cannot store; nothing was stored then.
        """
        return self._recorder.record(verbs.status_update(task_id, status, metadata, progress_percentage, current_step))

    def start_task(self, task_id: str, attempt: int = 1) -> Receipt:
        """Tell that work on a task begins; a first attempt at 0 %, a later one where the task stood.

        :param attempt: the how many-th run of the task this is, from 1 on.

        Durable and raises as ``update_task_status``.
        """
        return self._recorder.record(verbs.start(task_id, attempt))

    def task(self, task_id: str) -> Task:
        """A handle whose verbs need no task id; as a context manager it starts the task and escalates exceptions.

        Making it records nothing. Entering it records that the next attempt begins.
        """
        return Task(self, task_id, self._clock, self._people)

    # --- ask ------------------------------------------------------------------------------------------------------

    def request_clarification(
        self,
        task_id: str,
        questions: str | Sequence[str | Mapping[str, Any]],
        priority: NotificationPriority | str = NotificationPriority.MEDIUM,
        context: Mapping[str, Any] | None = None,
        *,
        options: Sequence[Any] | None = None,
        recommended: str | Sequence[str | None] | None = None,
        default: Any = None,
        deadline: datetime | timedelta | None = None,
        key: str | None = None,
    ) -> Clarification:
        """Ask people; the task becomes ``clarification_needed``, its step "Waiting for clarification".

        :param task_id: the task that waits for the answer.
        :param questions: one text, a list of texts, or of mappings ``{"id", "text", "options", "recommended"}``;
            at most 100, of 16,384 characters each.
        :param priority: how soon a person should look: a ``NotificationPriority`` or its text.
        :param context: what helps to decide, shown with the question.
        :param options: texts to choose from for a single question, or one such list (or None) per question.
        :param recommended: the option that the agent would take, or one (or None) per question.
        :param default: what applies when the deadline passes: a text, or one for each question id; without it, silence
            is never taken for an answer.
        :param deadline: an aware ``datetime``, or a ``timedelta`` from now.
        :param key: names the question within the task, so that asking again is recognised; else its content does.

        Asked again, also by a later process, it is the same question: the handle is that of the first, and nothing is
        recorded, unless it was withdrawn, or expired without a default. A ``key`` that was used for the task names
        the first question, whatever is asked with it now. Durable afterwards: the question, against power loss.

        Raises ``InvalidEvent`` for an argument that cannot be recorded, and for a question that asks for a secret;
        ``OutboxError`` when the disk cannot store.
        """
        event_id = self._recorder.new_id()
        draft = verbs.clarification_request(
            self._recorder.clean,
            event_id,
            task_id,
            questions,
            priority,
            context,
            options,
            recommended,
            default,
            self._recorder.moment(deadline) if isinstance(deadline, timedelta) else deadline,
            key,
        )
        asked = self._recorder.record_question(draft, event_id)
        return self._clarification(asked)

    def clarification(self, clarification_id: str) -> Clarification | None:
        """A question that was asked, by its id, also by an earlier process; None when it is not known here."""
        asked = self._people.request(clarification_id)
        return self._clarification(asked) if asked and asked.kind is RequestKind.QUESTION else None

    def open_clarifications(self) -> tuple[Clarification, ...]:
        """This agent's questions that wait for a person, oldest first, those of earlier processes included."""
        return tuple(map(self._clarification, self._people.open_questions()))

    def inbox(self, after: int = 0, task_id: str | None = None) -> tuple[Received, ...]:
        """What came back, as it came, with what became of each: a thousand items at most.

        :param after: only those behind this place (the ``n`` of the last one that is known); 0 for all.
        :param task_id: only what is about one task; else of every agent of the outbox.

        Data of other people with where it came from; nothing here was acted upon but answers to what was asked.
        """
        return self._people.received(after, task_id)

    def _clarification(self, asked: Request) -> Clarification:
        return Clarification(Receipt(asked.id, asked.seq, asked.asked_us), asked.task, self._people)

    # --- hand in --------------------------------------------------------------------------------------------------

    def report_completion(
        self,
        task_id: str,
        pr_url: str | None,
        test_results: Mapping[str, Any],
        artifacts: Mapping[str, Any] | None = None,
        *,
        review: bool = False,
    ) -> Completion:
        """Hand in a result; the task becomes ``completed`` at 100 %, its step "Completed - awaiting review".

        With ``review`` it becomes ``review_ready``, and follows the decision once the agent has it.

        :param pr_url: where the result is, at most 2,048 characters; None without one.
        :param test_results: ``tests_passed``, ``tests_failed``, ``total_tests``, ``code_coverage`` (percent),
            ``lint_score`` (0 to 10), ``security_score`` (0 to 100); more members are passed on.
        :param artifacts: what was made, by name; whatever JSON can hold.
        :param review: whether a person must decide on it.

        Returns the receipt with the quality score (0.0 to 100.0). Durable afterwards against power loss. Raises
        ``InvalidEvent`` for an argument that cannot be recorded, ``OutboxError`` when the disk cannot store.
        """
        event_id = self._recorder.new_id()
        draft = verbs.completion_report(event_id, task_id, pr_url, test_results, artifacts, review)
        record = self._recorder.record_result if review else self._recorder.record
        receipt = record(draft, event_id)
        waits = Review(event_id, task_id, self._people) if review else None
        return Completion(receipt, draft.data["quality_score"], waits)

    def review(self, event_id: str) -> Review | None:
        """A result that was handed in for review, by its event's id, also by an earlier process; None when unknown."""
        asked = self._people.request(event_id)
        return Review(asked.id, asked.task, self._people) if asked and asked.kind is RequestKind.REVIEW else None

    # --- call for help --------------------------------------------------------------------------------------------

    def escalate_error(
        self,
        task_id: str,
        error_type: str,
        error_message: str,
        recovery_attempts: int = 0,
        context: Mapping[str, Any] | None = None,
        *,
        fatal: bool = True,
        dedup_key: str | None = None,
        traceback: str | None = None,
        recovery_history: Iterable[Mapping[str, Any]] = (),
    ) -> Escalation:
        """Call for help; the task becomes ``failed`` when ``fatal``.

        :param error_type: such as ``github_api_auth``; with the attempts it gives the priority.
        :param error_message: what happened; of more than 65,536 characters the middle is left out.
        :param recovery_attempts: how often recovery was tried, 0 to 2,147,483,647.
        :param context: what helps to understand it; whatever JSON can hold.
        :param fatal: whether the task has failed by it.
        :param dedup_key: errors of the task with the same key are one incident until it is resolved: they are counted.
        :param traceback: text, redacted like everything else; of more than 65,536 characters the middle is left out.
        :param recovery_history: what was tried, oldest first; at most 1,000 entries.

        Returns the receipt with the priority and the count. Durable afterwards against power loss. Raises
        ``InvalidEvent`` for an argument that cannot be recorded, ``OutboxError`` when the disk cannot store.
        """
        draft = verbs.error_escalation(
            self._recorder.clean_text,
            task_id,
            error_type,
            error_message,
            recovery_attempts,
            context,
            fatal,
            dedup_key,
            traceback,
            recovery_history,
        )
        receipt, incident = self._recorder.record_error(draft, dedup_key)
        return Escalation(receipt, NotificationPriority(draft.priority), incident.count, incident, self._recorder)

    def escalate_exception(
        self,
        task_id: str,
        error: BaseException,
        context: Mapping[str, Any] | None = None,
        *,
        error_type: str | None = None,
        error_message: str | None = None,
        fatal: bool = True,
        dedup_key: str | None = None,
        recovery_history: Sequence[Mapping[str, Any]] = (),
    ) -> Escalation:
        """Call for help because of an exception, with its traceback and what was tried.

        :param error_type: default the exception class's ``error_type`` when it has one, else the name of its class.
        :param error_message: default what the exception says.
        :param recovery_history: what was tried, oldest first; its length is the number of recovery attempts.

        When ``fatal``, a ``with client.task(...)`` that the exception leaves afterwards does not escalate it again.
        Durable and raises as ``escalate_error``.
        """
        escalation = self.escalate_error(
            task_id,
            error_type if error_type is not None else error_type_of(error),
            error_message if error_message is not None else message_of(error),
            len(recovery_history),
            context,
            fatal=fatal,
            dedup_key=dedup_key,
            traceback=traceback_of(error, self._recorder.clean_text),
            recovery_history=recovery_history,
        )
        if fatal:
            mark_escalated(error, task_id)
        return escalation

    def resolve_error(self, task_id: str, dedup_key: str, note: str | None = None) -> Receipt | None:
        """Tell people that the open incident with a key is over; None when there is none.

        :param dedup_key: the key that its errors were escalated with.
        :param note: what ended it, for people.

        Durable afterwards against power loss. The next error with the key is a new incident. Raises ``InvalidEvent``
        and ``OutboxError`` as ``escalate_error``.
        """
        incident = self._station.open_incident(
            checked_id("task_id", task_id), self._recorder.clean_text(checked_key(dedup_key))
        )
        return None if incident is None else self._recorder.record_resolution(incident, note)

    def escalation(self, event_id: str) -> Escalation | None:
        """A call for help, by its event's id, also by an earlier process; None when it is not kept here any more."""
        found = self._station.query(lambda con: journal.find(con, event_id))
        calls = [each for each in found or () if each.id == event_id and each.type == EventType.ERROR_ESCALATED]
        return escalation_of(calls[0], self._recorder) if calls else None

    # --- look -----------------------------------------------------------------------------------------------------

    def task_state(self, task_id: str) -> TaskState | None:
        """Where a task stands as its events add up, over restarts; None when none was recorded."""
        return self._station.task_state(checked_id("task_id", task_id))

    def get_communication_stats(self) -> dict[str, Any]:
        """What this agent recorded and how delivery fares; counts survive restarts.

        Keys: ``agent_id``, ``updates_sent``, ``clarifications_requested``, ``completions_reported``,
        ``errors_escalated``, ``last_communication`` (RFC 3339 or None), ``health_status`` (inactive, healthy, degraded,
        unhealthy), and ``delivery`` with pending, delivered, dead, oldest_age_s, state and last_error per destination.
        """
        return self._station.communication_stats(self.agent_id)

    def health(self) -> OutboxReport:
        """The outbox and each destination now. Reads counters, not events: it costs the same at any backlog."""
        return self._station.report()

    # --- deliver --------------------------------------------------------------------------------------------------

    def flush(self, timeout: float | None = None) -> FlushReport:
        """Deliver what is due now, by this process or the one that delivers on this host; at most ``timeout`` seconds.

        Without a timeout: 30 s. A destination that fails is tried once, by an attempt that begins after the call. Never
        raises because of the network. What noise rules hold back (``held`` in the report: people are not to be told
        yet) is not due, and not waited for.
        """
        return self._station.flush(DEFAULT_FLUSH_S if timeout is None else timeout)

    def add_sink(self, sink: AnySink) -> None:
        """Deliver to one more destination from now on. One that is new to the outbox begins where it says itself.

        Raises ``ConfigError`` for a name that is taken or cannot be kept, ``OutboxError`` when the file cannot be
        written. In ``mode="offline"`` nothing is sent to it either.
        """
        self._station.add_sink(sink)

    def remove_sink(self, name: str, *, forget: bool = False) -> SinkReport | None:
        """Deliver to a destination no more, from this process. What is under way is cut after 2 s.

        Its cursor stays, so it goes on where it stood when it is added again, and keeps what it has not got from being
        pruned. With ``forget`` the outbox keeps nothing for it any more. Returns how it stood, None if it never began.
        """
        return self._station.remove_sink(name, forget=forget)

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """The caller's own statements and the events recorded inside, durable together or not at all.

        Gives the outbox's sqlite3 connection in an open transaction; leave BEGIN and COMMIT to it. Other threads'
        records wait meanwhile, so keep it short.
        """
        return self._station.transaction()

    # --- end ------------------------------------------------------------------------------------------------------

    def close(self, timeout: float | None = None) -> None:
        """Deliver for at most ``timeout`` seconds (default 2.0; at once when the receivers are down), then end.

        What is not delivered stays in the outbox. Afterwards recording raises ``OutboxError``.
        """
        self._station.close(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


DEFAULT_FLUSH_S = 30.0
