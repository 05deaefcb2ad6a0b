"""A logging handler that turns what an agent logs as an error into escalations of a task. Off until it is added.

    logging.getLogger("my_agent").addHandler(EscalationHandler(task))

It never raises into the agent's logging and hears nothing that this package or its own work logs. Errors of one place
in the code are one trouble: at most one escalation of it a minute, which tells how many there were meanwhile.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from threading import local
from typing import Any, Protocol

from orchclient.core.errors import OrchClientError
from orchclient.core.exceptions import message_of
from orchclient.core.ids import checked_id
from orchclient.core.limits import ID_CHARS
from orchclient.delivery.clock import Clock, SystemClock

log = logging.getLogger("orchclient")

EVERY_S = 60.0
MOST_TROUBLES = 1000
"""Troubles that are kept apart; the one that was quiet for the longest time is forgotten."""

LOGGED_ERROR = "logged_error"
"""The error type of a record without an exception."""


class Escalating(Protocol):
    """A client of the synchronous surface."""

    def escalate_error(self, *args: Any, **kwargs: Any) -> Any:
        """Call for help."""

    def escalate_exception(self, *args: Any, **kwargs: Any) -> Any:
        """Call for help because of an exception."""


class _Trouble:
    """One place in the code: when it was escalated last, and what came since."""

    __slots__ = ("last_s", "latest", "missed")

    def __init__(self) -> None:
        self.last_s: float | None = None
        self.missed = 0
        self.latest: logging.LogRecord | None = None


class EscalationHandler(logging.Handler):
    """Escalates records for one task.

    :param client: the client of the agent (the synchronous one).
    :param task_id: the task that they belong to.
    :param level: ERROR, or another one.
    :param every_s: at most one escalation of one place in the code in so many seconds. ``flush()`` and ``close()``
        escalate what came since.
    :param fatal: whether the task becomes ``failed`` by it.
    """

    def __init__(
        self,
        client: Escalating,
        task_id: str,
        level: int = logging.ERROR,
        *,
        every_s: float = EVERY_S,
        fatal: bool = False,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(level)
        if inspect.iscoroutinefunction(client.escalate_error):
            raise TypeError("logging cannot await: give the handler a synchronous client on the same outbox")
        self._client = client
        self._task_id = checked_id("task_id", task_id)
        self._every_s = every_s
        self._fatal = fatal
        self._clock = clock or SystemClock()
        self._troubles: OrderedDict[str, _Trouble] = OrderedDict()
        self._here = local()
        self._has_failed = False

    def __repr__(self) -> str:
        return f"EscalationHandler({self._task_id!r}, {logging.getLevelName(self.level)})"

    def handle(self, record: logging.LogRecord) -> bool:
        """As logging does, but threads that log do not wait for each other's escalation."""
        passed: bool | logging.LogRecord = self.filter(record)
        if passed:
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return bool(passed)

    def emit(self, record: logging.LogRecord) -> None:
        """Escalate a record, or count it; whatever goes wrong is nothing to the agent's logging."""
        if record.name.partition(".")[0] == "orchclient" or getattr(self._here, "is_busy", False):
            return
        self._here.is_busy = True
        try:
            due = self._due(record)
            if due is not None:
                self._escalate(record, *due)
        except Exception as error:  # noqa: BLE001  of arguments that cannot be formatted, of a full disk ...
            self._tell_once(error)
        finally:
            self._here.is_busy = False

    def _due(self, record: logging.LogRecord) -> tuple[str, int] | None:
        """The trouble's key and how many records of it were not escalated; None when it is too early."""
        key, now_s = key_of(record), self._clock.monotonic()
        with self._alone():
            trouble = self._troubles.setdefault(key, _Trouble())
            self._troubles.move_to_end(key)
            if len(self._troubles) > MOST_TROUBLES:
                self._troubles.popitem(last=False)
            if trouble.last_s is not None and now_s - trouble.last_s < self._every_s:
                trouble.missed, trouble.latest = trouble.missed + 1, record
                return None
            missed, trouble.missed, trouble.last_s, trouble.latest = trouble.missed, 0, now_s, None
            return key, missed

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Logging's own lock of this handler, which a forked child gets anew."""
        self.acquire()
        try:
            yield
        finally:
            self.release()

    def _escalate(self, record: logging.LogRecord, key: str, missed: int) -> None:
        error = record.exc_info[1] if record.exc_info else None
        context: dict[str, Any] = {
            "logger": record.name,
            "level": record.levelname,
            "where": f"{record.pathname}:{record.lineno}",
            "function": record.funcName,
        }
        if missed:
            context["records_since_last"] = missed
        same: dict[str, Any] = {"context": context, "fatal": self._fatal, "dedup_key": key}
        if error is None:
            self._client.escalate_error(self._task_id, LOGGED_ERROR, _message(record), **same)
        else:
            self._client.escalate_exception(self._task_id, error, error_message=_message(record), **same)

    def flush(self) -> None:
        """Escalate what was counted and not told yet."""
        with self._alone():
            left = [(key, each.latest, each.missed) for key, each in self._troubles.items() if each.latest]
            for each in self._troubles.values():
                each.missed, each.latest = 0, None
        self._here.is_busy = True
        try:
            for key, record, missed in left:
                if record is not None:
                    self._escalate(record, key, missed - 1)
        except Exception as error:  # noqa: BLE001
            self._tell_once(error)
        finally:
            self._here.is_busy = False

    def close(self) -> None:
        """Escalate what was counted, and hear nothing any more."""
        self.flush()
        super().close()

    def _tell_once(self, error: Exception) -> None:
        if not self._has_failed:
            self._has_failed = True
            what = error if isinstance(error, OrchClientError) else f"{type(error).__name__}: {message_of(error)}"
            log.warning("%r: a record could not be escalated, nor may others be: %s", self, what)


def key_of(record: logging.LogRecord) -> str:
    """Names the place in the code where a record was made: its dedup_key."""
    return f"log:{record.name}:{os.path.basename(record.pathname)}:{record.lineno}"[:ID_CHARS]


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001  arguments that do not fit: the text as it stands tells most
        return str(record.msg)
