"""Programs that use the real client under the disk shim, and note in its journal what they were promised.

    python -m tests.faults.power_workloads WORKLOAD DIRECTORY SEED [PLANTED_BUG]

What a call means for durability and for its task is written here from the design (section 2, P1, and section 7), not
asked of the code: that is what is to be judged.
"""

from __future__ import annotations

import errno
import math
import os
import random
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from attrs import define, evolve, field

from orchclient import OrchestratorClient, OutboxFull
from orchclient.core.events import Receipt
from orchclient.delivery import housekeeper
from orchclient.outbox import (
    bulk,
    compaction,
    connection,
    files,
    folding,
    gaps,
    gate,
    journal,
    limits,
    outbox,
    owed,
    retention,
)
from orchclient.outbox.commits import Commits
from orchclient.testing.faultplan import Fault, Rule
from tests.faults.disk_control import Kind, fail, note
from tests.faults.orchestrator_wire import REFUSAL, URL, OrchestratorWire

WAIT_S = 20.0


# --- an agent -------------------------------------------------------------------------------------------------------


@define
class Agent:
    """Talks at random about tasks of its own, and notes what each call that returned was about."""

    client: OrchestratorClient
    name: str
    rng: random.Random
    tasks: tuple[str, ...]
    always_synced: bool = False
    statuses: dict[str, str] = field(factory=dict)
    calls: int = 0
    _held: list[dict[str, Any]] | None = None

    def talk(self, times: int) -> None:
        """So many calls, mostly progress."""
        for _ in range(times):
            task = self.rng.choice(self.tasks)
            verb = self.rng.choices((self.progress, self.ask, self.complete, self.escalate), (8, 1, 1, 1))[0]
            verb(task)

    def progress(self, task: str, status: str | None = None) -> str:
        """A status update: a promise at once if the status is another one than before, within a second otherwise."""
        status = status or self.rng.choices((self.statuses.get(task, "in_progress"), "testing"), (6, 1))[0]
        is_change = self.statuses.get(task) != status
        percent, step, metadata = self.rng.randint(-5, 105), f"step {self.calls}", self._metadata()
        receipt = self.client.update_task_status(task, status, metadata, percent, step)
        told = {"status": status, "progress": min(max(percent, 0), 100), "step": step, "metadata": metadata}
        return self._returned(receipt, task, told, synced=is_change)

    def talk_of_what_matters(self) -> None:
        """What an outbox at its limit still takes, as long as the reserve lasts."""
        with suppress(OutboxFull):
            self.rng.choice((self.ask, self.complete, self.escalate))(self.tasks[1])

    def _metadata(self) -> dict[str, Any]:
        size = self.rng.choice((0, 10, 500, 5_000))
        return {"call": self.calls, f"key {self.rng.randrange(3)}": self.rng.randbytes(size).hex()}

    def ask(self, task: str) -> None:
        """A question."""
        asked = self.client.request_clarification(task, "Which one?", context={"call": self.calls})
        told = {"status": "clarification_needed", "step": "Waiting for clarification"}
        self._returned(asked.receipt, task, told, synced=True)

    def complete(self, task: str) -> None:
        """A result."""
        completion = self.client.report_completion(task, None, {"tests_passed": 3, "tests_failed": 1})
        told = {"status": "completed", "progress": 100, "step": "Completed - awaiting review"}
        self._returned(completion.receipt, task, told, synced=True)

    def escalate(self, task: str) -> None:
        """A call for help; every other one leaves the task as it is."""
        fatal = self.rng.random() < 0.5
        escalation = self.client.escalate_error(task, "database_connection", "gone", fatal=fatal)
        self._returned(escalation.receipt, task, {"status": "failed"} if fatal else {}, synced=True)

    def _returned(self, receipt: Receipt, task: str, told: Mapping[str, Any], *, synced: bool) -> str:
        self.calls += 1
        self.statuses |= {task: told["status"]} if "status" in told else {}
        about = {"id": receipt.event_id, "seq": receipt.seq, "agent": self.name, "task": task, "told": told}
        note_of_it = {"returned": about, "synced": synced or self.always_synced}
        if self._held is None:
            note(**note_of_it)
        else:
            self._held.append(note_of_it)
        return receipt.event_id

    @contextmanager
    def holding_notes(self) -> Iterator[None]:
        """Calls inside are promises only when the block has ended, and then power loss may not take them."""
        self._held = held = []
        yield
        self._held = None
        for each in held:
            note(**each | {"synced": True})


@define
class Place:
    """Where a workload works, and its chance."""

    directory: Path
    rng: random.Random

    @property
    def outbox(self) -> Path:
        """The outbox file."""
        return self.directory / "outbox.db"

    @contextmanager
    def agent(self, name: str = "a", tasks: int = 3, **settings: Any) -> Iterator[Agent]:
        """An agent with a client of its own, closed afterwards."""
        settings.setdefault("mode", "offline")
        settings.setdefault("outbox", self.outbox)
        settings.setdefault("min_free_bytes", 1)  # scratch file systems are small
        with OrchestratorClient(name, **settings) as client:
            always = settings.get("durability") == "full" or settings.get("background") is False
            names = tuple(f"{name}/{n}" for n in range(tasks))
            yield Agent(client, name, random.Random(self.rng.random()), names, always)


# --- a receiver -----------------------------------------------------------------------------------------------------


def _receiver(place: Place) -> dict[str, Any]:
    """Settings of a client whose receiver notes its answers before it gives them.

    Every thirteenth event is refused, tasks whose name ends in 1 are put off in every third request that has them, from
    the first on, every tenth answer is lost. All by turns, so that no run goes without.
    """
    requests, turns = count(1), count()

    def rules() -> Sequence[Rule]:
        decided: list[bool] = []

        def is_put_off(event: Mapping[str, Any]) -> bool:
            if not event["subject"].endswith("1"):
                return False
            if not decided:
                decided.append(next(turns) % 3 == 0)
            return decided[0]

        return *REFUSAL, *Fault.retry(is_put_off).rules

    def told(events: Sequence[dict[str, Any]], answers: dict[str, str]) -> None:
        note(answered=answers, kept=[event for event in events if answers[event["id"]] == "accepted"])

    wire = OrchestratorWire(rules=rules, told=told, loses_answer=lambda: next(requests) % 10 == 8)
    return {"mode": "online", "url": URL, "transport": lambda: wire}


# --- workloads ------------------------------------------------------------------------------------------------------


def record_auto(place: Place) -> None:
    """Progress and everything else, over two starts of the agent."""
    for _ in range(2):
        with place.agent() as agent:
            agent.talk(60)


def record_full(place: Place) -> None:
    """The same with every event synced."""
    with place.agent(durability="full") as agent:
        agent.talk(80)


def record_in_threads(place: Place) -> None:
    """Four threads that commit together."""
    with place.agent() as agent:
        alike = [evolve(agent, rng=random.Random(n), tasks=(f"t{n}/0", f"t{n}/1"), statuses={}) for n in range(4)]
        _together([lambda each=each: each.talk(25) for each in alike])  # type: ignore[misc]


def record_in_processes(place: Place) -> None:
    """Three processes on one file."""
    seeds = [place.rng.random() for _ in range(3)]
    children = []
    for n, seed in enumerate(seeds):
        child = os.fork()
        if not child:
            with Place(place.directory, random.Random(seed)).agent(f"p{n}") as agent:
                agent.talk(30)
            os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def record_in_company(place: Place) -> None:
    """Another process is at work: the -wal is synced behind the lock, by calls and by threads that share a commit."""
    with place.agent() as agent:
        _in_company(agent)
        agent.talk(60)
        alike = [evolve(agent, rng=random.Random(n), tasks=(f"t{n}/0", f"t{n}/1"), statuses={}) for n in range(4)]
        _together([lambda each=each: each.talk(10) for each in alike])  # type: ignore[misc]


def _in_company(agent: Agent) -> None:
    """What a process believes for a second after it met another one that commits."""
    agent.client._station._outbox._writer.commits._met_until = math.inf


def record_by_turns(place: Place) -> None:
    """Two clients that speak of one task by turns: what one believes of its status, the other has changed."""
    with place.agent("a") as first, place.agent("b") as second:
        second.statuses = first.statuses  # what is true, whoever said it
        for _ in range(25):
            speaker = place.rng.choice((first, second))
            speaker.progress("shared", place.rng.choice(("in_progress", "testing")))


def record_in_transactions(place: Place) -> None:
    """Events together with rows of the caller's own: which event each belongs to."""
    with place.agent("own") as agent:
        with agent.client.transaction() as con:
            con.execute("CREATE TABLE IF NOT EXISTS own_rows (event TEXT)")
        for _ in range(25):
            agent.talk(place.rng.randrange(3))
            with agent.holding_notes(), agent.client.transaction() as con:
                for _ in range(place.rng.randrange(4)):
                    con.execute("INSERT INTO own_rows VALUES (?)", (agent.progress("own rows", "testing"),))


def record_while_syncs_fail(place: Place) -> None:
    """Now and then a sync of the -wal fails once, as when a disk has a bad moment."""
    with place.agent() as agent:
        for _ in range(10):
            agent.talk(4)
            fail(Kind.SYNC, 1, errno.EIO, part="-wal")


def record_in_company_while_syncs_fail(place: Place) -> None:
    """The same, where what fails is a sync of our own: the event is in the file, and may not be promised yet."""
    with place.agent() as agent:
        _in_company(agent)
        for _ in range(10):
            agent.talk(4)
            fail(Kind.SYNC, 1, errno.EIO, part="-wal")


def checkpoint_while_syncs_fail(place: Place) -> None:
    """Any sync fails once now and then, of the database too, while another process has the files open."""
    outbox.LOOK_AFTER, outbox.CHECKPOINT_AFTER, outbox.CHECKPOINT_MYSELF_AFTER, limits.SOME_EVENTS = 4, 6, 9, 0
    with place.agent(background=False) as agent, place.agent("beside", background=False) as beside:
        for _ in range(12):
            for each in (agent, beside):
                each.talk(6)
                each.progress(each.tasks[0], each.statuses.get(each.tasks[0]))
            fail(Kind.SYNC, place.rng.randint(1, 3), errno.EIO, part="outbox.db")


def flush(place: Place) -> None:
    """Record and deliver to an orchestrator that refuses, puts off, and whose answers get lost."""
    with place.agent(tasks=4, **_receiver(place)) as agent:
        for _ in range(6):
            agent.talk(15)
            agent.client.flush(0.3)


def checkpoint(place: Place) -> None:
    """The -wal is moved into the database every few commits, by the recording thread and by the housekeeper."""
    outbox.LOOK_AFTER, outbox.CHECKPOINT_AFTER, outbox.CHECKPOINT_MYSELF_AFTER, limits.SOME_EVENTS = 4, 6, 9, 0
    with place.agent() as agent:
        agent.talk(120)


def fold(place: Place) -> None:
    """Tasks and tallies are folded every few events."""
    outbox.LOOK_AFTER, limits.SOME_EVENTS = 2, 0
    folding.STEP, folding.SMALL_STEP, folding.BEHIND_AT_MOST = 5, 3, 6
    with place.agent(tasks=5) as agent:
        agent.talk(100)


def prune(place: Place) -> None:
    """Delivered events are forgotten at once, in small slices, and pages are given back."""
    outbox.LOOK_AFTER, limits.SOME_EVENTS = 2, 0
    folding.STEP, folding.SMALL_STEP, folding.BEHIND_AT_MOST = 5, 3, 6
    housekeeper.PRUNE_EVERY_S, retention.SLICE, retention.VACUUM_PAGES = 0.0, 7, 4
    note(prunes=True)
    with place.agent(tasks=4, retention=0, **_receiver(place)) as agent:
        for _ in range(6):
            agent.talk(20)
            agent.client.flush(0.3)


def make_room(place: Place) -> None:
    """An outbox at its limit: progress that later progress supersedes is folded before anything is refused."""
    outbox.LOOK_AFTER, limits.SOME_EVENTS, compaction.SHORTEST = 2, 0, 2
    note(prunes=True)
    with place.agent(tasks=2, background=False, max_pending=60) as agent:
        for _ in range(10):
            with suppress(OutboxFull):
                for _ in range(12):
                    agent.progress("a/0", "in_progress")
            agent.talk_of_what_matters()


def migrate(place: Place) -> None:
    """The first creation, in a directory that has to be made, over and over."""
    for n in range(5):
        below = place.directory / f"state {n}" / "agent"
        note(outbox=str(below / "outbox.db"))
        with Place(below, place.rng).agent(f"a{n}", background=False) as agent:
            agent.talk(3)


def salvage(place: Place) -> None:
    """Files are taken away under a recording client, in every way that they can be."""
    _lose_files(place, _take_all, _take_database, _take_wal, _put_another_there)


def salvage_from_rubbish(place: Place) -> None:
    """The same, and what stands there afterwards is no outbox."""
    _lose_files(place, _put_rubbish_there)


def salvage_of_damage(place: Place) -> None:
    """A page that holds no event is overwritten while nobody has the file open and the newest ones are in the -wal."""
    for _ in range(3):
        with place.agent(background=False) as agent:
            agent.talk(6)
        child = os.fork()
        if not child:
            with place.agent("b", background=False) as ends_at_once:
                ends_at_once.talk(6)
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        note(file_damaged=True)
        _overwrite_a_page(place)
    with place.agent(background=False) as agent:
        agent.talk(4)


def _overwrite_a_page(place: Place) -> None:
    with closing(sqlite3.connect(f"file:{place.outbox}?mode=ro&immutable=1", uri=True)) as con:
        root = con.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'attempts'").fetchone()[0]
    file = os.open(place.outbox, os.O_WRONLY)
    os.pwrite(file, place.rng.randbytes(owed.PAGE), (root - 1) * owed.PAGE)
    os.close(file)


def _lose_files(place: Place, *takers: Callable[[Place], None]) -> None:
    with place.agent() as agent:
        for take in takers * 2:
            agent.talk(8)
            note(files_taken=take.__name__)
            take(place)
            agent.talk(4)


def pause(place: Place) -> None:
    """Bursts of progress, then silence of more than a second."""
    with place.agent(tasks=1) as agent:
        for _ in range(3):
            for _ in range(place.rng.randint(2, 6)):
                agent.progress("a/0", "in_progress")
            _see_time_pass(1.5)


def _together(acts: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=act) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()


def _see_time_pass(seconds: float) -> None:
    """Nothing happens for a while. Notes how late this machine was, so that its lateness is not counted as ours."""
    import time

    tick_s = 0.02
    never = threading.Event()
    until = time.monotonic() + seconds
    while (began := time.monotonic()) < until:
        never.wait(tick_s)
        late_s = time.monotonic() - began - tick_s
        if late_s > tick_s:
            note(machine_late_s=late_s)


def _remove(place: Place, *endings: str) -> None:
    for ending in endings:
        Path(f"{place.outbox}{ending}").unlink(missing_ok=True)


def _take_all(place: Place) -> None:
    _remove(place, "-wal", "-shm", "")


def _take_database(place: Place) -> None:
    _remove(place, "")


def _take_wal(place: Place) -> None:
    _remove(place, "-wal")


def _put_another_there(place: Place) -> None:
    other = Place(place.directory / "other", place.rng)
    with other.agent("stranger", background=False) as stranger:
        receipt = stranger.client.update_task_status("stranger/0", "assigned")
        about = {"id": receipt.event_id, "seq": 1, "agent": "stranger", "task": "stranger/0"}
        note(elsewhere={**about, "told": {"status": "assigned"}})
    _take_all(place)
    os.rename(other.outbox, place.outbox)


def _put_rubbish_there(place: Place) -> None:
    _take_all(place)
    place.outbox.touch(0o600)
    place.outbox.write_bytes(b"rubbish " * 600)


def recover(place: Place) -> None:
    """What an agent does that starts again after a power cut: looks, records a little, ends. For each directory."""
    for directory in sorted(place.directory.iterdir()):
        inodes = {str(path): path.stat().st_ino for path in directory.iterdir()}
        note(inodes=inodes, recovers=str(directory))
        with Place(directory, place.rng).agent(directory.name) as agent:
            note(seen=[event_id for (event_id,) in agent.client._station.query(_all_ids)])
            agent.talk(4)


def _all_ids(con: sqlite3.Connection) -> list[tuple[str]]:
    return con.execute("SELECT id FROM events").fetchall()


WORKLOADS: dict[str, Callable[[Place], None]] = {
    each.__name__: each
    for each in (
        record_auto,
        record_full,
        record_in_threads,
        record_in_processes,
        record_in_company,
        record_by_turns,
        record_in_transactions,
        record_in_company_while_syncs_fail,
        record_while_syncs_fail,
        checkpoint_while_syncs_fail,
        flush,
        checkpoint,
        fold,
        prune,
        make_room,
        migrate,
        salvage,
        salvage_from_rubbish,
        salvage_of_damage,
        pause,
        recover,
    )
}


# --- planted bugs: what the harness must find -----------------------------------------------------------------------


def synced_events_as_normal() -> None:
    """What must be synced is committed with synchronous=NORMAL."""
    _always("NORMAL")


def promises_before_the_sync() -> None:
    """In company a call returns when it is committed, and not when it is synced."""
    Commits._sync = lambda self: None  # type: ignore[method-assign]


def nothing_synced() -> None:
    """synchronous=OFF everywhere, in checkpoints too."""
    _always("OFF")
    connection._EACH["synchronous"] = 0


def _always(synchronous: str) -> None:
    def prepared(self: Commits, synced: bool) -> Any:
        con = self._store.connection()
        con.execute(f"PRAGMA synchronous={synchronous}")
        return con

    Commits._prepared = prepared  # type: ignore[method-assign]


def commits_outside_the_gate() -> None:
    """Nobody takes the lock of the gate."""
    gate.flock = lambda fd, operation: None  # type: ignore[attr-defined]


def trusts_a_sync_after_a_failed_one() -> None:
    """What a failed sync could not write is not written again."""
    files.write_again = lambda wal_path: None


def changes_not_synced() -> None:
    """A change of status that another client made in between is not noticed."""
    journal.Known.meet_foreign_events = lambda self, seq: None  # type: ignore[method-assign]


def never_synced_late() -> None:
    """Nobody syncs a trailing progress update."""
    housekeeper.SYNC_AFTER_S = 1000.0


def settles_before_the_answer() -> None:
    """The cursor moves before the receiver answered."""
    from orchclient.core.policy import Action, Fate, Item, Verdict
    from orchclient.delivery.worker import Worker

    attempt = Worker._attempt

    def early(self: Any, selection: Any) -> Any:
        items = dict.fromkeys(bulk.ids_in(selection.to_send), Item(Fate.DELIVERED))
        from orchclient.delivery.settlement import Exchange

        self._settle(Exchange(selection, Verdict(Action.SETTLE, items=items), self.clock.now_us()))
        return attempt(self, selection) and None

    Worker._attempt = early  # type: ignore[method-assign]


def _taken(owed: list[Any]) -> Iterator[Any]:
    """What is owed, each by one thread."""
    with suppress(IndexError):
        while True:
            yield owed.pop()


def parks_in_two_steps() -> None:
    """An event is put on the desk in one transaction and counted before the next, which may be a while later."""
    from orchclient.outbox import desk

    count = desk._count
    owed: list[tuple[str, str, int]] = []
    desk._count = lambda con, sink, column, change: owed.append((sink, column, change))

    write = outbox.Outbox.write

    def twice(self: Any, work: Any, *, synced: bool = False) -> Any:
        for change in _taken(owed):
            write(self, lambda con, change=change: count(con, *change), synced=synced)
        return write(self, work, synced=synced)

    outbox.Outbox.write = twice  # type: ignore[method-assign]


def prunes_what_is_pending() -> None:
    """Pruning does not ask what is delivered."""
    retention.prunable_seq = lambda con: journal.last_seq(con) - 1


def folds_superseded_in_two_steps() -> None:
    """Superseded progress goes in one transaction, and its row of the ledger comes in the next."""
    add = gaps.add
    owed: list[Any] = []
    gaps.add = lambda *gap: owed.append(gap)  # type: ignore[assignment]
    write = outbox.Outbox.write

    def twice(self: Any, work: Any, *, synced: bool = False) -> Any:
        result = write(self, work, synced=synced)
        for gap in _taken(owed):
            write(self, lambda con, gap=gap: add(con, *gap[1:]), synced=synced)
        return result

    outbox.Outbox.write = twice  # type: ignore[method-assign]


def folds_in_two_steps() -> None:
    """Tasks are written in one transaction, and up to where in the next."""
    from orchclient.outbox.outbox import Outbox

    def fold(self: Any, step: int) -> bool:
        change = self.query(lambda con: folding.fold(con, step))
        if change.to_seq - change.from_seq < step:
            return False
        place = "UPDATE meta SET value = ? WHERE key = 'folded_seq'"
        self.write(lambda con: con.execute(place, (change.to_seq,)) and None)
        self.write(lambda con: con.execute(place, (change.from_seq,)) and change.write(con))
        return True

    Outbox._fold = fold  # type: ignore[method-assign]


def salvages_nothing() -> None:
    """Files that were taken away are replaced by new ones, and that is all."""
    from orchclient.outbox import salvage as rescue

    rescue.copy_undelivered = lambda ghost, con, source, now_us: 0


def forgets_what_it_owes_before_the_commit() -> None:
    """The note of what was set aside goes before its events are in the new file."""
    from orchclient.outbox.rescue import Rescue

    entries = Rescue._owed

    def forgotten(self: Rescue) -> Any:
        found = entries(self)
        for entry in (*found[0], *found[1]):
            owed.settle(self._store.path, entry)
        return found

    Rescue._owed = forgotten  # type: ignore[method-assign]


def transactions_in_two_steps() -> None:
    """An event inside the caller's transaction is committed before the caller's own statements."""
    write = journal.Append.__call__

    def early(self: journal.Append, con: sqlite3.Connection) -> int:
        seq = write(self, con)
        if con.in_transaction:
            con.execute("COMMIT")
            con.execute("BEGIN IMMEDIATE")
        return seq

    journal.Append.__call__ = early  # type: ignore[method-assign]


PLANTED_BUGS: dict[str, Callable[[], None]] = {
    each.__name__: each
    for each in (
        synced_events_as_normal,
        promises_before_the_sync,
        nothing_synced,
        commits_outside_the_gate,
        trusts_a_sync_after_a_failed_one,
        changes_not_synced,
        never_synced_late,
        settles_before_the_answer,
        parks_in_two_steps,
        prunes_what_is_pending,
        folds_superseded_in_two_steps,
        folds_in_two_steps,
        salvages_nothing,
        forgets_what_it_owes_before_the_commit,
        transactions_in_two_steps,
    )
}


def main(workload: str, directory: str, seed: str, planted_bug: str = "") -> None:
    """Run one workload, with a bug planted if one is named."""
    if planted_bug:
        PLANTED_BUGS[planted_bug]()
    WORKLOADS[workload](Place(Path(directory), random.Random(int(seed))))


if __name__ == "__main__":
    main(*sys.argv[1:])
