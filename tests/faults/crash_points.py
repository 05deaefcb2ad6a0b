"""Crash points: labelled moments of the product's work at which a process ends itself with SIGKILL.

Everything here happens in a test's child process, by wrapping the product's functions there; the product has no
trigger. Knows the product's inside, as the one place of these harnesses; not what is recorded or who judges.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

from attrs import frozen

from orchclient.core.http import HttpRequest
from orchclient.core.policy import Action, Fate, Item, Verdict
from orchclient.delivery import worker as delivery
from orchclient.delivery.election import Election
from orchclient.delivery.settlement import Exchange, Selection
from orchclient.delivery.transport import HttpTransport
from orchclient.delivery.worker import Worker
from orchclient.outbox import (
    bulk,
    carrying,
    checkpoints,
    cursors,
    folding,
    identity,
    journal,
    leadership,
    migrations,
    owed,
    retention,
    salvage,
    store,
)
from orchclient.outbox.checkpoints import Checkpoints
from orchclient.outbox.outbox import Outbox
from orchclient.outbox.rescue import Rescue
from orchclient.outbox.store import Store
from orchclient.outbox.writer import Writer
from orchclient.station import Station

from .crash_zygote import Voice

Pass = Callable[[], None]
Arm = Callable[[Pass], None]
Function = Callable[..., Any]
Condition = Callable[..., bool]


@frozen
class Tripwire:
    """Where to die: at the ``passes``-th time that the labelled moment comes.

    ``from_outside``: the process only says that it is there and goes on; the parent kills it a moment later.
    """

    label: str
    passes: int = 1
    from_outside: bool = False

    def lay(self, voice: Voice) -> None:
        """In this process, for good."""
        point = (POINTS | BIRTHS | RESCUES | DAMAGES | FLUSHES | IMPORTS)[self.label]
        point.arm(_Step(voice, self))


class _Step:
    """Counts passes, of any thread, and strikes once."""

    def __init__(self, voice: Voice, wire: Tripwire) -> None:
        self._voice = voice
        self._wire = wire
        self._passes = 0
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            self._passes += 1
            if self._passes != self._wire.passes:
                return
        self._voice.say("struck", self._wire.label)
        if not self._wire.from_outside:
            os.kill(os.getpid(), signal.SIGKILL)


# --- how a moment is marked -------------------------------------------------------------------------------------------


def _always(*_: Any, **__: Any) -> bool:
    return True


def _before(owner: Any, name: str, when: Condition = _always) -> Arm:
    """Just before the call of a function; ``when`` sees its arguments."""

    def arm(step: Pass) -> None:
        def marked(original: Function, *args: Any, **kwargs: Any) -> Any:
            if when(*args, **kwargs):
                step()
            return original(*args, **kwargs)

        _wrap(owner, name, marked)

    return arm


def _after(owner: Any, name: str, when: Condition = _always) -> Arm:
    """Just after a function returned; ``when`` sees the result and its arguments."""

    def arm(step: Pass) -> None:
        def marked(original: Function, *args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            if when(result, *args, **kwargs):
                step()
            return result

        _wrap(owner, name, marked)

    return arm


def _wrap(owner: Any, name: str, marked: Function) -> None:
    original = getattr(owner, name)

    @wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return marked(original, *args, **kwargs)

    setattr(owner, name, wrapped)


def _at_statement(beginning: str) -> Arm:
    """When SQLite begins a statement, on any connection that is opened from now on."""

    def arm(step: Pass) -> None:
        def marked(original: Function, *args: Any, **kwargs: Any) -> sqlite3.Connection:
            con: sqlite3.Connection = original(*args, **kwargs)
            con.set_trace_callback(lambda sql: step() if sql.startswith(beginning) else None)
            return con

        for opener in (store, checkpoints):
            _wrap(opener, "connect", marked)

    return arm


def _amid_migrations(step: Pass) -> None:
    """At each statement that a migration runs, its savepoints and bookkeeping included."""

    def marked(original: Function, con: sqlite3.Connection) -> None:
        con.set_trace_callback(lambda sql: step())
        original(con)
        con.set_trace_callback(None)

    _wrap(migrations, "_apply", marked)


def _is_post(_: Any, transport: HttpTransport, request: HttpRequest, **__: Any) -> bool:
    return request.method == "POST"


@frozen
class Point:
    """A labelled moment, and how often every process that works for a while surely comes to it."""

    arm: Arm
    often: int = 5


POINTS: dict[str, Point] = {
    "record: before the commit": Point(_before(journal.Append, "__call__")),
    "record: in a transaction with others": Point(
        _after(journal.Append, "__call__", lambda _, a, con: con.in_transaction)
    ),
    "record: committed, not returned": Point(
        _after(Writer, "run", lambda _, w, work, *a: isinstance(work, journal.Append))
    ),
    "delivery: elected": Point(_after(Election, "stand", lambda won, _: won), 1),
    "delivery: in the transaction of a new epoch": Point(_after(leadership, "begin_epoch"), 1),
    "delivery: a batch is read": Point(_after(Worker, "_select", lambda selection, _: bool(selection))),
    "delivery: sent, not settled": Point(_after(HttpTransport, "send", _is_post)),
    "delivery: in the settling transaction": Point(_after(delivery, "write_fates")),
    "delivery: settled": Point(_after(Worker, "_settle_events")),
    "checkpoint: before the pragma": Point(_at_statement("PRAGMA wal_checkpoint")),
    "checkpoint: after the pragma": Point(_after(Checkpoints, "_move")),
    "fold: before its writing": Point(_before(folding.Fold, "write")),
    "fold: in its transaction": Point(_after(folding.Fold, "write")),
    "prune: in a slice": Point(_after(retention, "prune")),
    "prune: between slices": Point(_before(retention, "prune", lambda con, after_seq, *_: after_seq > 0)),
    "prune: pages were given back": Point(_after(retention, "shrink", lambda pages, _: pages > 0), 2),
}
"""Moments in the life of an agent that records and delivers."""

BIRTHS: dict[str, Point] = {
    "migration: before a statement": Point(_amid_migrations, 30),
    "migration: done, no identity yet": Point(_before(identity, "ensure"), 1),
    "migration: identity given": Point(_after(identity, "ensure"), 1),
}
"""Moments in the making of a new file."""

RESCUES: dict[str, Point] = {
    "salvage: the loss is found": Point(_before(Store, "salvage"), 1),
    "salvage: the new file is open": Point(_after(Rescue, "_adopt"), 1),
    "salvage: copied, not committed": Point(_after(salvage, "_copy_events"), 1),
    "salvage: done": Point(_after(Store, "salvage"), 1),
}
"""Moments after the files were taken away."""

DAMAGES: dict[str, Point] = {
    "salvage of damage: noted": Point(_before(owed, "_move"), 1),
    "salvage of damage: renamed in part": Point(_after(owed, "_rename"), 3),
    "salvage of damage: set aside": Point(_after(salvage, "set_aside"), 1),
    "salvage of damage: copied, not committed": Point(_after(salvage, "copy_readable"), 1),
    "salvage of damage: committed, the note is left": Point(_before(owed, "settle"), 1),
}
"""Moments after damage was found in the file."""

FLUSHES: dict[str, Point] = {
    "delivery: in the transaction of a new epoch": Point(_after(leadership, "begin_epoch"), 1),
    "delivery: a batch is read": Point(_after(Worker, "_select", lambda selection, _: bool(selection)), 3),
    "delivery: sent, not settled": Point(_after(HttpTransport, "send", _is_post), 3),
    "delivery: in the settling transaction": Point(_after(delivery, "write_fates"), 3),
    "flush command: it has nudged": Point(_after(leadership, "nudge"), 1),
}
"""Moments of ``orchclient flush``."""

IMPORTS: dict[str, Point] = {
    "import: nothing of a slice is written": Point(_before(carrying, "take_in"), 4),
    "import: a slice's events are written": Point(_before(carrying, "_note_sources"), 4),
    "import: a slice is not committed": Point(_after(carrying, "take_in"), 4),
    "import: a slice is committed": Point(_after(Station, "take_in"), 4),
}
"""Moments of ``orchclient import``, beside those in the making of its file."""

# --- builds with a planted bug ----------------------------------------------------------------------------------------


def _acknowledge_before_the_commit(voice: Voice) -> None:
    def record(original: Function, outbox: Outbox, event: Any, *rest: Any) -> int:
        voice.say("ack", f"{event.id} 0 {event.task}")
        seq: int = original(outbox, event, *rest)
        return seq

    _wrap(Outbox, "record", record)


def _settle_before_the_answer(_: Voice) -> None:
    def attempt(original: Function, worker: Worker, selection: Selection) -> None:
        delivered = dict.fromkeys(bulk.ids_in(selection.to_send), Item(Fate.DELIVERED))
        worker._settle(Exchange(selection, Verdict(Action.SETTLE, items=delivered), worker.clock.now_us()))
        original(worker, selection)

    _wrap(Worker, "_attempt", attempt)


def _settle_in_two_transactions(_: Voice) -> None:
    def advance(original: Function, con: sqlite3.Connection, *rest: Any) -> bool:
        moved: bool = original(con, *rest)
        con.execute("COMMIT")
        con.execute("BEGIN IMMEDIATE")
        return moved

    _wrap(cursors, "advance", advance)


def _note_nothing(_: Voice) -> None:
    owed._write = lambda path, entries: None


def _take_in_in_two_transactions(_: Voice) -> None:
    def note_sources(original: Function, con: sqlite3.Connection, *rest: Any) -> None:
        con.execute("COMMIT")
        con.execute("BEGIN IMMEDIATE")
        original(con, *rest)

    _wrap(carrying, "_note_sources", note_sources)


BUILDS: dict[str, Callable[[Voice], None]] = {
    "as shipped": lambda _: None,
    "acknowledges before the commit": _acknowledge_before_the_commit,
    "settles before the answer": _settle_before_the_answer,
    "settles in two transactions": _settle_in_two_transactions,
    "notes nothing of what it sets aside": _note_nothing,
    "takes a slice in in two transactions": _take_in_in_two_transactions,
}
"""The product, and the planted bugs that the judge has to find."""
