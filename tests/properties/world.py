"""The world of an outbox: agents that record, flushers that deliver, processes that die. It acts and remembers.

Drives the real code over real SQLite files; only time and the wire are fakes. Must not judge: the laws do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import define, field, frozen

from orchclient.core.timestamps import rfc3339
from orchclient.delivery.beating import Beating
from orchclient.delivery.worker import Worker
from orchclient.outbox import cursors, dead_letters, folding, identity, leadership, redelivery
from orchclient.outbox.cursors import SinkState
from orchclient.outbox.leadership import Holder
from orchclient.sinks.orchestrator import OrchestratorSink

from .clock import FakeClock
from .host import Host, Image, checkpoint, outbox_of
from .orchestrator import WELL, Answer, Event, Killed, Orchestrator, Wire
from .sayings import AGENTS, NOTICE, NOTICES, SAYINGS, TASKS, Saying, TaskModel, notice

SINKS = ("orchestrator", "mirror")
LONGEST_WAIT_S = 3_660.0  # an hour of Retry-After, or between probes, and a minute of back-off on top
MANY_TURNS = 300

Utterance = tuple[str, Saying]  # about which task, and what
Act = Callable[[], object]


@frozen
class Recorded:
    """One event: what the agent said, and the receipt it got."""

    id: str
    seq: int
    recorded_us: int
    task: str
    agent: str
    saying: Saying

    @property
    def is_notice(self) -> bool:
        """Whether the outbox said it."""
        return self.saying.type in NOTICES

    @property
    def missing(self) -> range:
        """The sequences that a notice says will not come."""
        if self.saying.type != NOTICE:
            return range(0)
        return range(self.saying.says["from"], self.saying.says["to"] + 1)


@define
class Model:
    """What the file must hold. ``journal`` has the event of each sequence in its place."""

    journal: list[Recorded] = field(factory=list)
    notes: set[int] = field(factory=set)  # rows of the caller's own table
    gaps: dict[str, set[int]] = field(factory=dict)  # by sink: what was pruned before it came

    def copy(self) -> Model:
        """This moment's model, which later steps do not change."""
        return Model(list(self.journal), set(self.notes), dict(self.gaps))

    def tasks(self) -> dict[str, TaskModel]:
        """The state of each task: everything that was said, in order."""
        tasks: dict[str, TaskModel] = {}
        for each in (each for each in self.journal if not each.is_notice):
            tasks.setdefault(each.task, TaskModel()).hear(each.agent, each.seq, each.saying.changes)
        return tasks


@frozen
class Flusher:
    """Who delivers to a sink, and in which agent's process."""

    who: int
    sink: str
    worker: Worker
    wire: Wire

    @property
    def is_told(self) -> bool:
        """Whether the capabilities were asked for, so that the next request carries events."""
        return self.wire.told is not None


class Rollback(Exception):
    """The agent's own reason to give a transaction up."""


class World:
    """One host with two agents, two destinations, and what is known of what was said."""

    def __init__(self, directory: Path, image: Image) -> None:
        self.clock = FakeClock()
        self.host = Host(directory, image, self.clock, AGENTS)
        self.model = Model()
        self.orchestrators = {name: Orchestrator(self.clock, self._judge) for name in SINKS}
        self.backup: tuple[Image, Model] | None = None
        self.stalled: list[Flusher] = []
        self._said: dict[str, Recorded] = {}  # by id: everything recorded, also what a restore took back
        self._flushers: dict[str, Flusher] = {}
        self._addresses = dict.fromkeys(SINKS, 0)
        self._notes = 0
        self.heartbeats = 0

    # --- agents speak ---------------------------------------------------------------------------------------------

    def record(self, who: int, utterances: Iterable[Utterance]) -> None:
        """Say one thing after the other; each receipt is a promise."""
        for utterance in utterances:
            self._acknowledge([self._say(who, utterance)])

    def record_together(self, who: int, utterances: Sequence[Utterance], *, commits: bool) -> None:
        """Say all of it and write a row of the caller's own in one transaction, which may be given up."""
        with suppress(Rollback):
            self._acknowledge(*self._transact(who, utterances, commits))

    def _say(self, who: int, utterance: Utterance) -> Recorded:
        task, saying = utterance
        receipt = saying.call(self.host.client(who), task)
        return Recorded(receipt.event_id, receipt.seq, receipt.recorded_us, task, AGENTS[who], saying)

    def _transact(self, who: int, utterances: Iterable[Utterance], commits: bool) -> tuple[list[Recorded], int]:
        self._notes += 1
        with self.host.client(who).transaction() as con:
            con.execute("INSERT INTO own VALUES (?)", (self._notes,))
            said = [self._say(who, utterance) for utterance in utterances]
            if not commits:
                raise Rollback
        return said, self._notes

    def hear_notices(self) -> None:
        """Take in what the outbox said by itself since the last look."""
        rows = self.host.reader.execute(
            "SELECT id, seq, recorded_us, task, agent, type, body FROM events WHERE seq > ? ORDER BY seq",
            (len(self.model.journal),),
        )
        for *known, type_, body in rows.fetchall():
            if type_ not in NOTICES:
                return
            each = Recorded(*known, notice(type_, json.loads("{" + body)["data"]))
            assert each.seq == len(self.model.journal) + 1, f"{each.seq} follows {len(self.model.journal)}"
            self._said[each.id] = each
            self.model.journal.append(each)

    def _unhear_notices(self) -> None:
        """What the outbox said after the moment of a crash never happened."""
        journal, kept = self.model.journal, self.host.kept_seqs()
        while journal and journal[-1].is_notice and journal[-1].seq not in kept:
            journal.pop()

    def _acknowledge(self, said: Iterable[Recorded], note: int | None = None) -> None:
        for each in said:
            self.hear_notices()
            if each.saying.type == "clarification.requested.v1" and self._asked_before(each):
                continue  # the same question: it was asked once
            assert each.seq == len(self.model.journal) + 1, f"{each.seq} follows {len(self.model.journal)}"
            assert each.id not in self._said, f"the id {each.id} was handed out twice"
            self._said[each.id] = each
            self.model.journal.append(each)
        self.model.notes |= {note} if note else set()

    def _asked_before(self, each: Recorded) -> bool:
        """Whether it is the question that an agent asked before: it is asked once, under the first one's id."""
        return any(
            (known.id, known.task, known.saying) == (each.id, each.task, each.saying) for known in self.model.journal
        )

    def _judge(self, event: Event) -> str | None:
        """What is wrong with an event that an orchestrator sees for the first time."""
        if event["id"] not in self._said:
            self.hear_notices()
        said = self._said.get(event["id"])
        if said is None:
            return "nobody said that"
        expected = {
            "specversion": "1.0",
            "sequence": f"{said.seq:020d}",
            "type": f"dev.orchclient.{said.saying.type}",
            "subject": said.task,
            "partitionkey": said.task,
            "agentid": said.agent,
            "priority": said.saying.priority,
            "time": rfc3339(said.recorded_us),
        }
        found = {member: event.get(member) for member in expected}
        data = {member: event["data"].get(member) for member in said.saying.says}
        if found != expected or data != said.saying.says or event["data"].get("task_id", said.task) != said.task:
            return f"it says {found} {data}, but {expected} {said.saying.says} was said"
        return None

    # --- flushers deliver -----------------------------------------------------------------------------------------

    def deliver(self, flusher: Flusher, greeting: Answer, script: Iterable[Answer], *, patient: bool = True) -> None:
        """Turns until the script is used up, nothing is left, or (without patience) something must wait."""
        orchestrator = self.orchestrators[flusher.sink]
        orchestrator.hand_over = lambda: self._take_over(flusher)
        orchestrator.meanwhile = lambda: self._go_on_elsewhere(flusher)
        try:
            with self._scripted(flusher, greeting, script):
                self._turn(flusher, patient)
        except Killed:
            self.host.kill(flusher.who)
            self.depose(flusher.who)

    @contextmanager
    def _scripted(self, flusher: Flusher, greeting: Answer, script: Iterable[Answer]) -> Iterator[None]:
        """The next requests are answered so; what is not used up is dropped."""
        orchestrator = self.orchestrators[flusher.sink]
        orchestrator.script.extend(script if flusher.is_told else (greeting, *script))
        try:
            yield
        finally:
            orchestrator.script.clear()
            orchestrator.hand_over = orchestrator.meanwhile = lambda: None

    def _turn(self, flusher: Flusher, patient: bool) -> None:
        script = self.orchestrators[flusher.sink].script
        for _ in range(2 * len(script) + 2):
            wait_s = flusher.worker.turn() if script else None
            if wait_s is None:
                return
            assert wait_s <= LONGEST_WAIT_S, f"{flusher.sink} waits for {wait_s} s"
            if wait_s and not patient:
                return
            self.clock.wait(wait_s)

    def _take_over(self, flusher: Flusher) -> None:
        """While one flusher waits for its answer, another process is elected and delivers."""
        self.orchestrators[flusher.sink].hand_over = lambda: None
        with suppress(Killed):
            self._turn(self.elect(1 - flusher.who, flusher.sink), patient=False)

    def _go_on_elsewhere(self, flusher: Flusher) -> None:
        """While one flusher waits for its answer, the other agent records and the other destination is served."""
        self.record(1 - flusher.who, [(TASKS[0], SAYINGS[0])])
        (elsewhere,) = set(SINKS) - {flusher.sink}
        self.leader(elsewhere).worker.turn()

    def leader(self, sink: str) -> Flusher:
        """Who delivers to a sink; the first agent's process when nobody does."""
        leader = self._flushers.get(sink)
        return leader if leader and not leader.worker.is_stale else self.elect(0, sink)

    def elect(self, who: int, sink: str) -> Flusher:
        """Another process delivers from now on; the one that did is stalled. What ``delivery.runner`` does."""
        if sink in self._flushers:
            self.stalled.append(self._flushers[sink])
        outbox = outbox_of(self.host.client(who))
        dialect = OrchestratorSink(f"https://{sink}{self._addresses[sink]}.example", lambda: "token", name=sink)
        holder = Holder(1, "host", AGENTS[who], self.clock.now_us())
        now_us = self.clock.now_us()
        self.hear_notices()
        if cursors.sink(self.host.reader, sink) is None:
            self.model.gaps[sink] = set(range(1, len(self.model.journal) + 1)) - self.host.kept_seqs()
        outbox.write(lambda con: cursors.add_sink(con, sink, dialect.kind, dialect.target, now_us, from_beginning=True))
        epoch = outbox.write(lambda con: leadership.begin_epoch(con, sink, holder))
        wire = Wire(self.orchestrators[sink])
        worker = Worker(outbox, dialect, wire, self.clock, epoch)
        row = outbox.query(lambda con: cursors.sink(con, sink))
        assert row is not None
        worker.resume(row)
        self._flushers[sink] = Flusher(who, sink, worker, wire)
        return self._flushers[sink]

    def depose(self, *whos: int) -> None:
        """These processes are gone, and with them their flushers."""
        self._flushers = {name: each for name, each in self._flushers.items() if each.who not in whos}
        self.stalled = [each for each in self.stalled if each.who not in whos]

    def readdress(self, sink: str) -> None:
        """An operator configures another address of the same orchestrator."""
        self._addresses[sink] += 1
        self.elect(0, sink)

    def dislike(self, sink: str, picks: Iterable[int], *, poisoned: bool) -> None:
        """An orchestrator will refuse some of the events it has not got yet."""
        orchestrator = self.orchestrators[sink]
        pending = [each.id for each in self.model.journal if each.id not in orchestrator.kept]
        disliked = {pending[pick] for pick in picks if pick < len(pending)}
        (orchestrator.poisoned if poisoned else orchestrator.unwanted).update(disliked)

    def resend(self, sink: str, first: int, last: int) -> None:
        """An operator has delivered events sent again: as far as can be by the cursor, else by the desk.

        Not once the outbox has another source: sent again, they come under it, as new events to the receiver.
        """
        client = self.host.client(0)
        if len(client._station.query(identity.identities).sources) == 1:
            redelivery.resend(client._station, sink, [(first, last)], self.clock.now_us())

    def retry(self, sink: str, task: str | None) -> None:
        """An operator has dead letters sent again."""
        dead_letters.retry(self.host.client(0)._station, sink, dead_letters.Chosen(task), self.clock.now_us())

    # --- somebody keeps house -------------------------------------------------------------------------------------

    def keep_house(self, who: int, chore: str, step: int) -> None:
        """One of the chores, in one process."""
        client = self.host.client(who)
        outbox = outbox_of(client)
        chores: dict[str, Act] = {
            "keep house": lambda: (outbox.keep_house(), self._beat(who)),
            "fold": lambda: outbox.write(outbox.query(lambda con: folding.fold(con, step)).write),
            "prune": lambda: outbox.prune(recorded_before_us=self.clock.now_us()),
            "checkpoint": lambda: checkpoint(client),
            "sync": outbox.sync,
        }
        chores[chore]()

    def _beat(self, who: int) -> None:
        """Tell how the outbox stands, wherever something is delivered; what ``delivery.housekeeper`` does."""
        outbox = outbox_of(self.host.client(who))
        known = outbox.query(lambda con: [row.name for row in cursors.sinks(con)])
        self.heartbeats += Beating(outbox, self.clock, AGENTS[who], 0.0).beat(known)

    # --- processes end --------------------------------------------------------------------------------------------

    def end(self, who: int) -> None:
        """One process closes its client and is gone."""
        self.host.end(who)
        self.depose(who)

    def kill(self, who: int) -> None:
        """One process is killed."""
        self.host.kill(who)
        self.depose(who)

    def crash(self, image: Image | None = None) -> None:
        """All processes are killed, now or when ``image`` was taken."""
        self.host.crash(image)
        self.depose(*range(len(AGENTS)))
        self._unhear_notices()

    def crash_during(self, who: int, statement: int, act: Act) -> None:
        """All processes die just before a statement of ``act``; what it wrote from there on never happened."""
        self.crash(self.host.image_during(who, statement, act))

    def crash_during_record(self, who: int, statement: int, utterance: Utterance) -> None:
        """As ``crash_during``: the event was not acknowledged, so it is there or not."""
        said: list[Recorded] = []
        self.crash_during(who, statement, lambda: said.append(self._say(who, utterance)))
        self.hear_notices()
        if self.host.last_seq() > len(self.model.journal):
            self._acknowledge(said)

    def crash_during_transaction(self, who: int, statement: int, utterances: Sequence[Utterance]) -> None:
        """As ``crash_during``: all of the transaction is there, or nothing."""
        done: list[tuple[list[Recorded], int]] = []
        self.crash_during(who, statement, lambda: done.append(self._transact(who, utterances, commits=True)))
        self.hear_notices()
        # By the caller's row: a question that was asked before is no new event.
        if self.host.reader.execute("SELECT 1 FROM own WHERE note = ?", (self._notes,)).fetchone():
            self._acknowledge(*done[0])

    def crash_during_delivery(self, flusher: Flusher, statement: int, answer: Answer) -> None:
        """As ``crash_during``, in a turn with one exchange of events."""
        with suppress(Killed), self._scripted(flusher, WELL, [answer]):
            self.crash_during(flusher.who, statement, flusher.worker.turn)

    # --- files are put back ---------------------------------------------------------------------------------------

    def back_up(self) -> None:
        """Somebody copies the file."""
        self.hear_notices()
        self.backup = self.host.image(), self.model.copy()

    def restore(self) -> None:
        """Somebody puts the copy back, but only when what is newer was delivered: else they lose it themselves."""
        assert self.backup
        self.hear_notices()
        image, model = self.backup
        newer = {each.id for each in self.model.journal[len(model.journal) :]}
        if not newer or any(newer - orchestrator.kept.keys() for orchestrator in self.orchestrators.values()):
            return
        self.crash(image)
        self.model = model.copy()
        for orchestrator in self.orchestrators.values():
            orchestrator.forgive_order()

    # --- all is well ----------------------------------------------------------------------------------------------

    def heal(self) -> None:
        """Nothing goes wrong any more, and everything is delivered, in bounded time."""
        for sink in SINKS:
            self.orchestrators[sink].heal()
            if any(row.name == sink and row.state is SinkState.DISABLED for row in cursors.sinks(self.host.reader)):
                self.readdress(sink)
            self._rest(self.leader(sink).worker)
        for sink in SINKS:
            self._rest(self.leader(sink).worker)  # what was said of the other's gaps
        self.hear_notices()

    def _rest(self, worker: Worker) -> None:
        for _ in range(MANY_TURNS):
            wait_s = worker.turn()
            if wait_s is None:
                return
            assert wait_s <= LONGEST_WAIT_S, f"{worker.sink.name} waits for {wait_s} s"
            self.clock.wait(wait_s)
        raise AssertionError(f"{worker.sink.name} never comes to rest")
