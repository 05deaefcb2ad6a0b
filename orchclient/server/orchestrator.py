"""The orchestrator as an object: what agents and people do, each in transactions of its own.

Both the HTTP interface and code that has no HTTP stand on it. Must not know HTTP.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from attrs import evolve
from sqlalchemy import Engine, select
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.orm import Session, sessionmaker

from orchclient.core.errors import OrchClientError
from orchclient.server import access, inbox, people, questions, retention, spans
from orchclient.server.access import Caller
from orchclient.server.bell import Bell
from orchclient.server.database import SessionFactory, make_engine, make_reader, make_session_local
from orchclient.server.dismissing import Dismissal, dismiss
from orchclient.server.inbox import Item, Page
from orchclient.server.ingest import Origin, Repeats, Taken, ingest, locked_source
from orchclient.server.mirror import Mirror
from orchclient.server.models import Source
from orchclient.server.questions import Decision, Settled
from orchclient.server.reading import Arrival, Spoiled
from orchclient.server.upgrade import upgrade

T = TypeVar("T")

MAX_WAIT_S: Final = 25.0
_ATTEMPTS: Final = 5
_PASSING: Final = frozenset({"40001", "40P01", "55P03"})  # serialization failure, deadlock, lock not available
ORIGIN: Final = "urn:orchclient:orchestrator"


class StoreUnavailable(OrchClientError):
    """The database does not answer, or is locked for too long; nothing was stored."""


class Unstorable(OrchClientError):
    """The database can never hold this; nothing was stored."""


class Orchestrator:
    """Takes events in, keeps tasks, and brings people's answers back. Any thread may call any method."""

    def __init__(
        self,
        session_local: SessionFactory,
        reader: SessionFactory | None = None,
        *,
        mirror: Mirror | None = None,
        origin: str = ORIGIN,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self.session_local = session_local
        self.reader = reader or session_local
        self.now_us = now_us
        self._origin = origin
        self._mirror = mirror
        self.bell = Bell(self._reach)

    @classmethod
    def open(cls, db: str, **settings: Any) -> Orchestrator:
        """Over a database by its URL or path; made and brought to the present schema if need be."""
        return cls.over(make_engine(db), **settings)

    @classmethod
    def over(cls, engine: Engine, **settings: Any) -> Orchestrator:
        """Over the database of an engine of ``make_engine``, brought to the present schema if need be."""
        try:
            upgrade(engine)
        except DBAPIError as error:
            engine.dispose()
            raise StoreUnavailable(f"the database cannot be opened: {error.orig}") from error
        return cls(make_session_local(engine), make_reader(engine), **settings)

    def close(self) -> None:
        """Let all who wait go, and close the connections."""
        self.bell.close()
        if isinstance(self.reader, sessionmaker):
            self.reader.kw["bind"].dispose()

    # Transactions

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that changes nothing."""
        try:
            with self.reader() as session:
                yield session
        except (DBAPIError, NoConnection) as error:
            raise _unavailable(error) from error

    def writing(self, act: Callable[[Session], T]) -> T:
        """``act`` in one transaction that is committed when this returns; again when it met another one."""
        for attempt in range(_ATTEMPTS):
            try:
                with self.session_local() as session, session.begin():
                    return act(session)
            except (DataError, IntegrityError) as error:
                raise Unstorable(f"the database refuses it: {error.orig}") from error
            except NoConnection as error:
                raise _unavailable(error) from error
            except DBAPIError as error:
                if attempt == _ATTEMPTS - 1 or getattr(error.orig, "sqlstate", None) not in _PASSING:
                    raise _unavailable(error) from error
                time.sleep(random.uniform(0, 0.02 * 2**attempt))  # noqa: S311  so that the two do not meet again
        raise AssertionError("unreachable")

    # What agents do

    def ingest(self, batch: Sequence[Arrival | Spoiled], owner: str | None = None) -> Taken:
        """Take a batch in; committed when this returns. Raises ``Forbidden`` and ``StoreUnavailable``."""
        origin, now_us = Origin(owner, self._origin, self._mirror), self.now_us()
        try:
            taken = self.writing(lambda session: ingest(session, batch, origin, now_us))
        except Repeats:
            taken = self.writing(lambda session: ingest(session, batch, origin, now_us, careful=True))
        self._ring(taken.rung)
        return taken

    def page(self, source: str, cursor: str, wait_s: float, owner: str | None = None) -> Page:
        """A part of a source's inbox; waits for something to be there. Raises ``Forbidden``."""
        self._bind(source, owner)
        self.expire()
        if wait_s > 0:
            self.bell.wait(source, lambda: self._is_waiting(source, cursor), min(wait_s, MAX_WAIT_S))
        with self.reading() as session:
            return inbox.page(session, source, cursor)

    def reach(self, source: str) -> int:
        """The last position in the inbox of a source, 0 while there is none; deadlines that have passed are settled."""
        self.expire()
        return self._reach([source]).get(source, 0)

    def acknowledge(self, source: str, cursor: str, owner: str | None = None) -> None:
        """What was given out up to the cursor is stored at the agent's. Raises ``Forbidden``."""
        self._bind(source, owner)
        self.writing(lambda session: inbox.acknowledge(session, source, cursor))

    def report(self, source: str, owner: str | None = None) -> dict[str, object]:
        """What is held of a source. Raises ``Forbidden``."""
        with self.reading() as session:
            access.check_reader(session, source, owner)
            return spans.report(session, source)

    def _bind(self, source: str, owner: str | None) -> None:
        """Reading an inbox is use, too: a source that nobody has used is bound to who asks for it first."""
        with self.reading() as session:
            access.check_reader(session, source, owner)
            is_bound = session.scalars(select(Source.owner).where(Source.name == source)).one_or_none() == owner
        if not is_bound and owner is not None:
            self.writing(lambda session: locked_source(session, source, owner, self.now_us()))

    def _is_waiting(self, source: str, cursor: str) -> bool:
        with self.reading() as session:
            return inbox.is_waiting(session, source, cursor)

    # What people do

    def answer(self, question_id: str, decision: Decision) -> Settled | None:
        """Settle a question; the first answer counts. None when nobody asked it."""
        self.expire()
        dated = self._dated(decision)
        return self._settled(lambda session, now: questions.settle_question(session, question_id, dated, now))

    def decide(self, review_id: str, decision: Decision) -> Settled | None:
        """Decide a review; the first decision counts. None when there is no such review."""
        dated = self._dated(decision)
        return self._settled(lambda session, now: questions.settle_review(session, review_id, dated, now))

    def _dated(self, decision: Decision) -> Decision:
        """A decision that does not say when it was made was made now."""
        return decision if decision.answered_us else evolve(decision, answered_us=self.now_us())

    def see(self, question_id: str, responder: Mapping[str, Any], channel: str) -> None:
        """A person looks at a question."""
        self._put(lambda session, now: questions.mark_seen(session, question_id, responder, channel, now))

    def cancel(self, request: people.CancelRequest) -> bool:
        """Ask the agent of a task to stop; false when the task is not known."""
        return bool(self._put(lambda session, now: people.cancel(session, request, now)))

    def message(self, message: people.Message) -> bool:
        """Say something to the agent of a task; false when the task is not known."""
        return bool(self._put(lambda session, now: people.message(session, message, now)))

    def dismiss(self, said: Dismissal) -> bool:
        """Set an error aside until it happens again; false when there is no such error. Its agent is not told."""
        now_us = self.now_us()
        return self.writing(lambda session: dismiss(session, said, self._mirror, now_us))

    def expire(self) -> int:
        """Settle the questions whose deadline has passed; how many inboxes heard of it."""
        with self.reading() as session:
            if not questions.has_due(session, self.now_us()):
                return 0
        return len(self._put(questions.expire))

    def prune(self, older_than_us: int) -> int:
        """Forget events, lines of the trail and acknowledged items from before that instant; how many."""
        return retention.prune(self.writing, older_than_us)

    # Tokens

    def caller(self, token: str | None) -> Caller | None:
        """Who has this token."""
        with self.reading() as session:
            return access.caller(session, token)

    # Inboxes

    def _settled(self, settle: Callable[[Session, int], Settled | None]) -> Settled | None:
        now_us = self.now_us()

        def act(session: Session) -> tuple[Settled | None, set[int]]:
            settled = settle(session, now_us)
            return settled, inbox.put(session, settled.items, self._origin, now_us) if settled else set()

        settled, rung = self.writing(act)
        self._ring(rung)
        return settled

    def _put(self, make: Callable[[Session, int], Sequence[Item]]) -> set[int]:
        now_us = self.now_us()
        rung = self.writing(lambda session: inbox.put(session, make(session, now_us), self._origin, now_us))
        self._ring(rung)
        return rung

    def _ring(self, source_ids: set[int]) -> None:
        if source_ids and self.bell.waiting:
            with self.reading() as session:
                self.bell.ring(list(session.scalars(select(Source.name).where(Source.id.in_(source_ids)))))

    def _reach(self, sources: Sequence[str]) -> Mapping[str, int]:
        with self.reading() as session:
            return inbox.ends(session, sources)


def _unavailable(error: DBAPIError | NoConnection) -> StoreUnavailable:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return StoreUnavailable(f"the database does not answer: {type(cause).__name__}: {cause}")
