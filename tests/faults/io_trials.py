"""Trials of the real client on a disk that fails at one operation: once, or from then on until it is mended.

    python -m tests.faults.io_trials WORKLOAD DIRECTORY STEP [PLANTED_BUG]

Runs under the disk shim, all faults of one workload in one process: each fault at the 1st, the 1 + STEP-th ...
operation that it can hit, until there is no such operation any more. Prints a line of JSON when a trial begins and one
with what was broken when it has ended, so that whoever reads them knows also where a process died or hung.
"""

from __future__ import annotations

import errno
import faulthandler
import json
import math
import re
import shutil
import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from traceback import extract_tb
from typing import Any

from attrs import define, field, frozen

from orchclient import OrchestratorClient
from orchclient.core.errors import OutboxError, OutboxFull
from orchclient.delivery import housekeeper, runner
from orchclient.outbox import (
    checkpoints,
    commits,
    connection,
    folding,
    journal,
    limits,
    outbox,
    rescue,
    retention,
    store,
)
from orchclient.outbox.commits import Commits
from tests.faults import disk_control
from tests.faults.disk_control import CHANGES, Kind, Manner
from tests.faults.orchestrator_wire import URL, OrchestratorWire

HANG_S = 25.0
ARRIVE_S = 15.0
ARRIVE_WITH_BUG_S = 2.0
STORES = Kind.OPEN | Kind.WRITE | Kind.TRUNCATE | Kind.MAKE | Kind.RENAME
CURE = re.compile(r"[:;.] .*\b(free|check|make|set|run|open|try|raise|mount|move|see)\b", re.IGNORECASE)


@frozen
class Fault:
    """Which operations fail, how, and with which error."""

    kinds: Kind
    error: int
    manner: Manner

    def begin(self, nth: int, part: str) -> None:
        """From now on."""
        disk_control.fail(self.kinds, nth, self.error, self.manner, part)


FAULTS: dict[str, Fault] = {
    "ENOSPC once": Fault(STORES, errno.ENOSPC, Manner.ONCE),
    "ENOSPC for ever": Fault(STORES, errno.ENOSPC, Manner.FOR_EVER),
    "ENOSPC after a short write, once": Fault(Kind.WRITE, errno.ENOSPC, Manner.SHORT_ONCE),
    "ENOSPC after a short write, for ever": Fault(Kind.WRITE, errno.ENOSPC, Manner.SHORT_FOR_EVER),
    "EDQUOT once": Fault(STORES, errno.EDQUOT, Manner.ONCE),
    "EDQUOT for ever": Fault(STORES, errno.EDQUOT, Manner.FOR_EVER),
    "EIO once": Fault(CHANGES | Kind.LOOK | Kind.LOCK, errno.EIO, Manner.ONCE),
    "EIO for ever": Fault(CHANGES | Kind.LOOK | Kind.LOCK, errno.EIO, Manner.FOR_EVER),
    "EIO at a sync, once": Fault(Kind.SYNC, errno.EIO, Manner.ONCE),
    "EIO at a sync, for ever": Fault(Kind.SYNC, errno.EIO, Manner.FOR_EVER),
    "EIO at a read, once": Fault(Kind.READ, errno.EIO, Manner.ONCE),
    "EIO at a read, for ever": Fault(Kind.READ, errno.EIO, Manner.FOR_EVER),
    "EROFS once": Fault(STORES | Kind.UNLINK, errno.EROFS, Manner.ONCE),
    "EROFS for ever": Fault(STORES | Kind.UNLINK, errno.EROFS, Manner.FOR_EVER),
    "EMFILE once": Fault(Kind.OPEN, errno.EMFILE, Manner.ONCE),
    "EMFILE for ever": Fault(Kind.OPEN, errno.EMFILE, Manner.FOR_EVER),
    "a short write, nothing else": Fault(Kind.WRITE, 0, Manner.HALF),
}


@define
class Trial:
    """One workload with one fault: what was called, what came of it, and what is wrong with that."""

    directory: Path
    wire: OrchestratorWire = field(factory=OrchestratorWire)
    returned: list[str] = field(factory=list)  # ids of events whose call returned
    refused: int = 0
    broken: list[str] = field(factory=list)
    arrived: Counter[str] = field(factory=Counter)  # by id, how often the orchestrator accepted it
    _news: threading.Condition = field(factory=threading.Condition)
    _calls: int = 0

    def __attrs_post_init__(self) -> None:
        self.wire.told = self._hear

    def _hear(self, events: Sequence[dict[str, Any]], answers: dict[str, str]) -> None:
        with self._news:
            self.arrived.update(id_ for id_, answer in answers.items() if answer == "accepted")
            self._news.notify_all()

    @property
    def path(self) -> Path:
        """The outbox."""
        return self.directory / "outbox.db"

    def open(self, **settings: Any) -> OrchestratorClient | None:
        """A client; None when the outbox refused to be opened."""
        settings = {"url": URL, "transport": lambda: self.wire, "min_free_bytes": 1, "background": False} | settings
        return self.attempt(lambda: OrchestratorClient("a", outbox=self.path, **settings))

    def attempt(self, act: Callable[[], Any], *, must: bool = False) -> Any:
        """What an act returned; None when it was refused in the way that it may be. Anything else is noted."""
        try:
            return act()
        except OutboxError as error:
            self.refused += 1
            self._judge_refusal(error, must)
        except Exception as error:
            where = [f"{frame.name} ({Path(frame.filename).name})" for frame in extract_tb(error.__traceback__)]
            self.broken.append(f"raised {error!r} in {', '.join(where[-4:])}")
        return None

    def _judge_refusal(self, error: OutboxError, must: bool) -> None:
        text = str(error)
        if must:
            self.broken.append(f"still refused after the disk was mended: {text}")
        if str(self.path) not in text or not CURE.search(text):
            self.broken.append(f"a message without path or cure: {text}")
        if "disk is full" in text and not isinstance(error, OutboxFull):
            self.broken.append(f"a full disk that is no OutboxFull: {error!r}")

    def record(self, client: OrchestratorClient | None, times: int = 1, *, must: bool = False) -> None:
        """So many events, every third one synced."""
        for _ in range(times):
            if client is None:
                return
            receipt = self.attempt(self._call(client), must=must)
            self.returned += [receipt.event_id] if receipt else []

    def _call(self, client: OrchestratorClient) -> Callable[[], Any]:
        self._calls += 1
        step, task = f"call {self._calls}", f"t{self._calls % 2}"
        if self._calls % 3:
            return lambda: client.update_task_status(task, "testing", current_step=step)
        return lambda: client.escalate_error(task, "e", step, fatal=False)

    def wait_until_all_arrived(self) -> None:
        """Nobody calls: the threads of the client have to go on by themselves."""
        wanted = set(self.returned)
        with self._news:
            if not self._news.wait_for(lambda: wanted <= set(self.arrived), ARRIVE_S):
                self.broken.append(f"{len(wanted - set(self.arrived))} events were never delivered")

    def judge(self) -> None:
        """All that must hold when the disk is well again and the client has delivered and ended."""
        with closing(sqlite3.connect(self.path)) as con:
            said = con.execute("PRAGMA integrity_check").fetchone()[0]
            rows = con.execute("SELECT seq, id, body FROM events ORDER BY seq").fetchall()
            sinks = con.execute("SELECT cursor - start_seq - parked - dead - expired, expired FROM sinks").fetchall()
        if said != "ok":
            self.broken.append(f"integrity_check: {said}")
        stored = {id_ for _, id_, _ in rows}
        held = stored | set(self.arrived)
        steps = Counter(step for _, _, body in rows for step in re.findall(r'"(call \d+)"', body))
        last = rows[-1][0] if rows else 0
        self._expect(set(self.returned) <= held, f"lost: {set(self.returned) - held}")
        self._expect(set(self.returned) <= set(self.arrived), "not delivered")
        self._expect(stored <= set(self.arrived), "kept and not delivered")
        self._expect(not [step for step, count in steps.items() if count > 1], f"recorded twice: {steps}")
        self._expect(max(self.arrived.values(), default=0) <= 1, "accepted twice")
        self._expect(all(each == (last, 0) for each in sinks), f"delivered and expired: {sinks}")
        self._expect(not list(self.directory.glob("*.damaged-*")), "a sound file was set aside")
        self._expect(last == len(held), f"{last} places for {len(held)} events")

    def _expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.broken.append(otherwise)


# --- workloads ------------------------------------------------------------------------------------------------------
# Each prepares, then yields once; what follows meets the fault. It returns the client that has to go on afterwards.

Workload = Callable[[Trial, Callable[[], None]], OrchestratorClient | None]


def open_new(trial: Trial, break_disk: Callable[[], None]) -> OrchestratorClient | None:
    """A new outbox, in a directory that has to be made too."""
    trial.directory = trial.directory / "state" / "agent"
    break_disk()
    client = trial.open()
    trial.record(client)
    return client


def open_existing(trial: Trial, break_disk: Callable[[], None]) -> OrchestratorClient | None:
    """An outbox that is there, and was closed."""
    _leave_outbox(trial)
    break_disk()
    client = trial.open()
    trial.record(client)
    return client


def _leave_outbox(trial: Trial) -> None:
    client = trial.open()
    trial.record(client, 3, must=True)
    assert client is not None
    client.flush(5.0)
    trial.record(client, 2, must=True)
    client.close(0)


def record_auto(trial: Trial, break_disk: Callable[[], None]) -> OrchestratorClient | None:
    """One thread; progress is synced later."""
    return _recorded(trial, break_disk, mode="offline", background=True)


def record_full(trial: Trial, break_disk: Callable[[], None]) -> OrchestratorClient | None:
    """One thread, every event synced."""
    return _recorded(trial, break_disk, durability="full")


def _recorded(trial: Trial, break_disk: Callable[[], None], **settings: Any) -> OrchestratorClient | None:
    client = trial.open(**settings)
    trial.record(client, 2)
    break_disk()
    trial.record(client, 8)
    return client


def record_alone(trial: Trial, break_disk: Callable[[], None]) -> OrchestratorClient | None:
    """Without any reader, opening anew recovers the -wal: a commit that failed at its sync comes back as stored."""
    client = trial.open(durability="full")
    trial.record(client, 2)
    assert client is not None
    for reader in client._station._outbox._store._readers._idle:  # type: ignore[union-attr]
        reader.close()
    client._station._outbox._store._readers._idle.clear()  # type: ignore[union-attr]
    break_disk()
    trial.record(client, 5)
    return client


def record_in_company(trial: Trial, break_disk: Callable[[], None]) -> OrchestratorClient | None:
    """Another process is at work, so each commit is synced when the file was let go."""
    client = trial.open(durability="full")
    trial.record(client, 2)
    if client is not None:
        client._station._outbox._writer.commits._met_until = math.inf  # type: ignore[union-attr]
    break_disk()
    trial.record(client, 8)
    return client


def record_in_groups(trial: Trial, break_disk: Callable[[], None]) -> OrchestratorClient | None:
    """Four threads that share commits."""
    client = trial.open(durability="full")
    trial.record(client)
    break_disk()
    threads = [threading.Thread(target=trial.record, args=(client, 4)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return client


def deliver(trial: Trial, break_disk: Callable[[], None]) -> OrchestratorClient | None:
    """Flush by hand: election, reading, settling."""
    client = trial.open()
    trial.record(client, 6)
    break_disk()
    trial.attempt(lambda: client and client.flush(0.2))
    return client


def deliver_behind(trial: Trial, break_disk: Callable[[], None]) -> OrchestratorClient | None:
    """Threads deliver and keep house while the agent records."""
    client = trial.open(background=True)
    trial.record(client, 2)
    break_disk()
    for _ in range(6):
        trial.record(client)
        with trial._news:
            trial._news.wait(0.002)
    return client


def checkpoint(trial: Trial, break_disk: Callable[[], None]) -> OrchestratorClient | None:
    """Checkpoints every few commits."""
    client = trial.open()
    trial.record(client, 4)
    break_disk()
    trial.record(client, 12)
    return client


def prune(trial: Trial, break_disk: Callable[[], None]) -> OrchestratorClient | None:
    """Delivered events are forgotten."""
    client = trial.open()
    assert client is not None
    trial.record(client, 12)
    client.flush(5.0)
    box = client._station._outbox  # type: ignore[union-attr]
    box.keep_house()
    break_disk()
    trial.attempt(lambda: box.prune(recorded_before_us=retention.EVERYTHING))
    trial.record(client, 2)
    return client


def look(trial: Trial, break_disk: Callable[[], None]) -> OrchestratorClient | None:
    """Questions: nothing is to be stored."""
    client = trial.open()
    assert client is not None
    trial.record(client, 4)
    break_disk()
    for question in (client.get_communication_stats, client.health, lambda: client.task_state("t0")) * 3:
        trial.attempt(question)
    return client


def close(trial: Trial, break_disk: Callable[[], None]) -> OrchestratorClient | None:
    """The end of a client, with threads and progress that is not synced; a new one goes on."""
    client = trial.open(background=True)
    trial.record(client, 4)
    break_disk()
    trial.attempt(lambda: client and client.close(0.2))
    trial.attempt(lambda: client and client.close(0.2))
    return None


WORKLOADS: dict[str, Workload] = {
    each.__name__: each
    for each in (
        open_new,
        open_existing,
        record_auto,
        record_full,
        record_alone,
        record_in_company,
        record_in_groups,
        deliver,
        deliver_behind,
        checkpoint,
        prune,
        look,
        close,
    )
}


# --- planted bugs: what the judge must find -------------------------------------------------------------------------


def swallows_errors_of_a_commit() -> None:
    """A commit that failed is taken for one that did not."""
    commit = Commits.commit

    def swallowing(self: Commits, *work: Any) -> Any:
        try:
            return commit(self, *work)
        except OutboxError:
            return 1

    Commits.commit = swallowing  # type: ignore[method-assign]


def tries_again_without_looking() -> None:
    """A commit that raised, and is in the file all the same, is taken for one that stored nothing."""
    commit, recover = Commits.commit, store.Store.recover
    errors: list[BaseException] = []

    def noting(self: store.Store, error: sqlite3.Error, **how: bool) -> None:
        errors.append(error)
        recover(self, error, **how)

    def again(self: Commits, work: Any, *rest: Any) -> Any:
        errors.clear()
        result = commit(self, work, *rest)
        if errors and isinstance(work, journal.Append):
            work.has_run = False
            result = commit(self, work, *rest)
        return result

    store.Store.recover = noting  # type: ignore[method-assign]
    Commits.commit = again  # type: ignore[method-assign]


def lets_errors_of_sqlite_out() -> None:
    """What SQLite says reaches the caller as it is."""
    for module in (commits, store, checkpoints, rescue):
        module.translated = _untranslated  # type: ignore[attr-defined]


class _untranslated:  # noqa: N801
    def __init__(self, path: str) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


def takes_a_read_error_for_damage() -> None:
    """Files are set aside as soon as SQLite calls them malformed, which it does when they cannot be read."""
    recover = store.Store.recover
    rescue.Rescue._sound_after_all = lambda self, found: None  # type: ignore[method-assign]
    store.Store._open_damaged = lambda self, error: self._rescue().replace_damaged(error, None)  # type: ignore[method-assign]

    def asked(self: store.Store, question: Any) -> Any:
        with connection.translated(self.path):
            try:
                return self._readers.ask(question)
            except sqlite3.DatabaseError as error:
                recover(self, error, is_certain=True)
                return self._readers.ask(question)

    store.Store.query = asked  # type: ignore[method-assign]


def delivers_until_the_first_error() -> None:
    """A thread that meets an error ends."""
    runner.Runner._step_safely = runner.Runner._step  # type: ignore[method-assign]
    threading.excepthook = lambda args: None


PLANTED_BUGS: dict[str, Callable[[], None]] = {
    each.__name__: each
    for each in (
        swallows_errors_of_a_commit,
        tries_again_without_looking,
        lets_errors_of_sqlite_out,
        takes_a_read_error_for_damage,
        delivers_until_the_first_error,
    )
}


# --- the sweep ------------------------------------------------------------------------------------------------------


def make_hasty() -> None:
    """What happens every thousand events or every second happens at once, so that a short trial sees it."""
    runner.AFTER_ERROR_S = runner.STAND_AGAIN_S = 0.01
    housekeeper.SYNC_AFTER_S, housekeeper.LOOK_EVERY_S, housekeeper.PRUNE_EVERY_S = 0.01, 0.005, 3600.0
    outbox.LOOK_AFTER, outbox.CHECKPOINT_AFTER, outbox.CHECKPOINT_MYSELF_AFTER, limits.SOME_EVENTS = 3, 4, 6, 0
    folding.STEP, folding.SMALL_STEP, folding.BEHIND_AT_MOST = 4, 3, 5


def sweep(workload: str, directory: Path, step: int, *, until_broken: bool) -> None:
    """Every fault at every ``step``-th operation that it can hit; ``until_broken``: a first finding is enough."""
    for name, fault in FAULTS.items():
        nth, hits = 1, 1
        while hits:
            say(begins=f"{workload}, {name}, operation {nth}")
            faulthandler.dump_traceback_later(HANG_S, exit=True)
            trial = Trial(directory / f"{len(name)}-{nth}")
            trial.directory.mkdir(mode=0o700)
            hits = _tried(WORKLOADS[workload], trial, fault, nth)
            faulthandler.cancel_dump_traceback_later()
            say(hits=hits, returned=len(trial.returned), refused=trial.refused, broken=trial.broken)
            shutil.rmtree(directory / f"{len(name)}-{nth}")
            if trial.broken and until_broken:
                return
            nth += step


def _tried(workload: Workload, trial: Trial, fault: Fault, nth: int) -> int:
    client = workload(trial, lambda: fault.begin(nth, str(trial.directory)))
    hits = disk_control.hits()
    disk_control.mend()
    if fault.manner is Manner.HALF and trial.refused:
        trial.broken.append("refused because of a short write, which is no error")
    if workload is look and fault.manner is Manner.ONCE and trial.refused:
        trial.broken.append("a question was not asked again after one bad moment")
    if workload in (deliver_behind, record_auto) and client is not None:
        if workload is deliver_behind:
            trial.wait_until_all_arrived()
        trial.record(client, 2, must=True)
        client.close(0)
        client = None
    if client is None:
        client = trial.open()
        trial.attempt(lambda: client and client.task_state("t0"), must=True)
    trial.record(client, 2, must=True)
    trial.attempt(lambda: client and client.flush(10.0), must=True)
    trial.attempt(lambda: client and client.close(0), must=True)
    trial.judge()
    return hits


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def main(workload: str, directory: str, step: str, planted_bug: str = "") -> None:
    """Sweep one workload, with a bug planted if one is named."""
    global ARRIVE_S
    make_hasty()
    if planted_bug:
        ARRIVE_S = ARRIVE_WITH_BUG_S
        PLANTED_BUGS[planted_bug]()
    sweep(workload, Path(directory), int(step), until_broken=bool(planted_bug))
    say(done=workload)


if __name__ == "__main__":
    main(*sys.argv[1:])
