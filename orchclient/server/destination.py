"""The destination ``database``: the orchestrator's own ingest, called in the agent's process. No HTTP server is needed.

A batch is committed with everything it changes before it counts as delivered, and an event is stored once by its
primary key, however often it comes. People's answers are read back from the tables. SQLAlchemy is imported by the
thread that delivers, when it delivers first: making a destination costs nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from hashlib import sha256
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from attrs import evolve, frozen

from orchclient.core.batch import Batch
from orchclient.core.batching import BatchLimit
from orchclient.core.envelope import batch_body
from orchclient.core.errors import ConfigError, OrchClientError
from orchclient.core.inbox_page import PageRefused, page_of
from orchclient.core.limits import LONG_POLL_S
from orchclient.core.policy import Action, Verdict, all_delivered, answered, printable
from orchclient.core.polling import Heard, InboxState
from orchclient.core.secret import KnownSecrets, Secret
from orchclient.core.source_report import SourceReport
from orchclient.outbox.stillness import STILLNESS
from orchclient.sinks.secretive import Secretive
from orchclient.sinks.sink import Closed

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

    from orchclient.server.cutting import Cutter
    from orchclient.server.database import SessionFactory
    from orchclient.server.inbox import Page
    from orchclient.server.mirror import Mirror
    from orchclient.server.orchestrator import Orchestrator

LOOK_S: Final = 0.25
"""Between two looks for answers, while something is open."""

_CUT_S: Final = 10.0
_NEEDED: Final = {"sqlalchemy": "server", "alembic": "server", "psycopg": "postgres"}
_REFUSED: Final = ("28", "3D", "42")  # SQLSTATE: credentials, no such database, no such table or no right to it


class DatabaseSink(Secretive):
    """Stores events in the orchestrator's tables, and brings the answers of people back from there.

    :param database: a SQLite path or the URL of a PostgreSQL database, which is brought to the present schema; or a
        factory of sessions of an application, whose schema is the application's affair (``upgrade``).
    :param mirror: models of an application that take what happens to tasks, in the same transaction.

    Raises ``ConfigError`` when the extra that it needs is not installed, or the URL names another kind of database.
    """

    kind = "database"
    holds = "the address of a database"
    from_beginning = True
    checks_sequence = True

    def __init__(
        self,
        database: str | Secret | SessionFactory,
        *,
        name: str = "database",
        mirror: Mirror | None = None,
        secrets: KnownSecrets | None = None,
    ) -> None:
        self.name = name
        self._mirror = mirror
        self._secrets = secrets or KnownSecrets()
        self._opening = threading.Lock()
        self._opened: _Opened | None = None
        self._is_ended = False
        self._left: list[object] = []  # connections of a parent process: closing them here would harm it
        self._url: Secret | None = None
        self._sessions: SessionFactory | None = None
        if isinstance(database, str | Secret):
            self._url = database if isinstance(database, Secret) else Secret(database)
            _check_extras(self.name, self._url.reveal())
            self.target = sha256(self._url.reveal().encode()).hexdigest()[:12]
        else:
            _check_extras(self.name, "")
            self._sessions, self.target = database, "sessions"
        self.inbox = DatabaseInbox(self)

    def limit(self) -> BatchLimit:
        """What a flusher gives at most."""
        return BatchLimit()

    def deliver(self, batch: Batch, *, deadline_s: float) -> Verdict:
        """Take a batch in: committed when this returns a fate for its events."""
        from orchclient.server.reading import BATCH_TYPE, Limits, Refused, read_batch

        body = batch_body(batch.encoded)
        try:
            found = read_batch(body, BATCH_TYPE, "", Limits(max_events=len(batch), max_bytes=len(body)))
        except Refused as error:
            return Verdict(Action.BISECT, printable(error.detail))
        self._is_ended = False
        return self._safely(lambda opened: self._taken(opened, found, batch), deadline_s)

    def _taken(self, opened: _Opened, found: Any, batch: Batch) -> Verdict:
        taken = opened.orchestrator.ingest(found)
        if all(result.status in ("accepted", "duplicate") for result in taken.results):
            return all_delivered(batch.ids, taken.pending)
        return answered([result.members() for result in taken.results], batch.ids, taken.pending)

    def _safely(self, act: Callable[[_Opened], Verdict], deadline_s: float) -> Verdict:
        """What an attempt came to; a database in trouble costs no event."""
        from orchclient.server.access import Forbidden
        from orchclient.server.orchestrator import StoreUnavailable, Unstorable

        try:
            with self.opened(deadline_s) as opened:
                return act(opened)
        except (StoreUnavailable, ConfigError) as error:
            if self._is_ended:
                raise Closed from None
            action = Action.PAUSE if _is_refusal(error) else Action.BACK_OFF
            return Verdict(action, self.said(error))
        except Unstorable as error:
            return Verdict(Action.BISECT, self.said(error))
        except Forbidden as error:
            return Verdict(Action.PAUSE, self.said(error))

    def source_report(self, source: str, *, deadline_s: float) -> SourceReport:
        """What the tables hold of an outbox (a UUID). Raises ``OrchClientError``."""
        try:
            with self.opened(deadline_s) as opened:
                held: Any = opened.orchestrator.report(f"urn:uuid:{source}")
        except OrchClientError as error:
            raise OrchClientError(self.said(error)) from None
        return SourceReport(held["highest"], tuple((first, last) for first, last in held["gaps"]))

    def trouble(self, deadline_s: float) -> str:
        """What keeps it from delivering, in words; empty when it could. Changes nothing."""
        from sqlalchemy.exc import SQLAlchemyError

        from orchclient.server.database import is_missing, make_engine

        if self._sessions is not None:
            return ""  # its application knows
        try:
            if is_missing(self._address()):
                return ""  # the first batch makes the file
            engine = make_engine(self._address(), connect_s=deadline_s)
            with engine.connect():
                return ""
        except (OrchClientError, SQLAlchemyError) as error:
            return self.said(getattr(error, "orig", None) or error)

    def close(self) -> None:
        """Cut what is under way, and close the connections."""
        self._is_ended = True
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def forget_inherited(self) -> None:
        """In a forked child: the parent's connections are kept, not used, not closed."""
        opened, self._opened = self._opened, None
        self._opening = threading.Lock()
        if opened is not None:
            self._left.append((opened, opened.engine.pool))
            if opened.cutter is None:
                opened.engine.dispose(close=False)  # an application's engine goes on with connections of its own

    def said(self, error: Exception) -> str:
        """An error as it may be shown: one line, without what is secret in the address."""
        return printable(self._secrets.redact_text(" ".join(str(error).split())))

    @contextmanager
    def opened(self, deadline_s: float = _CUT_S) -> Iterator[_Opened]:
        """The database, opened if need be; what takes longer than the deadline is cut. Raises ``OrchClientError``."""
        with self._opening:
            opened = self._opened = self._opened or self._open(deadline_s)
        with opened.still, opened.within(deadline_s):
            yield opened

    def _open(self, deadline_s: float) -> _Opened:
        with STILLNESS:  # a fork in the middle of an import leaves a lock behind
            import sqlalchemy.orm

            from orchclient.server.cutting import Cutter
            from orchclient.server.database import make_engine
            from orchclient.server.orchestrator import Orchestrator

            sqlalchemy.orm.configure_mappers()
        if self._sessions is not None:
            return _Opened(Orchestrator(self._sessions, mirror=self._mirror), _engine_of(self._sessions))
        engine = make_engine(self._address(), connect_s=deadline_s)
        opened = _Opened(None, engine, Cutter(engine))
        with opened.still, opened.within(deadline_s):
            return evolve(opened, made=Orchestrator.over(engine, mirror=self._mirror))

    def _address(self) -> URL:
        from orchclient.server.database import database_url

        assert self._url is not None
        return database_url(self._url.reveal(), f"the address of destination {self.name}")


@frozen
class _Opened:
    """An orchestrator over a database. Only what is ours is cut and closed: an application sees to its own engine."""

    made: Orchestrator | None
    engine: Engine
    cutter: Cutter | None = None

    @property
    def orchestrator(self) -> Orchestrator:
        assert self.made is not None
        return self.made

    @property
    def still(self) -> AbstractContextManager[None]:
        """SQLite's mutexes are the process's: a fork waits until nobody is inside. It need not wait for a server."""
        return STILLNESS if self._is_sqlite else nullcontext()

    def within(self, seconds: float) -> AbstractContextManager[None]:
        """A file answers or is busy, and SQLite counts that time itself; a server may say nothing for ever."""
        return nullcontext() if self.cutter is None or self._is_sqlite else self.cutter.within(seconds)

    def close(self) -> None:
        if self.cutter is not None:
            self.cutter.end()
            self.engine.dispose()

    @property
    def _is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"


def _engine_of(sessions: SessionFactory) -> Engine:
    with sessions() as session:
        return session.get_bind().engine


class DatabaseInbox:
    """The way back: the inbox's rows of this outbox, looked at four times a second while something is open."""

    longest_wait_s = LONG_POLL_S

    def __init__(self, sink: DatabaseSink) -> None:
        self._sink = sink

    def page(self, source: str, cursor: str, wait_s: float, cut: threading.Event) -> Heard:
        """What waits behind a cursor; deadlines that have passed are settled first."""
        name, until = f"urn:uuid:{source}", time.monotonic() + wait_s
        try:
            before = self._reach(name)  # first: what comes between the two looks is then seen by the next one
            found = self._page(name, cursor)
            if not found.items and self._waits(name, before, until, cut):
                found = self._page(name, cursor)
            return Heard(InboxState.POLLING, page=page_of(found.text.encode()))
        except PageRefused as error:
            return Heard(InboxState.WAITING, str(error))
        except Exception as error:  # noqa: BLE001  as a receiver that is in trouble: the next poll asks again
            return self._trouble(error)

    def _page(self, name: str, cursor: str) -> Page:
        with self._sink.opened() as opened:
            return opened.orchestrator.page(name, cursor, 0)

    def _reach(self, name: str) -> int:
        with self._sink.opened() as opened:
            return opened.orchestrator.reach(name)

    def _waits(self, name: str, before: int, until: float, cut: threading.Event) -> bool:
        """Wait until something was put into the inbox; false when nothing was in time."""
        while (left_s := until - time.monotonic()) > 0 and not cut.wait(min(LOOK_S, left_s)):
            if self._reach(name) != before:
                return True
        return False

    def acknowledge(self, source: str, cursor: str) -> Heard:
        """Everything up to the cursor is stored at this agent's."""
        try:
            with self._sink.opened() as opened:
                opened.orchestrator.acknowledge(f"urn:uuid:{source}", cursor)
        except Exception as error:  # noqa: BLE001  likewise
            return self._trouble(error)
        return Heard(InboxState.POLLING)

    def _trouble(self, error: Exception) -> Heard:
        return Heard(InboxState.WAITING, self._sink.said(error))


def _check_extras(name: str, url: str) -> None:
    wanted = ["sqlalchemy", "alembic", *(["psycopg"] if url.startswith("postgres") else [])]
    for module in wanted:
        if find_spec(module) is None:
            extra = _NEEDED[module]
            raise ConfigError(f"destination {name}: a database needs {module}: pip install 'orchclient[{extra}]'")


def _is_refusal(error: Exception) -> bool:
    """Whether somebody has to mend the settings: waiting does not help."""
    cause = getattr(error.__cause__, "orig", None)
    return isinstance(error, ConfigError) or (getattr(cause, "sqlstate", None) or "").startswith(_REFUSED)
