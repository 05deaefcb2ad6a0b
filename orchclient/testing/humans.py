"""The people at a receiver: they see, answer, decide, cancel and write, on time or late, once or twice, well or badly.

Must not know HTTP. What they say becomes an item (``items``) in the inbox of the agent that asked (``inbox``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Literal, Protocol

from orchclient.testing.items import (
    QUESTION,
    TIMEOUT,
    WITHDRAWAL,
    Event,
    Said,
    answers_to,
    human,
    is_open_to_review,
    item_of,
    new_id,
    now,
)
from orchclient.testing.orchestrator import InMemoryOrchestrator

ARRIVES_WITHIN_S = 5.0


class Handle(Protocol):
    """What ``request_clarification`` returned."""

    @property
    def id(self) -> str: ...


class Handed(Protocol):
    """What ``report_completion`` returned."""

    @property
    def event_id(self) -> str: ...


Asked = str | Event | Handle | Handed
"""A question or a result: what the verb returned, its id, or its event as the receiver kept it."""


class Humans:
    """What people do at a receiver; :class:`~orchclient.testing.receiver.Receiver` can do all of this."""

    def __init__(self, orchestrator: InMemoryOrchestrator) -> None:
        self._orchestrator = orchestrator
        self._changed = orchestrator.changed
        self._failures: list[Exception] = []
        self._policies: list[Callable[[Event], None]] = []
        self._decided: dict[str, Event] = {}  # the first valid answer or decision, by the id of what it is about
        self._pending: set[threading.Timer] = set()
        orchestrator.on_kept = self._follow_policies

    # --- questions ------------------------------------------------------------------------------------------------

    def answer(
        self,
        question: Asked,
        said: Said | None = None,
        *,
        outcome: str | None = None,
        comment: str | None = None,
        by: str | Mapping[str, str] = "u-1",
        channel: str | None = "web",
        after_s: float = 0.0,
        twice: bool | Literal["answer"] = False,
        late: bool | None = None,
        digest: str | None = None,
        from_nobody: bool = False,
    ) -> Event:
        """A person answers a question; returns the item that goes into the inbox.

        ``receiver.answer(question, "yes")`` chooses the option "yes", or says it in words when there is none such;
        ``receiver.answer(question, {"q1": ["a", "b"], "q2": "60"})`` answers several; without ``said`` it is approved.

        :param question: the handle, the id, or the event; waits 5 s for one that has not arrived yet.
        :param outcome: ``answered`` with ``said``, else ``approved``; ``expired`` is what the clock says.
        :param by: who: a name, or a whole ``responder``.
        :param after_s: how long the person takes, also while the receiver is down.
        :param twice: put the very same item twice; ``"answer"``: the same answer in two items.
        :param late: mark it, or do not; by default it is marked when the question was answered or withdrawn before.
        :param digest: of what the person was shown (:data:`WRONG_DIGEST`); by default that of the question.
        :param from_nobody: leave the responder out, which no orchestrator may do.

        Raises ``LookupError`` when no such question arrives.
        """
        asked = self._found(question, lambda event: event["type"] == QUESTION, "question")
        outcome = outcome or ("answered" if said is not None else "approved")
        responder = self._responder(outcome, by, from_nobody)
        answer = {
            "clarification_id": asked["id"],
            "answer_id": f"answer-{new_id()}",
            "outcome": outcome,
            "answers": answers_to(asked, said),
            "comment": comment,
            "responder": responder,
            "channel": channel,
            "answered_at": now(),
            "late": late,
            "content_digest": digest or asked["data"]["content_digest"],
        }
        item = item_of("clarification.answered.v1", asked["subject"], answer)
        self._later(after_s, partial(self._decide, asked, item, twice))
        return item

    def see(self, question: Asked, *, by: str = "u-1", channel: str | None = "web", after_s: float = 0.0) -> Event:
        """A person opens a question. Returns the item."""
        asked = self._found(question, lambda event: event["type"] == QUESTION, "question")
        seen = {"clarification_id": asked["id"], "responder": human(by), "channel": channel, "seen_at": now()}
        item = item_of("clarification.seen.v1", asked["subject"], seen)
        self._later(after_s, lambda: self.put(item, asked["source"]))
        return item

    def expire(self, question: Asked, **how: Any) -> Event:
        """Nobody answers in time, and the orchestrator says so. ``how`` as for :meth:`answer`."""
        return self.answer(question, outcome="expired", **how)

    def answer_each(self, policy: Said | Callable[[Event], Said | None], **how: Any) -> None:
        """From now on answer every question by a policy, those first that are open already.

        ``receiver.answer_each("yes")`` says the same to each. A callable is given the question's event and returns what
        :meth:`answer` takes, or None to leave it open; it may also call ``receiver.answer`` itself. ``how`` goes to
        ``answer``. What it raises is in ``receiver.failures``.

            receiver.answer_each(lambda event: event["data"]["questions"][0].get("recommended"), after_s=0.2)
        """

        def follow(event: Event) -> None:
            said = policy(event) if callable(policy) else policy
            if said is not None:
                self.answer(event, said, **how)

        self._from_now_on(follow, lambda event: event["type"] == QUESTION)

    # --- reviews --------------------------------------------------------------------------------------------------

    def review(
        self,
        completion: Asked,
        outcome: str = "approved",
        *,
        comment: str | None = None,
        by: str | Mapping[str, str] = "u-1",
        channel: str | None = "web",
        after_s: float = 0.0,
        twice: bool | Literal["answer"] = False,
        late: bool | None = None,
        from_nobody: bool = False,
    ) -> Event:
        """A person decides on a result that was handed in with ``review=True``; the rest is as for :meth:`answer`.

        ``outcome`` is approved, changes_requested, rejected, declined or expired.
        """
        handed_in = self._found(completion, is_open_to_review, "result to review")
        decision = {
            "review_id": handed_in["id"],
            "outcome": outcome,
            "comment": comment,
            "responder": self._responder(outcome, by, from_nobody),
            "channel": channel,
            "decided_at": now(),
            "late": late,
        }
        item = item_of("review.decided.v1", handed_in["subject"], decision)
        self._later(after_s, partial(self._decide, handed_in, item, twice))
        return item

    def review_each(self, policy: str | Callable[[Event], str | None], **how: Any) -> None:
        """From now on decide on every result by a policy: an outcome, or a callable as for :meth:`answer_each`."""

        def follow(event: Event) -> None:
            outcome = policy(event) if callable(policy) else policy
            if outcome is not None:
                self.review(event, outcome, **how)

        self._from_now_on(follow, is_open_to_review)

    # --- words to the agent ---------------------------------------------------------------------------------------

    def cancel(
        self, task_id: str, reason: str | None = None, *, by: str = "u-1", source: str | None = None, after_s: float = 0
    ) -> Event:
        """A person asks the agent to stop a task; the outbox that spoke of it last is told, or ``source``."""
        data = {"reason": reason, "requested_by": human(by), "channel": "web", "requested_at": now()}
        return self._tell(item_of("task.cancel_requested.v1", task_id, data), source, after_s)

    def message(
        self,
        task_id: str,
        text: str,
        *,
        urgent: bool = False,
        by: str = "u-1",
        source: str | None = None,
        after_s: float = 0,
    ) -> Event:
        """A person writes to the agent about a task; ``source`` as for :meth:`cancel`."""
        data = {"text": text, "urgent": urgent, "sent_by": human(by), "channel": "web", "sent_at": now()}
        return self._tell(item_of("task.message.v1", task_id, data), source, after_s)

    # --- what goes wrong ------------------------------------------------------------------------------------------

    def put(self, item: Any, source: str | None = None) -> None:
        """Puts any JSON value in the inbox of a source, as it is; without a source, whichever polls first gets it.

        A well-behaved orchestrator puts CloudEvents there, each with an id of its own.
        """
        with self._changed:
            self._orchestrator.inbox.put(item, source)
            self._changed.notify_all()

    def put_foreign(self, source: str | None = None, *, task_id: str = "a task of somebody else") -> Event:
        """An answer to a question that this agent never asked, in its inbox all the same."""
        answer = {
            "clarification_id": new_id(),
            "answer_id": f"answer-{new_id()}",
            "outcome": "approved",
            "responder": human("u-1"),
            "answered_at": now(),
            "content_digest": "sha256:" + "f" * 64,
        }
        return self._tell(item_of("clarification.answered.v1", task_id, answer), source, 0.0)

    def put_unreadable(self, source: str | None = None, *, task_id: str = "a task") -> Event:
        """An item that breaks its schema: an answer to nothing, with nothing in it."""
        return self._tell(item_of("clarification.answered.v1", task_id, {}), source, 0.0)

    def reorder_inbox(self, order: Callable[[list[Event]], Iterable[Event]] = reversed) -> None:
        """Gives the items that wait another order; who has seen some of them gets them again."""
        with self._changed:
            self._orchestrator.inbox.reorder(order)
            self._changed.notify_all()

    def end_pages_after(self, items: int) -> None:
        """From now on a page ends after so many items, with ``has_more`` when there are others."""
        with self._changed:
            self._orchestrator.inbox.page_items = items

    # --- how it happens -------------------------------------------------------------------------------------------

    def wait_for(self, wanted: Any, timeout: float) -> bool:
        raise NotImplementedError

    def _found(self, asked: Asked, is_one: Callable[[Event], bool], kind: str) -> Event:
        if isinstance(asked, dict):
            return asked
        event_id = asked if isinstance(asked, str) else getattr(asked, "id", None) or getattr(asked, "event_id", None)

        def found() -> Event | None:
            return next((e for e in self._orchestrator.events if e["id"] == event_id and is_one(e)), None)

        if not self.wait_for(lambda _: found() is not None, ARRIVES_WITHIN_S):
            raise LookupError(
                f"no {kind} {event_id!r} arrived within {ARRIVES_WITHIN_S:g} s: was it asked, and flushed?"
            )
        event = found()
        assert event is not None
        return event

    @staticmethod
    def _responder(outcome: str, by: str | Mapping[str, str], from_nobody: bool) -> Mapping[str, str] | None:
        if from_nobody:
            return None
        if not isinstance(by, str):
            return by
        return TIMEOUT if outcome == "expired" else human(by)

    def _later(self, after_s: float, act: Callable[[], None]) -> None:
        if after_s <= 0:
            act()
            return

        def say() -> None:
            self._pending.discard(timer)
            act()

        timer = threading.Timer(after_s, say)
        timer.daemon = True
        self._pending.add(timer)
        timer.start()

    def _forget_plans(self) -> None:
        """What people were still thinking about is not said any more."""
        for timer in list(self._pending):
            timer.cancel()
        self._pending.clear()

    def _tell(self, item: Event, source: str | None, after_s: float) -> Event:
        self._later(after_s, lambda: self.put(item, source or self._source_of(item["subject"])))
        return item

    def _source_of(self, task_id: str) -> str | None:
        with self._changed:
            told = [event["source"] for event in self._orchestrator.events if event.get("subject") == task_id]
        return told[-1] if told else None

    def _decide(self, asked: Event, item: Event, twice: bool | Literal["answer"]) -> None:
        """Commit a decision: the first valid one settles, later ones are marked; every source that asked is told."""
        data = item["data"]
        with self._changed:
            is_late = asked["id"] in self._decided or self._is_withdrawn(asked)
            if is_late:
                data.setdefault("late", True)
            twins = self._twins(asked)
            if not is_late and _is_valid(item, asked):
                self._decided |= dict.fromkeys((asked["id"], *(twin["id"] for twin in twins)), item)
            self.put(item, asked["source"])
            if twice:
                self.put(item | {"id": item["id"] if twice is True else new_id()}, asked["source"])
            for twin in twins:
                self.put(_for_twin(item, asked, twin), twin["source"])

    def _is_withdrawn(self, asked: Event) -> bool:
        return any(
            event["type"] == WITHDRAWAL and event["data"].get("clarification_id") == asked["id"]
            for event in self._orchestrator.events
        )

    def _twins(self, asked: Event) -> list[Event]:
        """The same question from other sources, not answered yet: the agent's host was lost, and it asked again."""
        return [e for e in self._orchestrator.events if _is_same_question(e, asked) and e["id"] not in self._decided]

    def _from_now_on(self, follow: Callable[[Event], None], concerns: Callable[[Event], bool]) -> None:
        def policy(event: Event) -> None:
            if concerns(event) and event["id"] not in self._decided:
                try:
                    follow(event)
                except Exception as failure:  # noqa: BLE001 - the policy of a test may raise anything
                    self._failures.append(failure)

        with self._changed:
            self._policies.append(policy)
            for event in list(self._orchestrator.events):
                policy(event)

    def _follow_policies(self, event: Event) -> None:
        """An event was kept, ``changed`` is held: a question that was answered before is answered from the record."""
        for before in self._orchestrator.events if event["type"] == QUESTION else ():
            if _is_same_question(event, before) and before["id"] in self._decided:
                self._decided[event["id"]] = self._decided[before["id"]]
                self.put(_for_twin(self._decided[before["id"]], before, event), event["source"])
                return
        for policy in self._policies:
            policy(event)


def _is_valid(item: Event, asked: Event) -> bool:
    """Whether a decision settles: somebody made it, about what was asked."""
    is_about_it = item["data"].get("content_digest") == asked["data"].get("content_digest")
    return "responder" in item["data"] and is_about_it


def _is_same_question(event: Event, other: Event) -> bool:
    """Whether two requests of different sources are one: same task and key."""
    if event["type"] != QUESTION or other["type"] != QUESTION or event["source"] == other["source"]:
        return False
    with suppress(KeyError, TypeError):
        return bool(event["subject"] == other["subject"] and event["data"]["key"] == other["data"]["key"])
    return False


def _for_twin(item: Event, asked: Event, twin: Event) -> Event:
    """The recorded answer for a request that asks the same: its digest, unless other content was shown."""
    shown = ("questions", "context", "default")
    is_unchanged = all(asked["data"].get(member) == twin["data"].get(member) for member in shown)
    digest = twin["data"]["content_digest"] if is_unchanged else item["data"]["content_digest"]
    changed = {"clarification_id": twin["id"], "content_digest": digest}
    return {**item, "id": new_id(), "data": {**item["data"], **changed}}
